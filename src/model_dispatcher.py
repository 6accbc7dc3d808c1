"""A name -> a fresh network: images in [0, 1] (N, channels, H, W) of any size -> logits (N, C, H, W), no sigmoid.

`smp_<architecture>_<encoder>` names every pair that segmentation_models_pytorch builds. Mean and standard deviation are
buffers of the network, so they travel with its weights. Each call builds anew: a network shared by folds would start
fold 1 from weights that have seen its validation images.
"""

import difflib
import os
import socket
import threading
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import UserError

DIVISOR = 32  # sides that every architecture accepts


class Segmenter(nn.Module):
    """Normalises, pads to multiples of 32 by repeating the border, runs `body` and crops its logits back."""

    def __init__(self, body: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) in [0, 1] -> logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        below, right = -height % DIVISOR, -width % DIVISOR
        x = (images - self.mean) / self.std
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        return self.body(x)[..., :height, :width]


def parse(name: str) -> tuple[str, str]:
    """`smp_unet_resnet34` -> ("unet", "resnet34"). Raises UserError with the nearest names."""
    import segmentation_models_pytorch as smp

    architectures = [cls.__name__.lower() for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()]
    prefix, _, rest = name.partition("_")
    architecture, _, encoder = rest.partition("_")
    if prefix != "smp" or not encoder:
        raise UserError(f"MODEL_NAME={name}: expected smp_<architecture>_<encoder>, such as smp_unet_resnet34.")
    if architecture not in architectures:
        raise UserError(
            f"MODEL_NAME={name}: smp has no architecture {architecture}.{_near(architecture, architectures)} "
            f"It has: {', '.join(architectures)}."
        )
    return architecture, encoder


def _near(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Did you mean {', '.join(matches)}?" if matches else ""


def _encoder_names(encoder: str) -> list[str]:
    """What a mistyped encoder may have meant: timm's names for tu-, smp's own otherwise."""
    if encoder.startswith("tu-"):
        import timm

        return [f"tu-{name}" for name in timm.list_models()]
    import segmentation_models_pytorch as smp

    return smp.encoders.get_encoder_names()


def build(
    name: str,
    *,
    classes: int = 1,
    channels: int = 3,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    encoder_weights: str = "none",
    weights_folder: str = "input/weights",
) -> Segmenter:
    """A fresh network of that name, its encoder from `encoder_weights`: none, imagenet, or a .safetensors or .pth file.

    `imagenet` uses <weights_folder>/<encoder>.safetensors where `make weights` has put it, and the Hugging Face hub
    otherwise. Raises UserError: unknown names, pairs that smp does not build (with its reason), weights that are not
    there.
    """
    architecture, encoder = parse(name)
    if len(mean) != channels or len(std) != channels:
        raise UserError(
            f"The images have {channels} channels, but MODEL_MEAN has {len(mean)} values and MODEL_STD {len(std)}. "
            "NORMALISE=measured takes what make folds measured."
        )
    packed = packed_weights(encoder, weights_folder)
    file = packed if encoder_weights == "imagenet" and packed.is_file() else None
    if encoder_weights not in ("none", "imagenet"):
        file = Path(encoder_weights)
        if not file.is_file():
            raise UserError(
                f"ENCODER_WEIGHTS={encoder_weights}: no such file; "
                "expected imagenet, none, or a .safetensors or .pth file."
            )
    download = encoder_weights == "imagenet" and file is None
    if download:
        refuse_offline(encoder, packed)
    body = _create(name, architecture, encoder, classes, channels, packed if download else None)
    if file:
        load_encoder(body.encoder, file)
    return Segmenter(body, mean, std)


def _create(
    name: str, architecture: str, encoder: str, classes: int, in_channels: int, download_for: Path | None
) -> nn.Module:
    """smp's network; `download_for` is where the packed weights would be, where they are to be downloaded instead."""
    import segmentation_models_pytorch as smp

    weights = None if download_for is None else True if encoder.startswith("tu-") else "imagenet"
    extra = {"dynamic_img_size": True} if architecture == "dpt" else {}  # a ViT takes one size only otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tutorials' timm- names are deprecated in smp, and work
        try:
            return smp.create_model(
                architecture, encoder, encoder_weights=weights, in_channels=in_channels, classes=classes, **extra
            )
        except Exception as error:  # smp and timm raise what they like; their reason is the message
            known = _encoder_names(encoder)
            if download_for and encoder in known and not isinstance(error, KeyError):
                raise UserError(
                    _ways_out(encoder, download_for, f"could not be downloaded ({type(error).__name__})")
                ) from error
            reason = str(error).split("supported encoders")[0].strip(" '\",`\n") or type(error).__name__
            hint = _near(encoder, known) if encoder not in known else ""
            raise UserError(f"MODEL_NAME={name}: smp cannot build it ({reason[:300]}).{hint}") from error


def _ways_out(encoder: str, packed: Path, what: str) -> str:
    return (
        f"ENCODER_WEIGHTS=imagenet: the weights of {encoder} {what}. Three ways out:\n"
        f"  where there is a network: make weights MODEL_NAME=..., then copy {packed} here\n"
        "  a file that you have:     ENCODER_WEIGHTS=path/to/encoder.safetensors (or .pth)\n"
        "  from random weights:      ENCODER_WEIGHTS=none"
    )


def packed_weights(encoder: str, weights_folder: str) -> Path:
    """Where `make weights` keeps an encoder's ImageNet weights."""
    return Path(weights_folder) / f"{encoder}.safetensors"


def refuse_offline(encoder: str, packed: Path, seconds: float = 1.5) -> None:
    """Raise UserError with the three ways out where the hub cannot be reached.

    The hub's client would retry for 24 to 47 s.
    """
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if offline or proxied:
        return  # the hub's client answers at once from its cache, or goes where we cannot look
    reached = threading.Event()

    def connect() -> None:
        try:
            with socket.create_connection((address.hostname, address.port or 443), timeout=seconds):
                reached.set()
        except OSError:
            return  # not reached; the event stays unset

    thread = threading.Thread(target=connect, daemon=True)  # looking the name up has no time limit of its own
    thread.start()
    thread.join(seconds)
    if not reached.is_set():
        raise UserError(_ways_out(encoder, packed, f"are not here, and {address.hostname} cannot be reached"))


def load_encoder(encoder: nn.Module, file: Path) -> None:
    """Load weights into an encoder; a classifier's head (fc, classifier, ...) in the file is left out.

    The first layer of RGB is summed or repeated for other channels. Raises UserError where the file is broken or is
    another network's.
    """
    state = read_weights(file)
    own = encoder.state_dict()
    if not any(key in own for key in state):
        for prefix in ("encoder.", "body.encoder.", "model.", "module."):
            if any(key.startswith(prefix) and key.removeprefix(prefix) in own for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
                break
    state = {key: _for_channels(value, own[key]) if key in own else value for key, value in state.items()}
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or wrong:
        key = (missing or wrong)[0]
        what = (
            f"lacks {len(missing)} of {len(own)} tensors, such as {key}"
            if missing
            else f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        )
        raise UserError(f"{file}: not the weights of this encoder; it {what}.")
    encoder.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def _for_channels(weight: Tensor, own: Tensor) -> Tensor:
    """A kernel of RGB (O, 3, h, w) for `own`'s channels, such that a grey picture gets the same answer (smp's rule)."""
    channels = own.shape[1] if own.ndim == 4 else 0
    of_rgb = weight.ndim == 4 and weight.shape[1] == 3 and weight.shape[2:] == own.shape[2:]
    if not of_rgb or channels == 3:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [index % 3 for index in range(channels)]] * (3 / channels)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file, by name; code in a .pth is never run. Raises UserError."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated, a text, a pickle that wants to run code, ...
        kind = "a .safetensors file" if file.suffix == ".safetensors" else "a .pth file that holds tensors only"
        raise UserError(f"{file}: not readable as weights; expected {kind} ({type(error).__name__}).") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file}: expected a dict of tensors, as torch.save(model.state_dict()) writes it.")
    return state

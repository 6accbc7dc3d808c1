"""A fresh network from a name: images in [0, 1] (N, channels, H, W) of any size -> logits (N, C, H, W), no sigmoid.

`smp_<architecture>_<encoder>` names every pair that segmentation_models_pytorch builds, `unet` the plain U-Net, and
`unetify_<timm name>` or `unetify_tv-<torchvision name>` a U-Net around a backbone. Mean and standard deviation are
buffers of the network, so they travel with its weights. Each call builds anew: a network shared by folds would start
fold 1 from weights that have seen its validation images.
"""

import functools
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeling import frame_sizes, unet, weights_source
from modeling.backbones import near
from modeling.encoder_weights import load_encoder, load_tensors, packed_weights, ways_out
from modeling.frame_sizes import Frames, Options, Size
from modeling.segmenter import IMAGENET, Normalization, Segmenter, with_blocks
from tools.errors import UserError

SUPERVISABLE = "unet, unetify_..., smp_unet_..., smp_linknet_... and smp_manet_..."


def parse(name: str) -> tuple[str, str]:
    """Return architecture and encoder: `smp_unet_resnet34` -> ("unet", "resnet34"). Raises UserError with near names.

    unetify_<timm name> -> ("unetify", "tu-<timm name>"), as smp calls timm's encoders, whose packed weights it shares;
    unetify_tv-<torchvision name> -> ("unetify", "tv-<torchvision name>"); unet -> ("plain", "").
    """
    prefix, _, rest = name.partition("_")
    if name == "unet":
        return "plain", ""
    if not re.fullmatch(r"[\w.+-]+", name):  # timm would fetch hf-hub:someone/model, and open local-dir:/some/folder
        raise UserError(f"MODEL_NAME={name!r}: expected letters, digits and . _ + - only, such as smp_unet_resnet34.")
    if prefix == "unetify" and rest:
        return "unetify", rest if rest.startswith("tv-") else f"tu-{rest}"
    architecture, _, encoder = rest.partition("_")
    if prefix != "smp" or not encoder:
        raise UserError(
            f"MODEL_NAME={name}: expected smp_<architecture>_<encoder>, such as smp_unet_resnet34, unet, "
            "unetify_<timm name>, such as unetify_convnext_tiny, or unetify_tv-<torchvision name>."
        )
    import segmentation_models_pytorch as smp

    architectures = [cls.__name__.lower() for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()]
    if architecture not in architectures:
        raise UserError(
            f"MODEL_NAME={name}: smp has no architecture {architecture}.{near(architecture, architectures)} "
            f"It has: {', '.join(architectures)}."
        )
    return architecture, encoder


def _encoder_names(encoder: str) -> list[str]:
    """Return what a mistyped encoder may have meant: timm's names for tu-, smp's own otherwise."""
    if encoder.startswith("tu-"):
        import timm

        return [f"tu-{name}" for name in timm.list_models()]
    import segmentation_models_pytorch as smp

    return smp.encoders.get_encoder_names()


@dataclass(frozen=True)
class Decoder:
    """What can be chosen of a network beside its name."""

    max_features: int = 512  # of the plain unet, at its bottom
    deep_supervision: int = 0  # how many coarser levels are trained too


def build(
    name: str,
    *,
    classes: int = 1,
    channels: int = 3,
    normalization: Normalization = IMAGENET,
    encoder_weights: str = "none",
    weights_folder: str = "input/weights",
    decoder: Decoder = Decoder(),
    size: Size = (256, 256),
) -> Segmenter:
    """Build a fresh network of that name; `encoder_weights`: none, imagenet, or a .safetensors or .pth file.

    `imagenet` is the first source that modeling.weights_source finds, `weights_folder` before all. `size`: height
    and width of the frames that it is for, and if it can be made for any size, of no matter. Raises UserError: unknown
    names, pairs that smp does not build (with its reason), backbones without features or not for that size,
    weights that are not there, a decoder without so many levels.
    """
    architecture, encoder = parse(name)
    means, deviations = len(normalization.mean), len(normalization.std)
    if means != channels or deviations != channels:
        raise UserError(
            f"The images have {channels} channels, but MODEL_MEAN has {means} values and MODEL_STD {deviations}. "
            "NORMALIZE=measured takes what make folds measured."
        )
    source = source_of_weights(name, encoder_weights, weights_folder)
    fetched = source is not None and source.kind in ("cache", "hub")  # by the library that builds the network
    download_for = packed_weights(encoder, weights_folder) if fetched else None
    frames = frames_of(name, channels, size)
    body: nn.Module
    with weights_source.from_cache_alone(source):
        if architecture == "plain":
            body = unet.plain(channels=channels, classes=classes, max_features=decoder.max_features)
        elif architecture == "unetify":
            body = unet.unetify(
                encoder, channels=channels, classes=classes, download_for=download_for, options=frames.options
            )
        else:
            body = _create(name, classes, channels, download_for, frames.options)
    if source and source.kind == "package":
        load_tensors(body.get_submodule("encoder"), weights_source.read_package(encoder), source.place)
    elif source and not fetched:
        load_encoder(body.get_submodule("encoder"), source.place)
    heads = _auxiliary(name, body, decoder.deep_supervision, classes, channels, frames)
    return Segmenter(body, normalization, heads, frames)


@functools.lru_cache(64)
def frames_of(name: str, channels: int, size: Size) -> Frames:
    """Return how a network takes frames of `size`; of timm's encoders it is tried. Raises UserError where it does not.

    smp's own and torchvision's take any size, padded to multiples of 32, or are refused when they are built.
    """
    architecture, encoder = parse(name)
    if not encoder.startswith("tu-"):
        return Frames()

    def build_one(options: Options) -> nn.Module:
        if architecture == "unetify":
            return unet.unetify(encoder, channels=channels, options=options)
        try:
            return _create(name, 1, channels, None, options)
        except UserError as error:
            if options and error.__cause__:  # that timm does not know an option is no answer to the user
                raise error.__cause__ from None
            raise

    return frame_sizes.find(name, build_one, channels, size)


def source_of_weights(name: str, encoder_weights: str, weights_folder: str) -> weights_source.Source | None:
    """Return where a network's weights come from, None for random ones. Raises UserError where they are nowhere."""
    if encoder_weights == "none":
        return None
    if encoder_weights != "imagenet":
        file = Path(encoder_weights)
        if not file.is_file():
            raise UserError(
                f"ENCODER_WEIGHTS={encoder_weights}: no such file; "
                "expected imagenet, none, or a .safetensors or .pth file."
            )
        return weights_source.Source("file", file, str(file))
    _, encoder = parse(name)
    if not encoder:
        raise UserError("ENCODER_WEIGHTS=imagenet: MODEL_NAME=unet has no ImageNet weights; say ENCODER_WEIGHTS=none.")
    return weights_source.find(encoder, weights_folder)


def _create(name: str, classes: int, in_channels: int, download_for: Path | None, options: Options) -> nn.Module:
    """Build smp's network; `download_for`: where packed weights would be, if they are to be downloaded instead.

    `options`: of a timm encoder, as frame_sizes finds them.
    """
    import segmentation_models_pytorch as smp

    architecture, encoder = parse(name)
    weights = None if download_for is None else True if encoder.startswith("tu-") else "imagenet"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tutorials' timm- names are deprecated in smp, and work
        try:
            body = smp.create_model(
                architecture, encoder, encoder_weights=weights, in_channels=in_channels, classes=classes, **options
            )
            return _for_its_patches(body) if architecture == "dpt" else body
        except Exception as error:  # smp and timm raise anything; their reason is the message
            known = _encoder_names(encoder)
            if download_for and encoder in known and not isinstance(error, KeyError):
                raise UserError(
                    ways_out(encoder, download_for, f"could not be downloaded ({type(error).__name__})")
                ) from error
            reason = str(error).split("supported encoders")[0].strip(" '\",`\n") or type(error).__name__
            hint = near(encoder, known) if encoder not in known else ""
            if "downsampling pattern" in reason:
                hint = " Vision transformers go with smp_dpt_tu-<name>, many others with unetify_<name>."
            raise UserError(f"MODEL_NAME={name}: smp cannot build it ({reason[:300]}).{hint}") from error


def _for_its_patches(body: Any) -> nn.Module:
    """Give a DPT over patches of 14 the decoder of patches of 16, whose logits Segmenter resizes to the frame.

    smp's own fits powers of two alone. DINOv2's and Depth Anything's DPT do it so.
    """
    from segmentation_models_pytorch.base import initialization
    from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder

    strides = [2 ** round(math.log2(stride)) for stride in body.encoder.output_strides]
    if strides != list(body.encoder.output_strides):
        body.decoder = DPTDecoder(
            encoder_out_channels=body.encoder.out_channels,
            encoder_output_strides=strides,
            encoder_has_prefix_tokens=body.encoder.has_prefix_tokens,
        )
        initialization.initialize_decoder(body.decoder)
    return body


def _auxiliary(
    name: str, body: nn.Module, levels: int, classes: int, channels: int, frames: Frames
) -> tuple[nn.Module, ...]:
    """Return heads for the `levels` blocks before the decoder's last, the finest first."""
    if not levels:
        return ()
    blocks = getattr(body.decoder, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise UserError(
            f"DEEP_SUPERVISION={levels}: the decoder of {name} does not go from coarse to fine, a block for each size; "
            f"expected {SUPERVISABLE}, or DEEP_SUPERVISION=0."
        )
    if not 0 < levels < len(blocks):
        most = len(blocks) - 1
        raise UserError(f"DEEP_SUPERVISION={levels}: the decoder of {name} has {most} coarser levels; say 0 to {most}.")
    try:
        with torch.no_grad():
            sides = [side if frames.only else 2 * side for side in frames.divisor]
            _, outputs = with_blocks(body.eval(), torch.zeros(1, channels, *sides))
    except (RuntimeError, AssertionError, ValueError) as error:  # an encoder for one size only, at another
        raise UserError(
            f"DEEP_SUPERVISION={levels}: {name} does not take images of any size ({str(error)[:120]}); "
            "say DEEP_SUPERVISION=0."
        ) from error
    body.train()
    return tuple(nn.Conv2d(output.shape[1], classes, 1) for output in reversed(outputs[-1 - levels : -1]))

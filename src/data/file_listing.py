"""Image files below a folder, by what they and their folders are called; nothing is opened."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from formats.images import image_names
from tools.errors import UserError

MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentation", "segmentationclass"),
    *("groundtruth", "ground_truth", "gt", "train_masks", "train_labels", "trainannot"),
)
BESIDE = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt")  # endings of a mask that lies beside its image


def existing_input(input_path: str) -> Path:
    """Return INPUT as a path. Raises UserError where there is no such folder."""
    root = Path(input_path)
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder. Put the competition's files there (DATASET names the folder), "
            "unpack its archive by make data ZIP=file, or run make demo."
        )
    return root


def child(root: Path, names: Iterable[str]) -> Path | None:
    """Find the first of `names` that is a folder in `root`, in whatever case it is written, with an image below it."""
    if not root.is_dir():
        return None
    have = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return next((have[name] for name in names if name in have and _holds_an_image(have[name])), None)


def _holds_an_image(folder: Path) -> bool:
    return any(image_names(names) for _, names in _walk(folder))


def relative(path: Path, input_path: str) -> str:
    """Write `path` as a POSIX path relative to INPUT.

    Raises UserError where it lies outside or its name cannot be kept in a table.
    """
    own, start = str(path), f"{input_path}/"
    plain = os.sep == "/" and own.startswith(start) and ".." not in own and input_path != "."
    text = own.removeprefix(start) if plain else Path(os.path.relpath(path, input_path)).as_posix()
    if any(word in text for word in ("{class}", "{object}", "{z}")):  # they stand for something in a table
        raise UserError(
            f"{path}: a name with {{class}}, {{object}} or {{z}} in it cannot be kept in a table; rename it."
        )
    if text.startswith(".."):
        raise UserError(
            f"{path} does not lie below INPUT={input_path}; set INPUT to a folder that holds images and masks."
        )
    return text


def unique(keyed: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Collect files by their keys. Raises UserError where two have one."""
    found: dict[str, Path] = {}
    for key, file in keyed:
        if key in found:
            raise UserError(
                f"{found[key]} and {file.name} beside it have the same name but for the ending; remove one of them."
            )
        found[key] = file
    return found


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Visit every folder below `folder`, linked ones too, each once, with its files; without junk and hidden ones."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_junk(name))
        if real not in seen:
            yield place, [name for name in names if not is_junk(name)]
        seen.add(real)


def files_below(folder: Path) -> list[Path]:
    """List every image file below `folder`, sorted, in linked folders too; hidden files and folders are left out."""
    found = [Path(place, name) for place, names in _walk(folder) for name in image_names(names)]
    return sorted(path for path in found if path.is_file())


def all_files(folder: Path) -> list[str]:
    """List every file below `folder` as a POSIX path relative to it, sorted; hidden files and junk are left out."""
    found = []
    for place, names in _walk(folder):
        within = os.path.relpath(place, folder)
        start = "" if within == "." else f"{Path(within).as_posix()}/"
        found += [start + name for name in names]
    return sorted(found)


def is_junk(name: str) -> bool:
    """Say whether a system left a file or folder there (__MACOSX, @eaDir, Thumbs.db), or it is hidden."""
    return name[0] == "." or name in ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN")


def keys_of(folder: Path) -> dict[str, Path]:
    """Map the relative path without its ending to the file, of every image below `folder`."""
    return unique((path.relative_to(folder).with_suffix("").as_posix(), path) for path in files_below(folder))


def stack(path: str) -> str:
    """Name the stack that a slice belongs to: images/a_07.png is of images/a_{z}.png."""
    return re.sub(r"_\d+(\.\w+)$", r"_{z}\1", path)

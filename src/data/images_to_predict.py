"""The images that a competition wants predicted: where its test images lie, and what they are called."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from data.file_listing import BESIDE, MASK_FOLDERS, child, existing_input, files_below, stack
from data.layout_match import Places
from data.name_checks import refuse_odd_names, refuse_twins
from data.solver.names import take_apart
from data.solver.rules import related
from data.solver.solution import solve
from formats.images import ARRAYS, SUFFIXES
from tools.errors import UserError, listing

TEST_FOLDERS = (
    *("test_hq", "test/images", "test_images", "test", "stage1_test", "testing", "images/test", "test_v2"),
    *("images/testing", "test_data", "testset"),
)  # in any case


def test_names(input_path: str, test_path: str = "", stacked: bool = False) -> tuple[Path, list[str]]:
    """Find the folder of test images, and each one's name in it, sorted. Raises UserError also for names that clash."""
    folder, files = test_images(input_path, test_path, stacked)
    names = [path.relative_to(folder).as_posix() for path in files]
    refuse_odd_names(names, f"{folder}: ")
    refuse_twins(names, f"{folder}: ")
    return folder, names


def test_images(input_path: str, test_path: str = "", stacked: bool = False) -> tuple[Path, list[Path]]:
    """Find the folder of test images and every image below it, masks left out; a stack is one path, a_{z}.png.

    Raises UserError where there is none.
    """
    folder: Path | None = Path(test_path) if test_path else None
    if not folder:
        root = existing_input(input_path)
        folder = next(filter(None, (_in_any_case(root, name) for name in TEST_FOLDERS)), None)
        files = _images(folder) if folder else []
        if not files or _may_have_masks(files):
            folder, files = _solved(root, folder, files)
    if folder is None or not folder.is_dir():
        raise UserError(f"{test_path or input_path}: no test images there; TEST_PATH=folder names theirs.")
    if test_path:
        files = _images(folder)
    if not files:
        raise UserError(f"{folder}: no images there (endings: {' '.join(sorted(SUFFIXES | ARRAYS))}).")
    if stacked:
        lone = [str(path) for path in files if "{z}" not in stack(path.as_posix())]
        if lone:
            raise UserError(f"{folder}: the model takes stacks of slices, <id>_<z>; these are none:{listing(lone)}")
        files = list({Path(stack(path.as_posix())) for path in files})
    return folder, sorted(files)


def _may_have_masks(files: Sequence[Path]) -> bool:
    """Say whether some of these are called as masks of others may be."""
    names = take_apart([path.as_posix() for path in files])
    return related(names, names)


def _solved(root: Path, folder: Path | None, files: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """Find the test images by all names below `root`: those of `files` that are no masks, or what else there is."""
    solution = solve(Places(root, None, None))
    if solution is None:
        return folder, list(files)
    drawn = {root / path for path in solution.masks}
    kept = [path for path in files if path not in drawn] or [root / path for path in solution.match.tests]
    if kept and not (folder and all(path.is_relative_to(folder) for path in kept)):
        folder = Path(os.path.commonpath([path.parent for path in kept]))
    return folder, kept


def _in_any_case(root: Path, name: str) -> Path | None:
    """Find a folder below `root`, in whatever case it is written, with an image in it."""
    folder: Path | None = root
    for part in name.split("/"):
        folder = child(folder, [part]) if folder else None
    return folder


def _images(folder: Path) -> list[Path]:
    """List the images below a folder, without masks beside them or in folders of their own."""
    files = [path for path in files_below(folder) if path.parent.name.lower() not in MASK_FOLDERS]
    stems = {re.sub("_(sat|image|img)$", "", path.stem) for path in files}
    return [
        path
        for path in files
        if not any(path.stem.endswith(end) and path.stem.removesuffix(end) in stems for end in BESIDE)
    ]

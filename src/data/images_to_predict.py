"""The images that a competition wants predicted: where its test images lie, and what they are called."""

from pathlib import Path

from data.file_listing import BESIDE, MASK_FOLDERS, existing_input, files_below, stack
from data.name_checks import refuse_odd_names, refuse_twins
from formats.images import ARRAYS, SUFFIXES
from tools.errors import UserError, listing

TEST_FOLDERS = ("test_hq", "test/images", "test_images", "test", "stage1_test", "testing")


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
    if test_path:
        folder: Path | None = Path(test_path)
    else:
        root = existing_input(input_path)
        folder = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if folder is None or not folder.is_dir():
        raise UserError(f"{test_path or input_path}: no test images there; TEST_PATH=folder names theirs.")
    files = [path for path in files_below(folder) if path.parent.name.lower() not in MASK_FOLDERS]
    stems = {path.stem for path in files}
    files = [
        path
        for path in files
        if not any(path.stem.endswith(end) and path.stem.removesuffix(end) in stems for end in BESIDE)
    ]
    if not files:
        raise UserError(f"{folder}: no images there (endings: {' '.join(sorted(SUFFIXES | ARRAYS))}).")
    if stacked:
        lone = [str(path) for path in files if "{z}" not in stack(path.as_posix())]
        if lone:
            raise UserError(f"{folder}: the model takes stacks of slices, <id>_<z>; these are none:{listing(lone)}")
        files = list({Path(stack(path.as_posix())) for path in files})
    return folder, sorted(files)

"""Long predictions in parts: each part is on disk before the next counts, so that a kill costs one part at most.

<folder>/plan.json says what is being made, by whom and how; <folder>/parts/00012.json holds what was kept of 64 images,
and a stamp of them. A second call with the same plan does what is missing; images that have changed are done again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.dataspec import DataSpec
from formats import images, rle
from prediction import postprocess, prediction_folders, submission_file
from tools import console, run_folders
from tools.errors import UserError
from tools.files import digest_of, sha256, write_json

PART = 64  # images
PLAN, PARTS, ROWS = "plan.json", "parts", "rows.csv"


class Keep(Protocol):
    """What is kept of an image: called in threads; `record` is JSON-ready, and `there` whether it still holds."""

    def __call__(self, path: Path, probabilities: np.ndarray) -> list[Any]: ...

    def there(self, name: str, record: list[Any]) -> bool: ...

    def about(self) -> dict[str, Any]: ...

    def manifest(self, folder: Path, names: list[str]) -> dict[str, Any]: ...

    def label(self, count: int) -> str: ...


class Maps:
    """Keeps probability PNGs below `folder`; an image's record is their sha256, a class each."""

    def __init__(self, folder: Path, spec: DataSpec, root: Path) -> None:
        self.folder, self.spec, self.root = folder, spec, root

    def __call__(self, path: Path, probabilities: np.ndarray) -> list[str]:
        """Write the maps of (C, H, W) and return their sha256."""
        files = prediction_folders.map_paths(self.folder, path.relative_to(self.root).as_posix(), self.spec)
        for file, plane in zip(files, postprocess.to_p8(probabilities), strict=True):
            images.write_gray(file, plane)
        return [sha256(file) for file in files]

    def there(self, name: str, record: list[Any]) -> bool:
        """Return whether the maps are those that were written."""
        files = prediction_folders.map_paths(self.folder, name, self.spec)
        return record == [sha256(file) if file.is_file() else "" for file in files]

    def about(self) -> dict[str, Any]:
        """Return what a plan says of this way to keep, JSON-ready."""
        return {"keeps": "maps"}

    def manifest(self, _: Path, names: list[str]) -> dict[str, Any]:
        """Return what the manifest says of what was kept."""
        spec, folder = self.spec, self.folder
        found = ((prediction_folders.map_paths(Path(), name, spec), record) for name, record in records(folder, names))
        files = (pair for paths, own in found for pair in zip(paths, own, strict=True))
        return {"maps_sha256": prediction_folders.fingerprint_of(files)}

    def label(self, count: int) -> str:
        """Return what to call the maps of `count` images."""
        of_classes = f" of {len(self.spec.classes)} classes each" if len(self.spec.classes) > 1 else ""
        return f"{count} probability maps{of_classes}"


class RunLengths:
    """Keeps the rows of the competition's CSV; and probability PNGs of the few images in `shown`."""

    def __init__(
        self,
        maps: Maps,
        rules: tuple[postprocess.Rule, ...],
        dialect: rle.Dialect,
        ids: dict[str, str],
        shown: list[str],
    ) -> None:
        self.maps, self.rules, self.dialect, self.shown = maps, rules, dialect, set(shown)
        self.classes = submission_file.check_classes(maps.spec, dialect)
        self.id_of = {name: image_id for image_id, name in ids.items()}

    def __call__(self, path: Path, probabilities: np.ndarray) -> list[Any]:
        """Return the rows of (C, H, W), which were decoded again and compared with the masks."""
        name, spec = path.relative_to(self.maps.root).as_posix(), self.maps.spec
        masks = postprocess.to_masks(postprocess.to_p8(probabilities), spec.task, spec.scored, self.rules)
        rows = submission_file.rows_of(self.id_of[name], masks, self.classes, self.dialect)
        return [rows, self.maps(path, probabilities) if name in self.shown else []]

    def unreadable(self, path: Path, error: UserError) -> list[Any]:
        """Return each class's row of an empty mask, for which no dialect needs the image's size, and the reason."""
        image_id = self.id_of[path.relative_to(self.maps.root).as_posix()]
        empty = np.zeros((len(self.classes), 1, 1), np.uint8)
        reason = " ".join(str(error).removeprefix(f"{path}: ").split()).partition(". ")[0].rstrip(".")
        return [submission_file.rows_of(image_id, empty, self.classes, self.dialect), [], reason]

    def there(self, name: str, record: list[Any]) -> bool:
        """Return whether the maps are there of an image that is to be shown."""
        return name not in self.shown or self.maps.there(name, record[1])

    def about(self) -> dict[str, Any]:
        """Return what a plan says of this way to keep, JSON-ready."""
        form = {"form": self.dialect.form} if self.dialect.form else {}
        return {"keeps": "rows", "dialect": self.dialect.name, **form, "rules": [rule.as_json() for rule in self.rules]}

    def manifest(self, folder: Path, names: list[str]) -> dict[str, Any]:
        """Write the CSV, and what the manifest says of it."""
        rows = (tuple(row) for _, record in records(folder, names) for row in record[0])
        submission_file.write(folder / ROWS, self.dialect, rows)
        about = {key: value for key, value in self.about().items() if key != "keeps"}
        return {**about, "rows_sha256": sha256(folder / ROWS)}

    def label(self, count: int) -> str:
        """Return what to call the rows of `count` images."""
        return f"the run lengths of {count} images in the dialect {self.dialect.name}"


def work(
    folder: Path,
    plan: dict[str, Any],
    root: Path,
    names: list[str],
    predict: Callable[[list[Path], Keep], Iterator[list[Any]]],
    keep: Keep,
) -> int:
    """Do what is missing of `names` below `root`; returns how many images were there already.

    `predict`: paths, keep -> the records in the paths' order.
    """
    _open(folder, plan)
    parts = list(_cut(names))
    stamps = [_stamp(root, part) for part in parts]
    todo = [n for n, part in enumerate(parts) if not _holds(folder, n, part, stamps[n], keep)]
    missing = [name for number in todo for name in parts[number]]
    before = len(names) - len(missing)
    if before:
        print(f"{before} of {len(names)} images were predicted before a stop: going on with the rest", flush=True)
    records = predict([root / name for name in missing], keep)
    tracked = console.track(records, len(missing), "predicting")
    try:
        for number in todo:
            own = [next(tracked) for _ in parts[number]]
            _write(_part(folder, number), {"stamp": stamps[number], "records": own})
        next(tracked, None)  # so that the progress bar ends
    except BaseException:
        if not any(folder.glob(f"{PARTS}/*.json")):  # nothing that the next call could go on from
            shutil.rmtree(folder)
        raise
    return before


def records(folder: Path, names: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each image's name with its record, in order, of a folder in which all is done."""
    for number, part in enumerate(_cut(names)):
        found = json.loads(_part(folder, number).read_text(encoding="utf-8"))["records"]
        yield from zip(part, found, strict=True)


def finish(partial: Path, folder: Path, names: list[str], keep: Keep, about: dict[str, Any]) -> None:
    """Make the finished parts a prediction folder with its manifest, in the place of `folder`.

    What the next call would go on from is removed last.
    """
    write_json(partial / run_folders.MANIFEST, {**about, **keep.manifest(partial, names)})
    run_folders.replace_folder(partial, folder)
    shutil.rmtree(folder / PARTS)
    (folder / PLAN).unlink()


def refuse_changed_rows(folder: Path, manifest: dict[str, Any], again: str) -> None:
    """Raise UserError where the rows in `folder` are not those that its manifest was written for."""
    path = folder / ROWS
    if not path.is_file() or sha256(path) != manifest["rows_sha256"]:
        raise UserError(f"{path} is not the file that {run_folders.MANIFEST} beside it describes. {again}")


def _open(folder: Path, plan: dict[str, Any]) -> None:
    """Prepare the folder for this plan; what another plan left in it is removed."""
    plan = json.loads(json.dumps(plan))
    path = folder / PLAN
    if path.is_file():
        try:
            if json.loads(path.read_text(encoding="utf-8")) == plan:
                return
        except ValueError:  # cut off by a full disk: as good as another plan
            pass
        print(f"{folder} was left by a call with other models, images or settings: starting anew", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    write_json(path, plan)


def _cut(names: list[str]) -> Iterator[list[str]]:
    return (names[first : first + PART] for first in range(0, len(names), PART))


def _part(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:05d}.json"


def _stamp(root: Path, names: list[str]) -> str:
    """Return what tells a part's images from others of the same names: their sizes and times."""
    files = (file for name in names for file in _files(root / name))
    return digest_of(f"{file.name} {(found := file.stat()).st_size} {found.st_mtime_ns}" for file in files)


def _files(path: Path) -> list[Path]:
    try:
        return images.image_files(path)
    except UserError:  # no stack that can be read, as whoever reads it will be told
        return []


def _holds(folder: Path, number: int, names: list[str], stamp: str, keep: Keep) -> bool:
    """Return whether this part was done, of these images, and what it kept is still there."""
    path = _part(folder, number)
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        own = found["records"]
        return found["stamp"] == stamp and all(keep.there(*pair) for pair in zip(names, own, strict=True))
    except (ValueError, KeyError, TypeError):  # torn: done again
        return False


def _write(path: Path, values: dict[str, Any]) -> None:
    """Write whole, and to the disk itself: a computer that loses power finds all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)

"""A mask's reference: the text that a table says of where one image's mask lies, and the files behind it.

| kind | text, relative to INPUT | the mask |
|---|---|---|
| empty | nothing | shows nothing |
| path | `masks/a.png` | a binary mask or a class map; where it is a folder, one file an object |
| class_files | `masks/{class}/a.png` | one file a class, empty where it is missing |
| object_files | `masks/a_{object}.png` | several files, one an object: what {object} stands for is a word or a number |
| run_lengths | `rle:train.csv#id` | the rows of that id in a table of run lengths |
| annotations | `coco:instances.json#id`, `yolo:labels/a.txt`, `labelme:a.json` | polygons, see annotations.py |
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from formats.images import names_in, stored_files
from tools.errors import UserError

CLASS = "{class}"  # stands for the class's name
OBJECT = "{object}"  # stands for what tells one object's file from another's
_RUN_LENGTHS = "rle:"
_SOURCES = ("coco", "yolo", "labelme")


@dataclass(frozen=True)
class MaskReference:
    """Where one image's mask lies; `str` gives the text that `parse` reads."""

    kind: Literal["empty", "path", "class_files", "object_files", "run_lengths", "annotations"]
    path: str = ""  # POSIX, relative to INPUT: of the file or folder, with {class} in it, or of the table
    image_id: str = ""  # in the table of run lengths, or in COCO's file
    source: str = ""  # of annotations: coco, yolo or labelme

    @classmethod
    def parse(cls, text: str) -> "MaskReference":
        """Read a cell of the column `mask`; a table's path ends at the first #. Raises UserError for `rle:` alone."""
        if not text:
            return cls("empty")
        source, colon, rest = text.partition(":")
        if colon and source in _SOURCES:
            path, _, image_id = rest.partition("#") if source == "coco" else (rest, "", "")
            if not path or (source == "coco" and not image_id):
                form = "coco:instances.json#<id>" if source == "coco" else f"{source}:path"
                raise UserError(f"'{text}' is no reference to annotations; expected {form}.")
            return cls("annotations", path, image_id, source)
        if not text.startswith(_RUN_LENGTHS):
            return cls("class_files" if CLASS in text else "object_files" if OBJECT in text else "path", text)
        path, _, image_id = text.removeprefix(_RUN_LENGTHS).partition("#")
        if not (path and image_id):
            raise UserError(f"'{text}' is no reference to a mask in a table; expected {_RUN_LENGTHS}train.csv#<id>.")
        return cls("run_lengths", path, image_id)

    @classmethod
    def of_annotations(cls, source: str, path: str, image_id: str = "") -> "MaskReference":
        """Refer to a file of annotations. Raises UserError where the path of COCO's has a # of its own."""
        if source == "coco" and "#" in path:
            raise UserError(f"{path}: a # in the name of a file of annotations cannot be referred to; rename it.")
        return cls("annotations", path, image_id, source)

    @classmethod
    def of_run_lengths(cls, table_path: str, image_id: str) -> "MaskReference":
        """Refer to an id of a table. Raises UserError where the table's path has a # of its own."""
        if "#" in table_path:
            raise UserError(
                f"{table_path}: a # in the name of a table of run lengths cannot be referred to; rename it."
            )
        return cls("run_lengths", table_path, image_id)

    def __str__(self) -> str:
        if self.kind == "annotations":
            return f"{self.source}:{self.path}{f'#{self.image_id}' * bool(self.image_id)}"
        return f"{_RUN_LENGTHS}{self.path}#{self.image_id}" if self.kind == "run_lengths" else self.path

    def class_paths(self, root: Path, names: Sequence[str]) -> list[Path]:
        """Name the file of each class below `root`, there or not; a single path is that of every class."""
        return [root / self.path.replace(CLASS, name) for name in names]

    def files(self, root: Path, names: Sequence[str]) -> list[Path]:
        """List the files that the mask is made of, with the classes `names`. Raises UserError where one is missing."""
        if self.kind == "empty":
            return []
        if self.kind in ("run_lengths", "annotations"):
            return [root / self.path]
        if self.kind == "object_files":
            return object_files(root / self.path)
        if self.kind == "class_files":
            return [path for path in self.class_paths(root, names) if path.exists()]
        return stored_files(root / self.path)


def tables_of(references: Iterable[str]) -> list[str]:
    """List the tables of run lengths that these references name, each once, in the order of their first mention."""
    parsed = (MaskReference.parse(text) for text in references)
    return list(dict.fromkeys(reference.path for reference in parsed if reference.kind == "run_lengths"))


def object_files(path: Path) -> list[Path]:
    """List the files of `masks/a_{object}.png`, sorted: {object} stands for one word or number.

    `a_mask{object}.png` is a_mask.png, a_mask_1.png and so on: {object} is nothing, or a number with its _ or space;
    where no file has that, a_mask0.png, a_mask1.png and so on.
    Raises UserError where there is none.
    """
    before, _, after = path.name.partition(OBJECT)
    names, some = names_in(path.parent) if path.parent.is_dir() else [], []
    for position in range(bisect_left(names, before), len(names)):
        if not names[position].startswith(before):
            break
        some.append(names[position])
    shapes = [r"[^\W_]+"] if re.search(r"[\W_]$", before) else [r"(?:[ _-]\(?\d+\)?)?", r"\d+"]
    for own in shapes:
        shape = re.compile(re.escape(before) + own + re.escape(after))
        if found := [path.parent / name for name in some if shape.fullmatch(name)]:
            return found
    raise UserError(f"{path}: no file has such a name, whatever stands for {OBJECT}.")

"""What the pixels of a data set's images and masks mean: task, classes, channels, and how files become arrays.

`make folds` finds it out and writes it beside the folds table; a trained model carries it in model.json, so that
prediction reads images as training did.

A mask is uint8 (K, H, W): binary and multilabel have one plane of 0 and 1 a class; multiclass has one plane (K = 1) of
class indices, IGNORED where a pixel is neither trained on nor scored.
What a mask's reference (column `mask` of the tables) may be says formats/mask_reference.py.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.class_maps import ClassKeys
from data.class_sources import BACKGROUND, IGNORED, MOST_CLASSES, NO_CLASS, UNLABELED, ClassSources
from formats import annotations, images, rle, rle_table
from formats.mask_reference import MaskReference
from formats.resize import content_box, halvings, image_to_network, labels_to_network, mask_to_network
from tools.errors import UserError
from tools.files import read_json
from tools.names import is_name, plain_name

TASKS = ("binary", "multiclass", "multilabel")

JSON_NAMES = {"colors": "colours"}  # as tables and models of before have it
LATER = ("merged", "threshold", "objects", "alpha")  # fields that tables and models of before lack


@dataclass(frozen=True)
class DataSpec(ClassSources):
    """The meaning of a data set's pixels; see the module's docstring for masks."""

    task: str = "binary"
    classes: tuple[str, ...] = ("foreground",)  # the network's outputs, in their order
    values: tuple[int, ...] = ()  # a class map's pixel value for each class
    colors: tuple[tuple[int, int, int], ...] = ()  # RGB for each class, where masks are drawn in colors
    ignore: tuple[int, ...] = ()  # a class map's value, or RGB, that is not labeled
    # each class of the data, with the index of ours that it is part of, NO_CLASS or UNLABELED; () where they are ours.
    # values and colors are the data's then
    merged: tuple[tuple[str, int], ...] = ()
    rle: str = ""  # the dialect of the training masks' run lengths
    channels: int = 3
    stacked: bool = False  # each image is a stack of slices, images/a_{z}.png
    bits: int = 8
    window: tuple[float, float] = (0.0, 65535.0)  # 16-bit values that become 0 and 255
    mean: tuple[float, ...] = ()  # of each channel in [0, 1], measured by make folds
    std: tuple[float, ...] = ()
    threshold: int = 0  # of binary masks: the lowest gray that is foreground; 0: files have 0 and one other value
    objects: str = ""  # "labels": each value of a mask's file numbers an object
    alpha: bool = False  # masks are drawn in the alpha channel

    @property
    def planes(self) -> int:
        """Count the planes, K of a mask (K, H, W)."""
        return 1 if self.task == "multiclass" else len(self.classes)

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_json` reads it back."""
        values = json.loads(json.dumps(asdict(self)))
        for name in LATER:  # tables and models of before have none, and mean these
            if getattr(self, name) == getattr(DataSpec, name):
                del values[name]
        return {JSON_NAMES.get(name, name): value for name, value in values.items()}

    def read_image(self, path: Path, max_pixels: int = 100_000_000) -> np.ndarray:
        """Decode to uint8 (H, W, channels). Raises UserError, also for 16 bits where training saw 8."""
        return self._of_8_bits(path, images.read_levels(path, max_pixels, self.channels))

    def read_frames(
        self, path: Path, frames: Sequence[tuple[tuple[int, int], str]], max_pixels: int = 100_000_000
    ) -> tuple[tuple[int, int], list[np.ndarray]]:
        """Return the image's (H, W), and uint8 (h, w, channels) as a network sees it at each (IMAGE_SIZE, RESIZE).

        A large JPEG is halved by its decoder (see decode.decode), as often as that frame needs by itself, so that a
        network sees the same beside others. Raises UserError as read_image.
        """
        kept: dict[int, np.ndarray] = {}  # by how often they were halved
        full, can, made = (0, 0), True, []
        for size, resize in frames:
            often = halvings(full, size, resize) if kept and can else 0
            if often not in kept:
                levels, full, can = images.read_halved(
                    path, max_pixels, self.channels, functools.partial(halvings, size=size, resize=resize)
                )
                often = halvings(full, size, resize) if can else 0
                kept[often] = self._of_8_bits(path, levels)
            made.append(image_to_network(kept[often], size, resize))
        return full, made

    def _of_8_bits(self, path: Path, image: np.ndarray) -> np.ndarray:
        if image.dtype == np.uint8:
            return image
        if self.bits == 8:
            raise UserError(f"{path}: 16 bits a channel, and all training images have 8; convert it as those were.")
        return images.through_window(image, self.window)

    def read_mask(
        self, root: Path, reference: str, shape: tuple[int, int], max_pixels: int = 100_000_000, image: str = ""
    ) -> np.ndarray:
        """Read the mask that `reference` names -> uint8 (K, H, W).

        Raises UserError, also where its size is not `shape`, that of `image`, which the sentence then names.
        """
        where = MaskReference.parse(reference)
        if not self.is_class_map or where.kind != "path":
            return self.from_planes(self._read_planes(root, where, shape, max_pixels, image), reference)
        path = root / where.path
        labels = self.class_keys().read(path, max_pixels)
        labels = self.own_index[labels] if self.merged else labels
        refuse_size(path, labels.shape, shape, image)
        if self.task == "multiclass":
            return labels[None]
        return (labels[None] == np.arange(len(self.classes), dtype=np.uint8)[:, None, None]).astype(np.uint8)

    def read_pair(
        self, root: Path, image: str, mask: str, max_pixels: int = 100_000_000
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read image uint8 (H, W, channels) and mask (K, H, W) of one row; UserError where their sizes differ."""
        picture = self.read_image(root / image, max_pixels)
        return picture, self.read_mask(root, mask, picture.shape[:2], max_pixels, image)

    def class_paths(self, root: Path, reference: str) -> list[Path]:
        """Name the file for each scored class's mask, of `masks/{class}/a.png`; an empty one may be left out."""
        names = [self.sources_of(name)[0] for name in self.scored_names]
        return MaskReference.parse(reference).class_paths(root, names)

    def class_planes(self, mask: np.ndarray) -> np.ndarray:
        """Turn a mask (K, H, W) into bool (S, H, W), one plane for each scored class."""
        if self.task != "multiclass":
            return mask > 0
        return mask == np.array(self.scored, np.uint8)[:, None, None]

    def labeled(self, mask: np.ndarray) -> np.ndarray | None:
        """Mark the pixels that count, bool (H, W); None where all do."""
        return mask[0] != IGNORED if self.leaves_out else None

    def to_network(self, mask: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
        """Turn a mask (K, H, W) into (K, h, w) in the network's frame: what covers most of each small pixel."""
        if self.task == "multiclass":
            padding = self.classes.index(BACKGROUND) if BACKGROUND in self.classes else IGNORED
            small = labels_to_network(mask[0], size, resize, IGNORED)
            return _pad_as(small, mask.shape[1:], size, resize, padding)[None]
        return np.stack([mask_to_network(plane, size, resize) for plane in mask])

    def class_keys(self) -> ClassKeys:
        """Say what a class map's values or colors stand for."""
        multiclass = self.task == "multiclass"
        nobodys = IGNORED if multiclass else MOST_CLASSES  # equal to no class, where each has a plane
        names = tuple(source for source, _ in self.merged) or self.classes
        return ClassKeys(names, self.values, self.colors, self.ignore, nobodys, zero_is_nobodys=not multiclass)

    def _read_planes(
        self, root: Path, where: MaskReference, shape: tuple[int, int], max_pixels: int, image: str
    ) -> np.ndarray:
        """Read bool (C, H, W) of the classes but the background, from a reference that gives each its own mask."""
        if where.kind == "run_lengths":
            rows, dialect = rle_table.read(root / where.path), rle.DIALECTS[self.rle]
            parts = [self.sources_of(name) for name in self.scored_names] if rows.classes else [("",)]
            masks = ((rows.mask(where.image_id, name, shape, dialect) for name in names) for names in parts)
            return np.stack([functools.reduce(np.bitwise_or, of_class) for of_class in masks]) > 0
        planes = np.zeros((len(self.scored), *shape), bool)
        if where.kind == "annotations":
            for name, mask in annotations.objects(root, where, shape):
                for index in self.planes_of(name):
                    planes[index] |= mask > 0
        elif where.kind == "path":
            planes = self._read_own_size(root / where.path, shape, max_pixels, image)[None].view(bool)
        elif where.kind == "object_files":
            for path in where.files(root, ()):
                planes[0] |= self._read_own_size(path, shape, max_pixels, image) > 0
        elif where.kind == "class_files":
            for index, name in enumerate(self.scored_names):
                for path in where.class_paths(root, self.sources_of(name)):
                    if path.exists():
                        planes[index] |= self._read_own_size(path, shape, max_pixels, image) > 0
        return planes

    def _read_own_size(self, path: Path, shape: tuple[int, int], max_pixels: int, image: str) -> np.ndarray:
        """Read a binary mask, uint8 (H, W) of 0 and 1. Raises UserError where its size is not `shape`, `image`'s."""
        mask = images.read_mask(path, max_pixels, self.threshold, self.alpha)
        refuse_size(path, mask.shape, shape, image)
        return mask

    def from_planes(self, planes: np.ndarray, reference: str) -> np.ndarray:
        """Turn bool (S, H, W), a plane a scored class, into a mask (K, H, W). UserError where classes overlap."""
        if self.task != "multiclass":
            return planes.view(np.uint8)
        if reference == "" and BACKGROUND not in self.classes:
            raise UserError("An empty mask, but no class is called background; give every image a class map.")
        overlap = planes.sum(0) > 1
        if overlap.any():
            names = [name for name, plane in zip(self.scored_names, planes, strict=True) if (plane & overlap).any()]
            raise UserError(
                f"{reference}: {' and '.join(names[:3])} overlap in {int(overlap.sum())} pixels, and TASK=multiclass "
                "gives each pixel one class. Classes may overlap with TASK=multilabel."
            )
        labels = np.full(planes.shape[1:], self.classes.index(BACKGROUND), np.uint8)
        for index, plane in zip(self.scored, planes, strict=True):
            labels[plane] = index
        return labels[None]


def refuse_size(path: Path, have: tuple[int, ...], want: tuple[int, ...], image: str) -> None:
    """Raise UserError where a mask's (H, W) is not its image's."""
    if tuple(have) != tuple(want):
        raise UserError(f"{path}: {have[1]} x {have[0]} pixels, but its image {image} has {want[1]} x {want[0]}.")


def _pad_as(
    labels: np.ndarray, original: tuple[int, int], size: tuple[int, int], resize: str, padding: int
) -> np.ndarray:
    """Make what `fit` padded, which counts nowhere, the class `padding`: the background where there is one."""
    if resize != "fit" or padding == IGNORED:
        return labels
    top, left, height, width = content_box(original, size, resize)
    framed = np.full(labels.shape, padding, np.uint8)
    framed[top : top + height, left : left + width] = labels[top : top + height, left : left + width]
    return framed


def from_json(values: Any, where: str) -> DataSpec:
    """Make a DataSpec from what `as_json` gave. Raises UserError where that is something else."""
    try:
        low, high = values["window"]
        spec = DataSpec(
            task=str(values["task"]),
            classes=tuple(map(str, values["classes"])),
            values=tuple(map(int, values["values"])),
            colors=tuple((int(red), int(green), int(blue)) for red, green, blue in values[JSON_NAMES["colors"]]),
            ignore=tuple(map(int, values["ignore"])),
            merged=tuple((str(source), int(place)) for source, place in values.get("merged", ())),
            rle=str(values["rle"]),
            channels=int(values["channels"]),
            stacked=bool(values["stacked"]),
            bits=int(values["bits"]),
            window=(float(low), float(high)),
            mean=tuple(map(float, values["mean"])),
            std=tuple(map(float, values["std"])),
            threshold=int(values.get("threshold", 0)),
            objects=str(values.get("objects", "")),
            alpha=bool(values.get("alpha", False)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} does not say what the data are ({error}). Write it again: make folds") from error
    wrong = _contradictions(spec, values)
    if wrong:
        raise UserError(f"{where} does not say what the data are: {wrong}. Run make folds.")
    return spec


def _contradictions(spec: DataSpec, values: dict[str, Any]) -> str:
    """Say what cannot be of a DataSpec, "" where nothing is: files are edited by hand."""
    count, sources = len(spec.classes), len(spec.merged) or len(spec.classes)
    keys = [*spec.values, *(part for color in spec.colors for part in color), *spec.ignore]
    highest = 255 if spec.colors else 65535
    checks = {
        f"task {spec.task}": spec.task in TASKS,
        f"{count} classes": isinstance(values["classes"], list) and 1 <= count <= MOST_CLASSES,
        f"{count} classes of a binary task": spec.task != "binary" or count == 1,
        "a class twice": len({plain_name(name) for name in spec.classes}) == count,  # so are their files called
        "a class without a name": all(is_name(name) for name in spec.classes),
        "nothing but background": bool(spec.scored) or spec.task == "binary",
        f"{len(spec.values)} values": len(spec.values) in (0, sources),
        f"{len(spec.colors)} colors": len(spec.colors) in (0, sources),
        f"merged {spec.merged}": not spec.merged
        or {place for _, place in spec.merged} - {NO_CLASS, UNLABELED} == set(range(count)),
        f"ignore {spec.ignore}": len(spec.ignore) in (0, 3 if spec.colors else 1),
        f"values up to {highest}": all(0 <= key <= highest for key in keys),
        f"{spec.channels} channels": 1 <= spec.channels <= 1024,
        f"window {spec.window}": -math.inf < spec.window[0] < spec.window[1] < math.inf,
        f"{spec.bits} bits": spec.bits in (8, 16),
        f"threshold {spec.threshold}": 0 <= spec.threshold <= 65535,
        f"objects {spec.objects}": spec.objects in ("", "labels"),
        f"run lengths of {spec.rle}": spec.rle in ("", *rle.DIALECTS),
        f"mean {spec.mean} and deviation {spec.std}": len(spec.mean) == len(spec.std) == spec.channels
        and all(math.isfinite(part) for part in spec.mean)
        and all(0 < part < math.inf for part in spec.std),
    }
    return next((said for said, fine in checks.items() if not fine), "")


def read(sidecar: Path) -> DataSpec:
    """Read the DataSpec in the JSON beside a folds table. Raises UserError where there is none."""
    cure = "Run make folds: it finds out what the data are, and leaves a table of your own as it is."
    return from_json(read_json(sidecar, cure).get("data"), str(sidecar))

"""Scores of objects instead of pixels: instances matched by IoU, and the average precision and F2 of competitions.

Objects are labels: int32 (H, W), 0 where there is none, each other number one object. A predicted mask's objects are
its connected components (8 neighbors); the truth's are what the data set says, see `read`.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from data.dataspec import DataSpec, refuse_size
from formats import annotations, images, mask_values, rle, rle_table
from formats.decode import decode
from formats.mask_reference import MaskReference
from metrics.overlap import f_score, scores
from tools.errors import UserError

THRESHOLDS = np.arange(50, 100, 5) / 100  # 0.5 to 0.95, each the nearest number to its decimals


def components(mask: np.ndarray) -> np.ndarray:
    """Return the connected components (8 neighbors) of a mask (H, W), any non-zero pixel being foreground."""
    return cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)[1]


def match(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return IoU of every predicted with every true object, float64 (P, T), in the order of their labels.

    An object without a pixel (hidden by others, or where nothing is labeled) is none.
    """
    rows, columns = (int(labels.max(initial=0)) + 1 for labels in (prediction, truth))
    pairs = prediction.ravel().astype(np.int64) * columns + truth.ravel()
    shared = np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)
    predicted, true = shared.sum(1)[1:], shared.sum(0)[1:]  # areas
    shared = shared[1:, 1:][predicted > 0][:, true > 0]
    predicted, true = predicted[predicted > 0], true[true > 0]
    return shared / (predicted[:, None] + true - shared)


def average_precision(overlap: np.ndarray, empty: str = "one") -> float:
    """Return the mean of tp / (tp + fp + fn) over IoU thresholds 0.5, 0.55, ... 0.95 (2018 Data Science Bowl), [0, 1].

    overlap: IoU (P, T), as of `match`. An object is found where the IoU is above the threshold. Without any object in
    either it is what the policy `empty` says (skip: NaN).
    """
    return float(scores(*_hits(overlap), empty)["iou"].mean())


def mean_f2(overlap: np.ndarray, empty: str = "one") -> float:
    """Return the mean of F2 over IoU thresholds 0.5, 0.55, ... 0.95 (Airbus Ship Detection, 2018), [0, 1].

    As `average_precision` otherwise; F2 = 5 tp / (5 tp + 4 fn + fp).
    """
    return float(f_score(*_hits(overlap), beta=2, empty=empty).mean())


def _hits(overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true and false positives and false negatives at each of THRESHOLDS.

    Above an IoU of one half no object can match two of the others, which do not overlap, so pairs need no assignment.
    """
    tp = (overlap[overlap > THRESHOLDS[0], None] > THRESHOLDS).sum(0)
    return tp, len(overlap) - tp, overlap.shape[1] - tp


def read(
    spec: DataSpec,
    root: Path,
    reference: str,
    shape: tuple[int, int],
    max_pixels: int = 100_000_000,
    image: str = "",
) -> np.ndarray:
    """Read the true objects of the mask that `reference` names, int32 (S, H, W): labels 1, 2, ... a scored class.

    Each annotation of COCO, YOLO or LabelMe is an object, each file of a folder of instance masks or of a name with
    {object}, each plane of an array, each value of a file whose values number objects, and each row of a table of run
    lengths where its dialect has a row an object or the image has several rows; otherwise the mask's connected
    components are. Where objects overlap, the later one has the pixels. Raises UserError, also where a mask's size is
    not `shape`, that of `image`.
    """
    where = MaskReference.parse(reference)
    if where.kind == "run_lengths":
        return _from_table(spec, root, where, shape)
    if where.kind == "object_files":
        return _from_files(spec, where.files(root, ()), shape, max_pixels, image)[None]
    if where.kind == "annotations":
        return _from_annotations(spec, root, where, shape)
    if where.kind == "path" and not (root / where.path).is_dir():
        numbered = _from_one_file(spec, root / where.path, shape, max_pixels, image)
        if numbered is not None:
            return numbered[None]
    of_class = [] if where.kind == "empty" else [spec.sources_of(name) for name in spec.scored_names]
    paths = [[path for path in where.class_paths(root, names) if path.exists()] for names in of_class]
    in_folders = [bool(own) and all(path.is_dir() for path in own) for own in paths]
    if any(in_folders) and all(told or not own for told, own in zip(in_folders, paths, strict=True)):
        labels = np.zeros((len(paths), *shape), np.int32)
    else:
        mask = spec.read_mask(root, reference, shape, max_pixels, image)
        labels = np.stack([components(plane) for plane in spec.class_planes(mask)])
    for index in np.flatnonzero(in_folders):
        files = [file for folder in paths[index] for file in images.object_masks(folder)]
        labels[index] = _from_files(spec, files, shape, max_pixels, image)
    return labels


def _from_annotations(spec: DataSpec, root: Path, where: MaskReference, shape: tuple[int, int]) -> np.ndarray:
    """Return int32 (S, H, W) from annotations, in their order."""
    labels = np.zeros((len(spec.scored), *shape), np.int32)
    for number, (name, mask) in enumerate(annotations.objects(root, where, shape), start=1):
        for plane in spec.planes_of(name):
            labels[plane][mask > 0] = number
    return labels


def _from_one_file(
    spec: DataSpec, path: Path, shape: tuple[int, int], max_pixels: int, image: str
) -> np.ndarray | None:
    """Return int32 (H, W) of a file that numbers its objects, or an array with a plane for each; None of any other."""
    if spec.objects == "labels":
        labels = mask_values.numbered(path, max_pixels)
    elif (
        path.suffix.lower() in images.ARRAYS and not spec.is_class_map and (samples := decode(path, max_pixels)).planes
    ):
        labels = _painted(((plane > 0) for plane in np.moveaxis(samples.values, 2, 0)), samples.values.shape[:2])
    else:
        return None
    refuse_size(path, labels.shape, shape, image)
    return labels


def _from_table(spec: DataSpec, root: Path, where: MaskReference, shape: tuple[int, int]) -> np.ndarray:
    """Read int32 (S, H, W) from the rows of an id in a table of run lengths."""
    image_id, rows, dialect = where.image_id, rle_table.read(root / where.path), rle.DIALECTS[spec.rle]
    planes = []
    for names in [spec.sources_of(name) for name in spec.scored_names] if rows.classes else [("",)]:
        runs = [run for name in names for run in rows.runs(image_id, name)]
        places = [f"{rows.path}, line {line} ({image_id})" for line, _ in runs]
        parts = [rle.from_text(text, shape, dialect, place) for (_, text), place in zip(runs, places, strict=True)]
        of_image = len(runs) == 1 and not dialect.per_object
        planes.append(components(parts[0]) if of_image else _painted(parts, shape))
    return np.stack(planes)


def _from_files(
    spec: DataSpec, files: Iterable[Path], shape: tuple[int, int], max_pixels: int, image: str
) -> np.ndarray:
    """Return int32 (H, W) from one file an object, in their order."""

    def read_one(file: Path) -> np.ndarray:
        mask = images.read_mask(file, max_pixels, spec.threshold, spec.alpha)
        if mask.shape != tuple(shape):
            have, want = f"{mask.shape[1]} x {mask.shape[0]}", f"{shape[1]} x {shape[0]}"
            raise UserError(f"{file}: {have} pixels, but its image {image} has {want}.")
        return mask

    return _painted(map(read_one, files), shape)


def _painted(masks: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Paint labels 1, 2, ... of masks (H, W) in their order, the later over the earlier."""
    labels = np.zeros(shape, np.int32)
    for number, mask in enumerate(masks, start=1):
        labels[mask > 0] = number
    return labels

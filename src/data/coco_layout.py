"""The layout of COCO: one or several JSONs, each with the polygons and run lengths of its images."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data.annotated import TEST, Gathered, Images, files_of, part_of
from data.layout_match import LayoutMatch, Places
from formats import coco, polygons
from formats.mask_reference import MaskReference
from tools.errors import UserError, listing

MOST = 64  # JSONs that are opened to see what they are: more are one an image, and no COCO's
_CALLED = re.compile("instances|annotation|coco", re.I)


def find(places: Places) -> LayoutMatch | None:
    """Match COCO's JSONs with their images; several are parts of the data, by their names. Raises UserError."""
    if places.masks and places.masks.suffix.lower() != ".json":
        return None
    candidates = [places.masks] if places.masks else files_of(places.root, ".json")
    if len(candidates) > MOST:
        candidates = [path for path in candidates if _CALLED.search(path.name)][:MOST]
    files = [coco.read(path) for path in candidates if places.masks or coco.is_coco(tried(path))]
    files = _of_training([file for file in files if _has_outlines(file)], places)
    if not files:
        return None
    images, found = Images(places), Gathered(places)
    for file in files:
        _add(file, images, found)
    twice = [image for image, count in Counter(found.images).items() if count > 1]
    if twice:
        which = listing([str(one.path) for one in files])
        raise UserError(
            f"{len(twice)} images are in two of the files, such as {twice[0]}:{which}\nName one: "
            f"MASK_PATH={files[0].path}"
        )
    every = [one for file in files for picture in file.pictures.values() for one in picture.annotations]
    crowds = sum(bool(one.get("iscrowd")) for one in every)
    found.notes += [f"{crowds} crowds, each as one object"] if crowds else []
    return found.match("coco", f"COCO annotations in {' and '.join(str(file.path) for file in files)}")


def tried(path: Path) -> Any:
    """Load a JSON that may be anything, None where it is broken; called like annotations, that is an error."""
    try:
        return coco.load_json(path)
    except UserError:
        if _CALLED.search(path.name):
            raise
        return None


def _add(file: coco.CocoFile, images: Images, found: Gathered) -> None:
    name = found.places.below(file.path)
    for image_id, picture in file.pictures.items():
        image = images.find(picture.name.replace("\\", "/"), file.path)
        if isinstance(image, str):
            found.alone.append(f"{file.path}: {picture.name} {image}")
            continue
        reference = str(MaskReference.of_annotations("coco", name, image_id))
        classes = [file.names[one["category_id"]] for one in picture.annotations]
        outside = sum(_leaves(one, picture.shape) for one in picture.annotations)
        found.add(image, reference, classes, outside, part_of(name))


def _has_outlines(file: coco.CocoFile) -> bool:
    """Say whether a file is of masks, with polygons or run lengths. Raises UserError where it has boxes only."""
    every = [one for picture in file.pictures.values() for one in picture.annotations]
    outlined = any(one.get("segmentation") for one in every)
    if not outlined and any("bbox" in one for one in every):
        raise UserError(
            f"{file.path}: its {len(every)} annotations are boxes without a polygon; boxes are no masks. Export them "
            "with segmentation, or move the file away."
        )
    return outlined


def _of_training(files: list[coco.CocoFile], places: Places) -> list[coco.CocoFile]:
    """Leave out the test's files, and others than instances_... where there are such."""
    kept = [file for file in files if part_of(places.below(file.path)) != TEST] or files
    return [file for file in kept if file.path.name.startswith("instances")] or kept


def _leaves(one: dict[str, Any], shape: tuple[int, int] | None) -> bool:
    """Say whether an annotation has a polygon that leaves its image."""
    parts = one.get("segmentation")
    if shape is None or not isinstance(parts, list):
        return False
    try:
        return any(polygons.reaches_out(np.asarray(part, np.float64).reshape(-1, 2), shape) for part in parts)
    except (TypeError, ValueError):  # the strict decode says it
        return False

"""Which order of pixels a table of run lengths has: one training mask decoded in each, laid over its image.

In a wrong order a mask falls apart into stripes, so the right one has by far the shortest outline. On a square image
the two orders mirror each other and have equal outlines; there the picture's own edges below the outline decide.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from formats import images, rle, rle_table
from tools import console, pictures
from tools.errors import UserError, listing

if TYPE_CHECKING:
    from settings import Settings

FOLDERS = ("train_hq", "train_images", "train/images", "stage1_train", "train_v2", "train", "images")
SAMPLED = 2000  # masks whose sizes are compared to find a usual one
CLEAR = 1.2  # the second-best outline must be this much longer, or the outlines do not tell
SHARPER = 1.5  # the same for the picture's edges: they vary more


@dataclasses.dataclass(frozen=True)
class Reading:
    """One training mask as one order of pixels has it."""

    order: rle.Order
    relative: bool
    mask: np.ndarray | None = None  # uint8 (H, W) of 0 and 1, None where the run lengths do not fit
    reason: str = ""  # why they do not
    outline: int = 0  # pixels of the mask with a neighbor outside it
    edge: float = 0.0  # mean gradient of the picture below the outline, gray levels a pixel

    @property
    def title(self) -> str:
        """Name it as the picture and the table do, such as F absolute."""
        return f"{self.order} {'relative' if self.relative else 'absolute'}"


def find_table(given: str, input_path: str) -> Path:
    """Find TABLE, as typed or below INPUT; without it the only CSV below INPUT that has ids and run lengths.

    Hidden files, samples and submissions are left out. Raises UserError where there is none, or more than one.
    """
    root = Path(input_path)
    if given:
        found = next((path for path in (Path(given), root / given) if path.is_file()), None)
        if found is None:
            raise UserError(f"TABLE={given}: no such file, neither here nor below {root}.")
        return found
    tables = [
        path
        for path in sorted(root.rglob("*.csv"))
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not any(word in path.name.lower() for word in ("sample", "submission"))
        and rle_table.find_columns(rle_table.read_header(path))
    ]
    if len(tables) > 1:
        raise UserError(f"Which table is it?{listing([str(path) for path in tables])}\nName one: TABLE={tables[0]}")
    if not tables:
        raise UserError(f"{root}: no CSV with ids and run lengths below it; TABLE=file.csv names one.")
    return tables[0]


def image_finder(input_path: str, train_path: str) -> Callable[[str], Path | None]:
    """Make a function that finds an id's image by name or stem: below TRAIN_PATH, or in the first usual folder with it.

    It returns None where there is none. Folders of masks are left out. Raises UserError where TRAIN_PATH is no folder,
    and where the folder has several such images.
    """
    if train_path and not Path(train_path).is_dir():
        raise UserError(f"TRAIN_PATH={train_path}: no folder of that name.")
    usual = [folder for name in FOLDERS if (folder := Path(input_path, name)).is_dir()]
    roots = [Path(train_path)] if train_path else [*usual, Path(input_path)]
    indices: list[dict[str, list[Path]]] = []  # of the roots, walked only when an id was not in the ones before

    def find(image_id: str) -> Path | None:
        for position, root in enumerate(roots):
            if position == len(indices):
                indices.append(_by_name(root))
            found = indices[position].get(image_id, [])
            if len(found) > 1:
                raise UserError(
                    f"Which is the image of {image_id}?{listing(list(map(str, found)), 5)}\nTRAIN_PATH=folder tells."
                )
            if found:
                return found[0]
        return None

    return find


def _by_name(root: Path) -> dict[str, list[Path]]:
    """Map name and stem to the image files below `root`, folders of masks left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root).parts
        if path.suffix.lower() in images.SUFFIXES and not any("mask" in part or part[0] == "." for part in inner[:-1]):
            for key in {path.name, path.stem}:
                found.setdefault(key, []).append(path)
    return found


def choose(table: rle_table.RleTable, image_id: str, class_name: str, find: Callable) -> tuple[str, Path]:
    """Choose ID and its image; without ID the one whose mask is nearest the median in size. UserError for neither."""
    if image_id:
        if not table.runs(image_id, class_name):
            raise UserError(f"{table.path}: the mask of {image_id} is empty; choose another ID.")
        candidates = [image_id]
    else:
        candidates = by_size(table, class_name)
    for candidate in candidates:
        image = find(candidate)
        if image:
            return candidate, image
    raise UserError(
        f"Found no image named {' or '.join(candidates[:3])} (.jpg, .png, ...) in the usual folders of INPUT; "
        "TRAIN_PATH=folder says where they lie. DICOM and the like must be converted first."
    )


def by_size(table: rle_table.RleTable, class_name: str) -> list[str]:
    """List ids of masks, at most SAMPLED from all over the table, the one of median size first."""
    filled = [image_id for image_id in table.ids if table.runs(image_id, class_name)]
    if not filled:
        raise UserError(f"{table.path}: every mask of it is empty{f' for the class {class_name}' * bool(class_name)}.")
    sampled = filled[:: -(-len(filled) // SAMPLED)]
    sizes = []
    for image_id in sampled:
        where = f"{table.path}, line {{}} ({image_id})"
        runs = table.runs(image_id, class_name)
        sizes.append(sum(int(rle.numbers(text, where.format(line))[1].sum()) for line, text in runs))
    distance = np.abs(np.array(sizes) - np.median(sizes))
    return [sampled[position] for position in np.argsort(distance, kind="stable")]


def slopes(image: np.ndarray) -> np.ndarray:
    """Measure how steep an image (H, W, C) is at each pixel, gray levels a pixel, float32 (H, W); 16 bits as of 256."""
    gray = image.astype(np.float32).mean(-1) / (1 if image.dtype == np.uint8 else 256)
    gray = cv2.GaussianBlur(gray, (0, 0), 1)
    return cv2.magnitude(cv2.Sobel(gray, -1, 1, 0, scale=1 / 8), cv2.Sobel(gray, -1, 0, 1, scale=1 / 8))


def readings(
    table: rle_table.RleTable,
    image_id: str,
    class_name: str,
    shape: tuple[int, int],
    slope: np.ndarray | None = None,
) -> Iterator[Reading]:
    """Read the mask in each order, absolute and relative; `slope` of its image tells the edges below its outline."""
    orders: tuple[rle.Order, ...] = ("C", "F")
    for relative, order in itertools.product((False, True), orders):
        dialect = dataclasses.replace(rle.DIALECTS["tgs"], order=order, relative=relative)
        try:
            mask = table.mask(image_id, class_name, shape, dialect)
        except UserError as error:
            yield Reading(order, relative, reason=str(error).rsplit(": ", 1)[-1].rstrip("."))
            continue
        outline = (mask > cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))).astype(bool)
        edge = 0.0 if slope is None or not outline.any() else float(slope[outline].mean())
        yield Reading(order, relative, mask, outline=int(outline.sum()), edge=edge)


def verdict(found: list[Reading], guess: str, where: str) -> str:
    """Say in a sentence which order looks right and by what, or that this mask does not tell.

    `guess` is the dialect that the header looks like. Raises UserError, beginning with `where`, where no order fits.
    """
    fitting = sorted((one for one in found if one.mask is not None), key=lambda one: one.outline)
    if not fitting:
        raise UserError(f"{where}: the run lengths fit the image in no order ({found[0].reason}); is it their image?")
    best = fitting[0]
    near = [one for one in fitting if one.outline <= CLEAR * best.outline]
    if len(fitting) == 1:
        return f"Only {_named(best)} fits the image. {_dialects(best, guess)}"
    if len(near) == 1:
        against = f"{best.outline:,} px against {fitting[1].outline:,}"
        return f"{_named(best)} looks right: outline {against}. {_dialects(best, guess)}"
    sharp, second = sorted(near, key=lambda one: -one.edge)[:2]
    if sharp.edge >= SHARPER * second.edge and sharp.edge > 0:
        return (
            f"{_named(sharp)} looks right by the picture's edges below the outline, {sharp.edge:.1f} against "
            f"{second.edge:.1f}; the outlines are about equally long, so see the picture. {_dialects(sharp, guess)}"
        )
    return f"This mask does not tell {' from '.join(map(_named, near))}: see the picture, or try ID=another."


def _named(one: Reading) -> str:
    order = {"C": "row-major (C)", "F": "column-major (F)"}[one.order]
    return f"{order}, relative starts," if one.relative else order


def _dialects(one: Reading, guess: str) -> str:
    """Name the dialects of that order; the one that the header looks like is suggested where it is among them."""
    same = [d.name for d in rle.DIALECTS.values() if (d.order, d.relative) == (one.order, one.relative)]
    if not same:
        return "No dialect has that order."
    return f"Dialects of that order: {', '.join(same)}: DIALECT={guess if guess in same else same[0]}"


def draw(path: Path, caption: str, found: list[Reading], image: np.ndarray) -> None:
    """Write one row of pictures, a cell an order; the plain image where the run lengths do not fit."""
    cells = [image if one.mask is None else pictures.overlay(image, one.mask) for one in found]
    titles = [f"{one.title}: {one.reason or f'outline {one.outline:,} px'}" for one in found]
    pictures.sheet(
        path, [(caption, cells)], titles, width=360, note="order of pixels, C: row by row, F: column by column"
    )


def check(settings: "Settings", table: str, image: str, class_name: str) -> None:
    """Decode one mask of `table` in each order, say which is right, and draw them; the mask of `image`, if named."""
    rows = rle_table.read(find_table(table, settings.INPUT))
    find = image_finder(settings.INPUT, settings.TRAIN_PATH)
    image_id, image_path = choose(rows, image, class_name, find)
    pixels = images.read_image(image_path, settings.MAX_PIXELS)
    found = list(readings(rows, image_id, class_name, pixels.shape[:2], slopes(pixels)))
    sentence = verdict(found, rle_table.guess_dialect(rows.columns), f"{rows.path} ({image_id})")
    path = Path(settings.OUTPUT) / "rle_check.png"
    draw(path, f"{image_id}{f', {class_name}' * bool(class_name)}", found, pixels)
    print(f"{rows.path}: {len(rows.ids):,} images; the mask of {image_id} over {image_path}:")
    lines = [
        {
            "order": one.order,
            "relative": "yes" if one.relative else "no",
            "outline": "-" if one.mask is None else f"{one.outline:,} px",
            "edge": "-" if one.mask is None else f"{one.edge:.1f}",
            "foreground": one.reason if one.mask is None else f"{one.mask.mean():.2%}",
        }
        for one in found
    ]
    print(console.table(lines))
    print(f"{sentence}\noverlays -> {path}")

"""Which order of pixels a table of run lengths has, decided over several of its masks; what its rows are.

The outlines of masks tell (see rle_order.py): their sum over many masks, by the images' sizes alone. Where it does not,
as on square images, the pictures' own edges do. The columns of a known competition decide only where neither tells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import rle_order
from data.layout_match import LayoutMatch
from formats import images, rle, rle_table
from formats.mask_reference import MaskReference
from tools.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

MASKS, PIXELS = 24, 200_000_000  # what is looked at of a table, at most; one image always is
PICTURES = 12  # that are decoded where the outlines do not tell
FEWEST = 3  # fewer pictures, and fewer masks that do not fit, tell nothing
AGREE, VOTES = 0.9, 8  # the share that tells of so many pictures, where their sum is less than rle_order.SHARPER
WORDS: dict[rle.Order, str] = {"C": "row by row", "F": "column by column"}


@dataclass(frozen=True)
class Verdict:
    """An order, absolute or relative, and by what; order "" where nothing tells."""

    order: rle.Order | str
    relative: bool
    by: str


def with_dialect(match: LayoutMatch, frame: "pd.DataFrame", settings: "Settings") -> LayoutMatch:
    """Add the dialect of the first table of run lengths that the masks refer to, its rows' form, and a sentence of it.

    Raises UserError where the table's columns are no known competition's and its masks do not tell their order.
    """
    references = [MaskReference.parse(text) for text in frame["mask"]]
    first = next((one.path for one in references if one.kind == "run_lengths"), "")
    if not first:
        return match
    table = rle_table.read(Path(settings.INPUT, first))
    name: str = settings.DIALECT
    if name != "auto":
        said = f"DIALECT={settings.DIALECT}: {_named(settings.DIALECT)}"
    else:
        at = {one.image_id: image for one, image in zip(references, frame["image"], strict=True) if one.path == first}
        found = judge(table, [(key, Path(settings.INPUT, image)) for key, image in at.items()], settings.MAX_PIXELS)
        name, said = _chosen(table, found)
    sentence = f"{match.sentence.rstrip('.')}; its runs go {said}"
    return replace(match, dialect=name, form=form_of(table, name), sentence=sentence)


def _named(name: str) -> str:
    dialect = rle.DIALECTS[name]
    return WORDS[dialect.order] + ", relative starts" * dialect.relative


def _chosen(table: rle_table.RleTable, found: Verdict) -> tuple[str, str]:
    """Choose the dialect's name, and say why. Raises UserError where neither the masks nor the columns tell."""
    guess, known = rle_table.guess_dialect(table.columns), rle_table.is_known(table.columns)
    if not found.order:
        if known:
            return guess, f"{_named(guess)}, by the columns of DIALECT={guess}; {found.by}"
        options = [(one.name, _named(one.name)) for one in (rle.DIALECTS["carvana"], rle.DIALECTS["airbus"])]
        lines = "\n".join(f"  make folds DIALECT={name}   {words}" for name, words in options)
        raise UserError(
            f"{table.path}: which order of pixels do its run lengths have? {found.by}, and the columns "
            f"{', '.join(table.columns)} are of no known competition. make rle-check draws both; say which:\n{lines}"
        )
    same = [one.name for one in rle.DIALECTS.values() if (one.order, one.relative) == (found.order, found.relative)]
    if not same:
        raise UserError(f"{table.path}: relative starts row by row, by {found.by}; no dialect has that order.")
    if guess in same:
        return guess, f"{_named(guess)}, by {found.by}; DIALECT={guess}"
    against = f", though its columns are those of {guess}" if known else ""
    return same[0], f"{_named(same[0])}, by {found.by}{against}; DIALECT={same[0]}"


def judge(table: rle_table.RleTable, pairs: Sequence[tuple[str, Path]], max_pixels: int) -> Verdict:
    """Judge the order of a table's runs by some of its masks; `pairs`: id -> the image's file.

    What is broken is passed over: the strict decode says it of each file.
    """
    usual = rle.DIALECTS[rle_table.guess_dialect(table.columns)]
    looked = list(_looked_at(table, pairs, max_pixels))
    sums = {(order, relative): _Sum() for order in WORDS for relative in (False, True)}
    for image_id, _, shape in looked:
        for reading in _readings(table, image_id, shape):
            sums[reading.order, reading.relative].add(reading)
    if not any(one.fits for one in sums.values()):
        return Verdict(
            "", False, "no mask of it fits its image in any order" if looked else "it has no mask to look at"
        )
    own, other = (sums["F", relative] for relative in (usual.relative, not usual.relative))
    few = own.misfits < FEWEST or own.misfits <= other.misfits  # these may be broken rows
    relative = usual.relative if few else not usual.relative
    outlines = {order: sums[order, relative].outline for order in WORDS}
    return _by_outlines(outlines, relative, sums["F", relative].fits) or _by_edges(table, looked, relative, max_pixels)


class _Sum:
    """What one order makes of several masks."""

    def __init__(self) -> None:
        self.fits = self.misfits = self.outline = 0

    def add(self, reading: rle_order.Reading) -> None:
        self.fits += reading.mask is not None
        self.misfits += reading.mask is None
        self.outline += reading.outline


def _looked_at(
    table: rle_table.RleTable, pairs: Sequence[tuple[str, Path]], max_pixels: int
) -> Iterator[tuple[str, Path, tuple[int, int]]]:
    """Yield (id, file, (H, W)) of images with masks of usual sizes."""
    paths, count, pixels = dict(pairs), 0, 0
    try:
        ids = [image_id for image_id in rle_order.by_size(table, "") if image_id in paths]
    except UserError:  # all are empty, or a row is broken
        ids = [image_id for image_id in table.ids if image_id in paths and table.runs(image_id)]
    for image_id in ids:
        try:
            shape = images.read_size(paths[image_id], max_pixels)
        except UserError:
            continue
        if count == MASKS or (count and pixels + shape[0] * shape[1] > PIXELS):
            return
        count, pixels = count + 1, pixels + shape[0] * shape[1]
        yield image_id, paths[image_id], shape


def _readings(
    table: rle_table.RleTable, image_id: str, shape: tuple[int, int], slope: Any = None
) -> Iterator[rle_order.Reading]:
    """Read an image's masks, each class by itself: together they may fill the image, which has no outline."""
    for name in table.classes[:8] or ("",):
        if table.runs(image_id, name):
            yield from rle_order.readings(table, image_id, name, shape, slope)


def _by_outlines(outlines: dict[rle.Order, int], relative: bool, count: int) -> Verdict | None:
    best, other = sorted(outlines, key=lambda order: outlines[order])
    if outlines[other] <= rle_order.CLEAR * outlines[best]:
        return None
    return Verdict(best, relative, f"the outlines of {count} masks: {outlines[best]:,} px against {outlines[other]:,}")


def _by_edges(
    table: rle_table.RleTable, looked: list[tuple[str, Path, tuple[int, int]]], relative: bool, max_pixels: int
) -> Verdict:
    """Judge by the gradients of the pictures below the masks' outlines."""
    edges: dict[rle.Order, list[float]] = {"C": [], "F": []}
    for image_id, path, _ in looked[:PICTURES]:
        try:
            levels = images.read_levels(path, max_pixels, _channels(path))
        except UserError:
            continue
        for one in _readings(table, image_id, levels.shape[:2], rle_order.slopes(levels)):
            if one.mask is not None and one.relative == relative and one.outline:
                edges[one.order].append(one.edge)
    total = {order: sum(values) for order, values in edges.items()}
    best, other = sorted(total, key=lambda order: -total[order])
    pairs = list(zip(edges[best], edges[other], strict=True))
    agree = sum(one > two for one, two in pairs)
    clear = total[best] >= rle_order.SHARPER * total[other] and len(pairs) >= FEWEST
    if clear or (len(pairs) >= VOTES and agree >= AGREE * len(pairs)):
        mean = [total[order] / len(pairs) for order in (best, other)]
        by = f"the pictures' edges below {len(pairs)} outlines: {mean[0]:.1f} gray levels a pixel against {mean[1]:.1f}"
        return Verdict(best, relative, by)
    return Verdict("", relative, f"the outlines and edges of {len(looked)} masks do not tell")


def _channels(path: Path) -> int:
    return len(images.slices(path)) if "{z}" in path.name else 3


def form_of(table: rle_table.RleTable, name: str) -> dict[str, Any]:
    """Say in what the rows of a submission are those of this table and not the dialect's; {} of its own columns.

    A sample submission, where there is one, has the last word about columns and ids.
    """
    columns = rle_table.find_columns(table.columns)
    if columns is None or rle_table.is_own(table.columns, name):
        return {}
    header = [one.strip() for one in table.columns]
    image, kind, runs = columns
    suffixed = sum(Path(image_id).suffix.lower() in images.SUFFIXES for image_id in table.ids)
    own = replace(
        rle.DIALECTS[name],
        columns=tuple(sorted(filter(None, columns), key=lambda one: (one != image, header.index(one)))),
        joined=not kind and image.lower().endswith(rle_table.COMBINED),
        class_last=bool(kind) and header.index(kind) > header.index(runs),
        with_suffix=2 * suffixed > len(table.ids),
        per_object=table.has_rows_of_objects,
    )
    return own.form

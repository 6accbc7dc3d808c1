"""A known layout, or what the names of all files say: which of them counts, and where neither may win silently."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

from data.file_listing import all_files, stack
from data.layout_match import LayoutMatch, Pair, Places
from data.solver.names import parts_of, take_apart
from data.solver.rules import related
from data.solver.solution import Solution, said_of_rest, solve
from formats.dicom import DICOM
from formats.images import SUFFIXES
from formats.mask_reference import MaskReference
from tools.errors import UserError, listing

Known = Callable[[], LayoutMatch | None]


def choose(known: Sequence[Known], places: Places, *, solving: bool) -> LayoutMatch | None:
    """Choose among the known layouts, tried in this order, and what all names say, where `solving`.

    A known layout stays where it leaves nothing without a partner and no other masks are as likely. Raises UserError
    where two readings are.
    """
    first, refusal = _first(known)
    if not solving:
        if refusal:
            raise refusal
        return first
    files = all_files(places.root)
    if first and first.pairs and not first.alone and (plain := _by_names(first, files)) and not places.annotator:
        return plain
    solution = solve(places, files=files, prior=_masks_of(first, files) if first else frozenset())
    if first and first.pairs and not first.alone and not refusal:
        return _confirmed(first, solution, places)
    if solution is None:
        if refusal:
            raise refusal
        return first
    return _better(first, refusal, solution)


def _by_names(first: LayoutMatch, files: Sequence[str]) -> LayoutMatch | None:
    """Confirm a known layout without a look where no other file may be a mask of its images; None where one may."""
    images, masks = {pair.image for pair in first.pairs}, _masks_of(first, files)
    parts = parts_of(files)
    if not _split(first) and any(parts.get(image) == "valid" for image in images):
        return None
    of_stacks = first.channels != 3 or any("{z}" in image for image in images)
    pictures = [path for path in files if PurePosixPath(path).suffix.lower() in SUFFIXES]
    used = {path for path in pictures if path in images or path in masks or (of_stacks and stack(path) in images)}
    rest = [path for path in pictures if path not in used]
    tests = [path for path in rest if parts[path] == "test"]
    if len(tests) < len(rest):
        return None
    others = take_apart(rest)
    if rest and (related(take_apart(sorted(images)), others) or related(others, others)):
        return None
    taken = masks.union(pictures)
    notes = said_of_rest(tests, 0, [], [path for path in files if path not in taken])
    return replace(first, notes=notes, tests=tests)


def _first(known: Sequence[Known]) -> tuple[LayoutMatch | None, UserError | None]:
    try:
        found: list[LayoutMatch] = []
        for layout in known:
            found += filter(None, [layout()])
            if found and found[-1].pairs:
                return found[-1], None
        return next(iter(found), None), None
    except UserError as error:  # it is raised again where all names together say no more
        return None, error


def _masks_of(match: LayoutMatch, files: Sequence[str]) -> frozenset[str]:
    """List the files that the match takes as masks: a folder's all, and what a name with {class} may stand for."""
    paths = {MaskReference.parse(pair.mask).path for pair in match.pairs}
    folders = {path.partition("{")[0].rpartition("/")[0] for path in paths if "{" in path}
    folders |= paths  # one that is a folder
    return frozenset(path for path in files if path in paths or any(above in folders for above in _above(path)))


def _above(path: str) -> list[str]:
    """List the folders that a path lies in."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _better(first: LayoutMatch | None, refusal: UserError | None, solution: Solution) -> LayoutMatch:
    """Choose where no known layout fits as it is: all names, if they explain more."""
    known = len(first.pairs) if first else 0
    if not solution.question and not solution.match.alone and len(solution.match.pairs) >= known:
        return solution.match
    if refusal:
        raise refusal
    if first and len(solution.taken) <= known:
        return first
    if first and not first.pairs and not solution.question and len(solution.match.alone) >= len(first.alone):
        return first
    if solution.question:
        raise UserError(solution.question)
    return solution.match


def _confirmed(first: LayoutMatch, solution: Solution | None, places: Places) -> LayoutMatch:
    """Keep a known layout that fits, unless the names of all files say that it is not the masks, or not all."""
    if places.annotator and (solution is None or not solution.contest.people):
        raise UserError(f"ANNOTATOR={places.annotator}, but one set of masks is there: {first.sentence}.")
    if solution is None or first.layout == "rle":
        return first
    shared = [pair.image for pair in first.pairs if pair.image in solution.taken]
    if len(shared) < 0.5 * len(first.pairs):
        return first
    if solution.contest.unclear:
        raise UserError(solution.question)
    same = solution.known
    if not same or places.annotator:
        if solution.question:
            raise UserError(solution.question)
        return solution.match
    plain = first.layout in ("folders", "beside") and first.channels == 3 and not first.classes
    whole = not solution.match.alone and not solution.question
    if plain and whole and _split(solution.match) and not _split(first):
        return solution.match
    known = {pair.image for pair in first.pairs}
    more = [pair.image for pair in solution.match.pairs if pair.image not in known]
    said = [f"{len(more)} more pairs by their names, such as {more[0]}: LAYOUT=solved takes all."] if more else []
    return replace(first, notes=[*said, *solution.match.notes], tests=solution.match.tests)


def _split(match: LayoutMatch) -> bool:
    return any(pair.kfold is not None for pair in match.pairs)


def without_unpaired(matched: LayoutMatch, unpaired: str) -> LayoutMatch:
    """Leave out what has no partner (`skip`), or give images without a mask an empty one (`empty`), and say so."""
    pairs, note = list(matched.pairs), f"UNPAIRED={unpaired}: {len(matched.alone)} without a partner are left out."
    if unpaired == "empty":
        splits = any(pair.kfold is not None for pair in pairs)
        pairs += [Pair(image, "", kfold=1 if splits else None) for image in matched.unmasked]
        rest = len(matched.alone) - len(matched.unmasked)
        note = f"UNPAIRED=empty: {len(matched.unmasked)} images without a mask have an empty one"
        note += f"; {rest} masks of no image are left out." if rest else "."
    return replace(matched, pairs=pairs, alone=[], notes=[*matched.notes, note])


def nothing_found(root: Path, layouts: Mapping[str, str], wanted: str) -> UserError:
    """Say what lies below `root`, and what the layouts (name -> what it needs) expect; `wanted` begins the sentence."""
    dicom = next(chain(root.rglob("*.dcm"), root.rglob("*.dicom")), None)
    if dicom:
        return UserError(f"{dicom}: {DICOM.format(folder=root)}")
    have = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())[:12]
    endings = Counter(Path(path).suffix.lower() or "no ending" for path in all_files(root)).most_common(4)
    count = ", ".join(f"{number} {ending}" for ending, number in endings)
    held = f"it holds {', '.join(have)}: {count}" if have else "it is empty"
    expected = listing([f"{name}: {needs}" for name, needs in layouts.items()])
    return UserError(
        f"{wanted}{root}: found no images with masks ({held}). Expected one of:{expected}\n"
        "TRAIN_PATH and MASK_PATH name other folders; TABLE=my.csv takes a list of your own."
    )

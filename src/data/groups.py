"""What must stay together in one fold: images -> groups by a rule, and a hint where names look like views of one thing.

Images are POSIX paths relative to INPUT. Only their text is read, never a file.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from tools.errors import UserError, listing

EXAMPLES = "Rules: auto, none, a regex with one (group), folder, folder:2, gap:5, gap:60s, column:NAME."
_NO_GROUPS = "\nGROUP=none: no groups."
_EPOCH = datetime(1970, 1, 1)
_DATE = r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)"
_TIMES = (  # 20240131235959, 20240131_235959, 2024-01-31T23:59:59.250; then a date alone, with its separators
    re.compile(_DATE + r"[T _.-]?(\d\d)([-_.:hH]?)(\d\d)[-_.:mM]?(\d\d)(?:[._,](\d{6}|\d{3}))?(?!\d)", re.ASCII),
    re.compile(r"(?<!\d)(\d{4})([-_.])(\d\d)\2(\d\d)(?!\d)", re.ASCII),
)


def assign(images: Sequence[str], rule: str, known: str = "") -> list[str]:
    """Find the group of each image, a text that is never empty, in the order of `images`.

    rule: GROUP of config.py. "auto" takes `known`, the layout's own regex, and leaves an image that it misses alone;
    "none" leaves each image alone. Raises UserError for a rule that cannot be read or that misses an image.
    """
    if rule == "auto":
        found = _by_regex(images, known) if known else [""] * len(images)
        return [group or image for image, group in zip(images, found, strict=True)]
    if rule in ("", "none"):
        return list(images)
    if rule.startswith("column:"):
        raise UserError(f"GROUP={rule} names a column of a table of your own: make folds TABLE=file.csv GROUP={rule}")
    if folder := re.fullmatch(r"folder(?::(\d+))?", rule, re.ASCII):
        groups, what = _by_folder(images, int(folder[1] or 1)), "as many folders"
    elif gap := re.fullmatch(r"gap:(\d{1,15}(?:\.\d{1,6})?)(s?)", rule, re.ASCII):
        groups = _by_gap(images, float(gap[1]), _time if gap[2] else _number)
        what = "a date and time (gap:60 takes plain numbers)" if gap[2] else "a number"
    elif re.match(r"(folder|gap)(:|$)", rule):
        raise UserError(f"GROUP={rule} is no rule. {EXAMPLES}")
    else:
        groups, what = _by_regex(images, rule), ""
    missed = [image for image, group in zip(images, groups, strict=True) if not group]
    if missed:
        said = f"needs {what} in each image's path; {len(missed)} of {len(images)} images have" if what else ""
        said = f"{said} none" if said else f"does not match {len(missed)} of {len(images)} images"
        raise UserError(f"GROUP={rule} {said}:{listing(missed, 5)}{_NO_GROUPS}")
    return groups


def _by_regex(images: Sequence[str], pattern: str) -> list[str]:
    """Take what the one (group) of `pattern` holds in each path, "" where it misses or holds nothing."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"GROUP={pattern} is no regular expression: {error}. {EXAMPLES}") from error
    if compiled.groups != 1:
        raise UserError(f"GROUP={pattern} needs exactly one (group), around what names the car, patient or scene.")
    return [(match[1] or "") if (match := compiled.search(image)) else "" for image in images]


def _by_folder(images: Sequence[str], up: int) -> list[str]:
    """Take the folder `up` levels above each image, "" where that is INPUT itself or beyond."""
    if not 1 <= up <= 1000:
        raise UserError(f"GROUP=folder:{up} counts folders upwards from the image: folder:1 is its own. {EXAMPLES}")
    groups = []
    for image in images:
        path = PurePosixPath(image)
        inside = len(path.parts) > up and not path.is_absolute() and ".." not in path.parts
        groups.append("/".join(path.parts[:-up]) if inside else "")
    return groups


Place = tuple[float, int, int]  # a number or a time in seconds, and where its text starts and ends in the stem


def _number(stem: str) -> Place | None:
    """Find the last number of a stem."""
    match = re.search(r"(?<!\d)(\d{1,30})\D*$", stem, re.ASCII)  # more are no count, and int() has its limit
    return (int(match[1]), match.start(1), match.end(1)) if match else None


def _time(stem: str) -> Place | None:
    """Find the last date and time of a stem, or the last date, in seconds since 1970 whatever the time zone."""
    for pattern in _TIMES:
        for match in reversed(list(pattern.finditer(stem))):
            year, _, month, day, *clock = match.groups()
            hour, minute, second = (int(clock[part]) for part in (0, 2, 3)) if clock else (0, 0, 0)
            fraction = float(f"0.{clock[4]}") if clock and clock[4] else 0.0
            try:
                moment = datetime(int(year), int(month), int(day), hour, minute, second)
            except ValueError:  # month 13: some other number
                continue
            return (moment - _EPOCH).total_seconds() + fraction, match.start(), match.end()
    return None


def _by_gap(images: Sequence[str], gap: float, read: Callable[[str], Place | None]) -> list[str]:
    """Part runs of frames: per folder and name without number, a group ends where that grows by more than `gap`.

    A group is called after its first frame, "" where `read` finds nothing.
    """
    series: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for image in set(images):
        path = PurePosixPath(image)
        if place := read(path.stem):
            value, start, end = place
            key = (path.parent.as_posix(), path.stem[:start], path.stem[end:])
            series.setdefault(key, []).append((value, image))
    groups: dict[str, str] = {}
    for frames in series.values():
        group, last = "", 0.0
        for value, image in sorted(frames):
            if not group or value - last > gap:
                group = PurePosixPath(image).with_suffix("").as_posix()
            groups[image], last = group, value
    return [groups.get(image, "") for image in images]


@dataclass(frozen=True)
class Hint:
    """A warning that a person reads, and the rule to type after GROUP= if it is true."""

    sentence: str
    rule: str


@dataclass(frozen=True)
class _Look:
    """A way in which names tell that images show one thing: a rule and how its groups have to look."""

    rule: str
    thing: str  # one group
    part: str  # one image of it
    groups: int = 2  # at least so many
    mean: float = 1.01  # images a group, at least
    most: int = 10**9  # images in the largest group
    ids: bool = False  # the groups' names differ in digits only, or are hexadecimal; names of classes do neither


# Words before the number of a patient or of a film, at a name's or folder's start or after a separator.
_PATIENTS = "patient|pat|case|subject|subj|sub|person|participant|donor|animal|mouse|volume|vol|study|exam|series"
_FILMS = "video|vid|clip|movie|sequence|seq|camera|cam|scene|track|flight"
_FRAMES = "frame|img_?seq|sequence|seq|video|clip|movie|camera|cam|scan|slice|shot"
_LOOKS = (  # the first that fits is told, so the surest come first
    _Look(r"(TCGA[-_]\w\w[-_]\w{4})(?![^\W_])", "patient", "image"),
    _Look(rf"(?i:(?:^|[/_ .-])((?:{_PATIENTS})[-_ ]?\d+))", "patient", "image"),
    _Look(rf"(?i:(?:^|[/_ .-])((?:{_FILMS})[-_ ]?\d+))", "video", "image"),
    # BraTS20_001_slice_77, aachen_frame_12: what stands before the frame's number
    _Look(rf"(?i:^(?:.*/)?([^/]+?)[-_ ](?:{_FRAMES})[-_ ]?\d+\.\w+$)", "volume or video", "frame", groups=3),
    # P0012-0007: one or two letters and digits, then a number
    _Look(r"^(?:.*/)?([A-Za-z]{1,2}\d{2,6})[-_]\d+\.\w+$", "patient", "image", groups=3, mean=1.5),
    # 07L and 07R, 12_left and 12_right: the two sides of one person
    _Look(r"^(?:.*/)?([^/]*\d)[-_ ]?(?:L|R|OD|OS|left|right)\.\w+$", "person", "side", groups=3, mean=1.5, most=2),
    # id_01 to id_16; with fewer than eight prefixes these could be classes, counted
    _Look(r"^(?:.*/)?([^/]*\d[^/]*)[-_ ]\d{1,2}\.\w+$", "thing", "view", groups=3, mean=1.5, most=36),
    _Look(r"^(?:.*/)?([^/]+)[-_ ]\d{1,2}\.\w+$", "thing", "view", groups=8, mean=1.5, most=36),
    # photo.jpg, photo (2).jpg, photo copy.jpg
    _Look(r"^(.+?)(?: \(\d{1,2}\)| copy| - Copy)?\.\w+$", "thing", "view", groups=3, mean=1.2, most=12),
    # id_001 to id_155: slices
    _Look(r"^(?:.*/)?([^/]*\d[^/]*)[-_]\d{3,4}\.\w+$", "thing", "slice", groups=8, mean=3),
    _Look("folder", "folder", "image", groups=3, mean=1.5, ids=True),
    _Look("folder:2", "folder", "image", groups=3, mean=1.5, ids=True),
)
# Folders that sort images by what they are for or by class, rather than by patient.
_USES = "images?|imgs?|frames?|pictures?|train|test|val|valid|validation|fold|part|batch|split|set"
_SORTED = re.compile(rf"(?:.*/)?(?:(?:{_USES}|class|label|category|grade|level|stage)[-_]?)?\d{{0,2}}", re.IGNORECASE)


def hint(images: Sequence[str]) -> Hint | None:
    """Warn where names look like views, slices or frames of fewer things, else None. Call it where no group is set.

    The hint's rule fits every image and gives more than one group and fewer than images.
    """
    for look in _LOOKS:
        groups = _try(images, look.rule)
        if groups and _fits(look, groups):
            counts = Counter(groups)
            largest = min(counts, key=lambda group: (-counts[group], group))
            many = f"{'up to ' * (min(counts.values()) < counts[largest])}{counts[largest]} {look.part}s"
            members = [image for image, group in zip(images, groups, strict=True) if group == largest]
            return Hint(
                f"Names look like {many} of one {look.thing} ({_first_and_last(members)}; {len(counts)} such groups), "
                f"and no group is set: {look.part}s of one {look.thing} in two folds make the score a fiction.",
                _shorter(images, look.rule, groups),
            )
    return _frames(images)


def _shorter(images: Sequence[str], rule: str, groups: list[str]) -> str:
    """Shorten `rule` to those of its words that occur, where that gives the same groups: a person has to read it."""
    for words in filter(rule.__contains__, (f"(?:{_PATIENTS})", f"(?:{_FILMS})", f"(?:{_FRAMES})")):
        seen = sorted({word.lower() for image in images for word in re.findall(f"(?i:{words})", image)})
        shorter = rule.replace(words, seen[0] if len(seen) == 1 else f"(?:{'|'.join(seen)})")
        return shorter if _try(images, shorter) == groups else rule
    return rule


def _first_and_last(images: Sequence[str]) -> str:
    """Write two examples, without their folder where it is the same."""
    first, last = min(images), max(images)
    if PurePosixPath(first).parent == PurePosixPath(last).parent:
        first, last = PurePosixPath(first).name, PurePosixPath(last).name
    return f"{first} to {last}"


def _try(images: Sequence[str], rule: str) -> list[str] | None:
    """Try the groups by `rule`; None but where it fits every image and says something."""
    try:
        assign(images[:100], rule)  # most rules miss one of these: hundreds of thousands of images are common
        groups = assign(images, rule)
    except UserError:
        return None
    return groups if 1 < len(set(groups)) < len(images) else None


def _fits(look: _Look, groups: list[str]) -> bool:
    counts = Counter(groups)
    if len(counts) < look.groups or len(groups) < look.mean * len(counts) or max(counts.values()) > look.most:
        return False
    names = {group.rpartition("/")[2] for group in counts}
    alike = len({re.sub(r"\d+", "0", name) for name in names}) == 1 or all(
        re.fullmatch("[0-9a-fA-F-]{6,}", name) for name in names
    )
    return not look.ids or (alike and not any(_SORTED.fullmatch(group) for group in counts))


def _frames(images: Sequence[str]) -> Hint | None:
    """Hint at names with a word such as frame and numbers in even steps: frame_0001, frame_0002, ..."""
    word = re.compile(rf"(?:^|[_ .-])(?:{_FRAMES})s?[-_ ]?\d", re.IGNORECASE)
    stems = [PurePosixPath(image).stem for image in images]
    if not all(word.search(stem) for stem in stems):
        return None
    numbers = sorted({place[0] for stem in stems if (place := _number(stem))})
    steps = Counter(later - earlier for earlier, later in itertools.pairwise(numbers))
    step, times = steps.most_common(1)[0] if steps else (0, 0)
    if times < max(4, 0.6 * steps.total()):
        return None
    # films in folders of their own; then cuts between films; then neighbors, by hundreds or tens
    hundreds, tens = r"^(?:.*/)?([^/]*?)\d{1,2}\.\w+$", r"^(?:.*/)?([^/]*?)\d\.\w+$"
    rules = [("folder", 2), ("folder:2", 2), (f"gap:{5 * step:.0f}", 5), (hundreds, 5), (tens, 2), (hundreds, 2)]
    for rule, least in rules:
        groups = set(_try(images, rule) or [])
        if least <= len(groups) <= len(images) / 3 and not (
            rule.startswith("folder") and any(map(_SORTED.fullmatch, groups))
        ):
            return Hint(
                f"Names look like neighboring frames ({_first_and_last(images)}), and no group is set: neighbors in "
                "two folds make the score a fiction. The rule proposed keeps "
                f"{len(images) / len(groups):.0f} of them together.",
                rule,
            )
    return None

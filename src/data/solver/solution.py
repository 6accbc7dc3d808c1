"""The tree below INPUT -> a layout's match: pairs, test images, what has no partner, what is left out; or a question.

Where two readings are as likely, nothing is chosen: the question has a line to type for each.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data.file_listing import all_files
from data.layout_match import LayoutMatch, Pair, Places
from data.solver import candidates, references, remainder, words
from data.solver.candidates import Candidate, Found
from data.solver.contest import Contest, decide
from data.solver.kinds import group_rule, one_format, strata
from data.solver.looks import Looker, looker
from data.solver.remainder import Paired
from formats.images import SUFFIXES
from tools.errors import UserError, listing

_TABLE = "TABLE=my.csv with the columns image,mask takes a list of your own"


@dataclass(frozen=True)
class Solution:
    """What was found, and the question that is left, "" where there is none."""

    match: LayoutMatch
    question: str
    contest: Contest
    taken: dict[str, tuple[str, ...]]  # image -> its masks' files, test images and all
    masks: frozenset[str]  # every file that some rule makes a mask

    @property
    def known(self) -> bool:
        """Say whether a known layout takes the same masks."""
        return self.contest.known


def solve(
    places: Places,
    look: Looker | None = None,
    files: Sequence[str] | None = None,
    prior: frozenset[str] = frozenset(),
) -> Solution | None:
    """Find images and their masks among all files below INPUT; None where no names fit.

    `files`, `look`: POSIX paths relative to INPUT and a way to look at one, instead of the disk. `prior`: the masks
    that a known layout takes.
    """
    root, every = places.root, all_files(places.root) if files is None else list(files)
    look = look or looker(root)
    pictures = [path for path in every if PurePosixPath(path).suffix.lower() in SUFFIXES]
    image, mask = _allowed(places.train, root, True), _allowed(places.masks, root, True)
    if places.masks:
        within = _allowed(places.masks, root, True)
        found = candidates.find(pictures, look, lambda path: image(path) and not within(path), mask)
    else:
        found = candidates.find(pictures, look, image, mask)
    contest = decide(found, look, prior)
    if contest is None:
        return None
    return _Solving(places, found, contest, look, every, prior).solution()


def _allowed(place: Path | None, root: Path, default: bool) -> Callable[[str], bool]:
    """Make a test of paths for TRAIN_PATH or MASK_PATH: a folder, or a pattern with *."""
    if place is None:
        return lambda _: default
    pattern = Path(os.path.relpath(place, root)).as_posix()
    if pattern == ".":
        return lambda _: True
    if "*" in pattern:
        shape = re.compile(".*".join(map(re.escape, pattern.split("*"))) + "(?:/.*)?", re.DOTALL)
        return lambda path: shape.fullmatch(path) is not None
    return lambda path: path == pattern or path.startswith(f"{pattern}/")


@dataclass(frozen=True)
class _Solving:
    places: Places
    found: Found
    contest: Contest
    look: Looker
    files: Sequence[str]
    prior: frozenset[str]

    def solution(self) -> Solution:
        contest = self._of_annotator()
        classes: tuple[str, ...] = ()
        texts = references.of_pairs(contest.taken, self.found.index)
        files = references.more_files(contest.taken, self.found.index)
        question = self._question(contest)
        if contest.classes:
            of_classes = references.of_classes(contest.classes)
            if of_classes:
                texts, classes = of_classes
                files = _merged(contest.classes)
            else:
                question = self._ask(contest.classes, "masks")
        texts, twice = one_format(texts)
        pairs, tested = self._parts(texts)
        more = {image: masks for one in contest.more for image, masks in one.pairs.items()}  # of test images, or asked
        files, tested = files | more, [*tested, *more]
        for path in (path for path in pairs if "{" in path):
            self.places.below(self.places.root / path)  # names that no table can keep are refused
        trained, held, again = ({path: files[path] for path in paths} for paths in (pairs, tested, twice))
        rest = remainder.sort_out(self.found, contest, Paired(trained, held, again, self.prior), self.look)
        listed = self._listed(pairs) if rest.images else {}
        left = rest.left + [(path, "not in the lists of images that count") for path in rest.images if listed]
        lone = [] if listed else rest.images
        meant = _allowed(self.places.masks, self.places.root, True)
        left += [(path, "not of MASK_PATH") for path in rest.masks if not meant(path)]
        root = self.places.root
        alone = [f"{root / path}: no mask" for path in lone] + [
            f"{root / path}: no image" for path in rest.masks if meant(path)
        ]
        match = LayoutMatch(
            "solved",
            self._sentence(pairs, files, classes, texts),
            self._pairs(pairs, texts, listed),
            alone,
            group=group_rule(pairs),
            classes=classes,
            unmasked=lone,
            notes=self._notes(contest, tested, rest, left),
            tests=rest.tests,
        )
        drawn = frozenset().union(*(one.masks for one in self.found.candidates), rest.masks)
        return Solution(match, question, contest, files, drawn)

    def _of_annotator(self) -> Contest:
        """Take the people's masks whom ANNOTATOR names. Raises UserError where it names none, or several."""
        asked, people = self.places.annotator.casefold(), self.contest.people
        if not asked:
            return self.contest
        named = {self._label(one, people): one for one in people}
        fits = [one for label, one in named.items() if asked in label.casefold()]
        if len(fits) != 1:
            have = f"there are {', '.join(named)}" if named else "one set of masks is there"
            raise UserError(f"ANNOTATOR={self.places.annotator} names {len(fits)} of those who drew; {have}.")
        return replace(self.contest, taken=fits[0])

    def _label(self, one: Candidate, all_of_them: Sequence[Candidate]) -> str:
        """Name a candidate by the words that only its masks have, as they are written."""
        others = frozenset().union(*(other.rule.gained for other in all_of_them if other is not one))
        own = sorted(one.rule.gained - others) or sorted(one.rule.gained)
        path = sorted(one.masks)[0]
        written = [re.search(re.escape(word), path, re.I) for word in own]
        return " ".join(found[0] if found else word for found, word in zip(written, own, strict=True))

    def _question(self, contest: Contest) -> str:
        if contest.unclear:
            return self._ask([contest.taken, *contest.unclear], "masks")
        more = [one for one in contest.more if any(self.found.parts[path] != "test" for path in one.pairs)]
        if contest.images or more:
            return self._ask([contest.taken, *contest.images, *more], "images")
        doubtful = words.count(contest.taken.rule.gained, words.NO_TRUTH)
        return self._ask([contest.taken], "masks") if doubtful and not self.places.masks else ""

    def _ask(self, sets: Sequence[Candidate], what: str) -> str:
        masks = what == "masks"
        files = [one.masks if masks else frozenset(one.pairs) for one in sets]
        lines = []
        for _one, own in zip(sets, files, strict=True):
            others = frozenset().union(*(other for other in files if other is not own))
            chosen = _selector(own, others)
            name = "MASK_PATH" if masks else "TRAIN_PATH"
            typed = f"{name}='{self.places.root / chosen}'" if chosen else _TABLE
            lines.append(f"{len(own)} files such as {sorted(own)[0]}: {typed}")
        places = "one place" if len(sets) == 1 else f"{len(sets)} places"
        which = f"{len(sets[0].pairs)} images have masks in {places}"
        doubt = "neither names nor looks say which you mean" if len(sets) > 1 else "by its name these are no truth"
        said = which if masks else f"{len(sets)} sets of images have masks"
        return f"{self.places.root}: {said}, and {doubt}:{listing(lines)}\n{_TABLE}."

    def _parts(self, texts: dict[str, str]) -> tuple[list[str], list[str]]:
        """Part the images with masks into those to train on and those to test on, where both are there."""
        parts = self.found.parts
        trained = [path for path in texts if parts[path] != "test"]
        if len(trained) * 10 < len(texts):
            return sorted(texts), []
        return sorted(trained), sorted(texts.keys() - set(trained))

    def _pairs(self, images: Sequence[str], texts: dict[str, str], listed: dict[str, str]) -> list[Pair]:
        parts = [listed.get(PurePosixPath(path).stem) or self.found.parts[path] for path in images]
        given = "valid" in parts and len(set(parts)) > 1
        return [
            Pair(path, texts[path], stratum, int(part != "valid") if given else None)
            for path, part, stratum in zip(images, parts, strata(images), strict=True)
        ]

    def _listed(self, images: Sequence[str]) -> dict[str, str]:
        texts = [path for path in self.files if path.endswith(".txt")]
        root = self.places.root
        return remainder.listed_parts(texts, lambda path: (root / path).read_text(errors="replace"), images)

    def _sentence(
        self, images: Sequence[str], files: dict[str, tuple[str, ...]], classes: Sequence[str], texts: dict[str, str]
    ) -> str:
        masks = [path for image in images for path in files[image]]
        pictures, drawn = (_places({path.rpartition("/")[0] for path in paths}) for paths in (images, masks))
        said = f"images in {pictures}, masks in {drawn}" if pictures != drawn else f"masks beside the images in {drawn}"
        if classes:
            return f"{said}, one file a class: {', '.join(classes)}"
        several = len(masks) > len(images)
        return said + (f", {len(masks)} files, one an object" if several else "")

    def _notes(
        self,
        contest: Contest,
        tested: Sequence[str],
        rest: remainder.Remainder,
        left: list[tuple[str, str]],
    ) -> list[str]:
        notes = []
        if contest.people:
            labels = [self._label(one, contest.people) for one in contest.people]
            mine = labels[contest.people.index(contest.taken)]
            others = [label for label in labels if label != mine]
            word = next((word for word in others[0].split() if sum(word in label for label in labels) == 1), others[0])
            by_people = all(words.drawn_by(label.lower().split()) for label in others)
            sets = f"{len(labels)} {'people drew the images' if by_people else 'sets of masks show the same'}"
            notes.append(
                f"{sets}: {mine} is taken; ANNOTATOR={word} takes another"
                + (f" ({', '.join(others)})." if len(others) > 1 else ".")
            )
        used = {name.path for name in self.found.index.names} | (self.prior if contest.known else set())
        return notes + said_of_rest(rest.tests, len(tested), left, [path for path in self.files if path not in used])


def said_of_rest(tests: Sequence[str], tested: int, left: Iterable[tuple[str, str]], other: Iterable[str]) -> list[str]:
    """Say what the test images are, `tested` of them with masks, and what is left out; `other`: files, no images."""
    notes = []
    if tests:
        where = _places({path.rpartition("/")[0] for path in tests})
        held = f", {tested} of them with masks, which are not trained on" if tested else ""
        notes.append(f"Test images: {len(tests)} in {where}{held}.")
    lines = remainder.grouped(left) + remainder.grouped(_no_pictures(list(other)))
    return [*notes, f"Left out:{listing(lines, 8)}"] if lines else notes


def _no_pictures(other: Sequence[str]) -> list[tuple[str, str]]:
    """List files that are no images, of folders and endings that have several."""
    counts = Counter((path.rpartition("/")[0].split("/")[0], PurePosixPath(path).suffix) for path in other)
    return [
        (path, "no images")
        for path in other
        if counts[path.rpartition("/")[0].split("/")[0], PurePosixPath(path).suffix] > 2
    ]


def _merged(classes: Sequence[Candidate]) -> dict[str, tuple[str, ...]]:
    merged: dict[str, tuple[str, ...]] = {}
    for one in classes:
        for image, paths in one.pairs.items():
            merged[image] = (*merged.get(image, ()), *paths)
    return merged


def _places(folders: Iterable[str]) -> str:
    """Name some folders: two by their names, more by what they have in common."""
    every = sorted(f"{folder}/" if folder else "INPUT" for folder in folders)
    if len(every) <= 2:
        return " and ".join(every)
    if shape := _shape(every):
        return shape
    common = os.path.commonpath([folder.rstrip("/") for folder in every]) if "INPUT" not in every else ""
    return f"{common}/**" if common else "**"


def _shape(folders: Sequence[str]) -> str:
    """Write folders as one, with * where they differ; "" where they are not equally deep."""
    parts = [folder.split("/") for folder in folders]
    if len({len(part) for part in parts}) > 1:
        return ""
    return "/".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*parts, strict=True))


def _selector(own: frozenset[str], others: frozenset[str]) -> str:
    """Find a folder or a pattern that fits all of a set's files and none of the others', "" where there is none."""
    folders = sorted({path.rpartition("/")[0] for path in own})
    pattern = _shape(folders) or folders[0]
    names = [path.rpartition("/")[2] for path in own]
    end = references.common_start([name[::-1] for name in names])[::-1]
    start = references.common_start(names)
    for tried in (pattern, f"{pattern}/*{end}", f"{pattern}/{start}*{end}", f"*{end}"):
        fits = _allowed(Path(tried.lstrip("/")), Path(), True)
        if tried and all(map(fits, own)) and not any(map(fits, others)):
            return tried.lstrip("/")
    return ""

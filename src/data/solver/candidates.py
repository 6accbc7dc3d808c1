"""Every rule that makes masks of images here, by names and a look at three of its pairs; the most likely one first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

from data.solver import words
from data.solver.looks import Look, Looker
from data.solver.names import Name, parts_of, take_apart
from data.solver.rules import Index, Rule

_RULES, _RARE = 40, 0.15  # by the number of files that proposed them, and the least of it, of the first one's
_FLAT, _MASK = 0.85, 0.7  # more is flat, less is no mask unless its name says so
_MARGIN = 0.08  # between how flat an image and its mask are
_BONUS = 0.3  # of a word such as masks
_ENOUGH = 0.5  # of all files in pairs: names need no finer look


@dataclass(frozen=True)
class Candidate:
    """A rule, the pairs that it makes, and how they look."""

    rule: Rule
    pairs: dict[str, tuple[str, ...]]  # image -> its masks' files
    same_size: bool
    worth: int  # pairs that are not of the test images, unless all are

    @cached_property
    def masks(self) -> frozenset[str]:
        return frozenset(path for paths in self.pairs.values() for path in paths)

    @property
    def other(self) -> bool:
        """Say whether words call it a drawing of a mask, or of something else."""
        return words.count(self.rule.gained, words.OTHERS) > 0

    def examples(self, count: int = 3) -> list[tuple[str, str]]:
        """Take some of the pairs, spread over all."""
        images = sorted(self.pairs)
        count = min(count, len(images))
        some = [images[position * len(images) // count] for position in range(count)]
        return [(image, self.pairs[image][0]) for image in some]

    @property
    def rank(self) -> tuple[bool, bool, int, int, bool, int]:
        lost = self.rule.lost
        of_images = words.count(lost, words.IMAGES) - 2 * words.count(lost, words.MASKS)
        plain = not words.count(lost, words.NOT_IMAGES)
        return (
            self.same_size,
            plain and not self.other,
            self.worth,
            min(1, of_images),
            self.rule.view == "one",
            -self.rule.size,
        )


@dataclass(frozen=True)
class Found:
    """The candidates, the most likely first, and what relates images to other pictures."""

    candidates: list[Candidate]
    index: Index
    parts: dict[str, str]  # path -> train, valid, test, ""
    pictures: list[Rule]  # image -> another picture of it: an overlay, another band

    @property
    def explained(self) -> float:
        """Return the share of all files that the first candidate pairs; an image's masks count as one."""
        if not self.candidates:
            return 0.0
        first = self.candidates[0]
        several = len(first.masks) - len(first.pairs)
        return 2 * len(first.pairs) / max(1, len(self.index.names) - several)


Allowed = Callable[[str], bool]


def find(paths: Sequence[str], look: Looker, image: Allowed, mask: Allowed) -> Found:
    """Find the candidates among image files; `image` and `mask` say which may be what."""
    parts = parts_of(paths)
    best = _find(take_apart(paths), parts, look, image, mask)
    for fine, loose in ((True, False), (False, True), (True, True)):
        if best.explained >= _ENOUGH:
            break
        other = _find(take_apart(paths, fine, loose), parts, look, image, mask)
        best = other if other.explained > best.explained else best
    return best


def _find(names: list[Name], parts: dict[str, str], look: Looker, image: Allowed, mask: Allowed) -> Found:
    index = Index(names)
    proposed = sorted(index.propose(image).items(), key=lambda item: (-len(item[1]), item[0].size, str(item[0])))
    made, pictures = [], []
    least = len(proposed[0][1]) * _RARE if proposed else 0
    for rule, pairs in proposed[:_RULES]:
        if len(pairs) < least:
            break
        side = _side(rule, pairs, index, look)
        if side == "picture":
            pictures.append(rule)
        if side != "mask":
            continue
        found = index.apply(rule, (name for name in names if image(name.path)))
        allowed = {path: tuple(filter(mask, masks)) for path, masks in found.items()}
        one_number = rule.view == "numbered" and max(map(len, allowed.values()), default=0) == 1  # MASK_PATH=*_1.png
        found = {path: masks for path, masks in allowed.items() if masks and (one_number or masks == found[path])}
        if len(found) > 1 or (found and len(names) <= 4):
            made.append(_candidate(rule, found, parts, look))
    return Found(sorted(made, key=lambda one: one.rank, reverse=True), index, parts, pictures)


def _candidate(rule: Rule, pairs: dict[str, tuple[str, ...]], parts: dict[str, str], look: Looker) -> Candidate:
    worth = sum(parts[path] != "test" for path in pairs) or len(pairs)
    bare = Candidate(rule, pairs, True, worth)
    sizes = [(look(image), look(mask)) for image, mask in bare.examples()]
    same = all(one.size == two.size for one, two in sizes if one and two)
    return Candidate(rule, pairs, same, worth)


def _side(rule: Rule, pairs: Sequence[tuple[str, str]], index: Index, look: Looker) -> str:
    """Say what the rule leads to from an image: its `mask`, another `picture`, or nothing that counts."""
    some = [pairs[position * len(pairs) // 3] for position in range(3)] if len(pairs) > 3 else list(pairs)
    looks = [(look(image), look(mask)) for image, mask in some]
    image = _flat([one for one, _ in looks])
    mask = _flat([two for _, two in looks])
    own = index.by_path[some[0][0]].words
    named_image, named_mask = words.count(rule.lost, words.IMAGES), words.count(own, words.MASKS)
    if image > _FLAT and named_mask and not named_image:
        return ""
    gain = mask + _bonus(rule.gained) - image - _bonus(rule.lost)
    if gain >= _MARGIN and (mask > _MASK or words.count(rule.gained, words.MASKS)):
        return "mask"
    return "picture" if mask <= _FLAT and image <= _FLAT else ""


def _flat(looks: Iterable[Look | None]) -> float:
    seen = [look.mask for look in looks if look is not None]
    return mean(seen) if seen else 0.5


def _bonus(some: Iterable[str]) -> float:
    every = list(some)
    return _BONUS * (min(1, words.count(every, words.MASKS)) - min(1, words.count(every, words.IMAGES)))

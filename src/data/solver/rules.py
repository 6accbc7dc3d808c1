"""Rules from an image's name to its masks': words that go and words that come, proposed by some files, tried on all.

A rule holds where the numbers and all other words are equal: `training/images/21_training` loses images and gains 1st,
manual, manual1. So a folder exchanged, a prefix, a suffix and an ending are one kind of rule.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from data.solver.names import Key, Name

View = Literal["one", "numbered", "folder"]  # one mask; a mask's files numbered; a folder of files
VIEWS: tuple[View, ...] = ("one", "numbered", "folder")
_SAMPLE, _OF_FOLDER, _POOL, _MOST_WORDS = 96, 4, 400, 10


@dataclass(frozen=True)
class Rule:
    """What an image's name loses and gains to become its mask's."""

    lost: frozenset[str]
    gained: frozenset[str]
    view: View = "one"
    endings: tuple[str, str] | None = None  # where nothing else tells them apart: a.jpg and a.png

    @property
    def size(self) -> int:
        return len(self.lost) + len(self.gained)


class Index:
    """All image files by their keys, in each view that a mask may have."""

    def __init__(self, names: Sequence[Name]) -> None:
        self.names = names
        self.by_path = {name.path: name for name in names}
        self._keyed: dict[View, dict[Key, list[Name]]] = {}
        self._pools: dict[View, dict[str | tuple[str, ...], list[Key]]] = {}

    def keyed(self, view: View) -> dict[Key, list[Name]]:
        """Map each key to the files that have it in a view."""
        if view not in self._keyed:
            self._keyed[view] = _keyed(self.names, view)
        return self._keyed[view]

    def partners(self, name: Name, rule: Rule) -> list[Name]:
        """Find what the rule makes of a file, itself left out."""
        words, numbers = name.key
        if not rule.lost <= words or rule.gained & words or (rule.endings and name.ending != rule.endings[0]):
            return []
        found = self.keyed(rule.view).get(((words - rule.lost) | rule.gained, numbers), [])
        if rule.endings:
            return [other for other in found if other.ending == rule.endings[1]]
        return [other for other in found if other is not name]

    def apply(self, rule: Rule, names: Iterable[Name] | None = None) -> dict[str, tuple[str, ...]]:
        """Map each image that the rule finds masks for to these; two files for one mask are none."""
        pairs = {}
        for name in self.names if names is None else names:
            found = self.partners(name, rule)
            if found and (rule.view != "one" or len(found) == 1):
                pairs[name.path] = tuple(sorted(other.path for other in found))
        return _one_image_each(pairs)

    def propose(self, allowed: Callable[[str], bool]) -> dict[Rule, list[tuple[str, str]]]:
        """Propose rules by some files whose paths are `allowed` as images: each with pairs that it is of."""
        found: dict[Rule, list[tuple[str, str]]] = defaultdict(list)
        for name in _sample([name for name in self.names if allowed(name.path)]):
            for view in VIEWS:
                for rule, other in self._related(name, view):
                    found[rule].append((name.path, other.path))
        return found

    def _related(self, name: Name, view: View) -> Iterable[tuple[Rule, Name]]:
        words, numbers = name.key
        seen = set()
        for (other_words, other_numbers), files in self._pool(name, view):
            other = next((file for file in files if file is not name), None)
            if other is None or other_numbers != numbers or not _same_thing(name, other_words):
                continue
            lost, gained = words - other_words, other_words - words
            if len(lost) + len(gained) > _MOST_WORDS:
                continue
            if lost or gained:
                ones = [(Rule(lost, gained, view), other)]
            else:
                ones = [
                    (Rule(lost, gained, view, (name.ending, file.ending)), file)
                    for file in files
                    if view == "one" and file.ending != name.ending
                ]
            for rule, file in ones:
                if rule not in seen:
                    seen.add(rule)
                    yield rule, file

    def _pool(self, name: Name, view: View) -> Iterable[tuple[Key, list[Name]]]:
        """List the keys that may belong to a file: of its numbers, or of its rarest word."""
        if view not in self._pools:
            self._pools[view] = _pools(self.keyed(view))
        pools = self._pools[view]
        words, numbers = name.key
        sizes = sorted((len(pools[word]), word) for word in words if word in pools)
        pool = pools.get(numbers, []) if numbers else (pools[sizes[0][1]] if sizes else [])
        if len(pool) > _POOL and sizes:
            rare = set(pools[sizes[0][1]])
            pool = [key for key in pool if key in rare] or pool
        if len(pool) > _POOL:
            pool = sorted(pool, key=lambda key: len(key[0] ^ words))[:_POOL]
        return [(key, self.keyed(view)[key]) for key in pool]


def _one_image_each(pairs: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leave out images that claim one mask: but for one that lies as deep as it, where only one does."""
    claims: dict[str, list[str]] = defaultdict(list)
    for image, masks in pairs.items():
        claims[masks[0]].append(image)
    if len(claims) == len(pairs):
        return pairs
    kept = set()
    for mask, images in claims.items():
        deep = [image for image in images if image.count("/") == mask.count("/")]
        kept |= set(images if len(images) == 1 else deep if len(deep) == 1 else ())
    return {image: masks for image, masks in pairs.items() if image in kept}


def _keyed(names: Sequence[Name], view: View) -> dict[Key, list[Name]]:
    keyed: dict[Key, list[Name]] = defaultdict(list)
    for name in names:
        key = name.key if view == "one" else name.folder_key if view == "folder" else name.without_number
        if key is not None:
            keyed[key].append(name)
    return keyed


def _pools(keyed: dict[Key, list[Name]]) -> dict[str | tuple[str, ...], list[Key]]:
    """List the keys that have each word, and those that have the same numbers."""
    pools: dict[str | tuple[str, ...], list[Key]] = defaultdict(list)
    for words, numbers in keyed:
        for word in words:
            pools[word].append((words, numbers))
        if numbers:
            pools[numbers].append((words, numbers))
    return pools


def _same_thing(name: Name, others: frozenset[str]) -> bool:
    """Say whether what both names have in common tells which image it is: numbers, or a word of the image's own."""
    own = {token for token in name.stem if not token.isdecimal()}
    if name.numbers or own & others:
        return True
    return bool(name.folder_words & others)  # <id>/image.png and <id>/mask.png: the folder says which


def _sample(names: Sequence[Name]) -> list[Name]:
    """Take a few files of each folder and ending, spread over all folders where there are many."""
    groups: dict[tuple[str, str], list[Name]] = defaultdict(list)
    for name in names:
        groups[name.path.rpartition("/")[0], name.ending].append(name)
    every = [groups[key] for key in sorted(groups)]
    count = min(len(every), _SAMPLE)
    some = [every[position * len(every) // count] for position in range(count)]
    each = max(1, min(_OF_FOLDER, _SAMPLE // max(1, count))) if count else 0
    # in a folder of images and masks side by side the first few may be of one kind: neighbors go together
    return [name for group in some for name in _spread(group, max(each, 12 if count <= 8 else each))]


def _spread(group: list[Name], count: int) -> list[Name]:
    count = min(count, len(group))
    return [group[position * len(group) // count] for position in range(count)]


def related(images: Sequence[Name], others: Sequence[Name]) -> bool:
    """Say whether some rule leads from at least two of the images to others; from one where there is only one."""
    theirs = {name.path for name in others}
    index = Index([*images, *others] if images is not others else images)
    own = {name.path for name in images}
    proposed = index.propose(own.__contains__)
    least = min(2, len(own))
    return any(sum(other in theirs for _, other in pairs) >= least for pairs in proposed.values())

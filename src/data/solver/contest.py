"""Several sets of masks for the same images: people who drew one thing, drawings of it, classes, or a question."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean

from data.solver import words
from data.solver.candidates import Candidate, Found
from data.solver.looks import Looker, all_alike, overlap

_SAME_THING = 0.5  # of the area of both: two people drew one thing
_SAME_SHARE = 0.6  # the smaller one's share of pixels, of the larger one's
_APART = 0.15


@dataclass(frozen=True)
class Contest:
    """The set of masks that is taken, and what the others are."""

    taken: Candidate
    people: list[Candidate] = field(default_factory=list)  # who drew the same, in their order; `taken` is one of them
    classes: list[Candidate] = field(default_factory=list)  # that have masks of their own; `taken` is one of them
    unclear: list[Candidate] = field(default_factory=list)  # as likely as `taken`
    images: list[Candidate] = field(default_factory=list)  # other images of the same masks, as likely
    other: list[tuple[Candidate, str]] = field(default_factory=list)  # left out, and why
    known: bool = False  # `taken` is what a known layout takes
    more: list[Candidate] = field(default_factory=list)  # pairs of other images with other masks, by other rules


def decide(found: Found, look: Looker, prior: frozenset[str] = frozenset()) -> Contest | None:
    """Decide which candidate is taken; None where there is none. `prior`: the masks that a known layout takes."""
    if not found.candidates:
        return None
    ranked = sorted(found.candidates, key=lambda one: not _known(one, prior))
    sets, other = _without_others(_rivals(ranked[0], ranked, prior), look, prior)
    first = sets[0]
    known = _known(first, prior)
    images = _of_the_same_masks(first, found.candidates)
    kinds = {id(one): _relation(first, one, look) for one in sets if one is not first}
    people = [one for one in sets if kinds.get(id(one)) == "people"]
    classes = [one for one in sets if kinds.get(id(one)) == "classes"]
    unclear = [one for one in sets if kinds.get(id(one)) == ""]
    if classes and (people or unclear or known or not _all_apart(classes, look)):
        unclear, classes, people = [one for one in sets if one is not first], [], []
    together = sorted([first, *people], key=lambda one: sorted(one.masks)[0]) if people else []
    classes = sorted([first, *classes], key=lambda one: sorted(one.masks)[0]) if classes else []
    if people and not unclear and not known:
        first = together[0]
    if not (together or classes or unclear or images):
        first = _joined(first, found.candidates)
    involved = [first, *together, *classes, *unclear, *images, *(one for one, _ in other)]
    return Contest(first, together, classes, unclear, images, other, known, _apart(found.candidates, involved))


def _joined(first: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """Join pairs whose masks are in the same folders, called a word more or less: a.png and b_mask.png.

    So are those whose images are in other folders: images_part_1 and images_part_2 with one folder of masks.
    """
    for one in candidates:
        differ = one.rule.gained ^ first.rule.gained
        alike = words.count(differ, words.MASKS) == len(differ) and (differ or one.same_size == first.same_size)
        apart = {*one.pairs, *one.masks}.isdisjoint({*first.pairs, *first.masks})
        if alike and apart and one.rule.view == first.rule.view and _folders(one.masks) == _folders(first.masks):
            first = replace(first, pairs={**first.pairs, **one.pairs}, worth=first.worth + one.worth)
    return first


def _folders(paths: Iterable[str]) -> set[str]:
    return {path.rpartition("/")[0] for path in paths}


def _apart(candidates: Sequence[Candidate], involved: Sequence[Candidate]) -> list[Candidate]:
    """List candidates that share no file with those that are `involved`, nor with each other."""
    kept: list[Candidate] = []
    files = {path for one in involved for path in (*one.pairs, *one.masks)}
    for one in candidates:
        own = {*one.pairs, *one.masks}
        if not one.other and own.isdisjoint(files) and 20 * len(one.pairs) >= len(involved[0].pairs):
            kept.append(one)
            files |= own
    return kept


def _known(one: Candidate, prior: frozenset[str]) -> bool:
    return 2 * len(one.masks & prior) > min(len(one.masks), len(prior))


def _rivals(first: Candidate, candidates: Sequence[Candidate], prior: frozenset[str]) -> list[Candidate]:
    """List the candidates with other masks for the same images, `first` before all."""
    kept = [first]
    for one in candidates:
        if _known(first, prior) and _known(one, prior):
            continue
        shared = len(one.pairs.keys() & first.pairs.keys())
        if shared < 0.5 * min(len(one.pairs), len(first.pairs)) or (not one.same_size and first.same_size):
            continue
        if all(len(one.masks & other.masks) < 0.05 * len(one.masks) for other in kept):
            kept.append(one)
    return kept


def _without_others(
    sets: list[Candidate], look: Looker, prior: frozenset[str]
) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
    """Leave out what words call something else, and fields of view where others are none."""
    most = max(one.worth for one in sets)
    named = [
        one
        for one in sets
        if one.other and not _known(one, prior) and any(not two.other and two.worth * 2 >= most for two in sets)
    ]
    rest = [one for one in sets if one not in named]
    alike = [one for one in rest if len(rest) > 1 and _alike(one, look)]
    if len(alike) == len(rest):
        alike = []
    left = [(one, "by its name no mask, or a drawing of one") for one in named]
    left += [(one, "the same area in every file, as a field of view has it") for one in alike]
    return [one for one in rest if one not in alike], left


def _alike(one: Candidate, look: Looker) -> bool:
    looks = [look(mask) for _, mask in one.examples(5)]
    return all_alike([seen for seen in looks if seen is not None])


def _of_the_same_masks(first: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    """List candidates that pair the same masks with other images, as likely as `first`."""
    images: list[Candidate] = []
    for one in candidates:
        shared = len(one.masks & first.masks) >= 0.5 * len(one.masks) and _as_likely(one, first)
        if shared and not any(one.pairs.keys() & other.pairs.keys() for other in (first, *images)):
            images.append(one)
    return images


def _as_likely(one: Candidate, first: Candidate) -> bool:
    """Say whether the images of `one` may be the true ones just as well: by size, words, number and by how near."""
    same = one.rank[:2] == first.rank[:2] and one.rank[3] >= first.rank[3]
    return same and one.worth >= 0.9 * first.worth and one.rule.size < first.rule.size + 2


def _relation(first: Candidate, one: Candidate, look: Looker) -> str:
    """Say what two sets of masks are to each other: people, classes, or "" where it is not clear."""
    mine, other = first.rule.gained - one.rule.gained, one.rule.gained - first.rule.gained
    common, same_share = _overlap(first, one, look)
    numbered = {words.numbered(word) for word in mine} == {words.numbered(word) for word in other}
    if common is None:
        return "people" if words.drawn_by(mine) and words.drawn_by(other) else ""
    if words.drawn_by(mine) and words.drawn_by(other) and common > _APART:
        return "people"
    as_many = 10 * min(len(first.pairs), len(one.pairs)) >= 9 * max(len(first.pairs), len(one.pairs))
    if common >= _SAME_THING and same_share >= _SAME_SHARE and as_many:
        return "people"
    return "classes" if common <= _APART and not numbered else ""


def _overlap(first: Candidate, one: Candidate, look: Looker) -> tuple[float | None, float]:
    """Measure how much of their areas two sets share, and how alike their shares of pixels are; None: nothing shown."""
    images = sorted(first.pairs.keys() & one.pairs.keys())
    count = min(5, len(images))
    some = [images[position * len(images) // count] for position in range(count)]
    pairs = [(look(first.pairs[image][0]), look(one.pairs[image][0])) for image in some]
    shown = [(a, b) for a, b in pairs if a and b and a.area.any() and b.area.any()]
    if not shown:
        return None, 0.0
    shares = [min(a.share, b.share) / max(a.share, b.share) for a, b in shown]
    return mean(overlap(a, b) for a, b in shown), mean(shares)


def _all_apart(sets: Sequence[Candidate], look: Looker) -> bool:
    overlaps = [_overlap(a, b, look)[0] for number, a in enumerate(sets) for b in sets[number + 1 :]]
    return all(common is not None and common <= _APART for common in overlaps)

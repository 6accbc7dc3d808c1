"""What is in no pair: images and masks without a partner, test images, and files that are neither, grouped."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from data.solver import words
from data.solver.candidates import Candidate, Found
from data.solver.contest import Contest
from data.solver.looks import Looker
from data.solver.names import PARTS

_LINES = 5
_FLAT, _FLAT_TEST = 0.85, 0.97  # what is called test may have a black frame


@dataclass(frozen=True)
class Remainder:
    """Image files that are in no pair that is trained on."""

    images: list[str]  # beside images with a mask, and without one
    masks: list[str]  # as masks are called, and of no image
    tests: list[str]  # images to predict
    left: list[tuple[str, str]]  # path, why


@dataclass(frozen=True)
class Paired:
    """Images in pairs, each with its masks' files."""

    trained: dict[str, tuple[str, ...]]
    tested: dict[str, tuple[str, ...]]  # test images that have masks
    twice: dict[str, tuple[str, ...]]  # the same again in another format
    known: frozenset[str]  # further masks of a known layout


def sort_out(found: Found, contest: Contest, paired: Paired, look: Looker) -> Remainder:
    """Say of every image file that is in no pair what it is."""
    pairs, tested = paired.trained, paired.tested
    taken = contest.taken
    why = _whys(contest, tested) | dict.fromkeys(_files(paired.twice), "the same in another format")
    used = _files(pairs) | (paired.known if contest.known else frozenset())
    image_folders, mask_folders = _folders(pairs), _folders(path for paths in pairs.values() for path in paths)
    images, masks, tests, rest = [], [], list(tested), []
    for name in found.index.names:
        path = name.path
        folder = path.rpartition("/")[0]
        if path in used or path in tested:
            continue
        if path in why:
            rest.append((path, why[path]))
        elif _called_mask(path, found, taken, folder in mask_folders):
            masks.append(path)
        elif _called_image(path, found, taken) and folder in image_folders:
            images.append(path)
        else:
            rest.append((path, ""))
    lone = [path for path, said in rest if not said]
    drawn = _other_pictures(found, pairs, lone)
    usual = _flat([image for image, _ in taken.examples()], look)
    tests += _tests(found, [path for path in lone if path not in drawn], look, usual)
    known = set(tests)
    left = [(path, said or ("other pictures of the images" if path in drawn else "")) for path, said in rest]
    return Remainder(images, masks, sorted(tests), [(path, said) for path, said in left if path not in known])


def _whys(contest: Contest, tested: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Say of files that some rule pairs why they are not taken."""
    why = {path: "masks of test images" for paths in tested.values() for path in paths}
    for one in (*contest.people, *contest.classes):
        if one is not contest.taken:
            why |= dict.fromkeys(one.masks, "the same, drawn otherwise")
    for one, said in contest.other:
        files = one.masks if one.masks.isdisjoint(contest.taken.masks) else one.pairs
        why = dict.fromkeys(files, said) | why
    return why


def _files(pairs: dict[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(pairs).union(*pairs.values())


def _folders(paths: Iterable[str]) -> set[str]:
    return {path.rpartition("/")[0] for path in paths}


def _called_mask(path: str, found: Found, taken: Candidate, among_masks: bool) -> bool:
    """Say whether a file is called as the masks are: it has what an image's name gains."""
    name, rule = found.index.by_path[path], taken.rule
    if rule.endings:
        return among_masks and name.ending == rule.endings[1]
    return bool(rule.gained) and rule.gained <= name.words and (among_masks or bool(rule.lost))


def _called_image(path: str, found: Found, taken: Candidate) -> bool:
    name, rule = found.index.by_path[path], taken.rule
    if rule.endings:
        return name.ending == rule.endings[0]
    return rule.lost <= name.words and not rule.gained & name.words


def _other_pictures(found: Found, pairs: dict[str, tuple[str, ...]], lone: Sequence[str]) -> set[str]:
    """Find what other rules lead to from the images in pairs: overlays, other bands."""
    if not lone:
        return set()
    waiting, drawn = set(lone), set()
    names = [found.index.by_path[path] for path in pairs]
    for rule in found.pictures:
        if PARTS.keys() & (rule.lost | rule.gained):
            continue
        led_to = {path for paths in found.index.apply(rule, names).values() for path in paths}
        drawn |= led_to & waiting if len(led_to) > max(1, len(pairs) // 5) else set()
    return drawn


def _tests(found: Found, lone: Sequence[str], look: Looker, usual: float) -> list[str]:
    """Choose the images to predict: pictures in folders of their own; those called test, where there are any.

    usual: how flat the training images are.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for path in lone:
        folders[path.rpartition("/")[0]].append(path)
    flat = {folder: _flat(paths, look) for folder, paths in folders.items()}
    most, of_test = max(_FLAT, usual + 0.02), max(_FLAT_TEST, usual + 0.02)
    called = [path for path in lone if found.parts[path] == "test" and flat[path.rpartition("/")[0]] <= of_test]
    pictures = [path for path in lone if flat[path.rpartition("/")[0]] <= most]
    return called or [path for path in pictures if not words.count(found.index.by_path[path].words, words.OTHERS)]


def _flat(paths: Sequence[str], look: Looker) -> float:
    """Look at some of a folder's files: how much they are like masks, 0 to 1; 1 where none can be read."""
    some = [look(paths[position * len(paths) // 3]) for position in range(min(3, len(paths)))]
    seen = [one.mask for one in some if one is not None]
    return sum(seen) / len(seen) if seen else 1.0


def grouped(left: Iterable[tuple[str, str]]) -> list[str]:
    """Say what is left out, a line for each folder, ending and reason: `103 files under Overlays/ (.png): ...`."""
    every = list(left)
    groups = _groups(every, 2)
    groups = groups if len(groups) <= _LINES else _groups(every, 1)
    rows = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    return [
        f"{count} {'file' if count == 1 else 'files'} {f'under {folder}/' if folder else 'beside them'}"
        f"{f' ({ending})' if ending else ''}: {why or 'in no pair'}"
        for (folder, ending, why), count in rows
    ]


def _groups(left: Iterable[tuple[str, str]], deep: int) -> dict[tuple[str, str, str], int]:
    """Count files by their folder, as `deep` as that, their ending and the reason."""
    groups: dict[tuple[str, str, str], int] = defaultdict(int)
    for path, why in left:
        folder, _, name = path.rpartition("/")
        groups["/".join(folder.split("/")[:deep]), PurePosixPath(name).suffix.lower(), why] += 1
    return groups


Reader = Callable[[str], str]  # of a text file, "" where it cannot be read


def listed_parts(texts: Sequence[str], read: Reader, pairs: Iterable[str]) -> dict[str, str]:
    """Find lists of the images that count (ImageSets/Segmentation/train.txt): stem -> train, valid or "".

    {} where no lists name just the images that have masks.
    """
    stems = {PurePosixPath(path).stem for path in pairs}
    listed: dict[str, str] = {}
    for part, names in (("", ("trainval",)), ("train", ("train",)), ("valid", ("val", "valid", "validation"))):
        for path in texts:
            if PurePosixPath(path).stem.lower() not in names:
                continue
            lines = {PurePosixPath(line.split()[0]).stem for line in read(path).splitlines() if line.strip()}
            if lines and lines <= stems:
                listed |= dict.fromkeys(lines, part)
    return listed if len(listed) >= 0.99 * len(stems) else {}

"""A candidate's files -> the texts that a table holds: a path, a folder, {object} or {class} in a name."""

import re
from collections.abc import Sequence

from data.solver.candidates import Candidate
from data.solver.rules import Index
from formats.mask_reference import CLASS, OBJECT
from tools.errors import UserError


def of_pairs(taken: Candidate, index: Index) -> dict[str, str]:
    """Map each image to its mask's reference."""
    if taken.rule.view == "numbered" and _is_one_of(taken, index):
        return {image: masks[0] for image, masks in taken.pairs.items()}
    if taken.rule.view == "numbered":
        return {image: _without_number(masks[0]) for image, masks in taken.pairs.items()}
    if taken.rule.view == "folder":
        return {image: _folder(image, masks) for image, masks in taken.pairs.items()}
    several = {image: _numbered_too(masks[0], index) for image, masks in taken.pairs.items()}
    if any(several.values()):
        return {image: _with_object(masks[0]) for image, masks in taken.pairs.items()}
    return {image: masks[0] for image, masks in taken.pairs.items()}


def _is_one_of(taken: Candidate, index: Index) -> bool:
    """Say whether MASK_PATH chose one of each image's numbered files."""
    by_number = index.keyed("numbered")
    keys = [index.by_path[masks[0]].without_number for masks in taken.pairs.values()]
    return all(len(masks) == 1 for masks in taken.pairs.values()) and any(
        len(by_number[key]) > 1 for key in keys if key
    )


def more_files(taken: Candidate, index: Index) -> dict[str, tuple[str, ...]]:
    """Map each image to all files of its mask: of a_mask.png also a_mask_1.png."""
    if taken.rule.view != "one":
        return taken.pairs
    return {image: (*masks, *_numbered_too(masks[0], index)) for image, masks in taken.pairs.items()}


def _numbered_too(mask: str, index: Index) -> list[str]:
    """List a mask's other files, numbered: a_mask_1.png beside a_mask.png."""
    name = index.by_path[mask]
    start = mask.rpartition(".")[0]
    found = index.keyed("numbered").get(name.key, [])
    return sorted(
        other.path
        for other in found
        if other.ending == name.ending and re.fullmatch(r"[ _-]\(?\d+\)?", other.path.rpartition(".")[0][len(start) :])
        if other.path.startswith(start)
    )


def _without_number(path: str) -> str:
    stem, _, ending = path.rpartition(".")
    return re.sub(r"\d+(\)?)$", rf"{OBJECT}\1", stem) + f".{ending}"


def _with_object(path: str) -> str:
    stem, _, ending = path.rpartition(".")
    return f"{stem}{OBJECT}.{ending}"


def _folder(image: str, masks: Sequence[str]) -> str:
    folders = {path.rpartition("/")[0] for path in masks}
    if len(folders) > 1:
        raise UserError(f"{image} has masks in {len(folders)} folders: {', '.join(sorted(folders)[:3])}. TABLE=my.csv")
    return folders.pop()


def of_classes(classes: Sequence[Candidate]) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """Write each image's masks as one text with {class}, and name the classes; None where names do not allow it."""
    texts: dict[str, str] = {}
    names: set[str] = set()
    for image in sorted({image for one in classes for image in one.pairs}):
        paths = [one.pairs[image][0] for one in classes if image in one.pairs]
        if len(paths) == 1:
            continue
        start, end = _around(paths)
        texts[image] = start + CLASS + end
        names |= {path[len(start) : len(path) - len(end)] for path in paths}
    if not texts or any("/" in name or not name for name in names) or len(names) != len(classes):
        return None
    for image in {image for one in classes for image in one.pairs} - texts.keys():
        path = next(one.pairs[image][0] for one in classes if image in one.pairs)
        name = next((name for name in names if f"/{name}/" in f"/{path}"), None)
        if name is None:
            return None
        texts[image] = f"/{path}".replace(f"/{name}/", f"/{CLASS}/", 1)[1:]
    return texts, tuple(sorted(names))


def _around(paths: Sequence[str]) -> tuple[str, str]:
    """Return what paths have in common before and after the one piece in which they differ, whole words."""
    start = common_start(paths)
    end = common_start([path[len(start) :][::-1] for path in paths])[::-1]
    start = re.sub(r"[^\W_]+$", "", start)
    return start, re.sub(r"^[^\W_]+", "", end)


def common_start(texts: Sequence[str]) -> str:
    """Return the characters that all texts begin with."""
    low, high = min(texts), max(texts)
    same = next((at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), None)
    return low if same is None else low[:same]

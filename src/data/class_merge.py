"""CLASSES="vehicle=car+truck, road": the classes of a data set merged, renamed or left out, before any training.

What is not listed becomes background where there is one, or where classes have masks of their own; else its pixels are
not labeled. `ignore=sky` leaves pixels of a class unlabeled by name.
"""

from collections.abc import Iterable
from dataclasses import replace

from data.class_table import NOT_LABELED
from data.dataspec import BACKGROUND, NO_CLASS, UNLABELED, DataSpec
from tools.errors import UserError, nearest

EXAMPLE = 'CLASSES="vehicle=car+truck, road"'


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """Read CLASSES -> name -> the data's classes in it. Raises UserError for an empty name, or one that comes twice."""
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        name, equals, parts = (piece.strip() for piece in part.partition("="))
        sources = tuple(source.strip() for source in parts.split("+")) if equals else (name,)
        if not name or not all(sources):
            raise UserError(f"CLASSES={text}: a name is missing in '{part.strip()}'; expected such as {EXAMPLE}.")
        if name in found:
            raise UserError(f"CLASSES={text}: {name} comes twice; join its classes by +, such as {EXAMPLE}.")
        found[name] = sources
    used = [source for sources in found.values() for source in sources]
    twice = next((source for source in used if used.count(source) > 1), "")
    if twice:
        raise UserError(f"CLASSES={text}: {twice} comes twice; a class can be part of one only.")
    return found


def merged(spec: DataSpec, text: str, task: str) -> DataSpec:
    """Return the spec with its classes as CLASSES says; TASK=binary where one is left and binary is asked for.

    Raises UserError for a class that the data have not, none that is scored, and several of a binary task.
    """
    if not text:
        return spec
    wanted = parse(text)
    _refuse_unknown((source for sources in wanted.values() for source in sources), spec.classes, text)
    unlabeled = next((name for name in wanted if name.lower() in NOT_LABELED), "")
    if unlabeled and spec.task != "multiclass":
        raise UserError(
            f"CLASSES={text}: only where each pixel has one class (TASK=multiclass) can some be {unlabeled}."
        )
    names = [BACKGROUND if name.lower() == BACKGROUND else name for name in wanted if name != unlabeled]
    if spec.task == "multiclass" and BACKGROUND in spec.classes and BACKGROUND not in names:
        names.insert(0, BACKGROUND)
    if not set(names) - {BACKGROUND}:
        raise UserError(f"CLASSES={text}: nothing is left to be scored; the data have {', '.join(spec.classes)}.")
    classes = tuple(name for name in names if spec.task == "multiclass" or name != BACKGROUND)
    target = {source: name for name, sources in wanted.items() for source in sources}
    other = BACKGROUND if BACKGROUND in classes else ""
    places = {name: classes.index(name) for name in classes}
    rest = NO_CLASS if spec.task != "multiclass" else UNLABELED
    pairs = []
    for source in spec.classes:
        name = target.get(source, other)
        name = BACKGROUND if name.lower() == BACKGROUND else name
        pairs.append((source, places.get(name, UNLABELED if name == unlabeled and name else rest)))
    return _of_task(replace(spec, classes=classes, merged=tuple(pairs)), text, task)


def _refuse_unknown(sources: Iterable[str], known: tuple[str, ...], text: str) -> None:
    for source in sources:
        if source not in known:
            raise UserError(
                f"CLASSES={text}: the data have no class {source}.{nearest(source, known)} Known: {', '.join(known)}."
            )


def _of_task(spec: DataSpec, text: str, task: str) -> DataSpec:
    """Make a binary task of one class that is left, where that is asked for, or where each class has its own masks."""
    if task == "binary" and len(spec.scored) > 1:
        raise UserError(f"TASK=binary, but CLASSES={text} leaves {', '.join(spec.scored_names)}; merge them by +.")
    if spec.task == "binary" or len(spec.scored) > 1 or (task != "binary" and spec.task == "multiclass"):
        return spec
    if task == "multilabel":
        return spec
    if any(place == UNLABELED for _, place in spec.merged):
        raise UserError(f"TASK=binary: each pixel is foreground or not, and CLASSES={text} leaves some unlabeled.")
    index = spec.scored[0]
    pairs = tuple((source, 0 if place == index else NO_CLASS) for source, place in spec.merged)
    return replace(spec, task="binary", classes=spec.scored_names, merged=pairs)


def describe(spec: DataSpec) -> str:
    """Say what was merged, renamed or left out; "" where nothing was."""
    if not spec.merged:
        return ""
    said = [
        f"{name} is {' + '.join(spec.sources_of(name))}" for name in spec.classes if spec.sources_of(name) != (name,)
    ]
    for place, words in ((NO_CLASS, "left out"), (UNLABELED, "not labeled")):
        out = [source for source, own in spec.merged if own == place]
        said += [f"{words}: {', '.join(out)}"] if out else []
    return f"CLASSES: {'; '.join(said)}" if said else ""


def refuse_others(spec: DataSpec, text: str, where: str) -> None:
    """Raise UserError where CLASSES is given and the data of the folds table `where` were made with other classes."""
    if not text:
        return
    wanted = {name: set(sources) for name, sources in parse(text).items() if name.lower() not in NOT_LABELED}
    for name, sources in wanted.items():
        if name not in spec.classes or set(spec.sources_of(name)) != sources:
            raise UserError(
                f"CLASSES={text}, but {where} has {', '.join(spec.classes)}. Leave it out, or run make folds "
                f"CLASSES='{text}'."
            )

"""Where the weights come from that a training begins with, and whether they have seen what it holds out.

A file is of a run of ours where a model.json lies beside it, or where one below LOGS names its sha256. What that run
was trained on, its folds table says; the weights that it began with itself are followed likewise.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import splits
from tools import run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256
from training import seen_images

if TYPE_CHECKING:
    import pandas as pd

RANDOM, IMAGENET, RUN, UNKNOWN = "random", "imagenet", "run", "unknown"
BEGUN = "begun_from"  # in run.json and model.json: an Origin
SAID = "weights_origin"  # in run.json and summary.json: the same in words
MARK = "origin"  # in the metadata of a .safetensors file that `make weights` packs
STEM = Path(run_folders.FOLDS).stem
UNSURE = "origin unknown"  # these words mark a run, and every score of it


@dataclass(frozen=True)
class Origin:
    """Of weights: random, ImageNet's, a run's (all that follows `sha256` is of that run), or unknown."""

    origin: str
    file: str = ""
    sha256: str = ""
    experiment: str = ""
    fold: str = ""
    seed: int = 0
    overfit: int = 0
    folds_sha256: str = ""
    table: str = ""  # TRAIN_FOLDS and INPUT of then
    input: str = ""
    before: "Origin | None" = None  # what that run began with

    def as_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value and name != "before"} | (
            {"before": self.before.as_json()} if self.before else {}
        )

    def __str__(self) -> str:
        if self.origin == RUN:
            begun = f", which began from {self.before}" if self.before and self.before.origin in (RUN, UNKNOWN) else ""
            return f"{self.experiment}, fold {self.fold}, seed {self.seed}{begun}"
        return {RANDOM: "random weights", IMAGENET: "ImageNet's weights"}.get(self.origin, f"{UNSURE}: {self.file}")


@dataclass(frozen=True)
class HeldOut:
    """What a training holds out: `rows` (image, group) of `table`, images below `root`; `logs`: where runs lie."""

    rows: "pd.DataFrame"
    fold: str
    table: Path
    root: Path
    logs: str

    @property
    def folds_sha256(self) -> str:
        return sha256(self.table) if self.table.is_file() else ""


def from_json(values: dict[str, Any], where: str) -> Origin:
    """Read what `as_json` wrote. Raises UserError where it is something else."""
    try:
        before = values.get("before")
        origin = Origin(**{**values, "before": from_json(before, where) if before else None})
        kinds = {field.name: type(field.default) for field in fields(Origin)[1:-1]}
        if origin.origin in (RANDOM, IMAGENET, RUN, UNKNOWN) and all(
            isinstance(getattr(origin, name), kind) for name, kind in kinds.items()
        ):
            return origin
    except (TypeError, AttributeError, RecursionError):
        pass  # the sentence below
    raise UserError(f"{where}: '{BEGUN}' is not what training writes. Train it again: make train ... OVERWRITE=1")


def of_file(file: Path, logs: str, followed: tuple[str, ...] = ()) -> Origin:
    """Find where a weights file comes from; `followed`: the sha256 of those that began with it."""
    sha = sha256(file)
    about = _beside(file) or _below(logs, sha)
    if about:
        return _of_run(about, logs, Origin(RUN, str(file), sha), (*followed, sha))
    return Origin(IMAGENET if _metadata(file).get(MARK) == IMAGENET else UNKNOWN, str(file), sha)


def _of_run(about: dict[str, Any], logs: str, origin: Origin, followed: tuple[str, ...]) -> Origin:
    then = _settings(about)
    seed, overfit = (int(value) if isinstance(value := about.get(name), int) else 0 for name in ("seed", "overfit"))
    return replace(
        origin,
        experiment=str(about.get("experiment")),
        fold=about["fold"],
        seed=seed,
        overfit=overfit,
        folds_sha256=about["folds_sha256"],
        table=str(then.get("TRAIN_FOLDS", "")),
        input=str(then.get("INPUT", "")),
        before=began(about, logs, followed),
    )


def began(about: dict[str, Any], logs: str, followed: tuple[str, ...] = ()) -> Origin:
    """Return what the run of this model.json began with: as it says or, of older code, by its ENCODER_WEIGHTS."""
    if BEGUN in about:
        return from_json(about[BEGUN], run_folders.MODEL)
    then = str(_settings(about).get("ENCODER_WEIGHTS", ""))
    if then in ("none", "imagenet"):
        return Origin(RANDOM if then == "none" else IMAGENET)
    again = bool(then) and Path(then).is_file() and sha256(Path(then)) not in followed
    return of_file(Path(then), logs, followed) if again else Origin(UNKNOWN, then)


def _settings(about: dict[str, Any]) -> dict[str, Any]:
    return about["settings"] if isinstance(about.get("settings"), dict) else {}


def _beside(file: Path) -> dict[str, Any]:
    """Read the model.json of ours beside a file, {} where there is none."""
    path = file.with_name(run_folders.MODEL)
    about = read_json(path, "Move it away where it is not of a run.") if path.is_file() else {}
    return about if isinstance(about.get("fold"), str) and isinstance(about.get("folds_sha256"), str) else {}


def _below(logs: str, sha: str) -> dict[str, Any]:
    """Find the model.json below LOGS that names these weights, {} where none does: the file is a copy of that run's."""
    for path in sorted(Path(logs).glob(f"*/*/{run_folders.MODEL}")):
        if sha.encode() in path.read_bytes():
            about = _beside(path)
            if about.get("weights_sha256") == sha:
                return about
    return {}


def _metadata(file: Path) -> dict[str, str]:
    """Read what a .safetensors file says beside its tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):
        return {}  # a .pth, or broken: what loads it says so


def record(origin: Origin) -> dict[str, Any]:
    """Return what run.json and model.json say of it, in words too."""
    return {BEGUN: origin.as_json(), SAID: str(origin)}


def is_unknown(origin: Origin | None) -> bool:
    """Return whether nobody can say what these weights, or some that they began with, have seen."""
    return origin is not None and (origin.origin == UNKNOWN or is_unknown(origin.before))


def tables(origin: Origin | None, held_out: HeldOut) -> dict[str, bytes]:
    """Read the folds tables of the runs that weights came by, other than `held_out`'s: file name -> bytes.

    Kept in the folder of what begins with them, they outlive those runs.
    """
    if origin is None or origin.origin != RUN:
        return {}
    path = _table(origin, held_out) if origin.folds_sha256 != held_out.folds_sha256 else None
    own = {f"{STEM}_{origin.folds_sha256[:12]}.csv": path.read_bytes()} if path else {}
    return own | tables(origin.before, held_out)


def _table(origin: Origin, held_out: HeldOut) -> Path | None:
    """Find the folds table that a run was trained on, None where it is nowhere any more."""
    pattern = f"{STEM}*.csv"
    likely = [held_out.table, *Path(origin.file).parent.glob(pattern), Path(origin.table)]
    every = (path for paths in (likely, Path(held_out.logs).glob(f"*/*/{pattern}")) for path in paths)
    return next((path for path in every if path.is_file() and sha256(path) == origin.folds_sha256), None)


def check(origin: Origin, held_out: HeldOut) -> Origin:
    """Return the same origin, or unknown where the folds table of a run is lost.

    Raises UserError where the weights, or those that they began with, were trained on an image that is held out, or on
    another of its group.
    """
    return _check(origin, held_out, origin.file)


def _check(origin: Origin, held_out: HeldOut, file: str) -> Origin:
    if origin.origin != RUN:
        return origin
    before = _check(origin.before, held_out, file) if origin.before else None
    path = _table(origin, held_out)
    if path is None:
        return replace(origin, origin=UNKNOWN, before=before)
    seen = seen_images.seen(_trained_on(origin, path, held_out), held_out.rows, held_out.root)
    if seen:
        by = "was" if file == origin.file else f"began from weights ({origin}) that were"
        raise UserError(
            f"{file} {by} trained on {len(seen)} of the {len(held_out.rows)} images that fold {held_out.fold} holds "
            f"out, on others of their groups or on copies of them, so a score on them would be of what was seen:"
            f"{listing(seen, 5)}\n"
            f"Begin with what has not seen them: {_ways_out(origin, held_out)}"
        )
    return replace(origin, before=before)


def _trained_on(origin: Origin, path: Path, held_out: HeldOut) -> seen_images.TrainedOn:
    """Return the rows that a run was trained on, by its folds table `path`."""
    frame = splits.read(path, f"{origin.file} was trained on it.")
    train = frame.iloc[splits.split_rows(frame, origin.fold)[0]]
    train = train.head(origin.overfit) if origin.overfit else train
    return seen_images.TrainedOn(train, Path(origin.input), origin.folds_sha256 == held_out.folds_sha256)


def _ways_out(origin: Origin, held_out: HeldOut) -> str:
    ways = ["ImageNet's weights", "random ones"]
    if origin.folds_sha256 == held_out.folds_sha256:
        own = Path(held_out.logs, origin.experiment, f"fold{held_out.fold}_seed{origin.seed}")
        there = "" if (own / run_folders.WEIGHTS).is_file() else f", after make train FOLD={held_out.fold} of it"
        ways.insert(0, f"fold {held_out.fold} of {origin.experiment} ({own / run_folders.WEIGHTS}{there})")
    return f"{', '.join(ways[:-1])} or {ways[-1]}. FOLD=full holds nothing out."

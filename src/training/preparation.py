"""What is checked, fixed and written before a training begins."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256, write_json, write_text
from training import builders, run_record, weights_origin

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

FIXED = ("data", "network", "training")  # sections that the folds of one experiment share
UNKNOWN_ORIGIN = (
    "They may have seen what is held out; run.json, summary.json, the leaderboard and the model card say so. "
    "Of known origin are a run's model.safetensors with its model.json, and what make weights packs."
)
VARYING = ("SEED", "EXPERIMENT", "TRAIN_FOLDS")  # the seed and the experiment name the run; the table has its hash


def fixed_settings(settings: "Settings") -> dict[str, Any]:
    """What must be equal in all runs of an experiment."""
    shared = settings.snapshot(*FIXED)
    values = {name: value for name, value in shared.items() if name not in VARYING}
    return {
        **values,
        "folds_sha256": sha256(Path(settings.TRAIN_FOLDS)),
        "data": builders.data_spec(settings).as_json(),
    }


@dataclass(frozen=True)
class Prepared:
    """What rank zero decided before a training, once for all ranks."""

    resume_from: Path | None
    identity: dict[str, Any]
    origin: dict[str, Any]


def prepare(
    settings: "Settings",
    frame: "pd.DataFrame",
    folder: Path,
    fold: str,
    device: str,
    precision: str,
    resume: bool,
    overwrite: bool,
    build: Callable[[], tuple[Any, Any]],
) -> Prepared | None:
    """Check everything, make the cache, open the run folder; None where the run is finished already."""
    from training import checkpoints

    fixed = fixed_settings(settings)
    run_folders.check_run(folder, fixed, resume, overwrite, settings.defaults())
    if resume and (folder / run_folders.MODEL).is_file():
        return None
    resume_from = checkpoints.choose(folder / "checkpoints") if resume else None
    begun = builders.begun_from(settings, frame, fold, _recorded(folder) if resume else None)
    tables = weights_origin.tables(begun, builders.held_out(settings, frame, fold))
    if weights_origin.is_unknown(begun):
        print(f"Warning: {begun}. {UNKNOWN_ORIGIN}", flush=True)
    cache = build()[1].cache
    identity = {**fixed, "SEED": settings.SEED, "fold": fold, "data_sha256": cache.data_sha256}
    devices = settings.DEVICES * settings.NODES
    today = run_record.of_today(device, precision, devices, cache.data_sha256, fixed["folds_sha256"])
    origin = {"fold": fold, "settings": settings.snapshot(), **today, **weights_origin.record(begun)}
    if resume_from is not None:
        checkpoints.refuse_another_run(resume_from, identity, settings.defaults())
        origin["sessions"] = _say_what_changed(folder, origin)
    run_folders.open_run(folder, fixed, resume)
    for suffix in (".csv", ".json"):  # with what the pixels mean, so that the folder can be run again by itself
        text = Path(settings.TRAIN_FOLDS).with_suffix(suffix).read_text(encoding="utf-8")
        write_text((folder / run_folders.FOLDS).with_suffix(suffix), text)
    for name, table in tables.items():
        (folder / name).write_bytes(table)
    write_json(folder / run_folders.ORIGIN, origin)
    return Prepared(resume_from, identity, origin)


def _recorded(folder: Path) -> weights_origin.Origin | None:
    """What run.json says of the weights that a run began with, None where it is of older code or not there."""
    path = folder / run_folders.ORIGIN
    then = read_json(path, "Remove it: what the run began with is found again.") if path.is_file() else {}
    return weights_origin.from_json(then[weights_origin.BEGUN], str(path)) if weights_origin.BEGUN in then else None


def _say_what_changed(folder: Path, now: dict[str, Any]) -> list[list[str]]:
    """Code, packages or computer other than in the session before may round otherwise: said, not refused.

    Returns what changed from session to session so far, for run.json.
    """
    path = folder / run_folders.ORIGIN
    if not path.is_file():
        return []
    need = {"code": dict, "versions": dict, "computer": dict}
    then = read_json(path, "Remove it: it is for make reproduce alone.", need)
    differ = run_record.differences(then, now)
    if differ:
        print(
            f"Since the last session of {folder} there changed:{listing(differ)}\nIts weights may be rounded otherwise."
        )
    return [*then.get("sessions", []), differ]


def refuse_what_does_nothing(settings: "Settings", fold: str) -> None:
    """Settings that contradict each other, or that nothing would come of. Raises UserError."""
    by_dice = {
        "CHECKPOINT=best": settings.CHECKPOINT == "best",
        "EARLY_STOPPING": settings.EARLY_STOPPING > 0,
        "SCHEDULE=plateau": settings.SCHEDULE == "plateau",
    }
    given = [name for name, on in by_dice.items() if on]
    if fold == "full" and given and not settings.OVERFIT:
        raise UserError(f"FOLD=full validates on nothing, so {' and '.join(given)} cannot go by it; leave it out.")
    if any(settings.CROP) and not all(settings.CROP):
        raise UserError(f"CROP={settings.CROP[0]},{settings.CROP[1]}: expected a height and a width, or 0,0 for none.")
    devices = settings.DEVICES * settings.NODES
    if settings.TRAIN_BATCH_SIZE % devices:
        near = -(-settings.TRAIN_BATCH_SIZE // devices) * devices
        raise UserError(
            f"TRAIN_BATCH_SIZE={settings.TRAIN_BATCH_SIZE} cannot be divided among {devices} devices; {near} can."
        )
    if settings.MIX != "none" and settings.TRAIN_BATCH_SIZE < 2:
        raise UserError(
            f"MIX={settings.MIX} mixes the images of a batch, and TRAIN_BATCH_SIZE=1 has one; take 2 or more."
        )
    if settings.FREEZE_ENCODER >= settings.EPOCHS:
        raise UserError(
            f"FREEZE_ENCODER={settings.FREEZE_ENCODER} of EPOCHS={settings.EPOCHS} would never train the encoder; "
            "take fewer."
        )

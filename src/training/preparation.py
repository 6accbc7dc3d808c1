"""What is checked, fixed and written before a training begins."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import constants, run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256, write_json, write_text
from training import builders, run_record, warm_start, weights_origin

if TYPE_CHECKING:
    from settings import Settings
    from training.trainer import Hardware

FIXED = ("data", "network", "training")  # sections that the folds of one experiment share
UNKNOWN_ORIGIN = (
    "They may have seen what is held out; run.json, summary.json, the leaderboard and the model card say so. "
    "Of known origin are a run's model.safetensors with its model.json, and what make weights packs."
)
VARYING = ("SEED", "EXPERIMENT", "TRAIN_FOLDS")  # the seed and the experiment name the run; the table has its hash


def as_begun(settings: "Settings") -> "Settings":
    """Return the settings with what NORMALIZE=auto meant where the experiment was begun by older code."""
    path = Path(settings.LOGS, settings.EXPERIMENT, run_folders.SETTINGS)
    if settings.NORMALIZE != "auto" or not path.is_file():
        return settings
    then = read_json(path, "Remove the experiment's folder or choose another EXPERIMENT=name.")
    return settings if "NORMALIZE" in then else replace(settings, **constants.renamed({"NORMALISE": "auto"}))


def fixed_settings(settings: "Settings") -> dict[str, Any]:
    """Return what must be equal in all runs of an experiment."""
    shared = as_begun(settings).snapshot(*FIXED)
    if settings.ENCODER_WEIGHTS == "none" and shared["NORMALIZE"] == "auto":
        shared["NORMALIZE"] = "data"  # which it is, as it was by the code of before
    values = {name: value for name, value in shared.items() if name not in VARYING}
    ignore = 255 if settings.IGNORE == "auto" else int(settings.IGNORE)  # as experiments of before have it
    return {
        **values,
        "IGNORE": ignore,
        "folds_sha256": sha256(Path(settings.TRAIN_FOLDS)),
        "data": builders.data_spec(settings).as_json(),
    }


@dataclass(frozen=True)
class Prepared:
    """What rank zero decided before a training, once for all ranks."""

    hardware: "Hardware"
    resume_from: Path | None
    identity: dict[str, Any]
    origin: dict[str, Any]


def write_record(folder: Path, table: Path, others: dict[str, bytes], origin: dict[str, Any]) -> None:
    """Write the folds table and run.json into the run folder, and `others`: tables of the runs it began from."""
    for suffix in (".csv", ".json"):  # with what the pixels mean, so that the folder can be run again by itself
        text = table.with_suffix(suffix).read_text(encoding="utf-8")
        write_text((folder / run_folders.FOLDS).with_suffix(suffix), text)
    for name, content in others.items():
        (folder / name).write_bytes(content)
    write_json(folder / run_folders.ORIGIN, origin)


def recorded_origin(folder: Path) -> weights_origin.Origin | None:
    """Read from run.json what weights a run began with, None where it is of older code or not there."""
    path = folder / run_folders.ORIGIN
    then = read_json(path, "Remove it: what the run began with is found again.") if path.is_file() else {}
    return weights_origin.from_json(then[weights_origin.BEGUN], str(path)) if weights_origin.BEGUN in then else None


def say_what_changed(folder: Path, now: dict[str, Any]) -> list[list[str]]:
    """Say where code, packages or computer differ from the session before: they may round otherwise.

    Returns what changed from session to session so far, for run.json.
    """
    path = folder / run_folders.ORIGIN
    if not path.is_file():
        return []
    need: dict[str, type] = {"code": dict, "versions": dict, "computer": dict}
    then = read_json(path, "Remove it: it is for make reproduce alone.", need)
    differ = run_record.differences(then, now)
    if differ:
        print(
            f"Since the last session of {folder} there changed:{listing(differ)}\nIts weights may be rounded otherwise."
        )
    return [*then.get("sessions", []), differ]


def refuse_what_does_nothing(settings: "Settings", fold: str) -> None:
    """Refuse settings that contradict each other, or that nothing would come of. Raises UserError."""
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
    if settings.INIT:
        warm_start.named(settings)
    if settings.INIT and settings.ENCODER_WEIGHTS not in ("none", "imagenet"):
        raise UserError(
            f"INIT={settings.INIT} takes the place of ENCODER_WEIGHTS={settings.ENCODER_WEIGHTS}; give one of them."
        )
    if settings.FREEZE_ENCODER >= settings.EPOCHS:
        raise UserError(
            f"FREEZE_ENCODER={settings.FREEZE_ENCODER} of EPOCHS={settings.EPOCHS} would never train the encoder; "
            "take fewer."
        )

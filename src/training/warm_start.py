"""INIT: a whole network that begins as fold k's model of another experiment, as far as shapes allow."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataspec import DataSpec
from tools import distributed, run_folders
from tools.errors import UserError, listing
from tools.files import sha256
from tools.names import check_name

if TYPE_CHECKING:
    from modeling.segmenter import Segmenter
    from settings import Settings

OWN = ("mean", "std")  # of the images, which NORMALIZE says: no weights
FULL = "full"


def named(settings: "Settings") -> tuple[str, str, int]:
    """Return logs, experiment and seed that INIT names: a, a:43 or elsewhere/a. Raises UserError for anything else."""
    path, colon, seed = settings.INIT.partition(":")
    folder, slash, experiment = path.rpartition("/")
    logs = (folder or "/") if slash else settings.LOGS
    check_name("INIT", experiment)
    if colon and not (seed.isdecimal() and int(seed) < 2**32):
        raise UserError(f"INIT={settings.INIT}: expected an experiment, or one with its seed, such as {experiment}:43.")
    if experiment == settings.EXPERIMENT and Path(logs).resolve() == Path(settings.LOGS).resolve():
        raise UserError(
            f"INIT={settings.INIT} is the experiment itself; give what begins from it a name of its own: "
            "EXPERIMENT=name. RESUME=1 goes on with a run that was stopped."
        )
    return logs, experiment, int(seed) if colon else settings.SEED


def anywhere(settings: "Settings") -> str:
    """Return INIT as it reads under other LOGS and another SEED: lightning_logs/a:42. Raises UserError as `named`."""
    logs, experiment, seed = named(settings)
    return f"{logs}/{experiment}:{seed}"


def place(settings: "Settings", fold: str) -> Path:
    """Return the run folder that a fold begins from: that fold's of INIT, or full's where INIT has that alone.

    Raises UserError where it is not finished.
    """
    logs, experiment, seed = named(settings)
    only_full = run_folders.finished_folds(logs, experiment, seed) == [FULL]
    try:
        return run_folders.finished_run(logs, experiment, FULL if only_full else fold, seed)
    except UserError as error:
        raise UserError(f"INIT={settings.INIT}: {error}") from error


def files(folder: Path) -> list[Path]:
    """List what of a run folder a training elsewhere needs: its model, and the tables that say what it has seen."""
    tables = folder.glob(f"{Path(run_folders.FOLDS).stem}*.csv")
    return [folder / run_folders.MODEL, folder / run_folders.WEIGHTS, *sorted(tables)]


def source(settings: "Settings", fold: str, spec: DataSpec) -> Path:
    """Return the run folder that a fold begins from.

    Raises UserError where it is not finished, was trained on a few images to learn them by heart (OVERFIT), or is of
    another task than `spec`'s.
    """
    folder = place(settings, fold)
    about = run_folders.read_model(folder)
    if about.get("overfit"):
        raise UserError(
            f"INIT={settings.INIT}: {folder} learned {about['overfit']} images by heart (OVERFIT), which is a test and "
            "no start. Train it without OVERFIT."
        )
    task = about["data"].get("task")
    if task != spec.task:
        raise UserError(
            f"INIT={settings.INIT}: {folder} was trained on {task} masks, and these are {spec.task}; expected an "
            f"experiment on {spec.task} ones."
        )
    return folder


def normalization(settings: "Settings", spec: DataSpec) -> tuple[list[float], list[float]] | None:
    """Return the mean and deviation that INIT's networks know their images by, None where these are of another kind.

    One experiment's folds share them, so any of its models will do. Raises UserError where it has none.
    """
    logs, experiment, seed = named(settings)
    folds = run_folders.finished_folds(logs, experiment, seed)
    folder = source(settings, folds[0] if folds else "0", spec)
    about = run_folders.read_model(folder)
    if (about["data"].get("channels"), about["data"].get("bits")) != (spec.channels, spec.bits):
        return None
    mean, std = (about["network"].get(name) for name in ("MODEL_MEAN", "MODEL_STD"))
    for values, low in ((mean, -10), (std, 1e-6)):
        if not isinstance(values, list) or not all(isinstance(one, int | float) and low <= one <= 10 for one in values):
            raise UserError(
                f"INIT={settings.INIT}: {folder / run_folders.MODEL} has no mean and deviation such as training writes "
                "them. Train it again, or say NORMALISE=constants."
            )
    return mean, std


def load(network: "Segmenter", folder: Path, name: str) -> None:
    """Copy into a network what of a run's weights fits it by name and shape; say how much, and name what does not.

    A first layer of RGB is summed or repeated for other channels. Raises UserError where the weights are not those that
    their model.json describes, or nothing fits.
    """
    from modeling import encoder_weights, segmenter

    file = folder / run_folders.WEIGHTS
    if sha256(file) != run_folders.read_model(folder)["weights_sha256"]:
        raise UserError(
            f"INIT={name}: {file} is not the file that {run_folders.MODEL} beside it describes (cut off, or "
            "exchanged). Train it again, or copy the whole folder."
        )
    own = {key: value for key, value in segmenter.shipped_state(network).items() if key not in OWN}
    then = {key: value for key, value in encoder_weights.read_weights(file).items() if key not in OWN}
    then = {key: encoder_weights.for_channels(value, own[key]) if key in own else value for key, value in then.items()}
    fits = {key: value for key, value in then.items() if key in own and own[key].shape == value.shape}
    share = sum(own[key].numel() for key in fits) / sum(value.numel() for value in own.values())
    said = [_misfit(key, own, then) for key in {**own, **then} if key not in fits]
    if not any(own[key].ndim > 1 for key in fits):  # single numbers and biases fit anything
        raise UserError(
            f"INIT={name}: nothing of {file} fits this network, which would begin as random as without it:"
            f"{listing(said, 3)}\nTake the MODEL_NAME (and MAX_FEATURES) of then, or leave INIT out."
        )
    network.load_state_dict(fits, strict=False)
    if distributed.rank() == 0:
        rest = f"; what does not fit begins at random:{listing(said, 8)}" if said else ""
        print(f"INIT={name}: {share:.1%} of the network begins as {folder}{rest}", flush=True)


def _misfit(key: str, own: dict[str, Any], then: dict[str, Any]) -> str:
    """Say in a line how a tensor differs between the network and the weights of then."""
    shapes = [tuple(state[key].shape) if key in state else "none" for state in (then, own)]
    return f"{key}: {shapes[0]} there, {shapes[1]} now"

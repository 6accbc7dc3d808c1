"""make reproduce RUN=lightning_logs/x/fold0_seed42: train a run again from what its folder holds, and compare.

Says first what differs today: code, packages, computer, data, folds. The new run is the experiment <x>_again, or
INTO=name; the old one is only read. CHECK=1 says what differs and trains nothing.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import settings as settings_module
from settings import Settings
from tools import constants, run_folders
from tools.errors import UnlearnedError, UserError, command, listing
from tools.files import read_json, sha256
from tools.flags import is_on

if TYPE_CHECKING:
    from settings import Settings

FLAGS = {
    "RUN": "the run folder, such as lightning_logs/demo/fold0_seed42",
    "INTO": "name of the new experiment (default: the old one's and _again)",
    "CHECK": "1: say what differs today, and train nothing",
    "OVERWRITE": "1: throw an earlier reproduction away and start again",
    "RESUME": "1: go on with a reproduction that was stopped",
}
MACHINE = "machine"  # the section of config.py that never changes a result on purpose: today's counts


def read_origin(folder: Path) -> dict[str, Any]:
    """Read run.json of a run folder. Raises UserError where there is none, or it lacks something."""
    cure = "Expected a run folder that make train wrote, such as lightning_logs/demo/fold0_seed42."
    need: dict[str, type] = {"fold": str, "folds_sha256": str}
    need |= dict.fromkeys(("settings", "code", "versions", "computer"), dict)
    origin = read_json(folder / run_folders.ORIGIN, cure, need)
    for name in (run_folders.FOLDS, Path(run_folders.FOLDS).with_suffix(".json")):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; the run cannot be trained again without it.")
    return origin


def settings_of(origin: dict[str, Any], folder: Path, today: Settings, into: str) -> Settings:
    """Return the run's settings under the new experiment's name, with today's machine section but the run's data paths.

    Raises UserError for a constant that is given and not the run's own, or that config.py no longer has.
    """
    machine, then = settings_module.SECTIONS[MACHINE], constants.renamed(origin["settings"])
    given = today.overrides()
    now = today.snapshot()
    others = [name for line in given if (name := line.split("=")[0]) not in machine and now[name] != then.get(name)]
    if others:
        raise UserError(f"{', '.join(others)}: a reproduction takes the run's own; only the machine's may be given.")
    gone = sorted(set(then) - set(settings_module.DEFAULTS))
    if gone:
        raise UserError(f"{folder}: config.py no longer has {', '.join(gone)}; check out the commit of then.")
    new = sorted(set(settings_module.DEFAULTS) - set(then) - set(machine))
    if new:
        print(f"Constants that the run did not know take config.py's value: {', '.join(new)}")
    if not any(line.startswith("PRECISION=") for line in given):
        given = [*given, *_precision(origin["computer"], today)]
    own = {name: value for name, value in then.items() if name not in machine or name in ("INPUT", "OUTPUT")}
    named = {"EXPERIMENT": into, "TRAIN_FOLDS": folder / run_folders.FOLDS}
    return settings_module.load(constants.lines_of(own) + given + constants.lines_of(named))


def _precision(computer: dict[str, Any], today: Settings) -> list[str]:
    """Return PRECISION=, as the run had it, where today's device is of its kind."""
    from tools.hardware import NAMES, choose_device

    words = [word for word, name in NAMES.items() if name == computer.get("precision")]
    return [f"PRECISION={word}" for word in words if choose_device(today.DEVICE) == computer.get("device")]


def what_differs(now: Settings, origin: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the device that the run would be trained on today, and a line for each thing that differs."""
    from data import splits
    from training import builders, run_record, weights_origin

    frame, spec, hardware = splits.read(Path(now.TRAIN_FOLDS)), builders.data_spec(now), builders.hardware(now)
    data = builders.open_cache(now, frame, spec).data_sha256
    devices, device = now.DEVICES * now.NODES, hardware.device
    today = run_record.of_today(device, hardware.precision, devices, data, origin["folds_sha256"])
    begun = builders.begun_from(now, frame, origin["fold"])
    return device, run_record.differences(origin, {**today, **weights_origin.record(begun)})


def compare(folder: Path, again: Path, differ: list[str], device: str) -> None:
    """Print whether the weights are equal. Raises UnlearnedError where nothing differs, on a CPU, and they are not."""
    import torch

    from modeling import encoder_weights

    then, now = run_folders.read_model(folder), run_folders.read_model(again)
    if then["weights_sha256"] == now["weights_sha256"]:
        print(f"The same weights, bit for bit: {again / run_folders.WEIGHTS}")
        return
    before, after = (encoder_weights.read_weights(place / run_folders.WEIGHTS) for place in (folder, again))
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in after.items()}:
        raise UserError(f"{folder} and {again} hold networks of different shapes.")
    distance = max(float((before[name].double() - after[name].double()).abs().max()) for name in before)
    moved = sum(not torch.equal(before[name], after[name]) for name in before)
    said = f"{moved} of {len(before)} tensors differ, by {distance:.2g} at most ({again / run_folders.WEIGHTS})"
    if not differ and device == "cpu":
        raise UnlearnedError(f"Nothing differs today, but the weights do: {said}.")
    print(f"Not the same weights: {said}. make tester FOLD={now['fold']} EXPERIMENT={again.parent.name} scores them.")


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if not flags.RUN:
        raise UserError("Which run? make reproduce RUN=lightning_logs/demo/fold0_seed42")
    folder = Path(flags.RUN)
    origin = read_origin(folder)
    into = flags.INTO or f"{folder.parent.name.removesuffix(settings_module.OVERFITTED)}_again"
    now = settings_of(origin, folder, settings, into)
    if folder.resolve() == run_folders.run_folder(now.LOGS, now.EXPERIMENT, origin["fold"], now.SEED).resolve():
        raise UserError(f"INTO={into} is the run itself; give it another name.")
    if sha256(folder / run_folders.FOLDS) != origin["folds_sha256"]:
        raise UserError(f"{folder / run_folders.FOLDS} is not the table that the run was trained on.")

    device, differ = what_differs(now, origin)
    differ += [f"a session of then: {line}" for session in origin.get("sessions", []) for line in session]
    said = f"What differs from {folder}:{listing(differ)}" if differ else f"Nothing that matters differs from {folder}."
    print(said, flush=True)
    if is_on(flags.CHECK):
        return
    run_folders.read_model(folder)  # refuses a run without a model to compare with
    from training.fold_training import FoldTraining

    training = FoldTraining(now, origin["fold"], resume=is_on(flags.RESUME), overwrite=is_on(flags.OVERWRITE))
    again = training.run()
    if not run_folders.resumable(again):
        compare(folder, again, differ, device)


if __name__ == "__main__":
    sys.exit(main())

"""make search RECIPE=x: try what the recipe's [search] section names, on some folds; then cross-validate the winner.

The trials' own scores flatter: the best of many on the images that chose it. So the winner is trained on all folds
under new seeds, as the experiment NAME, and that figure is the one to report. output/<dataset>/search_<NAME>/ has
Optuna's journal, trials.csv, winner.cfg and, below runs/, each trial's curves, scores and what its training printed;
its weights are not kept. The same command goes on after a kill, and with more TRIALS.

No trial is pruned: a schedule stretches over EPOCHS, so at equal epochs the one with fewer is ahead, and the epochs'
validation Dice is another measure, at another size, than the METRIC that decides.
"""

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import settings as settings_module
from data import splits
from jobs import search_space, trial_runs
from jobs import trials as trials_module
from jobs.search_run import FIXED, RESULT, Search, open_folder, refuse_all_failed, try_all, write_winner
from jobs.search_space import Parameter
from jobs.trial_runs import TimeOverError
from jobs.trials import FAILED, RUNNING, Trials
from tools import locks, recipes
from tools.errors import UserError, command
from tools.files import read_json, write_json
from tools.flags import is_on, whole_number, whole_numbers
from tools.names import check_name

if TYPE_CHECKING:
    from settings import Settings
    from tools.flags import Flags

FLAGS = {
    "TRIALS": "how many in all; without it 20. More may be asked for later",
    "FOLDS": "the folds whose held-out images decide, such as 0,1; without it 0",
    "NAME": "of the search and of its winner's experiment; without it <EXPERIMENT>_best",
    "SEEDS": "of the winner's cross-validation; without it the two after SEED",
    "VERIFY": "0: leave the winner's cross-validation out; the same command without it makes it",
}

TYPED = ("INPUT", "OUTPUT", "LOGS")  # are not in winner.cfg: they belong to the computer


def prepare(settings: "Settings", flags: "Flags") -> Search:
    """Return the search, after refusing, before the long work, whatever can be refused. Raises UserError."""
    start = time.monotonic()
    trials_module.imported()
    if settings.OVERFIT or settings.CHECKPOINT == "best":
        what = "OVERFIT" if settings.OVERFIT else "CHECKPOINT=best"
        raise UserError(f"{what}: make search goes by scores of images that neither weights nor epochs were chosen on.")
    space = space_of(flags)
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    every = splits.fold_names(frame)
    folds = tuple(map(str, whole_numbers("FOLDS", flags.FOLDS or "0")))
    unknown = [fold for fold in folds if fold not in every]
    if unknown:
        raise UserError(f"FOLDS={flags.FOLDS}: {settings.TRAIN_FOLDS} has {', '.join(every)}, and no {unknown[0]}.")
    refuse_before_training(settings, space, folds)
    name = flags.NAME or f"{settings.EXPERIMENT}_best"
    check_name("NAME", name)
    folder = Path(settings.OUTPUT, f"search_{name}")
    if not (folder / FIXED).is_file() and Path(settings.LOGS, name).exists():
        raise UserError(
            f"{Path(settings.LOGS, name)} is there already, and would be the winner's experiment. Give the search "
            "another NAME=."
        )
    deadline = start + 60 * settings.MAX_MINUTES if settings.MAX_MINUTES else 0.0
    ordered = tuple(fold for fold in every if fold in folds)
    return Search(name, folder, settings, space, ordered, every, _seeds(settings, flags.SEEDS), deadline)


def space_of(flags: "Flags") -> tuple[Parameter, ...]:
    """Return the parameters that the recipes' search sections name. Raises UserError."""
    names = [name for name in flags.RECIPE.split(",") if name]
    named = {name: recipes.parts(name) for name in names}
    found, fixed = search_space.read(named, flags.overrides, settings_module.SECTIONS)
    if fixed:
        print(f"Not searched, because a value is given: {', '.join(fixed)}.")
    if not found:
        which = f"RECIPE={flags.RECIPE} leaves nothing to search" if names else "Which recipe?"
        raise UserError(
            f"{which} Below a line {recipes.SEARCH} a recipe says what may vary, such as "
            "LR = 1e-4 .. 1e-2 log; make search RECIPE=search has one."
        )
    value_of = settings_module.Settings.value_of
    return tuple(search_space.parameter(name, text, reason, value_of) for name, (text, reason) in found.items())


def refuse_before_training(settings: "Settings", space: tuple[Parameter, ...], folds: tuple[str, ...]) -> None:
    """Refuse, with UserError, what would fail every trial, or every trial with one of the options."""
    import model_dispatcher
    from modeling.losses.loss_sum import Loss
    from scoring import fold_scores
    from training import builders
    from training.preparation import refuse_what_does_nothing

    fold_scores.refuse_unscorable(settings)
    refuse_what_does_nothing(settings, folds[0])
    spec = builders.data_spec(settings)
    checks: dict[str, Callable[[str], Any]] = {
        "LOSS": lambda text: Loss(text, spec.task, spec.scored, len(spec.classes)),
        "MODEL_NAME": model_dispatcher.parse,
    }
    for name, check in checks.items():
        searched = next((one.options for one in space if one.name == name), (getattr(settings, name),))
        for text in searched:
            check(text)
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    starts = [
        next((one.options for one in space if one.name == name), (getattr(settings, name),))
        for name in ("INIT", "ENCODER_WEIGHTS")
    ]
    for init, weights in itertools.product(*starts):
        tried = replace(settings, INIT=init, ENCODER_WEIGHTS=weights)
        for fold in folds if builders.may_have_seen(tried) else ():
            refuse_what_does_nothing(tried, fold)
            builders.begun_from(tried, frame, fold)
    if not {"MODEL_NAME", "ENCODER_WEIGHTS"} & {one.name for one in space}:
        builders.build_network(settings, spec)  # its weights may not be here


def _seeds(settings: "Settings", text: str) -> tuple[int, ...]:
    """Return the winner's seeds. Raises UserError where the search's own is among them."""
    seeds = tuple(whole_numbers("SEEDS", text)) if text else (settings.SEED + 1, settings.SEED + 2)
    if settings.SEED in seeds:
        raise UserError(
            f"SEEDS={text}: {settings.SEED} is the seed that the search chooses with; the winner's figure needs others."
        )
    for seed in seeds:
        settings_module.Settings.value_of("SEED", str(seed))
    return seeds


def conclude(search: Search, trials: Trials, flags: "Flags") -> None:
    """Write the winner as a recipe, cross-validate it, and print which figure to believe."""
    winner, have = refuse_all_failed(search, trials), trials.all()
    failed = [trial for trial in have if trial.state == FAILED]
    recipe = write_winner(search, winner)
    count = f"{len(have)} trials" + (f", {len(failed)} of which failed" if failed else "")
    fold = f"fold{'s' * (len(search.folds) > 1)} {', '.join(search.folds)}"
    metric = search.scale.metric
    print(f"The best of {count}: trial {winner.number}, {winner.words} -> {recipe}")
    print(f"  {metric} {winner.score:.4f} on {fold}, which chose it: the best of many, so no figure to report")
    typed = [text for text in flags.overrides if text.partition("=")[0] in TYPED]
    result = {"winner": winner.number, "values": winner.values, "score": winner.score, "honest": None}
    path = search.folder / RESULT
    if not is_on(flags.VERIFY or "1"):
        then = read_json(path, f"Remove {path}.").get("honest") if path.is_file() else None
        honest = then if then and then["trial"] == winner.number else None
        write_json(path, {**result, "honest": honest})
        said = "VERIFY=0 does not look at it" if honest else "nothing honest has been measured yet"
        print(f"VERIFY=0: {said}. The same command without VERIFY=0 cross-validates the winner.")
        return
    print(f"Now the winner on all {len(search.every)} folds, seeds {', '.join(map(str, search.seeds))}", flush=True)
    honest = trial_runs.cross_validate(search, winner)
    write_json(path, {**result, "honest": honest})
    by_seed = ", ".join(f"{score:.4f} (seed {seed})" for seed, score in honest["scores"].items())
    print(
        f"  {metric} {winner.score:.4f} on {fold}, which chose trial {winner.number} of {len(have)}: not to be reported"
    )
    print(f"  {metric} {honest['mean']:.4f} out of fold, new seeds: report this one; {by_seed}")
    if honest["other_folds"] is not None:
        print(f"  {metric} {honest['other_folds']:.4f} of it on the folds that had no say in the choice")
    words = " ".join([f"RECIPE={recipe}", f"SEED={search.seeds[0]}", *typed])
    print(f"Next: make report {words}")


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    total = whole_number("TRIALS", flags.TRIALS, 20)
    search = prepare(settings, flags)
    with locks.exclusive(search.folder, "Wait for it, or give this search another NAME=."):
        open_folder(search)
        trials_module.mend(search.folder)
        trials = Trials(search.folder, search.space, search.scale.measure.higher, settings.SEED)
        try:
            try_all(search, trials, total)
            conclude(search, trials, flags)
        except TimeOverError:
            done = sum(trial.state != RUNNING for trial in trials.all())
            minutes = f"MAX_MINUTES={settings.MAX_MINUTES:g}"
            print(f"{minutes} are over: {done} of {total} trials have ended, and the same command goes on.")
        except KeyboardInterrupt:
            done = sum(trial.state != RUNNING for trial in trials.all())
            print(f"Stopped; {done} of {total} trials have ended, and the same command goes on.", flush=True)
            raise


if __name__ == "__main__":
    sys.exit(main())

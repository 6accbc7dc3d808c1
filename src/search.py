"""make search RECIPE=x: try what the recipe's [search] section names, on some folds; then cross-validate the winner.

The trials' own scores flatter: the best of many on the images that chose it. So the winner is trained on all folds
under new seeds, as the experiment NAME, and that figure is the one to report. output/<dataset>/search_<NAME>/ has
Optuna's journal, trials.csv, winner.cfg and, below runs/, each trial's curves, scores and what its training printed;
its weights are not kept. The same command goes on after a kill, and with more TRIALS.

No trial is pruned: a schedule stretches over EPOCHS, so at equal epochs the one with fewer is ahead, and the epochs'
validation Dice is another measure, at another size, than the METRIC that decides.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import locks
import runs
import search_space
import settings as settings_module
import splits
import trial_runs
import trials as trials_module
from errors import UserError, command, listing
from search_space import Parameter
from trial_runs import TimeOverError
from trials import FAILED, RUNNING, Trial, Trials

FLAGS = {
    "TRIALS": "how many in all; without it 20. More may be asked for later",
    "FOLDS": "the folds whose held-out images decide, such as 0,1; without it 0",
    "NAME": "of the search and of its winner's experiment; without it <EXPERIMENT>_best",
    "SEEDS": "of the winner's cross-validation; without it the two after SEED",
    "VERIFY": "0: leave the winner's cross-validation out; the same command without it makes it",
}
FIXED, RESULT, WINNER, TABLE = "search.json", "result.json", "winner.cfg", "trials.csv"
PATIENCE = 5  # trials; where so many have failed and none has not, the others would too
QUIET = ("STEP_IMAGES=0", "LOGGER=none", "PROFILER=")  # of a trial: what nobody looks at
TYPED = ("INPUT", "OUTPUT", "LOGS")  # are not in winner.cfg: they are the computer's


@dataclass(frozen=True)
class Search:
    """What is searched: `settings` of the recipe, `space`, by which of `every` fold; the winner's name and seeds.

    `deadline`: of time.monotonic(), 0 where there is none.
    """

    name: str
    folder: Path
    settings: Any
    space: tuple[Parameter, ...]
    folds: tuple[str, ...]
    every: tuple[str, ...]
    seeds: tuple[int, ...]
    deadline: float

    @property
    def scale(self) -> Any:
        """What decides."""
        import scoring

        return scoring.scale(self.settings.METRIC, "", self.settings.EMPTY)

    def with_values(self, values: dict[str, str], *more: str) -> Any:
        """The recipe's settings under a trial's values, and `more` NAME=value; MAX_MINUTES is what remains."""
        lines = settings_module.lines_of(settings_module.snapshot(self.settings))
        left = f"MAX_MINUTES={self.minutes_left():.4f}"
        return settings_module.load([*lines, left, *(f"{name}={value}" for name, value in values.items()), *more])

    def minutes_left(self) -> float:
        """0 where there is no limit. Raises TimeOverError."""
        if not self.deadline:
            return 0.0
        if self.is_over():
            raise TimeOverError
        return max(1e-4, (self.deadline - time.monotonic()) / 60)

    def is_over(self) -> bool:
        """Whether MAX_MINUTES have passed."""
        return bool(self.deadline) and time.monotonic() >= self.deadline


def prepare(settings: Any, flags: Any) -> Search:
    """Everything that is refused before the long work."""
    start = time.monotonic()
    trials_module.imported()
    if settings.OVERFIT or settings.CHECKPOINT == "best":
        what = "OVERFIT" if settings.OVERFIT else "CHECKPOINT=best"
        raise UserError(f"{what}: make search goes by scores of images that neither weights nor epochs were chosen on.")
    space = space_of(flags)
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    every = tuple(str(fold) for fold in sorted(set(frame["kfold"]) - {-1}))
    folds = tuple(_listed("FOLDS", flags.FOLDS or "0"))
    unknown = [fold for fold in folds if fold not in every]
    if unknown:
        raise UserError(f"FOLDS={flags.FOLDS}: {settings.TRAIN_FOLDS} has {', '.join(every)}, and no {unknown[0]}.")
    refuse_before_training(settings, space, folds)
    name = flags.NAME or f"{settings.EXPERIMENT}_best"
    runs.check_name("NAME", name)
    folder = Path(settings.OUTPUT, f"search_{name}")
    if not (folder / FIXED).is_file() and Path(settings.LOGS, name).exists():
        raise UserError(
            f"{Path(settings.LOGS, name)} is there already, and would be the winner's experiment. Give the search "
            "another NAME=."
        )
    deadline = start + 60 * settings.MAX_MINUTES if settings.MAX_MINUTES else 0.0
    ordered = tuple(fold for fold in every if fold in folds)
    return Search(name, folder, settings, space, ordered, every, _seeds(settings, flags.SEEDS), deadline)


def space_of(flags: Any) -> tuple[Parameter, ...]:
    """What the recipes' search sections name. Raises UserError."""
    names = [name for name in flags.RECIPE.split(",") if name]
    recipes = {name: settings_module.recipe_parts(name) for name in names}
    found, fixed = search_space.read(recipes, flags.overrides, settings_module.SECTIONS)
    if fixed:
        print(f"Not searched, because a value is given: {', '.join(fixed)}.")
    if not found:
        which = f"RECIPE={flags.RECIPE} leaves nothing to search" if names else "Which recipe?"
        raise UserError(
            f"{which} Below a line {settings_module.SEARCH} a recipe says what may vary, such as "
            "LR = 1e-4 .. 1e-2 log; make search RECIPE=search has one."
        )
    value_of = settings_module.value_of
    return tuple(search_space.parameter(name, text, reason, value_of) for name, (text, reason) in found.items())


def refuse_before_training(settings: Any, space: tuple[Parameter, ...], folds: tuple[str, ...]) -> None:
    """What would fail every trial, or each that has one of the options. Raises UserError."""
    import assembly
    import model_dispatcher
    import tester
    from losses import Loss
    from train import refuse_what_does_nothing

    tester.refuse_unscorable(settings)
    refuse_what_does_nothing(settings, folds[0])
    spec = assembly.data_spec(settings)
    checks: dict[str, Callable[[str], Any]] = {
        "LOSS": lambda text: Loss(text, spec.task, spec.scored, len(spec.classes)),
        "MODEL_NAME": model_dispatcher.parse,
    }
    for name, check in checks.items():
        searched = next((one.options for one in space if one.name == name), (getattr(settings, name),))
        for text in searched:
            check(text)
    if not {"MODEL_NAME", "ENCODER_WEIGHTS"} & {one.name for one in space}:
        assembly.build_network(settings, spec)  # its weights may not be here


def _listed(name: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"{name}={text}: expected different whole numbers with a comma between, such as {name}=0,1.")
    return parts


def _seeds(settings: Any, text: str) -> tuple[int, ...]:
    """The winner's seeds. Raises UserError where the search's own is among them."""
    seeds = tuple(int(part) for part in _listed("SEEDS", text)) if text else (settings.SEED + 1, settings.SEED + 2)
    if settings.SEED in seeds:
        raise UserError(
            f"SEEDS={text}: {settings.SEED} is the seed that the search chooses with; the winner's figure needs others."
        )
    for seed in seeds:
        settings_module.value_of("SEED", str(seed))
    return seeds


def fixed_values(search: Search) -> dict[str, Any]:
    """What must stay the same while a search goes on."""
    from train import fixed_settings

    return {
        **fixed_settings(search.settings),
        **settings_module.snapshot(search.settings, ("scoring",)),
        "SEED": search.settings.SEED,
        "FOLDS": list(search.folds),
        **{f"{settings_module.SEARCH} {one.name}": one.text for one in search.space},
    }


def open_folder(search: Search) -> None:
    """Fix what is searched and by which folds, or refuse what differs from what was fixed."""
    path, now = search.folder / FIXED, fixed_values(search)
    if path.is_file():
        then = runs.read_json(path, f"Remove {search.folder}, or give another NAME=.", {"fixed": dict})["fixed"]
        differ = runs.differences(then, now)
        if differ:
            raise UserError(
                f"{path}: all trials of a search share settings, folds and what is searched; these differ:"
                f"{listing(differ)}\nGive this one another NAME=, or remove {search.folder} to begin again."
            )
    elif (search.folder / trials_module.JOURNAL).exists():
        raise UserError(f"{path} is missing, and says what the journal beside it is of. Remove {search.folder}.")
    about = {"name": search.name, "metric": search.scale.metric, "higher": search.scale.measure.higher}
    about |= {"folds": list(search.folds), "every": list(search.every), "seed": search.settings.SEED}
    runs.write_json(path, {**about, "space": [one.as_json() for one in search.space], "fixed": now})


def next_trial(search: Search, trials: Trials, total: int) -> Trial | None:
    """The trial that was running when the search ended, or a new one; None where there are `total` already.

    The first is the recipe's own values, so that the winner is never worse than they are on the search's folds.
    """
    have = trials.all()
    running = next((trial for trial in have if trial.state == RUNNING), None)
    if running or len(have) >= total:
        return running
    search.minutes_left()
    own = {
        one.name: search_space.place_of(one, getattr(search.settings, one.name), settings_module.value_of)
        for one in search.space
    }
    inside = not have and all(value is not None for value in own.values())
    return trials.begin(own if inside else None)


def run_trial(search: Search, trial: Trial) -> tuple[float, str]:
    """Train and score a trial's folds, or go on with them: its score, and what went wrong ("": nothing)."""
    logs, experiment = search.folder / "runs", f"trial{trial.number:04d}"
    for fold in search.folds:
        settings = search.with_values(trial.values, f"LOGS={logs}", f"EXPERIMENT={experiment}", *QUIET)
        label, log = f"trial {trial.number}, fold {fold}", logs / experiment / f"fold{fold}{trial_runs.LOG}"
        problem = trial_runs.run_fold(settings, fold, search.is_over, label, log)
        if problem:
            return float("nan"), problem
    score = trial_runs.score_of(settings, search.folds, search.scale)
    return score, "none of the held-out images has a score (EMPTY=skip)" if math.isnan(score) else ""


def try_all(search: Search, trials: Trials, total: int) -> None:
    """Work the trials off, a line each. Raises TimeOverError."""
    for trial in trials.all():
        if trial.state != RUNNING:  # killed after a trial's end and before what follows it here
            trial_runs.tidy(search.folder / "runs" / f"trial{trial.number:04d}")
            trial_runs.write_table(search.folder / TABLE, trials.all(), search.scale.metric)
    while trial := next_trial(search, trials, total):
        start = time.monotonic()
        print(f"trial {trial.number}: {trial.words}", flush=True)
        score, problem = run_trial(search, trial)
        ended = trials.end(trial, score, problem, (time.monotonic() - start) / 60)
        trial_runs.tidy(search.folder / "runs" / f"trial{trial.number:04d}")
        trial_runs.write_table(search.folder / TABLE, trials.all(), search.scale.metric)
        print(trial_runs.said(trials, ended, total, search.scale.metric), flush=True)
        if ended.number + 1 >= PATIENCE:
            refuse_all_failed(search, trials)


def refuse_all_failed(search: Search, trials: Trials) -> None:
    """Raises UserError: whatever fails every trial is no matter of what is searched."""
    have = trials.all()
    if trials.best() is None:
        raise UserError(
            f"All {len(have)} trials failed, the first of them so: {have[0].problem}\nOnce that is mended, begin "
            f"again: remove {search.folder}, or give another NAME=."
        )


def write_winner(search: Search, winner: Trial) -> Path:
    """The winner as a recipe: whatever differs from config.py, with the search's reasons."""
    settings = replace(search, deadline=0.0).with_values(winner.values)
    data = [f"DATASET={settings.DATASET}"]
    default, sections = settings_module.snapshot(settings_module.load(data)), ("data", "network", "training", "scoring")
    values = {
        name: value
        for name, value in settings_module.snapshot(settings, sections).items()
        if name not in ("SEED", "EXPERIMENT", "DATASET") and (value != default[name] or name in winner.values)
    }
    reasons = {one.name: f"of {one.text}" + (f": {one.reason}" if one.reason else "") for one in search.space}
    by = f"trial {winner.number} of make search, by fold {', '.join(search.folds)}"
    lines = [f"# {by}: {search.scale.metric} {winner.score:.4f} there, the best of many: no figure to report."]
    reasons["EXPERIMENT"] = "of its cross-validation"
    for line in [*data, f"EXPERIMENT={search.name}", *settings_module.lines_of(values)]:
        name, _, value = line.partition("=")
        lines.append(f"{name} = {value}  # {reasons.get(name, 'as the search was given it')}")
    path = search.folder / WINNER
    runs.write_text(path, "\n".join(lines) + "\n")
    return path


def conclude(search: Search, trials: Trials, flags: Any) -> None:
    """The winner as a recipe, its cross-validation, and which figure is to be believed."""
    winner, have = trials.best(), trials.all()
    failed = [trial for trial in have if trial.state == FAILED]
    refuse_all_failed(search, trials)
    recipe = write_winner(search, winner)
    count = f"{len(have)} trials" + (f", {len(failed)} of which failed" if failed else "")
    fold = f"fold{'s' * (len(search.folds) > 1)} {', '.join(search.folds)}"
    metric = search.scale.metric
    print(f"The best of {count}: trial {winner.number}, {winner.words} -> {recipe}")
    print(f"  {metric} {winner.score:.4f} on {fold}, which chose it: the best of many, so no figure to report")
    typed = [text for text in flags.overrides if text.partition("=")[0] in TYPED]
    result = {"winner": winner.number, "values": winner.values, "score": winner.score, "honest": None}
    path = search.folder / RESULT
    if not settings_module.flag_is_on(flags.VERIFY or "1"):
        then = runs.read_json(path, f"Remove {path}.").get("honest") if path.is_file() else None
        honest = then if then and then["trial"] == winner.number else None
        runs.write_json(path, {**result, "honest": honest})
        said = "VERIFY=0 does not look at it" if honest else "nothing honest has been measured yet"
        print(f"VERIFY=0: {said}. The same command without VERIFY=0 cross-validates the winner.")
        return
    print(f"Now the winner on all {len(search.every)} folds, seeds {', '.join(map(str, search.seeds))}", flush=True)
    honest = trial_runs.cross_validate(search, winner)
    runs.write_json(path, {**result, "honest": honest})
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
    total = flags.TRIALS or "20"
    if not total.isdecimal() or not 1 <= int(total) <= 10_000:
        raise UserError(f"TRIALS={total}: expected a whole number from 1 to 10000.")
    search = prepare(settings, flags)
    with locks.alone(search.folder, "Wait for it, or give this search another NAME=."):
        open_folder(search)
        trials_module.mend(search.folder)
        trials = Trials(search.folder, search.space, search.scale.measure.higher, settings.SEED)
        try:
            try_all(search, trials, int(total))
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

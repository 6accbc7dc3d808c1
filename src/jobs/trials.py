"""The trials of a search in Optuna's journal, which gets a line for each change, so that no interruption loses any.

The next trial depends only on the finished trials, the seed and its own number, so a search that was killed continues
as it would have. The first ten trials are spread over the space by a scrambled Halton sequence (QMCSampler; random
points clump), then TPE proposes (Bergstra et al. 2011).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.search_space import Parameter
from tools.errors import UserError

if TYPE_CHECKING:
    import optuna

JOURNAL, STUDY = "journal.log", "search"
SPREAD = 10  # trials before TPE has enough to learn from
RUNNING, FINISHED, FAILED = "RUNNING", "COMPLETE", "FAIL"  # Optuna's words


@dataclass(frozen=True)
class Trial:
    """One trial: NAME -> its value as text; the score of a finished one, the problem of a failed one."""

    number: int
    state: str
    values: dict[str, str]
    score: float
    problem: str
    minutes: float

    @property
    def words(self) -> str:
        """Return the values for people."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())


class Trials:
    """The trials in a search's folder. Only one process at a time may use them (see tools.locks)."""

    def __init__(self, folder: Path, space: Sequence[Parameter], higher: bool, seed: int) -> None:
        self.space, self.higher, self.seed = space, higher, seed
        optuna = imported()
        path = folder / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
            self.study = optuna.create_study(
                storage=self.storage, study_name=STUDY, direction=self._direction, load_if_exists=True
            )
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} is not readable as Optuna's journal ({error}). Remove {folder}.") from error

    @property
    def _direction(self) -> str:
        return "maximize" if self.higher else "minimize"

    def all(self) -> list[Trial]:
        """Return every trial, in order."""
        return [self._told(trial) for trial in self.study.get_trials(deepcopy=False)]

    def _told(self, trial: "optuna.trial.FrozenTrial") -> Trial:
        values = {one.name: one.written(trial.params[one.name]) for one in self.space}
        score = math.nan if trial.value is None else trial.value
        about = trial.user_attrs
        return Trial(trial.number, trial.state.name, values, score, about.get("problem", ""), about.get("minutes", 0.0))

    def best(self) -> Trial | None:
        """Return the finished trial with the best score, the earliest among equals; None before one is finished."""
        done = [trial for trial in self.all() if trial.state == FINISHED]
        sign = -1 if self.higher else 1
        return min(done, key=lambda trial: (sign * trial.score, trial.number), default=None)

    def begin(self, params: dict[str, Any] | None = None) -> Trial:
        """Add a new trial to the journal as running: with `params`, or with what the sampler proposes; return it."""
        optuna = imported()
        distributions = {one.name: _distribution(one) for one in self.space}
        number = len(self.study.get_trials(deepcopy=False))
        chosen = params or (self._spread(number, distributions) if number < SPREAD else self._asked(distributions))
        self.study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, params=chosen, distributions=distributions)
        )
        return self.all()[-1]

    def _spread(self, number: int, distributions: dict[str, Any]) -> dict[str, Any]:
        """Return the values of trial `number`: the point of that number in the sequence, far from the earlier ones."""
        optuna = imported()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=self.seed)
        study = optuna.create_study()  # in memory, because the sampler counts its points in a study
        points = [sampler.sample_relative(study, None, distributions) for _ in range(number + 1)]
        return self._typed(points[-1])

    def _asked(self, distributions: dict[str, Any]) -> dict[str, Any]:
        """Return TPE's next proposal, from a study in memory: in the journal a trial must begin with a single line."""
        import numpy as np

        optuna = imported()
        done = self.study.get_trials(deepcopy=False)
        seed = int(np.random.SeedSequence([self.seed, len(done)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(n_startup_trials=SPREAD // 2, seed=seed)
        study = optuna.create_study(direction=self._direction, sampler=sampler)
        study.add_trials(done)
        return self._typed(study.ask(distributions).params)

    def _typed(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {one.name: one.rounded(asked[one.name]) for one in self.space}

    def end(self, trial: Trial, score: float, problem: str, minutes: float) -> Trial:
        """Record how a trial ended, with a score or with a problem in a sentence; return it."""
        optuna = imported()
        number = self.storage.get_trial_id_from_study_id_trial_number(
            self.storage.get_study_id_from_name(STUDY), trial.number
        )
        self.storage.set_trial_user_attr(number, "minutes", round(minutes, 3))
        if problem:
            self.storage.set_trial_user_attr(number, "problem", problem)
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial.number, score)
        return self.all()[trial.number]

    def importances(self) -> dict[str, float]:
        """Return each constant's share of the scores' variance, the largest first (fANOVA, Hutter et al. 2014).

        Empty where fewer than three trials are finished, or all have the same score: there is no variance to share.
        """
        optuna = imported()
        scores = [trial.score for trial in self.all() if trial.state == FINISHED]
        if len(scores) < 3 or max(scores) == min(scores):
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        except RuntimeError:  # no tree of the forest found anything to split on
            return {}
        return {name: float(share) for name, share in shares.items()}


def imported() -> Any:
    """Return Optuna, with only its errors shown. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError("A search needs Optuna: pip install optuna==5.0.0") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def mend(folder: Path) -> None:
    """Remove an incomplete last line, left by a full disk or a power cut. No other process may be writing."""
    path = folder / JOURNAL
    if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(text.rfind(b"\n") + 1)


def _distribution(one: Parameter) -> Any:
    distributions = imported().distributions
    if one.options:
        return distributions.CategoricalDistribution(one.options)
    kind = distributions.IntDistribution if one.whole else distributions.FloatDistribution
    return kind(one.low, one.high, log=one.log)

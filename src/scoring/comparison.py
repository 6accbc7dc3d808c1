"""Two experiments, image by image: is one better, and how sure is that?"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metrics import paired_comparison as verdict_module
from metrics.paired_comparison import Verdict
from scoring import experiment_scores, score_rows
from scoring.experiment_scores import Scored
from tools import console
from tools.errors import UserError
from tools.files import atomic_write

if TYPE_CHECKING:
    from settings import Settings


def side(settings: "Settings", name: str, seeds: str, scale: score_rows.Scale, crossfitted: bool) -> list[Scored]:
    """An experiment's scores under each of its seeds. Raises UserError where it has none."""
    have = experiment_scores.seeds_of(settings.LOGS, name)
    if not have:
        raise UserError(
            f"{Path(settings.LOGS, name)} has no out-of-fold scores. Train and score it: make cv EXPERIMENT={name}, or "
            f"{experiment_scores.gather_line(name, settings.SEED)}"
        )
    wanted = seeds.split(",") if seeds else list(map(str, have))
    if not set(wanted) <= set(map(str, have)):
        raise UserError(f"SEEDS={seeds}: {name} was scored with the seeds {', '.join(map(str, have))}.")
    return [experiment_scores.read(settings, name, int(seed), scale, crossfitted) for seed in dict.fromkeys(wanted)]


def refuse_different(a: list[Scored], b: list[Scored]) -> None:
    """The tables hold out the same, as `experiments.read` has checked; the masks' pixels and the rules may be others.

    A mask that was redrawn between the two scorings shows in its pixels of foreground (tp + fn) and of background.
    """
    first, *others = (np.stack([part.counts[..., [0, 2]].sum(-1), part.counts.sum(-1)]) for part in (*a, *b))
    if not all(np.array_equal(sizes, first) for sizes in others):
        raise UserError(
            "These were scored on different masks of the same names: some were redrawn in between. Score all again: "
            "make tester FOLD=k for each fold, then make oof"
        )
    used = [part.rules for part in (*a, *b)]
    if any(part != used[0] for part in used):
        raise UserError(
            "These scores were made by different rules from probability to mask (THRESHOLD, MIN_AREA, ...). Score all "
            "by the same with make tester and make oof, or each by its best: make tune, then make compare TUNED=1"
        )


def draw(path: Path, found: Verdict, a: list[Scored], b: list[Scored], names: tuple[str, str], metric: str) -> None:
    """The differences by fold with the interval of the whole, and image by image one against the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    left.axhline(0, color="0.4", linewidth=1)
    if np.isfinite(found.low):
        left.axhspan(found.low, found.high, color="tab:blue", alpha=0.15, label="95% interval")
    left.axhline(found.difference, color="tab:blue", label="all folds")
    left.plot(list(map(str, found.folds)), list(found.folds.values()), "o", color="black", label="each fold")
    left.set(
        xlabel="fold",
        ylabel=f"{metric}: {names[1]} - {names[0]}",
        title=f"{names[1]} is {found.word} (these {found.about})",
    )
    left.legend(fontsize=8)
    one, other = (np.nanmean([np.nanmean(part.values, axis=1) for part in parts], axis=0) for parts in (a, b))
    right.scatter(one, other, s=9, alpha=0.4, color="tab:blue", edgecolors="none")
    ends = [np.nanmin([one, other]), np.nanmax([one, other])]
    right.plot(ends, ends, color="0.4", linewidth=1)
    right.set(xlabel=f"{names[0]}, {metric} of an image", ylabel=names[1], title="above the line: B is better there"
              if found.higher else "below the line: B is better there")  # fmt: skip
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def announce(found: Verdict, names: tuple[str, str], metric: str) -> None:
    """The verdict in sentences, and the difference in each fold."""
    print(verdict_module.sentence(found, *names, metric))
    signs = [
        {"fold": fold, f"{names[1]} - {names[0]}": f"{difference:+.4f}", "B is": _sign(difference, found.higher)}
        for fold, difference in found.folds.items()
    ]
    print(console.table(signs))
    if found.shares:
        parts = ", ".join(f"{share:.0%} from {name}" for name, share in found.shares.items())
        print(f"  Of the difference's variance: {parts}.")
    for label, of_side in zip(names, found.variances.values(), strict=False):
        spread = ", ".join(f"between {name} {np.sqrt(part):.4f}" for name, part in of_side.items())
        print(f"  {label}'s score, standard deviation {spread}.")


def _sign(difference: float, higher: bool) -> str:
    if difference == 0:
        return "equal"
    return "better" if (difference > 0) == higher else "worse"

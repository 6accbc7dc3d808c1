"""Two experiments, image by image: is one better, and how sure is that?"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metrics import paired_comparison
from metrics.paired_comparison import Verdict
from scoring import experiment_scores, score_rows
from scoring.experiment_scores import Scored
from tools import console
from tools.errors import UserError
from tools.files import atomic_write, write_json

if TYPE_CHECKING:
    from settings import Settings


def compare(settings: "Settings", names: tuple[str, str], seeds: str, crossfitted: bool) -> Path:
    """Compare two experiments, say, draw and write what is found; return the path of the JSON.

    seeds: "42,43", "" for all that were scored; crossfitted: by the scores that make tune wrote. Raises UserError.
    """
    scale = score_rows.scale(settings.METRIC, "", settings.EMPTY)
    a, b = (side(settings, name, seeds, scale, crossfitted) for name in names)
    refuse_different(a, b)
    table = a[0].found.table
    verdict = paired_comparison.compare(
        scale.total,
        [(part.counts, part.values) for part in a],
        [(part.counts, part.values) for part in b],
        table["kfold"].to_numpy(),
        table["group"].to_numpy(),
        higher=scale.measure.higher,
    )
    metric = f"cross-fitted {scale.metric}" if crossfitted else scale.metric
    announce(verdict, names, metric)
    differ = experiment_scores.settings_that_differ([a[0].found, b[0].found])
    if differ:
        rows = [{"differs in": name, names[0]: one, names[1]: other} for name, (one, other) in differ.items()]
        print(console.table(rows))
    path = Path(settings.OUTPUT, f"compare_{names[0]}_{names[1]}.json")
    values = {"a": names[0], "b": names[1], "metric": metric, **dataclasses.asdict(verdict), "settings": differ}
    write_json(path, values)
    draw(path.with_suffix(".png"), verdict, a, b, names, metric)
    return path


def side(settings: "Settings", name: str, seeds: str, scale: score_rows.Scale, crossfitted: bool) -> list[Scored]:
    """Read an experiment's scores under each of its seeds. Raises UserError where it has none."""
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
    """Raise UserError where the masks' pixels or the rules differ; `experiment_scores.read` has checked the tables.

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


def draw(path: Path, verdict: Verdict, a: list[Scored], b: list[Scored], names: tuple[str, str], metric: str) -> None:
    """Draw the differences by fold with the interval of the whole, and image by image one against the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    left.axhline(0, color="0.4", linewidth=1)
    if np.isfinite(verdict.low):
        left.axhspan(verdict.low, verdict.high, color="tab:blue", alpha=0.15, label="95% interval")
    left.axhline(verdict.difference, color="tab:blue", label="all folds")
    left.plot(list(map(str, verdict.folds)), list(verdict.folds.values()), "o", color="black", label="each fold")
    left.set(
        xlabel="fold",
        ylabel=f"{metric}: {names[1]} - {names[0]}",
        title=f"{names[1]} is {verdict.word} (these {verdict.about})",
    )
    left.legend(fontsize=8)
    one, other = (np.nanmean([np.nanmean(part.values, axis=1) for part in parts], axis=0) for parts in (a, b))
    right.scatter(one, other, s=9, alpha=0.4, color="tab:blue", edgecolors="none")
    ends = [np.nanmin([one, other]), np.nanmax([one, other])]
    right.plot(ends, ends, color="0.4", linewidth=1)
    right.set(xlabel=f"{names[0]}, {metric} of an image", ylabel=names[1], title="above the line: B is better there"
              if verdict.higher else "below the line: B is better there")  # fmt: skip
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def announce(verdict: Verdict, names: tuple[str, str], metric: str) -> None:
    """Print the verdict in sentences, and the difference in each fold."""
    print(paired_comparison.sentence(verdict, *names, metric))
    signs = [
        {"fold": fold, f"{names[1]} - {names[0]}": f"{difference:+.4f}", "B is": _sign(difference, verdict.higher)}
        for fold, difference in verdict.folds.items()
    ]
    print(console.table(signs))
    if verdict.shares:
        parts = ", ".join(f"{share:.0%} from {name}" for name, share in verdict.shares.items())
        print(f"  Of the difference's variance: {parts}.")
    for label, of_side in zip(names, verdict.variances.values(), strict=False):
        spread = ", ".join(f"between {name} {np.sqrt(part):.4f}" for name, part in of_side.items())
        print(f"  {label}'s score, standard deviation {spread}.")


def _sign(difference: float, higher: bool) -> str:
    if difference == 0:
        return "equal"
    return "better" if (difference > 0) == higher else "worse"

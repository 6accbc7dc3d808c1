"""make ensemble OF=a,b:1 NAME=c: the mean of several experiments' and seeds' predictions, scored out of fold.

`b:1` is experiment b under SEED=1. WEIGHTED=1 weighs the members; the weights that a fold is scored with were chosen on
the other folds. Writes lightning_logs/<name>/ as an experiment of its own (make tune, compare and report take it), and
blends the members' test predictions where make inference has made all of them.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import settings as settings_module
from prediction import chosen_rule
from scoring import gathered_scores, out_of_fold, score_rows, score_summary
from scoring.ensembling import EQUAL, WEIGHTED, blend_tests, keep, member_key, members, pays, score, weigh
from scoring.out_of_fold import OutOfFold
from tools import console, run_folders
from tools.errors import UserError, command
from tools.flags import is_on
from tools.names import check_name

if TYPE_CHECKING:
    from settings import Settings

FLAGS = {
    "OF": "the members: experiments, each with :seed where it is another than SEED: a,b:1,b:2",
    "NAME": "name of the ensemble, an experiment of its own",
    "WEIGHTED": "1: weigh the members by what the other folds' images ask for; else all count alike",
}


def place_of(settings: "Settings", name: str) -> Path:
    """The ensemble's folder. Raises UserError where it is missing a name, or has a trained experiment's."""
    if not name:
        raise UserError("What is the ensemble called? make ensemble OF=a,b NAME=c")
    check_name("NAME", name)
    place = Path(settings.LOGS, name)
    if place.exists() and not (place / run_folders.ENSEMBLE).is_file():
        raise UserError(f"{place} is a trained experiment's; give the ensemble another NAME.")
    return place


def _announce(
    parts: list[OutOfFold], scores: dict[str, Any], shares: dict[str, float], scale: score_rows.Scale
) -> None:
    names = parts[0].spec.scored_names
    lines = [{"": label, scale.metric: score_summary.score(rows, names, scale)} for label, rows in scores.items()]
    print(console.table(lines))
    weights = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    if WEIGHTED in scores and not pays(scores, names, scale):
        print("  Weights do not pay here: the equal ones are kept.")
    else:
        whose = "; each fold was scored under those of the others" if WEIGHTED in scores else ""
        print(f"  weights: {weights}{whose}")


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    chosen_rule.refuse_tuned(settings)
    weighted, place = is_on(flags.WEIGHTED), place_of(settings, flags.NAME)
    scale = score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    parts = [out_of_fold.read(settings, *member) for member in members(settings, flags.OF)]
    if flags.NAME in {part.experiment for part in parts}:
        raise UserError(f"NAME={flags.NAME} is one of the members.")
    equal = np.full(len(parts), 1 / len(parts))
    by_fold, shares = dict.fromkeys(parts[0].folders, equal), dict.fromkeys(map(member_key, parts), float(equal[0]))
    scores = {EQUAL: score(settings, parts, by_fold, scale)}
    final = scores[EQUAL]
    if weighted:
        fitted, overall = weigh(parts, settings.MAX_PIXELS)
        scores[WEIGHTED] = score(settings, parts, fitted, scale)
        if pays(scores, parts[0].spec.scored_names, scale):
            by_fold, final = fitted, scores[WEIGHTED]
            shares = dict(zip(map(member_key, parts), map(float, overall), strict=True))
    keep(settings, place, parts, by_fold, shares)
    found = out_of_fold.read(settings, flags.NAME)
    gathered_scores.publish(settings, found, final, scale, chosen_rule.configured(settings, found.spec))
    _announce(parts, scores, shares, scale)
    print(blend_tests(settings, flags.NAME, parts, shares))


if __name__ == "__main__":
    sys.exit(main())

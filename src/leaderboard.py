"""make leaderboard: every experiment of the data set, by its cross-fitted score, with what differs and what it cost.

Writes output/<dataset>/leaderboard.csv. Left out, with the reason: what learnt its images by heart, what is not scored
out of fold, and what was scored by another METRIC or on a folds table that holds out something else.
"""

import sys
from pathlib import Path

import settings as settings_module
from scoring import blind_baseline, experiment_scores, score_rows
from scoring.leaderboard_rows import collect, table
from tools import console
from tools.errors import UserError, command
from tools.files import write_text
from training.weights_origin import UNSURE


@command
def main(argv: list[str] | None = None) -> None:
    settings, _ = settings_module.command_line(argv, __doc__, {})
    scale = score_rows.scale(settings.METRIC, "", settings.EMPTY)
    lines, left_out = collect(settings, scale)
    for text in left_out:
        print(f"left out: {text}")
    if not lines:
        raise UserError(
            f"No experiment in {settings.LOGS} has out-of-fold scores on {settings.TRAIN_FOLDS}. Run make cv"
        )
    differ = experiment_scores.settings_that_differ([one["found"] for one in lines])
    shown = table(lines, differ)
    less = "" if scale.measure.higher else ", less is better"
    print(f"{settings.DATASET} by {scale.metric}{less}; a constant mask reaches {lines[0]['constant']:.4f}")
    print(console.table(shown))
    if any("*" in one["experiment"] for one in shown):
        print("  * its epochs were chosen on the folds that are reported (CHECKPOINT=best): the score flatters")
    if any(UNSURE in one["experiment"] for one in shown):
        print(f"  {UNSURE}: of the weights that it began with, which may have seen what is held out")
    if any(one["cross-fitted"] == "-" for one in shown):
        print("  -: not tuned; sorted by the untuned score. make tune EXPERIMENT=name gives the cross-fitted one")
    for one in lines:
        if no_better := blind_baseline.said(one["beside"], scale.measure.higher):
            print(f"  {one['experiment']}, seed {one['seed']}: {no_better}")
    import pandas as pd

    path = Path(settings.OUTPUT, "leaderboard.csv")
    write_text(path, pd.DataFrame(shown).rename(columns={"": "place"}).to_csv(index=False, lineterminator="\n"))
    print(f"the same as a table -> {path}\nIs one really better? make compare A=... B=...")


if __name__ == "__main__":
    sys.exit(main())

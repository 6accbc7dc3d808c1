"""make tester FOLD=0: score one fold's held-out masks at their original size; make oof: all folds, each image once.

Writes val/ in the run folder: probability PNGs, scores.csv (a row an image), summary.json, worst.png; OOF=1 gathers
them in lightning_logs/<experiment>/oof_seed<s>/.
"""

import sys

import settings as settings_module
from scoring.fold_scores import score_fold
from scoring.gathered_scores import gather
from tools.errors import UserError, command
from tools.flags import following, is_on

FLAGS = {
    "FOLD": "the fold whose held-out images are scored",
    "OOF": "1: gather every tested fold and score each image once",
}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if is_on(flags.OOF):
        gather(settings)
        print(following("tune", flags))
    elif flags.FOLD:
        score_fold(settings, flags.FOLD)
        if not settings.OVERFIT:
            print(following("inference", flags, f"FOLD={flags.FOLD}"))
    else:
        raise UserError(
            "Which fold? make tester FOLD=0 (or python src/tester.py --fold 0); make oof gathers all of them."
        )


if __name__ == "__main__":
    sys.exit(main())

"""make ensemble OF=a,b:1 NAME=c: the mean of several experiments' and seeds' predictions, scored out of fold.

`b:1` is experiment b under SEED=1. WEIGHTED=1 weighs the members; the weights that a fold is scored with were chosen on
the other folds. Writes lightning_logs/<name>/ as an experiment of its own (make tune, compare and report take it), and
blends the members' test predictions where make inference has made all of them.
"""

import sys

import settings as settings_module
from scoring import ensembling
from tools.errors import command
from tools.flags import is_on

FLAGS = {
    "OF": "the members: experiments, each with :seed where it is another than SEED: a,b:1,b:2",
    "NAME": "name of the ensemble, an experiment of its own",
    "WEIGHTED": "1: weigh the members by what the other folds' images ask for; else all count alike",
}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    print(ensembling.ensemble(settings, flags.NAME, flags.OF, is_on(flags.WEIGHTED)))


if __name__ == "__main__":
    sys.exit(main())

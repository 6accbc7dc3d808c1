"""make train FOLD=0: one fold's network, trained and shipped as model.safetensors + model.json in its run folder."""

import sys

import settings as settings_module
from tools import run_folders
from tools.errors import UserError, command
from tools.flags import following, is_on
from training import launch
from training.fold_training import FoldTraining

FLAGS = {
    "FOLD": "which fold is held out: 0, 1, ..., or full (train on every row, validate on nothing)",
    "RESUME": "1: go on where the run was stopped, from checkpoints/last.ckpt, step by step as if it had not been",
    "OVERWRITE": "1: throw an existing run away and start again",
}


@command
def main(argv: list[str] | None = None) -> None:
    launch.end_with_parent()
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if not flags.FOLD:
        raise UserError(
            "Which fold? make train FOLD=0 (or python src/train.py --fold 0); FOLD=full trains on every row."
        )
    # its rows, data, network, loss and trainer, in this order; then what run does with them: prepare, fit, ship
    training = FoldTraining(settings, flags.FOLD, resume=is_on(flags.RESUME), overwrite=is_on(flags.OVERWRITE))
    folder = training.run()
    if not training.is_rank_zero:  # who launched rank zero, or another rank: rank zero says it
        return
    if run_folders.resumable(folder):
        print(following("train", flags, f"FOLD={flags.FOLD}", "RESUME=1"))
    elif flags.FOLD == "full":
        print(following("inference", flags, "FOLD=full"))
    else:
        print(following("tester", flags, f"FOLD={flags.FOLD}"))


if __name__ == "__main__":
    sys.exit(main())

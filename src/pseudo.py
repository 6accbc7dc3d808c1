"""make pseudo EXPERIMENT=x: test images that a model is sure of become rows to train on, in a folds table of their own.

The model of fold k has never seen the masks that fold k holds out, so its labels may be trained on where fold k is held
out: they become rows of kfold -1 whose for_fold is k, and no other fold sees them. A label of another fold's model, or
of the mean of all, knows fold k's masks: training on it would make a lie of fold k's score. FOLD=full holds out
nothing, and has the labels of the mean of all folds. Second rounds work: earlier pseudo-labels are replaced.

Writes output/<dataset>/train_folds_<name>.{csv,json}, pseudo/<name>/ (the masks) and pseudo/<name>.png.
"""

import sys

import settings as settings_module
from scoring import pseudo_table
from tools.errors import UserError, command
from tools.flags import is_on

FLAGS = {
    "CONFIDENCE": "keep an image whose confidence reaches this, 0 to 1 (default 0.9); see scoring/pseudo_labels.py",
    "NAME": "name of the table and of the experiment to train on it (default <experiment>_pseudo)",
    "OVERWRITE": "1: replace pseudo-labels that runs were trained on",
}


def lowest(text: str) -> float:
    """Return CONFIDENCE as a number. Raises UserError."""
    try:
        value = float(text or 0.9)
    except ValueError as error:
        raise UserError(f"CONFIDENCE={text}: expected a number from 0 to 1, such as 0.9.") from error
    if not 0 <= value <= 1:
        raise UserError(f"CONFIDENCE={text}: expected a number from 0 to 1, such as 0.9.")
    return value


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    name = flags.NAME or f"{settings.EXPERIMENT}_pseudo"
    print(pseudo_table.make(settings, name, lowest(flags.CONFIDENCE), is_on(flags.OVERWRITE)))
    print(f"then: make compare A={settings.EXPERIMENT} B={name}")


if __name__ == "__main__":
    sys.exit(main())

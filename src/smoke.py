"""make smoke: two batches of everything, from training to submission, in folders of its own: does it run at all?"""

import sys
from pathlib import Path

import settings as settings_module
from data import splits
from tools import console
from tools.errors import UserError, command

FLAGS = {"FOLD": "the fold to try (default 0)"}


@command
def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    for name in ("EXPERIMENT", "SUBMISSION", "LIMIT"):
        if any(argument.startswith(f"{name}=") for argument in argv):
            raise UserError(
                f"make smoke has an {name} of its own, so that nothing of yours is written over; leave it out."
            )
    splits.read(Path(settings.TRAIN_FOLDS))  # refuses before the imports where there is no table

    import inference
    import submission
    import tester
    import train

    fold = f"FOLD={flags.FOLD or 0}"
    recipes = ",".join(filter(None, [flags.RECIPE, "smoke"]))
    given = [argument for argument in argv if not argument.startswith(("FOLD=", "RECIPE="))]
    arguments = [fold, f"RECIPE={recipes}", *given]
    console.step("[1/4] make train", train.main, [*arguments, "OVERWRITE=1"])
    console.step("[2/4] make tester", tester.main, arguments)
    console.step("[3/4] make inference", inference.main, arguments)
    console.step("[4/4] make submission", submission.main, arguments)
    tried, _ = settings_module.command_line(arguments, __doc__, FLAGS)
    print(
        "\nEverything runs. The scores above mean nothing; "
        f"{tried.LOGS}/{tried.EXPERIMENT} and {Path(tried.SUBMISSION).parent} may be removed."
    )


if __name__ == "__main__":
    sys.exit(main())

"""make submission: a prediction folder -> the competition's CSV, its ids checked against sample_submission.csv.

The file is read back, decoded and compared with the masks before it is announced.
"""

import sys

import settings as settings_module
from prediction import submission_job
from tools.errors import command

FLAGS = {
    "FOLD": "which prediction: as given to make inference",
    "NAME": "name of the prediction folder, where one was given",
}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    submission_job.write(settings, flags.FOLD, flags.NAME)


if __name__ == "__main__":
    sys.exit(main())

"""make leaderboard: every experiment of the data set, by its cross-fitted score, with what differs and what it cost.

Writes output/<dataset>/leaderboard.csv. Left out, with the reason: what learned its images by heart, what is not scored
out of fold, and what was scored by another METRIC or on a folds table that holds out something else.
"""

import sys

import settings as settings_module
from scoring import leaderboard_rows
from tools.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    settings, _ = settings_module.command_line(argv, __doc__, {})
    path = leaderboard_rows.publish(settings)
    print(f"the same as a table -> {path}\nIs one really better? make compare A=... B=...")


if __name__ == "__main__":
    sys.exit(main())

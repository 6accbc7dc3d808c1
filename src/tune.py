"""make tune: the best rule from probability to mask, and an honest number for it.

Reads the held-out predictions of every fold; writes tuned.json and tuned_scores.csv in oof_seed<s>/. Three scores stand
side by side: untuned, cross-fitted (each fold by what was chosen on the others: the one to believe), and tuned on
everything. Use the result with POSTPROCESS=tuned.
"""

import sys

import settings as settings_module
from scoring.tuning import tune
from tools.errors import command
from tools.flags import following


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, {})
    print(f"the rule, with what it was tuned under -> {tune(settings)}")
    print(following("report", flags))


if __name__ == "__main__":
    sys.exit(main())

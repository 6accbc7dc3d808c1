"""make compare A=x B=y: is experiment y better than x? Paired over the same folds and images, with all their seeds.

With one seed a side the answer is about these two runs; with several it is about the recipes. Writes
output/<dataset>/compare_<x>_<y>.{json,png}.
"""

import sys

import settings as settings_module
from scoring import comparison
from tools.errors import UserError, command
from tools.flags import is_on
from tools.names import check_name

FLAGS = {
    "A": "the experiment to compare with",
    "B": "the experiment that may be better",
    "SEEDS": "only these seeds: 42,43; else all that were scored",
    "TUNED": "1: compare the cross-fitted scores that make tune wrote",
}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if not flags.A or not flags.B or flags.A == flags.B:
        raise UserError("Which two? make compare A=one B=other (names of experiments)")
    for flag in ("A", "B"):
        check_name(flag, getattr(flags, flag))
    path = comparison.compare(settings, (flags.A, flags.B), flags.SEEDS, is_on(flags.TUNED))
    print(f"the same with all figures -> {path}\nas a picture -> {path.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main())

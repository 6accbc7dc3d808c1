"""make compare A=x B=y: is experiment y better than x? Paired over the same folds and images, with all their seeds.

With one seed a side the answer is about these two runs; with several it is about the recipes. Writes
output/<dataset>/compare_<x>_<y>.{json,png}.
"""

import dataclasses
import sys
from pathlib import Path

import settings as settings_module
from metrics import paired_comparison as verdict_module
from scoring import experiment_scores, score_rows
from scoring.comparison import announce, draw, refuse_different, side
from tools import console
from tools.errors import UserError, command
from tools.files import write_json
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
    names = (flags.A, flags.B)
    if not all(names) or flags.A == flags.B:
        raise UserError("Which two? make compare A=one B=other (names of experiments)")
    for flag, name in zip("AB", names, strict=True):
        check_name(flag, name)
    crossfitted = is_on(flags.TUNED)
    scale = score_rows.scale(settings.METRIC, "", settings.EMPTY)
    a, b = (side(settings, name, flags.SEEDS, scale, crossfitted) for name in names)
    refuse_different(a, b)
    frame = a[0].found.table
    found = verdict_module.compare(
        scale.total,
        [(part.counts, part.values) for part in a],
        [(part.counts, part.values) for part in b],
        frame["kfold"].to_numpy(),
        frame["group"].to_numpy(),
        higher=scale.measure.higher,
    )
    metric = f"cross-fitted {scale.metric}" if crossfitted else scale.metric
    announce(found, names, metric)
    differ = experiment_scores.settings_that_differ([a[0].found, b[0].found])
    if differ:
        rows = [{"differs in": name, names[0]: one, names[1]: two} for name, (one, two) in differ.items()]
        print(console.table(rows))
    path = Path(settings.OUTPUT, f"compare_{flags.A}_{flags.B}.json")
    values = {"a": flags.A, "b": flags.B, "metric": metric, **dataclasses.asdict(found), "settings": differ}
    write_json(path, values)
    draw(path.with_suffix(".png"), found, a, b, names, metric)
    print(f"the same with all figures -> {path}\nas a picture -> {path.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main())

"""make bench: how fast this repository is, beside the plain way and the limit, measured in turns in one run.

Renders its own pictures, prints a table, writes OUTPUT_FILE (output/benchmarks.json). Nine to ten minutes on two cores;
leave the computer alone meanwhile. ONLY=word runs the rows whose name has it.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import data_rows
import network_rows
import rendered
import start_rows
from timing import Row, machine, table

from tools.errors import command
from tools.files import write_json

HIGH, WIDE = 1280, 1918  # Carvana's
LARGE, MANY = 640, 5000  # pairs for the loader, and for make folds


class Data:
    """The pictures and the folds table that rows share, made when first needed."""

    def __init__(self, place: Path) -> None:
        self.place, self.large_root, self.many_root = place, place / "large", place / "many"

    @functools.cached_property
    def large(self) -> list[tuple[Path, Path]]:
        """Pairs of Carvana's size."""
        return sorted(rendered.competition(self.large_root, LARGE, HIGH, WIDE, outlines=100))

    @functools.cached_property
    def many(self) -> list[tuple[Path, Path]]:
        """Many pairs of that size."""
        return sorted(rendered.competition(self.many_root, MANY, HIGH, WIDE, bases=24, outlines=100))

    @functools.cached_property
    def trained(self) -> list[str]:
        """The arguments of a training whose folds table, cache and run folder are there."""
        assert self.large
        network_rows.prepare(self.place, self.large_root)
        return network_rows.arguments(self.place, self.large_root)


def measures(data: Data) -> dict[str, Callable[[], list[Row]]]:
    """Name -> what measures its rows."""
    place, root = data.place, data.large_root
    return {
        "loader cold": lambda: [data_rows.loader_cold(place, root, data.large, 3)],
        "loader later": lambda: [data_rows.loader_later(place, root, data.large[:160], 3)],
        "training step": lambda: [network_rows.training_step(data.trained, data.large, 3)],
        "inference": lambda: [network_rows.inference(data.trained, [image for image, _ in data.large][:48], 3)],
        "rle": lambda: data_rows.run_lengths(data.large, 5),
        "thresholds": lambda: [data_rows.thresholds(place, data.large, 3)],
        "folds": lambda: [data_rows.make_folds(place, data.many_root, data.many)],
        "start of help": lambda: [start_rows.help_text(1)],
        "start of training": lambda: [start_rows.training(place, data.trained, 2)],
    }


@command
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="*", metavar="NAME=value", help="ONLY=word, OUTPUT_FILE=path")
    given = dict(word.partition("=")[::2] for word in parser.parse_args(argv).given)
    only, target = given.pop("ONLY", ""), Path(given.pop("OUTPUT_FILE", "output/benchmarks.json"))
    if given:
        parser.error(f"{', '.join(given)}: unknown; there are ONLY=word and OUTPUT_FILE=path")
    start, rows, where = time.monotonic(), [], machine()
    with tempfile.TemporaryDirectory() as folder:
        every = measures(Data(Path(folder)))
        chosen = [name for name in every if only in name]
        if not chosen:
            parser.error(f"ONLY={only}: no such row; there are: {', '.join(every)}")
        for number, name in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {name}", flush=True)
            rows += every[name]()
            minutes = (time.monotonic() - start) / 60
            about = {"date": time.strftime("%Y-%m-%d"), "minutes": round(minutes, 1), "machine": where}
            write_json(target, {**about, "rows": [row.as_json() for row in rows]})  # what is measured is not lost
    print(f"\n{table(rows)}\n")
    on = where["accelerator"] or "no accelerator"
    print(f"{about['date']}, {where['processor']}, {where['cores']} cores, {on}, torch {where['torch']}")
    print(f"Medians and (lowest to highest) ratios of {minutes:.1f} minutes -> {target}")


if __name__ == "__main__":
    sys.exit(main())

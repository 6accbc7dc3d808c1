"""How time, memory, open files and processes grow with the number of images: loader, folds, tester and inference.

python benchmarks/growth.py [--counts 100 1000 10000] [--output output]

Renders small pictures, runs the commands in processes of their own with a tiny network, watches them and all that they
start, and writes OUTPUT/growth.json and growth.png. About fifteen minutes on two cores for the three counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import rendered
from timing import machine

from tools.errors import UserError, command

SOURCE = Path(__file__).resolve().parent.parent / "src"
SIDES = 64, 96  # height, width
WORDS = [
    *("DATASET=grown", "MODEL_NAME=smp_linknet_tu-test_resnet", "ENCODER_WEIGHTS=none", "IMAGE_SIZE=32", "N_FOLDS=2"),
    *("STEP_IMAGES=0", "LOGGER=none", "TRAIN_BATCH_SIZE=16"),
]
_LOADER = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import settings
from data import splits
from training import builders
chosen = settings.load(sys.argv[2:])
frame = splits.read(pathlib.Path(chosen.TRAIN_FOLDS))
rows, held_out = splits.split_rows(frame, "full")
loader = builders.loaders(chosen, builders.data_spec(chosen), frame, rows, held_out).train_dataloader()
for epoch in range(2):
    loader.batch_sampler.sampler.set_epoch(epoch)
    for _ in loader:
        pass
"""


def _tree(process: int) -> list[int]:
    """A process and all that it started, and these."""
    found = [process]
    for one in found:
        for tasks in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, tasks.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def _of(process: int) -> tuple[float, int]:
    """Megabytes of memory (a page that n processes share counts 1/n in each), open files."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        pss = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return pss / 1024, len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208
    except (OSError, StopIteration):
        return 0.0, 0


def watched(command: list[str], place: Path) -> dict[str, float]:
    """Seconds of a command, and the most memory (MB), open files and processes at a time, its children's included."""
    start, most = time.perf_counter(), {"megabytes": 0.0, "files": 0, "processes": 0}
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, cwd=place, stdout=said, stderr=said) as process:
            while process.poll() is None:
                each = [_of(one) for one in _tree(process.pid)]
                now = {"megabytes": sum(m for m, _ in each), "files": sum(f for _, f in each), "processes": len(each)}
                most = {name: max(value, now[name]) for name, value in most.items()}
                time.sleep(0.2)
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{' '.join(command)[:200]} ended with {process.returncode}:\n{text}")
    return {"seconds": time.perf_counter() - start, **most}


def measure(place: Path, count: int) -> dict[str, dict[str, float]]:
    """What each command takes for `count` images; the tester's are half of them, held out."""
    root = place / "input" / "grown"
    rendered.competition(root, count, *SIDES, bases=100)
    (root / "test_hq").symlink_to(root / "train_hq")

    def command(name: str, *more: str) -> list[str]:
        return [sys.executable, str(SOURCE / f"{name}.py"), *WORDS, *more]

    found = {"folds": watched(command("folds", "TIE=1"), place)}  # small pictures that are alike by chance
    found["loader"] = watched([sys.executable, "-c", _LOADER, str(SOURCE), *WORDS], place)
    watched(command("train", "FOLD=0", "EPOCHS=1", "LIMIT=1"), place)
    found["tester"] = watched(command("tester", "FOLD=0"), place)
    found["inference"] = watched(command("inference", "FOLD=0", "MAPS=0", "DIALECT=carvana"), place)
    return found


def draw(figures: dict[int, dict[str, dict[str, float]]], path: Path) -> None:
    """Time and memory against the number of images, both axes logarithmic for time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    counts = sorted(figures)
    for name in figures[counts[0]]:
        left.plot(counts, [figures[count][name]["seconds"] for count in counts], "o-", label=name)
        right.plot(counts, [figures[count][name]["megabytes"] for count in counts], "o-", label=name)
    first = figures[counts[-1]]["folds"]["seconds"] / counts[-1]
    left.plot(counts, [first * count for count in counts], ":", color="gray", label="linear")
    left.set(xscale="log", yscale="log", xlabel="images", ylabel="seconds, the start of Python included")
    right.set(xscale="log", xlabel="images", ylabel="MB at most, all processes", ylim=(0, None))
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def text(figures: dict[int, dict[str, dict[str, float]]]) -> str:
    """Markdown: a row a command and count."""
    lines = ["| command | images | seconds | ms for each further image | MB at most | open files | processes |"]
    lines.append("|" + " --- |" * 7)
    counts = sorted(figures)
    for name in figures[counts[0]]:
        for before, count in zip([None, *counts], counts, strict=False):
            got = figures[count][name]
            more = ""
            if before is not None:
                took = got["seconds"] - figures[before][name]["seconds"]
                more = f"{1000 * took / (count - before):.1f}"
            cells = f"{got['seconds']:.1f} | {more} | {got['megabytes']:.0f} | {got['files']} | {got['processes']}"
            lines.append(f"| {name} | {count:,} | {cells} |")
    return "\n".join(lines)


@command
def main(arguments: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--output", type=Path, default=Path("output"))
    given = parser.parse_args(arguments)
    if not Path("/proc/self/smaps_rollup").is_file():
        raise UserError("Memory and processes are read from /proc, which this system lacks; it needs Linux.")
    figures: dict[int, dict[str, dict[str, float]]] = {}
    given.output.mkdir(parents=True, exist_ok=True)
    for count in sorted(set(given.counts)):
        with tempfile.TemporaryDirectory() as folder:
            figures[count] = measure(Path(folder), count)
        print(
            f"{count:,} images: " + ", ".join(f"{n} {v['seconds']:.0f} s" for n, v in figures[count].items()),
            flush=True,
        )
    about: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "figures": figures}
    (given.output / "growth.json").write_text(json.dumps(about, indent=1) + "\n")
    draw(figures, given.output / "growth.png")
    print(f"\n{text(figures)}\n\n-> {given.output / 'growth.json'} and growth.png")


if __name__ == "__main__":
    sys.exit(main())

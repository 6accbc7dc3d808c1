"""How close does `make inference` come to what its network and its decoder allow, and does its memory stay?

python benchmarks/inference.py lightning_logs/demo/fold0_seed42 [--images 2000] [--height 1280] [--width 1918]

Renders JPEGs, and measures with this run folder's network: decoding alone on all cores (one limit), the bare forward
passes on frames that are there already (the other), and the command itself with MAPS=0, its start left out; then its
memory over time, a SIGKILL in the middle, and two shards merged, whose submissions have to be equal.
"""

import argparse
import filecmp
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import rendered

from formats import images
from prediction import predictor, shipped_model

SOURCE = Path(predictor.__file__).parents[1]
SAMPLE = 200  # images of the side-by-side timings
REPEATS = 3


def _decode(files: list[Path]) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: images.read_image(path).shape, files):
            pass
    return time.perf_counter() - start


def _forward(model: predictor.Model, count: int, batch: int) -> float:
    device = next(model.network.parameters()).device
    x = torch.rand(batch, model.spec.channels, *model.size, device=device).contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in range(0, count, batch):
            answer = model.network(x).sigmoid()
    answer.cpu()
    return time.perf_counter() - start


def _ours(model: predictor.Model, files: list[Path], batch: int) -> float:
    """Decoding, network, resizing to the original size, mask and run lengths, as the command does it."""
    from formats import rle
    from prediction import postprocess, resumable

    names = {path.name: path.name for path in files}
    maps = resumable.Maps(Path(), model.spec, files[0].parent)
    keep = resumable.RunLengths(maps, (postprocess.Rule(),), rle.DIALECTS["carvana"], names, [])
    start = time.perf_counter()
    for _ in predictor.Predictor([model], str(next(model.network.parameters()).device), batch).predict(
        files, finish=keep
    ):
        pass
    return time.perf_counter() - start


def _side_by_side(model: predictor.Model, files: list[Path], batch: int) -> None:
    spent: dict[str, list[float]] = {"decoding alone": [], "bare forward": [], "make inference MAPS=0": []}
    for _ in tqdm(range(REPEATS), "side by side"):
        spent["decoding alone"].append(_decode(files))
        spent["bare forward"].append(_forward(model, len(files), batch))
        spent["make inference MAPS=0"].append(_ours(model, files, batch))
    for name, seconds in spent.items():
        median, spread = np.median(seconds), (max(seconds) - min(seconds)) / np.median(seconds)
        print(f"  {name:24} {len(files) / median:7.1f} images/s   (spread {spread:.0%} of {REPEATS} runs)")
    decode, forward, ours = (float(np.median(seconds)) for seconds in spent.values())
    print(f"  share of the bare forward {forward / ours:.2f}, of decoding {decode / ours:.2f}")
    shared = decode + forward if not torch.cuda.is_available() else max(decode, forward)
    print(f"  share of what both allow on this hardware {shared / ours:.2f} (on a CPU they share the cores: their sum)")


def _command(run: Path, *more: str) -> list[str]:
    words = [
        f"EXPERIMENT={run.parent.name}",
        f"LOGS={run.parents[1].resolve()}",
        f"FOLD={run.name[4:].partition('_')[0]}",
    ]
    words += [f"SEED={run.name.partition('_seed')[2]}", "DATASET=bench", "DIALECT=carvana"]
    script, *action = more[0].split()
    return [sys.executable, str(SOURCE / script), *action, *words, *more[1:]]


def _watched(typed: list[str], place: Path, kill_at: int = 0) -> list[tuple[float, float]]:
    """Run a command; (seconds, MB resident) over time. SIGKILL it when `kill_at` parts are done."""
    seen, start = [], time.perf_counter()
    with subprocess.Popen(typed, cwd=place, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status")
            lines = status.read_text().splitlines() if status.exists() else []
            found = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
            seen += [(time.perf_counter() - start, found[0] / 1024)] if found else []
            if kill_at and len(list(place.glob("output/bench/predictions/.*.partial/parts/0*.json"))) >= kill_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return seen
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(typed)} ended with {process.returncode}")
    return seen


def _at_scale(run: Path, place: Path, count: int) -> None:
    out = place / "output" / "bench"

    def submission(name: str) -> Path:
        subprocess.run(_command(run, "submission.py"), cwd=place, check=True, stdout=subprocess.DEVNULL)
        shutil.move(out / "submission.csv", out / name)
        shutil.rmtree(next((out / "predictions").glob(f"{run.parent.name}_*[0-9]")))
        return out / name

    memory = _watched(_command(run, "inference.py", "MAPS=0"), place)
    end = memory[-1][0]
    print(f"  {count:,} images: {end:.0f} s with the start of Python, {count / end:.1f} images/s")
    for quarter in range(4):
        part = [size for at, size in memory if quarter / 4 <= at / end <= (quarter + 1) / 4]
        print(f"  memory in quarter {quarter + 1}: median {np.median(part):5.0f} MB, largest {max(part):5.0f} MB")
    whole = submission("whole.csv")
    _watched(_command(run, "inference.py", "MAPS=0"), place, kill_at=count // 64 // 2)
    done = len(list((out / "predictions").glob(".*.partial/parts/0*.json")))
    resumed = _watched(_command(run, "inference.py", "MAPS=0"), place)
    equal = filecmp.cmp(whole, submission("resumed.csv"), shallow=False)
    print(f"  killed after {done * 64} images, went on for {resumed[-1][0]:.0f} s: the submission is equal: {equal}")
    for shard in ("1/2", "2/2"):
        _watched(_command(run, "inference.py", "MAPS=0", f"SHARD={shard}"), place)
    subprocess.run(_command(run, "inference.py merge"), cwd=place, check=True, stdout=subprocess.DEVNULL)
    merged = submission("merged.csv")
    lines = [path.read_text().splitlines() for path in (whole, merged)]
    differ = sum(one != other for one, other in zip(*lines, strict=True))
    print(f"  two shards, merged: {differ} of {count} rows differ (a network's last digits depend on the batch)")


def main(arguments: list[str] | None = None) -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--height", type=int, default=1280)
    parser.add_argument("--width", type=int, default=1918)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args(arguments)
    model = shipped_model.load(given.run, "cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        test = place / "input" / "bench" / "test_hq"
        test.mkdir(parents=True)
        files = rendered.pictures(test, given.images, given.height, given.width)
        name = model.about["network"]["MODEL_NAME"]
        print(f"{name} at {model.size[0]} x {model.size[1]} px, JPEGs of {given.width} x {given.height}")
        _side_by_side(model, sorted(files)[:SAMPLE], given.batch)
        _at_scale(given.run, place, given.images)
    return 0


if __name__ == "__main__":
    sys.exit(main())

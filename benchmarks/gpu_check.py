"""On a GPU, in four minutes: does precision 16 train, stop, resume, score and predict there, and how fast is it?

python benchmarks/gpu_check.py [--data input/nuclei] [--output output] [--cpu]

One fold of the nuclei at 128 px (of rendered cars where they are not there) in precision 16 with accumulation,
clipping, moving average, frozen encoder and device augmentation; killed in the middle and resumed; tester, inference,
and the masks of 16 bits beside those of 32. Then images a second and memory of the default's and resnet34's U-Net in
32, 16 and bf16, with and without channels_last. Writes OUTPUT/gpu_check.json; exit code 1 where a check failed. --cpu
tries all of it out, tiny and in bf16: its figures mean nothing.
"""

import argparse
import contextlib
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import gpu
from timing import machine, quietly

import folds
import inference
import settings as settings_module
import tester
import train
from modeling import weights_source
from prediction import chosen_rule, sixteen_bits
from prediction.inference_job import load_predictor
from scenes import carvana
from shipping.kernel_bundle import MARGIN
from shipping.onnx_check import real_images
from tools.errors import UnlearnedError, UserError, command
from tools.files import read_json, write_json

SOURCE = Path(train.__file__)
NETWORKS = ("smp_unet_tu-tf_efficientnet_lite0", "smp_unet_resnet34")
WORDS = [
    *("N_FOLDS=3", "TRAIN_BATCH_SIZE=8", "ACCUMULATE=2", "GRADIENT_CLIP=1", "EMA=0.9", "FREEZE_ENCODER=1"),
    *("AUGMENT=turns", "AUGMENT_ON=device", "CHECKPOINT_MINUTES=0.0001", "LOGGER=none", "STEP_IMAGES=0"),
]
PATIENCE = 120  # seconds for a training to write its first checkpoint
Check = tuple[str, bool, str]  # what, whether it is so, in figures


def _data(folder: Path) -> str:
    """Put the images below input/ of this folder; returns the name of the data set."""
    if folder.is_dir():
        Path("input").mkdir()
        Path("input/nuclei").symlink_to(folder.resolve(), target_is_directory=True)
        return "nuclei"
    print(f"{folder} is not there; rendered cars stand for the nuclei.", flush=True)
    carvana.render_data(Path("input/demo"), 42, 6, 1, 256)
    return "demo"


def _killed(words: list[str], run: Path) -> bool:
    """Start a training, kill it once it has a checkpoint; whether it was still training."""
    started = subprocess.Popen([sys.executable, str(SOURCE), *words], stdout=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    while not (run / "checkpoints" / "last.ckpt").is_file() and started.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    return started.wait() == -signal.SIGKILL and not (run / "model.json").is_file()


def checks(words: list[str], precision: str, device: str) -> Iterator[Check]:
    """Train, kill, resume, score and predict; yield what was found, each as it is known."""
    settings = settings_module.load(words)
    run, again = Path(settings.LOGS, settings.EXPERIMENT, "fold0_seed42"), Path(settings.LOGS, "whole", "fold0_seed42")
    quietly(folds, words)
    killed = _killed([*words, "FOLD=0"], run)
    yield "killed in the middle, a checkpoint is left", killed, str(run / "checkpoints")
    quietly(train, [*words, "FOLD=0", "RESUME=1"], "the resumed training")
    quietly(train, [*words, "FOLD=0", "EXPERIMENT=whole"], "the training without a stop")
    resumed, whole = (read_json(path / "model.json", "") for path in (run, again))
    same = f"{resumed['steps']} and {whole['steps']} steps"
    yield "the resumed run has the steps of one without a stop", resumed["steps"] == whole["steps"], same
    began = read_json(run / "run.json", "")["computer"]
    said = f"{began['precision']} on {began['processor']}"
    yield "trained in the precision that was meant", (began["precision"], began["device"]) == (precision, device), said
    if device == "cuda":
        yield "its memory was measured", bool(resumed["gpu_gigabytes"]), f"{resumed['gpu_gigabytes']} GB"
    dices = []
    for name in (settings.EXPERIMENT, "whole"):
        quietly(tester, [*words, "FOLD=0", f"EXPERIMENT={name}"], "tester")
        summary = read_json(Path(settings.LOGS, name, "fold0_seed42", "val", "summary.json"), "")
        dices.append(summary["model"]["image"]["dice"])
    near = all(map(math.isfinite, dices)) and abs(dices[0] - dices[1]) < 0.05
    yield "both score alike on held-out masks", near, " and ".join(f"{dice:.4f}" for dice in dices)
    quietly(inference, [*words, "FOLD=0"], "inference")
    manifest = read_json(next(Path(settings.OUTPUT, "predictions").glob("*/manifest.json")), "")
    meant = True if device == "cuda" else "bf16"
    yield "inference's precision", manifest["half"] == meant, f"half: {manifest['half']}"
    predictor = load_predictor(settings, [run])
    rules, few = chosen_rule.configured(settings, predictor.spec), real_images(settings, predictor.spec, 8)
    differ = sixteen_bits.masks_differ(predictor, "16" if device == "cuda" else "bf16", rules, few, settings.MAX_PIXELS)
    yield "masks of 16 bits are those of 32", differ <= MARGIN, f"Dice {1 - differ:.5f} on {len(few)} images"


def speed(size: int, batch: int, steps: int, device: str) -> list[dict[str, Any]]:
    """Images a second of a bare training step and the most memory, a row a network, precision and memory format."""
    rows = []
    for name in NETWORKS:
        for kind in ("32", "16", "bf16") if device == "cuda" else ("32", "bf16"):
            for last in (False, True):
                row: dict[str, Any] = {"network": name, "precision": kind, "channels_last": last}
                if device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                training = gpu.Training(name, gpu.Way(kind, channels_last=last), device)
                row["images_a_second"] = round(gpu.bare(training, batch, size, steps), 2)
                if device == "cuda":
                    row["gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
                rows.append(row)
                print(row, flush=True)
    return rows


def text(found: list[Check], rows: list[dict[str, Any]]) -> str:
    """Return two tables in Markdown."""
    lines = ["| check | | |", "| --- | --- | --- |"]
    lines += [f"| {what} | {'yes' if fine else 'NO'} | {said} |" for what, fine, said in found]
    lines += ["", "| network | precision | channels_last | images/s | GB |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (*list(row.values())[:2], "yes" if row["channels_last"] else "no", row["images_a_second"])
        lines.append(f"| {' | '.join(map(str, cells))} | {row.get('gigabytes', '')} |")
    return "\n".join(lines)


@command
def main(arguments: list[str] | None = None) -> None:
    """Check, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("input/nuclei"))
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--cpu", action="store_true", help="try it out, tiny; the figures mean nothing")
    given = parser.parse_args(arguments)
    device = "cpu" if given.cpu else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no GPU here: this check is for one. --cpu only tries it out.")
    start, place, data = time.monotonic(), given.output.resolve(), given.data.resolve()
    size, epochs, steps, batch = (32, 2, 1, 2) if given.cpu else (128, 8, 20, 32)
    folder = Path(tempfile.mkdtemp())
    try:
        with contextlib.chdir(folder):
            words = [*WORDS, f"DATASET={_data(data)}", f"IMAGE_SIZE={size}", f"EPOCHS={epochs}", f"DEVICE={device}"]
            words += ["PRECISION=bf16", "WORKERS=0", "LIMIT=6"] if given.cpu else []
            package = weights_source.PACKAGES["tu-tf_efficientnet_lite0"]
            words += [] if package.installed() else ["ENCODER_WEIGHTS=none"]
            found = []
            for check in checks(words, "bf16-mixed" if given.cpu else "16-mixed", device):
                print(f"{'ok' if check[1] else 'FAILED'}  {check[0]}: {check[2]}", flush=True)
                found.append(check)
        gpu.WARMUP = 1 if given.cpu else gpu.WARMUP
        rows = speed(size, batch, steps, device)
    finally:
        shutil.rmtree(folder)
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "device": device, "words": words}
    about |= {"checks": [dict(zip(("check", "fine", "said"), one, strict=True)) for one in found], "speed": rows}
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "gpu_check.json", {**about, "seconds": round(time.monotonic() - start)})
    print(f"\n{text(found, rows)}\n-> {place / 'gpu_check.json'}")
    if failed := [what for what, fine, _ in found if not fine]:
        raise UnlearnedError(", ".join(failed))


if __name__ == "__main__":
    sys.exit(main())

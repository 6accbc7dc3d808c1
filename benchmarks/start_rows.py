"""Rows of the table about waiting: how long a command takes to begin."""

import os
import subprocess
import sys
import time
from pathlib import Path

from timing import Row, in_turns

ROOT = Path(__file__).resolve().parent.parent
_EVERYTHING = (
    "import torch, pytorch_lightning, segmentation_models_pytorch, albumentations, pandas, sklearn, matplotlib"
)
_STEPS = f"""
import json, sys, time
marks = {{"python": time.time()}}
sys.path.insert(0, {str(ROOT / "src")!r})
import torch; marks["torch"] = time.time()
import pytorch_lightning, training.trainer; marks["Lightning and TensorBoard"] = time.time()
import model_dispatcher, segmentation_models_pytorch; marks["smp and timm"] = time.time()
import loading.augmentations, albumentations; marks["albumentations"] = time.time()
import train, lightning_module
class Begun(Exception): pass
def begin(self, *_, **__):
    marks["checks, cache, network"] = time.time()
lightning_module.SegmentationModule.setup = begin
def first(self, *_, **__):
    marks["loader's processes and the first batch"] = time.time()
lightning_module.SegmentationModule.on_train_batch_start = first
def after(self, *_, **__):
    marks["the first step"] = time.time()
    print("MARKS" + json.dumps(marks), flush=True)
lightning_module.SegmentationModule.on_train_batch_end = after
sys.exit(train.main(sys.argv[1:]))
"""


def _run(*words: str, **options: object) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(words)[:200]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done


def help_text(repeats: int) -> Row:
    """python src/folds.py --help, in a process of its own."""
    tasks = {
        "limit": lambda: _run("-c", "pass"),
        "ours": lambda: _run(str(ROOT / "src" / "folds.py"), "--help"),
        "plain": lambda: _run("-c", _EVERYTHING),
    }
    imported = _run("-X", "importtime", str(ROOT / "src" / "folds.py"), "--help").stderr
    torch = "imported" if "| torch" in imported else "not imported"
    return Row(
        "start: python src/folds.py --help",
        in_turns(tasks, repeats),
        note=f"aim: about a second, no torch (it was {torch}); limit: python; plain: importing what a training needs",
    )


def training(place: Path, arguments: list[str], repeats: int) -> Row:
    """make train, cache there, to the end of its first step, in a process of its own."""
    import json

    parts: list[dict[str, float]] = []

    def ours() -> float:
        start = time.time()
        words = [*arguments, "FOLD=full", "LIMIT=1", "EPOCHS=1", "STEP_IMAGES=0", "OVERWRITE=1", "EXPERIMENT=start"]
        said = _run("-c", _STEPS, *words, cwd=place, env={**os.environ, "PYTHONUNBUFFERED": "1"}).stdout
        marks = json.loads(next(line for line in said.splitlines() if line.startswith("MARKS"))[5:])
        ends = list(marks.values())
        parts.append(
            dict(zip(marks, (end - begin for begin, end in zip([start, *ends], ends, strict=False)), strict=True))
        )
        return ends[-1] - start

    spent = in_turns({"ours": ours}, repeats)
    made_of = {name: sorted(part[name] for part in parts)[len(parts) // 2] for name in parts[0]}
    return Row("start of training to its first step, cached", spent, made_of=made_of)

"""Out-of-fold score for a fixed budget of samples: our default, smp's example, one switch of the default at a time.

python benchmarks/quality.py [--size small|full|tuning] [--seeds 0 1] [--variants default ...] [NAME=value ...]

Trains on DATASET=, else on input/nuclei where it is there (make data ZIP=...), else on the demo (make demo
ONLY=render); every fold of every variant and seed through the commands' own code. What is finished is not done again.
small: 128 px, a small network with random weights, 2 folds, under 30 minutes on two cores; full: 256 px, the default
network with ImageNet's weights, 5 folds, for a night or a GPU; tuning: what config.py's rates should be for such
weights, 96 px, 2 folds. Writes output/quality_<size>_<dataset>.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from timing import machine, quietly

import compare
import folds
import settings as settings_module
import tester
import train
from scoring import fold_scores
from tools import run_folders
from tools.errors import UserError, command
from tools.files import write_json

# smp's example of binary segmentation: Dice loss, Adam of 2e-4 to zero along a cosine, batches of 16, no augmentation
EXAMPLE = [
    *("LOSS=dice", "OPTIMIZER=adam", "LR=2e-4", "WARMUP=0", "WEIGHT_DECAY=0", "GRADIENT_CLIP=0", "EMA=0"),
    *("AUGMENT=none", "TRAIN_BATCH_SIZE=16"),
]
VARIANTS = {
    "default": [],
    "smp_example": EXAMPLE,
    "no_augmentation": ["AUGMENT=none"],
    "no_ema": ["EMA=0"],
    "dice_alone": ["LOSS=dice"],
    "lr_third": ["LR=3e-4"],
    "lr_triple": ["LR=3e-3"],
    "flips": ["AUGMENT=flips"],
    "strong": ["AUGMENT=strong"],
    "ce_alone": ["LOSS=ce"],
    "lovasz": ["LOSS=ce + lovasz"],
    "adam": ["OPTIMIZER=adam"],
    "onecycle": ["SCHEDULE=onecycle"],
    "batch_16": ["TRAIN_BATCH_SIZE=16"],
    "no_clipping": ["GRADIENT_CLIP=0"],
    "random": ["ENCODER_WEIGHTS=none"],
    "resnet34_random": ["MODEL_NAME=smp_unet_resnet34", "ENCODER_WEIGHTS=none"],
    "encoder_third": ["ENCODER_LR=0.3"],
    "encoder_tenth": ["ENCODER_LR=0.1"],
    "encoder_same": ["ENCODER_LR=1", "FREEZE_ENCODER=0"],
    "frozen_first": ["FREEZE_ENCODER=1"],
    "frozen_tenth": ["FREEZE_ENCODER=1", "ENCODER_LR=0.1"],
    "imagenets_constants": ["NORMALIZE=constants"],
    "bf16": ["PRECISION=bf16"],
}
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "words": ["IMAGE_SIZE=128", "MODEL_NAME=unet", "MAX_FEATURES=128", "ENCODER_WEIGHTS=none", "N_FOLDS=2"],
        "samples": 1350,
        "seeds": [0, 1],
        "variants": ["default", "smp_example", "no_augmentation", "no_ema", "dice_alone"],
    },
    "full": {
        "words": ["IMAGE_SIZE=256", "N_FOLDS=5"],
        "samples": 20_000,
        "seeds": [0, 1, 2],
        "variants": list(VARIANTS),
    },
    "tuning": {
        "words": ["IMAGE_SIZE=96", "N_FOLDS=2", "PRECISION=32"],
        "samples": 800,
        "seeds": [0, 1],
        "variants": ["default", "random", "encoder_third", "encoder_tenth", "frozen_first", "lr_third", "lr_triple"],
    },
}


def run(name: str, seed: int, words: list[str], count: int) -> dict[str, Any]:
    """Train and score every fold of a variant under a seed; its out-of-fold summary."""
    words = [*words, f"EXPERIMENT={name}", f"SEED={seed}"]
    chosen = settings_module.load(words)
    minutes = 0.0
    for fold in map(str, range(count)):
        folder = run_folders.run_folder(chosen.LOGS, name, fold, seed)
        if not fold_scores.is_scored(folder):
            quietly(train, [*words, f"FOLD={fold}", "OVERWRITE=1"], f"training of {folder}")
            quietly(tester, [*words, f"FOLD={fold}"], f"tester of {folder}")
        minutes += run_folders.read_model(folder)["minutes"]
    quietly(tester, [*words, "OOF=1"], f"oof of {name}")
    summary = json.loads((Path(chosen.LOGS, name, f"oof_seed{seed}") / "summary.json").read_text())
    return {**summary["score"], "minutes": minutes}


def against(words: list[str], name: str, seeds: list[int]) -> dict[str, Any]:
    """make compare's verdict on the default (B) against a variant (A), paired over images, folds and seeds."""
    some = f"SEEDS={','.join(map(str, seeds))}"
    quietly(compare, [*words, f"A={name}", "B=default", some], f"compare with {name}")
    output = settings_module.load(words).OUTPUT
    return json.loads(Path(output, f"compare_{name}_default.json").read_text())


def text(found: dict[str, dict[str, Any]], metric: str) -> str:
    """Markdown, a row a variant."""
    lines = [
        f"| variant | out-of-fold {metric} | of each seed, with its interval | default - variant | the default is | "
        "minutes a seed |",
        "|" + " --- |" * 6,
    ]
    for name, one in found.items():
        each = ", ".join(f"{part['model']:.4f} ({part['low']:.4f} to {part['high']:.4f})" for part in one["seeds"])
        mean = np.mean([part["model"] for part in one["seeds"]])
        minutes = np.mean([part["minutes"] for part in one["seeds"]])
        verdict = one.get("verdict")
        cells = ["", ""]
        if verdict:
            cells = [f"{verdict['difference']:+.4f} ({verdict['low']:+.4f} to {verdict['high']:+.4f})", verdict["word"]]
        what = " ".join(VARIANTS[name]) or "as config.py says"
        lines.append(f"| {name}: {what} | {mean:.4f} | {each} | {cells[0]} | {cells[1]} | {minutes:.1f} |")
    return "\n".join(lines)


@command
def main(arguments: list[str] | None = None) -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="NAME=value", help="constants for all variants")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--samples", type=int, help="training samples of each fold (default: the size's)")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    given = parser.parse_args(arguments)
    size, start = SIZES[given.size], time.monotonic()
    seeds, samples = given.seeds or size["seeds"], given.samples or size["samples"]
    names = list(dict.fromkeys(["default", *(given.variants or size["variants"])]))
    dataset = "nuclei" if Path("input/nuclei").is_dir() else "demo"
    place = [f"OUTPUT=output/quality_{given.size}/{{DATASET}}", "LOGS={OUTPUT}/logs", "STEP_IMAGES=0"]
    words = [f"DATASET={dataset}", *place, *size["words"], *given.overrides]
    chosen = settings_module.load(words)
    dataset = chosen.DATASET
    if not Path(chosen.INPUT).is_dir():
        raise UserError(f"{chosen.INPUT} is not there. make demo ONLY=render makes the demo's; make data the nuclei's.")
    if not Path(chosen.TRAIN_FOLDS).is_file():
        quietly(folds, words, "make folds")
    rows = len(Path(chosen.TRAIN_FOLDS).read_text().splitlines()) - 1
    count = chosen.N_FOLDS
    epochs = max(1, round(samples / (rows * (count - 1) / count)))
    words.append(f"EPOCHS={epochs}")
    print(f"{dataset}, {rows} images, {count} folds, {epochs} epochs each; seeds {seeds}", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found[name] = {"words": VARIANTS[name], "seeds": []}
        for seed in seeds:
            found[name]["seeds"].append(run(name, seed, [*words, *VARIANTS[name]], count))
            spent = (time.monotonic() - start) / 60
            print(
                f"{name}, seed {seed}: {found[name]['seeds'][-1]['model']:.4f}, {spent:.1f} minutes so far", flush=True
            )
        if name != "default":
            found[name]["verdict"] = against(words, name, seeds)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "dataset": dataset,
        "words": words,
        "minutes": round((time.monotonic() - start) / 60, 1),
        "variants": found,
    }
    target = Path("output", f"quality_{given.size}_{dataset}.json")
    write_json(target, about)
    print(f"\n{text(found, chosen.METRIC)}\n\n{about['minutes']} minutes -> {target}")


if __name__ == "__main__":
    sys.exit(main())

"""A data set's test images by a network of default settings that saw every training image, after ten epochs.

python benchmarks/hidden.py DATASET=nuclei [NAME=value ...]

make folds (where there is no table), train FOLD=full with seed 42, inference and submission in turn; what is finished
is not done again. Says where the probability maps and the submission are, for whoever has the masks, and writes
output/hidden_<dataset>.json.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from timing import machine

import folds
import inference
import settings as settings_module
import submission
import train
from prediction import inference_job
from tools import console, run_folders
from tools.errors import command
from tools.files import read_json, write_json

OWN = ["EPOCHS=10", "SEED=42", "EXPERIMENT={DATASET}_hidden"]


@command
def main(argv: list[str] | None = None) -> None:
    """Do what the module's docstring says."""
    settings, flags = settings_module.command_line([*OWN, *(sys.argv[1:] if argv is None else argv)], __doc__, {})
    words = list(flags.overrides)
    run = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, "full", settings.SEED)
    start, spent = time.monotonic(), os.times()
    if not Path(settings.TRAIN_FOLDS).is_file():
        console.step("[1/4] make folds", folds.main, words)
    if not (run / run_folders.MODEL).is_file():
        again = ["RESUME=1"] if run_folders.resumable(run) else []
        console.step("[2/4] make train", train.main, [*words, "FOLD=full", *again])
    console.step("[3/4] make inference", inference.main, [*words, "FOLD=full"])
    console.step("[4/4] make submission", submission.main, [*words, "FOLD=full"])
    model = read_json(run / run_folders.MODEL, "")
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "words": words, "run": str(run)}
    about |= {name: model[name] for name in ("network", "precision", "epochs", "steps", "minutes", "weights_sha256")}
    about |= {"maps": str(inference_job.prediction_folder(settings, "full")), "submission": settings.SUBMISSION}
    about |= {
        "wall_seconds": round(time.monotonic() - start),
        "cpu_seconds": round(sum(os.times()[:4]) - sum(spent[:4])),
    }
    path = Path("output", f"hidden_{settings.DATASET}.json")
    write_json(path, about)
    print(f"\nprobability maps -> {about['maps']}\nsubmission -> {about['submission']}\nfigures -> {path}")


if __name__ == "__main__":
    sys.exit(main())

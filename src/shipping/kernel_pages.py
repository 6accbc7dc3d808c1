"""The pages of a Kaggle kernel: its notebook, the two metadata files that Kaggle's client reads, and a README."""

import json
import re
from typing import Any

FIND = """import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # nothing is to be asked of a network
KAGGLE = Path(os.environ.get("MASKFOLD_KAGGLE", "/kaggle"))  # another place only in the rehearsal
INPUT, WORKING = KAGGLE / "input", KAGGLE / "working"

# the data set lies at input/<slug>, or at input/datasets/<owner>/<slug>: the marker file says which it is
markers = [path for depth in ("*", "*/*", "*/*/*") for path in sorted(INPUT.glob(f"{depth}/maskfold.json"))]
found = {json.loads(path.read_text())["bundle"]: path.parent for path in markers}
BUNDLE = found.get("{bundle}")
assert BUNDLE, f"Add the newest version of the data set {dataset} to this notebook's inputs; there are {markers}"
assert (BUNDLE / "source").is_dir(), f"{BUNDLE} lacks its folders: upload it with -r zip"
print(BUNDLE)"""

INSTALL = """wheels = sorted((BUNDLE / "wheels").glob("*.whl"))
command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", *map(str, wheels)]
subprocess.run(command, check=True)
sys.path.insert(0, str(BUNDLE / "source"))"""

OPEN = """from shipping import kernel_run

bundle = kernel_run.open_bundle(BUNDLE, INPUT, WORKING)"""

PREDICT = [
    (
        "The test images: the hidden ones when Kaggle runs this again",
        "root, names, sample = kernel_run.test_images(bundle)",
    ),
    (
        "What fits into {hours:g} hours, measured on some of the images: first test-time augmentation is left out, "
        "then fold after fold. It is decided once and applies to all",
        "plan = kernel_run.choose_plan(bundle, root, names, hours={hours:g})",
    ),
    (
        "The submission. An image that cannot be read gets an empty mask, and is named at the end",
        "kernel_run.predict(bundle, plan, root, names, sample)",
    ),
]
TRAIN = [
    (
        "Data, folds table and encoder weights, laid out as at home",
        "from shipping import kernel_training\n\nwords = kernel_training.lay_out(bundle)",
    ),
    (
        "The training, until it is done or the time is over; then the score of its held-out masks",
        'os.environ["MPLCONFIGDIR"] = tempfile.gettempdir()\n'
        "for script in kernel_training.scripts(bundle):\n"
        '    subprocess.run([sys.executable, str(BUNDLE / "source" / script), *words], cwd=WORKING, check=True)\n'
        '    words = [word for word in words if word != "RESUME=1"]',
    ),
    ("The run folder, packed for the way home: make kernel-fetch", "kernel_training.bring_back(bundle)"),
]


def slug(text: str) -> str:
    """Return a name as Kaggle's addresses have it: lower case, digits and hyphens, at most 50 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].strip("-")


def notebook(about: dict[str, Any], cells: list[tuple[str, str]], intro: str) -> str:
    """Return the .ipynb (nbformat 4.5) as text: an introduction, then pairs of a sentence and its code; no magics."""
    find = FIND.replace("{bundle}", about["bundle"]).replace("{dataset}", about["dataset"])
    pages = [
        ("This finds the data set with models and code, wherever Kaggle mounts it", find),
        ("What Kaggle's image lacks comes along as wheels, and is installed without a network", INSTALL),
        ("Every file of it is compared with its checksum", OPEN),
        *((text.format(**about), code.format(**about) if "{hours" in code else code) for text, code in cells),
    ]
    blocks = [_block("markdown", intro, 0)]
    for text, code in pages:
        blocks += [_block("markdown", f"{text}.", len(blocks)), _block("code", code, len(blocks) + 1)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": blocks, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1) + "\n"


def _block(kind: str, text: str, number: int) -> dict[str, Any]:
    block = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
    return block | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def dataset_metadata(about: dict[str, Any]) -> dict[str, Any]:
    """Return dataset-metadata.json, as Kaggle's client documents it."""
    return {"title": about["title"], "id": about["dataset"], "licenses": [{"name": "other"}]}


def kernel_metadata(about: dict[str, Any], code_file: str) -> dict[str, Any]:
    """Return kernel-metadata.json; it switches the internet off explicitly, because the default is on."""
    return {
        "id": about["kernel"],
        "title": about["kernel"].partition("/")[2].replace("-", " "),
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [about["dataset"]],
        "competition_sources": [about["competition"]] if about["competition"] else [],
        "kernel_sources": [],
        "model_sources": [],
    }


def readme(about: dict[str, Any], code_file: str, training: bool) -> str:
    """Return the README: what to type, in which order, and what to expect."""
    owner, lines = about["dataset"].partition("/")[0], []
    if owner == "YOUR-NAME":
        lines.append(
            "Replace YOUR-NAME in both metadata files by your name on Kaggle (or make kernel ... USER=name).\n"
        )
    competition = about["competition"] or "the competition's data"
    after = (
        f"When it has run, bring the run folder home (make tester and make oof count it as any other):\n\n"
        f"    kaggle kernels output {about['kernel']} -p output/kernel/back\n"
        f"    make kernel-fetch ZIP=output/kernel/back/{about['title']}.zip\n"
        if training
        else "When it has run, open it on Kaggle: Submit to Competition. Or, where the competition takes files:\n\n"
        f"    kaggle kernels output {about['kernel']} -p output/kernel/back\n"
        f"    kaggle competitions submit {about['competition'] or 'SLUG'} -f output/kernel/back/submission.csv -m "
        f'"{about["experiment"]}"\n'
    )
    return (
        f"# {about['kernel']}\n\n"
        f"`dataset/` goes to Kaggle as the data set {about['dataset']}; `kernel/{code_file}` is the notebook, which\n"
        f"reads it and {competition}. Its internet is off.\n\n"
        "Before: make kernel-rehearsal runs exactly this here, without a network.\n\n"
        + "".join(f"{line}\n" for line in lines)
        + "The first time (-r zip keeps its folders; Kaggle unpacks them):\n\n"
        "    kaggle datasets create -r zip -p output/kernel/dataset\n"
        "    kaggle kernels push -p output/kernel/kernel --accelerator NvidiaTeslaT4\n\n"
        "Later:\n\n"
        '    kaggle datasets version -r zip -p output/kernel/dataset -m "again"\n'
        "    kaggle kernels push -p output/kernel/kernel --accelerator NvidiaTeslaT4\n\n"
        "Or both by make kernel-push. A new version of a data set needs a minute or two before a kernel sees it.\n\n"
        + after
    )

"""A model card: what a shipped network is, its scores on images that it never saw, and how to use it with smp.

Each number is named for what it is; a number that is not of these weights is left out.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import splits
from data.dataspec import DataSpec
from metrics import measures
from prediction import postprocess
from prediction.postprocess import Rule
from scoring import blind_baseline, out_of_fold
from shipping import onnx_example
from tools import run_folders
from tools.errors import UserError
from tools.files import read_json
from training import weights_origin

SUMMARY = "summary.json"
_NEED = {"score": dict, "images": int, "groups": int, "metric": str, "rules": list, "tta": str, "empty_policy": str}
_EMPTY = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out of the mean"}


@dataclass(frozen=True)
class Evidence:
    """The summaries that tester wrote, of this run's val/ and of all folds together; None where there is none.

    `held_out`: how many images the run's fold holds out, 0 for none. `origin`: of the weights that it began with, in
    words.
    """

    fold: dict[str, Any] | None
    all_folds: dict[str, Any] | None
    held_out: int
    origin: str


def gather(run: Path, about: dict[str, Any]) -> Evidence:
    """Return the scores of the model in `run`. Raises UserError where they are scores of another model."""
    held_out = 0
    if about["fold"] != "full" and not about.get("overfit"):
        table = splits.read(run / run_folders.FOLDS, "Train this fold again: make train ... OVERWRITE=1")
        held_out = int((table["kfold"].astype(str) == about["fold"]).sum())
    origin = str(weights_origin.began(about, str(run.parents[1])))
    return Evidence(_of_fold(run, about), _of_all_folds(run, about), held_out, origin)


def _of_fold(run: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    folder, again = run / out_of_fold.VALIDATION, f"Score it again: make tester FOLD={about['fold']}"
    if not (folder / SUMMARY).is_file():
        return None
    makers = {maker["weights_sha256"] for maker in run_folders.read_manifest(folder, again)["models"]}
    if makers != {about["weights_sha256"]}:
        raise UserError(f"{folder} holds the scores of another model than {run} has now. {again}")
    return read_json(folder / SUMMARY, again, _NEED)


def _of_all_folds(run: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return out-of-fold scores. Raises UserError where the experiment's folds are no longer the scored ones."""
    path, again = run.parent / f"oof_seed{about['seed']}" / SUMMARY, "Score all folds again: make oof"
    if about.get("overfit") or not path.is_file():
        return None
    summary = read_json(path, again, {**_NEED, "provenance": dict})
    there = {
        run_folders.read_model(model.parent)["weights_sha256"] for model in run.parent.glob(f"*/{run_folders.MODEL}")
    }
    scored = set(summary["provenance"].get("models", []))
    own = about["fold"] == "full" or about["weights_sha256"] in scored
    if not scored or not scored <= there or not own or summary["provenance"]["folds_sha256"] != about["folds_sha256"]:
        raise UserError(f"{path} is of other models than {run.parent} has now. {again}")
    return summary


def _kind(evidence: Evidence, about: dict[str, Any]) -> str:
    """Return in a sentence which images the run's own scores are of."""
    if about.get("overfit"):
        return "Images that it was trained on, to learn them by heart (OVERFIT): this says nothing about new images"
    if "chosen on this fold" in about["weights"]:
        return (
            f"Held-out images of fold {about['fold']}; the epoch was chosen on these very images (CHECKPOINT=best), "
            "so the number is too good"
        )
    part = ""
    if evidence.fold and evidence.fold["images"] < evidence.held_out:
        part = f" (only {evidence.fold['images']} of the fold's {evidence.held_out})"
    held_out = f"Held-out images of fold {about['fold']}"
    if weights_origin.UNSURE in evidence.origin:
        return f"{held_out}, which this training never saw; the weights that it began with may have{part}"
    return f"{held_out}, which these weights never saw{part}"


def _row(what: str, summary: dict[str, Any]) -> str:
    score = summary["score"]
    interval = f"{_number(score['low'])} to {_number(score['high'])}"
    figures = [_number(score["model"]), interval, _number(score["constant"]), _number(score["ceiling"])]
    return f"| {what} | {summary['images']} in {summary['groups']} groups | {' | '.join(figures)} |"


def _number(value: float | None) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) and math.isfinite(value) else "not defined"


def scores(evidence: Evidence, about: dict[str, Any]) -> str:
    """Return the section on scores, in Markdown; without any scores it says so."""
    rows = [(_kind(evidence, about), evidence.fold)] if evidence.fold else []
    if evidence.all_folds:
        chosen = "; epochs chosen on the fold that is scored" if "chosen" in evidence.all_folds["weights"] else ""
        said = f"Out of fold: each image by the fold's network that never saw it{chosen}"
        if about["fold"] == "full":
            said += ". Other networks than this one, trained alike on fewer images"
        rows.append((said, evidence.all_folds))
    lines = []
    if about["fold"] == "full" and not about.get("overfit"):
        lines.append(
            "These weights were trained on every image: none is left to score them on, and no number is theirs.\n"
        )
    elif not evidence.fold:
        lines.append("These weights were not scored: there is no number for them.\n")
    if rows:
        measure = measures.get(rows[0][1]["metric"])
        name = f"{measure.name} ({measure.unit or '0 to 1'}{'' if measure.higher else ', less is better'})"
        lines += [
            f"| scored on | images | {name} | 95% interval | a constant mask | ceiling of the size |",
            "|---|---|---|---|---|---|",
            *(_row(said, summary) for said, summary in rows),
            "",
            *_classes(rows[0][1]),
            *_no_better(rows),
            _conditions(rows[0][1]),
        ]
    return "\n".join(lines)


def _classes(summary: dict[str, Any]) -> list[str]:
    by_class = summary["score"].get("classes", {})
    if len(by_class) < 2:
        return []
    parts = [f"{name} {_number(value)}" for name, (value, *_) in by_class.items()]
    return [f"The mean over the classes; each of the first line: {', '.join(parts)}.", ""]


def _no_better(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return, for each line, the sentence that it, or a class in it, is no better than a constant mask."""
    said = [blind_baseline.said(summary["score"], measures.get(summary["metric"]).higher) for _, summary in rows]
    which = [f"Line {at}: " * (len(rows) > 1) + text for at, text in enumerate(said, start=1) if text]
    return [line for text in which for line in (text, "")]


def _conditions(summary: dict[str, Any]) -> str:
    rules = list(dict.fromkeys(postprocess.from_json(rule, SUMMARY) for rule in summary["rules"]))
    more = [] if summary["tta"] == "none" else [f"test-time augmentation ({summary['tta']})"]
    if any(rule != Rule(threshold=rule.threshold) for rule in rules):
        more.append("what the rule says of objects")
    absent = f" Not in the lines below: {' and '.join(more)}." if more else ""
    return (
        f"At the masks' original size; {' / '.join(map(str, rules))}; an empty prediction on an empty mask "
        f"{_EMPTY.get(summary['empty_policy'], summary['empty_policy'])}.{absent} The interval is for other groups of "
        "images and the same network. The constant mask ignores the image: it is the training images' best by this "
        "measure. The ceiling is what the true mask scores after it was shrunk to the network's size and enlarged "
        "again."
    )


def card(name: str, about: dict[str, Any], spec: DataSpec, evidence: Evidence, note: str, padded: bool) -> str:
    """Return README.md of the folder `name`; `note`: the check of its predictions when the folder was written.

    `padded`: the network's frame is larger than IMAGE_SIZE.
    """
    network, settings = about["network"], about.get("settings", {})
    height, width = network["IMAGE_SIZE"]
    architecture = network["MODEL_NAME"]
    title = f"{about['experiment']}, fold {about['fold']}, seed {about['seed']}"
    return f"""---
library_name: segmentation-models-pytorch
pipeline_tag: image-segmentation
# license: yours to choose; the data's and the encoder's weights have theirs
tags:
- segmentation-models-pytorch
- semantic-segmentation
- pytorch
---
# {title}

`{architecture}`, {spec.task}: {", ".join(spec.classes)}. Trained with Maskfold on the data set
`{settings.get("DATASET", "")}` for {about.get("epochs")} epochs from {_start(settings)}
({evidence.origin}); these are the weights of the {about["weights"]}.
It sees images of {height} x {width} px (RESIZE={network["RESIZE"]}), {_images(spec)}.

## Scores

{scores(evidence, about)}

## Use

`pip install segmentation-models-pytorch albumentations pillow`

```python
{usage(name, spec, network, _cuts(spec, evidence, settings), padded)}```

{note}
"""


def _start(settings: dict[str, Any]) -> str:
    """Say what the training began with."""
    whole = f"the whole network of `INIT={settings.get('INIT')}`"
    return whole if settings.get("INIT") else f"encoder weights `{settings.get('ENCODER_WEIGHTS', 'unknown')}`"


def _images(spec: DataSpec) -> str:
    kind = "stacks of slices, a channel each" if spec.stacked else {1: "gray", 3: "RGB"}.get(spec.channels, "")
    bits = f"; 16-bit values from {spec.window[0]:g} to {spec.window[1]:g} become 0 to 255" if spec.bits == 16 else ""
    return f"{spec.channels} channels{f' ({kind})' if kind else ''}, 8 bits each{bits}"


def _cuts(spec: DataSpec, evidence: Evidence, settings: dict[str, Any]) -> list[float]:
    """Return the threshold of each scored class: as it was scored, or THRESHOLD of the training's settings."""
    summary = evidence.fold or evidence.all_folds
    if summary:
        return [float(rule["threshold"]) for rule in summary["rules"]]
    return [float(settings.get("THRESHOLD", 0.5))] * len(spec.scored)


def usage(name: str, spec: DataSpec, network: dict[str, Any], cuts: list[float], padded: bool) -> str:
    """Return the lines of Python that make a mask with smp, albumentations and Pillow alone.

    `padded`: the network's frame is larger than IMAGE_SIZE.
    """
    height, width = network["IMAGE_SIZE"]
    inside = {
        "stretch": f"p = p[:, :, :{height}, :{width}]\n" if padded else "",
        "none": "p = p[:, :, : image.shape[0], : image.shape[1]]\n",
        "fit": (
            f"scale = min({height} / image.shape[0], {width} / image.shape[1])\n"
            "h, w = (max(1, round(side * scale)) for side in image.shape[:2])\n"
            f"top, left = ({height} - h) // 2, ({width} - w) // 2\n"
            "p = p[:, :, top : top + h, left : left + w]  # without what was padded\n"
        ),
    }[network["RESIZE"]]
    each = ", ".join(f"{cut:g}" for cut in cuts)
    threshold = f"{cuts[0]:g}" if len(set(cuts)) == 1 else f"torch.tensor([{each}])[:, None, None]"
    scored = list(spec.scored)
    multiclass = spec.task == "multiclass"
    activation = "softmax(1)" if multiclass else "sigmoid()"
    mask = "p.argmax(0)  # (H, W)" if multiclass else f"p[{scored}] >= {threshold}  # (classes, H, W)"
    pictures = '["slice_0.png", "slice_1.png"]  # all of them' if spec.stacked else '["image.png"]'
    reading = onnx_example.reading(spec)
    return f"""import albumentations as A
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image{", ImageOps" if "ImageOps" in reading else ""}

folder, paths = "{name}", {pictures}
model, transform = smp.from_pretrained(folder), A.Compose.from_pretrained(folder)
{reading}with torch.inference_mode():
    p = model(transform(image=image)["image"][None]).{activation}
{inside}p = torch.nn.functional.interpolate(p, image.shape[:2], mode="bilinear")[0]  # (classes, H, W) as the image
mask = {mask}
"""

"""How sure the sources of pseudo-labels are of each test image, and the labels of those that are sure enough."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.dataspec import DataSpec
from formats import images
from prediction import postprocess, prediction_folders
from prediction.postprocess import Rule
from scoring import pseudo_labels
from scoring.label_sources import Source
from tools import console, run_folders, threads
from tools.errors import UserError
from tools.files import write_json

SHOWN = 6  # kept and rejected images in the picture


@dataclass(frozen=True)
class Judged:
    """One test image as one source predicted it: confidence in [0, 1], share of foreground in its mask."""

    source: Source
    image: str
    confidence: float
    area: float


@dataclass(frozen=True)
class Labeling:
    """How images become labels: their folder, what pixels mean, the rule of each scored class, the least confidence."""

    root: Path  # of the test images
    spec: DataSpec
    rules: tuple[Rule, ...]
    least: float

    def label(self, judged: Judged) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities (C, H, W) of an image and its pseudo-label (K, H, W)."""
        p8 = prediction_folders.read_maps(judged.source.folder, judged.image, self.spec)
        masks = postprocess.to_masks(p8, self.spec.task, self.spec.scored, self.rules)
        return p8, pseudo_labels.labels(p8, self.spec, masks, self.least)

    def judge(self, source: Source, names: list[str]) -> list[Judged]:
        """Return how sure a source is of each image."""

        def judged(name: str) -> Judged:
            p8 = prediction_folders.read_maps(source.folder, name, self.spec)
            masks = postprocess.to_masks(p8, self.spec.task, self.spec.scored, self.rules)
            sure = pseudo_labels.confidence(p8, self.spec, self.rules)
            return Judged(source, name, sure, float(masks.any(0).mean()))

        with threads.pool() as pool:
            return list(console.track(pool.map(judged, names), len(names), f"judging fold {source.fold}"))

    def summary(self, judged: list[Judged]) -> dict[str, Any]:
        """Return one source's line: images, how many are confident, their mean foreground, confidences' quartiles."""
        kept = [one for one in judged if one.confidence >= self.least]
        quartiles = np.quantile([one.confidence for one in judged], [0, 0.25, 0.5, 0.75, 1])
        area = f"{np.mean([one.area for one in kept]):.2%}" if kept else "-"
        values = [float(value) for value in quartiles]
        return {"for fold": judged[0].source.fold, "test images": len(judged), "confident": len(kept),
                "foreground": area,
                **dict(zip(("lowest", "25%", "median", "75%", "highest"), values, strict=True))}  # fmt: skip


def refuse_none(kept: list[Judged], judged: list[Judged], least: float) -> None:
    """Raise UserError where no image is confident."""
    if not kept:
        best = max(judged, key=lambda one: one.confidence)
        raise UserError(
            f"No test image reaches CONFIDENCE={least:g}: the highest is {best.confidence:.4f}, {best.image} by fold "
            f"{best.source.fold}. Nothing was written; a lower CONFIDENCE keeps more, and more that is wrong."
        )


def write_masks(place: Path, kept: list[Judged], how: Labeling, manifest: dict[str, Any]) -> list[str]:
    """Write the kept masks below `place`, all or none of them; return their references below it."""

    with prediction_folders.atomic_folder(place) as partial:

        def write(judged: Judged) -> str:
            _, mask = how.label(judged)
            size = images.read_size(how.root / judged.image, 10**10)
            if mask.shape[1:] != tuple(size):
                raise UserError(
                    f"{judged.image} has {size[1]} x {size[0]} pixels by now, and was predicted with {mask.shape[2]} x "
                    f"{mask.shape[1]}. Predict again: make inference FOLD={judged.source.fold}"
                )
            return pseudo_labels.write(partial, f"fold{judged.source.fold}", judged.image, mask, how.spec)

        with threads.pool() as pool:
            references = list(console.track(pool.map(write, kept), len(kept), "writing masks"))
        write_json(partial / run_folders.MANIFEST, manifest)
    return references


def spread(judged: list[Judged]) -> list[Judged]:
    """Return a few of them, evenly over their confidences, the surest first."""
    ordered = sorted(judged, key=lambda one: -one.confidence)
    return [ordered[at] for at in sorted({round(part * (len(ordered) - 1) / (SHOWN - 1)) for part in range(SHOWN)})]


def draw(path: Path, kept: list[Judged], rejected: list[Judged], how: Labeling, max_pixels: int) -> None:
    """Draw the contact sheet of some kept and some rejected images: image, probability, label."""
    from tools import pictures

    lines, spec = [], how.spec
    for word, part in (("kept", kept), ("rejected", rejected)):
        for judged in spread(part) if part else []:
            p8, mask = how.label(judged)
            picture = pictures.as_rgb(spec.read_image(how.root / judged.image, max_pixels))
            planes = spec.class_planes(mask).astype(np.uint8)
            caption = f"{word}: {judged.confidence:.4f}, for fold {judged.source.fold}   {Path(judged.image).name}"
            lines.append((caption, [picture, p8[list(spec.scored)].max(0), pictures.overlays(picture, planes)]))
    title = "probability" if len(spec.scored) == 1 else "highest probability of a class"
    note = (
        f"{len(kept)} kept (confidence {how.least:g} and more), {len(rejected)} rejected; "
        "some of each, the surest first"
    )
    titles = ["image", title, "label"]
    pictures.sheet(path, lines, titles, note=note, legend=pictures.legend(spec.scored_names))

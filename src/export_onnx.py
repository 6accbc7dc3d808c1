"""make onnx: one ONNX file of a fold's network, or of the mean of several, checked against torch on real images.

Writes output/<dataset>/onnx/<experiment>_fold<k>_seed<s>.onnx and, beside it, ..._example.py: a few lines that use it
with numpy, Pillow and onnxruntime alone. Without FOLD: the mean of every finished fold.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import console
import dataspec
import inference
import layouts
import postprocess
import predictions
import rules
import runs
import settings as settings_module
import splits
from dataspec import DataSpec
from errors import UserError, command
from postprocess import Rule

FLAGS = {"FOLD": "0, or 0,1,2, or full; without it every finished fold"}
CHECKED = 6  # real images that the file is compared on


@dataclass
class Agreement:
    """How the file's answers compare with torch's: the largest difference of a probability, and of the masks' pixels.

    `near`: pixels that differ and lie within the tolerance of the rule's cut; `elsewhere`: the others that differ.
    """

    largest: float = 0.0
    pixels: int = 0
    near: int = 0
    elsewhere: int = 0

    def __str__(self) -> str:
        if not self.near + self.elsewhere:
            return f"largest difference of a probability {self.largest:.1e}; all masks equal"
        return (
            f"largest difference of a probability {self.largest:.1e}; of {self.pixels} mask pixels {self.near} differ "
            f"whose probability lies that near the threshold, and {self.elsewhere} others"
        )


def real_images(settings: Any, spec: DataSpec, most: int = CHECKED) -> list[Path]:
    """A few of the test images, or of the training images where there are none. Raises UserError."""
    try:
        _, files = layouts.test_images(settings.INPUT, settings.TEST_PATH, spec.stacked)
    except UserError:
        if settings.TEST_PATH:
            raise
        files = [Path(settings.INPUT, image) for image in splits.read(Path(settings.TRAIN_FOLDS))["image"]]
    return predictions.spread(files, most)


def _near_cut(probabilities: Any, spec: DataSpec, to_mask: tuple[Rule, ...], tolerance: float) -> Any:
    """bool (S, H, W): where a difference of `tolerance` may change the pixel, p8's rounding included."""
    import numpy as np

    if spec.task == "multiclass":
        second, best = np.sort(probabilities, axis=0)[-2:]
        return np.broadcast_to(best - second <= tolerance + 1 / 255, (len(spec.scored), *best.shape))
    cuts = np.array([(postprocess.level(rule.threshold) - 0.5) / 255 for rule in to_mask])
    return abs(probabilities[list(spec.scored)] - cuts[:, None, None]) <= tolerance


def compare(session: Any, predictor: Any, paths: list[Path], to_mask: tuple[Rule, ...], max_pixels: int) -> Agreement:
    """The file against the predictor, from the image's file to the mask at its original size."""
    import numpy as np

    import images
    import onnx_file

    spec, model, agreement = predictor.spec, predictor.models[0], Agreement()
    answers = console.track(predictor.predict(paths, max_pixels), len(paths), "comparing")
    for path, expected in answers:
        try:
            _, (frame,) = spec.read_frames(path, predictor.frames, max_pixels)
            answer = onnx_file.ask(session, frame[None])[0]
        except Exception as error:  # onnxruntime raises classes of its own
            raise UserError(f"{path}: onnxruntime fails on it ({' '.join(str(error).split())[:200]}).") from error
        found = [images.from_network(plane, expected.shape[1:], model.size, model.resize) for plane in answer]
        found = np.stack(found)
        agreement.largest = float(np.maximum(agreement.largest, np.abs(found - expected).max()))  # NaN stays NaN
        masks = [
            postprocess.to_masks(postprocess.to_p8(part), spec.task, spec.scored, to_mask) for part in (found, expected)
        ]
        differ = masks[0] != masks[1]
        near = _near_cut(expected, spec, to_mask, onnx_file.TOLERANCE)
        agreement.pixels += differ.size
        agreement.near += int((differ & near).sum())
        agreement.elsewhere += int((differ & ~near).sum())
    return agreement


def _refuse_disagreement(agreement: Agreement, tolerance: float) -> None:
    if not agreement.largest <= tolerance or agreement.elsewhere:
        raise UserError(
            f"The ONNX file does not answer as torch does on real images: {agreement} (tolerance {tolerance:g}). "
            "Nothing was written; make inference goes on working."
        )


def _metadata(
    spec: DataSpec, to_mask: tuple[Rule, ...], about: dict[str, Any], makers: list[dict[str, Any]], way: Any
) -> dict[str, Any]:
    """What a user of the file has to know of it, for its metadata."""
    import torch

    height, width, resize = about["sizes"][0]
    return {
        "task": spec.task,
        "classes": list(spec.classes),
        "scored_classes": list(spec.scored_names),
        "input": "images: uint8 (batch, height, width, channels), 0 to 255; normalisation is inside",
        "output": "probabilities: float32 (batch, classes, height, width)",
        "size": [height, width],
        "any_size": way.any_size,
        "resize": resize,
        "channels": spec.channels,
        "stacked": spec.stacked,
        "window_of_16_bits": list(spec.window) if spec.bits == 16 else None,
        "rules": [rule.as_json() for rule in to_mask],
        "models": [{key: value for key, value in maker.items() if key != "folder"} for maker in makers],
        "written_by": f"Maskfold, torch {torch.__version__}, {way}",
    }


def _load(settings: Any, folders: list[Path]) -> Any:
    """The networks' predictor on the CPU. Raises UserError where one file cannot hold what scoring asked of them."""
    import predictor

    found = predictor.Predictor([predictor.load(folder) for folder in folders], batch_size=1, tta=settings.TTA)
    if found.tta != "none":
        raise UserError(f"TTA={settings.TTA}: the file holds the networks alone, asked once an image. Say TTA=none.")
    if len({(model.size, model.resize) for model in found.models}) > 1:
        raise UserError(f"These models see images of different sizes: {', '.join(map(str, folders))}. Name one FOLD.")
    return found


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    folds = inference.chosen_folds(settings, flags.FOLD)
    folders = [runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    data = runs.read_model(folders[0])["data"]
    paths = real_images(settings, dataspec.from_json(data, str(folders[0] / runs.MODEL)))
    import onnx_example
    import onnx_file

    onnx_file.packages()
    predictor = _load(settings, folders)
    import predictor as predictor_module

    spec, makers, about = predictor.spec, predictor_module.describe(predictor.models), predictor.about()
    to_mask = rules.chosen(settings, spec, predictions.provenance(makers, about))
    name = f"{settings.EXPERIMENT}_fold{'-'.join(folds)}_seed{settings.SEED}"
    path = Path(settings.OUTPUT, "onnx", f"{name}.onnx")
    of = str(folders[0]) if len(folders) == 1 else f"the mean of {len(folders)} models"
    print(f"Writing {of} as ONNX, and asking onnxruntime and torch the same", flush=True)
    with runs.replacing(path) as temporary:
        first = spec.read_image(paths[0], settings.MAX_PIXELS)
        way = onnx_file.write(temporary, predictor.models, first)
        onnx_file.describe(temporary, _metadata(spec, to_mask, about, makers, way))
        agreement = compare(onnx_file.open_session(temporary), predictor, paths, to_mask, settings.MAX_PIXELS)
        _refuse_disagreement(agreement, onnx_file.TOLERANCE)
    model = predictor.models[0]
    size = first.shape[:2] if model.resize == "none" else model.size
    example = path.with_name(f"{name}_example.py")
    source = onnx_example.text(path.name, spec, to_mask, size=size, resize=model.resize, any_size=way.any_size)
    runs.write_text(example, source)
    _report(path, example, paths, agreement, way, size)


def _report(path: Path, example: Path, paths: list[Path], agreement: Agreement, way: Any, size: Any) -> None:
    sizes = "images of any size" if way.any_size else f"images of {size[0]} x {size[1]} px only"
    print(
        f"{len(paths)} images such as {paths[0]}, onnxruntime against torch: {agreement}\n"
        f"Batches of any number, {sizes}{'' if way.any_size else ' (this architecture was not proven at others)'}\n"
        f"{path.stat().st_size / 1e6:.1f} MB -> {path}\n"
        f"How to use it without this repository -> {example}"
    )
    if "{z}" not in paths[0].name:
        print(f"Next: python {console.quoted(str(example))} {console.quoted(str(paths[0]))} mask.png")


if __name__ == "__main__":
    sys.exit(main())

"""The check that an ONNX file gives torch's masks on real images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import images_to_predict, splits
from data.dataspec import DataSpec
from prediction import postprocess, prediction_folders
from prediction.postprocess import Rule
from tools import console
from tools.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

    from prediction.predictor import Predictor
    from settings import Settings
    from shipping.onnx_file import Way

CHECKED = 6  # real images that the file is compared on


@dataclass
class Agreement:
    """The agreement of the file with torch: the largest difference of a probability, and the pixels that differ.

    `pixels`: of all masks. `near`: pixels that differ and lie within the tolerance of the rule's threshold;
    `elsewhere`: the others that differ.
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


def real_images(settings: "Settings", spec: DataSpec, most: int = CHECKED) -> list[Path]:
    """Return a few of the test images, or of the training images where there are none. Raises UserError."""
    try:
        _, files = images_to_predict.test_images(settings.INPUT, settings.TEST_PATH, spec.stacked)
    except UserError:
        if settings.TEST_PATH:
            raise
        files = [Path(settings.INPUT, image) for image in splits.read(Path(settings.TRAIN_FOLDS))["image"]]
    return prediction_folders.spread(files, most)


def _near_cut(probabilities: "np.ndarray", spec: DataSpec, rules: tuple[Rule, ...], tolerance: float) -> "np.ndarray":
    """Return bool (S, H, W): pixels that a difference of `tolerance` may change, rounding to 8 bits included."""
    import numpy as np

    if spec.task == "multiclass":
        second, best = np.sort(probabilities, axis=0)[-2:]
        return np.broadcast_to(best - second <= tolerance + 1 / 255, (len(spec.scored), *best.shape))
    cuts = np.array([(postprocess.level(rule.threshold) - 0.5) / 255 for rule in rules])
    return abs(probabilities[list(spec.scored)] - cuts[:, None, None]) <= tolerance


def compare(
    session: "onnxruntime.InferenceSession",
    predictor: "Predictor",
    paths: list[Path],
    rules: tuple[Rule, ...],
    max_pixels: int,
) -> Agreement:
    """Return how the file and the predictor agree, from the image's file to the mask at its original size."""
    import numpy as np

    from formats.resize import from_network
    from shipping import onnx_file

    spec, model, agreement = predictor.spec, predictor.models[0], Agreement()
    answers = console.track(predictor.predict(paths, max_pixels), len(paths), "comparing")
    for path, expected in answers:
        try:
            _, (frame,) = spec.read_frames(path, predictor.frames, max_pixels)
            answer = onnx_file.ask(session, frame[None])[0]
        except Exception as error:  # onnxruntime has exceptions of its own
            raise UserError(f"{path}: onnxruntime fails on it ({' '.join(str(error).split())[:200]}).") from error
        found = np.stack([from_network(plane, expected.shape[1:], model.size, model.resize) for plane in answer])
        agreement.largest = float(np.maximum(agreement.largest, np.abs(found - expected).max()))  # NaN stays NaN
        masks = [
            postprocess.to_masks(postprocess.to_p8(part), spec.task, spec.scored, rules) for part in (found, expected)
        ]
        differ = masks[0] != masks[1]
        near = _near_cut(expected, spec, rules, onnx_file.TOLERANCE)
        agreement.pixels += differ.size
        agreement.near += int((differ & near).sum())
        agreement.elsewhere += int((differ & ~near).sum())
    return agreement


def refuse_disagreement(agreement: Agreement, tolerance: float) -> None:
    if not agreement.largest <= tolerance or agreement.elsewhere:
        raise UserError(
            f"The ONNX file does not answer as torch does on real images: {agreement} (tolerance {tolerance:g}). "
            "Nothing was written; make inference goes on working."
        )


def metadata_of(
    spec: DataSpec, rules: tuple[Rule, ...], about: dict[str, Any], makers: list[dict[str, Any]], way: "Way"
) -> dict[str, Any]:
    """Return what a user of the file must know about it, as its metadata."""
    import torch

    height, width, resize = about["sizes"][0]
    return {
        "task": spec.task,
        "classes": list(spec.classes),
        "scored_classes": list(spec.scored_names),
        "input": "images: uint8 (batch, height, width, channels), 0 to 255; normalization is inside",
        "output": "probabilities: float32 (batch, classes, height, width)",
        "size": [height, width],
        "any_size": way.any_size,
        "resize": resize,
        "channels": spec.channels,
        "stacked": spec.stacked,
        "window_of_16_bits": list(spec.window) if spec.bits == 16 else None,
        "rules": [rule.as_json() for rule in rules],
        "models": [{key: value for key, value in maker.items() if key != "folder"} for maker in makers],
        "written_by": f"Maskfold, torch {torch.__version__}, {way}",
    }


def load_session(settings: "Settings", folders: list[Path]) -> Any:
    """Return the networks' predictor on the CPU. Raises UserError where one file cannot hold what scoring needs."""
    from prediction import predictor, shipped_model

    found = predictor.Predictor([shipped_model.load(folder) for folder in folders], batch_size=1, tta=settings.TTA)
    if found.tta != "none":
        raise UserError(f"TTA={settings.TTA}: the file holds the networks alone, asked once an image. Say TTA=none.")
    if len({(model.size, model.resize) for model in found.models}) > 1:
        raise UserError(f"These models see images of different sizes: {', '.join(map(str, folders))}. Name one FOLD.")
    return found

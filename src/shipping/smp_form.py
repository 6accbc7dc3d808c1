"""A fold in the format of segmentation_models_pytorch, and how much its resizing differs from the training's."""

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats import resize as frame_resize
from tools.errors import UserError

if TYPE_CHECKING:
    import albumentations as A

    from prediction.shipped_model import Model
    from shipping.model_card import Evidence

CHECKED = 3  # real images that the loaded network is compared on
TOLERANCE = 1e-4  # of a logit, as a share of the largest
LEVELS = 2.0  # of 255, the largest mean error allowed of a frame made by albumentations


def refuse_foreign(folder: Path, overwrite: bool) -> None:
    """Raise UserError where the folder exists: its card may have been edited, or it is not ours."""
    if not folder.exists():
        return
    if not overwrite:
        raise UserError(f"{folder} is there already, and its README.md may be edited. OVERWRITE=1 replaces it.")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json, so it is not ours to replace. Move it away first.")


def resizing(model: "Model", pictures: list[Any], frames: list[Any]) -> tuple[list[Any], float]:
    """Return albumentations' steps from uint8 (H, W, channels) to the network's frame, and their mean error.

    The steps are those that come nearest to the `frames` that training made of `pictures`; the error is the mean
    absolute difference of a byte, in levels of 255. Raises UserError where every choice of steps is far off.
    """
    ways = _resizes(model.size, model.resize, {picture.shape[:2] for picture in pictures})
    offs = [_mean_difference(_compose(way), pictures, frames) for way in ways]
    off = min(offs)
    if not off <= LEVELS:
        raise UserError(
            f"albumentations does not bring these images to {model.size[0]} x {model.size[1]} px "
            f"(RESIZE={model.resize}) as training did, so others could not use the folder: they are {off:.1f} of 255 "
            f"levels apart, at most {LEVELS:g} expected. make onnx writes a file and an example that do."
        )
    return ways[offs.index(off)], off


def _mean_difference(steps: "A.Compose", pictures: list[Any], frames: list[Any]) -> float:
    """Return the mean absolute difference of a byte over all `frames`; infinite where the shapes differ."""
    import numpy as np

    made = [steps(image=picture)["image"] for picture in pictures]
    if any(one.shape != frame.shape for one, frame in zip(made, frames, strict=True)):
        return float("inf")
    return float(np.mean([np.abs(one.astype(int) - frame).mean() for one, frame in zip(made, frames, strict=True)]))


def _compose(steps: list[Any]) -> Any:
    import albumentations

    return albumentations.Compose(steps)


def _resizes(size: tuple[int, int], resize: str, shapes: set[tuple[int, int]]) -> list[list[Any]]:
    """Return the ways to resize an image to the frame: area where it shrinks, always area, and always bilinear.

    Where all images have one shape, the first way is that of this repository, in its own steps.
    """
    import albumentations as A
    import cv2

    if resize == "none":
        return [[]]
    ways = (
        {"interpolation": cv2.INTER_LINEAR},
        {"interpolation": cv2.INTER_LINEAR, "area_for_downscale": "image"},
        {"interpolation": cv2.INTER_AREA},
    )
    own = []
    if len(shapes) == 1:
        (shape,) = shapes
        inside = frame_resize.content_box(shape, size, resize)[2:]
        own = [A.Resize(*step, interpolation=method) for step, method in frame_resize.resize_steps(shape, inside)]
    if resize == "stretch":
        whole = [[A.Resize(*size, **way)] for way in ways]
    else:
        pad = A.PadIfNeeded(*size, border_mode=cv2.BORDER_REPLICATE)
        whole = [[A.LongestMaxSize(max_size_hw=size, **way), pad] for way in ways]
    return [[*own, *steps] for steps in whole[:1]] + whole if own else whole


def _to_tensor(model: "Model") -> list[Any]:
    """Return the steps to sides that are multiples of what the network takes, normalization, and channels first."""
    import albumentations as A
    import cv2

    down, across = model.network.frames.divisor
    pad = A.PadIfNeeded(
        min_height=None,
        min_width=None,
        pad_height_divisor=down,
        pad_width_divisor=across,
        position="top_left",
        border_mode=cv2.BORDER_REPLICATE,
    )
    mean, std = (getattr(model.network, name).flatten().tolist() for name in ("mean", "std"))
    whole = model.resize != "none" and model.network.frames.padded(model.size) == tuple(model.size)
    return [*([] if whole else [pad]), A.Normalize(mean=mean, std=std, max_pixel_value=255.0), A.ToTensorV2()]


def difference(folder: Path, model: "Model", pictures: list[Any], resize: "A.Compose") -> float:
    """Return the largest difference of a logit between the folder, loaded as a user would, and our network.

    It is a share of the frame's largest logit where that is above 1; `resize` makes the frame, as `resizing` chose it.
    """
    import albumentations as A
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch

    with contextlib.redirect_stdout(io.StringIO()):  # the hub's client prints where it loads from
        network, prepare = smp.from_pretrained(str(folder)), A.Compose.from_pretrained(str(folder))
    offs = []
    for picture in pictures:
        frame = resize(image=picture)["image"]
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            expected = model.network(x)
            found = network(prepare(image=picture)["image"][None])[..., : frame.shape[0], : frame.shape[1]]
        offs.append(float((found - expected).abs().max()) / max(1.0, float(expected.abs().max())))
    return float(np.max(offs))  # NaN stays NaN


def save(folder: Path, model: "Model", pictures: list[Any], frames: list[Any], evidence: "Evidence") -> float:
    """Write the folder whole or not at all; return `difference`. Raises UserError if smp loads another network."""
    from shipping import model_card

    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        steps, levels = resizing(model, pictures, frames)
        prepare = _compose([*steps, *_to_tensor(model)])
        try:
            body: Any = model.network.body  # smp's network, with the hub's methods
            body.save_pretrained(partial)
            shutil.copymode(partial / "config.json", partial / "model.safetensors")  # the client's is only its owner's
            prepare.save_pretrained(partial)
            off = difference(partial, model, pictures, _compose(steps))
        except Exception as error:  # smp, the hub's client and albumentations raise anything
            reason = " ".join(str(error).split())[:200]
            name = model.about["network"]["MODEL_NAME"]
            raise UserError(f"smp cannot save {name} and load it back ({type(error).__name__}: {reason}).") from error
        if not off <= TOLERANCE:
            raise UserError(
                f"Loaded back by smp, the network differs by {off:.1e} of its largest logit on real images (tolerance "
                f"{TOLERANCE:g}). Nothing was written; make onnx has its own check."
            )
        note = (
            f"Loaded back and compared on {len(pictures)} images when it was written: logits within {off:.0e} of the "
            "largest."
        )
        if levels:
            note += f" Albumentations' resizing is {levels:.2f} of 255 levels off that of the training, on average."
        padded = model.network.frames.padded(model.size) != tuple(model.size)
        card = model_card.card(folder.name, model.about, model.spec, evidence, note, padded)
        (partial / "README.md").write_text(card, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return off

"""CPU augmentation (albumentations 2.0.8, the last MIT release), behind one function so that it can be replaced.

STRENGTHS holds every pipeline's steps; device_augmentations reads the same table. albumentations keeps random
generators of its own that ignore every global seed and repeat themselves in forked workers; each call here therefore
sets them from the sample's key.
"""

import math
import os
import random
from typing import Any, NamedTuple

import numpy as np

from tools.errors import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks PyPI at import otherwise

_COLOR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "p": 0.5}
_MIRRORED = {"horizontal": {"p": 0.5}, "vertical": {"p": 0.5}}
_AFFINE = {"scale": (0.9, 1.1), "keep_aspect": True, "rotate": 15.0, "shift": 0.0625, "p": 0.5}
_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "saturation": {"saturation": 0.3, "hue": 0.05, "p": 0.5},
    "light": {"clahe": (1.0, 4.0), "brightness": 0.2, "contrast": 0.2, "p": 0.5},
    "blur": {"sigma": (0.5, 1.5), "p": 0.2},
    "noise": {"std": (0.01, 0.04), "p": 0.2},
}

# pipeline -> step -> strength, in the order in which they are applied, geometry first. p: the share of the samples;
# scale: factors, of both axes together where keep_aspect; rotate: degrees to either side; shift: share of the sides;
# elastic's sigma (smoothness) and displacement (root mean square along each axis): shares of the shorter side;
# brightness, contrast, saturation: 0.2 is a factor from 0.8 to 1.2; hue: share of the circle; blur's sigma: pixels;
# noise's std: of images in [0, 1]; area and ratio: of an erased rectangle, as a share of the image, and its sides
STRENGTHS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "flips": _MIRRORED,
    "upright": {
        "horizontal": {"p": 0.5},
        "affine": {"scale": (0.9, 1.1), "keep_aspect": False, "rotate": 7.0, "shift": 0.06, "p": 0.5},
        "color": _COLOR,
    },
    "turns": {
        "symmetry": {},
        "affine": {"scale": (0.8, 1.25), "keep_aspect": False, "rotate": 0.0, "shift": 0.1, "p": 0.7},
        "color": _COLOR,
    },
    "affine": {"horizontal": {"p": 0.5}, "affine": _AFFINE},
    "carvana": {"affine": {**_AFFINE, "p": 0.9}},
    "nails": {**_MIRRORED, "affine": _AFFINE, **_PHOTOGRAPHS},
    "hands": {
        "horizontal": {"p": 0.5},
        "affine": {"scale": (0.8, 1.2), "keep_aspect": True, "rotate": 30.0, "shift": 0.0, "p": 0.5},
        **_PHOTOGRAPHS,
    },
    "strong": {
        "symmetry": {},
        "affine": {"scale": (0.7, 1.4), "keep_aspect": True, "rotate": 30.0, "shift": 0.1, "p": 0.8},
        "elastic": {"sigma": 0.06, "displacement": 0.02, "p": 0.3},
        "color": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05, "p": 0.7},
        "gamma": {"gamma": (0.7, 1.5), "p": 0.3},
        "blur": {"sigma": (0.5, 2.0), "p": 0.2},
        "downscale": {"scale": (0.4, 0.9), "p": 0.2},
        "noise": {"std": (0.01, 0.06), "p": 0.3},
        "erase": {"count": 3, "area": (0.005, 0.04), "ratio": (0.5, 2.0), "p": 0.3},
    },
}
GEOMETRIC = ("horizontal", "vertical", "symmetry", "affine", "elastic")  # the steps that move the mask too


class _Frame(NamedTuple):
    """What of an image decides how its pipeline is built."""

    square: bool
    side: int  # the shorter one, pixels
    channels: int


def strengths(name: str) -> dict[str, dict[str, Any]]:
    """Return the steps of the pipeline of that name (config.AUGMENT). Raises UserError for another name."""
    if name not in STRENGTHS:
        raise UserError(f"AUGMENT={name}: there is no such augmentation; there are: {', '.join(STRENGTHS)}.")
    return STRENGTHS[name]


def elastic_field(strength: dict[str, Any], side: int) -> tuple[float, float]:
    """Return (sigma, alpha) in pixels of an elastic step on an image whose shorter side is `side`.

    The field is noise, uniform in [-1, 1] at each pixel, blurred with sigma and multiplied by alpha (Simard et al.
    2003). The blur leaves 1 / (2 sigma sqrt(3 pi)) of root mean square, which alpha makes the displacement.
    """
    sigma = max(1.0, strength["sigma"] * side)
    return sigma, strength["displacement"] * side * 2 * sigma * math.sqrt(3 * math.pi)


def _geometric(step: str, strength: dict[str, Any], frame: _Frame, labels: bool) -> list:
    """Return the transforms of a step that moves image and mask."""
    import albumentations as A
    import cv2

    # a bilinear mask of 0 and 1 is rounded by cv2: cut at one half, without nearest-neighbor's ragged outlines; the
    # indices of a class map must not be mixed
    interpolation = cv2.INTER_NEAREST if labels else cv2.INTER_LINEAR
    border = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": interpolation}
    if step == "symmetry":  # a quarter turn would swap an oblong image's sides, so those are mirrored only
        return [A.SquareSymmetry(p=1)] if frame.square else [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    p = strength["p"]
    if step == "affine":
        shift, rotate = strength["shift"], strength["rotate"]
        around = {"rotate": (-rotate, rotate), "translate_percent": (-shift, shift)}
        return [A.Affine(scale=strength["scale"], keep_ratio=strength["keep_aspect"], p=p, **around, **border)]
    if step == "elastic":
        sigma, alpha = elastic_field(strength, frame.side)
        return [A.ElasticTransform(alpha=alpha, sigma=sigma, noise_distribution="uniform", p=p, **border)]
    return [{"horizontal": A.HorizontalFlip, "vertical": A.VerticalFlip}[step](p=p)]


def _colors(step: str, strength: dict[str, Any], channels: int) -> list:
    """Return the transforms of a step that changes colors or brightness; hue and saturation are those of RGB."""
    import albumentations as A

    values = {name: value for name, value in strength.items() if name != "p"}
    if step == "saturation":
        return [A.ColorJitter(brightness=(1, 1), contrast=(1, 1), **values, p=strength["p"])] if channels == 3 else []
    if step == "color" and channels == 3:
        return [A.ColorJitter(**values, p=strength["p"])]
    alone = step == "color" or channels not in (1, 3)  # CLAHE is defined for gray and RGB
    levels = A.RandomBrightnessContrast(
        brightness_limit=strength["brightness"], contrast_limit=strength["contrast"], p=strength["p"] if alone else 1
    )
    return [levels] if alone else [A.OneOf([A.CLAHE(clip_limit=strength["clahe"], p=1), levels], p=strength["p"])]


def _texture(step: str, strength: dict[str, Any]) -> list:
    """Return the transforms of a step that changes the image's grain, or hides parts of it, for any channels."""
    import albumentations as A
    import cv2

    p = strength["p"]
    if step == "gamma":
        low, high = strength["gamma"]
        return [A.RandomGamma(gamma_limit=(100 * low, 100 * high), p=p)]  # in per cent
    if step == "blur":
        return [A.GaussianBlur(blur_limit=0, sigma_limit=strength["sigma"], p=p)]
    if step == "downscale":
        # nearest as in nnU-Net: cv2's INTER_AREA takes no more than four channels
        smaller_and_back = {"downscale": cv2.INTER_NEAREST, "upscale": cv2.INTER_LINEAR}
        return [A.Downscale(scale_range=strength["scale"], interpolation_pair=smaller_and_back, p=p)]
    if step == "noise":
        return [A.GaussNoise(std_range=strength["std"], p=p)]
    erase = {"scale": strength["area"], "ratio": strength["ratio"], "fill": 0, "fill_mask": None, "p": p}
    return [A.Erasing(**erase) for _ in range(strength["count"])]  # Zhong et al. 2017; the mask stays


def _transforms(name: str, frame: _Frame, labels: bool) -> list:
    """Return all transforms of a pipeline, in order."""
    transforms = []
    for step, strength in strengths(name).items():
        if step in GEOMETRIC:
            transforms += _geometric(step, strength, frame, labels)
        elif step in ("color", "saturation", "light"):
            transforms += _colors(step, strength, frame.channels)
        else:
            transforms += _texture(step, strength)
    return transforms


class Augmentation:
    """A named pipeline: `(image (H, W, C), mask (K, H, W), key) -> (image, mask)` of equal shapes.

    Masks keep their values; `labels`: they are class indices. Equal keys give equal results, in any process. Built at
    first use, so that it travels to spawned workers as its name.
    """

    def __init__(self, name: str, labels: bool = False) -> None:
        import albumentations  # noqa: F401 (seconds, which forked workers would each spend again)

        self.name, self.labels = name, labels
        self._compose: dict[_Frame, Any] = {}

    def __call__(self, image: np.ndarray, mask: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        height, width, channels = image.shape
        frame = _Frame(height == width, min(height, width), channels)
        if frame not in self._compose:
            import albumentations as A

            self._compose[frame] = A.Compose(_transforms(self.name, frame, self.labels), strict=True)
        compose, sequence = self._compose[frame], np.random.SeedSequence(key)
        compose.set_random_state(np.random.default_rng(sequence), random.Random(int(sequence.generate_state(1)[0])))
        result = compose(image=image, masks=list(mask))
        return result["image"].reshape(image.shape), np.stack(result["masks"])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_compose": {}}


def make(name: str, labels: bool = False) -> Augmentation | None:
    """Return the pipeline of that name (config.AUGMENT), None for "none"; `labels`: masks hold class indices.

    Raises UserError for an unknown name.
    """
    return Augmentation(name, labels) if strengths(name) else None

"""What one image file holds, whatever it is for: its values, upright, and how they make colors or grays."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tools.errors import UserError


@dataclass(frozen=True)
class Samples:
    """What a file holds, upright."""

    path: Path
    values: np.ndarray  # uint8 or uint16 (H, W, n), an alpha last
    kind: str  # gray, rgb, cmyk, palette, or bands: channels that are no picture by themselves
    palette: np.ndarray | None = None  # uint8 (256, 3)
    grays: bool = False  # a palette of nothing but grays, as GIFs have it, which know no other gray
    step: int = 1  # what one unit of the file became here: 255 of 1 bit, 17 of 4 bits
    jpeg: bool = False  # or lossy WebP: values are smeared
    planes: bool = False  # of an array that has several, which of a mask are an object each
    halved: int | None = None  # how often the decoder halved both sides; None of a format that cannot

    def colors(self) -> np.ndarray:
        """Return uint8 or uint16 (H, W, 3): palettes looked up, gray repeated, alpha dropped. UserError for bands."""
        if self.kind == "palette":
            return cv2.applyColorMap(self.values, self._colors()[:, None])
        if self.kind == "gray":
            return cv2.cvtColor(np.ascontiguousarray(self.values[..., 0]), cv2.COLOR_GRAY2RGB)
        if self.kind == "rgb":
            return np.ascontiguousarray(self.values[..., :3])
        if self.kind == "cmyk":  # as Pillow does it: light is what neither the ink nor the black takes away
            top = np.iinfo(self.values.dtype).max
            light = (top - self.values).astype(np.uint32)
            return ((light[..., :3] * light[..., 3:4] + top // 2) // top).astype(self.values.dtype)
        count = self.values.shape[2]
        raise UserError(
            f"{self.path}: has {count} channels, which are not gray or color with a marked alpha; "
            f"of an image, IN_CHANNELS={count} takes them all."
        )

    def gray(self) -> np.ndarray:
        """Return uint8 or uint16 (H, W): the luma of ITU-R 601, as Pillow's "L". UserError for bands."""
        if self.kind == "gray":
            return np.ascontiguousarray(self.values[..., 0])
        if self.kind == "palette":
            return cv2.LUT(self.indices(), self.luma())
        colors = self.colors()
        if colors.dtype == np.uint8:
            return np.array(Image.fromarray(colors).convert("L"))
        luma = colors.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)  # Pillow's weights, of 65536
        return (luma + 32768 >> 16).astype(np.uint16)

    def indices(self) -> np.ndarray:
        """Return uint8 (H, W) of a palette's file."""
        return np.ascontiguousarray(self.values[..., 0])

    def luma(self) -> np.ndarray:
        """Return uint8 (256,): what each index of a palette is in gray."""
        return np.array(Image.fromarray(self._colors()[None]).convert("L"))[0]

    def _colors(self) -> np.ndarray:
        """Return the palette. Raises ValueError for a file without one."""
        if self.palette is None:
            raise ValueError(f"{self.path}: {self.kind}, which has no palette")
        return self.palette

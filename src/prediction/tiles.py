"""Prediction in overlapping tiles, for frames that do not fit into memory, blended so that no seam shows.

A tile's answer is worst at its edges, where the network lacked the surroundings. So an edge inside the frame counts
nothing for the outer quarter of the overlap, then more and more (a raised cosine), and fully from three quarters on;
neighbors at the regular step add up to one. Where the network looks no further than a quarter of the overlap, the
blend equals the whole frame's answer: tiles begin at multiples of 32, so that the network's grids are the same ones.
(nnU-Net, Isensee et al. 2021, weighs by a Gaussian instead, which never leaves the edges out.)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.errors import UserError

STEP = 32  # what most networks' strides divide
MOST_OVERLAP = 0.75


def refuse(tile: int, overlap: float) -> None:
    """Raise UserError for a tile size that is no multiple of 32, and an overlap that is none or too much for it."""
    if tile % STEP or tile < 0:
        raise UserError(f"TILE={tile}: expected 0 (no tiles) or a multiple of {STEP}, such as 512.")
    if not 0 <= overlap <= MOST_OVERLAP:
        raise UserError(f"OVERLAP={overlap:g}: expected a share of the tile from 0 to {MOST_OVERLAP}, such as 0.25.")
    if tile and tile * (1 - overlap) < STEP:
        raise UserError(
            f"TILE={tile} OVERLAP={overlap:g}: tiles would be less than {STEP} pixels apart, and begin at multiples of "
            f"{STEP}. Take a larger TILE, or a smaller OVERLAP."
        )


def _apart(tile: int, overlap: float) -> int:
    """Return the distance from one tile's start to the next one's."""
    return max(STEP, math.floor(tile * (1 - overlap) / STEP) * STEP)


def starts(side: int, tile: int, overlap: float) -> list[int]:
    """Return where the tiles along a side begin: multiples of 32, at most (1 - overlap) of a tile apart, up to its end.

    side: a multiple of 32. The last tile ends with it, and so may overlap more.
    """
    return [0] if side <= tile else [*range(0, side - tile, _apart(tile, overlap)), side - tile]


def weights(start: int, side: int, tile: int, overlap: float) -> Tensor:
    """Return float32 (tile,): how much each line of the tile at `start` counts; 1 everywhere without overlap."""
    shared = tile - _apart(tile, overlap)  # lines that neighbors have in common
    line = torch.ones(tile)
    if shared <= 0:
        return line
    place = (torch.arange(shared) + 0.5) / shared  # of each line within the overlap, 0 to 1
    ramp = 0.5 - 0.5 * torch.cos(math.pi * ((place - 0.25) * 2).clamp(0, 1))
    if start > 0:
        line[:shared] *= ramp
    if start + tile < side:
        line[-shared:] *= ramp.flip(0)
    return line


def predict(
    probabilities: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: float = 0.25, batch: int = 8
) -> Tensor:
    """Ask `probabilities` (uint8 (n, t, u, channels) -> float (n, C, t, u)) about x (N, H, W, channels), tile by tile.

    Returns float32 (N, C, H, W) on the CPU. Sides that are no multiple of 32 are continued by repeating the border, as
    the networks do it by themselves. No more than `batch` tiles are asked for at once.
    """
    count, height, width = x.shape[:3]
    x = _padded(x)
    (tall, wide), size = x.shape[1:3], [min(tile, side) for side in x.shape[1:3]]
    rows, columns = starts(tall, size[0], overlap), starts(wide, size[1], overlap)
    places = [(image, row, column) for image in range(count) for row in rows for column in columns]
    total, weight = torch.empty(0), torch.zeros(tall, wide)
    for first in range(0, len(places), batch):
        part = places[first : first + batch]
        cut = torch.stack([x[image, row : row + size[0], column : column + size[1]] for image, row, column in part])
        for (image, row, column), answer in zip(part, probabilities(cut).float().cpu(), strict=True):
            if not len(total):
                total = torch.zeros(count, answer.shape[0], tall, wide)
            counts = torch.outer(weights(row, tall, size[0], overlap), weights(column, wide, size[1], overlap))
            where = slice(row, row + size[0]), slice(column, column + size[1])
            total[(image, slice(None), *where)] += answer * counts
            if image == 0:
                weight[where] += counts
    return (total / weight)[..., :height, :width]


def _padded(x: Tensor) -> Tensor:
    """Continue the sides of uint8 (N, H, W, channels) to multiples of 32 by the border, below and to the right."""
    below, right = -x.shape[1] % STEP, -x.shape[2] % STEP
    if not below and not right:
        return x
    planes = F.pad(x.permute(0, 3, 1, 2).float(), (0, right, 0, below), mode="replicate")
    return planes.to(x.dtype).permute(0, 2, 3, 1)

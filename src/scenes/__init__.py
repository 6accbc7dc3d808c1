"""Rendered pictures with their true masks, for data sets that need no download: numpy and cv2 only.

All are pure functions of a seed and numbers; each takes some hundredths of a second.
"""

from scenes.aerial import LAND, NOT_LABELLED, land
from scenes.hands import KINDS, nails
from scenes.scans import ORGANS, SLICES, cells, organs
from scenes.screens import screen

__all__ = ["KINDS", "LAND", "NOT_LABELLED", "ORGANS", "SLICES", "cells", "land", "nails", "organs", "screen"]

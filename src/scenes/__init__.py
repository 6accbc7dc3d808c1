"""Rendered pictures with their true masks, for data sets that need no download: numpy and cv2 only.

All are pure functions of a seed and numbers; each takes some hundredths of a second.
"""

__all__ = ["KINDS", "LAND", "NOT_LABELLED", "ORGANS", "SLICES", "cells", "land", "nails", "organs", "screen"]

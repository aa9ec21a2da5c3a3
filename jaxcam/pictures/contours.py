"""Contours: where a heatmap passes a level, as lines with soft edges.

Contract: a heatmap `[H, W]` at the size of the picture comes in, for every pixel the share of it that the line covers
goes out. The distance of a pixel from a level is taken to first order, |h - level| / |∇h|, so that a line has its width
wherever the heat is not flat; where it is, there is none, even at the very level.
"""

import numpy as np
from jaxtyping import Float

LEVELS = ((0.25, 1.0), (0.5, 1.8), (0.75, 1.0))
"""The levels that pictures show, and how wide their lines are, in pixels of a picture with `USUAL` of them."""
USUAL = 448
_FLAT = 1e-6


def line(heat: Float[np.ndarray, "H W"], level: float, width: float) -> Float[np.ndarray, "H W"]:
    """How much of each pixel the line at the level covers, from 0 to 1.

    A band of the width w, whose middle has the distance d from that of the pixel, covers min(1, w, w/2 + 1/2 - d).

    Args:
        heat: in [0, 1].
        level: the heat along the line.
        width: of the line, in pixels.
    """
    slopes = [np.gradient(heat, axis=axis) for axis in (0, 1) if heat.shape[axis] > 1]
    steepness = np.sqrt(sum((slope**2 for slope in slopes), np.zeros_like(heat)))
    distance = np.abs(heat - np.float32(level)) / np.maximum(steepness, _FLAT)
    covered = np.clip(np.float32(width / 2 + 0.5) - distance, 0, min(1, width))
    return np.where(steepness > _FLAT, covered, np.float32(0))

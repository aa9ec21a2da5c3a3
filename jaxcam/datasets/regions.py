"""The pixels of an instance as annotation files give them, drawn when the picture's size is known.

Contract: a region becomes a bool `[H, W]`. A pixel belongs to a polygon if its centre lies inside by the even-odd
rule, and to several polygons if it belongs to any of them.
"""

from typing import NamedTuple

import numpy as np

_MOST_CROSSINGS = 2**22
"""Edges times rows that are looked at together."""


class Polygons(NamedTuple):
    """Outlines: each an array `[n, 2]` of x, y in pixels, the upper left corner of the picture being (0, 0)."""

    outlines: tuple[np.ndarray, ...]


class Runs(NamedTuple):
    """Runs of pixels outside and inside in turns, beginning outside, down the columns from left to right."""

    lengths: np.ndarray


Region = Polygons | Runs


def drawn(region: Region, height: int, width: int) -> np.ndarray:
    """The region's pixels, bool `[height, width]`."""
    if isinstance(region, Runs):
        values = np.arange(len(region.lengths)) % 2 == 1
        return np.repeat(values, region.lengths).reshape(width, height).T
    pixels = np.zeros((height, width), np.bool_)
    for outline in region.outlines:
        pixels |= _polygon(outline, height, width)
    return pixels


def _polygon(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    ends = np.roll(outline, -1, axis=0)
    changes = np.zeros((height, width + 1), np.uint8)  # their number, of which 256 mean nothing: it is even
    step = max(1, _MOST_CROSSINGS // height)
    for i in range(0, len(outline), step):
        _count_changes(changes, outline[i : i + step], ends[i : i + step])
    return np.bitwise_xor.accumulate(changes[:, :width] & 1, axis=1) == 1


def _count_changes(changes: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Adds where these edges change inside into outside, in every row."""
    height, width = changes.shape[0], changes.shape[1] - 1
    middle = np.arange(height) + 0.5
    # Half-open in y, so that a corner at the height of a row of centres is crossed once, not twice.
    crossed = (start[:, 1, None] <= middle) != (end[:, 1, None] <= middle)
    edge, row = np.nonzero(crossed)
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + slope * (middle[row] - start[edge, 1])
    # Right of a crossing the inside and the outside change places, from the first centre x + 0.5 on that is not left.
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    np.add.at(changes, (row, column), 1)

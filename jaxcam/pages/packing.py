"""Numbers as text: what a page can hold without a file beside it.

Contract: the same arrays give the same text, on every machine. Numbers are little-endian.
"""

import base64
from typing import NamedTuple

import numpy as np

__all__ = ["Quantised", "floats", "octets", "quantised"]

_STEPS = 127


class Quantised(NamedTuple):
    """Maps `[m, positions]` in one byte a position: map i is q / 127 · extent[i].

    Each value is within extent[i] / 254 of the true one, and float32's rounding of the extent; 0 and the largest
    magnitude are exact.
    """

    q: np.ndarray
    """int8 `[m, positions]`."""
    extent: np.ndarray
    """float32 `[m]`, the largest magnitude of each."""


def quantised(maps: np.ndarray) -> Quantised:
    """Finite maps `[m, *grid]`, each on a scale of its own."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    extent = np.abs(flat).max(1)
    unit = flat / np.where(extent > 0, extent, 1)[:, np.newaxis]
    return Quantised(np.rint(_STEPS * unit).astype(np.int8), extent.astype(np.float32))


def floats(values: np.ndarray) -> str:
    """float32, in base64."""
    return base64.b64encode(np.asarray(values).astype("<f4").tobytes()).decode("ascii")


def octets(values: np.ndarray) -> str:
    """One byte each, in base64."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")

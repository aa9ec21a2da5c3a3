"""How much of the ball or circle around its middle a figure fills: tells figures apart whatever their turn and size."""

import numpy as np


def compactness(mask: np.ndarray) -> float:
    """Of a mask `[h, w]` or `[d, h, w]`: its size over that of the smallest ball around its centroid that holds it."""
    points = np.argwhere(mask)
    reach = np.sqrt(((points - points.mean(0)) ** 2).sum(1)).max() + 0.5
    return len(points) / ((np.pi if mask.ndim == 2 else 4 / 3 * np.pi * reach) * reach**2)


def by_class(masks, classes, num: int) -> np.ndarray:
    """The medians over all masks `[n, ...]` of each class that do not touch the border."""
    inner = [not any(np.take(mask, [0, -1], axis).any() for axis in range(mask.ndim)) for mask in masks]
    values = np.array([compactness(m) if ok and m.any() else np.nan for m, ok in zip(masks, inner, strict=True)])
    return np.array([np.nanmedian(values[np.asarray(classes) == c]) for c in range(num)])

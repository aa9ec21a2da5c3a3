"""Metrics of a whole data set that are no means of what each picture is worth: MaxBoxAccV2 and PxAP.

MaxBoxAcc takes the threshold that is best for all pictures together, PxAP pools the pixels of all of them. Both are
functions of whole numbers that are added up over the pictures, a tally: a picture has one for each method, and figures,
resamples and paired differences are made from weighted sums of them. Memory does not grow with the number of pictures.
**Source**: Choe et al. 2020, "Evaluating weakly supervised object localization methods right"; its released code adds
up the same, of 1,000 thresholds.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcam.metrics.thresholds import average_precision, best_overlaps, levels

_DELTAS = (0.3, 0.5, 0.7)
_NUM_THRESHOLDS = 100
_NUM_LEVELS = 256


class Tally(NamedTuple):
    """What is counted of a picture, what is added up of that, and what the sums come to."""

    length: int
    terms: Callable[[np.ndarray], np.ndarray]
    """`[n, m, length]` -> `[n, m, c]`."""
    figure: Callable[[np.ndarray], np.ndarray]
    """Sums `[..., c]` -> `[...]`, NaN where nothing is in them."""


def reached(heatmap: Float[np.ndarray, "H W"], boxes: np.ndarray) -> Int[np.ndarray, " t"]:
    """At each threshold of `metrics.max_box_acc`, how many of δ = 0.3, 0.5 and 0.7 the best box reaches."""
    found = best_overlaps(heatmap, np.asarray(boxes, np.float64), _NUM_THRESHOLDS)
    return (found[:, None] >= np.asarray(_DELTAS)).sum(1)


def pixels(heatmap: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, " t"]:
    """How many pixels inside of the mask, and then outside, have each of 256 levels, the highest first."""
    return levels(heatmap, mask, _NUM_LEVELS).reshape(-1)


def _reaching(numbers: np.ndarray) -> np.ndarray:
    """A one for the picture, and whether it reaches each δ at each threshold."""
    each = [numbers > j for j in range(len(_DELTAS))]
    return np.concatenate([np.ones((*numbers.shape[:-1], 1)), *each], -1)


def _max_box_acc(sums: np.ndarray) -> np.ndarray:
    best = sums[..., 1:].reshape(*sums.shape[:-1], len(_DELTAS), -1).max(-1).mean(-1)
    return np.divide(best, sums[..., 0], out=np.full(best.shape, np.nan), where=sums[..., 0] > 0)


def _pxap(sums: np.ndarray) -> np.ndarray:
    return average_precision(sums[..., :_NUM_LEVELS], sums[..., _NUM_LEVELS:])


TALLIES: Mapping[str, Tally] = {
    "max_box_acc": Tally(_NUM_THRESHOLDS, _reaching, _max_box_acc),
    "pxap": Tally(2 * _NUM_LEVELS, lambda numbers: numbers, _pxap),
}
"""By the keys of their columns."""


class Sums:
    """The weighted sums of one tally over all pictures and resamples, for each method and for pairs of methods.

    A pair is compared where both count. What of a method counts alone is kept apart, and taken off the method's sums
    for that pair: whole numbers, so that nothing is rounded. Where all methods count there is nothing to keep.
    """

    def __init__(self, tally: Tally, num_methods: int) -> None:
        """Of no picture yet."""
        self._tally, self._num = tally, num_methods
        self._sums: np.ndarray | float = 0.0
        self._alone: dict[tuple[int, int], np.ndarray] = {}
        self._both = np.zeros((num_methods, num_methods), np.int64)

    def add(self, numbers: Float[np.ndarray, "n m length"], weights: Float[np.ndarray, "r n"]) -> None:
        """Some pictures, with the weights of the data itself and of its resamples; NaN where one does not count."""
        is_known = np.asarray(~np.isnan(numbers).any(-1))
        terms = np.where(is_known[..., None], self._tally.terms(np.where(is_known[..., None], numbers, 0)), 0.0)
        self._sums = self._sums + np.tensordot(weights, terms, 1)
        self._both += is_known.T.astype(np.int64) @ is_known
        for a, b in np.argwhere((is_known[:, :, None] & ~is_known[:, None]).any(0)):
            alone = is_known[:, a] & ~is_known[:, b]
            self._alone[a, b] = self._alone.get((a, b), 0.0) + weights[:, alone] @ terms[alone, a]

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """How many pictures count for each method `[m]`, and for both of each pair (0, 1), (0, 2), ..., (1, 2), ..."""
        return self._both.diagonal(), self._both[np.triu_indices(self._num, 1)]

    @property
    def figures(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the data and its resamples: each method's figure `[r, m]`, and the pairs' differences `[r, p]`."""
        sums = np.asarray(self._sums)
        pairs = list(combinations(range(self._num), 2))

        def of_both(a: int, b: int) -> np.ndarray:
            return self._tally.figure(sums[:, a] - self._alone.get((a, b), 0.0))

        apart = [of_both(a, b) - of_both(b, a) for a, b in pairs]
        return self._tally.figure(sums), np.stack(apart, 1) if apart else np.zeros((len(sums), 0))

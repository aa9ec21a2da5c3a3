"""Totals -> means, paired differences and wins, with their 95 % bootstrap intervals.

Contract: an interval goes from the 2.5 % to the 97.5 % quantile of the resamples (linear between neighbours). A figure
of which nothing counts is NaN; resamples in which nothing counts are left out; without resamples intervals are NaN.
Each interval stands alone: they are not widened for the number of comparisons in a table.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from jaxcam.evaluation.totals import UNIT, Totals, pairs

LEVEL = 0.95


class Interval(NamedTuple):
    """Figures with their intervals, three float64 arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def scaled(self, factor: np.ndarray | float) -> "Interval":
        """All of it times a positive factor."""
        return Interval(*(part * factor for part in self))


def means(totals: Totals) -> Interval:
    """The mean of each metric over the images that count for it, `[m, k]`."""
    return _interval(_ratio(totals.sums, totals.counts, UNIT))


def differences(totals: Totals) -> Interval:
    """The mean difference of two methods over the images that count for both, `[m, m, k]`: row minus column.

    It is paired: a resample has the same images for both, so what makes an image hard for both cancels.
    """
    # 0.0 - x and not -x, which has a negative zero.
    paired = _interval(_ratio(totals.pair_sums, totals.pair_counts, UNIT))
    reverse = (0.0 - part for part in (paired.value, paired.high, paired.low))
    found = Interval(*(matrix(totals, above, below) for above, below in zip(paired, reverse, strict=True)))
    # A method minus itself: exactly zero wherever it has a mean, with an interval where that has one.
    diagonal = np.arange(totals.counts.shape[1])
    for part, own in zip(found, means(totals), strict=True):
        part[diagonal, diagonal] = np.where(np.isnan(own), np.nan, 0.0)
    return found


def wins(totals: Totals) -> Interval:
    """Win %: on what percentage of images the row's method beats the column's, `[m, m]`; NaN on the diagonal.

    Of the images with Y > 0 and finite confidences (`Totals.contests`); a tie is a win of neither.
    """
    losses = totals.contests - totals.wins - totals.ties
    won, lost = (_interval(_ratio(times, totals.contests, 100.0)) for times in (totals.wins, losses))
    return Interval(*(matrix(totals, above, below) for above, below in zip(won, lost, strict=True)))


def ties(totals: Totals) -> Float64[np.ndarray, "m m"]:
    """On what percentage of these images two methods tie; NaN on the diagonal."""
    tied = _ratio(totals.ties[:1], totals.contests[:1], 100.0)[0]
    return matrix(totals, tied, tied)


def matrix(totals: Totals, above: Shaped[np.ndarray, "p *k"], below: Shaped[np.ndarray, "p *k"]) -> np.ndarray:
    """Figures of the pairs as `[m, m, ...]`: those of (a, b) above the diagonal and of (b, a) below it.

    On it is NaN, or zero among integers.
    """
    m = totals.counts.shape[1]
    a, b = pairs(m)
    found = np.full((m, m, *above.shape[1:]), 0 if above.dtype == np.int64 else np.nan, above.dtype)
    found[a, b], found[b, a] = above, below
    return found


def _ratio(
    sums: Int64[np.ndarray, "*shape"], counts: Int64[np.ndarray, "*shape"], unit: float
) -> Float64[np.ndarray, "*shape"]:
    """Sums in a unit / counts; NaN where there are none."""
    ratios = np.full(counts.shape, np.nan)
    np.divide(sums.astype(np.float64) * unit, counts, out=ratios, where=counts > 0)
    return ratios


def _interval(estimates: Float64[np.ndarray, "r *shape"]) -> Interval:
    """Entry 0 and the quantiles of the others."""
    value, resamples = estimates[0], np.sort(estimates[1:], axis=0)  # NaN go last
    valid = np.sum(~np.isnan(resamples), axis=0)
    low, high = (_quantile(resamples, valid, q) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, low, high)


def _quantile(
    ordered: Float64[np.ndarray, "b *shape"], valid: Int64[np.ndarray, "*shape"], q: float
) -> Float64[np.ndarray, "*shape"]:
    """The quantile of the first `valid` entries of each column, linear between those beside (valid - 1) q."""
    if not len(ordered):
        return np.full(valid.shape, np.nan)
    position = np.maximum(valid - 1, 0) * q
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(valid - 1, 0))
    at = [np.take_along_axis(ordered, i[None], axis=0)[0] for i in (below, above)]
    return at[0] + (at[1] - at[0]) * (position - below)

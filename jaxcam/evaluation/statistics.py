"""Rows of single images -> means, paired differences and wins, with their 95 % intervals.

Contract: memory does not grow with the number of images. The same parts in the same order give the same bits: the
parts come in the order of the images' numbers (`journal`), so these depend neither on the order in which the images
were measured nor on who measured them. NumPy on the host; no JAX.

The interval of a mean goes from the 2.5 % to the 97.5 % quantile of the resamples of a bootstrap (linear between
neighbours). In a resample every image has one weight for all methods and metrics, so what makes an image hard for two
methods cancels from their difference. A figure of which nothing counts is NaN; resamples in which nothing counts are
left out; without resamples, and of one image, intervals are NaN. Shares, of what is yes or no for an image, and wins
have the intervals of `shares`, which need no resamples. Each interval stands alone: they are not widened for the number
of comparisons.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from jaxcam.evaluation.shares import paired, wilson
from jaxcam.evaluation.tallies import TALLIES, Sums
from jaxcam.explanation.explanation import Status

LEVEL = 0.95

LIMIT = 2.0**20
"""A value of this magnitude or more, infinities included, does not count and is told as out of range."""


class Rows(NamedTuple):
    """What was measured on n images with m methods and k metrics.

    Attributes:
        y: `[n]`, the confidence on the image.
        o: `[n, m]`, the confidence on each method's explanation map.
        values: `[n, m, k]`; NaN: this image does not count for this metric.
        status: `[n, m]`, of `jaxcam.Status`.
        tallies: by metric `[n, m, c]`, of those that are no means (`tallies`), whose values are NaN; NaN where an image
            does not count.
    """

    y: np.ndarray
    o: np.ndarray
    values: np.ndarray
    status: np.ndarray
    tallies: Mapping[str, np.ndarray] = MappingProxyType({})


class Interval(NamedTuple):
    """Figures with their intervals, three float64 arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def scaled(self, factor: np.ndarray | float) -> "Interval":
        """All of it times a positive factor."""
        return Interval(*(part * factor for part in self))


class Statistics(NamedTuple):
    """The figures of a table of m methods and k metrics, in the units of the rows.

    Attributes:
        means: `[m, k]`, over the images that count: those whose value is a number and in range.
        differences: `[m, m, k]`, row minus column, over the images where both count; of a method and itself 0.
        wins: `[m, m]`, on what percentage of the contests the row's method keeps more of the confidence than the
            column's; a tie is a win of neither. NaN on the diagonal.
        ties: `[m, m]`, on what percentage the two keep the same.
        won: `[m, m]`, on how many of the contests the row's method wins.
        above: `[m, m, k]`, on how many images the row's value is larger than the column's.
        counts: `[m, k]`, how many images count.
        out_of_range: `[m, k]`, how many do not because of `LIMIT`.
        difference_counts: `[m, m, k]`, on how many images both count.
        contests: `[m, m]`, the images with Y > 0 and all three confidences finite; 0 on the diagonal.
        status: `[m, s]`, how many images have each `jaxcam.Status`.
        images: how many there are.
        y_not_positive: how many of them have a finite confidence of zero or less.
        y_not_finite: how many have none.
        num_resamples: of the intervals.
    """

    means: Interval
    differences: Interval
    wins: Interval
    ties: Float64[np.ndarray, "m m"]
    won: Int64[np.ndarray, "m m"]
    above: Int64[np.ndarray, "m m k"]
    counts: Int64[np.ndarray, "m k"]
    out_of_range: Int64[np.ndarray, "m k"]
    difference_counts: Int64[np.ndarray, "m m k"]
    contests: Int64[np.ndarray, "m m"]
    status: Int64[np.ndarray, "m s"]
    images: int
    y_not_positive: int
    y_not_finite: int
    num_resamples: int

    def to_lists(self) -> dict[str, Any]:
        """For JSON."""
        return {name: np.asarray(value).tolist() for name, value in self._asdict().items()}

    @classmethod
    def of_lists(cls, lists: dict[str, Any]) -> "Statistics":
        """What `to_lists` was of."""
        found: dict[str, Any] = {k: np.asarray(x) if isinstance(x, list) else x for k, x in lists.items()}
        found.update({name: Interval(*found[name]) for name in ("means", "differences", "wins")})
        return cls(**found)


def statistics(
    parts: Iterable[Rows],
    num_methods: int,
    num_metrics: int,
    *,
    shares: Sequence[bool] | None = None,
    tallies: Mapping[str, int] = MappingProxyType({}),
    num_resamples: int = 0,
    seed: int = 0,
) -> Statistics:
    """The figures of all images.

    Args:
        parts: the images, some hundred at a time, each of them once.
        num_methods: m.
        num_metrics: k.
        shares: `[k]`, whether the metric is yes or no (1 or 0) for an image, and its mean a share; none by default.
        tallies: which of the k metrics are made from tallies, and their places among them.
        num_resamples: B. A bootstrap sample of n of n images draws each image Binomial(n, 1/n) times; the weights here
            are independent Poisson numbers of mean 1, the limit of that, which need no n beforehand.
        seed: of the weights.

    **Source**: Hanley and MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson frequencies";
    Chamandy et al. 2012, "Estimating uncertainty for massive data streams".
    """
    m, k, p = num_methods, num_metrics, num_methods * (num_methods - 1) // 2
    draws = np.random.default_rng(seed)
    # Of the data itself, and of its resamples: [1 + B, ...] for each of the terms.
    sums, counts = ([np.zeros((1 + num_resamples, *s)) for s in ((m, k), (p, k))] for _ in range(2))
    above, below = np.zeros((2, p, k), np.int64)
    outcomes = np.zeros((3, p), np.int64)
    out_of_range, status = np.zeros((m, k), np.int64), np.zeros((m, len(Status)), np.int64)
    pooled = {key: Sums(TALLIES[key], m) for key in tallies}
    images = y_not_positive = y_not_finite = 0
    for rows in parts:
        n = len(rows.y)
        weights = np.ones((1 + num_resamples, n))
        weights[1:] = draws.poisson(1.0, (num_resamples, n))
        terms = _terms(rows)
        for term, total, count in zip(terms, sums, counts, strict=True):
            is_counted = ~np.isnan(term)
            total += np.tensordot(weights, np.where(is_counted, term, 0.0), 1)
            count += np.tensordot(weights, is_counted.astype(np.float64), 1)
        for key, total in pooled.items():
            total.add(rows.tallies[key], weights)
        above += np.sum(terms[1] > 0, axis=0)
        below += np.sum(terms[1] < 0, axis=0)
        outcomes += _outcomes(rows)
        images += n
        y_not_positive += int(np.sum(np.isfinite(rows.y) & (rows.y <= 0)))
        y_not_finite += int(np.sum(~np.isfinite(rows.y)))
        out_of_range += np.sum(np.abs(rows.values) >= LIMIT, axis=0)
        status += np.sum(rows.status[:, :, None] == np.asarray(list(Status)), axis=0)
    estimates = [_ratios(total, count) for total, count in zip(sums, counts, strict=True)]
    num_counted, num_paired = (count[0].astype(np.int64) for count in counts)
    for key, j in tallies.items():
        if images:
            for estimate, figure in zip(estimates, pooled[key].figures, strict=True):
                estimate[..., j] = figure
            num_counted[:, j], num_paired[:, j] = pooled[key].counts
    means, pairs = map(_interval, estimates, (num_counted, num_paired))
    is_share = np.zeros(k, bool) if shares is None else np.asarray(shares, bool)
    means = _of_shares(means, is_share, wilson, sums[0][0], num_counted)
    pairs = _of_shares(pairs, is_share, paired, sums[1][0], above + below, num_paired)
    num_contests = outcomes.sum(0)
    wins, losses, ties = (_percent(each, num_contests) for each in outcomes)
    # The lower half is the upper one with its sign changed, by 0.0 - x: -x has a negative zero.
    reverse = (0.0 - part for part in (pairs.value, pairs.high, pairs.low))
    own = (np.where(np.isnan(part), np.nan, 0.0) for part in means)
    return Statistics(
        means=means,
        differences=Interval(*(_square(m, *three) for three in zip(pairs, reverse, own, strict=True))),
        wins=Interval(*(_square(m, *two, np.nan) for two in zip(wins, losses, strict=True))),
        ties=_square(m, ties.value, ties.value, np.nan),
        won=_square(m, outcomes[0], outcomes[1], 0.0),
        above=_square(m, above, below, 0.0),
        counts=num_counted,
        out_of_range=out_of_range,
        difference_counts=_square(m, num_paired, num_paired, num_counted),
        contests=_square(m, num_contests, num_contests, 0.0),
        status=status,
        images=images,
        y_not_positive=y_not_positive,
        y_not_finite=y_not_finite,
        num_resamples=num_resamples,
    )


def _terms(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """What means are taken of, `[n, ...]`; NaN where an image does not count.

    Of the methods their values; of the pairs of methods (0, 1), (0, 2), ..., (1, 2), ... the differences.
    """
    a, b = np.triu_indices(rows.o.shape[1], 1)
    values = np.where(np.abs(rows.values) < LIMIT, rows.values, np.nan)
    return values, values[:, a] - values[:, b]


def _outcomes(rows: Rows) -> Int64[np.ndarray, "3 p"]:
    """How often the first of a pair of methods wins, how often it loses, and how often the two tie."""
    a, b = np.triu_indices(rows.o.shape[1], 1)
    y, o_a, o_b = rows.y[:, None], rows.o[:, a], rows.o[:, b]
    is_contest = np.isfinite(y) & (y > 0) & np.isfinite(o_a) & np.isfinite(o_b)
    return np.stack([np.sum(is_contest & is_so, axis=0) for is_so in (o_a > o_b, o_a < o_b, o_a == o_b)])


def _percent(count: Int64[np.ndarray, " p"], n: Int64[np.ndarray, " p"]) -> Interval:
    """A share with its interval, in percent."""
    share = np.divide(100.0 * count, n, out=np.full(n.shape, np.nan), where=n > 0)
    low, high = wilson(count, n, level=LEVEL)
    return Interval(share, 100.0 * low, 100.0 * high)


def _of_shares(
    rest: Interval, is_share: Bool[np.ndarray, " k"], interval: Callable[..., Any], *counts: np.ndarray
) -> Interval:
    """With the ends of a share's interval, of these counts `[..., k]`, where the metric is one."""
    low, high = rest.low.copy(), rest.high.copy()
    ends = interval(*(each[..., is_share] for each in counts), level=LEVEL)
    low[..., is_share], high[..., is_share] = ends
    return Interval(rest.value, low, high)


def _ratios(sums: Float64[np.ndarray, "r *shape"], counts: Float64[np.ndarray, "r *shape"]) -> np.ndarray:
    """The means of the data, entry 0, and of its resamples."""
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _interval(estimates: Float64[np.ndarray, "r *shape"], num: Int64[np.ndarray, "*shape"]) -> Interval:
    """The figure of the data, entry 0, and the quantiles of the others': none of one image, which all resamples are."""
    value, resamples = estimates[0], estimates[1:]
    low, high = np.full((2, *value.shape), np.nan)
    known = ~np.isnan(resamples).all(axis=0) & (num > 1)
    if known.any():
        low[known], high[known] = np.nanquantile(resamples[:, known], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Interval(value, low, high)


def _square(
    m: int,
    above: Shaped[np.ndarray, "p *k"],
    below: Shaped[np.ndarray, "p *k"],
    diagonal: Shaped[np.ndarray, "m *k"] | float,
) -> np.ndarray:
    """Figures of the pairs as `[m, m, ...]`: those of (a, b) above the diagonal and of (b, a) below it."""
    found = np.zeros((m, m, *above.shape[1:]), above.dtype)
    a, b = np.triu_indices(m, 1)
    found[a, b], found[b, a] = above, below
    found[np.arange(m), np.arange(m)] = diagonal
    return found

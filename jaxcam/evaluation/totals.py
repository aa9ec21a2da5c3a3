"""Rows of single images -> totals that merge exactly.

Contract: everything is an integer. A value is rounded once, to a multiple of 2^-32 (an error of at most 1.2e-10, and
2.4e-10 for a difference of two, in the mean too), and from there on nothing is: the totals of a data set are the same
to the last bit however it is divided, in whatever order its parts are merged, and on whatever machine. NumPy on the
host; no JAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxcam.evaluation.poisson import poisson_weights
from jaxcam.explanation.explanation import Status

UNIT = 2.0**-32
"""Sums count in this unit."""

LIMIT = 2.0**20
"""A value of this magnitude or more, infinities included, does not count and is told as out of range."""

_CHUNK = 1024  # images at a time: for constant memory; and a product of weights and 32-bit limbs stays below 2^53
_LIMB = 32


class Rows(NamedTuple):
    """What was measured on n images with m methods and k metrics.

    Attributes:
        index: int64 `[n]`, the image's number in the data set; no image twice.
        y: float64 `[n]`, the confidence on the image.
        o: float64 `[n, m]`, the confidence on each method's explanation map.
        values: float64 `[n, m, k]`; NaN: this image does not count for this metric.
        status: int32 `[n, m]`, of `jaxcam.Status`.
    """

    index: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    y: np.ndarray
    o: np.ndarray
    values: np.ndarray
    status: np.ndarray


class Totals(NamedTuple):
    """Sums and counts over images, a pytree of int64 arrays that `merge` adds up.

    The first axis, r, has B + 1 entries: entry 0 is the data itself, the others are its bootstrap resamples, in which
    every image has its weight for all methods alike. The p pairs of methods (a, b), a < b, are in the order (0, 1),
    (0, 2), ..., (1, 2), ....

    Attributes:
        images: `[r]`.
        sums: `[r, m, k]`, of the values that count, in units of 2^-32.
        counts: `[r, m, k]`, how many values count: those that are numbers and in range.
        out_of_range: `[r, m, k]`, how many do not count because their magnitude is 2^20 or more, or infinite.
        pair_sums: `[r, p, k]`, of the differences a - b over the images where both count.
        pair_counts: `[r, p, k]`, how many these are.
        wins: `[r, p]`, the images on which the confidence on a's explanation map is above that on b's.
        ties: `[r, p]`, on which the two are equal.
        contests: `[r, p]`, the images that these are of: Y > 0 and all three confidences finite.
        status: `[r, m, s]`, how many images have each `jaxcam.Status`.
        y_not_positive: `[r]`, how many images have a finite confidence of zero or less.
        y_not_finite: `[r]`, how many have none.
    """

    images: Int64[np.ndarray, " r"]
    sums: Int64[np.ndarray, "r m k"]
    counts: Int64[np.ndarray, "r m k"]
    out_of_range: Int64[np.ndarray, "r m k"]
    pair_sums: Int64[np.ndarray, "r p k"]
    pair_counts: Int64[np.ndarray, "r p k"]
    wins: Int64[np.ndarray, "r p"]
    ties: Int64[np.ndarray, "r p"]
    contests: Int64[np.ndarray, "r p"]
    status: Int64[np.ndarray, "r m s"]
    y_not_positive: Int64[np.ndarray, " r"]
    y_not_finite: Int64[np.ndarray, " r"]

    @classmethod
    def of(cls, rows: Rows, *, num_resamples: int = 0, seed: int = 0) -> "Totals":
        """The totals of a block of images; of no images at all, zeros, which merge to nothing.

        Args:
            rows: what was measured.
            num_resamples: B. All totals that are to be merged need the same.
            seed: of the resamples, from 0 to 2^64 - 1. The same for all, too, which `merge` cannot check.

        Raises:
            ValueError: the rows' shapes do not fit together, a status is unknown, num_resamples or seed is out of
                range.
            TypeError: the rows have other types than `Rows` says, num_resamples or seed is no integer.
            OverflowError: a sum does not fit 64 bits, as from 2,000 images with values near 2^20, or 2 * 10^9 near 1.

        **Source**: the fixed point is ours; the resamples, see `poisson_weights`.
        """
        _check(rows, num_resamples, seed)
        parts = [Rows(*(field[i : i + _CHUNK] for field in rows)) for i in range(0, len(rows.index), _CHUNK)]
        totals = _chunk(parts[0] if parts else rows, num_resamples, seed)
        for part in parts[1:]:
            totals = merge(totals, _chunk(part, num_resamples, seed))
        return totals

    @property
    def num_resamples(self) -> int:
        """B."""
        return len(self.images) - 1

    @property
    def excluded(self) -> Int64[np.ndarray, "r m k"]:
        """How many images do not count for a metric, out of range or not."""
        return self.images[:, None, None] - self.counts


def pairs(num_methods: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers a and b of the methods in each pair, a < b, in the order of the totals."""
    return np.triu_indices(num_methods, 1)


def merge(a: Totals, b: Totals) -> Totals:
    """The totals of two sets of images together: the sum of each array. The sets must have no image in common.

    Raises:
        ValueError: the two differ in the number of methods, metrics or resamples.
        OverflowError: a sum does not fit 64 bits.
    """
    for name, x, y in zip(Totals._fields, a, b, strict=True):
        if x.shape != y.shape:
            raise ValueError(
                f"these totals cannot be merged: {name} is {list(x.shape)} in one and {list(y.shape)} in the other; "
                "take the same methods, metrics and num_resamples for all parts"
            )
    return Totals(*(_added(*fields) for fields in zip(Totals._fields, a, b, strict=True)))


def _added(name: str, a: Int64[np.ndarray, "*shape"], b: Int64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    total = a + b
    # It overflowed where two numbers of one sign have a sum of the other.
    if bool(np.any(((a ^ total) & (b ^ total)) < 0)):
        raise _overflow(name)
    return total


def _overflow(name: str) -> OverflowError:
    return OverflowError(
        f"{name}: the total does not fit 64 bits in units of 2^-32; total fewer images, or scale the metric down"
    )


def _chunk(rows: Rows, num_resamples: int, seed: int) -> Totals:
    drawn = poisson_weights(rows.index, num_resamples, seed)
    weights = np.concatenate([np.ones((1, len(rows.index)), np.int64), drawn]).astype(np.float64)

    def counted(flags: np.ndarray) -> np.ndarray:
        return _product(weights, flags)

    def summed(name: str, fixed: np.ndarray) -> np.ndarray:
        return _sum(name, lambda limb: _product(weights, limb), fixed)

    counts = np.abs(rows.values) < LIMIT  # False for NaN
    fixed = np.rint(np.where(counts, rows.values, 0.0) / UNIT).astype(np.int64)
    a, b = pairs(rows.o.shape[1])
    both = counts[:, a] & counts[:, b]
    y, o_a, o_b = rows.y[:, None], rows.o[:, a], rows.o[:, b]
    contest = np.isfinite(y) & (y > 0) & np.isfinite(o_a) & np.isfinite(o_b)
    finite = np.isfinite(rows.y)
    return Totals(
        images=counted(np.ones(len(rows.index), np.bool_)),
        sums=summed("sums", fixed),
        counts=counted(counts),
        out_of_range=counted(np.abs(rows.values) >= LIMIT),
        pair_sums=summed("pair_sums", np.where(both, fixed[:, a] - fixed[:, b], 0)),
        pair_counts=counted(both),
        wins=counted(contest & (o_a > o_b)),
        ties=counted(contest & (o_a == o_b)),
        contests=counted(contest),
        status=counted(rows.status[:, :, None] == np.asarray(list(Status), np.int32)),
        y_not_positive=counted(finite & (rows.y <= 0)),
        y_not_finite=counted(~finite),
    )


def _product(
    weights: Float64[np.ndarray, "r n"], terms: Bool[np.ndarray, "n *shape"] | Int64[np.ndarray, "n *shape"]
) -> Int64[np.ndarray, "r *shape"]:
    """The products weights · terms, by the fast product of float64 matrices.

    It is exact in any order of summation: weights are at most 20, terms at most 2^32 and images 2^10, so that every
    partial sum is an integer below 2^53.
    """
    flat = terms.reshape(len(terms), int(np.prod(terms.shape[1:])))
    product = weights @ flat.astype(np.float64)
    return product.astype(np.int64).reshape(len(weights), *terms.shape[1:])


def _sum(
    name: str, product: Callable[[np.ndarray], np.ndarray], fixed: Int64[np.ndarray, "n *shape"]
) -> Int64[np.ndarray, "r *shape"]:
    """The weighted sum of integers below 2^54, as whole * 2^32 + fraction."""
    whole, fraction = product(fixed >> _LIMB), product(fixed & (2**_LIMB - 1))
    whole += fraction >> _LIMB
    if bool(np.any((whole < -(2**31)) | (whole >= 2**31))):
        raise _overflow(name)
    return (whole << _LIMB) | (fraction & (2**_LIMB - 1))


def _check(rows: Rows, num_resamples: object, seed: object) -> None:
    types = (np.int64, np.float64, np.float64, np.float64, np.int32)
    for name, field, dtype in zip(Rows._fields, rows, types, strict=True):
        if not isinstance(field, np.ndarray) or field.dtype != dtype:
            came = f"{field.dtype}" if isinstance(field, np.ndarray) else type(field).__name__
            raise TypeError(f"rows.{name} must be a NumPy array of {np.dtype(dtype)}, not {came}")
    if rows.values.ndim != 3:
        raise ValueError(f"rows.values must be [n, m, k], but came as {list(rows.values.shape)}")
    n, m, _ = rows.values.shape
    for name, field, shape in zip(Rows._fields, rows, ((n,), (n,), (n, m), rows.values.shape, (n, m)), strict=True):
        if field.shape != shape:
            raise ValueError(
                f"rows.{name} must be {list(shape)} next to values {list(rows.values.shape)}, "
                f"but came as {list(field.shape)}"
            )
    if bool(np.any((rows.status < 0) | (rows.status >= len(Status)))):
        raise ValueError(f"rows.status must be of jaxcam.Status, 0 to {len(Status) - 1}, but has others")
    for name, value, end in (("num_resamples", num_resamples, 2**31), ("seed", seed, 2**64)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if not 0 <= value < end:
            raise ValueError(f"{name} must be from 0 to {end - 1}, but is {value}")

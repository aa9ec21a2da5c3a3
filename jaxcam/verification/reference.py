"""What a verification compares with: finite differences, and the recipe of three nested tapes.

**Finite differences** know nothing of automatic differentiation. Along one element, with phi(t) = Y(A + t e),

    D1(h) = (phi(h) - phi(-h)) / 2h
    D2(h) = (phi(h) - 2 phi(0) + phi(-h)) / h^2
    D3(h) = (phi(2h) - 2 phi(h) + 2 phi(-h) - phi(-2h)) / 2h^3

are off by even powers of h only. Over a ladder of halved steps these are eliminated one after the other (Richardson),
and of all extrapolations the one counts that agrees best with its two predecessors; how well is its uncertainty
(Ridders). Where a kink of a ReLU or of max-pooling lies inside every stencil, D2 and D3 grow as the steps shrink,
and where the derivatives are tiny, rounding covers them: the uncertainty is then large, a finite difference means
nothing, and the element is counted and left out.

**Three nested tapes** differentiate a gradient, and that gradient again. An array is summed before it is
differentiated, and so this gives the row sums of the Hessian and of the tensor of third derivatives, not their
diagonals.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

_LARGEST_STEP = 16.0
_STEPS = 20
_DEPTH = 4
_CHUNK_NUMBERS = 2**22


class Extrapolated(NamedTuple):
    """Finite differences at some elements, `[order, n]`."""

    derivatives: Float[np.ndarray, "3 n"]
    uncertainties: Float[np.ndarray, "3 n"]


def finite_differences(
    f: Partial, a: Float[Array, "..."], elements: Int[np.ndarray, " n"], *, eps: float, rounding: float = 0.0
) -> Extrapolated:
    """The first three derivatives of f by some elements of a (flat indices), extrapolated from values of f alone.

    The first step is 16 times the largest magnitude in a, and 19 more are each half of the one before. A value of f is
    taken to be right to 4 (eps of its size + rounding), which small steps magnify: that belongs to the uncertainty.
    """
    largest = _LARGEST_STEP * (float(np.abs(np.asarray(a)).max()) or 1.0)
    ladder = largest * 0.5 ** np.arange(_STEPS)
    offsets = np.concatenate([[0.0, 2 * largest], ladder, [-2 * largest], -ladder])
    phi = np.asarray(values_along(f, a, jnp.asarray(elements), jnp.asarray(offsets, a.dtype)), np.float64)
    centre, up, down = phi[:, :1], phi[:, 1 : _STEPS + 2], phi[:, _STEPS + 2 :]
    # Column j + 1 of `up` and `down` is at the step h_j, and column j at 2 h_j.
    with np.errstate(invalid="ignore", over="ignore"):  # far out f may overflow: infinity less infinity is no estimate
        odd, even = up - down, up + down - 2 * centre
        third = odd[:, :-1] - 2 * odd[:, 1:]
    noise = 4 * (eps * np.maximum(np.maximum(np.abs(up), np.abs(down)), np.abs(centre))[:, :-1] + rounding)
    h = ladder[None]
    tables = [
        (odd[:, 1:] / (2 * h), noise / h),
        (even[:, 1:] / h**2, 4 * noise / h**2),
        (third / (2 * h**3), 3 * noise / h**3),
    ]
    best = [_extrapolated(*table) for table in tables]
    return Extrapolated(np.stack([value for value, _ in best]), np.stack([doubt for _, doubt in best]))


@jax.jit
def values_along(
    f: Partial, a: Float[Array, "..."], elements: Int[Array, " n"], offsets: Float[Array, " m"]
) -> Float[Array, "n m"]:
    """The values of f with one element moved: `[n, m]` for n elements and m offsets."""

    def moved(where: tuple[Array, Array]) -> Array:
        element, offset = where
        return f(a.reshape(-1).at[element].add(offset).reshape(a.shape))

    places = jnp.repeat(elements, offsets.size), jnp.tile(offsets, elements.size)
    chunk = max(1, min(_CHUNK_NUMBERS // a.size, places[0].size))
    return jax.lax.map(moved, places, batch_size=chunk).reshape(elements.size, offsets.size)


def _extrapolated(
    table: Float[np.ndarray, "n m"], noise: Float[np.ndarray, "n m"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The best value of each row of differences at steps halved from column to column, and its uncertainty.

    The best has the smallest gap to the values that it was made of, and that of the column before it counts as well, in
    comparison with its own size. An absolute gap would not do: far out every difference of a bounded f is small. Gaps
    above one half do not count, and so nothing that grows like 1/h, as at a kink; where there are no others, the value
    may be zero: one then counts that is not above its noise.
    """
    rows = np.arange(len(table))
    value, doubt, rank = (np.full(len(table), start) for start in (np.nan, np.inf, np.inf))
    coarse = table
    for depth in range(1, _DEPTH + 1):
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            fine = coarse[:, 1:] + (coarse[:, 1:] - coarse[:, :-1]) / (4**depth - 1)
            gaps = np.maximum(np.abs(fine - coarse[:, 1:]), np.abs(fine - coarse[:, :-1]))
            gaps[:, 1:] = np.maximum(gaps[:, 1:], gaps[:, :-1])
            sizes = np.maximum(np.maximum(np.abs(coarse[:, 1:]), np.abs(coarse[:, :-1])), np.abs(fine))
            floor = noise[:, depth:]
            ranks = np.where(gaps <= sizes / 2, (gaps + floor) / sizes, np.inf)
            ranks = np.where(sizes <= 2 * floor, 1 + floor, ranks)
            ranks = np.where(np.isfinite(gaps), ranks, np.inf)
        column = ranks[:, 1:].argmin(1) + 1
        better = ranks[rows, column] < rank
        value = np.where(better, fine[rows, column], value)
        doubt = np.where(better, (gaps + floor)[rows, column], doubt)
        rank = np.minimum(rank, ranks[rows, column])
        coarse = fine
    return value, doubt


@jax.jit
def nested_tapes(f: Partial, a: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """What two further reverse passes make of a gradient: row sums of the Hessian and of the third derivatives."""
    second = jax.grad(lambda x: jax.grad(f)(x).sum())
    third = jax.grad(lambda x: second(x).sum())
    return second(a), third(a)

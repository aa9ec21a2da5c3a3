"""What a verification compares with: finite differences, and the recipe of three nested tapes.

**Finite differences** know nothing of automatic differentiation. Along one element, with phi(t) = Y(A + t e),

    D1(h) = (phi(h) - phi(-h)) / 2h
    D2(h) = (phi(h) - 2 phi(0) + phi(-h)) / h^2
    D3(h) = (phi(2h) - 2 phi(h) + 2 phi(-h) - phi(-2h)) / 2h^3

are off by even powers of h only. Over a ladder of halved steps these are eliminated one after the other (Richardson),
and of all extrapolations the one counts that agrees best with its two predecessors; how well is its uncertainty
(Ridders). Three values may agree by chance over a kink: so smaller steps must not disown it, nor may the lower
derivatives be others at its step. Where a kink of a ReLU or of max-pooling lies inside every stencil, D2 and D3 grow as
the steps shrink, and where the derivatives are tiny, rounding covers them: the uncertainty is then large, a finite
difference means nothing, and the element is counted and left out.

**Three nested tapes** differentiate a gradient, and that gradient again. An array is summed before it is
differentiated, and so this gives the row sums of the Hessian and of the tensor of third derivatives, not their
diagonals.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

_LARGEST_STEP = 16.0
_STEPS = 20
_DEPTH = 4
_CHUNK_NUMBERS = 2**22
_AGREEMENT = 0.1


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
    best: list[tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]] = []
    lower: list[tuple[list[_Column], Float[np.ndarray, " n"]]] = []
    for differences, rounding_of_them in tables:
        columns = _columns(differences, rounding_of_them)
        best.append(_best(columns, lower, ladder))
        lower.append((columns, best[-1][0]))
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


class _Column(NamedTuple):
    """A column of the table that extrapolation makes, `[n, m]` for n elements and m steps, the largest first."""

    values: Float[np.ndarray, "n m"]
    gaps: Float[np.ndarray, "n m"]
    """To the values that it was made of, and the same of the step before."""
    noise: Float[np.ndarray, "n m"]
    ranks: Float[np.ndarray, "n m"]
    """Gap and noise in comparison with the value's own size; infinity for what does not count."""


def _columns(table: Float[np.ndarray, "n m"], noise: Float[np.ndarray, "n m"]) -> list[_Column]:
    """The columns that differences at steps halved from column to column are extrapolated to.

    A gap is compared with the value's own size, since far out every difference of a bounded f is small. Gaps above one
    half do not count, and so nothing that grows like 1/h, as at a kink; where there are no others, the value may be
    zero: one then counts that is not above its noise. Nor does what smaller steps disown: with a kink in the larger
    stencils three values in a row may agree by chance, and then the next ones do not.
    """
    columns, coarse = list[_Column](), table
    for depth in range(1, _DEPTH + 1):
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            fine = coarse[:, 1:] + (coarse[:, 1:] - coarse[:, :-1]) / (4**depth - 1)
            gaps = np.maximum(np.abs(fine - coarse[:, 1:]), np.abs(fine - coarse[:, :-1]))
            gaps[:, 1:] = np.maximum(gaps[:, 1:], gaps[:, :-1])
            sizes = np.maximum(np.maximum(np.abs(coarse[:, 1:]), np.abs(coarse[:, :-1])), np.abs(fine))
            floor = noise[:, depth:]
            ranks = np.where(gaps <= sizes / 2, (gaps + floor) / sizes, np.inf)
            ranks = np.where(sizes <= 2 * floor, 1 + floor, ranks)
            ranks = np.where(np.isfinite(gaps) & _is_kept(fine, gaps, floor), ranks, np.inf)
        ranks[:, 0] = np.inf  # nothing stands before the first
        columns.append(_Column(fine, gaps, floor, ranks))
        coarse = fine
    return columns


def _is_kept(
    values: Float[np.ndarray, "n m"], gaps: Float[np.ndarray, "n m"], noise: Float[np.ndarray, "n m"]
) -> Bool[np.ndarray, "n m"]:
    """Whether the values at all smaller steps are the same, as far as their noise allows to say."""
    apart = np.abs(values[:, :, None] - values[:, None, :])
    allowed = 2 * (gaps + noise)[:, :, None] + 4 * noise[:, None, :]
    smaller = np.triu(np.ones(apart.shape[1:], bool), 1)
    return np.asarray(~(smaller & ~(apart <= allowed)).any(2))


def _best(
    columns: list[_Column],
    lower: list[tuple[list[_Column], Float[np.ndarray, " n"]]],
    ladder: Float[np.ndarray, " s"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The value of the best rank for each element, and its uncertainty.

    It counts only where the lower derivatives, whose best came from smaller steps, are the same at this one: a kink
    that a third difference has in its stencil, and whose noise hides that, is seen by the second. The next derivative
    times the step is how much of a difference there may be, and a tenth of it is allowed.
    """
    rows = np.arange(len(columns[0].values))
    value, doubt, rank = (np.full(len(rows), start) for start in (np.nan, np.inf, np.inf))
    for depth, column in enumerate(columns, 1):
        ranks = column.ranks
        for below, settled in lower:
            with np.errstate(invalid="ignore"):
                allowed = _AGREEMENT * (np.abs(settled)[:, None] + ladder[depth:] * np.abs(column.values))
                found = below[depth - 1]
                agrees = np.abs(found.values - settled[:, None]) <= allowed + 4 * found.noise
            ranks = np.where(agrees, ranks, np.inf)
        step = ranks.argmin(1)
        better = ranks[rows, step] < rank
        value = np.where(better, column.values[rows, step], value)
        doubt = np.where(better, (column.gaps + column.noise)[rows, step], doubt)
        rank = np.minimum(rank, ranks[rows, step])
    return value, doubt


@jax.jit
def nested_tapes(f: Partial, a: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """What two further reverse passes make of a gradient: row sums of the Hessian and of the third derivatives."""
    second = jax.grad(lambda x: jax.grad(f)(x).sum())
    third = jax.grad(lambda x: second(x).sum())
    return second(a), third(a)

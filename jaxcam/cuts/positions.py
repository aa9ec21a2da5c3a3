"""Positions: which row, column, depth or time of the input each element of a value belongs to.

What a sum over axes, a moved window and a repetition make of them; which primitive does what is told in `axes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from jaxcam.cuts.fields import Field, around
from jaxcam.programs.moves import compressed

__all__ = ["Positions", "Where", "line", "repeated", "stepped", "without"]


@dataclass(frozen=True, eq=False)
class Positions:
    """Which position of a grid each element of a value belongs to."""

    sizes: tuple[int, ...]
    """Of the grid, along each spatial axis of the input."""
    coordinates: tuple[np.ndarray, ...]
    """The position along each of these; with the value's axes, of length 1 where nothing changes. -1: none."""
    fields: tuple[Field | None, ...]
    """The pixels that positions look at along each of these, as far as they are known; the same positions may differ in
    it, as x and f(x)."""

    def __eq__(self, other: object) -> bool:
        """Whether they are the same positions."""
        if not isinstance(other, Positions):
            return NotImplemented
        return self is other or (self.sizes == other.sizes and all(map(_same, self.coordinates, other.coordinates)))

    __hash__ = None  # type: ignore[assignment]

    def refines(self, other: Positions) -> bool:
        """Whether each of these positions is a part of the other's, or the same."""
        if self.coordinates[0].ndim != other.coordinates[0].ndim:
            return False
        for size, mine, coarse, theirs in zip(
            self.sizes, self.coordinates, other.sizes, other.coordinates, strict=True
        ):
            if size % coarse:
                return False
            expected = np.where(mine < 0, -1, mine // (size // coarse))
            if coarse > 1 and not _same(compressed(expected), theirs):
                return False
        return True

    def beside(self, other: Positions) -> Positions:
        """The same positions, of a value that is made of two that have them."""
        fields = (around(mine, theirs) for mine, theirs in zip(self.fields, other.fields, strict=True))
        return replace(self, fields=tuple(fields))

    def again(self, later: Positions) -> Positions:
        """The same positions, of a value that is the one or the other: what they look at where both have one centre."""
        centred = (
            f and g and f.step == g.step and f.centre == g.centre
            for f, g in zip(self.fields, later.fields, strict=True)
        )
        return replace(self, fields=tuple(f if keeps else None for f, keeps in zip(self.fields, centred, strict=True)))

    @property
    def covers(self) -> bool:
        """Whether each position of the grid is there, once or more often."""
        arrays = np.broadcast_arrays(*self.coordinates)
        there = np.min(arrays, 0) >= 0
        return np.unique(np.ravel_multi_index([c[there] for c in arrays], self.sizes)).size == prod(self.sizes)

    @property
    def fills(self) -> bool:
        """Whether they change along some axis, and each place along it has one."""
        return bool(self.axes) and all(c.min() >= 0 for c in self.coordinates)

    @property
    def axes(self) -> tuple[int, ...]:
        """The value's axes along which the position changes."""
        return tuple(i for i in range(self.coordinates[0].ndim) if any(c.shape[i] > 1 for c in self.coordinates))


Where = tuple[Positions, ...] | None
"""Of a value: its positions; several where it has them more than once, none where it has them no more (pooled), and
None where that is not known."""


def without(positions: Positions, axes: Sequence[int]) -> tuple[Positions | None, bool]:
    """The positions after a sum over some axes, which stay with length 1; None where nothing is left, or it is no grid.

    A sum over blocks of 2 x 2 has positions of a coarser grid; a sum over all rows has no rows; a sum over rows 0, 1
    and 5 of 8 has positions of no kind, and the second result is True.
    """
    sizes, coordinates, fields = [*positions.sizes], [*positions.coordinates], [*positions.fields]
    for i, (array, field) in enumerate(zip(positions.coordinates, positions.fields, strict=True)):
        if all(array.shape[axis] == 1 for axis in axes):
            continue
        found = _blocks(np.moveaxis(array, axes, range(array.ndim - len(axes), array.ndim)), len(axes), sizes[i])
        if found is None:
            return None, True
        step, blocks = found
        sizes[i] = sizes[i] // step
        fields[i] = field and field.within(0, step - 1, step)
        lengths = [1 if axis in axes else n for axis, n in enumerate(array.shape)]
        coordinates[i] = compressed(blocks.reshape(lengths))
    if max(sizes) == 1:
        return None, False
    return Positions(tuple(sizes), tuple(coordinates), tuple(fields)), False


def _blocks(array: np.ndarray, num_axes: int, size: int) -> tuple[int, np.ndarray] | None:
    """How many neighbours are summed, and which of the blocks that they are each sum is; None if they are no blocks."""
    rows = array.reshape(*array.shape[: array.ndim - num_axes], -1)
    there = rows >= 0
    low = np.where(there, rows, size).min(-1)
    high = rows.max(-1)
    some = there.any(-1)
    low = np.where(some, low, -1)
    if (low == high).all():
        return 1, low
    if np.unique(low[some]).size == 1 and np.unique(high[some]).size == 1:
        return size, np.where(some, 0, -1)
    steps = np.unique((high - low + 1)[some])
    if steps.size > 1 or size % steps[0] or (low[some] % steps[0]).any():
        return None
    ordered = np.sort(rows, -1)
    distinct = 1 + (np.diff(ordered, axis=-1) > 0).sum(-1) - (ordered[..., 0] < 0)
    if (distinct[some] != steps[0]).any():
        return None
    return int(steps[0]), np.where(some, low // steps[0], -1)


def stepped(positions: Positions, axis: int, length: int, out: int, window: Field, *, same: bool) -> Positions | None:
    """A window moved along an axis of this length to so many places: a new grid there, unless it is the `same`.

    `window` is what its places look at along the axis.
    """
    stays = same and length == out
    if axis not in positions.axes or (stays and window == Field(1, 0, 0)):
        return positions
    if (i := line(positions, axis, length)) is None:
        along = (c.shape[axis] > 1 for c in positions.coordinates)
        unknown = (None if changes else field for changes, field in zip(along, positions.fields, strict=True))
        return replace(positions, fields=tuple(unknown)) if stays else None
    # Element e of the line is position `start` + `apart` e.
    values = positions.coordinates[i].reshape(-1)
    there = np.flatnonzero(values >= 0)
    apart = int(values[there[1]] - values[there[0]]) if there.size > 1 else 1
    start = 0 if stays else int(values[there[0]]) - apart * int(there[0])
    first, last = start + apart * window.first, start + apart * window.last
    fields = [*positions.fields]
    field = fields[i]
    fields[i] = field and field.within(first, last, 1 if stays else apart * window.step)
    if stays:
        return replace(positions, fields=tuple(fields))
    lengths = [out if a == axis else 1 for a in range(positions.coordinates[0].ndim)]
    coordinates = [*positions.coordinates]
    coordinates[i] = compressed(np.arange(out).reshape(lengths))
    sizes = tuple(out if j == i else n for j, n in enumerate(positions.sizes))
    return Positions(sizes, tuple(coordinates), tuple(fields))


def line(positions: Positions, axis: int, length: int) -> int | None:
    """Which coordinate alone runs along an axis, and only there, at even steps; padding may surround it."""
    along = [i for i, c in enumerate(positions.coordinates) if c.shape[axis] > 1]
    if len(along) != 1 or positions.coordinates[along[0]].size != length:
        return None
    line = positions.coordinates[along[0]].reshape(-1)
    inside = np.flatnonzero(line >= 0)
    steps = {int(b - a) for a, b in pairwise(line[inside])}
    is_even = len(steps) <= 1 and min(steps, default=1) > 0
    return along[0] if is_even and inside[-1] - inside[0] + 1 == inside.size else None


def repeated(positions: Positions) -> Positions:
    """Rows that come several times in a row, by `jnp.repeat` or pixel shuffle, are the rows of a finer grid.

    Not where no axis is left beside them and the batch: `[n, h, w * k]`, of which a recurrent or dense layer takes the
    rows, has the channels beside the columns, each column k times in a row.
    """
    if positions.coordinates[0].ndim < len(positions.axes) + 2:
        return positions
    sizes, coordinates, fields = [*positions.sizes], [*positions.coordinates], [*positions.fields]
    for i, array in enumerate(positions.coordinates):
        axes = [axis for axis, n in enumerate(array.shape) if n > 1]
        if len(axes) != 1 or any(c.shape[axes[0]] > 1 for c in positions.coordinates if c is not array):
            continue
        line = array.reshape(-1)
        times, rest = divmod(line.size, sizes[i])
        if times > 1 and not rest and (line == np.repeat(np.arange(sizes[i]), times)).all():
            sizes[i], coordinates[i] = line.size, np.arange(line.size).reshape(array.shape)
            field = fields[i]
            fields[i] = field and field.parted(times)
    return Positions(tuple(sizes), tuple(coordinates), tuple(fields))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or np.array_equal(a, b)

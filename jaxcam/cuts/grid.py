"""From a layer's value to activations `[1, *spatial, k]`, and back: channels first, tokens, windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jaxtyping import Array

from jaxcam.cuts.axes import Axes
from jaxcam.cuts.positions import Positions, Where
from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.program import shape
from jaxcam.programs.specs import spec_of

__all__ = ["Grid", "cells_of", "centres", "grid_at", "grid_of", "is_grid", "renumbered", "told", "whole"]


@dataclass(frozen=True)
class Grid:
    """How a layer's value for one example holds the activations; hashable if `reshape` is.

    Where each spatial axis is an axis of the value, it is transposed. Else (tokens, windows) its positions are counted
    along `axes`, and `places` says which of them are the grid's, in the order of the grid.
    """

    order: tuple[int, ...] = ()
    """The value's axes as batch, spatial axes, channels."""
    sizes: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    """The value's shape."""
    reshape: Callable[[Array], Array] | None = None
    """Value `[n, ...]` -> grid `[n, i, j, k]`: the `grid` of `jaxcam.adapt`."""

    @property
    def keeps_value(self) -> bool:
        """Whether `value` needs the value that the grid was made from, of which it leaves something out."""
        return self.reshape is not None or (not self.order and len(self.places) < self._count)

    def activations(self, value: Array) -> Array:
        """The activations, channels last."""
        if self.reshape is not None:
            _check_reshape(self.reshape, value)
        return self.reshaped(value)

    def reshaped(self, value: Array) -> Array:
        """The same without the check."""
        if self.reshape is not None:
            return self.reshape(value)
        if self.order:
            return value.transpose(self.order)
        tokens = self._tokens(value)
        first, last = self.places[0], self.places[-1] + 1
        tokens = tokens[first:last] if self.places == tuple(range(first, last)) else tokens[np.asarray(self.places)]
        return tokens.reshape(1, *self.sizes, -1)

    def value(self, activations: Array, value: Array | None) -> Array:
        """The layer's value with other activations in it; `value` is what it was, as far as `keeps_value`."""
        if self.order:
            return activations.transpose(np.argsort(self.order))
        if self.reshape is None:
            tokens = activations.reshape(len(self.places), -1)
            if value is None:
                tokens = tokens[np.argsort(self.places)]
            else:
                tokens = self._tokens(value).at[np.asarray(self.places)].set(tokens)
            order = [*self.axes, *self._others]
            return tokens.reshape([self.lengths[a] for a in order]).transpose(np.argsort(order))
        assert value is not None, "what reshape leaves out is not in the activations"
        # What reshape leaves out (a class token) stays; what it moves goes back by its transpose, which for a selection
        # is its inverse. At the activations of `value` itself the difference is exactly zero.
        back = jax.linear_transpose(self.reshape, value)
        (difference,) = back(activations - self.reshape(value))
        return value + difference

    @property
    def _others(self) -> list[int]:
        return [a for a in range(len(self.lengths)) if a not in self.axes]

    @property
    def _count(self) -> int:
        """How many positions there are along `axes`, the grid's and others."""
        return prod(self.lengths[a] for a in self.axes)

    def _tokens(self, value: Array) -> Array:
        """`[positions, k]`."""
        return value.transpose([*self.axes, *self._others]).reshape(self._count, -1)


def grid_of(analysis: Analysis, site: Site, reshape: Callable[[Array], Array] | None) -> Grid:
    """How a layer holds its activations: as `reshape` says, or as the program shows it.

    Raises:
        ValueError: it does not show it.
    """
    if reshape is not None:
        return Grid(reshape=reshape)
    lengths = shape(site.var)
    if (grid := grid_at(analysis.axes, analysis.image, site.var)) is None:
        raise ValueError(
            f"layer: the program does not show a grid in this layer's {list(lengths)} ({told(analysis, site)}): name "
            "another layer, or say how they make one with jaxcam.adapt(model, grid=lambda a: ...) -> [n, i, j, k], as "
            "lambda a: a if it is one already, lambda a: a.transpose(0, 2, 3, 1) if channels come first"
        )
    return grid


def grid_at(axes: Axes, image: Var, var: Var) -> Grid | None:
    """How a value holds the positions of an image, as far as the program shows it; None where it has no whole grid."""
    positions, lengths = _whole(axes, image, var), shape(var)
    if positions is None:
        return None
    if (order := _order(positions, lengths)) is not None:
        return Grid(order, positions.sizes)
    cells = cells_of(positions, lengths).reshape(-1)
    places = np.argsort(cells, kind="stable")[np.count_nonzero(cells < 0) :]
    return Grid((), positions.sizes, positions.axes, tuple(places.tolist()), lengths)


def is_grid(analysis: Analysis, site: Site, reshape: Callable[[Array], Array] | None) -> bool:
    """Whether a value has all positions of a grid, with `reshape` as many axes as the images."""
    if reshape is None:
        return whole(analysis, site) is not None
    aval, images = site.var.aval, shape(analysis.image)
    try:
        sizes = list(jax.eval_shape(reshape, spec_of(aval)).shape)
    except (TypeError, ValueError, ZeroDivisionError, IndexError, AttributeError):
        return False
    return len(sizes) == len(images) and sizes[0] == images[0] and max(sizes[1:-1], default=1) > 1


def whole(analysis: Analysis, site: Site) -> Positions | None:
    """The positions of a value that has each one of a grid once; None if it has not, or if it is not known."""
    return _whole(analysis.axes, analysis.image, site.var)


def _whole(axes: Axes, image: Var, var: Var) -> Positions | None:
    where = axes.get(var, ())
    if where is None or len(where) != 1:
        return None
    positions = renumbered(where[0])
    if positions is None or max(positions.sizes) == 1:
        return None
    cells = cells_of(positions, shape(var))
    counts = np.bincount(cells[cells >= 0].reshape(-1), minlength=prod(positions.sizes))
    # With a batch of n a window's or a clip's axis of the batch has each position n times.
    is_whole = counts.min() == counts.max() and counts[0] in (1, shape(image)[0])
    return positions if is_whole else None


def told(analysis: Analysis, site: Site) -> str:
    """What is known of a value's axes, for people: "14x14 (1 before)"."""
    positions = whole(analysis, site)
    if positions is not None:
        shown = "x".join(map(str, positions.sizes))
        cells = cells_of(positions, shape(site.var)).reshape(-1)
        there = np.flatnonzero(cells >= 0)
        before, after = there[0], cells.size - 1 - there[-1]
        around = {"before": before, "after": after, "between": cells.size - there.size - before - after}
        beside = ", ".join(f"{count} {name}" for name, count in around.items() if count)
        return f"{shown} ({beside})" if beside else shown
    where: Where = analysis.axes.get(site.var, ())
    if where is None:
        return "mixed"
    if not where:
        return "no positions"
    first, *others = where
    if others:
        return "positions twice"
    counts = np.bincount(
        (cells := cells_of(first, shape(site.var)))[cells >= 0].reshape(-1), minlength=prod(first.sizes)
    )
    is_all = counts.min() == counts.max() > 0
    return ("channels within " if is_all else "a part of ") + "x".join(map(str, first.sizes))


def centres(analysis: Analysis, site: Site) -> str:
    """The pixels that a layer's positions look at, for people: "every 16 from 7.5", along each axis if they differ."""
    positions = whole(analysis, site)
    if positions is None or None in (
        known := [f for f, n in zip(positions.fields, positions.sizes, strict=True) if n > 1]
    ):
        return ""
    steps, starts = zip(*((f"{field.step:g}", f"{field.centre:g}") for field in known if field), strict=True)
    step, start = ("x".join(each if len({*each}) > 1 else each[:1]) for each in (steps, starts))
    return f"every {step} from {start}"


def renumbered(positions: Positions) -> Positions | None:
    """Every second row (`x[:, ::2]`) is the row of a coarser grid; rows 3 to 8 of 20 are a part of one, and None."""
    sizes, coordinates, fields = list(positions.sizes), list(positions.coordinates), list(positions.fields)
    for i, (size, array) in enumerate(zip(positions.sizes, positions.coordinates, strict=True)):
        there = np.unique(array[array >= 0])
        if there.size == size or not there.size:
            continue
        step, first = int(there[1] - there[0]) if there.size > 1 else size, int(there[0])
        if first >= step or not np.array_equal(there, np.arange(first, size, step)):
            return None
        sizes[i], coordinates[i] = there.size, np.where(array < 0, -1, (array - first) // step)
        field = fields[i]
        fields[i] = field and field.within(first, first, step)
    return Positions(tuple(sizes), tuple(coordinates), tuple(fields))


def cells_of(positions: Positions, lengths: tuple[int, ...]) -> np.ndarray:
    """The number of each place's cell, along the axes that hold positions; -1 for none."""
    axes = positions.axes
    to = [lengths[axis] if axis in axes else 1 for axis in range(len(lengths))]
    arrays = [np.broadcast_to(c, to).reshape([lengths[axis] for axis in axes]) for c in positions.coordinates]
    cells = np.ravel_multi_index(tuple(np.maximum(c, 0) for c in arrays), positions.sizes)
    return np.where(np.min(arrays, 0) < 0, -1, cells)


def _order(positions: Positions, lengths: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes as batch, spatial axes in the input's order, channels; None where they are no such axes."""
    if len(lengths) != len(positions.sizes) + 2:
        return None
    for channels in range(len(lengths) - 1, 0, -1):
        spatial = [axis for axis in range(1, len(lengths)) if axis != channels]
        # Rows lie on an axis of their own, in their order, and on no other.
        fits = all(
            c.size == (1 if size == 1 else c.shape[axis])
            and lengths[axis] == size
            and (np.diff(c.reshape(-1)) == 1).all()
            for axis, size, c in zip(spatial, positions.sizes, positions.coordinates, strict=True)
        )
        if fits:
            return (0, *spatial, channels)
    return None


def _check_reshape(reshape: Callable[[Array], Array], value: Array) -> None:
    """That it selects and moves elements, each at most once."""
    spec: Any = spec_of(value)
    try:
        out = jax.eval_shape(reshape, spec)
        if hasattr(out, "shape"):
            jax.eval_shape(jax.linear_transpose(reshape, spec), out)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"grid cannot take the layer's value {list(value.shape)} to a grid: {error}") from error
    if not hasattr(out, "shape") or out.ndim < 3 or out.shape[0] not in (1, value.shape[0]):
        raise ValueError(
            f"grid must return [n, i, j, k] for the layer's value {list(value.shape)}, but returned "
            f"{list(getattr(out, 'shape', [type(out).__name__]))}: as lambda t: t[:, 1:].reshape(-1, 14, 14, "
            "t.shape[-1])"
        )
    # Numbers that tell the elements apart, exact in float32, and whose multiples are not among them.
    labels = 2**23 + np.random.default_rng(0).permutation(value.size).astype(np.float32).reshape(value.shape)
    with jax.ensure_compile_time_eval():
        moved = np.asarray(reshape(jnp.asarray(labels)))
    if not np.isin(moved, labels).all() or np.unique(moved).size != moved.size:
        raise ValueError(
            "grid must select and move values only, each at most once: it scales, repeats or mixes them, so that a "
            "change of the grid cannot be taken back to the layer"
        )

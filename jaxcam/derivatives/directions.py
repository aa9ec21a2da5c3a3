"""Directional derivatives of any order, along many directions at a time.

Dⁿg[v, ..., v], n = 1 … `order`, of a scalar function g at one point, by nesting a first derivative along v.
`forward` and `backward` are the two ways to take that one. Neither uses the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.programs.program import Atom, num_bytes
from jaxcam.programs.specs import varied

__all__ = [
    "Arrays",
    "Slope",
    "along",
    "along_basis",
    "along_columns",
    "along_elements",
    "backward",
    "chunk_length",
    "forward",
    "in_chunks",
    "jacobian_columns",
]

_CHUNK_BYTES = 2**28

Arrays: TypeAlias = tuple[Array, ...]
Slope: TypeAlias = Callable[[Callable[..., Any], Arrays, Arrays], tuple[Any, tuple[Any, ...]]]


def forward(g: Callable[..., Any], point: Arrays, direction: Arrays) -> tuple[Any, tuple[Any, ...]]:
    """The slope of g, which may return several arrays, along the direction by `jax.jvp`; and what else g returns."""
    _, slope, lower = jax.jvp(g, point, direction, has_aux=True)
    return slope, lower


def backward(g: Callable[..., Any], point: Arrays, direction: Arrays) -> tuple[Array, Arrays]:
    """The slope of g along the direction by `jax.grad`, and what else g returns."""
    gradient, lower = jax.grad(g, argnums=tuple(range(len(point))), has_aux=True)(*point)
    first, *others = [jnp.sum(part * along) for part, along in zip(gradient, direction, strict=True)]
    return sum(others, first), lower


def along_basis(g: Callable[[Array], Array], point: Array, *, order: int, slope: Slope, chunk_size: int) -> Arrays:
    """∂ⁿg/∂x_eⁿ for every element e of the point: one pass of g for each."""
    found = along_elements(g, point, np.arange(point.size), order=order, slope=slope, chunk_size=chunk_size)
    return tuple(derivative.reshape(point.shape) for derivative in found)


def along_elements(
    g: Callable[[Array], Array], point: Array, elements: np.ndarray, *, order: int, slope: Slope, chunk_size: int
) -> Arrays:
    """The same for these elements, counted through the point in order: `[element]`."""

    def derivatives(element: Array) -> Arrays:
        return along(g, (point,), _unit((point,), element), order=order, slope=slope)

    elements, _ = varied((jnp.asarray(elements), point))
    return tuple(found.astype(point.dtype) for found in in_chunks(derivatives, elements, chunk_size))


def along_columns(
    g: Callable[..., Array], point: Arrays, columns: Arrays, *, order: int, slope: Slope, chunk_size: int
) -> Arrays:
    """Dⁿg[s, ..., s] for every s in the leading axis of the columns."""
    return in_chunks(lambda column: along(g, point, column, order=order, slope=slope), columns, chunk_size)


def jacobian_columns(pull: Callable[[Arrays], tuple[Array]], outputs: Arrays, *, chunk_size: int) -> Arrays:
    """The derivatives of the outputs by each element of one input: `[element, *output]` for each output.

    One reverse pass, `pull`, for every element of the outputs. Each column is contiguous in memory: passes
    along some columns at a time are several times faster than if they had to pick them out of rows.
    """
    width = sum(output.size for output in outputs)
    elements, _ = varied((jnp.arange(width), outputs))
    rows = in_chunks(lambda element: pull(_unit(outputs, element))[0].reshape(-1), elements, chunk_size)
    columns, start = [], 0
    for output in outputs:
        part = rows[start : start + output.size].T
        columns.append(part.reshape(-1, *output.shape).astype(output.dtype))
        start += output.size
    return tuple(columns)


def along(g: Callable[..., Any], point: Arrays, direction: Arrays, *, order: int, slope: Slope) -> tuple[Any, ...]:
    """Dⁿg[v, ..., v], n = 1 … `order`: each what g returns."""

    def higher(g: Callable[..., Any]) -> Callable[..., Any]:
        # g returns its value and the derivatives below it; this, the slope of that value and one more below.
        def derivative(*point: Array) -> tuple[Any, tuple[Any, ...]]:
            value, lower = slope(g, point, direction)
            return value, (*lower, value)

        return derivative

    def nested(*point: Array) -> tuple[Any, tuple[Any, ...]]:
        return g(*point), ()

    for _ in range(order):
        nested = higher(nested)
    return nested(*point)[1]


def chunk_length(count: int, values: Iterable[Atom], *, order: int) -> int:
    """How many of `count` directions keep these values, and `order` derivatives of each, within 256 MiB.

    Chunks of about the same length.
    """
    chunks = math.ceil(count * (order + 1) * sum(map(num_bytes, values)) / _CHUNK_BYTES)
    return math.ceil(count / max(1, min(chunks, count)))


def _unit(arrays: Arrays, element: Array) -> Arrays:
    """The unit vector along one element of the arrays, counted through them in order."""
    units, start = [], 0
    for array in arrays:
        places = jnp.arange(start, start + array.size).reshape(array.shape)
        units.append((places == element).astype(array.dtype))
        start += array.size
    return tuple(units)


def in_chunks(function: Callable[[Any], Any], inputs: Any, chunk_size: int) -> Any:
    """`function` of each element of the leading axis, `chunk_size` of them at a time.

    Chunks are recomputed when something differentiates through them, so that this memory stays bounded too.
    """
    if len(jax.tree.leaves(inputs)[0]) <= chunk_size:
        return jax.vmap(function)(inputs)
    return jax.lax.map(jax.checkpoint(function, prevent_cse=False), inputs, batch_size=chunk_size)

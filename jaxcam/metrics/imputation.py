"""ROAD: remove and debias. Pixels are removed by filling them from their neighbours, not by blackening them.

A black patch is itself something to see: its outline tells where the map was, and the network has never met it. What is
filled in smoothly, with a little noise, tells neither. **Source**: Rong et al. 2022, "A consistent and efficient
evaluation strategy for attribution methods".
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from jaxcam.checks import check_integer, check_number, check_numbers
from jaxcam.metrics.curves import ranks
from jaxcam.metrics.operands import (
    Heatmap,
    Image,
    Mask,
    check_all_floating,
    check_fits,
    check_image,
    is_explanation,
    together,
    where_defined,
)

_WEIGHTS = {(i, j): 1 / 6 if 0 in (i, j) else 1 / 12 for i, j in product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)}
"""Of the eight neighbours: twice as much for those that share a side."""
PERCENTILES = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)


def imputed(image: Image, removed: Mask, *, noise: float = 0.01, key: Array | None = None) -> Float[Array, "H W d"]:
    """The picture with some pixels filled in: each is the weighted mean of its eight neighbours, filled ones included.

    x_e = Σ_n w_n x_n / Σ_n w_n over the neighbours inside of the picture, 1/6 for a common side and 1/12 for a common
    corner. The equations of all removed pixels are solved together, by conjugate gradients.

    Args:
        image: `[H, W, d]`.
        removed: which pixels, bool `[H, W]`.
        noise: the standard deviation of the normal noise that is added to the filled pixels, in the picture's units.
        key: of the noise; without one none is added.

    Returns:
        `[H, W, d]`; NaN where every pixel is removed: nothing is left to fill from.

    Raises:
        ValueError: the shapes do not fit, or noise is negative.

        TypeError: image is not floating point, or removed not bool.

    **Source**: Rong et al. 2022, section 4.2.
    """
    check_image(image)
    if image.ndim != 3:
        raise ValueError(f"image must be [H, W, d], but came as {list(image.shape)}: only pictures are filled in")
    if not hasattr(removed, "dtype") or removed.dtype != bool:
        raise TypeError("removed must be a bool array [H, W]: use mask > 0")
    if removed.shape != image.shape[:2]:
        raise ValueError(
            f"removed must be [H, W] of the image, {list(image.shape[:2])}, but came as {list(removed.shape)}"
        )
    scale = check_number("noise", noise, low=0)
    (values,) = together(image)
    unknown = jnp.asarray(removed)[..., None]
    known = jnp.where(unknown, 0, values)
    weight = _of_neighbours(jnp.ones((*values.shape[:2], 1), values.dtype))

    # Of the pixels that stay the equation is x = 0: so all pictures have as many unknowns, and vmap takes this.
    def equations(x: Array) -> Array:
        return jnp.where(unknown, weight * x - _of_neighbours(jnp.where(unknown, x, 0)), x)

    num_known = (~unknown).sum().astype(values.dtype)
    mean = known.sum((0, 1), keepdims=True) / jnp.maximum(num_known, 1)
    right = jnp.where(unknown, _of_neighbours(known), 0)
    start = jnp.where(unknown, mean, 0)
    exactness = 1e-5 if values.dtype == jnp.float32 else 1e-12
    filled, _ = cg(equations, right, x0=start, tol=exactness, maxiter=10 * sum(values.shape[:2]))
    if key is not None:
        filled = filled + scale * jax.random.normal(key, values.shape, values.dtype)
    return where_defined(num_known > 0, jnp.where(unknown, filled, values)).astype(image.dtype)


def road(
    f: Callable[[Any], Any],
    image: Image,
    heatmap: Heatmap,
    *,
    percentiles: Sequence[float | int] = PERCENTILES,
    noise: float = 0.01,
    key: Array | None = None,
    batch_size: int = 6,
) -> Float[Array, ""]:
    """(f with the least relevant pixels removed - f with the most relevant ones) / 2, mean over percentiles.

    At the percentile p the pixels at or above it go: of the heatmap for the most relevant, of its negative for the
    least relevant ones, so that p = 90 removes a tenth. Higher is better; a random map has 0. f is called 2 times the
    number of percentiles, and as many systems are solved.

    Args:
        f: from a picture `[H, W, d]` to its confidence, a scalar.
        image: `[H, W, d]`.
        heatmap: L, `[H, W]`; only the order of its values matters, of equal ones reading order. (The package `grad-cam`
            removes all that are equal to the percentile, which may be every pixel where most are 0.)
        percentiles: in (0, 100): at 0 every pixel would go, and none be left to fill from.
        noise: as in `imputed`.
        key: as in `imputed`; the same for all percentiles.
        batch_size: how many pictures f sees at a time (through vmap).

    Returns:
        A scalar; NaN where the heatmap is zero or not finite.

    Raises:
        ValueError: the shapes do not fit, f does not return a scalar, or a number is out of range.

        TypeError: f is not callable, an array not floating point, or a number none.

    **Source**: Rong et al. 2022; the combination of both orders is that of the package `grad-cam` (ROADCombined).
    """
    if not callable(f):
        raise TypeError(f"f must be a function from an image to its confidence, not {type(f).__name__}")
    check_image(image)
    check_fits(heatmap, image)
    batch = check_integer("batch_size", batch_size, low=1)
    values = jnp.asarray(heatmap)
    order, counts = ranks(values), num_removed(values.size, percentiles)
    most_first = jnp.asarray(np.repeat([True, False], len(counts)))

    def after(removal: tuple[Array, Array]) -> Array:
        count, most = removal
        removed = removed_of(order, count, most)
        return f(imputed(image, removed, noise=noise, key=key))

    found = jax.lax.map(after, (jnp.asarray(counts * 2, jnp.int32), most_first), batch_size=batch)
    if getattr(found, "shape", None) != (2 * len(counts),):
        raise ValueError(
            f"f must return a scalar, the confidence in one class, but it returned {list(found.shape[1:])}"
        )
    check_all_floating(**{"the value of f": found})
    return where_defined(is_explanation(values), (found[len(counts) :] - found[: len(counts)]).mean() / 2)


def num_removed(size: int, percentiles: Sequence[float | int] = PERCENTILES) -> list[int]:
    """How many of the positions lie at or above each percentile, which is linear between neighbours.

    Raises:
        ValueError: there is none, or one is not in (0, 100).
    """
    shares = check_numbers("percentiles", percentiles, above=0, below=100)
    return [size - math.ceil((size - 1) * share / 100) for share in shares]  # whole numbers, made outside of XLA


def removed_of(order: Array, count: Array, most: Array | bool) -> Array:
    """The so many most relevant positions, or least relevant ones, by their `ranks`."""
    return jnp.where(most, order < count, order >= order.size - count)


def _of_neighbours(x: Array) -> Array:
    """The weighted sum of the eight neighbours; beyond the edges there is nothing."""
    height, width = x.shape[:2]
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    parts = (w * padded[1 + i : 1 + i + height, 1 + j : 1 + j + width] for (i, j), w in _WEIGHTS.items())
    return sum(parts, jnp.zeros_like(x))

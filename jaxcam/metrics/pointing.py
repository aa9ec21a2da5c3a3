"""Whether a heatmap L points at an object: where its maximum lies, and where its energy."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam.checks import check_number
from jaxcam.metrics.operands import Heatmap, Mask, check_heatmap, check_mask, is_explanation, together, where_defined


def pointing_game(heatmap: Heatmap, mask: Mask, *, tolerance: float = 15.0) -> Float[Array, ""]:
    """1 if the heatmap's maximum lies on the object or close to it, else 0. Higher is better.

    Where several pixels share the maximum, the fraction of them that hit: flipping the picture changes nothing, and a
    heatmap that is constant gets the share of the picture that counts as a hit.

    Args:
        heatmap: L, `[*grid]`; a positive factor changes nothing.
        mask: where the object is, `[*grid]`.
        tolerance: how far from the mask a hit may lie, in pixels, between the pixels' centres. 15 belongs to pictures
            of 224 or so: scale it with other sizes.

    Returns:
        In [0, 1]; NaN where the mask is empty, or the heatmap zero or not finite.

    Raises:
        ValueError: the shapes differ, or tolerance is negative.

        TypeError: heatmap is not floating point, mask not bool, or tolerance not a number.

    **Source**: Zhang et al. 2018 (Top-down neural attention by excitation backprop), section 4.1.
    """
    check_heatmap(heatmap)
    check_mask(mask, heatmap)
    radius = check_number("tolerance", tolerance, low=0)
    (values,) = together(heatmap)
    inside = jnp.asarray(mask)
    is_top = values == values.max()
    hits, tops = (each.sum().astype(values.dtype) for each in (is_top & dilated(inside, radius), is_top))
    defined = inside.any() & is_explanation(values)
    return where_defined(defined, hits / jnp.where(defined, tops, 1)).astype(heatmap.dtype)


def energy_pointing_game(heatmap: Heatmap, mask: Mask) -> Float[Array, ""]:
    """The sum of L inside the mask over the sum of L, in [0, 1]. Higher is better.

    Args:
        heatmap: L, not negative, `[*grid]`; a positive factor changes nothing.
        mask: where the object is, `[*grid]`.

    Returns:
        NaN where the heatmap is zero or not finite, or the mask empty.

    Raises:
        ValueError: the shapes differ.

        TypeError: heatmap is not floating point, or mask not bool.

    **Source**: Wang et al. 2020 (Score-CAM), section 4.3.
    """
    check_heatmap(heatmap)
    check_mask(mask, heatmap)
    (values,) = together(heatmap)
    inside, top = jnp.asarray(mask), values.max()
    defined = inside.any() & is_explanation(values) & (top > 0)
    shares = values / jnp.where(defined, top, 1)  # their sum neither overflows nor underflows
    energy = jnp.where(inside, shares, 0).sum() / jnp.where(defined, shares.sum(), 1)
    return where_defined(defined, energy).astype(heatmap.dtype)


def dilated(mask: Bool[Array, "*grid"], radius: float) -> Bool[Array, "*grid"]:
    """The positions whose centre lies within `radius` of the centre of one of the mask: exactly, by a ball.

    The squared distance to the mask along the first axis comes from two running maxima; with each further axis it is
    the least of those of the neighbours j + dx, plus dx^2. Integers, compared without rounding.
    """
    square = min(math.floor(radius * radius), sum((n - 1) ** 2 for n in mask.shape))
    far = math.isqrt(square) + 1  # further than it may be, and its square is no large number
    length = mask.shape[0]
    rows = jnp.arange(length, dtype=jnp.int32).reshape(-1, *(1,) * (mask.ndim - 1))
    rows = jnp.broadcast_to(rows, mask.shape)
    above = rows - jax.lax.cummax(jnp.where(mask, rows, -far), axis=0)
    below = jax.lax.cummin(jnp.where(mask, rows, length + far), axis=0, reverse=True) - rows
    distance = jnp.minimum(jnp.minimum(above, below), far)
    if mask.ndim == 1:
        return distance < far
    distance = distance**2
    for axis in range(1, mask.ndim):
        distance = _nearest(distance, axis, min(far - 1, mask.shape[axis] - 1), far * far)
    return distance <= square


def _nearest(distance: Array, axis: int, reach: int, far: int) -> Array:
    """The least of distance[j + dx] + dx^2 along an axis, for dx up to `reach`; `far` beyond the edges."""
    size = distance.shape[axis]
    padded = jnp.pad(
        distance, [(reach, reach) if i == axis else (0, 0) for i in range(distance.ndim)], constant_values=far
    )

    def with_neighbours(k: Array, nearest: Array) -> Array:
        neighbours = jax.lax.dynamic_slice_in_dim(padded, k, size, axis=axis)
        return jnp.minimum(nearest, neighbours + (k - reach) ** 2)

    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(2 * reach + 1), with_neighbours, jnp.full_like(distance, far))

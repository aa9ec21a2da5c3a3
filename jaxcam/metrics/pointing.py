"""Whether a heatmap L points at an object: where its maximum lies, and where its energy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam.checks import check_number
from jaxcam.metrics.operands import Heatmap, Mask, check_heatmap, check_mask, is_explanation, together, where_defined


def pointing_game(heatmap: Heatmap, mask: Mask, *, tolerance: float = 15.0) -> Float[Array, ""]:
    """1 if the heatmap's maximum lies on the object or close to it, else 0. Higher is better.

    Where several pixels share the maximum, the fraction of them that hit: flipping the picture changes nothing, and a
    heatmap that is constant gets the share of the picture that counts as a hit.

    Args:
        heatmap: L, `[H, W]`; a positive factor changes nothing.
        mask: where the object is, `[H, W]`.
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
        heatmap: L, not negative, `[H, W]`; a positive factor changes nothing.
        mask: where the object is, `[H, W]`.

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


def dilated(mask: Bool[Array, "H W"], radius: float) -> Bool[Array, "H W"]:
    """The pixels whose centre lies within `radius` of the centre of a pixel of the mask: exactly, by a disc.

    The distance to the mask within each column comes from two running maxima. A pixel is hit through column j + dx if
    that distance there is at most sqrt(radius^2 - dx^2): integers, compared without rounding.
    """
    height, width = mask.shape
    far = 2 * height  # further than any distance within a column
    rows = jnp.broadcast_to(jnp.arange(height, dtype=jnp.int32)[:, None], mask.shape)
    above = rows - jax.lax.cummax(jnp.where(mask, rows, -far), axis=0)
    below = jax.lax.cummin(jnp.where(mask, rows, far + height), axis=0, reverse=True) - rows
    distance = jnp.minimum(above, below)
    square = math.floor(radius * radius)
    reach = min(math.isqrt(square), width - 1)
    # Half the disc's height in the column dx; at most the picture's.
    halves = [min(math.isqrt(square - dx * dx), height - 1) for dx in range(-reach, reach + 1)]
    allowed = jnp.asarray(np.asarray(halves, np.int32))
    padded = jnp.pad(distance, ((0, 0), (reach, reach)), constant_values=far)

    def with_column(k: Array, hit: Array) -> Array:
        column = jax.lax.dynamic_slice_in_dim(padded, k, width, axis=1)
        return hit | (column <= allowed[k])

    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(len(halves)), with_column, jnp.zeros_like(mask))

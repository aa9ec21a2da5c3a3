"""Maps: weights `[k]` and activations A `[*spatial, k]` -> cam_map `[*spatial]` -> heatmap `[H, W]` in [0, 1].

For one image; any number of spatial axes. A map that is zero everywhere stays zero: there is no NaN, and the gradients
through it are finite.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.checks import check_floating, check_number
from jaxcam.precision import widened
from jaxcam.programs.notes import note

__all__ = ["explanation_map", "heatmap", "normalised", "resized", "weighted_map", "with_mean"]

_ENDS = 20.0
"""Powers from 2^-20, where 1e-30 has become 0.99993, to 2^20, where 0.9999 has become 0."""


def __dir__() -> list[str]:
    return __all__


def weighted_map(weights: Float[Array, " k"], activations: Float[Array, "*spatial k"]) -> Float[Array, "*spatial"]:
    """ReLU(sum_k w_k A_k): what speaks for the class. **Source**: Selvaraju et al. 2017, Eq. 2.

    Added up in float32 where the activations are narrower, and returned in their type. Notes the sum as "signed".
    """
    weights, wide = widened(weights, activations)
    total = jnp.tensordot(wide, weights.astype(wide.dtype), axes=1)
    note("signed", lambda: total.astype(activations.dtype))
    return jax.nn.relu(total).astype(activations.dtype)


def normalised(cam_map: Float[Array, "*spatial"]) -> Float[Array, "*spatial"]:
    """ReLU(map) / max(map), in [0, 1]; zero where the map has no positive value."""
    top = cam_map.max()
    return jnp.where(top > 0, jax.nn.relu(cam_map) / jnp.where(top > 0, top, 1), 0)


def with_mean(
    cam_map: Float[Array, "*spatial"] | Float[np.ndarray, "*spatial"],
    mean: float | Float[Array, ""] | Float[np.ndarray, ""],
) -> Float[Array, "*spatial"]:
    """L^p, the normalised map to the power p > 0 for which its mean is `mean`: the same order, another area.

    The control for maps of different size: a map that shows more of the picture loses less of the confidence by that
    alone, and two maps of the same mean differ only in what they show.

        [[1, 1/4], [0, 0]], to the mean 3/8: (1 + 4^-p) / 4 = 3/8, p = 1/2, [[1, 1/2], [0, 0]]

    Args:
        cam_map: a raw map or one in [0, 1], any number of spatial axes.
        mean: from 0 to 1, a number or a scalar array, which is not checked to be in range: mostly
            `normalised(other).mean()` of another map.

    Returns:
        In [0, 1]; zero where the map has no positive value. The mean of L^p falls from the share of positive positions
        (p to 0) to that of positions with the maximum (p to infinity): a mean outside of these is not reached, and the
        map is the nearest one, 1 at each such position. Its own mean tells. Gradients are those of the solution. A map
        that is `resized` to a multiple of its grid keeps its mean. NaN where the map or the mean is not finite.

    Raises:
        ValueError: mean is a number that is out of range or an array with axes, or cam_map is empty.

        TypeError: mean is no number, or cam_map not floating point.
    """
    check_floating("cam_map", cam_map)
    if 0 in cam_map.shape:
        raise ValueError(f"cam_map is empty: its shape is {list(cam_map.shape)}")
    is_array = isinstance(mean, jax.Array | np.ndarray)
    if is_array and mean.ndim:
        raise ValueError(f"mean must be one number but is {list(mean.shape)}: use jax.vmap over maps and means")
    target = jnp.asarray(mean if is_array else check_number("mean", mean, low=0, high=1))
    (shown,) = widened(normalised(jnp.asarray(cam_map)))
    target = target.astype(shown.dtype)
    is_positive = shown > 0
    logarithm = jnp.log(jnp.where(is_positive, shown, 1))

    def power(p: Array, logarithm: Array = logarithm) -> Array:
        return jnp.where(is_positive, jnp.exp(p * logarithm), 0)

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        is_large = power(jnp.exp2(middle), jax.lax.stop_gradient(logarithm)).mean() > target
        return jnp.where(is_large, middle, low), jnp.where(is_large, high, middle)

    ends = jnp.asarray(-_ENDS, shown.dtype), jnp.asarray(_ENDS, shown.dtype)
    low, high = jax.lax.fori_loop(0, 48, halved, ends)
    p = jnp.exp2((low + high) / 2)
    # One step of Newton's method, whose gradient is that of the solution: dp = -d mean(L^p) / (d mean(L^p) / dp).
    most, least = (each.mean(dtype=shown.dtype) for each in (is_positive, shown == 1))
    is_reached = (least < target) & (target < most)
    slope = jax.lax.stop_gradient((power(p) * logarithm).mean())
    p = p - jnp.where(is_reached, (power(p).mean() - target) / jnp.where(is_reached, slope, 1), 0)
    is_finite = jnp.isfinite(jnp.asarray(cam_map)).all() & jnp.isfinite(target)
    return jnp.where(is_finite, power(p), jnp.nan).astype(cam_map.dtype)


def resized(cam_map: Float[Array, "*spatial"], size: Sequence[int]) -> Float[Array, "*size"]:
    """The map stretched linearly (bilinearly in two dimensions) to `size`, pixel centres aligned, edges held.

    Where the map is made smaller, each pixel is the mean of those that it covers, weighed by a triangle. These are the
    values of `jax.image.resize(cam_map, size, "linear")`; that computes the weights in the program, which takes longer
    to compile than the map itself.
    """
    for axis, (length, wanted) in enumerate(zip(cam_map.shape, size, strict=True)):
        if length != wanted:
            (wide,) = widened(cam_map)
            weights = jnp.asarray(_linear_weights(length, wanted), wide.dtype)
            highest = jax.lax.Precision.HIGHEST
            # The new axis comes out first or last, where that of the last step stays: no heatmap is transposed.
            if axis:
                product = jnp.moveaxis(jnp.tensordot(wide, weights, axes=(axis, 1), precision=highest), -1, axis)
            else:
                product = jnp.tensordot(weights, wide, axes=1, precision=highest)
            cam_map = product.astype(cam_map.dtype)
    return cam_map


def heatmap(cam_map: Float[Array, "*spatial"], size: Sequence[int]) -> Float[Array, "*size"]:
    """The normalised map, resized to the picture. **Source**: Chattopadhay et al. 2018, section 4."""
    return resized(normalised(cam_map), size)


def explanation_map(
    image: Float[Array, "*grid d"] | Float[np.ndarray, "*grid d"],
    heatmap: Float[Array, "*grid"] | Float[np.ndarray, "*grid"],
) -> Float[Array, "*grid d"]:
    """E = L ∘ I: the picture, dimmed wherever the heatmap is low.

    Args:
        image: I, pixels in [0, 1] `[H, W, 3]`, with any leading axes; or a series `[t, d]`, a volume ... Mask pictures
            before normalising: 0 is then black.
        heatmap: L in [0, 1], `[H, W]` with the same leading axes; of the same positions.

    Raises:
        ValueError: the shapes do not fit; resize the heatmap first (`jaxcam.maps.resized`).

        TypeError: image is not floating point.

    **Source**: Chattopadhay et al. 2018, Eq. 25.
    """
    if not jnp.issubdtype(jnp.result_type(image), jnp.floating):
        raise TypeError(f"image must be floating point in [0, 1], but its dtype is {image.dtype}: divide uint8 by 255")
    if jnp.shape(image)[:-1] != jnp.shape(heatmap):
        raise ValueError(
            f"heatmap must be [H, W] of the image {jnp.shape(image)}, that is {jnp.shape(image)[:-1]}, "
            f"but came as {jnp.shape(heatmap)}: resize it to the image first"
        )
    return jnp.asarray(image) * jnp.expand_dims(jnp.asarray(heatmap), -1)


def _linear_weights(length: int, wanted: int) -> Float[np.ndarray, "wanted length"]:
    """How much of each position goes into each of the wanted ones: rows that sum to 1.

    From 2 positions to 4 the centres of the wanted ones lie at -0.25, 0.25, 0.75 and 1.25: [1, 0], [.75, .25] ...
    """
    scale = length / wanted
    centres = (np.arange(wanted) + 0.5) * scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(length)[None])
    triangle = np.maximum(0, 1 - distance / max(scale, 1.0))
    return triangle / triangle.sum(1, keepdims=True)

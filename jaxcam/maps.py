"""Maps: weights `[k]` and activations A `[*spatial, k]` -> cam_map `[*spatial]` -> heatmap `[H, W]` in [0, 1].

For one image; any number of spatial axes. A map that is zero everywhere stays zero: there is no NaN, and the gradients
through it are finite.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.precision import widened
from jaxcam.programs.notes import note

__all__ = ["explanation_map", "heatmap", "normalised", "resized", "weighted_map"]


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
    positive = jax.nn.relu(cam_map)
    top = positive.max()
    return jnp.where(top > 0, positive / jnp.where(top > 0, top, 1), 0)


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
            # The new axis comes out last, where that of the last step stays: the whole heatmap is not transposed.
            product = jnp.tensordot(wide, weights, axes=(axis, 1), precision=jax.lax.Precision.HIGHEST)
            cam_map = jnp.moveaxis(product, -1, axis).astype(cam_map.dtype)
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

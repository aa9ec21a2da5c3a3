"""Images behind masks: what a network is shown of an image, and what in its place.

An image is `[*grid, d]`: a picture `[H, W, d]`, a series `[t, d]`, a volume or clip with three axes of positions.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.checks import check_number
from jaxcam.metrics.operands import (
    Heatmap,
    Image,
    check_fits,
    check_image,
    together,
)


def blurred(image: Image, sigma: float | Sequence[float]) -> Float[Array, "*grid d"]:
    """The image behind a Gaussian blur, each channel by itself; edges held.

    Args:
        image: `[*grid, d]`.
        sigma: in positions (pixels, samples, voxels), for all axes or one for each. The weights
            exp(-x^2 / (2 sigma^2)) reach to |x| = ceil(3 sigma) and sum to 1.

    Returns:
        `[*grid, d]`.

    Raises:
        ValueError: image is not `[*grid, d]`, or sigma is not positive, or not one for each axis.

        TypeError: image is not floating point, or sigma not a number.
    """
    check_image(image)
    num_axes = image.ndim - 1
    sigmas = list(sigma) if isinstance(sigma, list | tuple) else [sigma] * num_axes
    if len(sigmas) != num_axes:
        raise ValueError(f"sigma must be one number, or one for each of the {num_axes} axes of positions, not {sigma}")
    (values,) = together(image)
    for axis, wide in enumerate(sigmas):
        weights = jnp.asarray(_weights(values.shape[axis], check_number("sigma", wide, above=0)), values.dtype)
        # Accelerators would multiply in fewer digits if they were not told.
        product = jnp.tensordot(weights, values, axes=(1, axis), precision=jax.lax.Precision.HIGHEST)
        values = jnp.moveaxis(product, 0, axis)
    return values.astype(image.dtype)


def _weights(size: int, sigma: float) -> np.ndarray:
    """What each of `size` pixels in a line gives to each, `[to, from]`; beyond the ends the last pixel goes on."""
    # As a matrix: two products are several times faster than convolutions with few channels.
    radius = math.ceil(3 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    to = np.arange(size)[:, None]
    matrix = np.zeros((size, size))
    np.add.at(matrix, (to, np.clip(to + offsets, 0, size - 1)), weights / weights.sum())
    return matrix


def blended(image: Image, heatmap: Heatmap, baseline: Image) -> Float[Array, "*grid d"]:
    """L ∘ image + (1 - L) ∘ baseline: the image where the heatmap is 1, the baseline where it is 0.

    With a black baseline it is the explanation map of `maps.explanation_map`; with 1 - L for L, the inverse one.

    Args:
        image: `[*grid, d]`.
        heatmap: L in [0, 1], `[*grid]`.
        baseline: what stands in the image's place, `[*grid, d]`.

    Returns:
        `[*grid, d]`, in the image's type.

    Raises:
        ValueError: the shapes do not fit.

        TypeError: not floating point.
    """
    check_image(image, baseline=baseline)
    check_fits(heatmap, image)
    shown, share, behind = together(image, heatmap, baseline)
    return (share[..., None] * shown + (1 - share[..., None]) * behind).astype(image.dtype)

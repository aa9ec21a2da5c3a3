"""Pictures behind masks: what a network is shown of an image, and what in its place."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.checks import check_number
from jaxcam.metrics.operands import (
    Heatmap,
    Image,
    check_heatmap,
    check_image,
    together,
)


def blurred(image: Image, sigma: float) -> Float[Array, "H W d"]:
    """The image behind a Gaussian blur, each channel by itself; edges held.

    Args:
        image: `[H, W, d]`.
        sigma: in pixels. The weights exp(-x^2 / (2 sigma^2)) reach to |x| = ceil(3 sigma) and sum to 1.

    Returns:
        `[H, W, d]`.

    Raises:
        ValueError: image is not `[H, W, d]`, or sigma is not positive.

        TypeError: image is not floating point, or sigma not a number.
    """
    check_image(image)
    sigma = check_number("sigma", sigma, above=0)
    (values,) = together(image)
    over_rows, over_columns = (jnp.asarray(_weights(n, sigma), values.dtype) for n in values.shape[:2])
    # Accelerators would multiply in fewer digits if they were not told.
    result = jnp.einsum("ih,jw,hwd->ijd", over_rows, over_columns, values, precision=jax.lax.Precision.HIGHEST)
    return result.astype(image.dtype)


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


def blended(image: Image, heatmap: Heatmap, baseline: Image) -> Float[Array, "H W d"]:
    """L ∘ image + (1 - L) ∘ baseline: the image where the heatmap is 1, the baseline where it is 0.

    With a black baseline it is the explanation map of `maps.explanation_map`; with 1 - L for L, the inverse one.

    Args:
        image: `[H, W, d]`.
        heatmap: L in [0, 1], `[H, W]`.
        baseline: what stands in the image's place, `[H, W, d]`.

    Returns:
        `[H, W, d]`, in the image's type.

    Raises:
        ValueError: the shapes do not fit.

        TypeError: not floating point.
    """
    check_image(image, baseline=baseline)
    check_heatmap(heatmap)
    if heatmap.shape != image.shape[:2]:
        raise ValueError(
            f"heatmap must be [H, W] of the image, {list(image.shape[:2])}, but came as {list(heatmap.shape)}: "
            "resize it to the image first"
        )
    shown, share, behind = together(image, heatmap, baseline)
    return (share[..., None] * shown + (1 - share[..., None]) * behind).astype(image.dtype)

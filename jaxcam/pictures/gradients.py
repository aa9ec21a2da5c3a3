"""A signed gradient by the picture's own pixels -> a picture: grey where it is zero, clipped at a percentile."""

import numpy as np
from jax import Array
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float
from PIL import Image

from jaxcam.checks import check_number
from jaxcam.images.picture import to_pillow


def gradient_picture(
    gradient: Float[np.ndarray, "H W d"] | Float[Array, "H W d"], *, percentile: int | float = 99.5
) -> Image.Image:
    """Draws what guided backpropagation and guided Grad-CAM make, as in their papers: fine detail on mid-grey.

    Centred, so that zero is grey, and clipped: with s the percentile of |gradient| over all values,

        picture = 1/2 + 1/2 · clip(gradient / s, -1, 1).

    A few values are many times larger than the rest; without clipping everything else would be grey.

    Args:
        gradient: `[H, W, 3]`, or `[H, W, 1]` for grey pictures, signed, of any scale: `Explanation.gradient[i]`.
        percentile: above 0, up to 100 (no clipping). Where less than that is not zero, s is the maximum.

    Returns:
        A Pillow image, RGB, W by H pixels.

    Raises:
        TypeError: gradient is not a concrete array of a floating dtype, or percentile is not a number.
        ValueError: the shape is not `[H, W, 3]` or `[H, W, 1]`, it is empty or not finite, or percentile is not in
            (0, 100].
    """
    values = _checked(gradient)
    check_number("percentile", percentile, above=0, high=100)
    magnitude = np.abs(values)
    largest = magnitude.max()
    if largest == 0:
        return to_pillow(np.full((*values.shape[:2], 3), 0.5, np.float32))
    magnitude /= largest  # before anything else: gradients may be as small as float32 goes
    scale = np.percentile(magnitude, percentile) or 1.0
    centred = 0.5 + 0.5 * np.clip(values / largest / scale, -1, 1)
    return to_pillow(np.broadcast_to(centred, (*values.shape[:2], 3)).astype(np.float32))


def _checked(gradient: np.ndarray | Array) -> Float[np.ndarray, "H W d"]:
    if not isinstance(gradient, np.ndarray | Array) or isinstance(gradient, Tracer):
        kind = "a traced array" if isinstance(gradient, Tracer) else type(gradient).__name__
        raise TypeError(
            f"gradient must be a concrete array [H, W, 3], got {kind}: pass found.gradient[0], outside of jit"
        )
    if not jnp.issubdtype(gradient.dtype, jnp.floating):
        raise TypeError(f"gradient must be floating point, got {gradient.dtype}")
    if gradient.ndim != 3 or gradient.shape[-1] not in (1, 3):
        hint = ""
        if gradient.ndim == 4:
            hint = ": pass one of the batch, gradient[0]"
        elif gradient.ndim == 3 and gradient.shape[0] in (1, 3):
            hint = ": move the channels last with np.moveaxis(gradient, 0, -1)"
        raise ValueError(f"gradient must have shape [H, W, 3] or [H, W, 1], got {list(gradient.shape)}{hint}")
    if gradient.size == 0:
        raise ValueError(f"gradient is empty: its shape is {list(gradient.shape)}")
    values = np.asarray(gradient).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("gradient must be finite, but holds NaN or infinity: look at the status of the explanation")
    return values

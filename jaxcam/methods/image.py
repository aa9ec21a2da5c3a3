"""The check of the image that the methods on a model share."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def checked_image(image: Float[Array, "..."] | Float[np.ndarray, "..."]) -> Array:
    """The image as an array of floats.

    Raises:
        TypeError: no array, or integers: a mask or noise would be rounded to 0 and 1, and the map be wrong.
    """
    if not isinstance(image, jax.Array | np.ndarray):
        raise TypeError(f"image must be an array [H, W, 3], not {type(image).__name__}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(
            f"image must be floating point and normalised for the model, but its dtype is {image.dtype}: "
            "divide by 255 and normalise as in training (model.preprocessing(picture) for jaxcam.models)"
        )
    return jnp.asarray(image)

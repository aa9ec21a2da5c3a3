"""The arguments of `explain`, checked: static facts only, and what to do about them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.checks import check_floating, check_integer, is_integer
from jaxcam.cuts.split import check_layer
from jaxcam.methods.method import Bound

__all__ = ["check_range", "classes_of", "images_of", "layers_of", "top_of"]


def images_of(images: Any) -> Array:
    """`[n, ...]` floats with two spatial axes."""
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        raise TypeError(f"images must be an array [n, H, W, 3] but is {type(images).__name__}: np.stack a list of them")
    if images.ndim != 4:
        hint = ": add the batch axis with images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be [n, H, W, 3] but came as {list(images.shape)}{hint}")
    if 0 in images.shape:
        raise ValueError(f"images must be one or more but are empty: their shape is {list(images.shape)}")
    remedy = "divide by 255 and normalise as in training (model.preprocessing(picture) for jaxcam.models)"
    check_floating("images", images, f": {remedy}")
    return jnp.asarray(images)


def layers_of(layer: Any, fusion: Any, method: Bound) -> tuple[Any, ...]:
    """One or several layers, as a tuple."""
    if fusion not in ("max", "mean"):
        raise ValueError(f"fusion must be 'max' or 'mean' but is {fusion!r}")
    listed: tuple[Any, ...] = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    if not listed:
        raise ValueError("layer must name at least one layer but is an empty list: leave it out for the default")
    if not method.takes_layer and listed != (None,):
        raise ValueError(f"method={method.name!r} goes back to the image and uses no layer: leave layer out")
    return tuple(map(check_layer, listed))


def classes_of(class_idx: Any, num_images: int) -> Array:
    """`[n]` integers, int32."""
    listed = isinstance(class_idx, list | tuple) and all(map(is_integer, class_idx))
    given: Any = np.asarray(class_idx, int) if listed else class_idx
    is_number = is_integer(given) or isinstance(given, np.ndarray | jax.Array)
    if not is_number or not jnp.issubdtype(jnp.result_type(given), jnp.integer):
        raise TypeError(f'class_idx must be an integer, an integer array [n], "all" or None but is {class_idx!r}')
    if jnp.shape(given) not in ((), (num_images,)):
        raise ValueError(
            f"class_idx must be one class or one for each of the {num_images} images but its shape is "
            f"{list(jnp.shape(given))}"
        )
    return jnp.broadcast_to(jnp.asarray(given).astype(jnp.int32), (num_images,))


def top_of(top: Any, class_idx: Any) -> int:
    """How many classes."""
    if class_idx is not None:
        raise ValueError("top and class_idx exclude each other: leave one of them out")
    return check_integer("top", top, low=1)


def check_range(class_idx: np.ndarray, num_classes: int) -> None:
    """That concrete classes exist: JAX clamps an index that is out of range, and would explain another class."""
    wrong = class_idx[(class_idx < 0) | (class_idx >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"class_idx={wrong[0]} is out of range: the model has {num_classes} classes, 0 to {num_classes - 1}"
        )

"""What metrics take: the types, the checks of static facts, and one precision for all arrays of a call."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam.checks import check_floating

Heatmap = Float[Array, "*grid"] | Float[np.ndarray, "*grid"]
Mask = Bool[Array, "*grid"] | Bool[np.ndarray, "*grid"]
Map = Float[Array, "*spatial"] | Float[np.ndarray, "*spatial"]
Values = Float[Array, "*n"] | Float[np.ndarray, "*n"]
Image = Float[Array, "*grid d"] | Float[np.ndarray, "*grid d"]


def check_all_floating(**arrays: Any) -> None:
    """That all are floating point arrays."""
    for name, value in arrays.items():
        check_floating(name, value)


def check_same_shape(**arrays: Any) -> None:
    """That all have the shape of the first, and that it is not empty."""
    (first, model), *others = arrays.items()
    if 0 in model.shape:
        raise ValueError(f"{first} is empty: its shape is {list(model.shape)}")
    for name, value in others:
        if value.shape != model.shape:
            raise ValueError(
                f"{name} must have the shape of {first}, {list(model.shape)}, but came as {list(value.shape)}"
            )


def check_heatmap(heatmap: Any) -> None:
    """That it is one floating point map `[*grid]`."""
    check_all_floating(heatmap=heatmap)
    if heatmap.ndim < 1:
        raise ValueError("heatmap must be [*grid], of one example, as [H, W] of a picture, but is a single number")
    check_same_shape(heatmap=heatmap)


def check_fits(heatmap: Any, image: Any) -> None:
    """That it is a map of the image's grid."""
    check_heatmap(heatmap)
    if heatmap.shape != image.shape[:-1]:
        raise ValueError(
            f"heatmap must be [*grid] of the image, {list(image.shape[:-1])}, but came as {list(heatmap.shape)}: "
            "resize it to the image first"
        )


def check_mask(mask: Any, heatmap: Any) -> None:
    """That it is bool and of the heatmap's shape."""
    if not hasattr(mask, "dtype") or mask.dtype != bool:
        kind = mask.dtype if hasattr(mask, "dtype") else type(mask).__name__
        raise TypeError(f"mask must be a bool array [*grid], not {kind}: use mask > 0")
    check_same_shape(heatmap=heatmap, mask=mask)


def check_image(image: Any, **others: Any) -> None:
    """That all are floating point `[*grid, d]` of one shape."""
    check_all_floating(image=image, **others)
    if image.ndim < 2:
        raise ValueError(
            f"image must be [*grid, d], as [H, W, d] of a picture, but came as {list(image.shape)}: add the channels' "
            "axis with image[..., None]"
        )
    check_same_shape(image=image, **others)


def widest(*arrays: Any) -> jnp.dtype:
    """The floating point type with the most digits among them."""
    return max((jnp.asarray(array).dtype for array in arrays), key=lambda dtype: jnp.finfo(dtype).bits)


def together(*arrays: Any) -> tuple[Array, ...]:
    """All in the widest type, float32 at least: sums over many pixels do not lose digits."""
    dtype = widest(*arrays)
    if jnp.finfo(dtype).bits < 32:
        dtype = jnp.dtype(jnp.float32)
    return tuple(jnp.asarray(array).astype(dtype) for array in arrays)


def is_explanation(heatmap: Array) -> Bool[Array, ""]:
    """Whether a map says anything: it is finite, and not zero everywhere. The one rule for every metric of a map.

    An empty map is no explanation. Were it given what the formulas make of it, it would win: it is the least complex
    of all, and where a network is sure of its class in front of black it has the lowest drop. So it is worth NaN,
    which means that it does not count, and whoever averages tells how many there were.
    """
    return jnp.isfinite(heatmap).all() & (heatmap != 0).any()


def is_explanation_numpy(heatmap: np.ndarray) -> bool:
    """The same on the host."""
    return bool(np.isfinite(heatmap).all() and heatmap.any())


def where_defined(is_defined: Any, value: Array) -> Array:
    """The value, and NaN where the metric is undefined."""
    return jnp.where(is_defined, value, jnp.nan)

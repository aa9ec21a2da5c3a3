"""The confidence while pixels appear or disappear, in the order of a heatmap: insertion, deletion and occlusion.

**Source**: Petsiuk et al. 2018 (RISE), section 4.2; Chattopadhay et al. 2018 (Grad-CAM++), section 7.2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.checks import check_integer
from jaxcam.metrics.operands import (
    Heatmap,
    Image,
    check_all_floating,
    check_fits,
    check_image,
    check_same_shape,
    is_explanation,
    together,
    where_defined,
    widest,
)

Confidence = Callable[[Any], Any]


def deletion_curve(
    f: Confidence, image: Image, heatmap: Heatmap, *, baseline: Image, num_steps: int = 32, batch_size: int = 8
) -> Float[Array, " steps"]:
    """The confidence while the pixels that matter most are replaced by the baseline. A lower area is better.

    Value s is that of the image whose first s / num_steps of the pixels (rounded down) are the baseline's: value 0 is
    f(image), the last one f(baseline). Pixels are ranked by the heatmap, equal ones in reading order (row by row). Of
    a series they are its samples, of a volume its voxels.

    Args:
        f: from an image `[*grid, d]` to its confidence, a scalar.
        image: `[*grid, d]`.
        heatmap: L, `[*grid]`; only the order of its values matters.
        baseline: what pixels are replaced by, `[*grid, d]`: black, the mean, or the image `blurred`.
        num_steps: how many shares of the pixels.
        batch_size: how many images f sees at a time (through vmap): bounds the memory. If it divides num_steps + 1, f
            is compiled once, otherwise a second time for the rest.

    Returns:
        `[num_steps + 1]`, in the type that f returns; NaN where the heatmap is zero (it ranks nothing) or not finite.

    Raises:
        ValueError: the shapes do not fit, f does not return a scalar, or a number is not positive.

        TypeError: f is not callable or does not return floating point, an array is not floating point, or a number
            not an integer.

    **Source**: Petsiuk et al. 2018, section 4.2, where one step replaces a fixed number of pixels.
    """
    sizes = (num_steps, batch_size)
    return _curve(f, image, heatmap, baseline=baseline, sizes=sizes, at_first=image, at_last=baseline)


def insertion_curve(
    f: Confidence, image: Image, heatmap: Heatmap, *, baseline: Image, num_steps: int = 32, batch_size: int = 8
) -> Float[Array, " steps"]:
    """The confidence while the pixels that matter most appear on the baseline. A higher area is better.

    Value s is that of the baseline whose first s / num_steps of the pixels are the image's: value 0 is f(baseline), the
    last one f(image). All else as in `deletion_curve`; the paper's baseline is the image `blurred`.

    **Source**: Petsiuk et al. 2018, section 4.2.
    """
    sizes = (num_steps, batch_size)
    return _curve(f, image, heatmap, baseline=baseline, sizes=sizes, at_first=baseline, at_last=image)


def occlusion_curve(
    f: Confidence, image: Image, heatmap: Heatmap, *, baseline: Image, num_steps: int = 32, batch_size: int = 8
) -> tuple[Float[Array, " steps"], Float[Array, " steps"]]:
    """The relative confidence O / Y while the pixels that matter least are occluded, and their share of the picture.

    The control of the Grad-CAM++ paper for maps that are large: at the same area, whose pixels keep more of the
    confidence? The pixels with L < γ are the baseline's, where γ is the quantile of L at s / num_steps. A higher area
    is better (`area_under_curve(relative, at=share)`). Only the order of L matters, so that powers of a map are one.

    It is the insertion curve backwards, over Y, but for pixels that are equal: these stay or go together. So a map that
    is zero on half of the picture has the whole picture up to the quantile 1/2, and only then half of it: read the
    curve against the share that is occluded, not against s.

    Args:
        f: from an image `[*grid, d]` to its confidence, a scalar.
        image: `[*grid, d]`.
        heatmap: L, `[*grid]`.
        baseline: what is seen of occluded pixels, `[*grid, d]`; black in the paper.
        num_steps: how many quantiles.
        batch_size: how many images f sees at a time, as in `deletion_curve`.

    Returns:
        The share of the pixels that is occluded, and O / Y, `[num_steps + 1]` each: (0, 1) at first and (1, f(baseline)
        / Y) at last. NaN where the heatmap is zero or not finite, and O / Y where Y <= 0.

    Raises as `deletion_curve`.

    **Source**: Chattopadhay et al. 2018, section 7.2 and figure 10.
    """
    sizes = (num_steps, batch_size)
    curve = _curve(f, image, heatmap, baseline=baseline, sizes=sizes, at_first=image, at_last=baseline, order=_at_most)
    values, wide = jnp.asarray(heatmap), together(curve)[0].dtype
    order, counts = _at_most(values), _counts(values.size, num_steps)
    share = jax.vmap(lambda count: (order < count).mean(dtype=wide))(counts)
    relative = curve / jnp.where(curve[0] > 0, curve[0], jnp.nan)
    return where_defined(is_explanation(values), share).astype(curve.dtype), relative


def area_under_curve(
    curve: Float[Array, " steps"] | Float[np.ndarray, " steps"],
    *,
    at: Float[Array, " steps"] | Float[np.ndarray, " steps"] | None = None,
) -> Float[Array, ""]:
    """The area under a curve, by the trapezoid rule.

    Args:
        curve: `[num_steps + 1]`, the values at 0, 1 / num_steps, ..., 1.
        at: `[num_steps + 1]`, where the values are instead, in rising order.

    Returns:
        A scalar; NaN where a value is.

    Raises:
        ValueError: not one axis, or fewer than two values; the shapes differ.

        TypeError: not floating point.
    """
    check_all_floating(curve=curve)
    if curve.ndim != 1 or curve.shape[0] < 2:
        raise ValueError(f"curve must be [num_steps + 1], two values at least, but came as {list(curve.shape)}")
    if at is None:
        (values,) = together(curve)
        return ((values[1:] + values[:-1]) / 2).mean().astype(curve.dtype)
    check_all_floating(at=at)
    check_same_shape(curve=curve, at=at)
    values, places = together(curve, at)
    return ((values[1:] + values[:-1]) / 2 * jnp.diff(places)).sum().astype(widest(curve, at))


def _curve(
    f: Confidence,
    image: Any,
    heatmap: Any,
    *,
    baseline: Any,
    sizes: tuple[int, int],
    at_first: Any,
    at_last: Any,
    order: Callable[[Array], Array] | None = None,
) -> Array:
    """The values of f while one picture turns into the other, pixel by pixel in the `order` of their `ranks`."""
    if not callable(f):
        raise TypeError(f"f must be a function from an image to its confidence, not {type(f).__name__}")
    check_image(image, baseline=baseline)
    check_fits(heatmap, image)
    steps, batch = (
        check_integer(name, size, low=1) for name, size in zip(("num_steps", "batch_size"), sizes, strict=True)
    )
    values = jnp.asarray(heatmap)
    places = (order or ranks)(values)[..., None]
    first, second = (jnp.asarray(each).astype(image.dtype) for each in (at_first, at_last))
    curve = jax.lax.map(
        lambda count: f(jnp.where(places < count, second, first)), _counts(values.size, steps), batch_size=batch
    )
    _check_curve(curve, steps)
    return where_defined(is_explanation(values), curve)


def _counts(num_pixels: int, num_steps: int) -> Array:
    """How many pixels have changed at each step; integers, as a share in floats would be off by one here and there."""
    return jnp.asarray(np.asarray([s * num_pixels // num_steps for s in range(num_steps + 1)], np.int32))


def _check_curve(curve: Any, num_steps: int) -> None:
    if not hasattr(curve, "shape") or curve.shape != (num_steps + 1,):
        came = list(curve.shape[1:]) if hasattr(curve, "shape") else type(curve).__name__
        raise ValueError(f"f must return a scalar, the confidence in one class, but it returned {came}")
    check_all_floating(**{"the value of f": curve})


def ranks(heatmap: Array) -> Array:
    """0 for the largest value, 1 for the next; equal values in reading order."""
    order = jnp.argsort(-heatmap.reshape(-1), stable=True)
    ranks = jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
    return ranks.reshape(heatmap.shape)


def _at_most(heatmap: Array) -> Array:
    """How many others are not larger: below n where L is below the (n + 1)-th smallest value; equal values together."""
    flat = heatmap.reshape(-1)
    return jnp.searchsorted(jnp.sort(flat), flat, side="right").reshape(heatmap.shape).astype(jnp.int32) - 1

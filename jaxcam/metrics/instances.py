"""Whether a heatmap L finds each of several objects of a class: instance recall."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from jaxcam.checks import check_number
from jaxcam.metrics.boxes import box_mask, check_boxes
from jaxcam.metrics.operands import Heatmap, check_all_floating, check_heatmap, is_explanation, together, where_defined

Instances = Bool[Array, "m *grid"] | Bool[np.ndarray, "m *grid"] | Num[Array, "m c"] | Num[np.ndarray, "m c"]


def instance_heat(heatmap: Heatmap, instances: Instances) -> Float[Array, " m"]:
    """The heat of each object: the maximum of L on it over the maximum of L, in [0, 1].

    Args:
        heatmap: L, not negative, `[*grid]`; a positive factor changes nothing.
        instances: a mask of each object, bool `[m, *grid]`, or a box of each, `[m, 4]` (`metrics.boxes`).

    Returns:
        `[m]`; NaN for an object on which no position lies, and for all where the heatmap is zero or not finite.

    Raises:
        ValueError: the shapes do not fit.

        TypeError: heatmap is not floating point, or instances are neither bool nor numbers.
    """
    check_heatmap(heatmap)
    (values,) = together(heatmap)
    masks = _masks(instances, values.shape)
    top = values.max()
    # From below any value of a map, so that an object without positions has nothing.
    hottest = jnp.where(masks, values[None], -jnp.inf).max(tuple(range(1, masks.ndim)), initial=-jnp.inf)
    defined = is_explanation(values) & (top > 0) & jnp.isfinite(hottest)
    return where_defined(defined, jnp.where(defined, hottest, 0) / jnp.where(top > 0, top, 1)).astype(heatmap.dtype)


def instance_recall(heatmap: Heatmap, instances: Instances, *, threshold: float = 0.5) -> Float[Array, ""]:
    """The share of the objects on which L reaches `threshold` of its maximum. Higher is better.

    What Grad-CAM++ was made for: that of several objects of a class none is lost. A map that is 1 everywhere loses none
    either, so read it beside the complexity or the energy.

    Args:
        heatmap: L, not negative, `[*grid]`; a positive factor changes nothing.
        instances: a mask of each object, bool `[m, *grid]`, or a box of each, `[m, 4]`.
        threshold: the share of the maximum, in (0, 1].

    Returns:
        In [0, 1], over the objects on which a position lies; NaN where there are none, or the heatmap is zero or not
        finite.

    Raises:
        ValueError: the shapes do not fit, or threshold is out of range.

        TypeError: heatmap is not floating point, instances are neither bool nor numbers, or threshold is no number.
    """
    share = check_number("threshold", threshold, above=0, high=1)
    heat = instance_heat(heatmap, instances)
    return _recall(heat, jnp.asarray([share], heat.dtype))[0]


def instance_recall_curve(
    heatmap: Heatmap, instances: Instances, thresholds: Float[Array, " t"] | Float[np.ndarray, " t"]
) -> Float[Array, " t"]:
    """`instance_recall` at each of `[t]` thresholds. Over all of [0, 1] the area under it is the mean `instance_heat`.

    Raises as `instance_recall`; thresholds are not checked to be in range.
    """
    check_all_floating(thresholds=thresholds)
    if thresholds.ndim != 1:
        raise ValueError(f"thresholds must be [t], but came as {list(thresholds.shape)}")
    heat = instance_heat(heatmap, instances)
    return _recall(heat, jnp.asarray(thresholds).astype(heat.dtype))


def _recall(heat: Array, thresholds: Array) -> Array:
    counts = ~jnp.isnan(heat)
    found = (counts[None] & (heat[None] >= thresholds[:, None])).sum(1).astype(heat.dtype)
    num = counts.sum().astype(heat.dtype)
    return where_defined(num > 0, found / jnp.maximum(num, 1))


def _masks(instances: Instances, size: tuple[int, ...]) -> Bool[Array, "m *grid"]:
    """One mask for each object."""
    if not (hasattr(instances, "dtype") and hasattr(instances, "shape")):
        raise TypeError(f"instances must be an array of masks or boxes, not {type(instances).__name__}")
    if instances.dtype != bool:
        if instances.ndim == 1 + len(size) != 2 and instances.shape[1:] == size:
            raise TypeError(f"instances must be bool where they are masks, not {instances.dtype}: use masks > 0")
        check_boxes(instances, num_axes=len(size))
        boxes = jnp.asarray(instances)
        return jax.vmap(lambda box: box_mask(box[None], size))(boxes) if len(boxes) else jnp.zeros((0, *size), bool)
    if instances.shape[1:] != size:
        raise ValueError(
            f"instances must be masks [m, *grid] of the heatmap, {list(size)}, or boxes, but came as "
            f"{list(instances.shape)}: give an axis to a single one with mask[None]"
        )
    return jnp.asarray(instances)

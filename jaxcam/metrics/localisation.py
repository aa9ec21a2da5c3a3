"""How well a heatmap L covers an object: Loc(delta), IoU, and the box of a heatmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcam.checks import check_number
from jaxcam.metrics.operands import (
    Heatmap,
    Mask,
    check_all_floating,
    check_heatmap,
    check_mask,
    check_same_shape,
    is_explanation,
    together,
    where_defined,
)


def localisation(heatmap: Heatmap, mask: Mask, *, delta: float = 0.0) -> Float[Array, ""]:
    """Loc(delta) = internal / (box + external), in [0, 1]. Higher is better.

    internal: the pixels with L > delta inside; box: all pixels inside; external: the pixels with L > delta outside.

    Args:
        heatmap: L in [0, 1], `[*grid]`.
        mask: where the object is, `[*grid]`; of several boxes `box_mask`, their union.
        delta: in [0, 1).

    Returns:
        NaN where the mask is empty, or the heatmap zero or not finite.

    Raises:
        ValueError: the shapes differ, or delta is out of range.

        TypeError: heatmap is not floating point, mask not bool, or delta not a number.

    **Source**: Chattopadhay et al. 2018, the section on object localisation; delta = 0, 0.25 and 0.5 there.
    """
    check_heatmap(heatmap)
    check_mask(mask, heatmap)
    delta = check_number("delta", delta, low=0, below=1)
    (values,) = together(heatmap)
    inside = jnp.asarray(mask)
    above = values > delta
    internal, external, box = (each.sum().astype(values.dtype) for each in (above & inside, above & ~inside, inside))
    defined = (box > 0) & is_explanation(values)
    return where_defined(defined, internal / jnp.where(defined, box + external, 1)).astype(heatmap.dtype)


def iou(heatmap: Heatmap, mask: Mask, *, threshold: float = 0.5) -> Float[Array, ""]:
    """Intersection over union of {L > threshold * max L} and the mask. Higher is better.

    Args:
        heatmap: L, `[*grid]`; a positive factor changes nothing.
        mask: where the object is, `[*grid]`.
        threshold: the share of the maximum, in [0, 1).

    Returns:
        NaN where the mask is empty, or the heatmap zero or not finite.

    Raises:
        ValueError: the shapes differ, or threshold is out of range.

        TypeError: heatmap is not floating point, mask not bool, or threshold not a number.
    """
    check_heatmap(heatmap)
    check_mask(mask, heatmap)
    threshold = check_number("threshold", threshold, low=0, below=1)
    (values,) = together(heatmap)
    inside, top = jnp.asarray(mask), values.max()
    above = (values > threshold * top) & (top > 0)
    both, either = (each.sum().astype(values.dtype) for each in (above & inside, above | inside))
    defined = inside.any() & is_explanation(values)
    return where_defined(defined, both / jnp.where(defined, either, 1)).astype(heatmap.dtype)


def heatmap_box(heatmap: Heatmap, *, fraction: float = 0.15) -> Int[Array, " c"]:
    """The box around the largest connected component of {L >= fraction * max L}.

    Pixels are connected through their four sides, voxels through their six. Of components of the same size it is the
    one that comes first in reading order (row by row). Runs on the host: under jit and vmap through
    `jax.pure_callback`.

    Args:
        heatmap: L, `[*grid]`; a positive factor changes nothing.
        fraction: the share of the maximum, in (0, 1].

    Returns:
        x0, y0, x1, y1 in pixels, half-open, int32 `[4]`; of a series begin and end, of a volume x0, y0, z0, x1, y1, z1
        (`metrics.boxes`); zeros where the heatmap is zero or not finite.

    Raises:
        ValueError: heatmap is not `[*grid]`, or fraction is out of range.

        TypeError: heatmap is not floating point, or fraction not a number.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), section 4.1: 15 % of the maximum.
    """
    check_heatmap(heatmap)
    share = check_number("fraction", fraction, above=0, high=1)
    found = jax.ShapeDtypeStruct((2 * heatmap.ndim,), jnp.int32)
    # All maps of a batch come in one call.
    boxes = partial(_boxes, fraction=share, num_axes=heatmap.ndim)
    return jax.pure_callback(boxes, found, jnp.asarray(heatmap), vmap_method="expand_dims")


def heatmap_boxes_numpy(heatmaps: Float[np.ndarray, "..."], fraction: float, num_axes: int = 2) -> np.ndarray:
    """`heatmap_box` of many heatmaps, in NumPy: `[..., *grid] -> [..., 2 r]`, int32, for grids with r = num_axes."""
    check_all_floating(heatmaps=heatmaps)
    if heatmaps.ndim < num_axes:
        raise ValueError(
            f"heatmaps must be [..., *grid] with {num_axes} axes of positions, but came as {list(heatmaps.shape)}"
        )
    check_same_shape(heatmap=np.empty(heatmaps.shape[-num_axes:], bool))
    return _boxes(heatmaps, fraction=check_number("fraction", fraction, above=0, high=1), num_axes=num_axes)


def _boxes(heatmaps: Array | np.ndarray, *, fraction: float, num_axes: int) -> np.ndarray:
    maps = np.asarray(heatmaps)
    maps = maps.astype(np.float32) if jnp.finfo(maps.dtype).bits < 32 else maps
    flat = maps.reshape(-1, *maps.shape[-num_axes:])
    found = np.zeros((len(flat), 2 * num_axes), np.int32)
    for box, each in zip(found, flat, strict=True):
        box[:] = _box(each, fraction)
    return found.reshape(*maps.shape[:-num_axes], 2 * num_axes)


def _box(heatmap: np.ndarray, fraction: float) -> list[int]:
    top = heatmap.max()
    if not np.isfinite(heatmap).all() or top <= 0:
        return [0] * (2 * heatmap.ndim)
    from scipy import ndimage  # here, since it takes as long to import as all of jaxcam

    labels: np.ndarray = ndimage.label(heatmap >= heatmap.dtype.type(fraction) * top)[0]  # pyright: ignore[reportAssignmentType, reportIndexIssue]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    largest = labels.ravel()[(sizes == sizes.max())[labels.ravel()].argmax()]  # the first pixel decides between equals
    places = np.nonzero(labels == largest)[::-1]  # x first
    return [int(place.min()) for place in places] + [int(place.max()) + 1 for place in places]

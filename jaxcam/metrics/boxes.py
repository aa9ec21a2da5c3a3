"""Boxes: x0, y0, x1, y1 in pixels, half-open: a box holds the pixels whose centre lies in [x0, x1) x [y0, y1).

The centre of pixel [i, j] is (x, y) = (j + 1/2, i + 1/2), so [0, 0, W, H] is the whole picture. Boxes are integers or
floats and may reach out of the picture; a box with x1 <= x0 or y1 <= y0 has no area.

On a grid with r axes a box has 2 r numbers: its low corner and its high one, the last axis (x) first. Of a series it is
an interval, begin and end; of a volume `[z, y, x]` it is x0, y0, z0, x1, y1, z1.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from jaxcam.checks import check_integer
from jaxcam.metrics.operands import where_defined

Box = Num[Array, " c"] | Num[np.ndarray, " c"]
Boxes = Num[Array, "m c"] | Num[np.ndarray, "m c"]


def _in_floats(*boxes: Any) -> tuple[Array, ...]:
    arrays = [jnp.asarray(each) for each in boxes]
    # Half precision cannot tell the pixels of a picture apart.
    dtype = jnp.float64 if any(each.dtype == jnp.float64 for each in arrays) else jnp.float32
    return tuple(each.astype(dtype) for each in arrays)


def check_boxes(boxes: Any, *, num_axes: int | None = None) -> None:
    """That they are numbers `[m, 2 r]`, on a grid with r axes if that is known."""
    if not (hasattr(boxes, "shape") and hasattr(boxes, "dtype")):
        raise TypeError(
            f"boxes must be an array [m, 4], not {type(boxes).__name__}: use np.asarray(...).reshape(-1, 4)"
        )
    if not (jnp.issubdtype(boxes.dtype, jnp.floating) or jnp.issubdtype(boxes.dtype, jnp.integer)):
        raise TypeError(f"boxes must be numbers, but their dtype is {boxes.dtype}")
    if boxes.ndim != 2 or boxes.shape[1] % 2 or not boxes.shape[1]:
        raise ValueError(
            f"boxes must be [m, 4] (x0, y0, x1, y1), or [m, 2 r] on a grid with r axes, but came as {list(boxes.shape)}"
        )
    if num_axes is not None and boxes.shape[1] != 2 * num_axes:
        raise ValueError(f"boxes must be [m, {2 * num_axes}] on this grid, but came as {list(boxes.shape)}")


def box_mask(boxes: Boxes, size: Sequence[int]) -> Bool[Array, "*grid"]:
    """The union of boxes as a mask.

    Args:
        boxes: x0, y0, x1, y1 in pixels, half-open, `[m, 4]`; m may be 0. Boxes without area, or with NaN, add nothing.
            On a grid with r axes `[m, 2 r]`.
        size: (H, W), or that of the grid.

    Returns:
        `[H, W]`, of that size: whether a pixel's centre lies in one of the boxes.

    Raises:
        ValueError: boxes is not `[m, 4]`, or size is not two positive integers: r for `[m, 2 r]`.

        TypeError: boxes is not an array of numbers, or size not of integers.
    """
    check_boxes(boxes)
    num_axes = boxes.shape[1] // 2
    if len(size) != num_axes:
        shown = "(H, W)" if num_axes == 2 else f"of {num_axes} axes"
        raise ValueError(f"size must be {shown} for boxes {list(boxes.shape)}, but has {len(size)} numbers")
    lengths = [check_integer("size", each, low=1) for each in size]
    (corners,) = _in_floats(boxes)
    inside = jnp.ones((corners.shape[0],) + (1,) * num_axes, bool)
    for axis, length in enumerate(lengths):
        place = num_axes - 1 - axis  # x comes first in a box and last among the axes
        low, high = corners[:, place, None], corners[:, num_axes + place, None]
        centres = jnp.arange(length, dtype=corners.dtype)[None] + 0.5
        along = (low <= centres) & (centres < high)
        inside = inside & along.reshape(-1, *(length if i == axis else 1 for i in range(num_axes)))
    return inside.any(0)


def box_iou(box: Box, boxes: Boxes) -> Float[Array, " m"]:
    """The area of the intersection over that of the union, of one box with each of m.

    Args:
        box: x0, y0, x1, y1, `[4]`, as from `heatmap_box`.
        boxes: `[m, 4]`; or `[2 r]` and `[m, 2 r]` on a grid with r axes, where areas are lengths or volumes.

    Returns:
        `[m]`, in float64 if one of the two is and float32 otherwise; NaN where one of the boxes has no area, as the box
        of a heatmap that is zero, or where a corner is not finite.

    Raises:
        ValueError: the shapes are not `[4]` and `[m, 4]`.

        TypeError: not arrays of numbers.
    """
    check_boxes(boxes)
    if not hasattr(box, "shape") or box.shape != boxes.shape[1:]:
        came = list(box.shape) if hasattr(box, "shape") else type(box).__name__
        raise ValueError(f"box must be {list(boxes.shape[1:])}, one as the boxes are, but came as {came}")
    check_boxes(box[None])
    one, many = _in_floats(box, boxes)
    one = jnp.broadcast_to(one[None], many.shape)
    r = many.shape[1] // 2
    areas = [jnp.maximum(each[:, r:] - each[:, :r], 0).prod(1) for each in (one, many)]
    low, high = jnp.maximum(one[:, :r], many[:, :r]), jnp.minimum(one[:, r:], many[:, r:])
    both = jnp.maximum(high - low, 0).prod(1)
    union = areas[0] + areas[1] - both
    defined = (areas[0] > 0) & (areas[1] > 0) & jnp.isfinite(one).all(1) & jnp.isfinite(many).all(1)
    return where_defined(defined, both / jnp.where(defined, union, 1))

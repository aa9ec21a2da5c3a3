"""Boxes: x0, y0, x1, y1 in pixels, half-open: a box holds the pixels whose centre lies in [x0, x1) x [y0, y1).

The centre of pixel [i, j] is (x, y) = (j + 1/2, i + 1/2), so [0, 0, W, H] is the whole picture. Boxes are integers or
floats and may reach out of the picture; a box with x1 <= x0 or y1 <= y0 has no area.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from jaxcam.checks import check_integer
from jaxcam.metrics.operands import where_defined

Box = Num[Array, "4"] | Num[np.ndarray, "4"]
Boxes = Num[Array, "m 4"] | Num[np.ndarray, "m 4"]


def _in_floats(*boxes: Any) -> tuple[Array, ...]:
    arrays = [jnp.asarray(each) for each in boxes]
    # Half precision cannot tell the pixels of a picture apart.
    dtype = jnp.float64 if any(each.dtype == jnp.float64 for each in arrays) else jnp.float32
    return tuple(each.astype(dtype) for each in arrays)


def _check(boxes: Any) -> None:
    if not (hasattr(boxes, "shape") and hasattr(boxes, "dtype")):
        raise TypeError(
            f"boxes must be an array [m, 4], not {type(boxes).__name__}: use np.asarray(...).reshape(-1, 4)"
        )
    if not (jnp.issubdtype(boxes.dtype, jnp.floating) or jnp.issubdtype(boxes.dtype, jnp.integer)):
        raise TypeError(f"boxes must be numbers, but their dtype is {boxes.dtype}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [m, 4] (x0, y0, x1, y1), but came as {list(boxes.shape)}")


def box_mask(boxes: Boxes, size: Sequence[int]) -> Bool[Array, "H W"]:
    """The union of boxes as a mask.

    Args:
        boxes: x0, y0, x1, y1 in pixels, half-open, `[m, 4]`; m may be 0. Boxes without area, or with NaN, add nothing.
        size: (H, W).

    Returns:
        `[H, W]`: whether a pixel's centre lies in one of the boxes.

    Raises:
        ValueError: boxes is not `[m, 4]`, or size is not two positive integers.

        TypeError: boxes is not an array of numbers, or size not of integers.
    """
    _check(boxes)
    if len(size) != 2:
        raise ValueError(f"size must be (H, W), but has {len(size)} numbers")
    height, width = (check_integer("size", each, low=1) for each in size)
    (corners,) = _in_floats(boxes)
    x0, y0, x1, y1 = (corners[:, i, None] for i in range(4))
    x, y = (jnp.arange(each, dtype=corners.dtype)[None] + 0.5 for each in (width, height))
    columns, rows = (x0 <= x) & (x < x1), (y0 <= y) & (y < y1)
    return (rows[:, :, None] & columns[:, None, :]).any(0)


def box_iou(box: Box, boxes: Boxes) -> Float[Array, " m"]:
    """The area of the intersection over that of the union, of one box with each of m.

    Args:
        box: x0, y0, x1, y1, `[4]`, as from `heatmap_box`.
        boxes: `[m, 4]`.

    Returns:
        `[m]`, in float64 if one of the two is and float32 otherwise; NaN where one of the boxes has no area, as the box
        of a heatmap that is zero, or where a corner is not finite.

    Raises:
        ValueError: the shapes are not `[4]` and `[m, 4]`.

        TypeError: not arrays of numbers.
    """
    _check(boxes)
    if not hasattr(box, "shape") or box.shape != (4,):
        came = list(box.shape) if hasattr(box, "shape") else type(box).__name__
        raise ValueError(f"box must be [4] (x0, y0, x1, y1), but came as {came}")
    _check(box[None])
    one, many = _in_floats(box, boxes)
    one = jnp.broadcast_to(one[None], many.shape)
    areas = [jnp.maximum(each[:, 2:] - each[:, :2], 0).prod(1) for each in (one, many)]
    low, high = jnp.maximum(one[:, :2], many[:, :2]), jnp.minimum(one[:, 2:], many[:, 2:])
    both = jnp.maximum(high - low, 0).prod(1)
    union = areas[0] + areas[1] - both
    defined = (areas[0] > 0) & (areas[1] > 0) & jnp.isfinite(one).all(1) & jnp.isfinite(many).all(1)
    return where_defined(defined, both / jnp.where(defined, union, 1))

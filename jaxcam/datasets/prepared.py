"""Inputs that are prepared for the model -> views: nothing is read, resized or normalised, only checked.

Contract: an input is an array or a pytree of arrays without the axis n, as a series `[t, d]`; all of a data set have
one structure, shape and dtype. One of its arrays has the grid that the heatmap lies on; masks are on that grid, boxes
in its positions, half-open, clipped to it and dropped where nothing is left.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcam.datasets.examples import View, is_path
from jaxcam.datasets.items import Item


class Prepared(NamedTuple):
    """What one example's input has to be like.

    Attributes:
        like: a pytree of shapes and dtypes.
        size: of the grid that the heatmap lies on.
    """

    like: Any
    size: tuple[int, ...]


def input_of(image: Any) -> Any:
    """The arrays of an input, in NumPy, in the types that JAX computes in.

    Raises:
        TypeError: it holds something else.
    """
    if is_path(image):
        raise TypeError(
            f"an input must be prepared for the model but is the path {str(image)!r}: for image files say what the "
            "model expects with jaxcam.adapt(model, preprocessing=jaxcam.images.Preprocessing(...))"
        )
    return jax.tree.map(_array, image)


def prepared_view(item: Item, prepared: Prepared) -> View:
    """The view of an item, whose input has to be like the others.

    Raises:
        TypeError, ValueError: it is not, or its truth does not fit it.
    """
    given = input_of(item.image)
    _check_like(given, prepared.like)
    truth, size = item.truth, prepared.size
    boxes, masks = truth.boxes, truth.masks
    assert masks is None or isinstance(masks, np.ndarray)
    if masks is not None and masks.shape[1:] != size:
        raise ValueError(
            f"masks must be [m, {', '.join(map(str, size))}], on the grid that the heatmap lies on, but are "
            f"{list(masks.shape)}"
        )
    if not len(boxes):
        kept = np.ones(0, bool) if masks is None else masks.reshape(len(masks), -1).any(1)
        boxes = np.zeros((0, 2 * len(size)))
    else:
        boxes = _clipped(boxes, size)
        half = boxes.shape[-1] // 2
        kept = (boxes[..., half:] > boxes[..., :half]).all(-1).reshape(len(boxes), -1).any(1)
        boxes = boxes[kept]
    masks = None if masks is None else masks[kept]
    classes = truth.box_classes
    found = boxes.astype(np.float32), classes[kept], masks, int(np.sum(~kept))
    return View(item.index, item.name, given, truth.label, *found)


def _clipped(boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The boxes inside of the grid; those of the frames of a clip inside of each frame."""
    num_axes = len(size)
    if boxes.ndim == 3:
        if num_axes != 3 or boxes.shape[1] != size[0]:
            raise ValueError(
                f"boxes [m, t, 4] must be of a clip with t frames, as {[len(boxes), size[0], 4]}, but are "
                f"{list(boxes.shape)} on the grid {list(size)}"
            )
        size = size[1:]
    elif boxes.shape[1] != 2 * num_axes:
        each = {1: "begin and end", 2: "x0, y0, x1, y1", 3: "x0, y0, z0, x1, y1, z1"}.get(num_axes, "both corners")
        raise ValueError(
            f"boxes must be [m, {2 * num_axes}] ({each}) on the grid {list(size)}, but are {list(boxes.shape)}"
        )
    return np.clip(boxes, 0, [*size[::-1]] * 2)


def _check_like(given: Any, like: Any) -> None:
    here, there = (_shown(each) for each in (given, like))
    if jax.tree.structure(given) != jax.tree.structure(like) or here != there:
        raise ValueError(
            f"inputs must all be like the first one, {there}, but this one is {here}: pad or cut them to one shape"
        )


def _shown(tree: Any) -> str:
    found = [
        f"{jax.tree_util.keystr(path)}{': ' if path else ''}{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
    return ", ".join(found)


def _array(leaf: Any) -> np.ndarray:
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        raise TypeError(
            f"an input must be an array [*spatial, d], or several in a dictionary or the like, but holds a "
            f"{type(leaf).__name__}: use np.asarray"
        )
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)

"""What one item of a data set is, on its way from the user to the network.

Contract: an `Example` is what the user gives, checked by `truth_of`; a `Truth` is its checked truth in pixels of the
whole picture; a `View` is what the network sees, with the truth in its coordinates, or one line that says why there
is nothing to see. Boxes are x0, y0, x1, y1 in pixels, half-open: the pixel in column x and row y covers
[x, x + 1) by [y, y + 1). Of inputs that are prepared for the model boxes are in positions of its grid, as
`metrics.boxes` says: intervals of a series are begin, end. The class -1 is one that is not known.
"""

import os
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcam import tables
from jaxcam.checks import is_integer
from jaxcam.datasets.regions import Region

UNKNOWN = -1


class Example(NamedTuple):
    """A picture, the path of one, or an input that is prepared for the model, and what is known about it.

    Attributes:
        image: a picture `[H, W, 3]`, floating, in [0, 1], grey ones `[H, W]` or `[H, W, 1]`; or a path. For a model
            without preprocessing its input as it takes it, without the axis n: a series `[t, d]`, a volume, a clip,
            a normalised picture, or a dictionary of several.
        label: the true class, or None.
        boxes: `[m, 4]`: x0, y0, x1, y1 of each instance in pixels of the picture, half-open; or None. Of prepared
            inputs `[m, 2 r]` on a grid with r axes: the intervals of a series begin, end, in a volume x0, y0, z0, x1,
            y1, z1; or `[m, t, 4]`, a box in every frame of a clip (without area where there is none).
        box_classes: `[m]`: the class of each box or mask; the label for all of them by default; -1: a class that the
            model does not know.
        masks: bool `[m, H, W]`: the pixels of each instance, in the order of the boxes, if there are any; or None. Of
            prepared inputs `[m, *spatial]`: the samples, voxels, or pixels of frames.
        name: for tables and messages; by default the path or the number.
    """

    image: Any
    label: int | None = None
    boxes: Any = None
    box_classes: Any = None
    masks: Any = None
    name: str | None = None


class Truth(NamedTuple):
    """What is known about a picture, checked.

    Attributes:
        label: the true class, -1 if unknown.
        boxes: float64 `[m, 4]`, or as those of the `Example`; `[0, 4]` where only masks are known.
        box_classes: int32 `[m]`.
        masks: bool `[m, H, W]`, regions that are drawn when the picture is there, or None.
        size: the height and width that the annotation gives, or None.
    """

    label: int
    boxes: np.ndarray
    box_classes: np.ndarray
    masks: np.ndarray | tuple[Region, ...] | None = None
    size: tuple[int, int] | None = None


class View(NamedTuple):
    """What the network sees, and the truth in its coordinates; or what went wrong.

    Attributes:
        index: of the item in the data set.
        name: of the item.
        image: float32 `[h, w, 3]` in [0, 1], after `Preprocessing.view`, or the arrays of a prepared input; None if
            there is none.
        label: the true class, -1 if unknown.
        boxes: float32 `[m, 4]`, moved with resize and crop and clipped to the view; empty ones are dropped. None at
            all where only masks are known.
        box_classes: int32 `[m]`.
        masks: bool `[m, h, w]`, or None; empty ones without a box are dropped.
        num_boxes_lost: how many boxes, or masks without one, were dropped: outside of the crop, or without any area
            from the start.
        error: one line: why there is no image; None if there is one.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    name: str
    image: Any
    label: int
    boxes: np.ndarray
    box_classes: np.ndarray
    masks: np.ndarray | None
    num_boxes_lost: int
    error: str | None = None


NO_TRUTH = Truth(UNKNOWN, np.zeros((0, 4)), np.zeros(0, np.int32))


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its kind as well if it is not one that was raised for the user to read."""
    text = tables.printable(str(error))
    kind = type(error).__name__
    if isinstance(error, MemoryError):
        return f"not enough memory ({text or kind})"
    return text if text and isinstance(error, ValueError | TypeError | OSError) else f"{kind}: {text}".rstrip(": ")


def printable(name: str) -> str:
    """The name on one line of valid Unicode: bytes that are not UTF-8 and control characters become escapes."""
    decoded = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)


def as_example(item: Any) -> Example:
    """An item of a data set: an Example as it is, a pair (picture, path or input, label), or one without a label.

    Raises:
        TypeError: a tuple that is neither an Example nor a pair.
    """
    if isinstance(item, Example):
        return item
    if isinstance(item, tuple):
        pair: tuple[Any, ...] = item
        if len(pair) != 2 or hasattr(pair, "_fields"):
            raise TypeError(
                f"an item of the data set must be a picture, a path, a pair (picture or path, label) or a "
                f"jaxcam.Example, got a {type(pair).__name__} of {len(pair)}; name its parts: "
                "jaxcam.Example(image=.., label=.., boxes=..)"
            )
        return Example(*pair)
    return Example(item)


def is_path(image: Any) -> bool:
    """Whether an item's image is a path rather than a picture."""
    return isinstance(image, str | os.PathLike)


def truth_of(example: Example, *, num_classes: int | None, is_prepared: bool = False) -> Truth:
    """The checked truth of an Example; its image is not looked at.

    Args:
        example: an Example.
        num_classes: labels must be below it; None: not checked.
        is_prepared: whether it is an input for the model, of a grid that is not known yet, and no picture.

    Raises:
        TypeError: a field is of the wrong kind.
        ValueError: a field has the wrong shape or range.
    """
    if example.name is not None and not isinstance(example.name, str):
        raise TypeError(f"name must be a str or None, got {type(example.name).__name__}")
    label = UNKNOWN if example.label is None else checked_label(example.label, "label", num_classes)
    if example.boxes is None and example.masks is None:
        if example.box_classes is not None:
            raise ValueError("box_classes belong to boxes or masks, and both are None; give the boxes too")
        return NO_TRUTH._replace(label=label)
    boxes = NO_TRUTH.boxes if example.boxes is None else checked_boxes(example.boxes, is_prepared=is_prepared)
    num = None if example.boxes is None else len(boxes)
    masks = None if example.masks is None else _checked_masks(example.masks, num, is_prepared=is_prepared)
    num = len(boxes) if masks is None else len(masks)
    classes = np.full(num, label, np.int32)
    if example.box_classes is not None:
        given = np.asarray(example.box_classes)
        if given.shape != (num,):
            raise ValueError(f"box_classes must have shape [{num}], one a box, got {list(given.shape)}")
        classes = np.array([checked_label(c, "box_classes", num_classes) for c in given], np.int32)
    return Truth(label, boxes, classes, masks)


def checked_label(label: Any, name: str, num_classes: int | None) -> int:
    """The class index as an int, at least -1.

    Raises:
        TypeError: not an integer.
        ValueError: below -1, or not below num_classes.
    """
    if isinstance(label, np.ndarray | jax.Array) and label.ndim == 0:
        label = np.asarray(label).item()
    if not is_integer(label):
        raise TypeError(f"{name} must be a class index (an integer) but is {label!r}")
    if not -1 <= label < (2**31 if num_classes is None else num_classes):
        below = "2**31" if num_classes is None else f"{num_classes}, the number of the model's classes"
        raise ValueError(f"{name} must be from 0 to below {below} (-1: not known) but is {label}")
    return int(label)


def checked_boxes(boxes: Any, *, is_prepared: bool = False) -> np.ndarray:
    """The boxes as float64 `[m, 4]`; of prepared inputs also `[m, 2 r]` or `[m, t, 4]`.

    Raises:
        ValueError: of another shape, not numbers, not finite, or with corners in the wrong order.
    """
    expected = "boxes must be [m, 4]: x0, y0, x1, y1 for each"
    if is_prepared:
        expected += "; [m, 2] of a series: begin, end; [m, 6] of a volume; or [m, t, 4] of the frames of a clip"
    try:
        values = np.asarray(boxes)
    except ValueError as error:
        raise ValueError(f"{expected}; got rows of different lengths") from error
    if values.size == 0 and (values.shape in ((0,), (0, 4)) or (is_prepared and values.ndim == 2)):
        return np.zeros((0, 4))
    is_whole = values.ndim == 2 and (values.shape[1] == 4 or (is_prepared and values.shape[1] % 2 == 0))
    if not is_whole and not (is_prepared and values.ndim == 3 and values.shape[2] == 4):
        raise ValueError(f"{expected}; got shape {list(values.shape)}")
    if values.dtype.kind not in "iuf":
        raise ValueError(f"boxes must be numbers, got {values.dtype}")
    checked = values.astype(np.float64)
    half = checked.shape[-1] // 2
    for box in checked.reshape(-1, 2 * half):
        if not np.all(np.isfinite(box)):
            raise ValueError(f"boxes must be finite, got {box.tolist()}")
        if np.any(box[half:] < box[:half]):
            if half != 2:
                raise ValueError(f"boxes must begin before they end, along every axis, got {box.tolist()}")
            raise ValueError(
                f"boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got {box.tolist()}; "
                "if these are x, y, width, height, add the first two to the last two"
            )
    return checked


def _checked_masks(masks: Any, num: int | None, *, is_prepared: bool) -> np.ndarray:
    values = np.asarray(masks)
    grid = "*spatial" if is_prepared else "H, W"
    if values.dtype != np.bool_:
        raise TypeError(f"masks must be bool [m, {grid}], got {values.dtype}; compare them: masks > 0")
    is_right = values.ndim >= 2 if is_prepared else values.ndim == 3
    if not is_right or num not in (None, values.shape[0]):
        shown = f"[m, {grid}], one an instance" if num is None else f"[{num}, {grid}], one a box"
        raise ValueError(f"masks must have shape {shown}, got {list(values.shape)}")
    return values

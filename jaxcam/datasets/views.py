"""From a picture to what the network sees, and the truth along with it.

Contract: boxes and masks move exactly as `resize_and_crop` moves the pixels: scaled by new/old along each axis, then
shifted by the crop's corner. Boxes are clipped to the view. Masks take the nearest pixel. Whatever is wrong with one
picture becomes one line of text; no exception leaves `seen_file`, `seen_picture` and `view_of`.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from jaxcam.datasets.examples import Truth, View, bad_view, one_line
from jaxcam.datasets.regions import drawn
from jaxcam.images.picture import checked_picture
from jaxcam.images.preprocessing import Preprocessing, _resized_shape
from jaxcam.images.reading import read_image


class Seen(NamedTuple):
    """What came of one picture.

    Attributes:
        image: `[h, w, 3]`, the view in [0, 1], float32; None if there is none.
        height: of the whole picture.
        width: of the whole picture.
        error: one line: why there is no image.
    """

    image: np.ndarray | None
    height: int = 0
    width: int = 0
    error: str | None = None


class Frame(NamedTuple):
    """How a whole picture becomes a view: its new size, and the part of that which is kept."""

    new_height: int
    new_width: int
    top: int
    left: int
    view_height: int
    view_width: int


def seen_file(path: str | os.PathLike[str], preprocessing: Preprocessing) -> Seen:
    """The view of an image file."""
    try:
        picture = read_image(path)
        return Seen(preprocessing.view(picture), *picture.shape[:2])
    except Exception as error:
        return Seen(None, error=one_line(error))


def seen_picture(image: Any, preprocessing: Preprocessing) -> Seen:
    """The view of a picture in memory."""
    try:
        picture = checked_picture(image)
        return Seen(preprocessing.view(picture), *picture.shape[:2])
    except Exception as error:
        return Seen(None, error=one_line(error))


def view_of(index: int, name: str, seen: Seen, truth: Truth, preprocessing: Preprocessing) -> View:
    """The view with the truth in its coordinates."""
    if seen.image is None:
        return bad_view(index, name, seen.error or "no picture", truth)
    problem = _size_problem(seen, truth)
    if problem is not None:
        return bad_view(index, name, problem, truth)
    frame = framed(seen.height, seen.width, preprocessing)
    boxes, kept = moved_boxes(truth.boxes, seen.height, seen.width, frame)
    masks = None
    if truth.masks is not None:
        whole = [m if isinstance(m, np.ndarray) else drawn(m, seen.height, seen.width) for m in truth.masks]
        masks = moved_masks([mask for mask, keep in zip(whole, kept, strict=True) if keep], frame)
    return View(index, name, seen.image, truth.label, boxes, truth.box_classes[kept], masks, int(np.sum(~kept)), None)


def framed(height: int, width: int, preprocessing: Preprocessing) -> Frame:
    """What `resize_and_crop` does to a picture of that size."""
    new_height, new_width = height, width
    if preprocessing.resize is not None:
        new_height, new_width = _resized_shape(height, width, preprocessing.resize)
    crop = preprocessing.crop
    if crop is None:
        return Frame(new_height, new_width, 0, 0, new_height, new_width)
    return Frame(new_height, new_width, round((new_height - crop) / 2), round((new_width - crop) / 2), crop, crop)


def moved_boxes(
    boxes: Float[np.ndarray, "m 4"], height: int, width: int, frame: Frame
) -> tuple[Float[np.ndarray, "kept 4"], Bool[np.ndarray, " m"]]:
    """The boxes in pixels of the view, clipped to it, without those of which nothing is left; and which were kept."""
    scale = np.array([frame.new_width / width, frame.new_height / height] * 2)
    corner = np.array([frame.left, frame.top] * 2)
    limit = np.array([frame.view_width, frame.view_height] * 2)
    moved = np.clip(boxes * scale - corner, 0, limit).astype(np.float32)
    kept = (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
    return moved[kept], kept


def moved_masks(masks: list[np.ndarray], frame: Frame) -> Bool[np.ndarray, "m h w"]:
    """The masks in pixels of the view."""
    bottom, right = frame.top + frame.view_height, frame.left + frame.view_width
    moved = np.zeros((len(masks), frame.view_height, frame.view_width), np.bool_)
    for i, mask in enumerate(masks):
        whole = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
        new = np.asarray(whole.resize((frame.new_width, frame.new_height), Image.Resampling.NEAREST))
        moved[i] = new[frame.top : bottom, frame.left : right] > 127
    return moved


def _size_problem(seen: Seen, truth: Truth) -> str | None:
    found = (seen.height, seen.width)
    if truth.size is not None and truth.size != found:
        return (
            f"the annotation is of a picture {truth.size[1]} wide and {truth.size[0]} high, the file's is {found[1]} "
            f"wide and {found[0]} high: another file, or one that its EXIF rotation turns; turn the pixels and drop "
            "the EXIF tag, or annotate the picture as it is shown"
        )
    if isinstance(truth.masks, np.ndarray) and truth.masks.shape[1:] != found:
        return f"masks must be as large as the picture, [{found[0]}, {found[1]}], got {list(truth.masks.shape[1:])}"
    return None

"""From a picture to what the network sees, and the truth along with it.

Contract: boxes and masks move exactly as `resize_and_crop` moves the pixels: scaled by new/old along each axis, then
shifted by the crop's corner. Boxes are clipped to the view; one that is not in the picture is an error. Masks take the
nearest pixel. Whatever is wrong with one picture becomes one line of text; no exception leaves `view_of`. What is
prepared for the model is only checked.
"""

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from jaxcam.datasets.examples import Truth, View, one_line
from jaxcam.datasets.items import Item
from jaxcam.datasets.prepared import Prepared, prepared_view
from jaxcam.datasets.regions import drawn
from jaxcam.images.picture import checked_picture
from jaxcam.images.preprocessing import Frame, Preprocessing, frame_of, read_view


def view_of(item: Item, preprocessing: Preprocessing | Prepared) -> View:
    """The view of an item's picture, with its truth in the view's coordinates; or why there is none."""
    index, name, truth, error = item.index, item.name, item.truth, item.error
    if error is None:
        try:
            is_prepared = isinstance(preprocessing, Prepared)
            return prepared_view(item, preprocessing) if is_prepared else _view(item, preprocessing)
        except Exception as caught:
            error = one_line(caught)
    return View(index, name, None, truth.label, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), None, 0, error)


def _view(item: Item, preprocessing: Preprocessing) -> View:
    if item.is_file:
        image, (height, width) = read_view(item.image, preprocessing)
    else:
        is_flat = preprocessing.is_grey and getattr(item.image, "ndim", None) == 2
        picture = checked_picture(item.image[..., None] if is_flat else item.image, channels=len(preprocessing.mean))
        image, (height, width) = preprocessing.view(picture), picture.shape[:2]
    truth = item.truth
    _check_size(truth, height, width)
    _check_boxes(truth.boxes, height, width)
    frame = frame_of(height, width, preprocessing.resize, preprocessing.crop)
    boxes, kept = moved_boxes(truth.boxes, height, width, frame)
    masks = None
    if truth.masks is not None:
        has_boxes = len(truth.boxes) > 0
        left = [mask for mask, keep in zip(truth.masks, kept, strict=True) if keep] if has_boxes else truth.masks
        # One at a time: thousands of instances of a large picture would fill any memory.
        whole = (m if isinstance(m, np.ndarray) else drawn(m, height, width) for m in left)
        masks = np.concatenate([moved_masks([], frame), *(moved_masks([mask], frame) for mask in whole)])
        if not has_boxes:
            kept = masks.any((1, 2))
            masks = masks[kept]
    return View(item.index, item.name, image, truth.label, boxes, truth.box_classes[kept], masks, int(np.sum(~kept)))


def moved_boxes(
    boxes: Float[np.ndarray, "m 4"], height: int, width: int, frame: Frame
) -> tuple[Float[np.ndarray, "kept 4"], Bool[np.ndarray, " m"]]:
    """The boxes in pixels of the view, clipped to it, without those of which nothing is left; and which were kept."""
    scale = np.array([frame.new_width / width, frame.new_height / height] * 2)
    corner = np.array([frame.left, frame.top] * 2)
    size = np.array([frame.right - frame.left, frame.bottom - frame.top] * 2)
    moved = np.clip(boxes * scale - corner, 0, size).astype(np.float32)
    kept = (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
    return moved[kept], kept


def moved_masks(masks: list[np.ndarray], frame: Frame) -> Bool[np.ndarray, "m h w"]:
    """The masks in pixels of the view."""
    moved = np.zeros((len(masks), frame.bottom - frame.top, frame.right - frame.left), np.bool_)
    for i, mask in enumerate(masks):
        whole = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
        new = np.asarray(whole.resize((frame.new_width, frame.new_height), Image.Resampling.NEAREST))
        moved[i] = new[frame.top : frame.bottom, frame.left : frame.right] > 127
    return moved


def _check_size(truth: Truth, height: int, width: int) -> None:
    if truth.size is not None and truth.size != (height, width):
        raise ValueError(
            f"the annotation is of a picture {truth.size[1]} wide and {truth.size[0]} high, the file's is {width} "
            f"wide and {height} high: another file, or one that its EXIF rotation turns; turn the pixels and drop "
            "the EXIF tag, or annotate the picture as it is shown"
        )
    if isinstance(truth.masks, np.ndarray) and truth.masks.shape[1:] != (height, width):
        raise ValueError(
            f"masks must be as large as the picture, [{height}, {width}], but are {list(truth.masks.shape[1:])}"
        )


def _check_boxes(boxes: Float[np.ndarray, "m 4"], height: int, width: int) -> None:
    """Boxes without area are lost later. Up to a pixel beyond is rounding, or a count from 1."""
    sized = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    if len(sized) and sized.min() >= 0 and sized.max() <= 1 < max(height, width):
        raise ValueError(
            f"boxes must be in pixels but are from 0 to 1, as {sized[0].tolist()}: multiply x by the width, {width}, "
            f"and y by the height, {height}"
        )
    beyond = (sized < -1).any(1) | (sized[:, 2:] > [width + 1, height + 1]).any(1)
    if beyond.any():
        raise ValueError(
            f"boxes must lie in the picture, {width} wide and {height} high, but one is x0, y0, x1, y1 = "
            f"{sized[beyond][0].tolist()}: annotate this picture and not one of another size, and clip what goes on "
            "beyond its edge"
        )

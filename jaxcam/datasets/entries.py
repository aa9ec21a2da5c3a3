"""What an annotation file says about one image, before class names become indices."""

from typing import Any, NamedTuple

import numpy as np

from jaxcam.checks import is_integer
from jaxcam.datasets.examples import checked_boxes
from jaxcam.datasets.regions import Region


class Entry(NamedTuple):
    """One image of an annotation file.

    Attributes:
        file: the image's path as the annotation has it, with forward slashes.
        where: the annotation's file and entry, for messages.
        size: height and width of the picture as annotated, or None.
        label: the class, a name or an index.
        imagenet_index: the class among ImageNet's 1,000, where the annotation gives it beside the name.
        boxes: float64 `[m, 4]`: x0, y0, x1, y1, half-open.
        box_labels: of each box; None: the image's label, for one box or for all.
        label_is_largest_box: the image's class is that of its largest box by area.
        regions: the pixels of each instance; None if there is none or one cannot be read.
    """

    file: str
    where: str
    size: tuple[int, int] | None
    label: str | int | None
    imagenet_index: int | None
    boxes: np.ndarray
    box_labels: tuple[str | int | None, ...] | None
    label_is_largest_box: bool = False
    regions: tuple[Region, ...] | None = None

    @property
    def says_something(self) -> bool:
        """Whether there is a class or a box."""
        return self.label is not None or self.imagenet_index is not None or len(self.boxes) > 0


def malformed(message: str) -> ValueError:
    """The error for what a file contains: always a ValueError, of whatever kind the wrong thing is."""
    return ValueError(message)


def entry_boxes(boxes: Any, where: str) -> np.ndarray:
    """The boxes as float64 `[m, 4]`; a ValueError names the place."""
    try:
        return checked_boxes(boxes)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def entry_size(height: Any, width: Any, where: str) -> tuple[int, int] | None:
    """Height and width; None if both are absent or 0, as some tools write what they do not know.

    Raises:
        ValueError: they are not whole positive numbers.
    """
    if (height is None and width is None) or (height == 0 and width == 0):
        return None
    return _num_pixels(height, f"{where}: height"), _num_pixels(width, f"{where}: width")


def _num_pixels(value: Any, name: str) -> int:
    if not is_number(value, 1, 2**31) or value != int(value):
        raise ValueError(f"{name} must be a whole number of pixels, got {value!r:.60}")
    return int(value)


def is_number(value: Any, low: int | float, high: int | float) -> bool:
    """Whether it is a number from low to below high; NaN, infinity and integers that no float can hold are none."""
    return (is_integer(value) or isinstance(value, float)) and low <= value < high


def entry_file(file: Any, where: str) -> str:
    """The path, with forward slashes; ValueError if there is none."""
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f"{where}: the name of the image file is missing, got {file!r:.60}")
    if len(file) > 4096:
        raise ValueError(f"{where}: the name of the image file must have at most 4,096 letters, got {len(file):,}")
    return file.strip().replace("\\", "/")

"""An item of a data set whose picture has not been looked at."""

import os
from typing import Any, NamedTuple

from jaxcam.datasets.examples import NO_TRUTH, Truth, as_example, is_path, one_line, printable, truth_of


class Item(NamedTuple):
    """What is known about a picture before it is decoded.

    Attributes:
        index: in the data set.
        name: for tables and messages.
        image: a path, a picture, or a prepared input.
        truth: what is known about it.
        error: why it is bad already; or None.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    name: str
    image: Any = None
    truth: Truth = NO_TRUTH
    error: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether there is a file to decode."""
        return self.error is None and is_path(self.image)


def item_of(index: int, given: Any, *, num_classes: int | None, is_prepared: bool = False) -> Item:
    """What the user's data set holds at a place, checked but for the picture, or the prepared input."""
    name = f"{'example' if is_prepared else 'image'} {index}"
    try:
        example = as_example(given)
        if is_path(example.image):
            name = printable(os.fsdecode(example.image))
        if isinstance(example.name, str):
            name = printable(example.name)
        return Item(index, name, example.image, truth_of(example, num_classes=num_classes, is_prepared=is_prepared))
    except Exception as error:
        return Item(index, name, error=one_line(error))

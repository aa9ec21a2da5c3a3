"""Items of a data set -> views, with image files decoded ahead.

Contract: one view for each item, in their order. Items are taken from their iterator a window ahead of the views, as
long as they are image files; a picture in memory is not taken before it is its turn, so that few are held at once.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from jaxcam.datasets.decoding import Decoder
from jaxcam.datasets.examples import (
    NO_TRUTH,
    Truth,
    View,
    as_example,
    bad_view,
    is_path,
    one_line,
    printable,
    truth_of,
)
from jaxcam.datasets.views import Seen, seen_picture, view_of
from jaxcam.images.preprocessing import Preprocessing

_AHEAD_OF_EACH_WORKER = 4


class Item(NamedTuple):
    """An item whose picture has not been looked at.

    Attributes:
        index: in the data set.
        name: for tables and messages.
        image: a path, or a picture.
        truth: what is known about it.
        error: why it is bad already; or None.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    name: str
    image: Any = None
    truth: Truth = NO_TRUTH
    error: str | None = None


def item_of(index: int, given: Any, *, num_classes: int | None) -> Item:
    """What the user's data set holds at a place, checked but for the picture."""
    name = f"image {index}"
    try:
        example = as_example(given)
        if is_path(example.image):
            name = printable(os.fsdecode(example.image))
        if isinstance(example.name, str):
            name = printable(example.name)
        return Item(index, name, example.image, truth_of(example, num_classes=num_classes))
    except Exception as error:
        return Item(index, name, error=one_line(error))


def views_of(
    items: Iterator[Item], *, preprocessing: Preprocessing, num_workers: int, prefetch: int | None
) -> Generator[View]:
    """The views of the items, in their order; closing the generator ends the workers.

    Args:
        items: any number of them.
        preprocessing: of the network.
        num_workers: processes that decode image files; 0: this one.
        prefetch: how many images to decode ahead; 4 for each worker by default.
    """
    ahead = max(1, _AHEAD_OF_EACH_WORKER * num_workers if prefetch is None else prefetch)
    window: deque[tuple[Item, Callable[[], Seen] | None]] = deque()
    with Decoder(preprocessing, num_workers) as decoder:
        for item in items:
            decoding = is_path(item.image) and item.error is None
            window.append((item, decoder.submit(item.image) if decoding else None))
            while window and (len(window) >= ahead or window[0][1] is None):
                yield _view(*window.popleft(), preprocessing)
        while window:
            yield _view(*window.popleft(), preprocessing)


def _view(item: Item, decoding: Callable[[], Seen] | None, preprocessing: Preprocessing) -> View:
    if item.error is not None:
        return bad_view(item.index, item.name, item.error, item.truth)
    seen = seen_picture(item.image, preprocessing) if decoding is None else decoding()
    return view_of(item.index, item.name, seen, item.truth, preprocessing)

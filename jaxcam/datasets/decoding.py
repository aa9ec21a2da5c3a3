"""Items of a data set -> views, in their order, with image files decoded ahead by threads.

Contract: one view for each item, and the same ones, to the last bit, for any number of threads: Pillow and NumPy let
other threads run while they decode and resize. Items are taken from their iterator a window ahead of the views as long
as they are image files, so that at most so many pictures are held at once; a picture in memory is not taken before it
is its turn. Closing the generator, an exception of its consumer and Ctrl-C drop what has not begun, and wait for the
one picture that each thread is working on.

A file that asks for too much time or memory is a bad picture, by the limits of `images.limits`: each thread may need
1.5 GiB. Not survived, as it would take a process for each picture: a decoder that crashes ends Python.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from jaxcam.checks import check_integer
from jaxcam.datasets.examples import View
from jaxcam.datasets.items import Item
from jaxcam.datasets.prepared import Prepared
from jaxcam.datasets.views import view_of
from jaxcam.images.preprocessing import Preprocessing

_AHEAD_OF_EACH_THREAD = 4


def checked_num_workers(num_workers: int | None) -> int:
    """The number of threads: by default one for each core, at most 4.

    Raises:
        TypeError: not an integer.
        ValueError: negative.
    """
    if num_workers is None:
        return min(4, os.cpu_count() or 1)
    return check_integer("num_workers", num_workers, low=0, hint=": 0 decodes without threads, None chooses a number")


def views_of(
    items: Iterator[Item], *, preprocessing: Preprocessing | Prepared, num_workers: int, prefetch: int | None
) -> Generator[View]:
    """The views of the items, in their order.

    Args:
        items: any number of them.
        preprocessing: of the network; or what inputs are like that are prepared for it.
        num_workers: threads that decode image files; 0: none, each file is decoded here when it is its turn.
        prefetch: how many items to take ahead; 4 for each thread by default.
    """
    if num_workers == 0:
        yield from (view_of(item, preprocessing) for item in items)
        return
    ahead = _AHEAD_OF_EACH_THREAD * num_workers if prefetch is None else prefetch
    window: deque[Item | Future[View]] = deque()
    threads = ThreadPoolExecutor(num_workers, thread_name_prefix="jaxcam-decoding")  # started when there is a file

    def first() -> View:
        waiting = window.popleft()
        return waiting.result() if isinstance(waiting, Future) else view_of(waiting, preprocessing)

    try:
        for item in items:
            window.append(threads.submit(view_of, item, preprocessing) if item.is_file else item)
            while window and (len(window) >= ahead or not isinstance(window[0], Future)):
                yield first()
        while window:
            yield first()
    finally:
        threads.shutdown(cancel_futures=True)

"""A progress bar on standard error: nothing where that is not a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")
_WIDTH = 24


def progress(items: Iterable[T], *, total: int, label: str, out: TextIO | None = None) -> Iterator[T]:
    """The items, while a line with the share done, the rate and the time left is drawn at most ten times a second."""
    stream = out or sys.stderr
    if not stream.isatty():
        yield from items
        return
    start, drawn = time.monotonic(), 0.0
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if done == 0 or now - drawn > 0.1:
                drawn = now
                stream.write("\r" + _line(done, total, now - start, label))
                stream.flush()
            yield item
        stream.write("\r" + _line(total, total, time.monotonic() - start, label))
    finally:
        stream.write("\n")
        stream.flush()


def _line(done: int, total: int, seconds: float, label: str) -> str:
    filled = round(_WIDTH * done / max(total, 1))
    left = f"{_clock(seconds / done * (total - done))} left" if 0 < done < total else _clock(seconds)
    rate = f"{done / seconds:.1f}/s" if done and seconds > 0 else ""
    return f"{label} [{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{total} {rate} {left}".ljust(78)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

"""A progress bar on standard error: nothing where that is not a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

T = TypeVar("T")
_WIDTH = 24


class Progress:
    """A line with the share done, the rate and the time left, drawn at most ten times a second."""

    def __init__(
        self, *, total: int | None, label: str, done: int = 0, shown: bool = True, out: TextIO | None = None
    ) -> None:
        """Begins to count; what is `done` from an earlier run does not count for the rate."""
        self._stream = out or sys.stderr
        self._total, self._label, self._first, self._done = total, label, done, done
        self._shown = shown and self._stream.isatty()
        self._start, self._drawn = time.monotonic(), -1.0

    def update(self, done: int) -> None:
        """So many are done."""
        self._done = done
        now = time.monotonic()
        if self._shown and now - self._drawn > 0.1:
            self._draw(now)

    def __enter__(self) -> "Progress":
        self.update(self._done)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._shown:
            self._draw(time.monotonic())
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self, now: float) -> None:
        self._drawn = now
        line = _line(self._done, self._total, now - self._start, self._label, first=self._first)
        self._stream.write("\r" + line)
        self._stream.flush()


def progress(items: Iterable[T], *, total: int, label: str, out: TextIO | None = None) -> Iterator[T]:
    """The items, while the bar is drawn."""
    with Progress(total=total, label=label, out=out) as bar:
        for done, item in enumerate(items):
            bar.update(done)
            yield item
        bar.update(total)


def _line(done: int, total: int | None, seconds: float, label: str, *, first: int = 0) -> str:
    now = done - first
    rate = f"{now / seconds:.1f}/s" if now and seconds > 0 else ""
    if total is None:
        return f"{label} {done} {rate} {_clock(seconds)}".ljust(78)
    filled = round(_WIDTH * done / max(total, 1))
    left = f"{_clock(seconds / now * (total - done))} left" if now and done < total else _clock(seconds)
    return f"{label} [{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{total} {rate} {left}".ljust(78)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

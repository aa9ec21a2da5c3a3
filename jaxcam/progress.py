"""Progress in one line on standard error: drawn in place in terminals and notebooks, a plain line now and then in logs.

Runs that end within two seconds say nothing; after that no minute passes without a word, however long a single step
takes. The line is rich's, which is imported when the first one is drawn.
"""

import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

QUIET = 2.0
"""So many seconds pass before the first word."""
SILENCE = 30.0
"""At most so many seconds pass between two lines of a log; every tenth that is done is told as well."""
_TICK = 0.2


_ONE = threading.Lock()
"""Held by whoever tells: of steps within steps the outermost, in one line."""


@contextmanager
def silent() -> Generator[None]:
    """No progress is told meanwhile."""
    is_mine = _ONE.acquire(blocking=False)
    try:
        yield
    finally:
        if is_mine:
            _ONE.release()


class Progress:
    """What is done of how much, the rate and the time left, told by a thread from entering to leaving."""

    def __init__(
        self, *, total: int | None, label: str, done: int = 0, shown: bool = True, counts: bool = True
    ) -> None:
        """What is `done` already, from an earlier run, does not count for the rate.

        Where nothing `counts`, because it is one step, the line tells how long it has been at it.
        """
        self._counts = counts
        self._total, self._label, self._first, self._done = total, label, done, done
        self._shown, self._ended = shown, threading.Event()
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def update(self, done: int) -> None:
        """So many are done."""
        self._done = done

    def __enter__(self) -> "Progress":
        self._shown = self._shown and _ONE.acquire(blocking=False)
        if self._shown:
            self._teller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._shown:
            self._teller.join()
            _ONE.release()

    def _tell(self) -> None:
        if self._ended.wait(QUIET):
            return
        line = _Line(self._label, self._total, self._first, self._counts)
        line.draw(self._done)
        while not self._ended.wait(_TICK):
            line.draw(self._done)
        line.close(self._done)


def progress(items: Iterable[T], *, total: int, label: str, done: int = 0) -> Iterator[T]:
    """The items, while their progress is told; so many are `done` already and not among them."""
    with Progress(total=total, label=label, done=done) as bar:
        for i, item in enumerate(items, start=done):
            bar.update(i)
            yield item
        bar.update(total)


class _Line:
    """rich's line, where it can be drawn anew; else a line of its own when there is something to say."""

    def __init__(self, label: str, total: int | None, first: int, counts: bool) -> None:
        from rich import progress as rich
        from rich.console import Console

        # Not rich's own test: an environment variable must not bring escape codes into a log.
        is_terminal = bool(sys.stderr and sys.stderr.isatty())
        # Nor its way in notebooks, which needs ipywidgets: there IPython shows the same text anew in one place.
        console = Console(stderr=True, force_terminal=is_terminal, force_jupyter=False)
        self._is_live = is_terminal and not console.is_dumb_terminal
        self._place = None if self._is_live else _place_in_notebook()
        self._rich = rich.Progress(
            rich.TextColumn("{task.description}"),
            *([rich.BarColumn()] if self._is_live else []),
            *([rich.MofNCompleteColumn()] if counts else [rich.TimeElapsedColumn()]),
            rich.TextColumn("{task.fields[rate]}"),
            *([] if total is None else [rich.TimeRemainingColumn(elapsed_when_finished=True)]),
            console=console,
            auto_refresh=False,
            # What is printed meanwhile goes above the line, unless it goes to a file.
            redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
        )
        self._task = self._rich.add_task(label, total=total, completed=first, rate="")
        start = self._rich.tasks[0].start_time
        self._rich.tasks[0].start_time = None if start is None else start - QUIET  # when it was entered
        self._told, self._told_done, self._told_at = -1, -1, 0.0
        if self._is_live:
            self._rich.start()

    def draw(self, done: int, *, at_end: bool = False) -> None:
        """Draws the line, or writes it where that is due."""
        task, now = self._rich.tasks[0], time.monotonic()
        rate = f"{task.speed:.1f}/s" if task.speed else ""
        self._rich.update(self._task, completed=done, rate=rate, refresh=self._is_live)
        tenth = 10 * done // task.total if task.total else 0
        if self._place is not None:
            self._place.update({"text/plain": self._text()}, raw=True)
        elif not self._is_live and (
            tenth > self._told or now - self._told_at >= SILENCE or self._is_news(done, at_end)
        ):
            self._told, self._told_done, self._told_at = int(tenth), done, now
            print(self._text(), file=sys.stderr, flush=True)

    def _is_news(self, done: int, at_end: bool) -> bool:
        """Whether the last line says more than the one before: that more is done, or how long one step has taken."""
        return at_end and (done != self._told_done or self._rich.tasks[0].total is None)

    def close(self, done: int) -> None:
        """The last line."""
        self.draw(done, at_end=True)
        if self._is_live:
            self._rich.stop()

    def _text(self) -> str:
        with self._rich.console.capture() as captured:
            self._rich.console.print(self._rich.get_renderable())
        return " ".join(captured.get().split())


def _place_in_notebook() -> Any:
    """A place that is shown anew, below the cell that runs in a notebook; None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display  # pyright: ignore[reportMissingImports]

    return display({"text/plain": ""}, raw=True, display_id=True)

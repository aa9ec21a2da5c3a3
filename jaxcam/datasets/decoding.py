"""Image files decoded in worker processes, ahead of when they are needed.

Contract: `Decoder.submit` gives something to call for the result; results do not depend on the number of workers, to
the last bit. A worker is a Python of its own that runs `decode_worker` and talks over pipes, so that scripts need no
`if __name__ == "__main__"`; it never takes an accelerator. A worker that dies (a decoder's crash, memory, a signal)
is replaced, and what it had not answered is asked again; an image with which a second worker dies is reported as bad.
When workers die in a row and none succeeds, a RuntimeError ends it. `close` ends all workers; so does the end of this
process, however it comes.

One thread for each worker does the waiting. It keeps a second request in the pipe while the first is decoded, so
that the worker need not wait for a thread of a process that is busy with other things.
"""

import contextlib
import itertools
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jaxcam.datasets.examples import one_line
from jaxcam.datasets.views import Seen, seen_file
from jaxcam.images.preprocessing import Preprocessing

READY = "ready"
_MODULE = "jaxcam.datasets.decode_worker"
_ASKED_AHEAD = 2
_DEATHS_OF_AN_IMAGE = 2
_DEATHS_IN_A_ROW = 6


def checked_num_workers(num_workers: int | None) -> int:
    """The number of workers: by default one for each core, at most 4.

    Raises:
        TypeError: not an int.
        ValueError: negative.
    """
    if num_workers is None:
        return min(4, os.cpu_count() or 1)
    if isinstance(num_workers, bool) or not isinstance(num_workers, int):
        raise TypeError(f"num_workers must be an int or None, got {num_workers!r}")
    if num_workers < 0:
        raise ValueError(f"num_workers must be at least 0 (decode in this process), got {num_workers}")
    return num_workers


def packed(seen: Seen) -> Seen:
    """With the image in 8 bits if that is exact, which it is for what was 8 bits before: a quarter of the bytes."""
    if seen.image is None:
        return seen
    small = np.rint(seen.image * np.float32(255)).astype(np.uint8)
    return seen._replace(image=small) if np.array_equal(_unpacked(small), seen.image) else seen


def _unpacked(image: np.ndarray) -> np.ndarray:
    # As jaxcam.images.picture.from_pillow computes it, to the last bit.
    return np.divide(image, np.float32(255), dtype=np.float32) if image.dtype == np.uint8 else image


class Decoder:
    """Decodes image files in `num_workers` processes, or in this one if that is 0; a context manager.

    Workers start when there is something to decode.

    Attributes:
        num_workers: the number of processes.
    """

    def __init__(self, preprocessing: Preprocessing, num_workers: int) -> None:
        self.num_workers = num_workers
        self._preprocessing = preprocessing
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._closed = False
        self._deaths = 0
        self._failure: RuntimeError | None = None

    def submit(self, path: str | os.PathLike[str]) -> Callable[[], Seen]:
        """Begins to decode a file; calling the result waits for it."""
        if self.num_workers == 0:
            return lambda: seen_file(path, self._preprocessing)
        if not self._threads:
            self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.num_workers)]
            for thread in self._threads:
                thread.start()
        job = _Job(os.fspath(path))
        self._jobs.put(job)
        return job.result

    def close(self) -> None:
        """Ends all workers; what they had not answered is lost."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.process.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        asked: deque[_Job] = deque()  # what one worker has not answered yet, in the order of its answers
        worker: _Worker | None = None
        try:
            while not self._closed:
                if not self._take(asked, worker):
                    return
                try:
                    if worker is None:
                        worker = self._started(asked)
                    answer = worker.answer()
                except Exception as error:  # the end of the pipe, half a message, no more processes ..
                    self._bury(worker, asked, error)
                    worker = None
                else:
                    self._deaths = 0
                    asked.popleft().future.set_result(answer)
        except BaseException as error:
            # A fault in this module: nobody may wait for ever for what this thread would have answered.
            self._failure = RuntimeError(f"decoding in worker processes failed: {one_line(error)}")
            for job in itertools.chain(asked, iter(self._jobs.get, None)):
                job.future.set_exception(self._failure)
        finally:
            if worker is not None:
                self._end(worker)

    def _take(self, asked: "deque[_Job]", worker: "_Worker | None") -> bool:
        """Asks for more as long as there is something to ask; False if there is nothing and never will be."""
        while len(asked) < _ASKED_AHEAD:
            try:
                job = self._jobs.get(block=not asked)
            except queue.Empty:
                break
            if job is None:
                return False
            asked.append(job)
            if worker is not None:
                # If it is dead, the attempt to read its answer will say so.
                with contextlib.suppress(OSError):
                    worker.ask(job.path)
        return True

    def _started(self, asked: "deque[_Job]") -> "_Worker":
        if self._failure is not None:
            raise OSError("workers cannot be started")
        worker = _Worker()
        with self._lock:
            self._workers.add(worker)
            if self._closed:
                worker.process.kill()
        try:
            worker.ask(self._preprocessing)
            worker.answer()  # READY: from now on an image is to blame if it dies
        except BaseException:
            self._end(worker)
            raise
        for job in asked:
            # It may be dead of the first before it is asked for the second: reading its answer will say so.
            with contextlib.suppress(OSError):
                worker.ask(job.path)
        return worker

    def _bury(self, worker: "_Worker | None", asked: "deque[_Job]", reason: Exception) -> None:
        how = str(reason) or type(reason).__name__
        if worker is not None:
            # It died with the first image that it had not answered.
            how = _manner(self._end(worker))
            asked[0].deaths += 1
        with self._lock:
            if self._closed:
                return
            self._deaths += 1
            if self._deaths >= _DEATHS_IN_A_ROW and self._failure is None:
                self._failure = RuntimeError(
                    f"the worker processes that decode images keep ending ({how}): {self._deaths} times in a row; "
                    "what they said is on standard error. Free memory, or decode in this process with num_workers=0"
                )
        if self._failure is not None:
            for job in asked:
                job.future.set_exception(self._failure)
            asked.clear()
        elif asked[0].deaths >= _DEATHS_OF_AN_IMAGE:
            job = asked.popleft()
            error = f"image file {job.path!r}: decoding ended the worker process, {job.deaths} times ({how})"
            job.future.set_result(Seen(None, error=error))

    def _end(self, worker: "_Worker") -> int:
        with self._lock:
            self._workers.discard(worker)
        return worker.end()


class _Job:
    """A file to decode."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.deaths = 0
        self.future: Future[Seen] = Future()

    def result(self) -> Seen:
        seen = self.future.result()
        return seen if seen.image is None else seen._replace(image=_unpacked(seen.image))


class _Worker:
    """One process, and the pipes to and from it."""

    def __init__(self) -> None:
        # The worker must import the same package as this process: it gets the same paths in the same order, and -P
        # keeps whatever lies in the working folder out of its way.
        root = str(Path(__file__).parents[2])
        paths = [path for path in sys.path if path]
        paths = paths if root in paths else [root, *paths]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the workers
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout

    def ask(self, message: Any) -> None:
        """Sends a message."""
        pickle.dump(message, self._input, protocol=pickle.HIGHEST_PROTOCOL)
        self._input.flush()

    def answer(self) -> Any:
        """Waits for the next message."""
        return pickle.load(self._output)

    def end(self) -> int:
        """Kills the process if it still runs, and closes the pipes; its exit status."""
        self.process.kill()
        with contextlib.suppress(OSError):
            self._input.close()
        self._output.close()
        return self.process.wait()


def _manner(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"

"""The pooled features of a data set: x `[n, k]`, the means of a layer's activations over the positions, and labels.

Examples are read by threads, a block of them goes through the network at a time, and only x is kept. With a path it is
kept in a file as well, from which a killed run goes on:

    features.bin.part   while the run lasts: a line of JSON that says of what these are the features, and a record of
                        one size for each example so far, [label int32 | checksum uint32 | x]
    features.bin        when it is complete; the .part is renamed

Contract: the file holds whole blocks; what a killed run left half written is cut off and computed again, in the same
block, so that a resumed run gives the same numbers bit for bit. A file with another header is refused, and so is one
with a record whose checksum does not fit. An example that cannot be read has the label `UNREADABLE`, one without a true
class -1; both have no features.
"""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.cuts.cut import Cut
from jaxcam.datasets.examples import View
from jaxcam.datasets.sources import Source
from jaxcam.explanation.feed import Feed
from jaxcam.files import naming
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.precision import widened
from jaxcam.progress import Progress
from jaxcam.tables import shown

UNREADABLE = -2
_LONGEST = 2**20
"""Bytes of the header: a file without any line break must not be read into memory."""


class Pooled(NamedTuple):
    """What is known of the examples, in their order."""

    x: np.ndarray
    """`[n, k]`."""
    labels: np.ndarray
    """`[n]`, -1 where none is known, `UNREADABLE` where there is no example."""
    error: str | None
    """What was wrong with the first that could not be read, of those that were tried in this run."""


def pooled(
    cut: Cut,
    feed: Feed,
    source: Source,
    *,
    preprocessing: Preprocessing | None,
    header: dict[str, Any],
    path: Path | None,
    batch_size: int,
    num_workers: int | None,
    show_progress: bool,
) -> Pooled:
    """The features of all examples; those that a file has already are read.

    Args:
        cut: the model at the layer.
        feed: how examples come to it.
        source: the examples.
        preprocessing: what normalises pictures, None for inputs that are prepared.
        header: what the features depend on, as JSON can hold it.
        path: of the file, or None.
        batch_size: examples of a block.
        num_workers: threads that decode.
        show_progress: whether a line tells how far it is.
    """
    # Compiled for this run alone, so that nothing of the model is kept alive by a program.
    program = jax.jit(partial(_pooled, preprocessing, feed.channel_axis, feed.main))
    made = jax.eval_shape(mean_over_positions, cut.activations)
    if made.shape[0] == 0:
        raise ValueError("layer must have one channel or more but has none: choose another layer")
    record = np.dtype([("label", "<i4"), ("crc", "<u4"), ("x", made.dtype, made.shape)])
    with closing(_File(path, header, record, batch_size)) as file:
        blocks = [file.records] if len(file.records) else []
        done, error = len(file.records), None
        if not file.is_complete:
            indices = count(done) if source.length is None else range(done, source.length)
            ahead = source.views(indices, preprocessing=feed.form, num_workers=num_workers, prefetch=2 * batch_size)
            with (
                closing(ahead) as views,
                Progress(total=source.length, done=done, label="fit_cam: features", shown=show_progress) as bar,
            ):
                # While the device works on one block, the next is decoded and the one before written.
                waiting: tuple[np.ndarray, Array] | None = None
                for block in chain(_blocks(views, batch_size), [None]):
                    begun = None
                    if block is not None:
                        checked = [_of_size(view, feed.like) for view in block]
                        error = error or next((f"{v.name}: {v.error}" for v in checked if v.error is not None), None)
                        labels = np.asarray([UNREADABLE if v.image is None else v.label for v in checked], np.int32)
                        data = _stacked(checked, feed.like, batch_size)
                        begun = labels, program(cut, data)
                    if waiting is not None:
                        blocks.append(file.append(*waiting))
                        done += len(blocks[-1])
                        bar.update(done)
                    waiting = begun
        file.finish()
    whole = np.concatenate(blocks) if blocks else np.zeros(0, record)
    return Pooled(np.ascontiguousarray(whole["x"]), whole["label"].astype(np.int64), error)


def _blocks(views: Iterator[View], size: int) -> Iterator[list[View]]:
    while block := list(islice(views, size)):
        yield block


def _pooled(preprocessing: Preprocessing | None, channel_axis: int, main: int, cut: Cut, data: Any) -> Array:
    """The features `[n, k]` of a block as it was read."""
    leaves = jax.tree.leaves(data)
    if preprocessing is not None:
        image = preprocessing.normalise(leaves[main])
        leaves[main] = jnp.moveaxis(image, -1, 1) if channel_axis == 0 else image

    def one(*leaves: Array) -> Array:
        activations, _ = cut.given(leaves).features(leaves[main])
        return mean_over_positions(activations)

    return jax.vmap(one)(*leaves)


def mean_over_positions(activations: Array) -> Array:
    """A `[*spatial, k]` -> `[k]`, in float32 at least."""
    (wide,) = widened(activations)
    return wide.mean(tuple(range(wide.ndim - 1)))


def _of_size(view: View, like: Any) -> View:
    """Pictures need one size; prepared inputs have been looked at."""
    if not isinstance(view.image, np.ndarray) or view.image.shape == like.shape:
        return view
    return view._replace(
        image=None,
        error=f"the network would see {list(view.image.shape[:2])} pixels of it and {list(like.shape[:2])} of the "
        "others: give a preprocessing with crop=",
    )


def _stacked(views: list[View], like: Any, size: int) -> Any:
    """The images of a block, zero where there is none: all blocks have one size, for one program."""
    arrays = jax.tree.map(lambda each: np.zeros((size, *each.shape), each.dtype), like)
    for i, view in enumerate(views):
        if view.image is not None:
            for whole, one in zip(jax.tree.leaves(arrays), jax.tree.leaves(view.image), strict=True):
                whole[i] = one
    return arrays


class _File:
    """The records on disk; without a path only those of this run, which the caller keeps."""

    def __init__(self, path: Path | None, header: dict[str, Any], record: np.dtype, block: int) -> None:
        """Opens the file of a run that goes on, or of a new one, and reads what is there."""
        self._path, self._record = path, record
        self._line = json.dumps(header).encode() + b"\n"
        self.records = np.zeros(0, record)
        self.is_complete = path is not None and path.exists()
        self._stream: BinaryIO | None = None
        if path is None:
            return
        with naming(path):
            self._stream = (path if self.is_complete else self._part).open("rb" if self.is_complete else "a+b")
        try:
            if not self.is_complete:
                _lock(self._stream, self._part)
            self._begin(block)
        except BaseException:
            self._stream.close()
            raise

    @property
    def _part(self) -> Path:
        assert self._path is not None
        return self._path.with_name(self._path.name + ".part")

    def append(self, labels: np.ndarray, x: Array) -> np.ndarray:
        """Writes a block, for anyone to see, and returns its records."""
        made = np.zeros(len(labels), self._record)
        made["label"] = labels
        made["x"] = np.asarray(x)[: len(labels)]
        made["x"][labels == UNREADABLE] = 0
        made["crc"] = _checksums(made)
        if self._stream is not None:
            with naming(self._part):
                self._stream.write(made.tobytes())
                self._stream.flush()
        return made

    def finish(self) -> None:
        """Gives the complete file its name."""
        if self._path is None or self._stream is None or self.is_complete:
            return
        with naming(self._path):
            os.fsync(self._stream.fileno())
            self._part.replace(self._path)
        self.is_complete = True

    def close(self) -> None:
        """Lets go of the file."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # of a block that `append` could not write, which told it
                self._stream.close()

    def _begin(self, block: int) -> None:
        assert self._stream is not None
        assert self._path is not None
        where = f"features: {os.fspath(self._path)!r}"
        self._stream.seek(0)
        line = self._stream.readline(_LONGEST)
        if not self.is_complete and self._line.startswith(line) and line != self._line:  # empty, or half a header
            self._stream.truncate(0)
            self._stream.write(self._line)
            self._stream.flush()
            return
        if line != self._line:
            raise ValueError(f"{where} {_difference(line, self._line)}: choose another file, or remove this one")
        rest = self._stream.read()
        size = self._record.itemsize
        num = len(rest) // size
        if self.is_complete and len(rest) != num * size:
            raise ValueError(f"{where} is damaged (its last record has no end): remove the file")
        if not self.is_complete:
            num -= num % block
            self._stream.truncate(len(line) + num * size)
        self.records = np.frombuffer(rest, self._record, num)
        wrong = np.flatnonzero(_checksums(self.records) != self.records["crc"])
        if len(wrong):
            raise ValueError(f"{where} is damaged (the checksum of example {wrong[0]} does not fit): remove the file")


def _checksums(records: np.ndarray) -> np.ndarray:
    sums = [zlib.crc32(record["x"].tobytes(), zlib.crc32(record["label"].tobytes())) for record in records]
    return np.asarray(sums, np.uint32)


def _lock(stream: BinaryIO, part: Path) -> None:
    with contextlib.suppress(ImportError):  # no such module on Windows
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"features: another run is writing {os.fspath(part)!r}: wait for it, or choose another file"
            ) from None


def _difference(there: bytes, here: bytes) -> str:
    """What a header says that is not wanted."""
    try:
        said, wanted = json.loads(there), json.loads(here)
    except (ValueError, RecursionError):
        said, wanted = None, {}
    if not isinstance(said, dict) or "jaxcam_features" not in said:
        return "must be a file that fit_cam has written but is another"
    names = [name for name in wanted if said.get(name) != wanted[name]]
    told = "; ".join(f"{name}: {said.get(name)!r} there, {wanted[name]!r} here" for name in names)
    return f"must hold the same features but holds others ({shown(told, 500)})"

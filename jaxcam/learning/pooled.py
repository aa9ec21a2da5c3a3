"""The pooled features of a data set: x `[n, k]`, the means of a layer's activations over the positions, and labels.

Examples are read by threads, a block of them goes through the network at a time, and only x is kept, with a path in a
file as well (`features_file`). An example that cannot be read has the label `UNREADABLE`, one without a true class -1;
both have no features.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.cuts.cut import Cut
from jaxcam.datasets.examples import View
from jaxcam.datasets.sources import Source
from jaxcam.explanation.feed import Feed, of_size, stacked
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.learning.features_file import UNREADABLE, FeaturesFile
from jaxcam.precision import widened
from jaxcam.progress import Progress


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
    with closing(FeaturesFile(path, header, record, batch_size)) as file:
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
                        checked = [of_size(view, feed.like) for view in block]
                        error = error or next((f"{v.name}: {v.error}" for v in checked if v.error is not None), None)
                        labels = np.asarray([UNREADABLE if v.image is None else v.label for v in checked], np.int32)
                        data = stacked(checked, feed.like, batch_size)
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

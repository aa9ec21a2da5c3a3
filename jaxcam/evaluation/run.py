"""The loop of `evaluate`: blocks of pictures or inputs to the devices, records to the results file.

While the devices work on one step, the next one is decoded by threads, and the step before is compared with the
truth and written. A step is one block for every device; a block that is done already is not begun.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain, count, islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcam.cuts.model import Adapted
from jaxcam.datasets.examples import View
from jaxcam.datasets.prepared import Prepared
from jaxcam.datasets.sources import Source
from jaxcam.evaluation import hosts
from jaxcam.evaluation.block import Block, explained_blocks
from jaxcam.evaluation.insertion import curves_of
from jaxcam.evaluation.journal import Record
from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.plan import Plan
from jaxcam.evaluation.removal import infidelity_in, road_of
from jaxcam.evaluation.stability import sensitivity_of
from jaxcam.evaluation.truths import against_truth, tallies_of
from jaxcam.explanation.feed import of_size, stacked
from jaxcam.images.preprocessing import Preprocessing

_NOTE_BYTES = 1024
_ABSENT, _GOOD, _BAD = 0, 1, 2
_IN_STEPS = {"road": road_of, "infidelity": infidelity_in, "sensitivity": sensitivity_of}


class Job(NamedTuple):
    """All that the loop needs to know."""

    mesh: Mesh
    plan: Plan
    model: Adapted
    columns: tuple[Column, ...]
    source: Source
    form: Preprocessing | Prepared
    """What makes views of the items."""
    like: Any
    """What each view's image is like, a pytree of shapes and dtypes."""
    batch_size: int
    num_workers: int | None
    seed: int


class _Step(NamedTuple):
    blocks: list[int | None]
    """Of all devices."""
    views: list[View | None]
    """Of this process, in their places."""
    block: Block


def steps(job: Job, done: set[int]) -> Iterator[list[Record]]:
    """The records of each step as soon as it is done; of a step that was half done already, those that are missing.

    The same in every process: each decodes the pictures of its own devices, and all get the figures of all.
    """
    own = hosts.own_places(job.mesh)
    indices = (i for blocks in _schedule(job, done) for place in own for i in _of_block(job, blocks[place]))
    ahead = 2 * job.batch_size * len(own)
    views = job.source.views(indices, preprocessing=job.form, num_workers=job.num_workers, prefetch=ahead)
    with closing(views):
        line = _Line(views)
        waiting: _Step | None = None
        for blocks in chain(_schedule(job, done), [None]):
            step: _Step | None = None
            if blocks is not None:
                step = _begun(job, blocks, [line.take(i) for place in own for i in _places(job, blocks[place])])
            if waiting is not None:
                records, is_last = _finished(job, waiting)
                yield [record for record in records if record.index not in done]
                if is_last:
                    return
            waiting = step


class _Line:
    """Views in their order, some of which are missing: the data set has ended."""

    def __init__(self, views: Iterator[View]) -> None:
        self._views = views
        self._next: View | None = None

    def take(self, index: int | None) -> View | None:
        if index is None:
            return None
        if self._next is None:
            self._next = next(self._views, None)
        if self._next is None or self._next.index != index:
            return None
        view, self._next = self._next, None
        return view


def _schedule(job: Job, done: set[int]) -> Iterator[list[int | None]]:
    """Which block each device works on, step by step; without end where the length is unknown."""
    length, size = job.source.length, job.batch_size
    blocks = iter(count() if length is None else range(-(-length // size)))
    todo = (b for b in blocks if not all(i in done for i in _of_block(job, b)))
    num_devices = job.mesh.devices.size
    while step := list(islice(todo, num_devices)):
        yield [*step, *[None] * (num_devices - len(step))]


def _of_block(job: Job, block: int | None) -> range:
    """The pictures of a block."""
    if block is None:
        return range(0)
    end = (block + 1) * job.batch_size
    return range(block * job.batch_size, end if job.source.length is None else min(end, job.source.length))


def _places(job: Job, block: int | None) -> list[int | None]:
    """The same, and None for the places that are left over."""
    indices = list(_of_block(job, block))
    return [*indices, *[None] * (job.batch_size - len(indices))]


def _begun(job: Job, blocks: list[int | None], views: list[View | None]) -> _Step:
    checked = [None if view is None else of_size(view, job.like) for view in views]
    arrays = stacked(checked, job.like, len(checked))
    labels = np.asarray([-1 if view is None or view.image is None else view.label for view in checked], np.int32)
    data, own_labels = jax.tree.map(partial(hosts.sharded, job.mesh), (arrays, labels))
    block = explained_blocks(job.mesh, job.plan, job.model, data, own_labels, np.uint32(job.seed))
    rest = (job.mesh, job.plan, job.model, data)
    more = dict(block.values)
    if "curves" in job.plan.groups:
        more |= curves_of(*rest, block.heatmaps, block.class_idx)
    for group, measured in _IN_STEPS.items():
        if group in job.plan.groups:
            more |= measured(*rest, block, np.uint32(job.seed))
    return _Step(blocks, checked, block._replace(values=more))


def _finished(job: Job, step: _Step) -> tuple[list[Record], bool]:
    """The records of a step, and whether the data set ended in it."""
    block, views = step.block, step.views
    found: dict[str, Any] = {
        "index": hosts.sharded(job.mesh, _indices(job, step)),
        "state": hosts.sharded(job.mesh, np.asarray([_state(view) for view in views], np.int32)),
        "class_idx": block.class_idx,
        "label": hosts.sharded(job.mesh, np.asarray([-1 if v is None else v.label for v in views], np.int32)),
        "y": block.y,
        "o": block.o,
        "status": block.status,
        "values": dict(block.values),
    }
    keys = {column.key for column in job.columns}
    if keys & {"pointing", "iou", "recall"}:
        found["values"] |= against_truth(job.mesh, job.plan.protocol, step.views, block)
    tallies = tallies_of(job.plan.protocol, step.views, block, keys)
    found["tallies"] = {key: hosts.sharded(job.mesh, each) for key, each in tallies.items()}
    found["values"] |= {
        key: hosts.sharded(job.mesh, np.full_like(each[..., 0], np.nan)) for key, each in tallies.items()
    }
    found["values"] = {key: value for key, value in found["values"].items() if key in keys}
    if jax.process_count() > 1:
        found["note"] = hosts.sharded(job.mesh, np.stack([_note(view) for view in views]))
    whole = hosts.gathered(found)
    notes = [_note_text(note) for note in whole["note"]] if "note" in whole else [_words(view) for view in views]
    values = np.stack([whole["values"][column.key] for column in job.columns], -1)
    records: list[Record] = []
    for i, state in enumerate(whole["state"]):
        name, error = notes[i]
        index, label = int(whole["index"][i]), int(whole["label"][i])
        if state == _BAD:
            records.append(Record(index, name, label=label, error=error))
        elif state == _GOOD:
            has_map = np.isfinite(whole["o"][i])[:, None]
            records.append(
                Record(
                    index,
                    name,
                    int(whole["class_idx"][i]),
                    label,
                    float(whole["y"][i]),
                    whole["o"][i].tolist(),
                    whole["status"][i].tolist(),
                    np.where(has_map, values[i], np.nan).tolist(),
                    {key: _tallied(each[i], has_map[:, 0]) for key, each in whole["tallies"].items()},
                )
            )
    return records, job.source.length is None and bool((whole["state"] == _ABSENT).any())


def _tallied(numbers: np.ndarray, has_map: np.ndarray) -> list[list[int] | None]:
    """For each method whole numbers, or None where it does not count."""
    counts = has_map & np.isfinite(numbers).all(-1)
    return [each.astype(int).tolist() if is_counted else None for each, is_counted in zip(numbers, counts, strict=True)]


def _indices(job: Job, step: _Step) -> np.ndarray:
    own = hosts.own_places(job.mesh)
    places = [i for p in own for i in _places(job, step.blocks[p])]
    return np.asarray([-1 if i is None else i for i in places], np.int32)


def _state(view: View | None) -> int:
    return _ABSENT if view is None else _BAD if view.error is not None else _GOOD


def _words(view: View | None) -> tuple[str, str | None]:
    return ("", None) if view is None else (view.name, view.error)


def _note(view: View | None) -> np.ndarray:
    """Name and error as bytes, for the other processes."""
    name, error = _words(view)
    note = np.zeros(_NOTE_BYTES, np.uint8)
    encoded = f"{name}\0{error or ''}".encode()[:_NOTE_BYTES]
    note[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return note


def _note_text(note: np.ndarray) -> tuple[str, str | None]:
    name, _, error = note.tobytes().decode(errors="ignore").partition("\0")
    error = error.rstrip("\0")
    return name.rstrip("\0"), error or None

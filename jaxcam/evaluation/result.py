"""What `evaluate` returns: the table, and every figure behind it."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcam.evaluation.journal import Journal, Record
from jaxcam.evaluation.protocol import Protocol, differences
from jaxcam.evaluation.table import Column, Difference, Table
from jaxcam.evaluation.totals import Rows, Totals, merge
from jaxcam.explanation.explanation import Status

_SHOWN_BAD = 3
_SAME = ("protocol", "preprocessing", "dataset")


class Evaluation:
    """The result of `evaluate`: `print` it, or take `markdown()`, `csv()`, `json()`.

    `evaluation["grad_cam", "average_drop"]` is one figure of it, with its interval.

    Attributes:
        header: what determines the figures, as JSON: protocol, methods, metrics, model with a hash of its parameters,
            preprocessing, data set, batch size, seed.
        table: the table, with `totals`, the exact sums behind it, and their bootstrap resamples.
        bad_images: (number, name, reason) of the pictures that could not be evaluated.
    """

    def __init__(
        self, header: dict[str, Any], table: Table, bad_images: list[tuple[int, str, str]], journal: Journal | None
    ) -> None:
        """Made by `evaluate`; the journal is in the first process only."""
        self.header, self.table, self.bad_images = header, table, bad_images
        self._journal = journal

    @property
    def protocol(self) -> Protocol:
        """What was measured."""
        fields: dict[str, Any] = {**self.header["protocol"], "deltas": tuple(self.header["protocol"]["deltas"])}
        return Protocol(**fields)

    @property
    def methods(self) -> tuple[str, ...]:
        """The rows of the table."""
        return tuple(self.table.names)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns of the table, by their keys."""
        return tuple(column.key for column in self.table.columns)

    @property
    def num_images(self) -> int:
        """How many pictures were evaluated, without the bad ones."""
        return int(self.table.totals.images[0])

    def __getitem__(self, at: tuple[str, str]) -> Difference:
        """The mean of a metric for a method, its 95 % interval, and the number of images that count."""
        method, metric = at
        i = _position(self.methods, method, "method")
        j = _position(self.metrics, metric, "metric")
        mean, low, high = (float(part[i, j]) for part in self.table.means)
        return Difference(mean, low, high, int(self.table.totals.counts[0, i, j]))

    def difference(self, a: str, b: str) -> dict[str, Difference]:
        """The paired differences a minus b of two methods, by metric, with 95 % intervals."""
        return self.table.differences(a, b)

    def compare(self, other: "Evaluation") -> dict[str, dict[str, Difference]]:
        """This evaluation minus another of the same pictures, as of another network: by method, then by metric.

        The differences are paired image by image, over the methods and metrics that both have, with 95 % intervals.

        Raises:
            TypeError: other is no Evaluation.
            ValueError: the two have other protocols, preprocessing or data sets, or nothing in common.
        """
        if not isinstance(other, Evaluation):
            raise TypeError(f"other must be what evaluate returned, not {type(other).__name__}")
        for part in _SAME:
            if self.header[part] != other.header[part]:
                unlike = differences(self.header[part], other.header[part])
                raise ValueError(
                    f"these evaluations do not compare, because they differ in {part}: {unlike}. Evaluate both in the "
                    "same way first"
                )
        data = self.header["dataset"]
        if data["number"] is None and set(data) <= {"kind", "number", "fingerprint"}:
            raise ValueError(
                "these evaluations do not compare: nothing tells whether two iterables are of the same pictures. "
                "Evaluate a list, or an object with a `description` (a dictionary) of what it is"
            )
        methods = [name for name in self.methods if name in other.methods]
        columns = [column for column in self.table.columns if column.key in other.metrics]
        if not methods or not columns:
            raise ValueError(
                f"nothing to compare: {self.methods} and {other.methods} have no method or metric in common"
            )
        names = [*(f"here: {name}" for name in methods), *(f"there: {name}" for name in methods)]
        totals = _side_by_side(self, other, methods, columns)
        found = Table(names, columns, totals)
        return {name: found.differences(f"here: {name}", f"there: {name}") for name in methods}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A dictionary for every picture, as pandas.DataFrame takes them.

        It has `index`, `name`, `class_idx` (explained), `label`, `y`, `error`, and for every method `method/o`,
        `method/status` and `method/metric`; NaN where a metric does not count.

        Raises:
            ValueError: in another process than the first of several, which alone keeps them.
        """
        for record in self._records():
            yield self._row(record)

    def markdown(self) -> str:
        """The table in Markdown."""
        return self.table.markdown()

    def csv(self) -> str:
        """The table as CSV: a line for each method and metric."""
        return self.table.csv()

    def json(self) -> str:
        """The table as JSON."""
        return self.table.json()

    def __str__(self) -> str:
        """The table as text, and why pictures are missing in it."""
        reasons = [f"  {name}: {reason}" for _, name, reason in self.bad_images[:_SHOWN_BAD]]
        if len(self.bad_images) > _SHOWN_BAD:
            reasons.append(f"  and {len(self.bad_images) - _SHOWN_BAD} more (bad_images)")
        return "\n".join([self.table.text(), *reasons])

    def __repr__(self) -> str:
        return f"<Evaluation of {', '.join(self.methods)} on {self.num_images} images>"

    def _records(self) -> Iterator[Record]:
        if self._journal is None:
            raise ValueError("the rows are in the first process only, and in its results file")
        return self._journal.records()

    def _row(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {
            name: getattr(record, name) for name in ("index", "name", "class_idx", "label", "y", "error")
        }
        for i, method in enumerate(self.methods):
            has = record.error is None
            row[f"{method}/o"] = record.o[i] if has else math.nan
            row[f"{method}/status"] = Status(record.status[i]).name if has else ""
            for j, metric in enumerate(self.metrics):
                row[f"{method}/{metric}"] = record.values[i][j] if has else math.nan
        return row


def table_of(
    journal: Journal,
    names: tuple[str, ...],
    columns: tuple[Column, ...],
    facts: dict[str, str],
    *,
    num_resamples: int,
    seed: int,
) -> tuple[Table, list[tuple[int, str, str]]]:
    """The table of a results file, and the bad images; one pass, in constant memory."""
    m, k = len(names), len(columns)
    totals = Totals.of(_none(m, k), num_resamples=num_resamples, seed=seed)
    bad: list[tuple[int, str, str]] = []
    for rows, failed in journal.rows():
        totals = merge(totals, Totals.of(rows, num_resamples=num_resamples, seed=seed))
        bad += [(record.index, record.name, record.error or "") for record in failed]
    return Table(names, columns, totals, facts, len(bad)), sorted(bad)


def _none(m: int, k: int) -> Rows:
    floats, ints = np.zeros((0, m)), np.zeros((0, m), np.int32)
    return Rows(np.zeros(0, np.int64), np.zeros(0), floats, np.zeros((0, m, k)), ints)


def _side_by_side(a: Evaluation, b: Evaluation, methods: list[str], columns: list[Column]) -> Totals:
    """Totals over the pictures of both, with the methods of the one next to those of the other."""
    found = [{record.index: record for record in each._records() if record.error is None} for each in (a, b)]
    common = sorted(found[0].keys() & found[1].keys())
    parts: list[tuple[np.ndarray, ...]] = []
    for evaluation, records in zip((a, b), found, strict=True):
        i = [evaluation.methods.index(name) for name in methods]
        j = [evaluation.metrics.index(column.key) for column in columns]
        shape = (len(common), len(evaluation.methods))
        o = np.asarray([records[n].o for n in common], np.float64).reshape(shape)[:, i]
        status = np.asarray([records[n].status for n in common], np.int32).reshape(shape)[:, i]
        values = np.asarray([records[n].values for n in common], np.float64).reshape(*shape, -1)[:, i][:, :, j]
        parts.append((o, values, status))
    o, values, status = (np.concatenate(each, 1) for each in zip(*parts, strict=True))
    y = np.asarray([found[0][n].y for n in common], np.float64)
    rows = Rows(np.asarray(common, np.int64), y, o, values, status)
    return Totals.of(rows, num_resamples=a.table.totals.num_resamples, seed=a.header["seed"])


def _position(names: tuple[str, ...], name: str, what: str) -> int:
    if name not in names:
        raise KeyError(f"no {what} {name!r} in this evaluation: it has {', '.join(names)}")
    return names.index(name)

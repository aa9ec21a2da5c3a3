"""What `evaluate` returns: the table, and every figure behind it."""

import math
from collections.abc import Iterator
from typing import Any

from jaxcam.evaluation.journal import Journal, Record, rows_of
from jaxcam.evaluation.measures import Column, tallied
from jaxcam.evaluation.protocol import Protocol, differences
from jaxcam.evaluation.statistics import Rows, Statistics, statistics
from jaxcam.evaluation.table import Difference, McNemar, Table
from jaxcam.explanation.explanation import Status
from jaxcam.foldable import foldable
from jaxcam.tables import preformatted, printable

_SHOWN_BAD = 3
_MOST_GROUPS = 100
_SAME = ("protocol", "target", "preprocessing", "dataset")


class Evaluation:
    """The result of `evaluate`: `print` it, or take `markdown()`, `csv()`, `json()`.

    `evaluation["grad_cam", "average_drop"]` is one figure of it, with its interval.

    Attributes:
        header: what determines the figures, as JSON: protocol, methods, metrics, model with a hash of its parameters,
            preprocessing, data set, batch size, seed.
        table: the table, with the `statistics` that it shows.
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
        return self.table.statistics.images

    def __getitem__(self, at: tuple[str, str]) -> Difference:
        """The mean of a metric for a method, its 95 % interval, and the number of images that count."""
        method, metric = at
        i = _position(self.methods, method, "method")
        j = _position(self.metrics, metric, "metric")
        mean, low, high = (float(part[i, j]) for part in self.table.means)
        return Difference(mean, low, high, int(self.table.statistics.counts[i, j]))

    def difference(self, a: str, b: str) -> dict[str, Difference]:
        """The paired differences a minus b of two methods, by metric, with 95 % intervals."""
        return self.table.differences(a, b)

    def mcnemar(self, a: str, b: str) -> dict[str, McNemar]:
        """McNemar's exact test of two methods for each share, by metric, and for "wins": see `Table.mcnemar`."""
        return self.table.mcnemar(a, b)

    def split(self, metric: str = "instances") -> dict[float, Table]:
        """The table of the pictures with the same value of a metric, by that value: as the number of instances.

        The value is that of the first method which has one; pictures where none has are left out.

        Raises:
            KeyError: there is no such metric: `evaluate(metrics=["instances"])` measures the number of instances.

            ValueError: it has more than 100 values; or in another process than the first of several.
        """
        j = _position(self.metrics, metric, "metric")
        groups: dict[float, set[int]] = {}
        for record in self._rows_kept.records():
            known = [values[j] for values in record.values if not math.isnan(values[j])]
            if known:
                groups.setdefault(known[0], set()).add(record.index)
            if len(groups) > _MOST_GROUPS:
                raise ValueError(f"metric must have few values, but {metric!r} has more than {_MOST_GROUPS}")
        shares = [column.is_share for column in self.table.columns]
        m, about = len(self.methods), self.table
        options: dict[str, int] = {"num_resamples": about.statistics.num_resamples, "seed": self.header["seed"]}

        def table(value: float) -> Table:
            parts = (rows for rows, _ in rows_of(self._rows_kept.records(groups[value]), m, self.metrics))
            facts = {**about.facts, metric: f"{value:g}"}
            found = statistics(parts, m, len(shares), shares=shares, tallies=tallied(about.columns), **options)
            return Table(about.names, about.columns, found, facts, 0, about.noun)

        return {value: table(value) for value in sorted(groups)}

    def compare(self, other: "Evaluation") -> dict[str, dict[str, Difference]]:
        """This evaluation minus another of the same pictures, as of another network: by method, then by metric.

        The differences are paired image by image, over the methods and metrics that both have, with 95 % intervals.

        Raises:
            TypeError: other is no Evaluation.
            ValueError: the two have other protocols, targets, preprocessing or data sets, or nothing in common.
        """
        if not isinstance(other, Evaluation):
            raise TypeError(f"other must be what evaluate returned, not {type(other).__name__}")
        for part in _SAME:
            a, b = self.header[part], other.header[part]
            if a != b:
                unlike = differences(a, b) if isinstance(a, dict) and isinstance(b, dict) else f"{a} and {b}"
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
        found = Table(names, columns, _side_by_side(self, other, methods, columns))
        return {name: found.differences(f"here: {name}", f"there: {name}") for name in methods}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A dictionary for every picture, as pandas.DataFrame takes them, in the order of their numbers.

        It has `index`, `name`, `class_idx` (explained; 0 with a target), `label`, `y`, `error`, and for every method
        `method/o`, `method/status` and `method/metric`; NaN where a metric does not count, and for MaxBoxAccV2 and
        PxAP, which are of all pictures together.

        Raises:
            ValueError: in another process than the first of several, which alone keeps them.
        """
        for record in self._rows_kept.records():
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
        return "\n".join([self.table.text(), *(f"  {reason}" for reason in self._reasons)])

    def _repr_html_(self) -> str:
        reasons = "\n".join(self._reasons)
        return self.table._repr_html_() + (preformatted(reasons) if reasons else "")

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        names = ("methods", "metrics", "num_images", "table", "bad_images", "header")
        return foldable(self, names, path, subtree_renderer)

    def __repr__(self) -> str:
        return f"<Evaluation of {', '.join(self.methods)} on {self.num_images} {self.table.noun}s>"

    @property
    def _reasons(self) -> list[str]:
        """Why pictures are missing."""
        reasons = [printable(f"{name}: {reason}") for _, name, reason in self.bad_images[:_SHOWN_BAD]]
        num_more = len(self.bad_images) - _SHOWN_BAD
        return [*reasons, f"and {num_more} more (bad_images)"] if num_more > 0 else reasons

    @property
    def _rows_kept(self) -> Journal:
        if self._journal is None:
            raise ValueError("the rows are in the first process only, and in its results file")
        return self._journal

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
    noun: str = "image",
    num_resamples: int,
    seed: int,
) -> tuple[Table, list[tuple[int, str, str]]]:
    """The table of a results file, and the bad images; one pass, in constant memory."""
    bad: list[tuple[int, str, str]] = []

    def parts() -> Iterator[Rows]:
        for rows, failed in journal.rows():
            bad.extend((record.index, record.name, record.error or "") for record in failed)
            yield rows

    shares = [column.is_share for column in columns]
    options: dict[str, Any] = {"shares": shares, "tallies": tallied(columns)}
    found = statistics(parts(), len(names), len(columns), **options, num_resamples=num_resamples, seed=seed)
    return Table(names, columns, found, facts, len(bad), noun), bad


def _side_by_side(a: Evaluation, b: Evaluation, methods: list[str], columns: list[Column]) -> Statistics:
    """Of the pictures of both, with the methods of the one next to those of the other."""
    keys = [column.key for column in columns]
    each = [([e.methods.index(m) for m in methods], [e.metrics.index(key) for key in keys]) for e in (a, b)]
    common = a._rows_kept.done & b._rows_kept.done

    def joined() -> Iterator[Record]:
        for pair in zip(a._rows_kept.records(common), b._rows_kept.records(common), strict=True):
            if all(record.error is None for record in pair):
                both = list(zip(pair, each, strict=True))
                yield pair[0]._replace(
                    o=[record.o[i] for record, (rows, _) in both for i in rows],
                    status=[record.status[i] for record, (rows, _) in both for i in rows],
                    values=[[record.values[i][j] for j in kept] for record, (rows, kept) in both for i in rows],
                    tallies={
                        key: [r.tallies[key][i] for r, (rows, _) in both for i in rows] for key in tallied(columns)
                    },
                )

    parts = (rows for rows, _ in rows_of(joined(), 2 * len(methods), keys))
    options: dict[str, int] = {"num_resamples": a.table.statistics.num_resamples, "seed": a.header["seed"]}
    shares = [column.is_share for column in columns]
    tallies = tallied(columns)
    return statistics(parts, 2 * len(methods), len(columns), shares=shares, tallies=tallies, **options)


def _position(names: tuple[str, ...], name: str, what: str) -> int:
    if name not in names:
        raise KeyError(f"no {what} {name!r} in this evaluation: it has {', '.join(names)}")
    return names.index(name)

"""The table of an evaluation: a row for each method, a column for each metric; as text, Markdown, CSV and JSON.

Contract: a table is a function of what it is built from, so equal totals give equal bytes. Every figure that it shows
is times the column's scale. What did not count is told below the figures, never left out silently.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxcam.evaluation import bootstrap
from jaxcam.evaluation.bootstrap import Interval
from jaxcam.evaluation.totals import Totals
from jaxcam.explanation.explanation import Status

_BETTER = ("higher", "lower", "")


class Column(NamedTuple):
    """How a metric is shown.

    Attributes:
        key: its name for machines.
        title: its name for people.
        unit: "%" or "".
        better: "higher" or "lower"; "" where neither is, so that no method is the best.
        scale: what its values are multiplied with: 100 for a percentage of values between 0 and 1.
    """

    key: str
    title: str
    unit: str = ""
    better: str = ""
    scale: float = 1.0


class Difference(NamedTuple):
    """The mean of a metric's paired differences between two methods, with its 95 % interval."""

    value: float
    low: float
    high: float
    images: int
    """How many both methods count on."""


@dataclass(frozen=True)
class Table:
    """What `evaluate` found; `print` it.

    Attributes:
        names: of the m methods.
        columns: of the k metrics.
        totals: of all images; with resamples there are intervals.
        facts: what the figures belong to (model, data set, protocol), shown above them.
        num_bad: how many images could not be read. They are in no other figure.

    Raises:
        ValueError: the totals are not of these methods and columns, a name or key comes twice, a column says other than
            "higher", "lower" or "", or its scale is not positive.
    """

    names: Sequence[str]
    columns: Sequence[Column]
    totals: Totals
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    num_bad: int = 0

    def __post_init__(self) -> None:
        _check(self.names, self.columns, self.totals)

    @cached_property
    def means(self) -> Interval:
        """`[m, k]`, scaled."""
        return bootstrap.means(self.totals).scaled(_scales(self.columns))

    @cached_property
    def wins(self) -> Interval:
        """Win % of the row's method against the column's, `[m, m]`."""
        return bootstrap.wins(self.totals)

    @cached_property
    def ties(self) -> np.ndarray:
        """On what percentage of images two methods tie, `[m, m]`."""
        return bootstrap.ties(self.totals)

    @cached_property
    def best(self) -> Bool[np.ndarray, "m k"]:
        """The method with the best mean, where the interval of its difference to each other method excludes zero.

        A method of which no image counts is no rival; without a rival nothing is best.
        """
        apart = bootstrap.differences(self.totals)
        sign = np.asarray([{"higher": 1.0, "lower": -1.0, "": np.nan}[column.better] for column in self.columns])
        ahead = np.where(sign > 0, apart.low > 0, apart.high < 0)
        has_mean = ~np.isnan(self.means.value)
        rivals = has_mean & ~np.eye(len(self.names), dtype=bool)[:, :, None]
        # Paired differences are over fewer images than means: the best has to lead in both. Where neither direction is
        # better all of this is NaN, which compares as False.
        top = np.where(has_mean, self.means.value * sign, -np.inf)
        return (ahead | ~rivals).all(axis=1) & rivals.any(axis=1) & (top >= top.max(axis=0, initial=-np.inf))

    def differences(self, a: str, b: str) -> dict[str, Difference]:
        """The paired differences a minus b by the columns' keys, scaled.

        Raises:
            ValueError: a or b is none of the methods.
        """
        return differences(self.totals, a, b, names=self.names, columns=self.columns)

    def text(self) -> str:
        """Plain text of at most 120 characters a line where names allow it."""
        from jaxcam.evaluation.rendering import text

        return text(self)

    def markdown(self) -> str:
        """Markdown."""
        from jaxcam.evaluation.rendering import markdown

        return markdown(self)

    def csv(self) -> str:
        """A line for each method and metric; numbers in full precision, empty where there is none."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = ("method", "metric", "unit", "mean", "low", "high", "count", "excluded")
        writer.writerow(names)
        for row in self._rows():
            writer.writerow([row[name] for name in names])  # None is written as nothing
        return out.getvalue()

    def json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """All figures as dictionaries, lists, numbers and strings; None where a figure does not exist."""
        data = {name: int(getattr(self.totals, name)[0]) for name in ("images", "y_not_positive", "y_not_finite")}
        return {
            "facts": dict(self.facts),
            **data,
            "bad_images": self.num_bad,
            "resamples": self.totals.num_resamples,
            "level": bootstrap.LEVEL,
            "columns": [column._asdict() for column in self.columns],
            "rows": self._rows(),
            "wins": self._wins(),
            "status": {
                name: {status.name.lower(): int(count) for status, count in zip(Status, counts, strict=True)}
                for name, counts in zip(self.names, self.totals.status[0], strict=True)
            },
        }

    def __str__(self) -> str:
        return self.text()

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "method": name,
                "metric": column.key,
                "unit": column.unit,
                **_numbers(("mean", "low", "high"), self.means, (i, j)),
                "count": int(self.totals.counts[0, i, j]),
                "excluded": int(self.totals.excluded[0, i, j]),
                "out_of_range": int(self.totals.out_of_range[0, i, j]),
                "best": bool(self.best[i, j]),
            }
            for i, name in enumerate(self.names)
            for j, column in enumerate(self.columns)
        ]

    def _wins(self) -> list[dict[str, Any]]:
        contests = bootstrap.matrix(self.totals, self.totals.contests[0], self.totals.contests[0])
        return [
            {
                "method": name,
                "against": other,
                **_numbers(("percent", "low", "high"), self.wins, (i, j)),
                "ties": _number(self.ties[i, j]),
                "images": int(contests[i, j]),
            }
            for i, name in enumerate(self.names)
            for j, other in enumerate(self.names)
            if i != j
        ]


def differences(
    totals: Totals, a: str, b: str, *, names: Sequence[str], columns: Sequence[Column]
) -> dict[str, Difference]:
    """The mean of a - b for each metric, by the columns' keys and scaled, over the images where both count.

    Resamples have the same images for both methods, so the interval is of the difference itself. NaN where no image
    counts for both, or where there are no resamples.

    Raises:
        ValueError: a or b is none of the names, or the totals are not of these names and columns.
    """
    _check(names, columns, totals)
    for argument, name in (("a", a), ("b", b)):
        if name not in names:
            raise ValueError(f"{argument}={name!r} is not in this table: its methods are {', '.join(map(repr, names))}")
    i, j = list(names).index(a), list(names).index(b)
    found = bootstrap.differences(totals).scaled(_scales(columns))
    if i == j:
        counts = totals.counts[0, i]
    else:
        counts = bootstrap.matrix(totals, totals.pair_counts[0], totals.pair_counts[0])[i, j]
    return {
        column.key: Difference(
            value=float(found.value[i, j, c]),
            low=float(found.low[i, j, c]),
            high=float(found.high[i, j, c]),
            images=int(counts[c]),
        )
        for c, column in enumerate(columns)
    }


def _scales(columns: Sequence[Column]) -> np.ndarray:
    return np.asarray([column.scale for column in columns], np.float64)


def _numbers(names: Sequence[str], interval: Interval, at: tuple[int, int]) -> dict[str, float | None]:
    return {name: _number(part[at]) for name, part in zip(names, interval, strict=True)}


def _number(x: Any) -> float | None:
    return None if math.isnan(x) else float(x)


def _check(names: Sequence[str], columns: Sequence[Column], totals: Totals) -> None:
    _, m, k = totals.counts.shape
    if (len(names), len(columns)) != (m, k):
        raise ValueError(
            f"the totals are of {m} methods and {k} metrics, but there are {len(names)} names and {len(columns)} "
            "columns: give one for each"
        )
    for what, listed in (("names", list(names)), ("columns' keys", [column.key for column in columns])):
        twice = sorted({name for name in listed if listed.count(name) > 1})
        if twice:
            raise ValueError(f"the {what} must differ from each other, but {', '.join(map(repr, twice))} comes twice")
    for column in columns:
        if column.better not in _BETTER:
            raise ValueError(f'better of {column.key!r} must be "higher", "lower" or "", not {column.better!r}')
        if not (0 < column.scale < math.inf):
            raise ValueError(f"scale of {column.key!r} must be positive and finite, not {column.scale!r}")

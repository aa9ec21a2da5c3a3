"""The table of an evaluation: a row for each method, a column for each metric; as text, Markdown, CSV and JSON.

Contract: a table is a function of what it is built from, so equal statistics give equal bytes. Every figure that it
shows is times the column's scale. What did not count is told below the figures, never left out silently.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import combinations
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxcam import tables
from jaxcam.evaluation import rendering
from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.shares import holm, mcnemar
from jaxcam.evaluation.statistics import LEVEL, Interval, Statistics
from jaxcam.explanation.explanation import Status

_BETTER = ("higher", "lower", "")
_WIDTH = 120


class Difference(NamedTuple):
    """The mean of a metric's paired differences between two methods, with its 95 % interval."""

    value: float
    low: float
    high: float
    images: int
    """How many both methods count on."""


class McNemar(NamedTuple):
    """McNemar's exact test, two-sided, of a share of two methods on the same images."""

    more: int
    """On how many images the first has more: yes where the other has no, or the higher confidence."""
    less: int
    p: float
    p_holm: float
    """Corrected by Holm for all such tests of the table."""


class _Grid(NamedTuple):
    """Cells with a method for each row."""

    header: Sequence[str]
    """Of the cells."""
    names: Sequence[str]
    """Of the rows."""
    rows: Sequence[Sequence[str]]

    @property
    def named(self) -> list[list[str]]:
        """The rows with their names before them."""
        return [[name, *row] for name, row in zip(self.names, self.rows, strict=True)]


_Section = _Grid | Sequence[str]
"""A grid, or lines."""


@dataclass(frozen=True)
class Table:
    """What `evaluate` found; `print` it.

    Attributes:
        names: of the m methods.
        columns: of the k metrics.
        statistics: of all images; with resamples there are intervals.
        facts: what the figures belong to (model, data set, protocol), shown above them.
        num_bad: how many images could not be read. They are in no other figure.
        noun: what was evaluated, in the singular.

    Raises:
        ValueError: the statistics are not of these methods and columns, a name or key comes twice, a column says other
            than "higher", "lower" or "", or its scale is not positive.
    """

    names: Sequence[str]
    columns: Sequence[Column]
    statistics: Statistics
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    num_bad: int = 0
    noun: str = "image"

    def __post_init__(self) -> None:
        _check(self.names, self.columns, self.statistics)

    @cached_property
    def means(self) -> Interval:
        """`[m, k]`, scaled."""
        return self.statistics.means.scaled(self._scales)

    @property
    def wins(self) -> Interval:
        """Win % of the row's method against the column's, `[m, m]`."""
        return self.statistics.wins

    @property
    def ties(self) -> np.ndarray:
        """On what percentage of images two methods tie, `[m, m]`."""
        return self.statistics.ties

    @cached_property
    def best(self) -> Bool[np.ndarray, "m k"]:
        """The method with the best mean, where the interval of its difference to each other method excludes zero.

        A method of which no image counts is no rival; without a rival nothing is best. A method that is left out of
        more images than a rival is not ahead of it: maps that are empty on the difficult pictures must not win. Shares
        have to differ by McNemar's exact test. None of this is corrected for the number of comparisons.
        """
        apart = self.statistics.differences
        sign = np.asarray([{"higher": 1.0, "lower": -1.0, "": np.nan}[column.better] for column in self.columns])
        ahead = np.where(sign > 0, apart.low > 0, apart.high < 0)
        above, below = self.statistics.above, self.statistics.above.swapaxes(0, 1)
        if self._is_share.any():
            differs = mcnemar(above[..., self._is_share], below[..., self._is_share]) < 1 - LEVEL
            ahead[..., self._is_share] &= differs
        counts = self.statistics.counts
        ahead &= counts[:, None] >= counts[None]
        has_mean = ~np.isnan(self.means.value)
        rivals = has_mean & ~np.eye(len(self.names), dtype=bool)[:, :, None]
        # Paired differences are over fewer images than means: the best has to lead in both. Where neither direction is
        # better all of this is NaN, which compares as False.
        top = np.where(has_mean, self.means.value * sign, -np.inf)
        return (ahead | ~rivals).all(axis=1) & rivals.any(axis=1) & (top >= top.max(axis=0, initial=-np.inf))

    def differences(self, a: str, b: str) -> dict[str, Difference]:
        """The mean of a - b for each metric, by the columns' keys and scaled, over the images where both count.

        Resamples have the same images for both methods, so the interval is of the difference itself; of shares it is
        `shares.paired`. NaN where no image counts for both, or, but for shares, where only one does or there are no
        resamples.

        Raises:
            ValueError: a or b is none of the methods.
        """
        at = self._position("a", a), self._position("b", b)
        found = self.statistics.differences.scaled(self._scales)
        figures = zip(*(part[at] for part in found), self.statistics.difference_counts[at], strict=True)
        return {
            column.key: Difference(float(value), float(low), float(high), int(images))
            for column, (value, low, high, images) in zip(self.columns, figures, strict=True)
        }

    def mcnemar(self, a: str, b: str) -> dict[str, McNemar]:
        """McNemar's exact test of a against b for each share, by the columns' keys, and for "wins".

        Raises:
            ValueError: a or b is none of the methods, or both are the same.
        """
        i, j = (self._position(argument, name) for argument, name in (("a", a), ("b", b)))
        if i == j:
            raise ValueError(f"a and b must be two methods, but both are {a!r}")
        more, p, p_holm = self._tests
        return {
            key: McNemar(int(more[i, j, c]), int(more[j, i, c]), float(p[i, j, c]), float(p_holm[i, j, c]))
            for c, key in enumerate([*(column.key for column in self._shares), "wins"])
        }

    def text(self) -> str:
        """Plain text of at most 120 characters a line where names allow it."""
        # Figures stand under each other whether a mark follows them or not.
        header = ["\n".join(f"{line} " for line in rendering.heading(column)) for column in self.columns]
        rows = self._marked(lambda cell, best: cell + ("*" if best else " "))
        facts = "\n".join(tables.printable(fact) for fact in self._facts)
        return _joined([facts, *self._sections(header, rows, "*")], _text, _wrapped)

    def markdown(self) -> str:
        """Markdown: facts and notes as lists, figures and wins as tables of GitHub's kind."""
        rows = self._marked(lambda cell, best: f"**{cell}**" if best else cell)
        return _joined([self._facts, *self._sections(self._header, rows, "bold")], _markdown, _items) + "\n"

    def csv(self) -> str:
        """A line for each method and metric; numbers in full precision, empty where there is none."""
        header = ("method", "metric", "unit", "mean", "low", "high", "count", "excluded")
        return tables.csv(header, [[row[name] for name in header] for row in self._rows()])

    def json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """All figures as dictionaries, lists, numbers and strings; None where a figure does not exist."""
        found = self.statistics
        return {
            "facts": dict(self.facts),
            "images": found.images,
            "y_not_positive": found.y_not_positive,
            "y_not_finite": found.y_not_finite,
            "bad_images": self.num_bad,
            "resamples": found.num_resamples,
            "level": LEVEL,
            "columns": [column._asdict() for column in self.columns],
            "rows": self._rows(),
            "wins": self._wins(),
            "mcnemar": [
                {"method": a, "against": b, "metric": key, **test._asdict()}
                for a, b in combinations(self.names, 2)
                for key, test in self.mcnemar(a, b).items()
            ],
            "status": {
                name: {status.name.lower(): int(count) for status, count in zip(Status, counts, strict=True)}
                for name, counts in zip(self.names, found.status, strict=True)
            },
        }

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        rows = self._marked(lambda cell, best: f"{cell} *" if best else cell)
        return _joined([self._facts, *self._sections(self._header, rows, "*")], _html, _paragraph)

    @property
    def _facts(self) -> list[str]:
        return [f"{name}: {fact}" for name, fact in self.facts.items()]

    @property
    def _header(self) -> list[str]:
        return [" ".join(filter(None, rendering.heading(column))) for column in self.columns]

    def _sections(self, header: Sequence[str], rows: Sequence[Sequence[str]], mark: str) -> list[_Section]:
        """What stands below the facts; the best of a column has the mark."""
        found = self.statistics
        sections: list[_Section] = [
            _Grid(header, self.names, rows),
            rendering.legend(found, self.columns, self.best, mark, self.noun),
        ]
        if len(self.names) > 1:
            wins = rendering.win_cells(self.wins, self.ties)
            sections += [rendering.about_wins(found, self.noun), _Grid(self.names, self.names, wins)]
            sections.append(rendering.about_tests(self._shares, self._tests[2], self.noun))
        return [*sections, rendering.notes(found, self.names, self.columns, self.num_bad, self.noun)]

    @property
    def _scales(self) -> np.ndarray:
        return np.asarray([column.scale for column in self.columns], np.float64)

    @property
    def _is_share(self) -> Bool[np.ndarray, " k"]:
        return np.asarray([column.is_share for column in self.columns], bool)

    @property
    def _shares(self) -> list[Column]:
        return [column for column in self.columns if column.is_share]

    @cached_property
    def _tests(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the shares and, at the end, the wins: how often the row's method has more, p, and p by Holm, `[m, m, c]`.

        Holm's correction is for each pair of methods once.
        """
        found = self.statistics
        more = np.concatenate([found.above[..., self._is_share], found.won[..., None]], axis=-1)
        p = mcnemar(more, more.swapaxes(0, 1))
        a, b = np.triu_indices(len(self.names), 1)
        adjusted = np.ones_like(p)
        adjusted[a, b] = adjusted[b, a] = holm(p[a, b].reshape(-1)).reshape(p[a, b].shape)
        return more, p, adjusted

    def _position(self, argument: str, name: str) -> int:
        if name not in self.names:
            known = ", ".join(map(repr, self.names))
            raise ValueError(f"{argument}={name!r} is not in this table: its methods are {known}")
        return list(self.names).index(name)

    def _marked(self, mark: Callable[[str, bool], str]) -> list[list[str]]:
        """The cells of the figures, told apart by whether they are the best of their column."""
        return [
            [mark(cell, bool(best)) for cell, best in zip(row, marks, strict=True)]
            for row, marks in zip(rendering.cells(self.means, self.columns), self.best, strict=True)
        ]

    def _rows(self) -> list[dict[str, Any]]:
        found = self.statistics
        return [
            {
                "method": name,
                "metric": column.key,
                "unit": column.unit,
                **_numbers(("mean", "low", "high"), self.means, (i, j)),
                "count": int(found.counts[i, j]),
                "excluded": found.images - int(found.counts[i, j]),
                "out_of_range": int(found.out_of_range[i, j]),
                "best": bool(self.best[i, j]),
            }
            for i, name in enumerate(self.names)
            for j, column in enumerate(self.columns)
        ]

    def _wins(self) -> list[dict[str, Any]]:
        return [
            {
                "method": name,
                "against": other,
                **_numbers(("percent", "low", "high"), self.wins, (i, j)),
                "ties": _number(self.ties[i, j]),
                "images": int(self.statistics.contests[i, j]),
            }
            for i, name in enumerate(self.names)
            for j, other in enumerate(self.names)
            if i != j
        ]


def _joined(
    sections: Sequence[_Section | str], grid: Callable[[_Grid], str], lines: Callable[[Sequence[str]], str]
) -> str:
    """The sections that are not empty, each written by its kind."""
    written = [
        each if isinstance(each, str) else grid(each) if isinstance(each, _Grid) else lines(each) for each in sections
    ]
    return "\n\n".join(filter(None, written))


def _text(grid: _Grid) -> str:
    return tables.text(["method", *grid.header], grid.named, rule=True, width=_WIDTH)


def _markdown(grid: _Grid) -> str:
    return tables.markdown(["method", *grid.header], grid.named)


def _html(grid: _Grid) -> str:
    return tables.html(["method", *grid.header], grid.named)


def _paragraph(lines: Sequence[str]) -> str:
    return f"<p>{'<br>'.join(escape(tables.printable(line)) for line in lines)}</p>" if lines else ""


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(
        part for line in lines for part in wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False)
    )


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {tables.escaped(line)}" for line in lines)


def _numbers(names: Sequence[str], interval: Interval, at: tuple[int, int]) -> dict[str, float | None]:
    return {name: _number(part[at]) for name, part in zip(names, interval, strict=True)}


def _number(x: Any) -> float | None:
    return None if math.isnan(x) else float(x)


def _check(names: Sequence[str], columns: Sequence[Column], found: Statistics) -> None:
    m, k = found.counts.shape
    if (len(names), len(columns)) != (m, k):
        raise ValueError(
            f"the statistics are of {m} methods and {k} metrics, but there are {len(names)} names and {len(columns)} "
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

"""What stands in and below the table of an evaluation: cells, legend and notes."""

from collections.abc import Sequence

import numpy as np

from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.statistics import Interval, Statistics
from jaxcam.explanation.explanation import Status
from jaxcam.tables import printable

_NOTHING = "-"


def heading(column: Column) -> tuple[str, str]:
    """Two lines over the cells of a metric."""
    return printable(f"{column.title} {column.unit}"), f"({column.better})" if column.better else ""


def cells(means: Interval, columns: Sequence[Column]) -> list[list[str]]:
    """A row for each method: means with their intervals."""
    decimals = [2 if column.unit == "%" else 3 for column in columns]
    return [[_cell(means, (i, j), d) for j, d in enumerate(decimals)] for i in range(len(means.value))]


def win_cells(wins: Interval, ties: np.ndarray) -> list[list[str]]:
    """A row for each method, a column for each method that it beats."""

    def cell(i: int, j: int) -> str:
        tied = f", {number(ties[i, j], 2)} tied" if ties[i, j] > 0 else ""
        return _cell(wins, (i, j), 2) + tied

    methods = range(len(ties))
    return [["" if i == j else cell(i, j) for j in methods] for i in methods]


def number(x: float, decimals: int) -> str:
    """Without the sign of what is shown as zero."""
    if np.isnan(x):
        return _NOTHING
    shown = f"{x:.{decimals}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown


def legend(found: Statistics, best: np.ndarray, mark: str, noun: str) -> list[str]:
    """How to read the cells; the best of a column has the mark. The noun is of what was evaluated: "image"."""
    lines = [f"Means over the {noun}s that count; (lower) and (higher) say which is better."]
    if found.num_resamples:
        lines.append(
            f"[low, high]: 95 % interval, from {found.num_resamples:,} bootstrap resamples with all methods paired."
        )
    if len(best) > 1 and found.num_resamples:
        lines.append(
            f"{mark}: the best of its column, where the 95 % intervals of its paired differences to all other methods "
            f"exclude 0 and no {noun} more is left out than of these" + ("." if best.any() else "; here there is none.")
        )
    if not found.num_resamples:
        lines.append("Without resamples there are no intervals, and no method is marked as the best.")
    if not found.counts.all():
        lines.append(f'"{_NOTHING}": no {noun} counts; see below.')
    return lines


def about_wins(found: Statistics, noun: str) -> list[str]:
    """How to read the cells of the wins, of two methods or more."""
    contests = found.contests[np.triu_indices(len(found.contests), 1)]
    least, most = int(contests.min()), int(contests.max())
    images = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return [
        f"Win %: on which share of the {noun}s the row's method keeps more of the confidence than the column's.",
        f"A tie is a win of neither. {noun.capitalize()}s with a positive confidence on them: {images}.",
    ]


def notes(found: Statistics, names: Sequence[str], columns: Sequence[Column], num_bad: int, noun: str) -> list[str]:
    """The counts; only what is not zero, but for images and bad images."""
    lines = [f"{noun.capitalize()}s: {found.images:,}; bad {noun}s, in no figure: {num_bad:,}."]
    of_y = {"zero or negative": found.y_not_positive, "not finite": found.y_not_finite}
    if any(of_y.values()):
        lines.append(f"Confidence on the {noun}: {', '.join(f'{name} {n:,}' for name, n in of_y.items() if n)}.")
    excluded = found.images - found.counts
    for column, counts, far in zip(columns, excluded.T, found.out_of_range.T, strict=True):
        if counts.any():
            told = [f"{n:,}" + (f" ({out:,} out of range)" if out else "") for n, out in zip(counts, far, strict=True)]
            lines.append(f"{printable(column.title)} does not count: {_by_method(names, told, counts)}.")
    for status in Status:
        counts = found.status[:, status]
        if status != Status.OK and counts.any():
            told = [f"{n:,}" for n in counts]
            lines.append(f"Status {status.name.lower().replace('_', ' ')}: {_by_method(names, told, counts)}.")
    if not np.delete(found.status, Status.OK, axis=1).any():
        lines.append("Status of every map: ok.")
    return lines


def _cell(interval: Interval, at: tuple[int, int], decimals: int) -> str:
    value, low, high = (number(part[at], decimals) for part in interval)
    return value if _NOTHING in (low, high) else f"{value} [{low}, {high}]"


def _by_method(names: Sequence[str], told: Sequence[str], counts: np.ndarray) -> str:
    if len(told) > 1 and len(set(told)) == 1:
        return f"{told[0]} with every method"
    return ", ".join(f"{printable(name)} {n}" for name, n, count in zip(names, told, counts, strict=True) if count)

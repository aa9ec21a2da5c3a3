"""What stands in and below the table of an evaluation: cells, legend and notes."""

from collections.abc import Sequence

import numpy as np

from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.statistics import LEVEL, Interval, Statistics
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


def legend(found: Statistics, columns: Sequence[Column], best: np.ndarray, mark: str, noun: str) -> list[str]:
    """How to read the cells; the best of a column has the mark. The noun is of what was evaluated: "image"."""
    shares = ", ".join(printable(column.title) for column in columns if column.is_share)
    wilson = f"Wilson's of shares ({shares})" if shares else ""
    resampled = (
        f"from {found.num_resamples:,} bootstrap resamples with all methods paired" if found.num_resamples else ""
    )
    lines = [f"Means over the {noun}s that count; (lower) and (higher) say which is better."]
    if wilson or resampled:
        lines.append(f"[low, high]: 95 % interval, {'; '.join(filter(None, [resampled, wilson]))}.")
    if resampled and (found.counts == 1).any(0)[[not column.is_share for column in columns]].any():
        lines.append(f"A mean of a single {noun} has no interval.")
    if not resampled:
        rest = "means that are no shares have no intervals" if shares else "there are no intervals"
        lines.append(f"Without resamples {rest}, and no method is marked as the best{' of them' if shares else ''}.")
    if len(best) > 1 and (wilson or resampled):
        exact = " (shares: with p below 0.05 by McNemar's exact test)" if shares else ""
        lines.append(
            f"{mark}: the best of its column, where the 95 % intervals of its paired differences to all other methods "
            f"exclude 0{exact} and no {noun} more is left out than of these"
            + ("." if best.any() else "; here there is none.")
        )
        lines.append(_number_of_comparisons(len(best), sum(bool(column.better) for column in columns)))
    if not found.counts.all():
        lines.append(f'"{_NOTHING}": no {noun} counts; see below.')
    return lines


def _number_of_comparisons(num_methods: int, num_metrics: int) -> str:
    """Intervals are not widened for it, so it is named."""
    pairs = num_methods * (num_methods - 1) // 2
    num = pairs * num_metrics
    each = f"{pairs:,} pairs of methods" if pairs > 1 else "1 pair of methods"
    return (
        f"Intervals and marks stand alone: of {num:,} comparisons ({each}, {num_metrics} metrics) of what is the same, "
        f"{max(1, round(num * (1 - LEVEL))):,} or so would be apart by chance."
    )


def about_wins(found: Statistics, noun: str) -> list[str]:
    """How to read the cells of the wins, of two methods or more."""
    contests = found.contests[np.triu_indices(len(found.contests), 1)]
    least, most = int(contests.min()), int(contests.max())
    images = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return [
        f"Win %: on which share of the {noun}s the row's method keeps more of the confidence than the column's.",
        f"A tie is a win of neither; [low, high]: Wilson's 95 % interval. {noun.capitalize()}s with a positive "
        f"confidence on them: {images}.",
    ]


def about_tests(shares: Sequence[Column], p: np.ndarray, noun: str) -> list[str]:
    """What McNemar's tests say; p `[m, m, c]`, corrected, of the shares and the wins."""
    of_pairs = p[np.triu_indices(len(p), 1)]
    pairs, num = len(of_pairs), of_pairs.size
    titles = [*(printable(column.title) for column in shares), "wins"]
    if pairs == 1:
        told = [f"{title} {_p(each)}" for title, each in zip(titles, of_pairs[0], strict=True)]
        corrected = f"corrected by Holm for {num} tests, " if num > 1 else ""
        return [f"McNemar's exact test on the same {noun}s, two-sided, {corrected}p: {', '.join(told)}."]
    apart = [f"{title} {n}" for title, n in zip(titles, np.sum(of_pairs < 1 - LEVEL, axis=0), strict=True)]
    return [
        f"McNemar's exact tests on the same {noun}s, two-sided, corrected by Holm for all {num}: with p below 0.05, of "
        f"{pairs} pairs of methods, {', '.join(apart)}."
    ]


def notes(found: Statistics, names: Sequence[str], columns: Sequence[Column], num_bad: int, noun: str) -> list[str]:
    """The counts; only what is not zero, but for images and bad images."""
    lines = [f"{noun.capitalize()}s: {found.images:,}; bad {noun}s, in no figure: {num_bad:,}."]
    of_y = {"zero or negative": found.y_not_positive, "not finite": found.y_not_finite}
    if any(of_y.values()):
        lines.append(f"Confidence on the {noun}: {', '.join(f'{name} {n:,}' for name, n in of_y.items() if n)}.")
    left_out: dict[str, list[str]] = {}
    excluded = found.images - found.counts
    for column, counts, far in zip(columns, excluded.T, found.out_of_range.T, strict=True):
        if counts.any():
            told = [f"{n:,}" + (f" ({out:,} out of range)" if out else "") for n, out in zip(counts, far, strict=True)]
            left_out.setdefault(_by_method(names, told, counts), []).append(printable(column.title))
    for told, titles in left_out.items():  # what is missing for one metric of boxes is missing for all of them
        lines.append(f"{', '.join(titles)} {'does' if len(titles) == 1 else 'do'} not count: {told}.")
    for status in Status:
        counts = found.status[:, status]
        if status != Status.OK and counts.any():
            told = [f"{n:,}" for n in counts]
            lines.append(f"Status {status.name.lower().replace('_', ' ')}: {_by_method(names, told, counts)}.")
    if not np.delete(found.status, Status.OK, axis=1).any():
        lines.append("Status of every map: ok.")
    return lines


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"


def _cell(interval: Interval, at: tuple[int, int], decimals: int) -> str:
    value, low, high = (number(part[at], decimals) for part in interval)
    return value if _NOTHING in (low, high) else f"{value} [{low}, {high}]"


def _by_method(names: Sequence[str], told: Sequence[str], counts: np.ndarray) -> str:
    if len(told) > 1 and len(set(told)) == 1:
        return f"{told[0]} with every method"
    return ", ".join(f"{printable(name)} {n}" for name, n, count in zip(names, told, counts, strict=True) if count)

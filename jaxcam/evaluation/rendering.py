"""A `Table` as text and as Markdown: the same cells, legend and notes in two layouts."""

from collections.abc import Sequence
from textwrap import wrap
from typing import NamedTuple

import numpy as np

from jaxcam.evaluation.bootstrap import Interval
from jaxcam.evaluation.table import Column, Table
from jaxcam.explanation.explanation import Status

_WIDTH = 120
_NOTHING = "-"


class _Grid(NamedTuple):
    """A column of methods and the columns next to it, each a header (a line or two) over cells."""

    methods: list[str]
    headers: list[list[str]]
    columns: list[list[str]]


def text(table: Table) -> str:
    """Blocks of lines; columns that do not fit side by side follow below."""
    figures = [
        [cell + ("*" if best else " ") for cell, best in zip(cells, marks, strict=True)]
        for cells, marks in zip(_figures(table), table.best.T, strict=True)
    ]
    headers = [[name + " " for name in _header(column)] for column in table.columns]
    sections = [
        [f"{name}: {_line(fact)}" for name, fact in table.facts.items()],
        *_blocks(_Grid(_plain(table.names), headers, figures)),
        _wrapped(_legend(table, "*")),
    ]
    if len(table.names) > 1:
        names = _plain(table.names)
        sections.append(_wrapped(_about_wins(table)))
        sections += _blocks(_Grid(names, [[name] for name in names], _wins(table)))
    sections.append(_wrapped(_notes(table)))
    return "\n\n".join("\n".join(line.rstrip() for line in section) for section in sections if section)


def markdown(table: Table) -> str:
    """Facts and notes as lists, figures and wins as tables of GitHub's kind."""
    figures = [
        [f"**{cell}**" if best else cell for cell, best in zip(cells, marks, strict=True)]
        for cells, marks in zip(_figures(table), table.best.T, strict=True)
    ]
    names = [_escaped(name) for name in _plain(table.names)]
    headers = [[_escaped(part) for part in _header(column)] for column in table.columns]
    sections = [
        [f"- {_escaped(name)}: {_escaped(_line(fact))}" for name, fact in table.facts.items()],
        _pipes(_Grid(names, headers, figures)),
        _items(_legend(table, "bold")),
    ]
    if len(names) > 1:
        wins = _Grid(names, [[name] for name in names], _wins(table))
        sections += [_items(_about_wins(table)), _pipes(wins)]
    sections.append(_items(_notes(table)))
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _header(column: Column) -> list[str]:
    title = f"{column.title} {column.unit}".strip()
    return [_line(title), f"({column.better})" if column.better else ""]


def _figures(table: Table) -> list[list[str]]:
    """The cells of each column."""
    return [
        [_cell(table.means, (i, j), 2 if column.unit == "%" else 3) for i in range(len(table.names))]
        for j, column in enumerate(table.columns)
    ]


def _wins(table: Table) -> list[list[str]]:
    """The cells of the win matrix, by the method that is beaten."""

    def cell(i: int, j: int) -> str:
        tied = table.ties[i, j]
        return _cell(table.wins, (i, j), 2) + (f", {_number(tied, 2)} tied" if tied > 0 else "")

    numbers = range(len(table.names))
    return [["" if i == j else cell(i, j) for i in numbers] for j in numbers]


def _cell(interval: Interval, at: tuple[int, int], decimals: int) -> str:
    value, low, high = (_number(part[at], decimals) for part in interval)
    return value if low == _NOTHING or high == _NOTHING else f"{value} [{low}, {high}]"


def _number(x: float, decimals: int) -> str:
    if np.isnan(x):
        return _NOTHING
    shown = f"{x:.{decimals}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown


def _legend(table: Table, mark: str) -> list[str]:
    lines = ["Means over the images that count; (lower) and (higher) say which is better."]
    num_resamples = table.totals.num_resamples
    if num_resamples:
        lines.append(f"[low, high]: 95 % interval, from {num_resamples:,} bootstrap resamples with all methods paired.")
    if len(table.names) > 1 and num_resamples:
        lines.append(
            f"{mark}: the best of its column, where the 95 % intervals of its paired differences to all other methods "
            "exclude 0" + ("." if table.best.any() else "; here there is none.")
        )
    if not num_resamples:
        lines.append("Without resamples there are no intervals, and no method is marked as the best.")
    if np.isnan(table.means.value).any():
        lines.append(f'"{_NOTHING}": no image counts; see below.')
    return lines


def _about_wins(table: Table) -> list[str]:
    contests = table.totals.contests[0]
    least, most = int(contests.min()), int(contests.max())
    images = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return [
        "Win %: on which share of the images the row's method keeps more of the confidence than the column's.",
        f"A tie is a win of neither. Images with a positive confidence on them: {images}.",
    ]


def _notes(table: Table) -> list[str]:
    """The counts; only what is not zero, but for images and bad images."""
    totals = table.totals
    lines = [f"Images: {totals.images[0]:,}; bad images, in no figure: {table.num_bad:,}."]
    of_y = {"zero or negative": int(totals.y_not_positive[0]), "not finite": int(totals.y_not_finite[0])}
    if any(of_y.values()):
        lines.append(f"Confidence on the image: {', '.join(f'{name} {n:,}' for name, n in of_y.items() if n)}.")
    excluded, far = totals.excluded[0], totals.out_of_range[0]
    for j, column in enumerate(table.columns):
        told = [f"{n:,}" + (f" ({out:,} out of range)" if out else "") for n, out in _both(excluded[:, j], far[:, j])]
        if excluded[:, j].any():
            lines.append(f"{_line(column.title)} does not count: {_by_method(table, told, excluded[:, j])}.")
    statuses = totals.status[0]
    for status in Status:
        counts = statuses[:, status]
        if status != Status.OK and counts.any():
            name = status.name.lower().replace("_", " ")
            lines.append(f"Status {name}: {_by_method(table, [f'{n:,}' for n in counts], counts)}.")
    if not np.delete(statuses, Status.OK, axis=1).any():
        lines.append("Status of every map: ok.")
    return lines


def _both(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in zip(a, b, strict=True)]


def _by_method(table: Table, told: Sequence[str], counts: np.ndarray) -> str:
    if len(told) > 1 and len(set(told)) == 1:
        return f"{told[0]} with every method"
    return ", ".join(f"{name} {n}" for name, n, count in zip(_plain(table.names), told, counts, strict=True) if count)


def _blocks(grid: _Grid) -> list[list[str]]:
    """The grid as lines of at most the width, in as many blocks of columns as that takes."""
    left = max(map(len, ["method", *grid.methods]))
    widths = [max(map(len, header + cells)) for header, cells in zip(grid.headers, grid.columns, strict=True)]
    blocks: list[list[int]] = []
    room = 0
    for j, width in enumerate(widths):
        if not blocks or width + 2 > room:
            blocks.append([])
            room = _WIDTH - left
        blocks[-1].append(j)
        room -= width + 2

    def lines(block: list[int]) -> list[str]:
        heights = range(max(len(grid.headers[j]) for j in block))
        above = [["method" if h == 0 else "", *(grid.headers[j][h] for j in block)] for h in heights]
        rows = [[name, *(grid.columns[j][i] for j in block)] for i, name in enumerate(grid.methods)]
        shown = [
            row[0].ljust(left) + "".join("  " + cell.rjust(widths[j]) for j, cell in zip(block, row[1:], strict=True))
            for row in above + rows
        ]
        shown = [line for line in shown if line.strip()]
        rule = "-" * (left + sum(widths[j] + 2 for j in block))
        count = len(shown) - len(rows)
        return [*shown[:count], rule, *shown[count:]]

    return [lines(block) for block in blocks]


def _pipes(grid: _Grid) -> list[str]:
    header = ["method", *(" ".join(part for part in parts if part) for parts in grid.headers)]
    rows = [[name, *(column[i] for column in grid.columns)] for i, name in enumerate(grid.methods)]
    rule = ["---", *("---:" for _ in grid.columns)]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]


def _wrapped(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False)]


def _items(lines: Sequence[str]) -> list[str]:
    return [f"- {_escaped(line)}" for line in lines]


def _plain(names: Sequence[str]) -> list[str]:
    return [_line(name) for name in names]


def _line(words: str) -> str:
    """On one line: a line break would break the table."""
    return " ".join(words.split())


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace("|", "\\|")

"""Tables of strings as text, as Markdown and as CSV.

Contract: a table is a header and rows of as many cells. Text and Markdown keep it whole whatever the cells hold: what
would break a line, or what a terminal would obey instead of show, is replaced. CSV keeps every cell as it is.
"""

import io
from collections.abc import Collection, Sequence
from csv import writer
from html import escape
from typing import Any

__all__ = ["csv", "escaped", "html", "markdown", "preformatted", "printable", "shown", "text"]


def text(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    rule: bool = False,
    width: int | None = None,
) -> str:
    """Columns side by side, two spaces apart.

    Args:
        header: over the columns; what follows a line break stands on a second line.
        rows: of cells.
        left: the numbers of the columns that begin on the left; the others end on the right.
        rule: whether there is a line between header and rows.
        width: where columns do not fit into so many letters, they follow below, with the first one again.
    """
    parts = [[_shown(part) for part in title.split("\n")] for title in header]
    heights = range(max(map(len, parts)))
    above = [[part[h] if h < len(part) else "" for part in parts] for h in heights]
    below = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*above, *below, strict=True)]

    def line(cells: Sequence[str], columns: Sequence[int]) -> str:
        padded = (cells[j].ljust(widths[j]) if j in left else cells[j].rjust(widths[j]) for j in columns)
        return "  ".join(padded).rstrip()

    blocks: list[str] = []
    for columns in _blocks(widths, width):
        lines = [found for cells in above if (found := line(cells, columns))]
        if rule:
            lines.append("-" * (sum(widths[j] for j in columns) + 2 * (len(columns) - 1)))
        blocks.append("\n".join([*lines, *(line(cells, columns) for cells in below)]))
    return "\n\n".join(blocks)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """The pipe tables of GitHub."""
    rule = ["---" if j in left else "---:" for j in range(len(header))]
    lines = [[escaped(cell) for cell in header], rule, *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Comma-separated values; numbers in full precision, None as nothing."""

    def line(cells: Sequence[Any]) -> str:
        out = io.StringIO()
        writer(out).writerow(cells)  # a carriage return is quoted only where it is part of the line's end
        return out.getvalue().removesuffix("\r\n") + "\n"

    return "".join(map(line, [header, *rows]))


def html(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """A table of HTML, as a notebook shows it."""

    def line(cells: Sequence[str], tag: str) -> str:
        parts = (
            f'<{tag} style="text-align:{"left" if j in left else "right"}">{escape(printable(cell))}</{tag}>'
            for j, cell in enumerate(cells)
        )
        return f"<tr>{''.join(parts)}</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def preformatted(words: str) -> str:
    """Text whose columns stand as they are, as a notebook shows it."""
    return f'<pre style="white-space:pre;overflow-x:auto">{escape(words)}</pre>'


def printable(words: str) -> str:
    """On one line, with "?" for what a terminal would obey instead of show."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(words.split()))


def shown(words: str, most: int = 80) -> str:
    """Printable, and cut after so many letters: what a file holds, in a message that is about something else."""
    line = printable(words[: 2 * most])
    return line if len(words) <= 2 * most and len(line) <= most else line[: most - 1] + "…"


def escaped(words: str) -> str:
    """Printable, and without a meaning in a cell of Markdown."""
    return printable(words).replace("\\", "\\\\").replace("|", "\\|")


def _shown(cell: str) -> str:
    # Spaces at the end of a cell may be there for alignment.
    return cell if cell.isprintable() else printable(cell)


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Which columns stand side by side."""
    blocks, used = [[0]], widths[0]
    for j, own in enumerate(widths[1:], 1):
        used += own + 2
        if width is not None and used > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0] + own + 2
        blocks[-1].append(j)
    return blocks

"""A panel: pictures in rows and columns, with a title, headings, labels, captions and a colour bar.

    title
    lead heading          heading   heading   heading
    +------+              +-----+   +-----+   +-----+   | 1
    | lead |       label  |     |   |     |   |     |   |
    +------+              +-----+   +-----+   +-----+   |
    caption               caption   caption   caption   | 0

Contract: lengths are points of `scale` pixels each; everything lies on whole pixels. Pictures are scaled to
one size with their aspect kept. Text is broken and shortened to its column, never cut.
"""

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image

from jaxcam.images.picture import checked_picture, over_white, to_pillow
from jaxcam.pictures.colours import anchor_colours
from jaxcam.pictures.lettering import text_height, text_width
from jaxcam.pictures.page import DARK, GREY, Page, Scale, common_size, scaled

_TITLE, _SUBTITLE, _HEADING, _LABEL, _SUBLABEL = (17, DARK), (12, GREY), (13, DARK), (13, DARK), (12, GREY)
_MARGIN, _COLUMN_GAP, _ROW_GAP, _LEAD_GAP, _LABEL_GAP, _BAR_GAP = 20, 8, 12, 22, 10, 14
_HEADING_GAP, _TITLE_GAP = 6, 14
_LABEL_WIDTH = 100
_SMALLEST_CELL = 48


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture in a panel, with a caption below it.

    Attributes:
        image: a Pillow image, or an array `[H, W, 3]` in [0, 1]; None leaves a grey field with the caption
            inside it.
        caption: lines are separated by newlines; what follows a tab is set at the right edge.
    """

    image: Image.Image | Float[np.ndarray, "H W 3"] | Float[Array, "H W 3"] | None = None
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a panel.

    Attributes:
        label: at the left of the row; the first line is dark, those after it grey.
        cells: as many as the panel has headings.
    """

    label: str
    cells: Sequence[Cell]


def panel(
    rows: Sequence[Row],
    *,
    headings: Sequence[str],
    title: str = "",
    lead: Cell | None = None,
    lead_heading: str = "Input",
    colormap: str | None = "inferno",
    bar_label: str = "relative heat",
    cell_size: int | float = 160,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Pictures in rows and columns, on white.

    Args:
        rows: one or more.
        headings: one for each column of cells.
        title: the first line is large, those after it are small and grey.
        lead: a cell in a column of its own at the left, level with the first row: what all rows are about.
        lead_heading: above the lead.
        colormap: of the colour bar at the right, which goes from 0 to 1; None: no bar.
        bar_label: along the colour bar.
        cell_size: the longer side of every picture, in points, at least 48.
        scale: pixels per point; 2 is crisp on dense screens and in print.
        font: a TrueType or OpenType file, for text with other letters than those of English.

    Returns:
        A Pillow image, RGB.

    Raises:
        TypeError: rows, cells or texts are of another kind.
        ValueError: no rows; a row with more or fewer cells than headings; an array that is no picture; a
            cell_size below 48 or a scale not above 0; no such colour map; a font that cannot be read.
    """
    _check_rows(rows, headings)
    _check_texts([title, lead_heading, bar_label, *headings, *(row.label for row in rows)])
    _check_sizes(cell_size, scale)
    if colormap is not None:
        anchor_colours(colormap)
    units = Scale(float(scale), None if font is None else os.fspath(font))
    leads = () if lead is None else (lead,)
    cells = [*leads, *itertools.chain.from_iterable(row.cells for row in rows)]
    pictures = [_scaled_picture(cell, units.pixels(cell_size)) for cell in cells]
    width, height = common_size(pictures, units.pixels(cell_size))
    figures = [
        units.figure(picture, cell.caption, width=width, height=height)
        for cell, picture in zip(cells, pictures, strict=True)
    ]
    num_columns = len(headings)
    grid = [figures[i : i + num_columns] for i in range(len(leads), len(figures), num_columns)]
    heads = [units.text(text, width, _HEADING) for text in (lead_heading if leads else "", *headings)]
    labels = [units.text(row.label, units.pixels(_LABEL_WIDTH), _LABEL, _SUBLABEL, lines=3) for row in rows]

    # Across: lead, labels, columns, bar.
    margin = units.pixels(_MARGIN)
    label_left = margin + (width + units.pixels(_LEAD_GAP) if leads else 0)
    label_width = max(text_width(label) for label in labels)
    grid_left = label_left + (label_width + units.pixels(_LABEL_GAP) if label_width else 0)
    lefts = [grid_left + j * (width + units.pixels(_COLUMN_GAP)) for j in range(num_columns)]
    bar_left = lefts[-1] + width + units.pixels(_BAR_GAP)

    # Down: title, headings, rows. The bar is as long as the grid without its last captions, or a few cells.
    row_heights = [
        max(text_height(label), *(figure.full_height for figure in row))
        for label, row in zip(labels, grid, strict=True)
    ]
    steps = itertools.accumulate((row + units.pixels(_ROW_GAP) for row in row_heights), initial=0)
    offsets = list(steps)[: len(grid)]
    bar, overhang, bar_length = None, 0, min(offsets[-1] + height, 7 * height // 2)
    if colormap is not None:
        bar, overhang = units.colour_bar(colormap, bar_label, bar_length)
    right = bar_left + bar.width if bar else lefts[-1] + width
    titles = units.text(title, right - margin, _TITLE, _SUBTITLE)
    heads_top = margin + (text_height(titles) + units.pixels(_TITLE_GAP) if titles else 0)
    heads_height = max(text_height(head) for head in heads)
    top = heads_top + (heads_height + units.pixels(_HEADING_GAP) if heads_height else overhang)

    page = Page()
    page.add_text(titles, margin, margin, right - margin)
    for head, left in zip(heads, (margin, *lefts), strict=True):
        page.add_text(head, left, heads_top + heads_height - text_height(head), width, align="centre")
    if leads:
        page.add_figure(figures[0], margin, top)
    for label, row, offset in zip(labels, grid, offsets, strict=True):
        label_top = top + offset + max(0, height - text_height(label)) // 2
        page.add_text(label, label_left, label_top, label_width, align="right")
        for figure, left in zip(row, lefts, strict=True):
            page.add_figure(figure, left, top + offset)
    if bar:
        page.add_picture(bar, bar_left, top - overhang)
    lead_height = figures[0].full_height if leads else 0
    bottom = top + max(offsets[-1] + row_heights[-1], bar_length + overhang, lead_height)
    return page.drawn(right + margin, bottom + margin)


def _scaled_picture(cell: Cell, longest: int) -> Image.Image | None:
    if cell.image is None:
        return None
    if not isinstance(cell.image, Image.Image):
        return scaled(to_pillow(checked_picture(cell.image, name="a cell's image")), longest)
    opaque = to_pillow(over_white(cell.image)) if cell.image.has_transparency_data else cell.image.convert("RGB")
    return scaled(opaque, longest)


def _check_rows(rows: Any, headings: Any) -> None:
    if isinstance(headings, str):
        raise TypeError(f"headings must be a sequence of strings, got the string {headings!r}; put it into a list")
    if not len(rows) or not len(headings):
        raise ValueError(f"a panel needs rows and headings, got {len(rows)} rows, {len(headings)} headings")
    for i, row in enumerate(rows):
        if not isinstance(row, Row) or not all(isinstance(cell, Cell) for cell in row.cells):
            raise TypeError(f"rows[{i}] must be a Row of Cells, got {type(row).__name__} {row!r}")
        if len(row.cells) != len(headings):
            raise ValueError(
                f"rows[{i}] must have a cell for each of the {len(headings)} headings, got {len(row.cells)}; "
                "fill it up with Cell()"
            )
        _check_texts([cell.caption for cell in row.cells])


def _check_texts(texts: list[Any]) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"titles, headings, labels and captions must be strings, got {text!r}; use str()")


def _check_sizes(cell_size: int | float, scale: int | float) -> None:
    if not (math.isfinite(cell_size) and cell_size >= _SMALLEST_CELL):
        raise ValueError(f"cell_size must be at least {_SMALLEST_CELL} points, to hold text, got {cell_size}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number of pixels per point, got {scale}")

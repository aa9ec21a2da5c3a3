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
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image

from jaxcam.checks import check_number
from jaxcam.images.picture import checked_picture, over_white, to_pillow
from jaxcam.pictures.colours import anchor_colours
from jaxcam.pictures.lettering import DARK, LIGHT, Lettering, Type
from jaxcam.pictures.overlays import check_style
from jaxcam.pictures.page import colour_bar, common_size, figure, scaled

_TITLE: tuple[Type, ...] = (17, "text"), (12, "quiet")
_HEADING: Type = (13, "text")
_LABEL: tuple[Type, ...] = (13, "text"), (12, "quiet")
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
    style: str = "grey",
    colormap: str | None = "inferno",
    bar_label: str = "relative heat",
    cell_size: int | float = 160,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
    dark: bool = False,
) -> Image.Image:
    """Pictures in rows and columns, on white or on black.

    Args:
        rows: one or more.
        headings: one for each column of cells.
        title: the first line is large, those after it are small and grey.
        lead: a cell in a column of its own at the left, level with the first row: what all rows are about.
        lead_heading: above the lead.
        style: how the overlays in it were drawn, as in `overlay`: the colour bar is drawn the same way, with ticks
            where they have contours; "plain": its pure colours.
        colormap: of the colour bar at the right, which goes from 0 to 1; None: no bar.
        bar_label: along the colour bar.
        cell_size: the longer side of every picture, in points, at least 48.
        scale: pixels per point; 2 is crisp on dense screens and in print.
        font: a TrueType or OpenType file, for text with other letters than those of English.
        dark: whether the page is dark and its letters light.

    Returns:
        A Pillow image, RGB.

    Raises:
        TypeError: rows, cells or texts are of another kind.
        ValueError: no rows; a row with more or fewer cells than headings; an array that is no picture; a
            cell_size below 48 or a scale not above 0; no such style or colour map; a font that cannot be read.
    """
    _check_rows(rows, headings)
    _check_texts(title, lead_heading, bar_label, *headings)
    check_number("cell_size", cell_size, low=_SMALLEST_CELL, hint=": in points, to hold text")
    check_style(style)
    paper = DARK if dark else LIGHT
    letters = Lettering(check_number("scale", scale, above=0), None if font is None else os.fspath(font), paper)
    if colormap is not None:
        anchor_colours(colormap)
    pixels = letters.pixels
    longest, margin, gap = pixels(cell_size), pixels(_MARGIN), pixels(_COLUMN_GAP)
    cells = [*([] if lead is None else [lead]), *itertools.chain.from_iterable(row.cells for row in rows)]
    pictures = [_scaled_picture(cell, longest) for cell in cells]
    width, height = common_size(pictures, longest)
    figures = [figure(each, cell.caption, (width, height), letters) for cell, each in zip(cells, pictures, strict=True)]
    leads = [] if lead is None else [figures.pop(0)]
    grid = [figures[i : i + len(headings)] for i in range(0, len(figures), len(headings))]
    labels = [letters.block(row.label, pixels(_LABEL_WIDTH), *_LABEL, lines=3, align="right") for row in rows]

    # Across: lead, labels, columns, bar.
    labels_right = margin + (width + pixels(_LEAD_GAP) if leads else 0) + max(label.width for label in labels)
    grid_left = labels_right + (pixels(_LABEL_GAP) if any(label.width for label in labels) else 0)
    lefts = [grid_left + j * (width + gap) for j in range(len(headings))]
    right = lefts[-1] + width

    # Down: title, headings, rows. The bar is as long as the grid without its last captions, or a few cells.
    row_heights = [max(part.height for part in (label, *row)) for label, row in zip(labels, grid, strict=True)]
    offsets = list(itertools.accumulate((each + pixels(_ROW_GAP) for each in row_heights[:-1]), initial=0))
    bars, overhang = [], 0
    if colormap is not None:
        length = min(offsets[-1] + height, 7 * height // 2)
        bar, overhang = colour_bar(colormap, style, bar_label, length, longest, letters)
        bars = [(bar, right + pixels(_BAR_GAP))]
        right += pixels(_BAR_GAP) + bar.width
    titles = letters.block(title, right - margin, *_TITLE)
    heads = [
        (letters.block(text, width, _HEADING, align="centre"), left)
        for text, left in [*([(lead_heading, margin)] if leads else []), *zip(headings, lefts, strict=True)]
    ]
    heads_top = margin + (titles.height + pixels(_TITLE_GAP) if titles.height else 0)
    heads_bottom = heads_top + max(head.height for head, _ in heads)
    top = heads_bottom + (pixels(_HEADING_GAP) if heads_bottom > heads_top else overhang)

    placed = [
        (titles, margin, margin),
        *((head, left + (width - head.width) // 2, heads_bottom - head.height) for head, left in heads),
        *((each, margin, top) for each in leads),
        *((bar, left, top - overhang) for bar, left in bars),
    ]
    for label, row, offset in zip(labels, grid, offsets, strict=True):
        label_top = top + offset + max(0, height - label.height) // 2
        placed += [(label, labels_right - label.width, label_top)]
        placed += [(each, left, top + offset) for each, left in zip(row, lefts, strict=True)]
    bottom = max(upper + part.height for part, _, upper in placed)
    page = Image.new("RGB", (right + margin, bottom + margin), paper.ground)
    for part, left, upper in placed:
        page.paste(part, (left, upper))
    return page


def _scaled_picture(cell: Cell, longest: int) -> Image.Image | None:
    if cell.image is None:
        return None
    if not isinstance(cell.image, Image.Image):
        return scaled(to_pillow(checked_picture(cell.image, name="a cell's image")), longest)
    opaque = to_pillow(over_white(cell.image)) if cell.image.has_transparency_data else cell.image.convert("RGB")
    return scaled(opaque, longest)


def _check_rows(rows: Any, headings: Any) -> None:
    if isinstance(headings, str):
        raise TypeError(f"headings must be a sequence of strings but is {headings!r}: put it into a list")
    if not len(rows) or not len(headings):
        raise ValueError(f"a panel must have rows and headings but has {len(rows)} and {len(headings)}")
    for i, row in enumerate(rows):
        if not isinstance(row, Row) or not all(isinstance(cell, Cell) for cell in row.cells):
            raise TypeError(f"rows[{i}] must be a Row of Cells but is {row!r}")
        if len(row.cells) != len(headings):
            raise ValueError(
                f"rows[{i}] must have {len(headings)} cells, as there are headings, but has {len(row.cells)}: "
                "fill it up with Cell()"
            )
        _check_texts(row.label, *(cell.caption for cell in row.cells))


def _check_texts(*texts: Any) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"titles, headings, labels and captions must be strings but one is {text!r}: use str()")

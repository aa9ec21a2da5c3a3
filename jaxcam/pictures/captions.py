"""Captions: the picture, and every word of the sentence over the map of what it is about.

Contract: each map is the `overlay` of its own heat. What a word says of itself, as its probability, stands below.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image

from jaxcam.checks import check_integer, check_number
from jaxcam.images.picture import checked_heat, checked_picture
from jaxcam.pictures.lettering import Lettering
from jaxcam.pictures.overlays import ALPHA, overlay
from jaxcam.pictures.page import redrawn, stacked
from jaxcam.pictures.panels import Cell, Row, panel


def caption(
    image: Float[np.ndarray, "H W 3"] | Float[Array, "H W 3"],
    heatmaps: Float[np.ndarray, "m h w"] | Float[Array, "m h w"],
    words: Sequence[str],
    *,
    notes: Sequence[str] | None = None,
    columns: int = 6,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
    cell_size: int | float = 120,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
    dark: bool = False,
) -> Image.Image:
    """The picture, and then a sentence word by word, each with its map below it.

    Of a caption that was explained with `targets.tokens`: `caption(image, found.heatmap[i], words)`. Just as well an
    answer and what speaks for it rather than for another one, or any scores about one picture.

    Args:
        image: `[H, W, 3]`, floating point, in [0, 1].
        heatmaps: `[m, h, w]`, in [0, 1], one for each word.
        words: m, in their order. Maps behind the last word (of pads) are left out: there may be fewer words than maps.
        notes: a line under each map, as the word's probability.
        columns: cells in a row, of which the first one has the picture.
        style: how the heat is drawn, as in `overlay`.
        alpha: the opacity of what is hot, as in `overlay`.
        colormap: a name that `colour_map` knows.
        cell_size: the longer side of every cell, in points, at least 48.
        scale: pixels per point.
        font: as for `panel`.
        dark: whether the page is dark and its letters light.

    Raises:
        TypeError: image or heatmaps are no floating-point arrays, words or notes no sequence of strings.
        ValueError: no words, or more than there are maps; not a note for each; columns below 2; and as `overlay`.
    """
    if isinstance(words, str):
        raise TypeError(f"words must be a sequence of strings but is {words!r}: use words.split()")
    if notes is not None and (isinstance(notes, str) or len(notes) != len(words)):
        raise ValueError(f"notes must be one string for each of the {len(words)} words but are {notes!r}")
    check_integer("columns", columns, low=2)
    longest = Lettering(check_number("scale", scale, above=0), None).pixels(check_number("cell_size", cell_size, low=1))
    cells = word_cells(image, heatmaps, longest=longest, style=style, alpha=alpha, colormap=colormap)
    if not 0 < len(words) <= len(cells):
        raise ValueError(f"words must be 1 to {len(cells)}, as there are heatmaps, but are {len(words)}")
    below = [""] * len(words) if notes is None else notes
    made = [Cell(cell.image, note) for cell, note in zip(cells, below, strict=False)]
    everything = list(zip(["", *words], [Cell(image), *made], strict=True))
    columns = min(columns, len(everything))
    parts = [everything[i : i + columns] for i in range(0, len(everything), columns)]
    draw = partial(panel, style=style, cell_size=cell_size, scale=scale, font=font, dark=dark)
    pages = [
        draw(
            [Row("", [cell for _, cell in part])],
            headings=[word for word, _ in part],
            colormap=None if i else colormap,
        )
        for i, part in enumerate(parts)
    ]
    return stacked(pages)


def word_cells(
    image: Any,
    heatmaps: Any,
    *,
    longest: int,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
) -> list[Cell]:
    """The maps of `caption`, `longest` pixels on their longer sides."""
    heats = checked_heat(heatmaps, name="heatmaps", axes="m, h, w")
    larger = redrawn(checked_picture(image), longest)
    return [Cell(overlay(larger, heat, style=style, alpha=alpha, colormap=colormap)) for heat in heats]

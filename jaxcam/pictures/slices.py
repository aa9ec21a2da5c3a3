"""Volumes and clips: slices with their heat over them, in a panel.

Contract: every slice is the `overlay` of its own values and its own heat, and says where it lies. Scales are those of
the whole example (see `jaxcam.pictures.values`), so that slices can be compared. Where not all are shown they lie at
even distances, and the hottest of all takes the place of its neighbour.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from jax import Array
from jaxtyping import Float, Shaped
from PIL import Image

from jaxcam.checks import check_integer, check_number
from jaxcam.pictures.lettering import Lettering
from jaxcam.pictures.overlays import ALPHA, overlay
from jaxcam.pictures.page import redrawn
from jaxcam.pictures.panels import Cell, Row, panel
from jaxcam.pictures.values import colours, heat_of

Numbers: TypeAlias = Shaped[np.ndarray, "D H W *d"] | Shaped[Array, "D H W *d"]
Heat: TypeAlias = Float[np.ndarray, "D H W"] | Float[Array, "D H W"]
_VOLUME, _CLIP = "D, H, W", "t, H, W"
_MARK = "#00d2ff"
_MARK_SHARE = 0.09


def volume(
    values: Numbers,
    heatmap: Heat,
    *,
    at: Sequence[int] | None = None,
    limits: Sequence[int | float] | None = None,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
    cell_size: int | float = 160,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Three orthogonal slices through the hottest voxel, each with marks at its edges where the two others cut it.

    Args:
        values: `[D, H, W]` or `[D, H, W, d]`, of any range: what the network was given, `inputs[i]`.
        heatmap: `[D, H, W]`, in [0, 1]: `found.heatmap[i]`.
        at: another place, three indices; None: the first voxel with the highest heat.
        limits: the values that are black and white, as the window of a scan; None: see `jaxcam.pictures.values`.
        style: how the heat is drawn, as in `overlay`.
        alpha: the opacity of what is hot, as in `overlay`.
        colormap: a name that `colour_map` knows.
        cell_size: the longer side of every slice, in points, at least 48.
        scale: pixels per point.
        font: as for `panel`.

    Returns:
        A Pillow image, RGB: the slices of constant D, H and W from left to right.

    Raises:
        TypeError: values or heatmap are no concrete arrays of numbers; at are no integers.
        ValueError: other shapes or sizes, a heatmap outside [0, 1], values that are not finite, a place outside.
    """
    cells = volume_cells(
        values,
        heatmap,
        at=at,
        limits=limits,
        style=style,
        alpha=alpha,
        colormap=colormap,
        longest=_pixels(cell_size, scale),
    )
    return _page([cells], style, colormap, cell_size, scale, font)


def montage(
    values: Numbers,
    heatmap: Heat,
    *,
    axis: int = 0,
    num: int = 12,
    columns: int = 6,
    limits: Sequence[int | float] | None = None,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
    cell_size: int | float = 100,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Slices of a volume at even distances, the hottest among them, in rows.

    Args:
        values: `[D, H, W]` or `[D, H, W, d]`, of any range.
        heatmap: `[D, H, W]`, in [0, 1].
        axis: 0, 1 or 2: along which the slices follow each other.
        num: at most so many slices.
        columns: at most so many in a row.
        limits: the values that are black and white, as the window of a scan; None: see `jaxcam.pictures.values`.
        style: how the heat is drawn, as in `overlay`.
        alpha: the opacity of what is hot, as in `overlay`.
        colormap: a name that `colour_map` knows.
        cell_size: the longer side of every slice, in points, at least 48.
        scale: pixels per point.
        font: as for `panel`.

    Raises:
        TypeError, ValueError: as `volume`; there is no such axis, or num or columns are below 1.
    """
    check_integer("axis", axis, low=0, high=2)
    check_integer("columns", columns, low=1)
    picture, heat = _checked(values, heatmap, _VOLUME, limits)
    picture, heat = np.moveaxis(picture, axis, 0), np.moveaxis(heat, axis, 0)
    longest = _pixels(cell_size, scale)
    draw = partial(overlay, style=style, alpha=alpha, colormap=colormap)
    cells = [Cell(draw(redrawn(picture[i], longest), heat[i]), f"{'DHW'[axis]} = {i}") for i in evenly(heat, num)]
    columns = min(columns, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    blank = Cell(Image.new("RGB", (8, 8), "white"))
    rows[-1] += [blank] * (columns - len(rows[-1]))
    return _page(rows, style, colormap, cell_size, scale, font)


def clip(
    values: Numbers,
    heatmap: Heat,
    *,
    num: int = 8,
    limits: Sequence[int | float] | None = None,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
    cell_size: int | float = 100,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """A strip of frames at even distances, the hottest among them.

    Args:
        values: `[t, H, W]` or `[t, H, W, d]`, of any range.
        heatmap: `[t, H, W]`, in [0, 1].
        num: at most so many frames.
        limits: the values that are black and white, as the window of a scan; None: see `jaxcam.pictures.values`.
        style: how the heat is drawn, as in `overlay`.
        alpha: the opacity of what is hot, as in `overlay`.
        colormap: a name that `colour_map` knows.
        cell_size: the longer side of every frame, in points, at least 48.
        scale: pixels per point.
        font: as for `panel`.

    Raises:
        TypeError, ValueError: as `volume`; num is below 1.
    """
    cells = clip_cells(
        values,
        heatmap,
        num=num,
        limits=limits,
        style=style,
        alpha=alpha,
        colormap=colormap,
        longest=_pixels(cell_size, scale),
    )
    return _page([cells], style, colormap, cell_size, scale, font)


def frames(
    values: Numbers,
    heatmap: Heat,
    *,
    size: int | None = None,
    limits: Sequence[int | float] | None = None,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
) -> list[Image.Image]:
    """The overlay of every frame of a clip; `jaxcam.save(frames, "clip.webp", fps=8)` makes them move.

    Args:
        values: `[t, H, W]` or `[t, H, W, d]`, of any range.
        heatmap: `[t, H, W]`, in [0, 1].
        size: the longer side in pixels; None: that of the clip.
        limits: the values that are black and white, as the window of a scan; None: see `jaxcam.pictures.values`.
        style: how the heat is drawn, as in `overlay`.
        alpha: the opacity of what is hot, as in `overlay`.
        colormap: a name that `colour_map` knows.

    Raises:
        TypeError, ValueError: as `volume`; size is below 1.
    """
    if size is not None:
        check_integer("size", size, low=1)
    picture, heat = _checked(values, heatmap, _CLIP, limits)
    larger = picture if size is None else [redrawn(one, size) for one in picture]
    draw = partial(overlay, style=style, alpha=alpha, colormap=colormap)
    return [draw(one, h) for one, h in zip(larger, heat, strict=True)]


def volume_cells(
    values: Any,
    heatmap: Any,
    *,
    longest: int,
    at: Sequence[int] | None = None,
    limits: Sequence[int | float] | None = None,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
) -> list[Cell]:
    """The three slices of `volume`, `longest` pixels on their longer sides."""
    picture, heat = _checked(values, heatmap, _VOLUME, limits)
    place = [int(i) for i in np.unravel_index(heat.argmax(), heat.shape)]
    if at is not None:
        if isinstance(at, str) or len(at) != 3:
            raise ValueError(f"at must be three indices, of D, H and W, but is {at!r}")
        place = [check_integer("at", i, low=0, high=size - 1) for i, size in zip(at, heat.shape, strict=True)]
    cells = []
    for axis, index in enumerate(place):
        view = redrawn(picture.take(index, axis), longest)
        over = overlay(view, heat.take(index, axis), style=style, alpha=alpha, colormap=colormap)
        rows, columns = [i for i in range(3) if i != axis]
        down, across = ((place[i] + 0.5) / heat.shape[i] for i in (rows, columns))
        cells.append(Cell(_marked(over, across, down), f"{'DHW'[axis]} = {index}"))
    return cells


def clip_cells(
    values: Any,
    heatmap: Any,
    *,
    longest: int,
    num: int,
    limits: Sequence[int | float] | None = None,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
) -> list[Cell]:
    """The frames of `clip`, `longest` pixels on their longer sides."""
    picture, heat = _checked(values, heatmap, _CLIP, limits)
    draw = partial(overlay, style=style, alpha=alpha, colormap=colormap)
    return [Cell(draw(redrawn(picture[i], longest), heat[i]), f"frame {i}") for i in evenly(heat, num)]


def evenly(heat: Float[np.ndarray, "..."], num: int) -> list[int]:
    """At most `num` indices along the first axis, at even distances, the hottest among them."""
    chosen = np.rint(np.linspace(0, len(heat) - 1, min(check_integer("num", num, low=1), len(heat)))).astype(int)
    hottest = int(heat.reshape(len(heat), -1).max(1).argmax())
    chosen[np.abs(chosen - hottest).argmin()] = hottest
    return chosen.tolist()


def _checked(values: Any, heatmap: Any, axes: str, limits: Any) -> tuple[np.ndarray, np.ndarray]:
    picture = colours(values, axes, name="values", limits=limits)
    return picture, heat_of(heatmap, axes, picture.shape[:3], like="values")


def _marked(picture: Image.Image, across: float, down: float) -> Image.Image:
    """With short lines at the edges, so that what they point at can be seen."""
    picture = picture.copy()
    (width, height), thick = picture.size, max(1, round(max(picture.size) / 160))
    x, y = (min(int(share * size), size - thick) for share, size in ((across, width), (down, height)))
    long = max(1, round(_MARK_SHARE * max(width, height)))
    if height > 4 * long:  # a volume of a few slices is seen from the side as a mere slit
        picture.paste(_MARK, (x, 0, x + thick, long))
        picture.paste(_MARK, (x, height - long, x + thick, height))
    if width > 4 * long:
        picture.paste(_MARK, (0, y, long, y + thick))
        picture.paste(_MARK, (width - long, y, width, y + thick))
    return picture


def _pixels(cell_size: int | float, scale: int | float) -> int:
    return Lettering(check_number("scale", scale, above=0), None).pixels(check_number("cell_size", cell_size, low=1))


def _page(
    rows: Sequence[Sequence[Cell]], style: str, colormap: str, cell_size: int | float, scale: int | float, font: Any
) -> Image.Image:
    headings = [""] * len(rows[0])
    made = [Row("", cells) for cells in rows]
    return panel(made, headings=headings, style=style, colormap=colormap, cell_size=cell_size, scale=scale, font=font)

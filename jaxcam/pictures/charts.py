"""Series: the curve, with its heat behind it, time from left to right.

Contract: of t points each has an equal share of the width, in which it stands in the middle: point i covers
i·W/t to (i+1)·W/t of the W pixels, and the heat there is its own. Where there are more points than pixels a pixel
shows the highest heat of its points, and the curve goes from the lowest to the highest of them: nothing narrow is lost.
Every channel has a lane of its own, from its lowest to its highest value; the heat is the same in all.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float, Shaped
from PIL import Image

from jaxcam.checks import check_integer, check_number
from jaxcam.images.picture import to_pillow
from jaxcam.pictures.colours import colour_map
from jaxcam.pictures.lettering import Lettering, Type
from jaxcam.pictures.values import heat_of, numbers

_FIGURE: Type = (10, "quiet")
_ONE_LANE, _LANE, _LANE_GAP, _GAP, _TICK, _AIR = 110, 52, 6, 5, 3, 0.1
_LABELS, _LEAST_LABELS = 76, 32  # at least so much: charts below each other begin at the same place
_SMALLEST = 160
_FINE = 3
"""The curve is drawn this many times larger, and made smaller again: Pillow draws lines without soft edges."""
_DOTS = 40
"""Up to so many points are marked: a curve through five has hardly a shape of its own."""


def series(
    values: Shaped[np.ndarray, "t *d"] | Shaped[Array, "t *d"],
    heatmap: Float[np.ndarray, " t"] | Float[Array, " t"],
    *,
    names: Sequence[str] = (),
    max_channels: int = 8,
    colormap: str = "inferno",
    width: int | float = 480,
    scale: int | float = 2,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """A series with its heat: a lane for every channel, the curve in white before the colours of the heatmap.

    Args:
        values: `[t]` or `[t, d]`, of any range: what the network was given, `inputs[i]`.
        heatmap: `[t]`, in [0, 1]: `found.heatmap[i]`.
        names: of the channels, at the left of their lanes.
        max_channels: of more channels the first so many are drawn, and the last line says how many there are.
        colormap: a name that `colour_map` knows.
        width: of the picture, in points, at least 160.
        scale: pixels per point.
        font: a TrueType or OpenType file, for names with other letters than those of English.

    Returns:
        A Pillow image, RGB.

    Raises:
        TypeError: values or heatmap are no concrete arrays of numbers.
        ValueError: other shapes, a heatmap of another length or outside [0, 1], values that are not finite; more
            names than channels, or fewer; no such colour map; a width below 160.
    """
    curve = numbers(values, "t", name="values")
    heat = heat_of(heatmap, "t", curve.shape[:1], like="values")
    if names and (isinstance(names, str) or len(names) != curve.shape[1]):
        raise ValueError(f"names must be one for each of the {curve.shape[1]} channels but are {names!r}")
    check_integer("max_channels", max_channels, low=1)
    check_number("width", width, low=_SMALLEST, hint=": in points, to hold text")
    letters = Lettering(check_number("scale", scale, above=0), None if font is None else os.fspath(font))
    count = min(curve.shape[1], max_channels)
    lane, between = letters.pixels(_ONE_LANE if count == 1 else _LANE), letters.pixels(_LANE_GAP)
    labels = [_labels(curve[:, j], names[j] if names else "", lane, letters) for j in range(count)]
    left = max(letters.pixels(_LEAST_LABELS), *(label.width for label in labels)) + letters.pixels(_GAP)
    room = max(1, letters.pixels(width) - left)
    ground = np.repeat(colour_map(columns(heat, room)[np.newaxis], name=colormap), lane, axis=0)
    axis = _time_axis(len(curve), room, left, letters)
    left_out = curve.shape[1] - count
    note = letters.block(f"and {left_out} more channels" if left_out else "", room, _FIGURE)
    lanes_height = count * lane + (count - 1) * between
    page = Image.new("RGB", (left + room, lanes_height + axis.height + note.height), "white")
    for j in range(count):
        top = j * (lane + between)
        page.paste(labels[j], (left - letters.pixels(_GAP) - labels[j].width, top))
        page.paste(_lane(curve[:, j], ground, letters), (left, top))
    page.paste(axis, (0, lanes_height))
    page.paste(note, (left, lanes_height + axis.height))
    return page


def columns(heat: Float[np.ndarray, " t"], width: int) -> Float[np.ndarray, " W"]:
    """The heat of every pixel across: that of the point whose share it is, or the highest of its points."""
    if len(heat) <= width:
        return heat[((np.arange(width) + 0.5) * len(heat) / width).astype(int)]
    return np.maximum.reduceat(heat, np.arange(width) * len(heat) // width)


def _lane(values: Float[np.ndarray, " t"], ground: Float[np.ndarray, "h W 3"], letters: Lettering) -> Image.Image:
    """The curve, white with a dark rim, so that it stands out from hot and cold."""
    from PIL import ImageDraw

    height, width = ground.shape[:2]
    at, values = _points(values, width)
    low, high = values.min(), values.max()
    # Scaled first: the difference of the largest numbers would overflow.
    size = max(abs(low), abs(high)) or 1
    share = (
        (values / size - low / size) / ((high / size - low / size) or 1) if high > low else np.full(len(values), 0.5)
    )
    down = height * (1 - _AIR - (1 - 2 * _AIR) * share)
    points = [(float(x), float(y)) for x, y in zip(_FINE * at, _FINE * down, strict=True)]
    strokes = []
    for points_wide in (3.4, 1.4):
        fine = Image.new("L", (_FINE * width, _FINE * height))
        canvas, wide = ImageDraw.Draw(fine), round(_FINE * points_wide * letters.scale)
        canvas.line(points, fill=255, width=max(1, wide), joint="curve")
        radius = wide / 2 + (_FINE * letters.scale if len(points) <= _DOTS else 0)
        for x, y in points if len(points) <= _DOTS else ():
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        strokes.append(fine.resize((width, height), Image.Resampling.BOX))
    lane = to_pillow(ground)
    for stroke, colour in zip(strokes, ("#161616", "white"), strict=True):
        lane.paste(colour, mask=stroke)
    return lane


def _points(values: Float[np.ndarray, " t"], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the points lie across, in pixels, and their values; of many in a pixel the lowest and the highest."""
    count = len(values)
    if count <= 2 * width:
        return (np.arange(count) + 0.5) * width / count, values
    starts = np.arange(width) * count // width
    ends = np.stack([np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)], axis=1)
    ends[1::2] = ends[1::2, ::-1]  # down one pixel, up the next: no line across
    return np.repeat(np.arange(width) + 0.5, 2), ends.reshape(-1)


def _labels(values: Float[np.ndarray, " t"], name: str, height: int, letters: Lettering) -> Image.Image:
    """Left of a lane: the highest value at its top, the lowest at its bottom, the channel's name between."""
    room = letters.pixels(_LABELS)
    top, bottom = (letters.block(f"{value:.3g}", room, _FIGURE) for value in (values.max(), values.min()))
    lines = 1 if height < letters.pixels(_ONE_LANE) else 3
    middle = letters.block(name, room, _FIGURE, lines=lines, align="right")
    parts = [(top, 0), (middle, (height - middle.height) // 2), (bottom, height - bottom.height)]
    if values.max() == values.min():
        parts = [(middle, 0), (top, (height - top.height) // 2)]
    label = Image.new("RGB", (max(part.width for part, _ in parts), height), "white")
    for part, upper in parts:
        label.paste(part, (label.width - part.width, upper))
    return label


def _time_axis(count: int, room: int, left: int, letters: Lettering) -> Image.Image:
    """Ticks and numbers at round points, below the middles of their shares."""
    texts = [
        (left + round((point + 0.5) * room / count), letters.block(f"{point}", room, _FIGURE))
        for point in range(0, count, _step(count))
    ]
    tick = letters.pixels(_TICK)
    axis = Image.new("RGB", (left + room, tick + texts[0][1].height), "white")
    for x, text in texts:
        axis.paste(letters.paper.quiet, (x, 0, x + max(1, round(letters.scale / 2)), tick))
        axis.paste(text, (max(0, min(x - text.width // 2, axis.width - text.width)), tick))
    return axis


def _step(count: int) -> int:
    """A round number of points between ticks, so that there are at most seven."""
    steps: list[Any] = [digit * 10**power for power in range(len(str(count))) for digit in (1, 2, 5)]
    return next(step for step in steps if count <= 7 * step)

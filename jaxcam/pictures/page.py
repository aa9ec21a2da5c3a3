"""The parts of a panel, as pictures: a cell with its caption, and the colour bar.

Contract: positions and sizes are whole pixels, so that a picture which has its size already keeps its pixels.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxcam.images.picture import to_pillow
from jaxcam.pictures.colours import colour_map
from jaxcam.pictures.lettering import Lettering, Type

DARK, GREY, _FIELD = "#1a1a1a", "#666666", "#f1f1f1"
_CAPTION: Type = (11, GREY)
_FIELD_PADDING, _CAPTION_GAP = 12, 4
_BAR_WIDTH, _TICK_GAP, _BAR_LABEL_GAP = 10, 5, 4


def figure(picture: Image.Image | None, caption: str, box: tuple[int, int], letters: Lettering) -> Image.Image:
    """A picture in the middle of its box and the caption below; without one a grey field, and the caption inside."""
    if picture is None:
        picture = Image.new("RGB", box, _FIELD)
        room = max(1, box[0] - 2 * letters.pixels(_FIELD_PADDING))
        inside = letters.block(caption, room, _CAPTION, lines=3, align="centre", ground=_FIELD)
        if inside.height <= picture.height:
            return _centred(inside, picture)
    below = letters.block(caption, box[0], _CAPTION, lines=3, align="centre")
    beneath = letters.pixels(_CAPTION_GAP) + below.height if below.height else 0
    whole = Image.new("RGB", (box[0], box[1] + beneath), "white")
    whole.paste(_centred(picture, Image.new("RGB", box, "white")))
    whole.paste(below, ((box[0] - below.width) // 2, whole.height - below.height))
    return whole


def colour_bar(colormap: str, label: str, length: int, letters: Lettering) -> tuple[Image.Image, int]:
    """A bar of `length` pixels with ticks and a label, and how far they stick out above the bar."""
    ticks = [letters.block(f"{value:g}", length, _CAPTION) for value in (1, 0.5, 0)]
    beside = letters.block(label, length, _CAPTION, lines=1)
    width, overhang = letters.pixels(_BAR_WIDTH), ticks[0].height // 2
    ticks_left = width + letters.pixels(_TICK_GAP)
    label_left = ticks_left + max(tick.width for tick in ticks) + letters.pixels(_BAR_LABEL_GAP)
    bar = Image.new("RGB", (label_left + beside.height, length + 2 * overhang), "white")
    ramp = colour_map(np.linspace(1, 0, length, dtype=np.float32)[:, np.newaxis], name=colormap)
    bar.paste(to_pillow(np.repeat(ramp, width, axis=1)), (0, overhang))
    for i, tick in enumerate(ticks):
        bar.paste(tick, (ticks_left, round(i / 2 * (length - 1))))
    upright = beside.transpose(Image.Transpose.ROTATE_90)
    bar.paste(upright, (label_left, overhang + (length - upright.height) // 2))
    return bar, overhang


def common_size(pictures: Sequence[Image.Image | None], longest: int) -> tuple[int, int]:
    """Width and height of a box for every picture; a square if there is none, and never a mere slit."""
    widths = [picture.width for picture in pictures if picture] or [longest]
    heights = [picture.height for picture in pictures if picture] or [longest]
    return max(*widths, longest // 2), max(*heights, longest // 4)


def scaled(picture: Image.Image, longest: int) -> Image.Image:
    """The picture with a longer side of `longest` pixels; the very pixels if it has it already."""
    factor = longest / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    if size == picture.size:
        return picture
    # Bicubic enlarges without Lanczos's ringing around the hard edges of small pictures.
    return picture.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS)


def _centred(picture: Image.Image, ground: Image.Image) -> Image.Image:
    ground.paste(picture, ((ground.width - picture.width) // 2, (ground.height - picture.height) // 2))
    return ground

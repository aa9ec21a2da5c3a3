"""The parts of a page, as pictures: a cell with its caption, the colour bar, and panels below one another.

Contract: positions and sizes are whole pixels, so that a picture which has its size already keeps its pixels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from jaxcam.images.picture import from_pillow, to_pillow
from jaxcam.pictures.contours import LEVELS
from jaxcam.pictures.lettering import Lettering, Type
from jaxcam.pictures.overlays import ALPHA, blend

_CAPTION: Type = (11, "quiet")
_FIELD_PADDING, _CAPTION_GAP = 12, 4
_BAR_WIDTH, _TICK_GAP, _BAR_LABEL_GAP = 10, 5, 4
_BAR_GROUND = np.float32(0.5)
"""What the heat lies over in a colour bar: a picture of the middle grey."""


def figure(picture: Image.Image | None, caption: str, box: tuple[int, int], letters: Lettering) -> Image.Image:
    """A picture in the middle of its box and the caption below; without one a grey field, and the caption inside."""
    if picture is None:
        picture = Image.new("RGB", box, letters.paper.field)
        room = max(1, box[0] - 2 * letters.pixels(_FIELD_PADDING))
        inside = letters.block(caption, room, _CAPTION, lines=3, align="centre", ground=letters.paper.field)
        if inside.height <= picture.height:
            return _centred(inside, picture)
    below = letters.block(caption, box[0], _CAPTION, lines=3, align="centre")
    beneath = letters.pixels(_CAPTION_GAP) + below.height if below.height else 0
    whole = Image.new("RGB", (box[0], box[1] + beneath), letters.paper.ground)
    whole.paste(_centred(picture, Image.new("RGB", box, letters.paper.ground)))
    whole.paste(below, ((box[0] - below.width) // 2, whole.height - below.height))
    return whole


def colour_bar(
    colormap: str, style: str, label: str, length: int, longest: int, letters: Lettering
) -> tuple[Image.Image, int]:
    """A bar of `length` pixels with ticks and a label, and how far they stick out above the bar.

    The heat from 1 to 0 is drawn as over pictures of `longest` pixels, with its contours, each of which has a tick;
    "plain" has the pure colours.
    """
    marks = (1, 0.5, 0) if style == "plain" else (1, *sorted((level for level, _ in LEVELS), reverse=True), 0)
    ticks = [letters.block(f"{value:g}", length, _CAPTION) for value in marks]
    if sum(tick.height for tick in ticks) > length:  # in a short bar one would lie on the other
        marks = marks[:: len(marks) // 2]
        ticks = ticks[:: len(ticks) // 2]
    beside = letters.block(label, length, _CAPTION, lines=1)
    width, overhang = letters.pixels(_BAR_WIDTH), ticks[0].height // 2
    ticks_left = width + letters.pixels(_TICK_GAP)
    label_left = ticks_left + max(tick.width for tick in ticks) + letters.pixels(_BAR_LABEL_GAP)
    bar = Image.new("RGB", (label_left + beside.height, length + 2 * overhang), letters.paper.ground)
    heat = np.repeat(np.linspace(1, 0, length, dtype=np.float32)[:, np.newaxis], width, axis=1)
    ground = np.broadcast_to(_BAR_GROUND, (length, width, 3))
    alpha = 1 if style == "plain" else ALPHA
    bar.paste(to_pillow(blend(ground, heat, style=style, alpha=alpha, colormap=colormap, size=longest)), (0, overhang))
    for value, tick in zip(marks, ticks, strict=True):
        bar.paste(tick, (ticks_left, round((1 - value) * (length - 1))))
    upright = beside.transpose(Image.Transpose.ROTATE_90)
    bar.paste(upright, (label_left, overhang + (length - upright.height) // 2))
    return bar, overhang


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other, from the left, on the ground that the first one has."""
    size = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    whole = Image.new("RGB", size, pictures[0].getpixel((0, 0)))
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


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


def redrawn(picture: Float[np.ndarray, "H W 3"], longest: int) -> Float[np.ndarray, "h w 3"]:
    """`scaled` of an array in [0, 1]: what an overlay is drawn on, so that its contours are as fine as the page."""
    return from_pillow(scaled(to_pillow(picture), longest))


def _centred(picture: Image.Image, ground: Image.Image) -> Image.Image:
    ground.paste(picture, ((ground.width - picture.width) // 2, (ground.height - picture.height) // 2))
    return ground

"""The parts of a panel: cells of one size, a colour bar, and the page on which they are placed.

Contract: lengths that come in are points, each of `factor` pixels; positions and sizes on the page are whole
pixels, so that a picture which has its size already keeps its pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from jaxcam.images.picture import to_pillow
from jaxcam.pictures.colours import colour_map
from jaxcam.pictures.lettering import Align, Line, draw_lines, load_style, set_text, text_height, text_width

Type = tuple[int | float, str]
"""A size in points and a colour."""

DARK, GREY = "#1a1a1a", "#666666"
_FIELD = "#f1f1f1"
_CAPTION: Type = (11, GREY)
_FIELD_PADDING, _CAPTION_GAP = 12, 4
_BAR_WIDTH, _TICK_GAP, _BAR_LABEL_GAP = 10, 5, 4


@dataclass(frozen=True)
class Figure:
    """A cell ready to be placed: its box in pixels, a picture that fits into it, and the caption's lines."""

    width: int
    height: int
    picture: Image.Image | None
    caption: list[Line]
    caption_gap: int

    @property
    def is_field(self) -> bool:
        """Whether the caption goes inside: there is no picture, and room enough."""
        return self.picture is None and text_height(self.caption) <= self.height

    @property
    def full_height(self) -> int:
        """The box and the caption below, if it is below."""
        below = [] if self.is_field else self.caption
        return self.height + (self.caption_gap + text_height(below) if below else 0)


@dataclass(frozen=True)
class Scale:
    """Points -> pixels: lengths, and text whose size is in points."""

    factor: float
    font: str | None

    def pixels(self, points: int | float) -> int:
        """The length in whole pixels, at least one."""
        return max(1, round(points * self.factor))

    def text(self, text: str, width: int, *types: Type, lines: int = 2) -> list[Line]:
        """The text in lines of at most `width` pixels; types of the first paragraph, the second and so on."""
        styles = [load_style(points * self.factor, colour, self.font) for points, colour in types]
        return set_text(text, styles, width, lines=lines)

    def figure(self, picture: Image.Image | None, caption: str, *, width: int, height: int) -> Figure:
        """A picture that fits into the box, or None for an empty field, and its caption."""
        room = width if picture else width - 2 * self.pixels(_FIELD_PADDING)
        lines = self.text(caption, max(1, room), _CAPTION, lines=3)
        return Figure(width, height, picture, lines, self.pixels(_CAPTION_GAP))

    def colour_bar(self, colormap: str, label: str, length: int) -> tuple[Image.Image, int]:
        """A bar of `length` pixels with ticks and a label, and how far they stick out above the bar."""
        ticks = [(value, self.text(f"{value:g}", length, _CAPTION)) for value in (0.0, 0.5, 1.0)]
        beside = self.text(label, length, _CAPTION, lines=1)
        overhang = text_height(ticks[0][1]) // 2
        ticks_left = self.pixels(_BAR_WIDTH) + self.pixels(_TICK_GAP)
        ticks_width = max(text_width(tick) for _, tick in ticks)
        label_left = ticks_left + ticks_width + self.pixels(_BAR_LABEL_GAP)
        page = Page()
        ramp = colour_map(np.linspace(1, 0, length, dtype=np.float32)[:, np.newaxis], name=colormap)
        page.add_picture(to_pillow(np.repeat(ramp, self.pixels(_BAR_WIDTH), axis=1)), 0, overhang)
        for value, tick in ticks:
            page.add_text(tick, ticks_left, round((1 - value) * (length - 1)), ticks_width)
        if beside:
            strip = Page()
            strip.add_text(beside, 0, 0, length, align="centre")
            upright = strip.drawn(length, text_height(beside)).transpose(Image.Transpose.ROTATE_90)
            page.add_picture(upright, label_left, overhang)
        return page.drawn(label_left + text_height(beside), length + 2 * overhang), overhang


@dataclass
class Page:
    """Pictures and text in their places, collected first and drawn when the size of the page is known."""

    pictures: list[tuple[Image.Image, tuple[int, int]]] = field(default_factory=list)
    texts: list[tuple[list[Line], tuple[int, int, int], Align]] = field(default_factory=list)

    def add_picture(self, picture: Image.Image, left: int, top: int) -> None:
        """Place a picture by its corner."""
        self.pictures.append((picture, (left, top)))

    def add_text(self, lines: list[Line], left: int, top: int, width: int, *, align: Align = "left") -> None:
        """Place lines into a column."""
        self.texts.append((lines, (left, top, width), align))

    def add_figure(self, figure: Figure, left: int, top: int) -> None:
        """Place the picture in the middle of its box, or a grey field, and the caption below or inside."""
        picture = figure.picture or Image.new("RGB", (figure.width, figure.height), _FIELD)
        inner_left, inner_top = (figure.width - picture.width) // 2, (figure.height - picture.height) // 2
        self.add_picture(picture, left + inner_left, top + inner_top)
        below = figure.height + figure.caption_gap
        inside = (figure.height - text_height(figure.caption)) // 2
        text_top = top + (inside if figure.is_field else below)
        self.add_text(figure.caption, left, text_top, figure.width, align="centre")

    def drawn(self, width: int, height: int) -> Image.Image:
        """The page, on white."""
        page = Image.new("RGB", (width, height), "white")
        for picture, corner in self.pictures:
            page.paste(picture, corner)
        canvas = ImageDraw.Draw(page)
        for lines, column, align in self.texts:
            draw_lines(canvas, lines, column=column, align=align)
        return page


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

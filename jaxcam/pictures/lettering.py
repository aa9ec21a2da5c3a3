"""Setting short text in Pillow: fonts, and lines that never leave their column.

Contract: all lengths are pixels of the final picture. Text is broken at spaces to a given width; a word that
is wider than the column is broken between letters, and what does not fit into the allowed lines ends in an
ellipsis. The default font, Aileron as bundled with Pillow, has the letters of English only: other letters
lose their accents, and what then still has no shape becomes "?". A font file of one's own has what it has.
"""

import bisect
import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Align = Literal["left", "centre", "right"]

_ELLIPSIS = "…"

_SUBSTITUTES = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "×": "x",
        "ß": "ss",
        "æ": "ae",
        "Æ": "AE",
        "œ": "oe",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
    }
)


@dataclass(frozen=True)
class Style:
    """A font in one size and colour."""

    face: ImageFont.FreeTypeFont
    colour: str

    @property
    def ascent(self) -> int:
        """From the top of a line to its baseline."""
        return self.face.getmetrics()[0]

    @property
    def height(self) -> int:
        """From the top of a line to the top of the next: ascent, descent and a little air."""
        return sum(self.face.getmetrics()) + round(0.08 * self.face.size)

    def width(self, text: str) -> int:
        """How far the text reaches to the right, its last letter's overhang included."""
        return max(round(self.face.getlength(text) + 0.5), int(self.face.getbbox(text)[2]))


@dataclass(frozen=True)
class Line:
    """One line of text.

    Attributes:
        text: without newlines.
        style: font, size and colour.
        flush_right: set at the right edge of the same line.
        flush: whether `text` is set at the left edge, however its block is aligned.
    """

    text: str
    style: Style
    flush_right: str = ""
    flush: bool = False

    @property
    def width(self) -> int:
        """The narrowest column that holds the line."""
        gap = round(self.style.face.size / 2) if self.flush_right else 0
        return self.style.width(self.text) + gap + self.style.width(self.flush_right)


@functools.lru_cache(maxsize=64)
def load_style(size: float, colour: str, font: str | None) -> Style:
    """The font file (TrueType or OpenType), or Pillow's own font, at `size` pixels.

    Raises:
        ValueError: the file is missing or no font.
    """
    if font is None:
        face = ImageFont.load_default(size)
        if not isinstance(face, ImageFont.FreeTypeFont):
            raise ValueError("this Pillow was built without FreeType; install a wheel of Pillow (pip install pillow)")
        return Style(face, colour)
    try:
        return Style(ImageFont.truetype(font, size), colour)
    except OSError as error:
        raise ValueError(f"font {font!r} could not be read ({error}); name a .ttf or .otf file") from error


def set_text(text: str, styles: Sequence[Style], width: int, *, lines: int) -> list[Line]:
    """The lines of a text, each at most `width` pixels wide.

    Args:
        text: paragraphs separated by newlines; what follows a tab is set at the right edge of its first line.
        styles: of the first paragraph, the second, ..; the last one holds for all that follow.
        width: of the column in pixels.
        lines: at most so many for each paragraph.
    """
    result: list[Line] = []
    for index, paragraph in enumerate(text.split("\n") if text.strip() else ()):
        style = styles[min(index, len(styles) - 1)]
        left, tab, right = paragraph.partition("\t")
        right = _shortened(readable(right, style.face), style, width // 2)
        room = width - Line("", style, right).width
        broken = _broken(readable(left, style.face), style, room, lines)
        result += [Line(part, style, "" if index else right, bool(tab)) for index, part in enumerate(broken)]
    return result


def text_height(lines: Iterable[Line]) -> int:
    """The height of a block of lines; 0 if there is none."""
    return sum(line.style.height for line in lines)


def text_width(lines: Iterable[Line]) -> int:
    """The width of the widest line; 0 if there is none."""
    return max((line.width for line in lines), default=0)


def draw_lines(
    canvas: ImageDraw.ImageDraw,
    lines: Iterable[Line],
    *,
    column: tuple[int, int, int],
    align: Align = "left",
) -> None:
    """Draw a block of lines into the column (left, top, width)."""
    left, top, width = column
    for line in lines:
        baseline = top + line.style.ascent
        side = "left" if line.flush else align
        x, anchor = {
            "left": (left, "ls"),
            "centre": (left + width / 2, "ms"),
            "right": (left + width, "rs"),
        }[side]
        canvas.text((x, baseline), line.text, fill=line.style.colour, font=line.style.face, anchor=anchor)
        if line.flush_right:
            canvas.text(
                (left + width, baseline),
                line.flush_right,
                fill=line.style.colour,
                font=line.style.face,
                anchor="rs",
            )
        top += line.style.height


def readable(text: str, face: ImageFont.FreeTypeFont) -> str:
    """The text in letters that the font has, on one line, without control characters."""
    spaced = " ".join(text.split())
    composed = unicodedata.normalize("NFC", spaced)
    return "".join(_with_glyphs(letter, face) for letter in composed if unicodedata.category(letter)[0] != "C")


def _with_glyphs(letter: str, face: ImageFont.FreeTypeFont) -> str:
    if _has_glyph(letter, face):
        return letter
    decomposed = unicodedata.normalize("NFKD", letter).translate(_SUBSTITUTES)
    base = "".join(part for part in decomposed if not unicodedata.combining(part))
    return base if all(_has_glyph(part, face) for part in base) else "?"


@functools.lru_cache(maxsize=4096)
def _has_glyph(letter: str, face: ImageFont.FreeTypeFont) -> bool:
    # Pillow has no look-up for this. U+FFFF is no character, so every font draws its "missing" box for it.
    return letter.isascii() or _shape(letter, face) != _shape("\uffff", face)


def _shape(letter: str, face: ImageFont.FreeTypeFont) -> bytes:
    side = round(3 * face.size)
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((side // 3, side // 3), letter, fill=255, font=face)
    return image.tobytes()


def _broken(text: str, style: Style, width: int, lines: int) -> list[str]:
    broken, rest = [], text
    while rest and len(broken) < lines - 1 and style.width(rest) > width:
        fitting = _longest_prefix(rest, style, width)
        breaks = rest.rfind(" ", 0, fitting + 1), *(rest.rfind(mark, 0, fitting) + 1 for mark in "_-/")
        cut = max(breaks) if max(breaks) > 0 else fitting
        broken.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*broken, _shortened(rest, style, width)]


def _shortened(text: str, style: Style, width: int) -> str:
    if style.width(text) <= width:
        return text
    room = width - style.width(readable(_ELLIPSIS, style.face))
    return text[: _longest_prefix(text, style, room)].rstrip() + readable(_ELLIPSIS, style.face)


def _longest_prefix(text: str, style: Style, width: int) -> int:
    # By bisection, for text of any length; kerning may make a longer text a little narrower, hence the loop.
    lengths = range(1, len(text) + 1)
    fitting = max(1, bisect.bisect_right(lengths, width, key=lambda length: style.width(text[:length])))
    while fitting > 1 and style.width(text[:fitting]) > width:
        fitting -= 1
    return fitting

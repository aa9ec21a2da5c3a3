"""Short text as small pictures, in letters that the font has, broken and shortened to its column.

Contract: widths are pixels of the final picture. Text is broken at spaces and after _ - /, a word that is wider than
the column between letters, and what does not fit into the allowed lines ends in an ellipsis. The default font, Aileron
as bundled with Pillow, has the letters of English only: other letters lose their accents, and what then still has no
shape becomes "?". A font file of one's own has what it has.
"""

import bisect
import functools
import math
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from PIL import Image

Align = Literal["left", "centre", "right"]
Type = tuple[int | float, Literal["text", "quiet"]]
"""A size in points, and which of the paper's colours."""
Face = Any
"""A PIL.ImageFont.FreeTypeFont; its module is imported when the first text is set."""

_ELLIPSIS = "…"
_SUBSTITUTES = str.maketrans(
    dict(zip("–—×øØłŁ", "--xoOlL", strict=True)) | {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe"}
)


class Paper(NamedTuple):
    """The colours of a page."""

    ground: str
    text: str
    quiet: str
    field: str
    """Where a picture is missing."""


LIGHT = Paper("white", "#1a1a1a", "#666666", "#f1f1f1")
DARK = Paper("#161616", "#ededed", "#a8a8a8", "#262626")


@dataclass(frozen=True)
class Lettering:
    """Points -> pixels: lengths, and text whose size is in points."""

    scale: float
    font: str | None
    paper: Paper = LIGHT

    def pixels(self, points: int | float) -> int:
        """The length in whole pixels, at least one."""
        return max(1, round(points * self.scale))

    def block(
        self, text: str, width: int, *types: Type, lines: int = 2, align: Align = "left", ground: str | None = None
    ) -> Image.Image:
        """A text as wide as its widest line; 0 by 0 pixels if there is none.

        Args:
            text: paragraphs separated by newlines; what follows a tab is set at the right edge of the column.
            width: of the column in pixels.
            types: of the first paragraph, the second, ..; the last one holds for all that follow.
            lines: at most so many for each paragraph.
            align: of lines without a tab; those with one begin at the left.
            ground: the colour behind the text, if it is not the paper's.
        """
        from PIL import ImageDraw

        rows: list[tuple[str, str | None, Face, str]] = []
        inks = {"text": self.paper.text, "quiet": self.paper.quiet}
        for index, paragraph in enumerate(text.split("\n") if text.strip() else ()):
            points, ink = types[min(index, len(types) - 1)]
            face = load_face(points * self.scale, self.font)
            rows += [(left, right, face, inks[ink]) for left, right in set_lines(paragraph, face, width, lines=lines)]
        widest = max((reach(left, face) if right is None else width for left, right, face, _ in rows), default=0)
        # The height of a line: ascent, descent and a little air.
        heights = [sum(face.getmetrics()) + round(0.08 * face.size) for _, _, face, _ in rows]
        block = Image.new("RGB", (widest, sum(heights)), ground or self.paper.ground)
        canvas, top = ImageDraw.Draw(block), 0
        for (left, right, face, colour), height in zip(rows, heights, strict=True):
            share = {"left": 0, "centre": 0.5, "right": 1}[align] if right is None else 0
            for part, at in ((left, share), (right or "", 1)):
                # The tails of some letters begin left of the line, as type does: they stay in the column too.
                x = at * (widest - reach(part, face)) - min(0, face.getbbox(part)[0])
                canvas.text((x, top), part, fill=colour, font=face)
            top += height
        return block


@functools.lru_cache(maxsize=64)
def load_face(size: float, font: str | None) -> Face:
    """The font file (TrueType or OpenType), or Pillow's own font, at `size` pixels.

    Raises:
        ValueError: the file is missing or no font.
    """
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size) if font is None else ImageFont.truetype(font, size)
    except OSError as error:
        raise ValueError(f"font must be a .ttf or .otf file but {font!r} could not be read ({error})") from error


def set_lines(paragraph: str, face: Face, width: int, *, lines: int) -> list[tuple[str, str | None]]:
    """What stands at the left and at the right of each line; None at the right if the paragraph has no tab."""
    before, tab, after = paragraph.partition("\t")
    right = _shortened(readable(after, face), face, width // 2)
    room = width - (reach(right, face) + round(face.size / 2) if right else 0)
    broken, rest = [], readable(before, face)
    while rest and len(broken) < lines - 1 and reach(rest, face) > room:
        fitting = _longest_prefix(rest, face, room)
        cut = max(rest.rfind(" ", 0, fitting + 1), *(rest.rfind(mark, 0, fitting) + 1 for mark in "_-/"))
        cut = cut if cut > 0 else fitting
        broken.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    broken.append(_shortened(rest, face, room))
    return [(line, None if not tab else "" if index else right) for index, line in enumerate(broken)]


def reach(text: str, face: Face) -> int:
    """The width of the text in pixels, with what its first and last letters hang over."""
    left, _, right, _ = face.getbbox(text)
    return math.ceil(max(right, face.getlength(text)) - min(0, left))


def readable(text: str, face: Face) -> str:
    """The text in letters that the font has, on one line, without control characters."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(_with_glyphs(letter, face) for letter in composed if unicodedata.category(letter)[0] != "C")


def _with_glyphs(letter: str, face: Face) -> str:
    if _has_glyph(letter, face):
        return letter
    decomposed = unicodedata.normalize("NFKD", letter).translate(_SUBSTITUTES)
    base = "".join(part for part in decomposed if not unicodedata.combining(part))
    return base if all(_has_glyph(part, face) for part in base) else "?"


@functools.lru_cache(maxsize=4096)
def _has_glyph(letter: str, face: Face) -> bool:
    # Pillow has no look-up for this. U+FFFF is no character, so every font draws its "missing" box for it.
    if letter.isascii():
        return True
    shape, missing = face.getmask(letter), face.getmask("\uffff")
    return shape.size != missing.size or bytes(shape) != bytes(missing)


def _shortened(text: str, face: Face, width: int) -> str:
    if reach(text, face) <= width:
        return text
    ellipsis = readable(_ELLIPSIS, face)
    return text[: _longest_prefix(text, face, width - reach(ellipsis, face))].rstrip() + ellipsis


def _longest_prefix(text: str, face: Face, width: int) -> int:
    # By bisection, for text of any length; kerning may make a longer text a little narrower, hence the loop.
    fitting = max(1, bisect.bisect_right(range(1, len(text) + 1), width, key=lambda end: reach(text[:end], face)))
    while fitting > 1 and reach(text[:fitting], face) > width:
        fitting -= 1
    return fitting

"""Fields: which pixels of the input a position of a grid looks at, as steps and borders along one axis.

    rows of the picture              0 ... 0      every 1 from 0
    convolution, 7 wide, step 2     -2 ... 4      every 2 from 1       padded by 2
    pooling, 3 wide, step 2         -2 ... 8      every 4 from 3       not padded

Position p looks at the pixels from first + p step to last + p step, and its centre lies between them. What goes past a
layer has a smaller field, and a sum of both has the larger one. What attention and pooled values bring from everywhere
does not count: a token is where its patch is. Padding is looked at as if there were pixels.

A heatmap is not laid out by this: it is the map stretched over the picture, as the papers do it. With padding on both
sides of a strided convolution, as torch has it, the centres lie up to half a step before those of the stretched map,
with none (VALID) the map keeps off the border. `jaxcam.layers` tells where they are.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Field", "around"]


class Field(NamedTuple):
    """The pixels along one axis of the input that a grid's positions look at."""

    step: float | int
    """Pixels from one position to the next."""
    first: float | int
    """The first pixel of position 0."""
    last: float | int
    """Its last one."""

    @property
    def centre(self) -> float:
        """Of position 0."""
        return (self.first + self.last) / 2

    def within(self, start: float | int, end: float | int, step: float | int) -> Field:
        """Of windows over these positions, the first of them from position `start` to `end`, `step` apart."""
        return Field(self.step * step, self.first + self.step * start, self.last + self.step * end)

    def parted(self, times: int) -> Field:
        """Of positions each of which came several times: they share its pixels evenly."""
        return Field(self.step / times, self.first, self.first + (self.last - self.first + 1) / times - 1)


def around(one: Field | None, other: Field | None) -> Field | None:
    """Of a sum of two values: what either of them looks at; None where their steps differ, or one is not known."""
    if one is None or other is None or one.step != other.step:
        return None
    return Field(one.step, min(one.first, other.first), max(one.last, other.last))

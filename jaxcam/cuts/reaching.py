"""Whether the positions of a value reach what is explained.

Behind the last attention of a transformer with a class token that token alone is read: the others still have a grid,
and no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from jaxcam.cuts.grid import whole
from jaxcam.cuts.products import placed
from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.moves import Constants, compressed, moved
from jaxcam.programs.primitives import Moves, about
from jaxcam.programs.program import Program, is_elementwise, shape

__all__ = ["UNKNOWN", "reached", "reaches"]


_MOST_DIGITS = 15
"""Thirty marks; of 32,768 positions and more those that differ by multiples of it count as one."""


def reaches(analysis: Analysis, site: Site) -> bool:
    """Whether positions of the grid reach what is explained: more than one, and not only what stands beside them.

    Behind the last block neither a class token knows of the grid, nor the last token of a model that reads that one.
    """
    positions = whole(analysis, site)
    if positions is None:  # the grid is the user's word
        return True
    # Two marks for each binary digit of a position's number, one where it is 0 and one where it is 1: both of a digit
    # come through where there are two positions that differ in it.
    inside = np.min(np.broadcast_arrays(*positions.coordinates), 0) >= 0
    numbers = np.ravel_multi_index([np.maximum(c, 0) for c in positions.coordinates], positions.sizes)
    digits = [(numbers >> i) & 1 for i in range(min(int(numbers.max()).bit_length(), _MOST_DIGITS))]
    marks = np.sum([1 << (2 * i + digit) for i, digit in enumerate(digits)], 0)
    came = reached(analysis.program, {site.var: np.where(inside, marks, 0).astype(np.int32)})
    return any((came >> 2 * i) & 3 == 3 for i in range(len(digits)))


UNKNOWN = 1 << 30
"""The mark of what is not known: more may be marked than is so."""


def reached(program: Program, start: Mapping[Var, np.ndarray]) -> int:
    """Which of up to 30 marks on some values reach what a program returns: a bit for each; and `UNKNOWN`, or not.

    Marks go with the positions: whole numbers whose bits say which marks an element depends on, with an axis of length
    1 where all is the same. Behind what is not known everything depends on all of them, and on `UNKNOWN`.
    """
    constants = Constants(program)
    marks: dict[Var, np.ndarray] = {var: compressed(mark) for var, mark in start.items()}
    for eqn in program.equations:
        operands = [None if isinstance(atom, Literal) else marks.get(atom) for atom in eqn.invars]
        if any(mark is not None for mark in operands):
            made = zip(eqn.outvars, _marked(eqn, operands, constants), strict=True)
            marks.update((var, mark) for var, mark in made if var not in start)
    ends = [marks[out] for out in program.outputs if isinstance(out, Var) and out in marks]
    return int(np.bitwise_or.reduce([np.bitwise_or.reduce(mark, axis=None) for mark in ends], initial=0))


def _marked(eqn: JaxprEqn, marks: Sequence[np.ndarray | None], constants: Constants) -> list[np.ndarray]:
    known = [mark for mark in marks if mark is not None]
    ranks = [len(shape(var)) for var in eqn.outvars]
    some = np.bitwise_or.reduce([np.bitwise_or.reduce(mark, axis=None) for mark in known])
    if not some:
        return [np.zeros((1,) * rank, np.int32) for rank in ranks]
    guessed = UNKNOWN if any(mark.size > 1 for mark in known) else 0
    everything = [np.full((1,) * rank, some | guessed, np.int32) for rank in ranks]
    if eqn.primitive is lax.dot_general_p:
        contracted, _ = eqn.params["dimension_numbers"]
        sides = [
            placed(eqn, side, np.bitwise_or.reduce(mark, axis=tuple(contracted[side]), keepdims=True))
            for side, mark in enumerate(marks)
            if mark is not None
        ]
        return [_any(sides)]
    if about(eqn).moves is None and (is_elementwise(eqn) or about(eqn).elementwise):
        return [_any(known)] * len(ranks) if all(mark.ndim == ranks[0] for mark in known) else everything
    if about(eqn).moves is Moves.JOINS or (marks[0] is not None and len(known) == 1):
        if about(eqn).reduces and not about(eqn).windowed and "axes" in eqn.params:
            return [np.asarray(np.bitwise_or.reduce(known[0], axis=tuple(eqn.params["axes"])))] * len(ranks)
        return moved(eqn, marks, constants, fill=0) or everything
    return everything


def _any(marks: Sequence[np.ndarray]) -> np.ndarray:
    found = marks[0]
    for mark in marks[1:]:
        found = np.asarray(np.bitwise_or(found, mark))  # of no axes NumPy makes a scalar
    return compressed(found)

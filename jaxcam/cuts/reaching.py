"""Whether the positions of a value reach what is explained.

Behind the last attention of a transformer with a class token that token alone is read: the others still have a grid,
and no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from jaxcam.cuts.axes import placed
from jaxcam.cuts.grid import whole
from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.moves import Constants, compressed, moved
from jaxcam.programs.primitives import about
from jaxcam.programs.program import is_elementwise, shape

__all__ = ["reaches"]


def reaches(analysis: Analysis, site: Site) -> bool:
    """Whether a position of the grid reaches what is explained, or only what stands beside them (a class token).

    Marks go with the positions: 1 for what depends on one of them, with an axis of length 1 where all is the same.
    """
    positions = whole(analysis, site)
    if positions is None:  # the grid is the user's word
        return True
    constants = Constants(analysis.program)
    start = np.min(np.broadcast_arrays(*positions.coordinates), 0) >= 0
    marks: dict[Var, np.ndarray] = {site.var: compressed(start.astype(np.int8))}
    for eqn in analysis.program.equations[analysis.order[site.var] + 1 :]:
        operands = [None if isinstance(atom, Literal) else marks.get(atom) for atom in eqn.invars]
        if any(mark is not None for mark in operands):
            marks.update(zip(eqn.outvars, _marked(eqn, operands, constants), strict=True))
    return any(marks[out].any() for out in analysis.program.outputs if isinstance(out, Var) and out in marks)


def _marked(eqn: JaxprEqn, marks: Sequence[np.ndarray | None], constants: Constants) -> list[np.ndarray]:
    known = [mark for mark in marks if mark is not None]
    ranks = [len(shape(var)) for var in eqn.outvars]
    if not any(mark.any() for mark in known):
        return [np.zeros((1,) * rank, np.int8) for rank in ranks]
    everything = [np.ones((1,) * rank, np.int8) for rank in ranks]
    if eqn.primitive is lax.dot_general_p:
        contracted, _ = eqn.params["dimension_numbers"]
        sides = [
            placed(eqn, side, mark.max(tuple(contracted[side]), keepdims=True))
            for side, mark in enumerate(marks)
            if mark is not None
        ]
        return [_any(sides)]
    if about(eqn).moves is None and (is_elementwise(eqn) or about(eqn).elementwise):
        return [_any(known)] * len(ranks) if all(mark.ndim == ranks[0] for mark in known) else everything
    if eqn.primitive is lax.concatenate_p or (marks[0] is not None and len(known) == 1):
        if about(eqn).reduces and not about(eqn).windowed and "axes" in eqn.params:
            return [np.asarray(known[0].max(tuple(eqn.params["axes"])))] * len(ranks)
        return moved(eqn, marks, constants, fill=0) or everything
    return everything


def _any(marks: Sequence[np.ndarray]) -> np.ndarray:
    found = marks[0]
    for mark in marks[1:]:
        found = np.asarray(np.maximum(found, mark))  # of no axes NumPy makes a scalar
    return compressed(found)

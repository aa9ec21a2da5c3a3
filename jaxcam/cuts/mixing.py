"""Where positions still mix: layers with weights that look at neighbours, or at all positions."""

from __future__ import annotations

from collections.abc import Container, Iterable

from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from jaxcam.cuts.sites import OUTPUTS, Analysis
from jaxcam.programs.program import inner_programs, shape

__all__ = ["last_mixing"]


def last_mixing(analysis: Analysis) -> int | None:
    """The position in the program of the last equation on the way to the outputs that mixes positions by weights.

    Pooling and resizing have none: what they do follows from the values before them. A target after the outputs does
    not count either.
    """
    program = analysis.program
    weights = {*program.arguments[: len(program.arguments) - analysis.num_inputs]}
    moving: set[Var] = {*analysis.inputs}
    last = None
    for i, eqn in enumerate(program.equations):
        if eqn.params.get("name") == OUTPUTS:
            break
        operands = [atom for atom in eqn.invars if isinstance(atom, Var)]
        if not moving.isdisjoint(operands):
            if _mixes(eqn, analysis, moving, weights):
                last = i
            moving.update(eqn.outvars)
        elif not weights.isdisjoint(operands):
            weights.update(eqn.outvars)
    return last


def _mixes(eqn: JaxprEqn, analysis: Analysis, moving: Container[Var], weights: Container[Var]) -> bool:
    learned = [isinstance(atom, Var) and (atom in weights or atom in moving) for atom in eqn.invars]
    if eqn.primitive is lax.conv_general_dilated_p:
        window = [shape(eqn.invars[1])[axis] for axis in eqn.params["dimension_numbers"].rhs_spec[2:]]
        return learned[1] and max(window, default=1) > 1
    if eqn.primitive is lax.dot_general_p:
        return all(learned) and any(_contracts_positions(eqn, side, analysis, moving) for side in (0, 1))
    # What a loop or a branch does is not looked into: if it multiplies, it may mix.
    return any(_multiplies(inner.jaxpr.eqns) for inner in inner_programs(eqn))


def _multiplies(equations: Iterable[JaxprEqn]) -> bool:
    return any(
        eqn.primitive in (lax.conv_general_dilated_p, lax.dot_general_p)
        or any(_multiplies(inner.jaxpr.eqns) for inner in inner_programs(eqn))
        for eqn in equations
    )


def _contracts_positions(eqn: JaxprEqn, side: int, analysis: Analysis, moving: Container[Var]) -> bool:
    operand = eqn.invars[side]
    if isinstance(operand, Literal) or operand not in moving:
        return False
    contracted, _ = eqn.params["dimension_numbers"]
    where = analysis.axes.get(operand)
    if where is None:  # not known
        return True
    return any(axis in positions.axes for positions in where for axis in contracted[side])

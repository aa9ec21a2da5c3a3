"""Stages in which every element of the input reaches at most one element of the output.

Global average pooling, pooling over windows that do not overlap, ReLUs, biases, scales, slices and reshapes
are such stages. Overlapping windows, convolutions and dense layers are not: there the directions of the input
elements mix. Where one comes first, f = rest ∘ fold, its Jacobian J has at most one entry, the slope
c_e = J[k(e), e], in each column, so that

    ∂ⁿf/∂a_eⁿ = c_eⁿ · ∂ⁿrest/∂z_kⁿ   at k = k(e),

and the derivatives of f by its many elements follow from those of the rest by the elements of z = fold(a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jax.extend.core import JaxprEqn, Var

from jaxcam.programs.linearity import (
    ELEMENTWISE,
    MOVED,
    PASSED,
    PIECEWISE_CONSTANT,
    PIECEWISE_LINEAR,
    REDUCED,
    WINDOWED,
    Dependence,
    dependence,
    dependences,
)
from jaxcam.programs.program import Atom, rule, shape, size, straight_line

__all__ = ["marks"]

_IN_PLACE = ELEMENTWISE | PASSED | {"convert_element_type", "div", "integer_pow", "mul", "select_n"}
"""Element i of the results depends on element i of the operands only."""


def marks(
    equations: Sequence[JaxprEqn], known: Mapping[Var, Dependence], start: Mapping[Var, Var]
) -> dict[Var, Var | None]:
    """A mark for each variable that says where in it the elements of the input end up.

    Variables with the same mark have the same shape, and an element of the input reaches the same one element
    of each, or none. The mark is None where it may reach several. A variable that is a mark stands for the
    places in itself; `start` holds the marks of the input.
    """
    found: dict[Var, Var | None] = dict(start)
    for eqn in equations:
        found.update(dict.fromkeys(eqn.outvars))
        moving = [atom for atom in eqn.invars if dependence(known, atom) > PIECEWISE_CONSTANT]
        sources = {found.get(atom) for atom in moving if isinstance(atom, Var)}
        source = sources.pop() if len(sources) == 1 else None
        if source is None or any(dependence(known, var) > PIECEWISE_LINEAR for var in eqn.outvars):
            continue
        if _is_in_place(eqn, moving, known):
            found.update(dict.fromkeys(eqn.outvars, source))
        elif len(moving) == 1 and _is_disjoint(eqn, moving[0]):
            found.update(zip(eqn.outvars, eqn.outvars, strict=True))
    return found


def _is_in_place(eqn: JaxprEqn, moving: Sequence[Atom], known: Mapping[Var, Dependence]) -> bool:
    """Whether the results depend on the moving operands element by element."""
    if any(shape(atom) != shape(var) for atom in moving for var in eqn.outvars):
        return False
    if eqn.primitive.name != "custom_jvp_call":
        return eqn.primitive.name in _IN_PLACE
    # A ReLU, say: what counts is how the tangents of its derivative rule depend on those of the operands.
    places = [place for place, atom in enumerate(eqn.invars) if atom in moving]
    program = straight_line(rule(eqn, places))
    tangents = program.arguments[len(eqn.invars) :]
    known = dependences(program.equations, dict.fromkeys(tangents, PIECEWISE_LINEAR), in_rule=True)
    found = marks(program.equations, known, dict.fromkeys(tangents, tangents[0]))
    return all(isinstance(out, Var) and found.get(out) is tangents[0] for out in program.outputs)


def _is_disjoint(eqn: JaxprEqn, operand: Atom) -> bool:
    """Whether each element of the one moving operand reaches at most one element of the results."""
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":  # a weighted sum, if the other operand has no axis of its own to spread over
        contracting, batch = params["dimension_numbers"]
        other = 1 - eqn.invars.index(operand)
        return len(contracting[other]) + len(batch[other]) == len(shape(eqn.invars[other]))
    if name == "broadcast_in_dim":
        return size(operand) == size(eqn.outvars[0])
    if name in WINDOWED:
        windows = (params[key] for key in ("window_dimensions", "window_dilation", "window_strides"))
        axes = zip(*windows, shape(eqn.outvars[0]), strict=True)
        return all(stride > (size - 1) * dilation or count == 1 for size, dilation, stride, count in axes)
    return name in MOVED | REDUCED | {"dynamic_slice"}

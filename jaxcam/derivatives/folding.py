"""Folds: stages in which every element of the input reaches at most one element of the output.

Global average pooling, pooling over windows that do not overlap, ReLUs, biases, scales, slices and reshapes
are such stages. Overlapping windows, convolutions and dense layers are not: there the directions of the input
elements mix. For example, z = (2a₀ + 3a₁, 5a₂) folds:

    J = ∂z/∂a = | 2 3 0 |    one entry in each column: a₀ and a₁ reach z₀, a₂ reaches z₁
                | 0 0 5 |

and for f = rest(z), ∂²f/∂a₁² = 3² · ∂²rest/∂z₀²: there is nothing else that a₁ could act through. In general,
with the slope c_e = J[k(e), e] of the one z_k that the element e reaches,

    ∂ⁿf/∂a_eⁿ = c_eⁿ · ∂ⁿrest/∂z_kⁿ   at k = k(e),

and the derivatives of f by its many elements follow from those of the rest by the few of z.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jax import lax
from jax.extend.core import JaxprEqn, Var
from jax.extend.core import primitives as core

from jaxcam.programs.linearity import (
    PIECEWISE_CONSTANT,
    PIECEWISE_LINEAR,
    Dependence,
    dependence,
    dependences,
)
from jaxcam.programs.primitives import about
from jaxcam.programs.program import Atom, rule, shape, size, straight_line

__all__ = ["marks"]


def marks(
    equations: Sequence[JaxprEqn], known: Mapping[Var, Dependence], start: Mapping[Var, Var]
) -> dict[Var, Var | None]:
    """A mark for each variable that says where in it the elements of the input end up.

    Variables with the same mark have the same shape, and an element of the input reaches the same one element
    of each, or none. The mark is None where it may reach several. A variable that is a mark stands for the
    places in itself; `start` holds the marks of the input. For an input x of shape [4]:

        a = 2 x            x    in place
        b = a + relu(x)    x    in place: both have the mark x, so that their elements lie on one another
        c = sum(b)         c    every element of x reaches the one element of c
        d = c + b[0]       None x₀ comes by two ways that lie differently, c and a slice of b
        e = cumsum(b)      None x₀ reaches all of e
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
    if eqn.primitive is not core.custom_jvp_call_p:
        return about(eqn).elementwise
    # A ReLU, say: what counts is how the tangents of its derivative rule depend on those of the operands.
    places = [place for place, atom in enumerate(eqn.invars) if atom in moving]
    program = straight_line(rule(eqn, places).tangents)
    tangents = program.arguments[len(eqn.invars) :]
    known = dependences(program.equations, dict.fromkeys(tangents, PIECEWISE_LINEAR), rules=0)
    found = marks(program.equations, known, dict.fromkeys(tangents, tangents[0]))
    return all(isinstance(out, Var) and found.get(out) is tangents[0] for out in program.outputs)


def _is_disjoint(eqn: JaxprEqn, operand: Atom) -> bool:
    """Whether each element of the one moving operand reaches at most one element of the results."""
    facts, params = about(eqn), eqn.params
    if eqn.primitive is lax.dot_general_p:  # a weighted sum, if the other operand has no axis of its own to spread over
        contracting, batch = params["dimension_numbers"]
        other = 1 - eqn.invars.index(operand)
        return len(contracting[other]) + len(batch[other]) == len(shape(eqn.invars[other]))
    if eqn.primitive is lax.broadcast_in_dim_p:
        return size(operand) == size(eqn.outvars[0])
    if facts.windowed:
        windows = (params[key] for key in ("window_dimensions", "window_dilation", "window_strides"))
        axes = zip(*windows, shape(eqn.outvars[0]), strict=True)
        return all(stride > (size - 1) * dilation or count == 1 for size, dilation, stride, count in axes)
    return facts.once

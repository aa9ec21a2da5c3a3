"""Which equations work element by element: activations, and calls that only hold such equations."""

from __future__ import annotations

from jax.extend.core import Jaxpr, JaxprEqn

from jaxcam.programs.program import CUSTOM, called, closed

__all__ = ["ELEMENTWISE", "is_elementwise", "program_of_call"]

ELEMENTWISE = frozenset({
    "abs", "add", "and", "broadcast_in_dim", "clamp", "convert_element_type", "copy", "div", "eq", "erf", "erfc", "exp",
    "exp2", "expm1", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "not", "or", "pow", "rsqrt", "select_n", "sign", "sqrt", "square", "stop_gradient", "sub",
    "tanh",
})  # fmt: skip


def is_elementwise(eqn: JaxprEqn) -> bool:
    """Whether each element of the results depends on the same element of the operands only; calls by what they run."""
    inner = program_of_call(eqn)
    if inner is None:
        return eqn.primitive.name in ELEMENTWISE
    return all(is_elementwise(inside) for inside in inner.eqns)


def program_of_call(eqn: JaxprEqn) -> Jaxpr | None:
    """What a call runs, also one with a derivative of its own; None for other equations."""
    parameter = CUSTOM.get(eqn.primitive.name)
    inner = called(eqn) if parameter is None else closed(eqn.params[parameter])
    return None if inner is None else inner.jaxpr

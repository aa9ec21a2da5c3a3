"""Rounding between a value and what is made of it: where the derivative that JAX takes is not the function's slope.

A network for int8 inference computes in steps: float -> int -> float. The derivative of a step is zero, and what is
left of a gradient comes from the scales beside it:

    scale = max|x|         the scale moves with x: this way has a gradient
    q = round(x / scale)   a step: no gradient, though all that the network sees goes this way
    y = scale * (q @ w)

Indices, conditions and masks are whole numbers as well, and no steps on the way of a value. What has a derivative of
its own (straight-through rounding as a custom_jvp), or stands under stop_gradient, says itself what its slope is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Var
from jax.extend.core.primitives import stop_gradient_p

from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Atom, holds

__all__ = ["rounds"]

_STEPS = (lax.round_p, lax.floor_p, lax.ceil_p)


def rounds(equations: Sequence[JaxprEqn], start: Iterable[Var], outputs: Iterable[Atom]) -> bool:
    """Whether an output is made, on the way from the start, of floating-point values that were rounded."""
    moving, rounded = {*start}, set[Var]()
    for eqn in equations:
        if eqn.primitive is stop_gradient_p or moving.isdisjoint(a for a in eqn.invars if isinstance(a, Var)):
            continue
        # A call with a rule is not looked into: it says what its slope is; but what was rounded before it still is.
        is_step = _is_step(eqn)
        if is_step or any(isinstance(atom, Var) and atom in rounded for atom in _valued(eqn)):
            rounded.update(eqn.outvars)
        if is_step or about(eqn).linear is not Linear.STEP:
            moving.update(eqn.outvars)
    return not rounded.isdisjoint(atom for atom in outputs if isinstance(atom, Var))


def _is_step(eqn: JaxprEqn) -> bool:
    """Whether it takes numbers to whole numbers; comparisons and positions of maxima are no numbers of that kind."""
    if eqn.primitive in _STEPS:
        return True
    is_cast = eqn.primitive is lax.convert_element_type_p
    return is_cast and holds(eqn.invars[0], jnp.floating) and holds(eqn.outvars[0], jnp.integer)


def _valued(eqn: JaxprEqn) -> Sequence[Atom]:
    """The operands whose numbers go into the result: no indices, no conditions."""
    if holds(eqn.outvars[0], jnp.bool_):
        return ()
    if eqn.primitive is lax.select_n_p:
        return eqn.invars[1:]
    if eqn.primitive in (lax.gather_p, lax.dynamic_slice_p):
        return eqn.invars[:1]
    if eqn.primitive in (lax.scatter_p, lax.scatter_add_p):
        return [eqn.invars[0], eqn.invars[2]]
    if eqn.primitive is lax.dynamic_update_slice_p:
        return eqn.invars[:2]
    return () if about(eqn).linear is Linear.STEP and not _is_step(eqn) else eqn.invars

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
from jax.extend.core import Jaxpr, JaxprEqn, Var
from jax.extend.core.primitives import stop_gradient_p

from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Atom, called, closed, holds

__all__ = ["rounds"]

_STEPS = (lax.round_p, lax.floor_p, lax.ceil_p)


def rounds(equations: Sequence[JaxprEqn], start: Iterable[Var], outputs: Iterable[Atom]) -> bool:
    """Whether an output is made, on the way from the start, of floating-point values that were rounded."""
    moving, rounded = {*start}, set[Var]()
    _follow(equations, moving, rounded)
    return not rounded.isdisjoint(_variables(outputs))


def _follow(equations: Sequence[JaxprEqn], moving: set[Var], rounded: set[Var]) -> None:
    """Adds the values that are made of those that move, and of those that were rounded."""
    for eqn in equations:
        if eqn.primitive is stop_gradient_p or moving.isdisjoint(_variables(eqn.invars)):
            continue
        if programs := _programs(eqn):
            for program, operands, num_before in programs:
                own, steps = _inside(program, operands, num_before, moving, rounded)
                results = [*zip(program.outvars, eqn.outvars, strict=True)]
                moving.update(var for out, var in results if isinstance(out, Var) and out in own)
                rounded.update(var for out, var in results if isinstance(out, Var) and out in steps)
            continue
        # A call with a rule is not looked into: it says what its slope is; but what was rounded before it still is.
        is_step = _is_step(eqn)
        if is_step or not rounded.isdisjoint(_variables(_valued(eqn))):
            rounded.update(eqn.outvars)
        if is_step or about(eqn).linear is not Linear.STEP:
            moving.update(eqn.outvars)


def _programs(eqn: JaxprEqn) -> list[tuple[Jaxpr, Sequence[Atom], int | None]]:
    """What an equation runs and on what; of a loop, how many operands come before the carry that goes round."""
    if eqn.primitive is lax.cond_p:
        return [(branch.jaxpr, eqn.invars[1:], None) for branch in eqn.params["branches"]]
    if eqn.primitive is lax.scan_p:
        return [(closed(eqn.params["jaxpr"]).jaxpr, eqn.invars, eqn.params["num_consts"])]
    return [] if (program := called(eqn)) is None else [(program.jaxpr, eqn.invars, None)]


def _inside(
    program: Jaxpr, operands: Sequence[Atom], num_before: int | None, moving: set[Var], rounded: set[Var]
) -> tuple[set[Var], set[Var]]:
    """What moves and what was rounded in a program, of a loop after as many rounds as change something."""
    places = [*zip(program.invars, operands, strict=True)]
    start, steps = (
        {var for var, atom in places if isinstance(atom, Var) and atom in kind} for kind in (moving, rounded)
    )
    while True:
        found = {*start}, {*steps}
        _follow(program.eqns, *found)
        before = len(start) + len(steps)
        if num_before is not None:
            for kind, own in zip((start, steps), found, strict=True):
                carry = zip(program.invars[num_before:], program.outvars, strict=False)
                kind.update(var for var, out in carry if isinstance(out, Var) and out in own)
        if len(start) + len(steps) == before:
            return found


def _variables(atoms: Iterable[Atom]) -> list[Var]:
    return [atom for atom in atoms if isinstance(atom, Var)]


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

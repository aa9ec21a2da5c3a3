"""Rectifiers: the places in a program that act as a ReLU or one of its relatives, found by what they compute.

An equation ends a rectifier φ where it is reached from one value x by elementwise operations and constants alone, and
where that function of x, tried at a few numbers, passes what is positive and holds back what is negative. So names do
not matter: `jax.nn.relu`, `maximum(x, 0)`, `where(x > 0, x, 0)`, `x * (x > 0)`, `clip(x, 0, 6)`, leaky ReLU, ELU, SELU,
SiLU, GELU, Mish and hard swish are found however they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxcam.programs.primitives import Facts, Moves, about
from jaxcam.programs.program import Stage, called, holds, is_elementwise, runs, shape

__all__ = ["is_gate", "rectifiers"]

_LONGEST = 24
_POINTS = np.array([0.0, 0.5, 1.0, 10.0, -0.5, -10.0])


class Rectifier(NamedTuple):
    """A place in a program: `phi` computes the outputs of equation number `end` from x."""

    end: int
    x: Var
    phi: Stage


def rectifiers(jaxpr: Jaxpr) -> Iterator[Rectifier]:
    """The rectifiers of a program; those inside the calls in it belong to their programs."""
    makers: dict[Var, JaxprEqn] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        makers.update(dict.fromkeys(eqn.outvars, eqn))
        if len(eqn.outvars) != 1 or not holds(eqn.outvars[0], jnp.floating):
            continue
        if not about(eqn).ends and not _is_elementwise_call(eqn):
            continue
        for x in _sources(eqn, makers):
            equations = _cone(eqn, x, makers)
            if equations is not None and _rectifies(equations, x, eqn.outvars[0]):
                if not _is_variance(x, makers):
                    yield Rectifier(i, x, Stage((x,), (eqn.outvars[0],), equations))
                break


def _sources(eqn: JaxprEqn, makers: Mapping[Var, JaxprEqn]) -> list[Var]:
    """What x may be: an operand, or what a constant multiple of x was made from, as in (x / 2) (1 + erf(x / √2))."""
    operands = [atom for atom in eqn.invars if isinstance(atom, Var)]
    behind = [
        atom
        for operand in operands
        if operand in makers and about(makers[operand]).scales
        for atom in makers[operand].invars
        if isinstance(atom, Var)
    ]
    found = dict.fromkeys((*operands, *behind))
    return [x for x in found if holds(x, jnp.floating) and shape(x) == shape(eqn.outvars[0])]


def _cone(eqn: JaxprEqn, x: Var, makers: Mapping[Var, JaxprEqn]) -> list[JaxprEqn] | None:
    """The elementwise equations from x and constants to the results of `eqn`; None if something else enters."""
    found: dict[int, JaxprEqn] = {}
    order: list[JaxprEqn] = []

    def visit(eqn: JaxprEqn) -> bool:
        if id(eqn) in found:
            return True
        if len(found) >= _LONGEST or not is_elementwise(eqn):
            return False
        found[id(eqn)] = eqn
        for atom in eqn.invars:
            if isinstance(atom, Var) and atom is not x and (atom not in makers or not visit(makers[atom])):
                return False
        order.append(eqn)
        return True

    return order if visit(eqn) else None


def is_gate(eqn: JaxprEqn) -> bool:
    """Whether a call is a hard sigmoid, which goes from 0 to 1: what is clipped at zero in it is no activation."""
    if not _is_elementwise_call(eqn) or len(eqn.outvars) != 1:
        return False
    return any(
        (values := _values([eqn], x, eqn.outvars[0])) is not None and values[[0, 3, 5]].tolist() == [0.5, 1, 0]
        for x in _sources(eqn, {})
    )


def _is_elementwise_call(eqn: JaxprEqn) -> bool:
    return called(eqn, custom=True) is not None and is_elementwise(eqn)


def _rectifies(equations: Sequence[JaxprEqn], x: Var, y: Var) -> bool:
    """Whether φ(0) = 0, φ bends there, grows like x above (to a bound, as in ReLU6), and is smaller below.

    SELU's slope of 1.0507 is the steepest: x + max(x, 0) is a skip connection around a rectifier and none itself.
    """
    if (values := _values(equations, x, y)) is None:
        return False
    zero, half, one, ten, minus_half, minus_ten = values
    grows = 0.5 <= one <= 1.06 and one <= ten <= 10.6
    bends = abs(half + minus_half) > 0.01  # clip(x, -1, 1) does not, around zero
    return bool(zero == 0 and grows and bends and abs(minus_ten) <= 0.9 * ten and np.isfinite(values).all())


def _values(equations: Sequence[JaxprEqn], x: Var, y: Var) -> Any:
    """φ at the points; None where it is no function of x alone."""
    aval: Any = x.aval
    with jax.ensure_compile_time_eval():
        points = jnp.asarray(_POINTS, aval.dtype)
        try:
            return np.asarray(_tried(equations, {x: points})[y], np.float64)
        except (NotImplementedError, TypeError, ValueError, KeyError):
            return None


def _tried(equations: Sequence[JaxprEqn], values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The values of all variables at a few points, whatever the shapes in the program are."""
    known = dict(values)
    for eqn in equations:
        operands = [jnp.asarray(a.val) if isinstance(a, Literal) else known[a] for a in eqn.invars]
        if (inner := called(eqn, custom=True)) is not None:
            found = _tried(inner.jaxpr.eqns, dict(zip(inner.jaxpr.invars, operands, strict=True)))
            results = [found[v] if isinstance(v, Var) else jnp.asarray(v.val) for v in inner.jaxpr.outvars]
        elif eqn.primitive is lax.broadcast_in_dim_p or eqn.primitive.name == "pvary":
            results = operands[:1]
        else:
            spread = [jnp.broadcast_to(jnp.reshape(o, -1), _POINTS.shape) for o in operands]
            results = [eqn.primitive.bind(*spread, **eqn.params)]
        known.update(zip(eqn.outvars, results, strict=True))
    return known


def _is_variance(x: Var, makers: Mapping[Var, JaxprEqn]) -> bool:
    """Whether x is a variance, mean(x²) - mean(x)², which normalisation layers keep from falling below zero."""
    maker = makers.get(x)
    if maker is None or maker.primitive is not lax.sub_p:
        return False
    mean, square = (makers.get(atom) if isinstance(atom, Var) else None for atom in maker.invars)
    return mean is not None and square is not None and _is_square(square) and _is_mean(mean, makers)


def _is_square(eqn: JaxprEqn) -> bool:
    match eqn.primitive:
        case lax.square_p:
            return True
        case lax.integer_pow_p:
            return eqn.params["y"] == 2
        case lax.mul_p:
            return eqn.invars[0] is eqn.invars[1]
        case _:
            return False


def _is_mean(eqn: JaxprEqn, makers: Mapping[Var, JaxprEqn]) -> bool:
    """Whether it is a sum over positions or devices, divided or moved."""
    if runs([eqn], _sums):
        return True
    behind = [makers[atom] for atom in eqn.invars if isinstance(atom, Var) and atom in makers]
    facts = about(eqn)
    passes_on = facts.scales or facts.moves in (Moves.AXES, Moves.PICKS, Moves.JOINS)
    return passes_on and any(_is_mean(maker, makers) for maker in behind)


def _sums(facts: Facts) -> bool:
    return facts.reduces == "sum" and not facts.windowed

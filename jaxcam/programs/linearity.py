"""A static proof that a function is piecewise linear, read off its jaxpr.

Every value in the program of a function gets a `Dependence` on the input, by rules (`_results`) about the primitives
that make it. What they prove holds in both senses that matter here:

- of the values: almost everywhere in the input there is a neighbourhood in which the function is affine;
- of JAX's derivatives: the directional derivative that `jax.jvp` computes is itself locally constant, so that
  all higher derivatives along any line are zero.

The two differ where a derivative rule is not that of its function (`stop_gradient`, straight-through
estimators); such a function passes only where both hold. The rule of a `custom_jvp` function returns a value
beside the tangent, and derivatives above the first are taken of that value: the rule counts only where it has the
slope that the tangent says. `(round(x), t)` does not: once differentiated it is a step. `(f(x), t)`, which calls the
function f itself again, has it by itself. "Piecewise linear" means what networks mean by it:
affine pieces, biases included. The pieces need not join: x·sign(x), x·floor(x) and a `select` on any
condition pass, because comparisons and roundings are locally constant whatever they are applied to.

What has no rule is not proven, so that a new or exotic primitive can cost speed but never correctness.
Not seen at all: that an expression cancels (x·x - x·x is not proven), and how the rounding of floating-point
numbers bends a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jax.extend.core import primitives as core

from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Atom, Rule, called, closed, holds, moves, rule, shape
from jaxcam.programs.slopes import has_its_slope

__all__ = [
    "Dependence",
    "dependence",
    "dependences",
    "has_constant_slope",
    "is_piecewise_linear",
    "proves_piecewise_linear",
]


class Dependence(IntEnum):
    """How a value depends on the input. Each kind includes those before it, so that `max` joins them."""

    CONSTANT = 0
    """Does not depend on the input at all."""
    PIECEWISE_CONSTANT = 1
    """Locally constant: a comparison, a rounding, an index."""
    PIECEWISE_LINEAR = 2
    """Locally affine."""
    UNKNOWN = 3
    """Anything else, or not known."""


CONSTANT, PIECEWISE_CONSTANT, PIECEWISE_LINEAR, UNKNOWN = Dependence
_RULES = 2


def is_piecewise_linear(f: Callable[..., Any], *args: Any) -> bool:
    """Whether `f` is provably piecewise linear in all of `args` together.

    The proof is static: `f` is traced, not computed, and nothing depends on the values of `args`. It covers
    affine operations, products with values that do not depend on the input, convolutions and dots with
    constants, max, min, abs, ReLU and its relatives, max- and average-pooling, sorting, `select` with
    piecewise-linear branches, indexing, and `jit`, `checkpoint`, `scan`, `cond`, `custom_jvp` around these.

    Args:
        f: any function that JAX can trace. It may close over arrays and tracers, which count as constants.
        args: arrays, `jax.ShapeDtypeStruct`s or pytrees of them. Integers and booleans among them select:
            they cannot move continuously.

    Returns:
        True if the proof succeeds for every output of `f`. False means *not proven*: x·x, 1/x, exp(x) and
        where(x > 0, x², x) are not piecewise linear; x·x - x·x is, and is not proven either. Complex numbers
        are never proven.

    Raises:
        TypeError: `f` is not callable.
    """
    if not callable(f):
        raise TypeError(f"f must be a function of arrays, got {type(f).__name__}; pass the function itself")
    return proves_piecewise_linear(jax.make_jaxpr(lambda *args: f(*args))(*args).jaxpr)


def has_constant_slope(f: Callable[..., Any], a: Any, *others: Any) -> bool:
    """Whether JAX's derivative of `f` by its first argument is provably the same for all values of that.

    So it is for what is affine: pooling by the mean and a linear layer, not for a ReLU, whose slope is one of two. Like
    every proof here it is about the derivative: floor has the slope 0 everywhere, and is not affine.

    Args:
        f: a function of arrays that JAX can trace.
        a: an array of floating-point numbers, or its spec.
        others: which are constants.

    Returns:
        True if the proof succeeds; False means not proven.
    """
    tangent = jax.make_jaxpr(lambda a, t, *others: jax.jvp(lambda a: f(a, *others), (a,), (t,))[1])(a, a, *others).jaxpr
    inputs = [PIECEWISE_LINEAR, *[CONSTANT] * (len(tangent.invars) - 1)]
    return all(out is CONSTANT for out in _outputs(tangent, inputs, _RULES))


def proves_piecewise_linear(jaxpr: Jaxpr) -> bool:
    """The same for the program of a function; what it closes over counts as constant."""
    inputs = [PIECEWISE_LINEAR if moves(var) else PIECEWISE_CONSTANT for var in jaxpr.invars]
    return all(out <= PIECEWISE_LINEAR for out in _outputs(jaxpr, inputs, _RULES))


def dependences(
    equations: Sequence[JaxprEqn], inputs: Mapping[Var, Dependence], *, rules: int = _RULES
) -> dict[Var, Dependence]:
    """How the variables of a program depend on its input, given how its arguments do.

    `rules` is how deep derivative rules of `custom_jvp` functions are looked up inside one another: they may call each
    other without end.
    """
    known = dict(inputs)
    for eqn in equations:
        results = _results(eqn, [dependence(known, atom) for atom in eqn.invars], rules)
        if isinstance(results, Dependence):
            results = [results] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return known


def dependence(known: Mapping[Var, Dependence], atom: Atom) -> Dependence:
    """The dependence of a variable or a literal. What is not `known` is a constant."""
    return CONSTANT if isinstance(atom, Literal) else known.get(atom, CONSTANT)


def _results(eqn: JaxprEqn, operands: list[Dependence], rules: int) -> Dependence | list[Dependence]:
    """The rules: how the results of one equation depend on the input, given how its operands do.

    For example, of abs(x) * floor(x): abs is linear in x, floor is a step, and a product is linear in one operand
    while the other stays. So it is PIECEWISE_LINEAR. In abs(x) * x both operands move: UNKNOWN.
    """
    join = max(operands, default=CONSTANT)
    if eqn.effects:
        return UNKNOWN  # it may read what another equation writes
    if join <= PIECEWISE_CONSTANT:
        return join  # any function of values that stay where they are
    if any(holds(atom, jnp.complexfloating) for atom in (*eqn.invars, *eqn.outvars)):
        return UNKNOWN  # |z| is no line and sign(z) no step
    if _irreversible(eqn, operands):
        return UNKNOWN
    match about(eqn).linear:
        case Linear.STEP:
            return PIECEWISE_CONSTANT
        case Linear.JOINTLY:
            return join
        case Linear.EACH:
            return join if min(operands) <= PIECEWISE_CONSTANT else UNKNOWN
        case Linear.FIRST:
            return join if max(operands[1:]) <= PIECEWISE_CONSTANT else UNKNOWN
        case None:
            pass
    if (program := called(eqn)) is not None:
        return _outputs(program.jaxpr, operands, rules)
    match eqn.primitive:
        case lax.convert_element_type_p:
            return join if moves(eqn.outvars[0]) else PIECEWISE_CONSTANT
        case lax.integer_pow_p:
            return join if eqn.params["y"] == 1 else UNKNOWN
        case lax.sort_p:
            keys = max(operands[: eqn.params["num_keys"]])
            return [max(operand, min(keys, PIECEWISE_CONSTANT)) for operand in operands]
        case lax.top_k_p:
            return [join, PIECEWISE_CONSTANT]
        case lax.cond_p:
            return _cond(eqn, operands, rules)
        case lax.scan_p:
            return _scan(eqn, operands, rules)
        case core.custom_jvp_call_p if join <= PIECEWISE_LINEAR and rules > 0:
            return _custom_jvp(eqn, operands, rules)
        case _:
            return UNKNOWN


def _irreversible(eqn: JaxprEqn, operands: list[Dependence]) -> bool:
    """Piecewise linear, but JAX fails to take it backwards, and that is what the proof is for."""
    if eqn.primitive is lax.pad_p:
        return operands[1] > PIECEWISE_CONSTANT  # what it fills with moves
    if eqn.primitive is lax.clamp_p:  # JAX does not sum the derivative by a scalar bound of an array
        bounds = (
            (atom, operand) for atom, operand in zip(eqn.invars, operands, strict=True) if atom is not eqn.invars[1]
        )
        return any(operand > PIECEWISE_CONSTANT and shape(atom) != shape(eqn.outvars[0]) for atom, operand in bounds)
    facts = about(eqn)
    return facts.windowed and facts.reduces != "sum" and max(eqn.params["window_dilation"]) > 1


def _cond(eqn: JaxprEqn, operands: list[Dependence], rules: int) -> list[Dependence]:
    branches = [_outputs(branch.jaxpr, operands[1:], rules) for branch in eqn.params["branches"]]
    return [max(operands[0], *results) for results in zip(*branches, strict=True)]


def _scan(eqn: JaxprEqn, operands: list[Dependence], rules: int) -> list[Dependence]:
    """The loop's results: its carry is followed round after round until it no longer changes.

    For example, (a, b) -> (b, a t) with a = b = 1 and t from the input (C constant, L linear, U unknown):

        round    a b    goes into (b, a t)
        1        C C    C L      t times a constant is linear
        2        C L    L L      a is what b was
        3        L L    L U      t times what is linear in t
        4        L U    U U
        5        U U    U U      the same again: that is the answer

    After one round it would have passed as linear. What enters a round is never less than what entered the one
    before, so that every round but the last lifts a value by one of three steps, and the rounds come to an end.
    """
    start, stop = eqn.params["num_consts"], eqn.params["num_consts"] + eqn.params["num_carry"]
    body = closed(eqn.params["jaxpr"]).jaxpr
    while True:
        results = _outputs(body, operands, rules)
        carry = [max(pair) for pair in zip(operands[start:stop], results[: stop - start], strict=True)]
        if carry == operands[start:stop]:
            return carry + results[stop - start :]
        operands = operands[:start] + carry + operands[stop:]


def _custom_jvp(eqn: JaxprEqn, operands: list[Dependence], rules: int) -> Dependence | list[Dependence]:
    """Proven where the body is, and where its rule says a slope that is locally constant and that of its own values.

    A locally constant body proves no more than a line: that of a straight-through estimator rounds, and its
    rule says that it has slope one.
    """
    body = _outputs(closed(eqn.params["call_jaxpr"]).jaxpr, operands, rules)
    if max(body, default=CONSTANT) > PIECEWISE_LINEAR:
        return UNKNOWN
    moving = [place for place, operand in enumerate(operands) if operand > PIECEWISE_CONSTANT]
    found = rule(eqn, moving)
    with_tangents = operands + [CONSTANT] * len(moving)
    if max(_outputs(found.tangents.jaxpr, with_tangents, 0), default=CONSTANT) > PIECEWISE_CONSTANT:
        return UNKNOWN
    if not _is_called_again(eqn, moving, found):
        results = _outputs(found.results.jaxpr, with_tangents, rules - 1)
        if max(results, default=CONSTANT) > PIECEWISE_LINEAR or not has_its_slope(found, moving):
            return UNKNOWN
    return [PIECEWISE_LINEAR if moves(var) else result for var, result in zip(eqn.outvars, body, strict=True)]


def _is_called_again(eqn: JaxprEqn, moving: list[int], found: Rule) -> bool:
    """Whether the rule gets its values from the function that it is the rule of: they have its slope by themselves.

    That is a call with the same rule, letter by letter, of the same operands.
    """
    program, operands = found.results.jaxpr, found.results.jaxpr.invars[: len(eqn.invars)]
    makers = {var: each for each in program.eqns for var in each.outvars}
    again = {
        id(maker): maker for out in program.outvars if (maker := makers.get(out)) is not None
    }  # a Literal has none
    if len(again) != 1 or len(program.outvars) != sum(map(moves, eqn.outvars)):
        return False
    (call,) = again.values()
    if call.primitive is not eqn.primitive or [*call.invars] != operands:
        return False
    own = [var for var in call.outvars if moves(var)]
    return own == [*program.outvars] and str(rule(call, moving).tangents) == str(found.tangents)


def _outputs(jaxpr: Jaxpr, inputs: Sequence[Dependence], rules: int) -> list[Dependence]:
    known = dependences(jaxpr.eqns, dict(zip(jaxpr.invars, inputs, strict=True)), rules=rules)
    return [dependence(known, out) for out in jaxpr.outvars]

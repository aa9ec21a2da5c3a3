"""A static proof that a function is piecewise linear, read off its jaxpr.

Every value in the program of a function gets a `Dependence` on the input, by rules about the primitives that
make it. What they prove holds in both senses that matter here:

- of the values: almost everywhere in the input there is a neighbourhood in which the function is affine;
- of JAX's derivatives: the directional derivative that `jax.jvp` computes is itself locally constant, so that
  all higher derivatives along any line are zero.

The two differ where a derivative rule is not that of its function (`stop_gradient`, straight-through
estimators); such a function passes only where both hold. "Piecewise linear" means what networks mean by it:
affine pieces, biases included. The pieces need not join: x·sign(x), x·floor(x) and a `select` on any
condition pass, because comparisons and roundings are locally constant whatever they are applied to.

What has no rule here is not proven, so that a new or exotic primitive can cost speed but never correctness.
Not seen at all: that an expression cancels (x·x - x·x is not proven), and how the rounding of floating-point
numbers bends a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxcam.programs.program import Atom, called, closed, holds, moves, rule

__all__ = ["Dependence", "dependence", "dependences", "is_piecewise_linear", "proves_piecewise_linear"]


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

ELEMENTWISE = frozenset({"abs", "add", "add_any", "clamp", "max", "min", "neg", "reduce_precision", "sub"})
"""Piecewise linear in all operands together, element by element."""

PASSED = frozenset(
    {"copy", "device_put", "name", "optimization_barrier", "reshard", "sharding_constraint", "stop_gradient"}
)
"""The identity of their operands' values. That `stop_gradient` drops derivatives only makes them simpler."""

REDUCED = frozenset({"reduce_max", "reduce_min", "reduce_sum"})

WINDOWED = frozenset({"reduce_window_max", "reduce_window_min", "reduce_window_sum"})

MOVED = frozenset({"broadcast_in_dim", "pad", "reshape", "rev", "slice", "split", "squeeze", "transpose"})

COMBINED = frozenset({"concatenate", "cummax", "cummin", "cumsum", "stack", "tile", "unstack"})

SELECTED = frozenset(
    {"dynamic_slice", "dynamic_update_slice", "gather", "scatter", "scatter-add", "scatter-sub", "select_n"}
)
"""Indices and predicates, which are integers, can only be locally constant or unknown."""

LINEAR = ELEMENTWISE | PASSED | REDUCED | WINDOWED | MOVED | COMBINED | SELECTED
"""Piecewise linear in all operands together."""

COMPARED = frozenset({"argmax", "argmin", "eq", "eq_to", "ge", "gt", "is_finite", "le", "le_to", "lt", "lt_to", "ne"})

STEPS = COMPARED | {"ceil", "floor", "round", "sign"}
"""Locally constant, whatever the operand."""

BILINEAR = frozenset({"conv_general_dilated", "dot_general", "mul"})
"""Linear in each operand: at most one of them may be more than locally constant."""


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


def proves_piecewise_linear(jaxpr: Jaxpr) -> bool:
    """The same for the program of a function; what it closes over counts as constant."""
    inputs = [PIECEWISE_LINEAR if moves(var) else PIECEWISE_CONSTANT for var in jaxpr.invars]
    return all(out <= PIECEWISE_LINEAR for out in _outputs(jaxpr, inputs))


def dependences(
    equations: Sequence[JaxprEqn], inputs: Mapping[Var, Dependence], *, in_rule: bool = False
) -> dict[Var, Dependence]:
    """How the variables of a program depend on its input, given how its arguments do.

    `in_rule` is for the derivative rule of a `custom_jvp` function. Rules call their own function again, and
    so no rule is looked up inside a rule.
    """
    known = dict(inputs)
    for eqn in equations:
        results = _results(eqn, [dependence(known, atom) for atom in eqn.invars], in_rule)
        if isinstance(results, Dependence):
            results = [results] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return known


def dependence(known: Mapping[Var, Dependence], atom: Atom) -> Dependence:
    """The dependence of a variable or a literal. What is not `known` is a constant."""
    return CONSTANT if isinstance(atom, Literal) else known.get(atom, CONSTANT)


def _results(eqn: JaxprEqn, operands: list[Dependence], in_rule: bool) -> Dependence | list[Dependence]:
    """The rules: how the results of one equation depend on the input, given how its operands do."""
    name = eqn.primitive.name
    join = max(operands, default=CONSTANT)
    if eqn.effects:
        return UNKNOWN  # it may read what another equation writes
    if join <= PIECEWISE_CONSTANT:
        return join  # any function of values that stay where they are
    if any(holds(atom, jnp.complexfloating) for atom in (*eqn.invars, *eqn.outvars)):
        return UNKNOWN  # |z| is no line and sign(z) no step
    if _irreversible(eqn, operands):
        return UNKNOWN
    if name in STEPS:
        return PIECEWISE_CONSTANT
    if name in LINEAR:
        return join
    if name in BILINEAR:
        return join if min(operands) <= PIECEWISE_CONSTANT else UNKNOWN
    if (program := called(eqn)) is not None:
        return _outputs(program.jaxpr, operands, in_rule)
    match name:
        case "convert_element_type":
            return join if moves(eqn.outvars[0]) else PIECEWISE_CONSTANT
        case "div":
            return join if operands[1] <= PIECEWISE_CONSTANT else UNKNOWN
        case "integer_pow":
            return join if eqn.params["y"] == 1 else UNKNOWN
        case "sort":
            keys = max(operands[: eqn.params["num_keys"]])
            return [max(operand, min(keys, PIECEWISE_CONSTANT)) for operand in operands]
        case "top_k":
            return [join, PIECEWISE_CONSTANT]
        case "cond":
            return _cond(eqn, operands, in_rule)
        case "scan":
            return _scan(eqn, operands, in_rule)
        case "custom_jvp_call" if join <= PIECEWISE_LINEAR and not in_rule:
            return _custom_jvp(eqn, operands)
        case _:
            return UNKNOWN


def _irreversible(eqn: JaxprEqn, operands: list[Dependence]) -> bool:
    """Piecewise linear, but JAX fails to take it backwards, and that is what the proof is for."""
    if eqn.primitive.name == "pad":
        return operands[1] > PIECEWISE_CONSTANT  # what it fills with moves
    return eqn.primitive.name in {"reduce_window_max", "reduce_window_min"} and max(eqn.params["window_dilation"]) > 1


def _cond(eqn: JaxprEqn, operands: list[Dependence], in_rule: bool) -> list[Dependence]:
    branches = [_outputs(branch.jaxpr, operands[1:], in_rule) for branch in eqn.params["branches"]]
    return [max(operands[0], *results) for results in zip(*branches, strict=True)]


def _scan(eqn: JaxprEqn, operands: list[Dependence], in_rule: bool) -> list[Dependence]:
    """The fixed point over the carry, which only grows and so gets there in a few rounds."""
    start, stop = eqn.params["num_consts"], eqn.params["num_consts"] + eqn.params["num_carry"]
    while True:
        results = _outputs(closed(eqn.params["jaxpr"]).jaxpr, operands, in_rule)
        carry = [max(pair) for pair in zip(operands[start:stop], results[: stop - start], strict=True)]
        if carry == operands[start:stop]:
            return carry + results[stop - start :]
        operands = operands[:start] + carry + operands[stop:]


def _custom_jvp(eqn: JaxprEqn, operands: list[Dependence]) -> Dependence | list[Dependence]:
    """Proven where the body is, and where the tangents of its rule along straight lines are locally constant.

    A locally constant body proves no more than a line: that of a straight-through estimator rounds, and its
    rule says that it has slope one.
    """
    body = _outputs(closed(eqn.params["call_jaxpr"]).jaxpr, operands)
    if max(body, default=CONSTANT) > PIECEWISE_LINEAR:
        return UNKNOWN
    moving = [place for place, operand in enumerate(operands) if operand > PIECEWISE_CONSTANT]
    tangents = _outputs(rule(eqn, moving).jaxpr, operands + [CONSTANT] * len(moving), in_rule=True)
    if max(tangents, default=CONSTANT) > PIECEWISE_CONSTANT:
        return UNKNOWN
    return [PIECEWISE_LINEAR if moves(var) else result for var, result in zip(eqn.outvars, body, strict=True)]


def _outputs(jaxpr: Jaxpr, inputs: Sequence[Dependence], in_rule: bool = False) -> list[Dependence]:
    known = dependences(jaxpr.eqns, dict(zip(jaxpr.invars, inputs, strict=True)), in_rule=in_rule)
    return [dependence(known, out) for out in jaxpr.outvars]

"""Whether the rule of a custom derivative says the slope of the values that it returns, tried on numbers.

A derivative above the first is taken of what the rule returns, not of the function:

    relu = (maximum(x, 0), t 1[x > 0])    the slope of maximum(x, 0) is 1[x > 0]: the rule holds again and again
    straight_through = (round(x), t)      the slope of round(x) is 0, not 1: so are all derivatives above the first

Both slopes are locally constant already where this is asked. They are compared at thousands of random numbers of many
magnitudes, so that each piece of any width is met. Kinks are left out: `maximum` has slope 1/2 where its operands are
equal, so that at x = 0 itself nested derivatives of the first rule take 0 at one order and 1/2 at the next; where it is
proven, 0 is taken throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun

from jaxcam.programs.program import Rule, holds, moves, shape, size

__all__ = ["has_its_slope"]

_NUMBERS = 2**13
_MOST = 2**24
_KINKS = 2**-8
"""The share of numbers that may stand at a kink: some of few numbers, in half precision, and where slopes differ."""


def has_its_slope(rule: Rule, moving: Sequence[int]) -> bool:
    """Whether the derivatives that JAX takes of the rule's results are the rule's tangents; False where it cannot try.

    `moving` are the places of the operands whose tangents the rule takes.
    """
    arguments = rule.results.jaxpr.invars
    operands = arguments[: len(arguments) - len(moving)]
    trials = 1 + _NUMBERS // max(1, *(size(operands[place]) for place in moving))
    known = (atom for atom in operands if holds(atom, jnp.number) or holds(atom, jnp.bool_))
    if len([*known]) < len(operands) or trials * sum(map(size, arguments)) > _MOST:
        return False
    if any(isinstance(constant, Tracer) for constant in rule.results.consts):
        return False  # known only when the program runs
    results, tangents = jaxpr_as_fun(rule.results), jaxpr_as_fun(rule.tangents)

    def slopes(values: list[Any]) -> tuple[list[Any], list[Any]]:
        values, directions = values[: len(operands)], values[len(operands) :]

        def moved(*at: Any) -> list[Any]:
            return results(*(dict(enumerate(values)) | dict(zip(moving, at, strict=True))).values(), *directions)

        return jax.jvp(moved, [values[place] for place in moving], directions)[1], tangents(*values, *directions)

    random = np.random.default_rng(0)

    def numbers(atom: Any) -> np.ndarray:
        if not moves(atom):
            return np.zeros((trials, *shape(atom)), atom.aval.dtype)  # an index, which is somewhere
        info = jnp.finfo(atom.aval.dtype)
        low, high = max(-8, np.log10(float(info.tiny))), min(8, 0.75 * np.log10(float(info.max)))
        magnitude = 10 ** random.uniform(low, high, (trials, *shape(atom)))
        return (magnitude * random.choice([-1, 1], magnitude.shape)).astype(atom.aval.dtype)

    values = [
        *map(numbers, operands),
        *(random.normal(size=(trials, *shape(v))).astype(v.aval.dtype) for v in arguments[len(operands) :]),
    ]
    with jax.ensure_compile_time_eval():
        try:
            found, claimed = jax.jit(jax.vmap(slopes))(values)
        except (TypeError, NotImplementedError, NameError, ValueError):  # no derivative, or axes with names
            return False
    return all(map(_are_close, found, claimed))


def _are_close(found: Any, claimed: Any) -> bool:
    tolerance = float(jnp.finfo(found.dtype).eps) ** 0.5
    found, claimed = np.asarray(found, np.float64), np.asarray(claimed, np.float64)
    far = np.abs(found - claimed) > tolerance * (1 + np.abs(claimed))
    return float(np.mean(far)) <= _KINKS

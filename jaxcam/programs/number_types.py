"""The floating-point types that a program computes in, between its arguments and its results.

Inside loops, branches and custom derivatives too: a step in float32 within a `scan` in float64 rounds as any other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Atom, closed, holds, inner_programs, straight_line

__all__ = ["NumberTypes", "number_types"]

_OPAQUE = ("pure_callback", "io_callback", "pallas_call", "custom_call", "ffi_call", "custom_partitioning")
"""What runs something that is no program of JAX."""
_OF_TWO = ("scatter", "reduce", "select_and", "sort")


class NumberTypes(NamedTuple):
    """The types of the values on the way, and whether these are all."""

    types: frozenset[np.dtype[Any]]
    eps: float
    """The largest relative step between numbers: of the narrowest type, or of a `reduce_precision`."""
    known: bool
    """False where part of the computation is no program that can be read."""


def number_types(*programs: ClosedJaxpr) -> NumberTypes:
    """The types in which programs compute what depends on their arguments."""
    found = _Found()
    for program in map(straight_line, programs):  # without what the results do not need
        found.follow(program.arguments, program.equations, program.outputs, [True] * len(program.arguments))
    eps = max((float(jnp.finfo(dtype).eps) for dtype in found.types), default=0.0)
    return NumberTypes(frozenset(found.types), max(eps, found.eps), found.known)


class _Found:
    """What was found on the way so far."""

    def __init__(self) -> None:
        self.types: set[np.dtype[Any]] = set()
        self.eps = 0.0
        self.known = True

    def follow(
        self, arguments: Sequence[Var], equations: Sequence[JaxprEqn], outputs: Sequence[Atom], moving: Sequence[bool]
    ) -> list[bool]:
        """Goes through a program; which of its outputs depend on the arguments that are `moving`."""
        reached = {var for var, moves in zip(arguments, moving, strict=True) if moves}

        def moves(atom: Atom) -> bool:
            return not isinstance(atom, Literal) and atom in reached

        for eqn in equations:
            operands = [moves(atom) for atom in eqn.invars]
            if any(operands):
                results = self._equation(eqn, operands)
                reached |= {var for var, result in zip(eqn.outvars, results, strict=True) if result}
        return [moves(atom) for atom in outputs]

    def _inside(self, program: ClosedJaxpr | Jaxpr, moving: Sequence[bool]) -> list[bool]:
        jaxpr = closed(program).jaxpr
        return self.follow(jaxpr.invars, jaxpr.eqns, jaxpr.outvars, moving)

    def _equation(self, eqn: JaxprEqn, operands: list[bool]) -> list[bool]:
        """Notes the types of the results, and of what runs inside; which of the results depend on the arguments."""
        self.types |= {_dtype(var) for var in eqn.outvars if holds(var, jnp.floating)}
        self.known &= eqn.primitive.name not in _OPAQUE
        self.known &= not any(holds(var, jnp.complexfloating) for var in eqn.outvars)
        precision = eqn.params.get("precision")
        self.known &= not isinstance(precision, lax.DotAlgorithm | lax.DotAlgorithmPreset)  # products in another type
        if eqn.primitive is lax.reduce_precision_p:
            self.eps = max(self.eps, 2.0 ** -eqn.params["mantissa_bits"])
        facts = about(eqn)
        match facts.runs:
            case Runs.CALL | Runs.REMAT | Runs.CUSTOM | Runs.PARTS:
                return self._inside(eqn.params[facts.under[0]], operands)
            case Runs.BRANCH:
                results = [self._inside(branch, operands[1:]) for branch in eqn.params["branches"]]
                return [operands[0] or any(each) for each in zip(*results, strict=True)]
            case Runs.LOOP if eqn.primitive is lax.scan_p:
                return self._loop(eqn.params["jaxpr"], operands, eqn.params["num_consts"], eqn.params["num_carry"])
            case Runs.LOOP:
                rest, start = operands[eqn.params["cond_nconsts"] :], eqn.params["body_nconsts"]
                return self._loop(eqn.params["body_jaxpr"], rest, start, len(rest) - start)
            case None:
                pass
        # A scatter or a reduction keeps the program of two numbers; anything else runs what it holds in its own way.
        self.known &= eqn.primitive.name.startswith(_OF_TWO) or not any(inner_programs(eqn))
        return [True] * len(eqn.outvars)

    def _loop(self, body: ClosedJaxpr | Jaxpr, operands: list[bool], start: int, num_carry: int) -> list[bool]:
        """Round after round until no more of the carry depends on the arguments."""
        stop = start + num_carry
        while True:
            results = self._inside(body, operands)
            carry = [a or b for a, b in zip(operands[start:stop], results[:num_carry], strict=True)]
            if carry == operands[start:stop]:
                return carry + results[num_carry:]
            operands = operands[:start] + carry + operands[stop:]


def _dtype(var: Var) -> np.dtype[Any]:
    aval: Any = var.aval
    return np.dtype(aval.dtype)

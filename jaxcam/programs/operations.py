"""How much a program computes: multiplications and additions of its products, and one for each other number."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import inner_programs, shape, size

__all__ = ["num_operations", "seconds_of"]

_SIDE = 1024


def num_operations(program: Jaxpr) -> int:
    """Of a program and of all that it runs: a loop's body as often as that is known, of branches the longest."""
    return sum(map(_of_equation, program.eqns))


def _of_equation(eqn: JaxprEqn) -> int:
    inner = [num_operations(program.jaxpr) for program in inner_programs(eqn)]
    if about(eqn).runs in (Runs.LOOP, Runs.BRANCH):
        return eqn.params.get("length", 1) * sum(inner) if about(eqn).runs is Runs.LOOP else max(inner)
    if inner:
        return inner[0]
    made = sum(map(size, eqn.outvars))
    if eqn.primitive is lax.dot_general_p:
        contracted = eqn.params["dimension_numbers"][0][0]
        return 2 * made * math.prod(shape(eqn.invars[0])[axis] for axis in contracted)
    if eqn.primitive is lax.conv_general_dilated_p:
        kernel = eqn.invars[1]
        return 2 * made * size(kernel) // shape(kernel)[eqn.params["dimension_numbers"].rhs_spec[0]]
    return made


def seconds_of(operations: int, dtype: Any) -> float:
    """How long that takes on this device, at the rate of a matrix product."""
    with jax.ensure_compile_time_eval():
        square = jnp.ones((_SIDE, _SIDE), dtype)
        product = jax.jit(lambda x: x @ x)
        jax.block_until_ready(product(square))
        start = time.perf_counter()
        jax.block_until_ready(product(square))
    return operations * (time.perf_counter() - start) / (2 * _SIDE**3)

"""What tells two models apart: their arrays, and their programs. A results file goes on with the same ones only."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.methods.method import Bound
from jaxcam.programs.program import kept_constants

_DIGITS = 16


def array_hash(arrays: list[Any]) -> str:
    """Of the parameters."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
        values = np.ascontiguousarray(np.asarray(plain))
        digest.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()[:_DIGITS]


def code_hash(method: Bound) -> str:
    """Of the code of a function that is no method of ours, with its constants and what it captured, as text."""
    function: Any = method.method.function
    while not hasattr(function, "__code__") and hasattr(function, "function"):
        function = function.function
    code = getattr(function, "__code__", None)
    cells = [repr(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    text = repr(function) if code is None else f"{code.co_code!r}{_constants(code)}{code.co_names}{cells}"
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()[:_DIGITS]


def _constants(code: Any) -> list[str]:
    return [str(_constants(c)) + repr(c.co_code) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]


def program_hash(function: Callable[..., Any], *arguments: Any) -> str:
    """Of what a function computes for such arguments, constants included; the same in every process.

    Not seen: the rules of custom derivatives and what callbacks compute, of which the program has the names only.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr))
    constants = [jnp.asarray(c) for c in (*closed.consts, *kept_constants(closed.jaxpr))]
    return hashlib.sha256((text + array_hash(constants)).encode()).hexdigest()[:_DIGITS]

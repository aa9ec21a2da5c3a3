"""What tells two models apart: their arrays, and their programs. A results file goes on with the same ones only."""

import hashlib
import re
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.methods.method import Bound
from jaxcam.programs.closures import Same
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
    return hashlib.sha256(_text(method.method.function, ()).encode()).hexdigest()[:_DIGITS]


def _text(value: Any, around: tuple[int, ...]) -> str:
    """What a function is, as text that is the same in every process: its code, defaults, and what it captured."""
    if id(value) in around:  # a function that captures itself
        return "itself"
    around = (*around, id(value))

    def each(values: Any) -> list[str]:
        return [_text(inner, around) for inner in values]

    if isinstance(value, Same):
        return _text(value.function, around)
    if isinstance(value, CodeType):
        return f"{value.co_code!r}{value.co_names}{each(value.co_consts)}"
    if isinstance(value, MethodType):
        return _text(value.__func__, around) + _text(value.__self__, around)
    if isinstance(value, partial):
        return str(each((value.func, *value.args, *sorted(value.keywords.items()))))
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        defaults = (*(value.__defaults__ or ()), *sorted((value.__kwdefaults__ or {}).items()))
        return _text(value.__code__, around) + str(each(defaults)) + str(each(cells))
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return array_hash([np.asarray(value)])
    if isinstance(value, tuple | list):
        return str(each(value))
    if wrapped := getattr(value, "__wrapped__", None):  # a jitted function
        return _text(wrapped, around)
    own = str(each(sorted(vars(value).items()))) if hasattr(value, "__dict__") and not isinstance(value, type) else ""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value)) + own


def program_hash(function: Callable[..., Any], *arguments: Any) -> str:
    """Of what a function computes for such arguments, constants included; the same in every process.

    Not seen: the rules of custom derivatives and what callbacks compute, of which the program has the names only.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr))
    constants = [jnp.asarray(c) for c in (*closed.consts, *kept_constants(closed.jaxpr))]
    return hashlib.sha256((text + array_hash(constants)).encode()).hexdigest()[:_DIGITS]

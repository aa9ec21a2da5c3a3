"""What tells two models apart: their arrays, and their programs. A results file goes on with the same ones only."""

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.programs.identity import Weak, captured_by, read_by
from jaxcam.programs.sameness import fingerprint
from jaxcam.programs.watched import Watched

_DIGITS = 16


def array_hash(arrays: list[Any]) -> str:
    """Of the parameters."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
        values = np.ascontiguousarray(np.asarray(plain))
        digest.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()[:_DIGITS]


def code_hash(function: Any) -> str:
    """Of the code of a function that is none of ours, with what it captured and the plain globals that it reads."""
    return hashlib.sha256(_text(function, ()).encode()).hexdigest()[:_DIGITS]


def _text(value: Any, around: tuple[int, ...]) -> str:
    """What a value is, as text that is the same in every process."""
    if id(value) in around:  # a function that captures itself
        return "itself"
    around = (*around, id(value))

    def each(values: Iterable[Any]) -> list[str]:
        return [_text(inner, around) for inner in values]

    match value:
        case Weak():
            return "an object"
        case Watched() as seen:
            return _text(seen.function, around)
        case CodeType() as code:
            return f"{code.co_code!r}{code.co_names}{each(code.co_consts)}"
        case MethodType() as method:
            return str(each((method.__func__, method.__self__)))
        case partial() as bound:
            return str(each((bound.func, bound.args, bound.keywords)))
        case FunctionType() as function:
            return str(each((function.__code__, captured_by(function), read_by(function))))
        case jax.Array() | np.ndarray() | np.generic():
            return array_hash([np.asarray(value)])
        case tuple() | list():
            return str(each(value))
        case set() | frozenset():  # in the order of their texts: their own is another one in every process
            return str(sorted(each(value)))
        case dict():
            return str(sorted(each(value.items())))
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case _:
            if (wrapped := getattr(value, "__wrapped__", None)) is not None:  # a jitted function
                return _text(wrapped, around)
            own = each([vars(value)]) if hasattr(value, "__dict__") else []
            return re.sub(r" at 0x[0-9a-f]+", "", repr(value)) + str(own)


def program_hash(function: Callable[..., Any], *arguments: Any) -> str:
    """Of what a function computes for such arguments, constants and rules of derivatives included.

    It is the same in every process. Not seen: what callbacks read.
    """
    return hashlib.sha256(_text(fingerprint(function, *arguments), ()).encode()).hexdigest()[:_DIGITS]

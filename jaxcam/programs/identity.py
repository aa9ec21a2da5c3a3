"""Identities: what a value is for a table of programs, without keeping it alive.

A function is its code and what it brings along, so that a lambda which is made anew on every call is the same; arrays
and other objects are known as themselves, by a weak reference: two of them are equal while both are there.
"""

from __future__ import annotations

import enum
import types
import weakref
from collections.abc import Hashable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

__all__ = ["Weak", "captured_by", "identity", "read_by", "reads_nothing", "weak_parts"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, enum.Enum, type, np.dtype, types.CodeType)
_VALUES = (*_PLAIN, types.BuiltinFunctionType, types.ModuleType, type(Ellipsis), type(jax.tree.structure(0)))


class Weak:
    """Equal to another one of the same object, or of an equal one, while both are there; then to itself only."""

    def __init__(self, value: Any) -> None:
        """Holds the object alive only where there is no other way."""
        try:
            self._hash = hash(value)
        except TypeError:
            self._hash = id(value)
            self._same = True
        else:
            self._same = False
        try:
            self._get: Any = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    @property
    def is_dead(self) -> bool:
        """Whether the object is gone."""
        return self._get() is None

    def __eq__(self, other: object) -> bool:
        """Whether both objects are there and the same."""
        if self is other:
            return True
        if not isinstance(other, Weak) or self._hash != other._hash:
            return False
        a, b = self._get(), other._get()
        return a is not None and (a is b or (not self._same and not other._same and bool(a == b)))

    def __hash__(self) -> int:
        """Of the object, as long as this is there."""
        return self._hash


def identity(value: Any, around: tuple[Any, ...] = ()) -> Hashable:
    """Equal for two values that are the same; see above.

    A function is its code, cells and defaults, and the numbers and texts that it reads of its module, each by the same
    rule; a bound method is its function and its object, a `partial` its function and arguments, a pytree its structure
    and leaves.
    """
    if isinstance(value, _VALUES):
        return type(value), value
    if any(value is outer for outer in around):  # a function that captures itself
        return None
    inside = partial(identity, around=(*around, value))
    match value:
        case types.MethodType():
            return inside(value.__func__), inside(value.__self__)
        case partial():
            return inside((value.func, value.args, value.keywords))
        case types.FunctionType():
            return value.__code__, inside((captured_by(value), read_by(value)))
        case jax.Array() | np.ndarray():
            return Weak(value)
        case _:
            pass
    leaves, structure = jax.tree.flatten(value)
    if len(leaves) != 1 or leaves[0] is not value:
        return structure, tuple(map(inside, leaves))
    return Weak(value)


def captured_by(function: types.FunctionType) -> tuple[list[Any], Any, Any]:
    """What a function brings along besides its code: what it closes over, its defaults, and its keyword defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    return cells, function.__defaults__, function.__kwdefaults__


def reads_nothing(function: Any) -> bool:
    """Whether nothing that can change is read by a function: it captured nothing, and of globals it names libraries."""
    if not isinstance(function, types.FunctionType) or function.__closure__ or function.__kwdefaults__:
        return False
    found = (function.__globals__.get(name) for name in _names(function.__code__))
    return not function.__defaults__ and all(map(_is_library, found))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def _is_library(value: Any) -> bool:
    name = value.__name__ if isinstance(value, types.ModuleType) else ""
    return value is None or name.split(".")[0] in ("jax", "numpy", "math")


def weak_parts(key: Any) -> Iterator[Weak]:
    """The weak references in an identity."""
    if isinstance(key, Weak):
        yield key
    elif isinstance(key, tuple):
        for part in key:
            yield from weak_parts(part)


def read_by(function: types.FunctionType) -> dict[str, Any]:
    """The plain values that a function reads of its module or notebook."""
    found = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False

"""Compiled programs, found again by what they compute, holding nothing of the user's.

`jax.jit` keeps a program for what is static about a call: for function objects, and for ever. Research code makes new
functions on every call, changes what they read, and makes new models. So a program is looked up here

- by all that is static and a value: structures of models, shapes, options, and `identity` of the functions in them;
- by the `fingerprint`s of the user's functions that it was traced with, as they are now (see `watched`),

and there are 64 of them at most. An object that a program was made for may go: its program goes when the next enters.

    explain(lambda x: model(x), images, score=s)    # for the second time, both functions new objects

`Adapted.hoist` has made a program of the lambda, whose equations are its key; `bind` has made a `Watched` of s, which
the key knows only as "a function". Of the programs under that key it is the first for which s, traced with what it was
called with then, has the fingerprint that it had.

**What is not seen**, as `jax.jit` does not see it: what a model that is a pytree (nnx.Module, equinox.Module) reads
besides its own arrays and attributes, such as a global variable or the state of a host; what a function that the user
has jitted reads besides its arguments; what a callback computes; and what a method `(model, image, class_idx)` reads of
objects that it captured. The way round it is an argument, an attribute of the model, or a function instead of the model
(`lambda x: model(x)` is traced on every call).
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jaxcam.programs.closures import Hoisted
from jaxcam.programs.identity import identity, weak_parts
from jaxcam.programs.watched import Call, Watched, calls

__all__ = ["Programs", "key_of"]

_MANY = 64


class Programs:
    """The compiled programs of one function `(static, *operands) -> results`, operands and results pytrees of arrays.

    What is static is a tuple, of values, of functions and of such tuples and dataclasses.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """No program yet."""
        self._function = function
        self._known: OrderedDict[Hashable, list[_Program]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, static: tuple[Any, ...], *operands: Any) -> Any:
        """The function's results."""
        leaves, structure = jax.tree.flatten(operands)
        functions: list[Watched] = []
        like = tuple((getattr(leaf, "shape", ()), getattr(leaf, "dtype", None)) for leaf in leaves)
        key = (_key(static, functions), structure, like)
        with self._lock:
            programs = list(self._known.get(key, ()))
        for program in programs:
            if program.holds(functions):
                with self._lock:
                    if key in self._known:
                        self._known.move_to_end(key)
                return program(static, structure, leaves)
        program = _Program(self._function)
        with calls() as seen:
            results = program(static, structure, leaves)
        if program.keep(functions, seen):
            with self._lock:
                self._enter(key, program)
        return results

    def _cache_size(self) -> int:
        """How many times something was compiled that is kept, as JAX counts it for a jitted function."""
        return sum(program.num_compiled for programs in self._known.values() for program in programs)

    def clear_cache(self) -> None:
        """Forgets all programs."""
        with self._lock:
            self._known.clear()

    def _enter(self, key: Hashable, program: _Program) -> None:
        self._known.setdefault(key, []).append(program)
        for old in [old for old in self._known if any(part.is_dead for part in weak_parts(old))]:
            del self._known[old]
        while sum(map(len, self._known.values())) > _MANY:
            oldest = next(iter(self._known))
            self._known[oldest].pop(0)
            if not self._known[oldest]:
                del self._known[oldest]


class _Program:
    """A compiled program, and what the user's functions in it were."""

    def __init__(self, function: Callable[..., Any]) -> None:
        now = self._now = threading.local()  # what is static is there while it is called, and not kept

        def traced(leaves: list[Any]) -> Any:
            static, structure = now.static
            return function(static, *jax.tree.unflatten(structure, leaves))

        self._run = jax.jit(traced)
        self._seen: list[tuple[int, Call, Hashable]] = []

    def __call__(self, static: Any, structure: Any, leaves: list[Any]) -> Any:
        self._now.static = static, structure
        try:
            return self._run(leaves)
        finally:
            del self._now.static

    @property
    def num_compiled(self) -> int:
        """More than once where operands lie on other devices."""
        counted: Any = self._run
        return counted._cache_size()

    def keep(self, functions: list[Watched], seen: list[tuple[Watched, Call]]) -> bool:
        """Notes what the functions are; whether that can be known."""
        places = {id(function): place for place, function in enumerate(functions)}
        asked: dict[Any, None] = {}
        for function, call in seen:
            if (place := places.get(id(function))) is not None:
                asked[place, call] = None
        try:
            self._seen = [(place, call, call.fingerprint(functions[place].function)) for place, call in asked]
        except Exception:  # whatever a user's function raises, and what captured a traced value
            return False
        return True

    def holds(self, functions: list[Watched]) -> bool:
        """Whether the functions are now what they were."""
        try:
            return all(call.fingerprint(functions[place].function) == was for place, call, was in self._seen)
        except Exception:  # as above
            return False


def key_of(static: Any) -> Hashable:
    """What is static about something, without its functions that are watched; keeps none of it alive."""
    return _key(static, [])


def _key(value: Any, functions: list[Watched]) -> Hashable:
    """What is equal for the same program; the functions that are watched are told apart elsewhere."""
    if isinstance(value, Watched):
        functions.append(value)
        return Watched
    if isinstance(value, Hoisted):
        return value.key
    if isinstance(value, tuple):
        if all(isinstance(each, str | type) for each in value):  # names of classes, leaves of a model: there are many
            return value
        return type(value), *(_key(each, functions) for each in value)
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("jaxcam."):
        fields = (getattr(value, field.name) for field in dataclasses.fields(value))
        return type(value), *(_key(each, functions) for each in fields)
    return identity(value)

"""When two functions are the same program: what compiled functions are found again by.

`jax.jit` keeps one program for each function object. Research code makes a new one on every call,

    explain(lambda x: model(x), images)

and would compile on every call; and what the lambda closes over would be compiled in as it was at first. So a function
is traced on every call, which is cheap, and what is compiled belongs to the trace and not to the function object:

- the arrays that it captured become arguments: they may be others the next time (`hoist`);
- the rest of it is `Hoisted`, which is equal to another one if the code is the same, everything else that it captured
  is the same, and the equations that came out are the same, letter by letter.

Why not the equations alone? They show the rule of a custom derivative by its name only. Why not the code alone? It may
read something that changes, `if config.deep: ...`, which only the equations show. In the example: each lambda has the
same code and captures the same `model`; were that another one, of another depth, the equations would differ; were it
the same with new parameters, these are arguments.

Not seen: what a custom derivative's rule reads when it is traced (a global variable, say), and what a callback does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from jaxcam.programs.program import called, inner_programs, kept_constants, straight_line

__all__ = ["Hoisted", "Same", "captured_by", "hoist"]


class Hoisted:
    """The equations of a function of arrays, nothing captured in them. Hashable; see above for when two are equal."""

    def __init__(self, function: Callable[..., Any], jaxpr: Jaxpr, structure: Any, beside: Any) -> None:
        """The program `jaxpr` of a function, whose results have this structure, and what must be the same `beside`."""
        self.closed = ClosedJaxpr(jaxpr, [])
        self._structure = structure
        # The scopes are printed too: they are names of layers. Constants of a jitted function inside are no arguments.
        text = jaxpr.pretty_print(name_stack=True, use_color=False)
        self._key = (_key(function), text, structure, beside, *map(_Object, kept_constants(jaxpr)))

    def __call__(self, *arrays: Any) -> Any:
        """The results for these arrays, those that were captured first."""
        return jax.tree.unflatten(self._structure, jaxpr_as_fun(self.closed)(*arrays))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same program."""
        return isinstance(other, Hoisted) and self._key == other._key

    def __hash__(self) -> int:
        """Of what makes it equal."""
        return hash(self._key)


class Same:
    """A function that is equal to another one of the same code which captured the same, arrays by identity."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wraps a function that is not traced by itself, but as a part of something that is."""
        self.function = function
        self._key = _key(function, arrays_count=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """Whether it does the same."""
        return isinstance(other, Same) and self._key == other._key

    def __hash__(self) -> int:
        """Of what makes it equal."""
        return hash(self._key)


def hoist(
    function: Callable[..., Any], arguments: Sequence[Any], *, code_of: Any = None, beside: Any = None
) -> tuple[Hoisted, list[Any]]:
    """The program of a function of flat arrays, and the captured arrays: `function(*a) = program(*captured, *a)`.

    Args:
        function: what is traced.
        arguments: arrays or `jax.ShapeDtypeStruct`s.
        code_of: the user's own function in it, by whose code programs are told apart.
        beside: anything hashable by which they are told apart as well.
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
    # A jitted function inside keeps what it captured to itself: such calls are written out.
    opened = straight_line(closed, opened=lambda eqn, place: called(eqn) if _keeps_constants(eqn) else None)
    captured = list(opened.constants)
    jaxpr = closed.jaxpr.replace(
        constvars=[], invars=[*captured, *opened.arguments], eqns=opened.equations, outvars=list(opened.outputs)
    )
    program = Hoisted(function if code_of is None else code_of, jaxpr, jax.tree.structure(out), beside)
    return program, list(opened.constants.values())


def _keeps_constants(eqn: JaxprEqn) -> bool:
    return called(eqn) is not None and any(
        inner.consts or any(_keeps_constants(e) for e in inner.jaxpr.eqns) for inner in inner_programs(eqn)
    )


class _Object:
    """Equal to the same object only; the object lives as long, so that no other one can take its place in memory."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _key(value: Any, around: tuple[Any, ...] = (), *, arrays_count: bool = False) -> Any:
    """What is equal for two functions of the same code that captured the same; arrays only if they count.

    A function is its code and what it captured: (code, [cells, defaults]), each of these by the same rule; a bound
    method is its function and its object, a `partial` its function and arguments, a pytree its structure and leaves.
    """
    if any(value is outer for outer in around):  # a function that captures itself
        return None
    inside = partial(_key, around=(*around, value), arrays_count=arrays_count)
    if isinstance(value, MethodType):
        return inside(value.__func__), inside(value.__self__)
    if isinstance(value, partial):
        return inside((value.func, value.args, value.keywords))
    if isinstance(value, FunctionType):
        return value.__code__, inside(captured_by(value))
    leaves, structure = jax.tree.flatten(value)
    if len(leaves) != 1 or leaves[0] is not value:
        return _hashable(structure), tuple(inside(leaf) for leaf in leaves)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _Object(value) if arrays_count else jax.Array
    return _hashable(value)


def captured_by(function: FunctionType) -> tuple[list[Any], Any, Any]:
    """What a function brings along besides its code: what it closes over, its defaults, and its keyword defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    return cells, function.__defaults__, function.__kwdefaults__


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _Object(value)
    return value


def _is_empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False

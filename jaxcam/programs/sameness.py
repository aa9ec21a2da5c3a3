"""Sameness: the fingerprint of a function, as a value that is equal for functions which compute the same now.

Two functions of the same code may differ: in what they captured, in a global variable, in an attribute of an object
that they read. A function that is traced shows all of it. Its fingerprint is

- its equations, letter by letter, with the names of the scopes, which are names of layers;
- its constants, by their values: an array may be changed in place;
- the rules of the custom derivatives in it, traced as well: the equations show them by their names only. Those of
  libraries read nothing that changes, and are known by their names;
- the functions that it calls back to on the host, by `identity`, which is all that can be known of them.

A fingerprint holds no array and no object of the user's alive. What it cannot see is in `jaxcam.programs.compiled`.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var, jaxpr_as_fun

from jaxcam.programs.identity import identity
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import inner_programs, kept_constants, moves, rule

__all__ = ["fingerprint", "of_program"]

_LIBRARIES = ("jax", "jaxlib", "flax", "equinox", "keras", "haiku", "optax", "jaxcam")
_DEEPEST = 3
"""Derivatives of higher order than the third are never taken."""


def fingerprint(function: Callable[..., Any], *arguments: Any) -> Hashable:
    """Of a function for such arguments, arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        ValueError: it captured a traced value, of which nothing is known.
    """
    # A new function object on every call: JAX would find the trace of the old one again.
    closed, out = jax.make_jaxpr(lambda *xs: function(*xs), return_shape=True)(*arguments)
    return jax.tree.structure(out), of_program(closed.jaxpr), tuple(map(_constant, closed.consts))


def of_program(program: Jaxpr, depth: int = 0) -> Hashable:
    """Of a program, but for the constants that are its variables."""
    text = program.pretty_print(name_stack=True, use_color=False)
    kept = tuple(map(_constant, kept_constants(program)))
    return hashlib.sha256(text.encode()).digest(), kept, tuple(_beside(program, depth))


def _beside(program: Jaxpr, depth: int) -> Iterator[Hashable]:
    """What the equations show by its name only."""
    for eqn in program.eqns:
        if about(eqn).runs is Runs.CUSTOM:
            if depth < _DEEPEST and not _is_of_library(eqn):
                yield _of_rule(eqn, depth)
        elif (callback := eqn.params.get("callback")) is not None:
            yield identity(getattr(callback, "callback_func", callback))
        for inner in inner_programs(eqn):
            yield from _beside(inner.jaxpr, depth)


def _of_rule(eqn: JaxprEqn, depth: int) -> Hashable:
    """Of the derivative of an equation, by the rule as it is now."""
    operands = [Var(atom.aval) for atom in eqn.invars]
    results = [Var(var.aval) for var in eqn.outvars]
    alone = eqn.replace(invars=[*operands], outvars=results)
    # The first ones are what it closed over, by which it has no derivative.
    places = [i for i, var in enumerate(operands) if i >= eqn.params.get("num_consts", 0) and moves(var)]
    outputs = [var for var in results if moves(var)]
    run = jaxpr_as_fun(ClosedJaxpr(Jaxpr([], operands, outputs, [alone], debug_info=_NOWHERE), []))

    def backwards(values: list[Any], cotangents: list[Any]) -> Any:
        def moved(*moving: Any) -> list[Any]:
            return run(*(dict(enumerate(values)) | dict(zip(places, moving, strict=True))).values())

        return jax.vjp(moved, *(values[place] for place in places))[1](cotangents)

    try:
        closed = jax.make_jaxpr(backwards)([var.aval for var in operands], [var.aval for var in outputs])
    except Exception:  # whatever a user's rule raises; one has no transpose, another none of its derivatives
        try:
            closed = rule(eqn, places).tangents
        except Exception:
            return tuple(map(identity, _functions(_rules_of(eqn), set())))
    return of_program(closed.jaxpr, depth + 1), tuple(map(_constant, closed.consts))


_NOWHERE = jax.make_jaxpr(lambda: 0)().jaxpr.debug_info._replace(arg_names=(), result_paths=())


def _is_of_library(eqn: JaxprEqn) -> bool:
    """Whether all functions that a custom derivative is made of stand in libraries."""
    found = list(_functions(_rules_of(eqn), set()))
    return bool(found) and all(function.__module__.split(".")[0] in _LIBRARIES for function in found)


def _rules_of(eqn: JaxprEqn) -> list[Any]:
    return [value for name, value in eqn.params.items() if name in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd")]


def _functions(value: Any, seen: set[int]) -> Iterator[types.FunctionType]:
    """The functions that a function of JAX's wraps, in whatever way it does."""
    if id(value) in seen:
        return
    seen.add(id(value))
    inside = partial(_functions, seen=seen)
    if isinstance(value, types.FunctionType):
        yield value
        for cell in value.__closure__ or ():
            yield from inside(_contents(cell))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from inside(each)
    elif hasattr(value, "f") and hasattr(value, "transforms"):
        yield from inside((value.f, value.transforms, value.params))
    elif isinstance(value, partial):
        yield from inside((value.func, *value.args))
    elif isinstance(value, types.MethodType):
        yield from inside(value.__func__)


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _constant(value: Any) -> Hashable:
    """A constant by its value."""
    if isinstance(value, Tracer):
        raise ValueError("nothing is known of a traced value")  # noqa: TRY004
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        return identity(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return str(value.dtype), _constant(jax.random.key_data(jnp.asarray(value)))
    plain = np.asarray(value)
    digest = hashlib.sha256(np.ascontiguousarray(plain).tobytes()).digest()
    return str(plain.dtype), plain.shape, digest

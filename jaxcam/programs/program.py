"""Programs: the jaxpr of a function as a list of equations that can be read, cut, and run piece by piece.

A jaxpr nests: jitted and rematerialised calls hide what is inside them. `straight_line` writes them out into
one list, in which `needed` finds the equations between two sets of values and `Stage` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, DebugInfo, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from jaxcam.programs.primitives import Facts, Runs, about

__all__ = [
    "Atom",
    "Opened",
    "Place",
    "Program",
    "Rule",
    "Stage",
    "called",
    "closed",
    "dtype",
    "holds",
    "inner_programs",
    "is_elementwise",
    "moves",
    "needed",
    "num_bytes",
    "rule",
    "runs",
    "shape",
    "size",
    "straight_line",
]

Atom: TypeAlias = Var | Literal
Place: TypeAlias = tuple[int, ...]
Opened: TypeAlias = Callable[[JaxprEqn, Place], ClosedJaxpr | None]


@dataclass(frozen=True)
class Stage:
    """A piece of a program, as a function of some of its values while the others are known."""

    inputs: tuple[Var, ...]
    outputs: tuple[Atom, ...]
    equations: list[JaxprEqn]

    def __call__(self, known: Mapping[Var, Any], *values: Any) -> tuple[tuple[Any, ...], list[Any]]:
        """The outputs at these values of the inputs, and beside them the values of all that is `defined`."""
        known = {**known, **dict(zip(self.inputs, values, strict=True))}
        used = self.used
        start = [var for var in known if var in used]
        run = _function(start, [*self.outputs, *self.defined], self.equations)
        results = run(*(known[var] for var in start))
        return tuple(results[: len(self.outputs)]), list(results[len(self.outputs) :])

    def scalar(self, known: Mapping[Var, Any], *values: Any) -> Any:
        """The one output of a stage that ends in a scalar."""
        return self(known, *values)[0][0]

    def vjp(self, known: Mapping[Var, Any], *values: Any) -> tuple[tuple[Any, ...], Callable[..., Any], dict[Var, Any]]:
        """The outputs, what takes cotangents of theirs back to the inputs, and all that is known afterwards."""
        outputs, pull, made = jax.vjp(partial(self, known), *values, has_aux=True)
        after = dict(zip((*self.inputs, *self.defined), (*values, *made), strict=True))
        return outputs, pull, {**known, **after}

    @property
    def used(self) -> set[Var]:
        """All variables that have to be known, its inputs among them."""
        atoms = [*self.outputs, *(atom for eqn in self.equations for atom in eqn.invars)]
        return {atom for atom in atoms if isinstance(atom, Var)}.difference(self.defined)

    @property
    def defined(self) -> list[Var]:
        """All variables that this stage gives a value."""
        return [var for eqn in self.equations for var in eqn.outvars]


@dataclass(frozen=True)
class Program:
    """A function without nested calls: the equations from its arguments to its outputs, in order."""

    arguments: tuple[Var, ...]
    outputs: tuple[Atom, ...]
    equations: list[JaxprEqn]
    constants: dict[Var, Any]
    """What the function closes over. The values may be tracers."""
    places: dict[Var, Place]
    """Where each value is made: the position of the equation, within each call that was written out, and its number
    among the results. The same whichever calls around other values are written out."""

    def stage(self, inputs: tuple[Var, ...], outputs: tuple[Atom, ...], known: Container[Var]) -> Stage:
        """The piece between these values where all that is `known` besides is there already."""
        return Stage(inputs, outputs, needed(self.equations, outputs, known))


def straight_line(program: ClosedJaxpr, *, opened: Opened | None = None, pruned: bool = True) -> Program:
    """The program of a jaxpr, with the calls in it written out and, if `pruned`, only what its outputs need.

    Which calls are written out is what `opened` decides, given the equation and its place: all that are only calls
    unless it is given. The scopes (`jax.named_scope`) around a call are those of the equations in it as well. A reshape
    that takes the axes in another order, as `order="F"` does, is written as a transpose and one that does not.
    """
    opened = opened or (lambda eqn, place: called(eqn))
    equations: list[JaxprEqn] = []
    constants: dict[Var, Any] = {}
    places: dict[Var, Place] = {}

    def inline(program: ClosedJaxpr, operands: Iterable[Atom], around: Any, path: Place) -> list[Atom]:
        # Each call gets variables of its own: JAX uses one jaxpr for several calls of the same function.
        names: dict[Var, Atom] = dict(zip(program.jaxpr.invars, operands, strict=True))
        for var, value in zip(program.jaxpr.constvars, program.consts, strict=True):
            names[var] = constant = Var(var.aval)
            constants[constant] = value
        for position, eqn in enumerate(program.jaxpr.eqns):
            invars = [atom if isinstance(atom, Literal) else names[atom] for atom in eqn.invars]
            place, source = (*path, position), eqn.source_info
            scopes = source.name_stack if around is None else around + source.name_stack
            if (callee := opened(eqn, place) or _in_order(eqn)) is not None:
                results = inline(callee, invars, scopes, place)
            else:
                outvars = [Var(var.aval) for var in eqn.outvars]
                source = source if around is None else source.replace(name_stack=scopes)
                equations.append(eqn.replace(invars=invars, outvars=outvars, source_info=source))
                places.update((var, (*place, i)) for i, var in enumerate(outvars))
                results = outvars
            names.update(zip(eqn.outvars, results, strict=True))
        return [atom if isinstance(atom, Literal) else names[atom] for atom in program.jaxpr.outvars]

    arguments = tuple(Var(var.aval) for var in program.jaxpr.invars)
    outputs = tuple(inline(program, arguments, None, ()))
    kept = needed(equations, outputs, {*arguments, *constants}) if pruned else equations
    return Program(arguments, outputs, kept, constants, places)


def _in_order(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """What a reshape that takes the axes in another order does, in two steps."""
    if eqn.primitive is not lax.reshape_p or eqn.params["dimensions"] is None:
        return None
    order, params = eqn.params["dimensions"], {**eqn.params, "dimensions": None}
    return jax.make_jaxpr(lambda x: lax.reshape_p.bind(lax.transpose(x, order), **params))(eqn.invars[0].aval)


def needed(equations: Sequence[JaxprEqn], targets: Iterable[Atom], known: Container[Var]) -> list[JaxprEqn]:
    """The equations, in order, that lead from the `known` values to the `targets`."""
    wanted = {atom for atom in targets if isinstance(atom, Var) and atom not in known}
    kept: list[JaxprEqn] = []
    for eqn in reversed(equations):
        if not wanted.isdisjoint(eqn.outvars):
            kept.append(eqn)
            wanted.update(atom for atom in eqn.invars if isinstance(atom, Var) and atom not in known)
    return kept[::-1]


def runs(equations: Iterable[JaxprEqn], test: Callable[[Facts], bool]) -> bool:
    """Whether a primitive of which this is true is among the equations or inside one of them."""
    return any(
        test(about(eqn)) or any(runs(inner.jaxpr.eqns, test) for inner in inner_programs(eqn)) for eqn in equations
    )


def inner_programs(eqn: JaxprEqn) -> Iterator[ClosedJaxpr]:
    """The programs that an equation holds: of a call, of a loop's body, of branches."""
    yield from map(closed, _programs(eqn.params.values()))


def kept_constants(program: Jaxpr) -> Iterator[Any]:
    """What the programs inside of a program keep as constants."""
    for eqn in program.eqns:
        for inner in inner_programs(eqn):
            yield from inner.consts
            yield from kept_constants(inner.jaxpr)


def _programs(parameters: Iterable[Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for parameter in parameters:
        if isinstance(parameter, ClosedJaxpr | Jaxpr):
            yield parameter
        elif isinstance(parameter, tuple | list):
            yield from _programs(parameter)


def called(eqn: JaxprEqn, *, custom: bool = False) -> ClosedJaxpr | None:
    """The program that `eqn` runs on its operands, if that is all it does.

    `custom` is for those with a derivative of their own as well.
    """
    facts = about(eqn)
    if facts.runs in (Runs.CALL, Runs.REMAT) or (custom and facts.runs is Runs.CUSTOM):
        return closed(eqn.params[facts.under[0]])
    return None


def is_elementwise(eqn: JaxprEqn) -> bool:
    """Whether it does what an activation does: element i of the results depends on element i of the operands only.

    Calls are looked into: jit(x * sigmoid(x)) is elementwise, jit(x / x.sum()) is not.
    """
    if (inner := called(eqn, custom=True)) is None:
        return about(eqn).activation
    return all(is_elementwise(inside) for inside in inner.jaxpr.eqns)


def closed(program: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """The program with its constants: primitives keep it with them or without."""
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, [])


def shape(atom: Atom) -> tuple[int, ...]:
    """The shape of the value."""
    aval: Any = atom.aval
    return tuple(aval.shape)


def dtype(atom: Atom) -> Any:
    """The type of the numbers in the value."""
    aval: Any = atom.aval
    return aval.dtype


def size(atom: Atom) -> int:
    """The number of elements of the value."""
    return math.prod(shape(atom))


def num_bytes(atom: Atom) -> int:
    """The memory of the value; what is not an array of numbers counts nothing."""
    aval: Any = atom.aval
    return size(atom) * aval.dtype.itemsize if holds(atom, jnp.number) else 0


def holds(atom: Atom, kind: Any) -> bool:
    """Whether the value is an array of this kind of numbers."""
    dtype: Any = getattr(atom.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, kind)


def moves(atom: Atom) -> bool:
    """Whether the value can move continuously: integers, booleans and keys cannot."""
    return holds(atom, jnp.inexact)


class Rule(NamedTuple):
    """The derivative of one equation as JAX takes it: two programs from the operands, followed by tangents of theirs.

    They lead to the results that can move, and to the tangents of these.
    """

    results: ClosedJaxpr
    """As the rule computes them. Derivatives above the first are taken of these, not of what the equation runs."""
    tangents: ClosedJaxpr


def rule(eqn: JaxprEqn, moving: Sequence[int]) -> Rule:
    """The derivative of one equation by its operands at the places `moving`."""
    invars, outvars = [Var(atom.aval) for atom in eqn.invars], [Var(var.aval) for var in eqn.outvars]
    alone = eqn.replace(invars=[*invars], outvars=outvars)
    function = _function(invars, [var for var in outvars if moves(var)], [alone])

    def both(primals: list[Any], directions: list[Any]) -> tuple[list[Any], list[Any]]:
        def moved(*values: Any) -> list[Any]:
            return function(*(dict(enumerate(primals)) | dict(zip(moving, values, strict=True))).values())

        return jax.jvp(moved, [primals[place] for place in moving], directions)

    primals: list[Any] = [var.aval for var in invars]
    program = jax.make_jaxpr(both)(primals, [primals[place] for place in moving])
    outputs = program.jaxpr.outvars
    halves = outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :]
    return Rule(*(ClosedJaxpr(program.jaxpr.replace(outvars=half), program.consts) for half in halves))


def _function(
    inputs: Sequence[Var], outputs: Sequence[Atom], equations: Sequence[JaxprEqn]
) -> Callable[..., list[Any]]:
    where = DebugInfo("jaxcam", "part of a function", None, None)
    return jaxpr_as_fun(ClosedJaxpr(Jaxpr([], inputs, outputs, equations, debug_info=where), []))

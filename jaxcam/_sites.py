"""Sites: the values in a program that can be a layer, and what JAX recorded about them.

A value has a name where the model tagged it (`jax.ad_checkpoint.checkpoint_name`), or where it is what comes out of a
named scope (`jax.named_scope`; Linen and Keras open one for every layer). Convolutions have a position besides. Calls
are written out for the search, so that what is inside jit, remat and custom derivatives is found as well; what is in a
loop or a branch is not one value, and is only listed as `hidden`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from jaxcam._elementwise import ELEMENTWISE, is_elementwise, program_of_call
from jaxcam._program import (
    CUSTOM,
    Atom,
    Place,
    Program,
    called,
    closed,
    holds,
    inner_programs,
    shape,
    size,
    straight_line,
)

__all__ = ["Analysis", "Site", "analysed", "is_open", "place_of_result"]

_REMATERIALISED = ("checkpoint", "remat2")
_AFFINE = frozenset({
    "add", "broadcast_in_dim", "convert_element_type", "copy", "div", "mul", "name", "neg", "reshape", "squeeze", "sub",
})  # fmt: skip
"""What keeps a convolution's output its own where the other operands do not depend on the images: bias, batch norm.
Not a transposition: the channels would be elsewhere."""


@dataclass(frozen=True)
class Site:
    """A value that can be a layer."""

    kind: str
    """"tag", "scope", "convolution" or "value"."""
    name: str | None
    position: int | None
    """Among the convolutions."""
    var: Var
    place: Place
    complete: bool
    """Whether all information from the images to the logits flows through it."""


@dataclass(frozen=True)
class Analysis:
    """What was found in a program from `(*arrays, images)` to logits."""

    program: Program
    sites: list[Site]
    """By name, in the order of the program."""
    values: list[Site]
    """All values through which everything flows."""
    hidden: dict[str, str]
    """Names inside loops and branches, and the primitive that holds them."""


def analysed(model: ClosedJaxpr) -> Analysis:
    """Looks for the sites in the program of a model."""
    program = straight_line(model, opened=lambda eqn, place: is_open(eqn, place, None))
    moving = _moving(program)
    complete = _complete(program, moving)

    def site(kind: str, name: str | None, var: Var, position: int | None = None) -> Site:
        return Site(kind, name, position, var, program.places[var], var in complete)

    def is_layer(var: Var) -> bool:
        return var in moving and holds(var, jnp.floating) and len(shape(var)) > 2

    tags = [(eqn.params["name"], eqn.outvars[0]) for eqn in program.equations if eqn.primitive.name == "name"]
    sites = [site("tag", name, var) for name, var in _numbered([(n, v) for n, v in tags if is_layer(v)])]
    scopes = [(name, var) for name, var in _scope_results(program) if is_layer(var)]
    sites += [site("scope", name, var) for name, var in _numbered(scopes)]
    convolutions = [var for var in _convolutions(program, moving) if is_layer(var)]
    sites += [site("convolution", None, var, i) for i, var in enumerate(convolutions)]
    order = {var: i for i, eqn in enumerate(program.equations) for var in eqn.outvars}
    sites.sort(key=lambda s: order[s.var])
    values = [site("value", None, var) for var in order if var in complete and is_layer(var)]
    return Analysis(program, sites, values, dict(_hidden(program.equations)))


def is_open(eqn: JaxprEqn, place: Place, on_the_way: Place | None) -> ClosedJaxpr | None:
    """The program to write out in the place of a call.

    Calls with an elementwise program stay whole: they are activations, and rules about them are easier to apply.
    Rematerialisation and custom derivatives are given up only where they are `on_the_way` to a value inside of them, or
    everywhere for None: the rule is about the whole call, and a part of it has none.
    """
    name = eqn.primitive.name
    if _is_elementwise(eqn):
        return None
    if name in CUSTOM or name in _REMATERIALISED:
        if on_the_way is not None and (on_the_way[: len(place)] != place or len(on_the_way) == len(place) + 1):
            return None
        return closed(eqn.params[CUSTOM[name]]) if name in CUSTOM else called(eqn)
    return called(eqn)


def place_of_result(model: Jaxpr, place: Place) -> Place:
    """The place of the same value as the result of the outermost call with a rule that returns it, if there is one."""
    here = model
    for depth in range(len(place) - 2):
        eqn = here.eqns[place[depth]]
        inside = _inside(eqn)
        is_result = eqn.primitive.name in CUSTOM or eqn.primitive.name in _REMATERIALISED
        if is_result and (result := _result(inside, place[depth + 1 :])) is not None:
            return (*place[: depth + 1], result)
        here = inside
    return place


def _result(program: Jaxpr, place: Place) -> int | None:
    """Which of a program's results the value at this place inside of it is."""
    eqn = program.eqns[place[0]]
    number = place[1] if len(place) == 2 else _result(_inside(eqn), place[1:])
    if number is None:
        return None
    return next((i for i, out in enumerate(program.outvars) if out is eqn.outvars[number]), None)


def _inside(eqn: JaxprEqn) -> Jaxpr:
    inner = program_of_call(eqn)
    assert inner is not None, "places lead through calls only"
    return inner


def _moving(program: Program) -> set[Var]:
    """All that depends on the images."""
    moving = {program.arguments[-1]}
    for eqn in program.equations:
        if not moving.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            moving.update(eqn.outvars)
    return moving


def _complete(program: Program, moving: set[Var]) -> set[Var]:
    """The values that every path from the images to the logits goes through.

    Such a value is, when it has just been made, the only one of those that depend on the images that is still needed.
    """
    end = len(program.equations)
    last_use: dict[Atom, int] = {}
    for i, eqn in enumerate(program.equations):
        last_use.update((atom, i) for atom in eqn.invars if isinstance(atom, Var) and atom in moving)
    last_use.update((out, end) for out in program.outputs if isinstance(out, Var))
    dying: dict[int, int] = {}
    for i in last_use.values():
        dying[i] = dying.get(i, 0) + 1
    complete: set[Var] = set()
    live = 1  # the images
    for i, eqn in enumerate(program.equations):
        live -= dying.get(i, 0)
        made = [var for var in eqn.outvars if var in moving and var in last_use]
        live += len(made)
        if live == 1 and len(made) == 1:
            complete.update(made)
    return complete


def _scope_results(program: Program) -> list[tuple[str, Var]]:
    """The names of all scopes with the value that comes out of each run through it."""
    paths = [_scopes(eqn) for eqn in program.equations]
    users: dict[Atom, list[int]] = {}
    for i, eqn in enumerate(program.equations):
        for atom in eqn.invars:
            if isinstance(atom, Var):
                users.setdefault(atom, []).append(i)
    for out in program.outputs:
        if isinstance(out, Var):
            users.setdefault(out, []).append(len(program.equations))
    found: list[tuple[str, Var]] = []
    for start, stop, path in _runs(paths):
        results = [
            var
            for eqn in program.equations[start:stop]
            for var in eqn.outvars
            if any(user >= stop for user in users.get(var, []))
        ]
        # The last of several: what a layer returns is made after what it hands out on the way.
        if results:
            found.append(("/".join(path), results[-1]))
    return found


def _runs(paths: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """First and last equation of each run through each scope, scopes around others after them."""
    open_: list[tuple[int, str]] = []
    for i, path in enumerate([*paths, ()]):
        common = 0
        while common < min(len(open_), len(path)) and open_[common][1] == path[common]:
            common += 1
        while len(open_) > common:
            names = tuple(name for _, name in open_)
            yield open_.pop()[0], i, names
        open_.extend((i, name) for name in path[common:])


def _scopes(eqn: JaxprEqn) -> tuple[str, ...]:
    # Transformations (vmap, jvp) stand among the scopes, and are no layers.
    stack: Any = eqn.source_info.name_stack
    return tuple(part.name for part in stack.stack if type(part).__name__ == "Scope")


def _numbered(named: Sequence[tuple[str, Var]]) -> list[tuple[str, Var]]:
    """Names that occur several times get `:0`, `:1` ... in their order."""
    names = [name for name, _ in named]
    seen: dict[str, int] = {}
    numbered: list[tuple[str, Var]] = []
    for name, var in named:
        i = seen[name] = seen.get(name, -1) + 1
        numbered.append((name if names.count(name) == 1 else f"{name}:{i}", var))
    return numbered


def _convolutions(program: Program, moving: set[Var]) -> Iterator[Var]:
    """Each convolution's output, with bias and batch norm, and after its activation where that follows directly."""
    users: dict[Var, list[JaxprEqn]] = {}
    for eqn in program.equations:
        for atom in {atom for atom in eqn.invars if isinstance(atom, Var)}:
            users.setdefault(atom, []).append(eqn)
    for eqn in program.equations:
        if eqn.primitive.name == "conv_general_dilated" and eqn.outvars[0] in moving:
            yield _followed(eqn.outvars[0], users, moving, set(program.outputs))


def _followed(start: Var, users: Mapping[Var, list[JaxprEqn]], moving: set[Var], outputs: set[Atom]) -> Var:
    found = here = start
    while here not in outputs and len(users.get(here, [])) == 1:
        eqn = users[here][0]
        if [atom for atom in eqn.invars if isinstance(atom, Var) and atom in moving] != [here]:
            break
        is_affine = eqn.primitive.name in _AFFINE and size(eqn.outvars[0]) == size(here)
        if not is_affine and not (_is_elementwise(eqn) and shape(eqn.outvars[0]) == shape(here)):
            break
        if not holds(eqn.outvars[0], jnp.floating):
            break
        here = eqn.outvars[0]
        if shape(here) == shape(start):
            found = here
        if not is_affine:
            break
    return found


def _is_elementwise(eqn: JaxprEqn) -> bool:
    """Whether it is an elementwise primitive that bends, or a call that only runs elementwise primitives."""
    inner = program_of_call(eqn)
    if inner is None:
        return eqn.primitive.name in ELEMENTWISE - _AFFINE
    return is_elementwise(eqn) and not any(True for _ in _hidden(inner.eqns, "call"))


def _hidden(equations: Sequence[JaxprEqn], holder: str | None = None) -> Iterator[tuple[str, str]]:
    for eqn in equations:
        if holder is not None:
            if eqn.primitive.name == "name":
                yield eqn.params["name"], holder
            if scopes := _scopes(eqn):
                yield "/".join(scopes), holder
        for inner in inner_programs(eqn):
            yield from _hidden(inner.jaxpr.eqns, holder or eqn.primitive.name)

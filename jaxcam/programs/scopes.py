"""Scopes (`jax.named_scope`) in a program: which values come out of them, and which names loops and branches hide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Var
from jax.extend.core.primitives import name_p

from jaxcam.programs.program import Atom, Program, inner_programs

__all__ = ["hidden", "numbered", "scope_results", "scopes", "unscoped"]


def scope_results(program: Program) -> list[tuple[str, Var]]:
    """The names of all scopes with the value that comes out of each run through it."""
    paths = [scopes(eqn) for eqn in program.equations]
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


def scopes(eqn: JaxprEqn) -> tuple[str, ...]:
    """The names of the scopes around an equation, the outermost first; of a round of a scan "blocks[11]".

    Rounds are written out by `jaxcam.programs.rounds`.
    """
    # Transformations (vmap, jvp) stand among the scopes, and are no layers.
    stack: Any = eqn.source_info.name_stack
    names: list[str] = []
    is_part = False
    for part in stack.stack:
        if type(part).__name__ != "Scope":
            continue
        if not part.name.startswith("["):
            names.append(part.name)
        elif is_part:  # a round of the rounds before another one: only the round is told
            names[-1] = names[-1].rpartition("[")[0] + part.name
        else:
            names.append((names.pop() if names else "scan") + part.name)
        is_part = part.name.startswith("[:")  # others stay as they are
    return tuple(names)


def unscoped(program: Jaxpr) -> Jaxpr:
    """The same without names of scopes, but for those inside of calls."""
    return program.replace(
        eqns=[
            eqn.replace(source_info=eqn.source_info.replace(name_stack=type(eqn.source_info.name_stack)()))
            for eqn in program.eqns
        ]
    )


def numbered(named: Sequence[tuple[str, Var]]) -> list[tuple[str, Var]]:
    """Names that occur several times get `:0`, `:1` ... in their order."""
    names = [name for name, _ in named]
    seen: dict[str, int] = {}
    numbered: list[tuple[str, Var]] = []
    for name, var in named:
        i = seen[name] = seen.get(name, -1) + 1
        numbered.append((name if names.count(name) == 1 else f"{name}:{i}", var))
    return numbered


def hidden(equations: Sequence[JaxprEqn], holder: str | None = None) -> Iterator[tuple[str, str]]:
    """Names inside of what holds them: a loop, a branch, or the `holder` of all."""
    for eqn in equations:
        if holder is not None:
            if eqn.primitive is name_p:
                yield eqn.params["name"], holder
            if around := scopes(eqn):
                yield "/".join(around), holder
        for inner in inner_programs(eqn):
            yield from hidden(inner.jaxpr.eqns, holder or eqn.primitive.name)

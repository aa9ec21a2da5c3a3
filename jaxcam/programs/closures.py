"""Functions of arrays with nothing captured in them: what compiled programs are found again by.

`jax.jit` keeps one program for each function object. Research code makes a new one on every call,

    explain(lambda x: model(x), images)

and would compile on every call; and what the lambda closes over would be compiled in as it was at first. So a function
is traced on every call, and what is compiled belongs to the trace and not to the function object:

- the arrays that it captured become arguments: they may be others the next time (`hoist`);
- the rest of it is `Hoisted`, which is known by the fingerprint of its equations.

In the example: were `model` another one, of another depth, the equations would differ; were it the same with new
parameters, these are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from jaxcam.programs.program import called, inner_programs, straight_line
from jaxcam.programs.sameness import of_program
from jaxcam.programs.specs import spec_of

__all__ = ["Hoisted", "hoist"]


class Hoisted:
    """The equations of a function of arrays, nothing captured in them. Hashable; equal if they compute the same."""

    def __init__(self, jaxpr: Jaxpr, structure: Any) -> None:
        """The program `jaxpr` of a function, whose results have this structure."""
        self.closed = ClosedJaxpr(jaxpr, [])
        self._structure = structure
        # The names of scopes count too: they are names of layers.
        self.key = (of_program(jaxpr), structure)

    def __call__(self, *arrays: Any) -> Any:
        """The results for these arrays, those that were captured first."""
        return jax.tree.unflatten(self._structure, jaxpr_as_fun(self.closed)(*arrays))

    @property
    def results(self) -> Any:
        """What the results are like."""
        return jax.tree.unflatten(self._structure, list(map(spec_of, self.closed.out_avals)))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same program."""
        return isinstance(other, Hoisted) and self.key == other.key

    def __hash__(self) -> int:
        """Of what makes it equal."""
        return hash(self.key)


def hoist(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Hoisted, list[Any]]:
    """The program of a function of flat arrays, and the captured arrays: `function(*a) = program(*captured, *a)`.

    Args:
        function: what is traced.
        arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    closed, out = jax.make_jaxpr(lambda *xs: function(*xs), return_shape=True)(*arguments)
    # A jitted function inside keeps what it captured to itself: such calls are written out.
    opened = straight_line(closed, opened=lambda eqn, place: called(eqn) if _keeps_constants(eqn) else None)
    captured = list(opened.constants)
    jaxpr = closed.jaxpr.replace(
        constvars=[], invars=[*captured, *opened.arguments], eqns=opened.equations, outvars=list(opened.outputs)
    )
    return Hoisted(jaxpr, jax.tree.structure(out)), list(opened.constants.values())


def _keeps_constants(eqn: JaxprEqn) -> bool:
    return called(eqn) is not None and any(
        inner.consts or any(_keeps_constants(e) for e in inner.jaxpr.eqns) for inner in inner_programs(eqn)
    )

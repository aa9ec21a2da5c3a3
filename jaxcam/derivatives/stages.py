"""A scalar function taken apart where that makes its higher derivatives cheap: f = outer ∘ inner ∘ fold.

- fold, from a to z, lets every element of a reach at most one element of z (see `folding`): pooling, ReLU.
- inner, from z to y, is piecewise linear, and ends where the values that the rest needs are narrowest: at one
  value for exp(logit), at the logits for softmax. They may be several arrays from different places of f.
- outer, from y to the scalar, is the rest: only there derivatives above the first are not zero.

The end of a VGG-16, for one:

    a [14,14,512] --max-pool--> z [7,7,512] --dense, relu, dense, relu, dense--> y [1000] --softmax, pick--> f []
                      fold                            inner                                    outer

Instead of 100,352 elements of a there are 25,088 of z to go through; 1,000 reverse passes give the Jacobian of inner;
and second and third derivatives are taken of a softmax of 1,000 numbers, along the 25,088 columns of it.

All this is read off the program, and nothing is computed. A value that is locally constant, such as the mask
of a `where`, has no derivatives to follow: it may cross from any stage to any later one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from jax.extend.core import JaxprEqn, Var

from jaxcam.derivatives.folding import marks
from jaxcam.derivatives.min_cut import narrowest_cut
from jaxcam.programs.linearity import (
    CONSTANT,
    PIECEWISE_CONSTANT,
    PIECEWISE_LINEAR,
    Dependence,
    dependence,
    dependences,
)
from jaxcam.programs.program import Program, Stage, size

__all__ = ["Factors", "factors"]


@dataclass(frozen=True)
class Factors:
    """The stages of a function. Each knows what those before it have defined."""

    constants: Stage
    """From nothing to the values that do not depend on the input."""
    fold: Stage
    """From a to z; without equations where nothing folds."""
    rest: Stage
    """From z to the scalar."""
    inner: Stage | None
    """From z to y; None where what follows z is not proven to be piecewise linear."""
    outer: Stage | None
    """From y to the scalar; None where there is no `inner`."""
    moving: list[JaxprEqn]
    """The equations of the whole function that derivatives go through."""
    obstacle: str | None
    """What z goes into that is not proven to be piecewise linear, if anything."""

    @property
    def width(self) -> int:
        """The number of values in y: the reverse passes that the Jacobian of `inner` takes."""
        return sum(size(out) for out in self.inner.outputs) if self.inner else 0


@dataclass(frozen=True)
class _Step:
    """An equation that derivatives go through, with those of its operands and results that carry them."""

    equation: JaxprEqn
    operands: set[Var]
    results: list[Var]


def factors(program: Program) -> Factors | None:
    """The stages of a program with one argument and one result; None if its derivatives are all zero."""
    (argument,), (output,) = program.arguments, program.outputs
    # 1. Which values move with the input, and which of them linearly.
    known = dependences(program.equations, {argument: PIECEWISE_LINEAR})
    if not isinstance(output, Var) or dependence(known, output) <= PIECEWISE_CONSTANT:
        return None
    steps = _steps(program.equations, known, output)
    # 2. Where the fold ends (z), and where the inner stage does (y, the frontier).
    folded = _folded(steps, marks(program.equations, known, {argument: argument}), argument, output)
    frontier = _frontier(steps, known, folded, output)

    # 3. The equations of each stage: those that lead to its end from what the stages before have defined.
    constant = [eqn for eqn in program.equations if all(known[var] == CONSTANT for var in eqn.outvars)]
    constants = Stage((), (), constant)
    defined = {argument, *program.constants, *constants.defined}
    fold = program.stage((argument,), (folded,), defined)
    defined |= {*fold.defined}
    rest, inner, outer = program.stage((folded,), (output,), defined), None, None
    if frontier:
        inner = program.stage((folded,), frontier, defined)
        defined |= {*inner.defined}
        # What carries derivatives beyond the frontier is computed there again, from the frontier, even if the inner
        # stage has made it on its way. In sum(sin(a - m)) sum(cos(m m)) with m = broadcast(mean(a)), the frontier is
        # a - m and mean(a): the inner stage makes m, but an outer stage that took m from it would take it as fixed.
        # Other values of earlier stages may cross: nothing but locally constant results asks for them.
        outer = program.stage(frontier, (output,), defined - _beyond(steps, frontier, output))
    bends = (
        step.equation.primitive.name
        for step in steps
        if folded in step.operands and any(known[var] > PIECEWISE_LINEAR for var in step.results)
    )
    moving = [step.equation for step in steps]
    return Factors(constants, fold, rest, inner, outer, moving, next(bends, None))


def _steps(equations: list[JaxprEqn], known: Mapping[Var, Dependence], output: Var) -> list[_Step]:
    """The equations that derivatives of the output go through: backwards from it, along all that moves."""
    wanted, steps = {output}, list[_Step]()
    for eqn in reversed(equations):
        if results := [var for var in eqn.outvars if var in wanted]:
            variables = [atom for atom in eqn.invars if isinstance(atom, Var)]
            operands = {var for var in variables if dependence(known, var) > PIECEWISE_CONSTANT}
            steps.append(_Step(eqn, operands, results))
            wanted |= operands
    return steps[::-1]


def _folded(steps: list[_Step], found: Mapping[Var, Var | None], argument: Var, output: Var) -> Var:
    """The smallest value (of equals the last) that folds the input and that all derivatives go through.

    Those are where only one value is alive, that is, made and still needed: in b = relu(a), c = 2 b, d = sum(c) after
    each of them; in a skip connection c = b + conv(b), after b, not after conv(b), where b is needed still.
    """
    uses = Counter(var for step in steps for var in step.operands) + Counter([output])
    smallest, alive = argument, {argument}
    for step in steps:
        uses.subtract(step.operands)
        alive = {var for var in alive if uses[var]} | {*step.results}
        if len(alive) == 1:
            (only,) = alive
            if found[only] is not None and size(only) <= size(smallest):
                smallest = only
    return smallest


def _frontier(steps: list[_Step], known: Mapping[Var, Dependence], folded: Var, output: Var) -> tuple[Var, ...]:
    """The narrowest piecewise-linear values after `folded` that give the rest; () if there are none.

    A cut through the graph of what is linear, each value as wide as it has elements, between `folded` and one node for
    all that is `beyond`: not linear, or after the end. For exp(dense(a)[2]) mean(a)²:

        a --> dense(a) [5] --> dense(a)[2] [1] --> beyond     the narrowest: dense(a)[2] and mean(a), two numbers
        a --> mean(a) [1] -----------------------> beyond
    """
    linear = {var: size(var) for var, kind in known.items() if kind == PIECEWISE_LINEAR and var is not folded}
    beyond = Var(output.aval)
    edges = [
        (operand, result if known[result] == PIECEWISE_LINEAR else beyond)
        for step in steps
        for operand in step.operands
        for result in step.results
        if known[operand] == PIECEWISE_LINEAR
    ]
    if known[output] == PIECEWISE_LINEAR:
        edges.append((output, beyond))
    cut = narrowest_cut(edges, linear, folded, beyond) or ()
    return tuple(var for var in linear if var in cut)


def _beyond(steps: list[_Step], frontier: tuple[Var, ...], output: Var) -> set[Var]:
    """What carries derivatives from the frontier to the output."""
    wanted = {output}.difference(frontier)
    for step in reversed(steps):
        if not wanted.isdisjoint(step.results):
            wanted |= step.operands.difference(frontier)
    return wanted

"""A program cut in two at one of its values: what comes before, what comes after, and what passes by.

No hooks and no rewriting by hand. Take y = f(x) + g(h(x)), cut at h(x):

    before:  x -> h(x), and beside it f(x), which the end needs too      (a skip connection past the layer)
    after:   h(x), given f(x) -> y

Everything that depends on the images alone is computed before, once, and handed on; what depends on the layer, or on
neither, comes after. Where everything flows through the layer nothing passes by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jax.extend.core import JaxprEqn, Var

from jaxcam.cuts.sites import Analysis, Opening, Site, place_of_result
from jaxcam.programs.linearity import PIECEWISE_LINEAR, dependence, dependences
from jaxcam.programs.program import Program, Stage, needed, straight_line
from jaxcam.programs.rounding import rounds

__all__ = ["Halves", "halve"]


@dataclass(frozen=True, eq=False)
class Halves:
    """A program from arrays and inputs to what it returns, cut at one of its values. Hashable, equal to itself only."""

    program: Program
    layer: Var
    before: Stage
    """Arrays and inputs -> the layer, and what else the stage after it needs that comes from the inputs."""
    after: Stage
    """The layer -> what is returned, where arrays and that are known."""
    feeds_back: bool = False
    """Whether another value of the layer is a change to it, and not what stands in its place: `jaxcam.cuts.steps`."""

    @property
    def beside(self) -> tuple[Var, ...]:
        """What reaches the logits past the layer."""
        return tuple(out for out in self.before.outputs[1:] if isinstance(out, Var))

    def features(self, arrays: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """The layer's value, and what flows beside it."""
        known = {**self.program.constants, **dict(zip(self.program.arguments, [*arrays, *inputs], strict=True))}
        (value, *beside), _ = self.before(known)
        return value, tuple(beside)

    def head(self, arrays: Sequence[Any], value: Any, beside: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the program returns."""
        known = {**self.program.constants, **dict(zip(self.program.arguments, arrays, strict=False))}
        return self.after({**known, **dict(zip(self.beside, beside, strict=True))}, value)[0]

    @cached_property
    def rounds(self) -> bool:
        """Whether values are rounded between the layer and the logits, so that gradients are not their slopes."""
        return rounds(self.after.equations, [self.layer], self.after.outputs)

    @cached_property
    def is_piecewise_linear(self) -> bool:
        """Whether the logits are proven to be that in the layer."""
        known = dependences(self.after.equations, {self.layer: PIECEWISE_LINEAR})
        return all(dependence(known, out) <= PIECEWISE_LINEAR for out in self.after.outputs)


def halve(analysis: Analysis, site: Site) -> Halves:
    """The program cut at one of its sites."""
    model = analysis.closed
    place = place_of_result(model.jaxpr, site.place, Opening(analysis.rounds))
    program = analysis.program
    if not analysis.is_plain:  # once more, with remat and custom derivatives kept but where the layer is inside
        program = straight_line(model, opened=Opening(analysis.rounds, place))
    (at,) = [var for eqn in program.equations for var in eqn.outvars if program.places[var] == place]
    split = len(program.arguments) - analysis.num_inputs
    arrays, inputs = program.arguments[:split], program.arguments[split:]
    to_logits = needed(program.equations, program.outputs, {*arrays, *program.constants, at})
    from_images, from_layer = _reached(to_logits, *inputs), _reached(to_logits, at)
    after = [
        eqn
        for eqn in to_logits
        if from_images.isdisjoint(eqn.outvars) or not from_layer.isdisjoint(a for a in eqn.invars if isinstance(a, Var))
    ]
    made = {var for eqn in after for var in eqn.outvars}
    wanted = {a for a in (*program.outputs, *(a for eqn in after for a in eqn.invars)) if isinstance(a, Var)}
    passing = (*inputs, *(var for eqn in to_logits for var in eqn.outvars))
    beside = [var for var in passing if var in wanted and var in from_images and var not in made]
    before = program.stage((), (at, *beside), {*program.arguments, *program.constants})
    return Halves(program, at, before, Stage((at,), program.outputs, after), site.feeds_back)


def _reached(equations: Sequence[JaxprEqn], *start: Var) -> set[Var]:
    """All that depends on one of these values."""
    reached = {*start}
    for eqn in equations:
        if not reached.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            reached.update(eqn.outvars)
    return reached

"""Sites: the values in a program that can be a layer, and what JAX recorded about them.

A value has a name where the model tagged it (`jax.ad_checkpoint.checkpoint_name`), or where it is what comes out of a
named scope (`jax.named_scope`; Linen and Keras open one for every layer). Convolutions have a position besides. Calls
are written out for the search, so that what is inside jit, remat and custom derivatives is found as well, and scans are
round by round; what is in another loop or a branch is not one value, and is only listed as `hidden`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var
from jax.extend.core import primitives as core

from jaxcam.cuts.axes import Axes, axes_of
from jaxcam.cuts.channels import image_channel_axis
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Atom, Place, Program, called, holds, is_elementwise, shape, size, straight_line
from jaxcam.programs.rounds import is_scan, peeled, round_to_peel
from jaxcam.programs.scopes import hidden, numbered, scope_results

__all__ = ["OUTPUTS", "Analysis", "Opening", "Site", "analysed", "place_of_result"]

OUTPUTS = "jaxcam.outputs"
"""Tags what a model returns where a target is a part of the program too."""

_LONGEST_ACTIVATION = 16
"""In equations; GELU by tanh has 8."""


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
    feeds_back: bool = False
    """Whether it is all steps of a recurrent network, and they depend on those before: see `jaxcam.cuts.steps`."""


@dataclass(frozen=True)
class Analysis:
    """What was found in a program from a model's arrays and those of an example to what is explained.

    `image` is the input that is looked at. Of several it is one, and the others are as good as arrays of the model.
    """

    closed: ClosedJaxpr
    program: Program
    """The same with its calls written out."""
    num_inputs: int
    """How many of its arguments, the last ones, are inputs."""
    image: Var
    """The input whose positions the heatmap lies on."""
    sites: list[Site]
    """By name, in the order of the program."""
    values: list[Site]
    """All values that everything flows through."""
    hidden: dict[str, str]
    """Names inside loops and branches, and the primitive that holds them."""
    image_axis: int
    """Where the images `[n, ...]` have their channels."""
    axes: Axes
    """Where the axes of each value come from that depends on the images."""
    rounds: tuple[int, ...] = ()
    """Which round of a long scan is written out, from the outside in; the last one where nothing is said."""
    is_plain: bool = False
    """Whether no call that a rule is about was written out, nor a scan: `program` is then the same for every layer."""

    def at(self, rounds: tuple[int, ...]) -> Analysis:
        """With other rounds of long scans written out."""
        arguments = self.program.arguments
        main = arguments.index(self.image) - (len(arguments) - self.num_inputs)
        return analysed(self.closed, num_inputs=self.num_inputs, main=main, rounds=rounds)

    @property
    def inputs(self) -> tuple[Var, ...]:
        """All inputs."""
        return self.program.arguments[len(self.program.arguments) - self.num_inputs :]

    @property
    def order(self) -> dict[Var, int]:
        """The position of the equation that makes each value."""
        return {var: i for i, eqn in enumerate(self.program.equations) for var in eqn.outvars}

    @property
    def outputs(self) -> list[Site]:
        """What the model returns, as sites: tagged where a target follows."""
        tagged = [
            eqn.outvars[0]
            for eqn in self.program.equations
            if eqn.primitive is core.name_p and eqn.params["name"] == OUTPUTS
        ]
        ends = tagged or [out for out in self.program.outputs if isinstance(out, Var)]
        places = self.program.places
        return [Site("value", None, None, var, places[var], complete=False) for var in ends if var in places]


def analysed(model: ClosedJaxpr, *, num_inputs: int = 1, main: int = 0, rounds: tuple[int, ...] = ()) -> Analysis:
    """Looks for the sites in the program of a model, on the way from the input `main` of several.

    Scans are looked into, of long ones a single round: `rounds` says which, from the outside in; else the last.
    """
    opening, ruled = Opening(rounds), list[JaxprEqn]()

    def opened(eqn: JaxprEqn, place: Place) -> ClosedJaxpr | None:
        if (inside := opening(eqn, place)) is not None and (_has_rule(eqn) or is_scan(eqn)):
            ruled.append(eqn)
        return inside

    program = straight_line(model, opened=opened)
    image = program.arguments[len(program.arguments) - num_inputs + main]
    moving = _moving(program, image)
    complete = _complete(program, moving)

    def site(kind: str, name: str | None, var: Var, position: int | None = None) -> Site:
        return Site(kind, name, position, var, program.places[var], var in complete)

    def is_layer(var: Var) -> bool:
        return var in moving and holds(var, jnp.floating) and len(shape(var)) > 2

    tags = [(eqn.params["name"], eqn.outvars[0]) for eqn in program.equations if eqn.primitive is core.name_p]
    tags = [(name, var) for name, var in tags if name != OUTPUTS]
    sites = [site("tag", name, var) for name, var in numbered([(n, v) for n, v in tags if is_layer(v)])]
    scopes = [(name, var) for name, var in scope_results(program) if is_layer(var) and not _is_part(name)]
    sites += [site("scope", name, var) for name, var in numbered(scopes)]
    convolutions = [var for var in _convolutions(program, moving) if is_layer(var)]
    sites += [site("convolution", None, var, i) for i, var in enumerate(convolutions)]
    order = {var: i for i, eqn in enumerate(program.equations) for var in eqn.outvars}
    sites.sort(key=lambda s: order[s.var])
    values = [site("value", None, var) for var in order if var in complete and is_layer(var)]
    image_axis = image_channel_axis(program, image, complete)
    axes = axes_of(program, image, image_axis)
    inside = dict(hidden(program.equations))
    return Analysis(model, program, num_inputs, image, sites, values, inside, image_axis, axes, rounds, not ruled)


def _is_part(name: str) -> bool:
    """Whether it is what several rounds of a scan give together that are still a scan: `scan[:5]`, and no layer."""
    return re.fullmatch(r".*\[\d*:\d*\]", name) is not None


@dataclass(frozen=True)
class Opening:
    """Which calls are written out, and with what: the way to a value, or everything for None.

    Calls with an elementwise program stay whole: they are activations, and rules about them are easier to apply.
    Rematerialisation, custom derivatives and scans are given up only where they are on the way to a value inside of
    them, or everywhere for None: the rule is about the whole call, and a part of it has none. Of a scan one round is.
    """

    rounds: tuple[int, ...] = ()
    on_the_way: Place | None = None

    def __call__(self, eqn: JaxprEqn, place: Place) -> ClosedJaxpr | None:
        """The program to write out in the place of an equation, if any."""
        if _bends(eqn):
            return None
        if (_has_rule(eqn) or is_scan(eqn)) and self.on_the_way is not None:
            # A place is a path: equation 4, in its program equation 2, result 0 of that is (4, 2, 0). On the way to it
            # is the call (4,), not (3,). (4, 0) is the call's own result, and not inside of it.
            is_inside = self.on_the_way[: len(place)] == place and len(self.on_the_way) > len(place) + 1
            if not is_inside:
                return None
        return self.inside(eqn)

    def inside(self, eqn: JaxprEqn) -> ClosedJaxpr | None:
        """The program of a call, or of a scan with a round written out."""
        if is_scan(eqn):
            index = round_to_peel(eqn, self.rounds)
            return None if index is None else peeled(eqn, index)
        return called(eqn, custom=True)


def place_of_result(model: Jaxpr, place: Place, opening: Opening) -> Place:
    """The place of the same value as the result of the outermost call with a rule that returns it, if there is one.

    Where equation 4 is remat[{ x -> a = conv x; b = relu a; return b }], the value b at (4, 1, 0) is also the call's
    result (4, 0): cut there, the rematerialisation stays whole. The value a at (4, 0, 0) has no other place, nor has b
    where the call also returns c = mean b, which would go past the cut.
    """
    here = model
    for depth in range(len(place) - 2):
        eqn = here.eqns[place[depth]]
        inside = _inside(eqn, opening)
        if _has_rule(eqn) and (result := _result(inside, place[depth + 1 :], opening)) is not None:
            return (*place[: depth + 1], result)
        here = inside
    return place


def _result(program: Jaxpr, place: Place, opening: Opening) -> int | None:
    """Which of a program's results the value at this place inside of it is, and of none of the others a part."""
    eqn = program.eqns[place[0]]
    number = place[1] if len(place) == 2 else _result(_inside(eqn, opening), place[1:], opening)
    if number is None or any(atom is eqn.outvars[number] for after in program.eqns for atom in after.invars):
        return None
    results = [i for i, out in enumerate(program.outvars) if out is eqn.outvars[number]]
    return results[0] if len(results) == 1 else None


def _inside(eqn: JaxprEqn, opening: Opening) -> Jaxpr:
    inner = opening.inside(eqn)
    assert inner is not None, "places lead through calls and scans only"
    return inner.jaxpr


def _has_rule(eqn: JaxprEqn) -> bool:
    """Whether a rule about the whole call goes when it is written out: its own derivative, or rematerialisation."""
    return about(eqn).runs in (Runs.CUSTOM, Runs.REMAT)


def _moving(program: Program, image: Var) -> set[Var]:
    """All that depends on the images."""
    moving = {image}
    for eqn in program.equations:
        if not moving.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            moving.update(eqn.outvars)
    return moving


def _complete(program: Program, moving: set[Var]) -> set[Var]:
    """The values that every path from the images to the logits goes through.

    Such a value is, when it has just been made, the only one of those that depend on the images that is still needed.
    In a residual block, for example:

        equation          still needed after it
        a = conv images   a         complete
        b = relu a        b         complete: all that follows follows from b
        c = conv b        b, c      not complete, because b goes around c
        d = add b c       d         complete

    So one number is kept on the way, how many are needed: up by one with each value made, down with each last use.
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
    live = 1  # how many are still needed: the images
    for i, eqn in enumerate(program.equations):
        live -= dying.get(i, 0)
        made = [var for var in eqn.outvars if var in moving and var in last_use]
        live += len(made)
        if live == 1 and len(made) == 1:
            complete.update(made)
    return complete


def _convolutions(program: Program, moving: set[Var]) -> Iterator[Var]:
    """Each convolution's output, with bias and batch norm, and after its activation where that follows directly.

    The walk goes from the convolution to its one user, and on from there:

        a = conv x w     start
        b = add a bias   affine in a: go on (`_followed`)
        c = logistic b   b has two users: does an activation of b alone begin here? (`_activated`)
        d = mul b c      yes, and it ends in d: this is the layer
        e = add d x      not reached

    Were there no activation, and e = add b x, b would be the layer: x, too, depends on the images.
    """
    users: dict[Var, list[JaxprEqn]] = {}
    for eqn in program.equations:
        for atom in {atom for atom in eqn.invars if isinstance(atom, Var)}:
            users.setdefault(atom, []).append(eqn)
    for eqn in program.equations:
        if eqn.primitive is lax.conv_general_dilated_p and eqn.outvars[0] in moving:
            yield _followed(eqn.outvars[0], users, moving, set(program.outputs))


def _followed(start: Var, users: Mapping[Var, list[JaxprEqn]], moving: set[Var], outputs: set[Atom]) -> Var:
    """What is found on the walk from a convolution's output, in the shape of that: `found`; `here` may be reshaped."""
    found = here = start
    while here not in outputs:
        after = users.get(here, [])
        if len(after) != 1 or not _is_affine(after[0], here, moving):
            end = _activated(here, users, moving, outputs)
            return end if end is not None and shape(here) == shape(start) else found
        here = after[0].outvars[0]
        if shape(here) == shape(start):
            found = here
    return found


def _is_affine(eqn: JaxprEqn, here: Var, moving: set[Var]) -> bool:
    """Whether a convolution's output stays its own: bias, batch norm, reshapes, by values not from the images.

    Not where it is transposed: the channels would be elsewhere.
    """
    out = eqn.outvars[0]
    return (
        about(eqn).affine
        and [atom for atom in eqn.invars if isinstance(atom, Var) and atom in moving] == [here]
        and size(out) == size(here)
        and holds(out, jnp.floating)
    )


def _activated(start: Var, users: Mapping[Var, list[JaxprEqn]], moving: set[Var], outputs: set[Atom]) -> Var | None:
    """What an elementwise function of one value gives, written as one equation or as several: x * sigmoid(x).

    From `start` on, each user of what was made is taken in (`inside`), and its own users wait their turn, until none is
    waiting: then the last value taken in is the only way out, and the function's result. None if a user is not
    elementwise, or needs a value from elsewhere that depends on the images.
    """
    inside, waiting, steps = {start}, list(users.get(start, [])), 0
    while waiting and steps < _LONGEST_ACTIVATION:
        # The first whose operands are all there; the others wait for theirs.
        ready = [eqn for eqn in waiting if {a for a in eqn.invars if isinstance(a, Var) and a in moving} <= inside]
        if not ready or not outputs.isdisjoint(inside):
            return None
        eqn, steps = ready[0], steps + 1
        out = eqn.outvars[0]
        if not (_bends(eqn) or about(eqn).activation) or len(eqn.outvars) > 1 or shape(out) != shape(start):
            return None
        inside.add(out)
        waiting = [other for other in waiting if other is not eqn]
        if not waiting and holds(out, jnp.floating):
            return out
        waiting += [other for other in users.get(out, []) if other not in waiting]
    return None


def _bends(eqn: JaxprEqn) -> bool:
    """Whether it is an elementwise primitive that bends, or a call that only runs elementwise ones, without names."""
    inner = called(eqn, custom=True)
    if inner is None:
        return about(eqn).activation and not about(eqn).affine
    return is_elementwise(eqn) and not any(True for _ in hidden(inner.jaxpr.eqns, "call"))

"""All steps of a recurrent network together, as one layer: `scan[:]/h`, activations `[t, i, j, k]` or `[t, k]`.

A scan over time makes a value h_t in each round, of which what follows depends in two ways: on what is read of it (an
output of each step), and on the rounds after it (the state). Of one step both count when it is cut alone, `scan[3]/h`:
what comes after it is computed from it. Of all together so must they, or what a state carries on counted for nothing.
So nothing is put in the steps' places. Each is moved instead:

    before:  the scan as it is               -> A, the values h_t of all rounds
    after:   a' -> the scan again, where each round adds a'_t - A_t to its h_t, whatever that is by then

At a' = A nothing is added, and what is returned is what the model returns. With d_t = a'_t - A_t, round t computes
h_t = f(h_{t-1}, x_t) + d_t, so that the derivative by a'_t is that by d_t: the sum over all ways from the step to the
end, dY/dh_t + sum over the state's ways (the total derivative of backpropagation through time). One element of one step
moved by z is the program in which that step alone is cut and moved by z, so all higher elementwise derivatives agree
with those of `scan[t]` as well. What differs is a' far from A: the steps of a' are changes that add up along the state,
and no values that are put there. `feeds_back` tells the two apart; where a step does not depend on those before it, as
of frames one by one, they are the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, DebugInfo, Jaxpr, JaxprEqn, Var
from jax.extend.core import primitives as core

from jaxcam.cuts.axes import axes_of, axes_of_steps
from jaxcam.cuts.positions import Where
from jaxcam.cuts.sites import Analysis, Opening, Site, analysed
from jaxcam.programs.program import Atom, Place, Program, Stage, called, closed, holds, needed, shape, straight_line
from jaxcam.programs.rounds import is_scan
from jaxcam.programs.scopes import numbered, scope_results, scopes
from jaxcam.programs.specs import spec_of

__all__ = ["Steps", "at_steps", "steps_of"]

_TAG = "jaxcam.steps"


@dataclass(frozen=True)
class Steps:
    """A value in the rounds of a scan over an axis of the input."""

    site: Site
    """All rounds together, `[n, t, ...]`; its place is that of the value in the program of a round."""
    scan: Place
    """Of the scan in the model's program."""
    where: Where
    """The positions."""


def steps_of(analysis: Analysis) -> list[Steps]:
    """The values that can be a layer in all rounds of a scan together, where its rounds are positions of the input."""
    program = straight_line(analysis.closed)
    scans = [*filter(is_scan, program.equations)]
    if not scans:
        return []
    image = program.arguments[analysis.program.arguments.index(analysis.image)]
    axes = axes_of(program, image, analysis.image_axis)
    found: list[Steps] = []
    for scan in scans:
        body = straight_line(closed(scan.params["jaxpr"]), opened=Opening())
        known = axes_of_steps(scan, body, axes)
        for kind, name, var in _named(scan, body, known):
            lengths = shape(var)
            if not holds(var, jnp.floating) or len(lengths) < 2:
                continue
            whole = Var(var.aval.update(shape=(lengths[0], scan.params["length"], *lengths[1:])))  # type: ignore[attr-defined]
            complete, feeds_back = _ways(program, image, scan, body, var)
            site = Site(kind, name, None, whole, body.places[var], complete, feeds_back)
            found.append(Steps(site, program.places[scan.outvars[0]][:-1], known[var]))
    names = numbered([(str(steps.site.name), steps.site.var) for steps in found])
    return [replace(one, site=replace(one.site, name=name)) for one, (name, _) in zip(found, names, strict=True)]


def _named(scan: JaxprEqn, body: Program, known: Container[Var]) -> list[tuple[str, str, Var]]:
    """Kind, name and value of what can be a layer in a round: tags, scopes, and what comes out of the round."""
    around = [*scopes(scan)] or ["scan"]
    prefix = "/".join([*around[:-1], f"{around[-1]}[:]"])
    order = {var: i for i, eqn in enumerate(body.equations) for var in eqn.outvars}
    found = [("tag", eqn.params["name"], eqn.outvars[0]) for eqn in body.equations if eqn.primitive is core.name_p]
    found += [("scope", name, var) for name, var in scope_results(body)]
    found = [(kind, f"{prefix}/{name}", var) for kind, name, var in found]
    ends = [out for out in body.outputs if isinstance(out, Var) and out in order and out in known]
    found += [("scope", prefix, max(ends, key=order.__getitem__))] if ends else []
    return sorted((row for row in found if row[2] in known), key=lambda row: order[row[2]])


def at_steps(analysis: Analysis, steps: Steps) -> tuple[Analysis, Site]:
    """The model's program with the changes of steps written out, and their values as a layer of it."""

    def opened(eqn: JaxprEqn, place: Place) -> ClosedJaxpr | None:
        if place == steps.scan:
            return _moved(eqn, steps.site.place)
        return called(eqn) if steps.scan[: len(place)] == place else None

    flat = straight_line(analysis.closed, opened=opened)
    jaxpr = Jaxpr([*flat.constants], flat.arguments, flat.outputs, flat.equations, debug_info=_WHERE)
    main = analysis.inputs.index(analysis.image)
    model = ClosedJaxpr(jaxpr, [*flat.constants.values()])
    found = analysed(model, num_inputs=analysis.num_inputs, main=main)
    (site,) = (site for site in found.sites if site.name == _TAG)
    found = replace(found, axes={**found.axes, site.var: steps.where})
    return found, replace(steps.site, var=site.var, place=site.place)


_WHERE = DebugInfo("jaxcam", "a model with the steps of a scan", None, None)


def _moved(eqn: JaxprEqn, place: Place) -> ClosedJaxpr:
    """The scan twice: for the values at a place in its rounds, which are a layer then, and with what is added to it."""
    p: dict[str, Any] = eqn.params
    num_consts, num_carry = p["num_consts"], p["num_carry"]
    body = straight_line(closed(p["jaxpr"]), opened=Opening((), place))
    (at,) = (var for e in body.equations for var in e.outvars if body.places[var] == place)
    made = {*body.arguments, *body.constants}
    before, after = body.stage((), (at,), made), _after(body, at)

    def run(*operands: Any) -> list[Any]:
        consts, carry = operands[:num_consts], operands[num_consts : num_consts + num_carry]
        each = operands[num_consts + num_carry :]

        def rounds(function: Any, *changes: Any) -> Any:
            def step(carry: Any, here: Any) -> Any:
                known = dict(zip(body.arguments, [*consts, *carry, *here[: len(each)]], strict=True))
                return function({**body.constants, **known}, *here[len(each) :])

            over = {"length": p["length"], "reverse": p["reverse"], "unroll": p["unroll"]}
            with jax.named_scope("[0:]"):  # which is not looked into once more
                return lax.scan(step, tuple(carry), (*each, *changes), **over)

        def still(known: Any) -> Any:
            value = before(known)[0][0]
            return after(known, value)[0][:num_carry], value

        def changed(known: Any, change: Any) -> Any:
            results = after(known, before(known)[0][0] + change)[0]
            return results[:num_carry], results[num_carry:]

        values = rounds(still)[1]
        together = checkpoint_name(jnp.moveaxis(values, 0, 1), _TAG)
        carry, stacked = rounds(changed, jnp.moveaxis(together, 1, 0) - values)
        return [*carry, *stacked]

    return jax.make_jaxpr(run)(*(spec_of(atom.aval) for atom in eqn.invars))


def _after(body: Program, at: Var) -> Stage:
    """The results of a round from one of its values, where its arguments are known."""
    new = Var(at.aval)
    (made,) = (i for i, eqn in enumerate(body.equations) if at in eqn.outvars)

    def put(atoms: Iterable[Atom]) -> list[Atom]:
        return [new if atom is at else atom for atom in atoms]

    later = [eqn.replace(invars=put(eqn.invars)) for eqn in body.equations[made + 1 :]]
    outputs = tuple(put(body.outputs))
    known = {*body.arguments, *body.constants, new}
    return Stage((new,), outputs, needed([*body.equations[: made + 1], *later], outputs, known))


def _ways(program: Program, image: Var, scan: JaxprEqn, body: Program, at: Var) -> tuple[bool, bool]:
    """Whether everything flows through a value in a scan's rounds, and whether it depends on those before it."""
    moving: set[Atom] = {image}
    for eqn in program.equations:
        moves = [isinstance(atom, Var) and atom in moving for atom in eqn.invars]
        if eqn is scan:
            past, _ = _carried(scan, body, at, moves, moves_itself=False)
            moving.update(var for var, passes in zip(eqn.outvars, past, strict=True) if passes)
        elif any(moves):
            moving.update(eqn.outvars)
    _, feeds_back = _carried(scan, body, at, [False] * len(scan.invars), moves_itself=True)
    return moving.isdisjoint(out for out in program.outputs if isinstance(out, Var)), feeds_back


def _carried(
    scan: JaxprEqn, body: Program, at: Var, moves: Sequence[bool], *, moves_itself: bool
) -> tuple[list[bool], bool]:
    """Which results of a scan move where some of its operands do, and whether what makes the value `at` moves."""
    num_consts, num_carry = scan.params["num_consts"], scan.params["num_carry"]
    moves = [*moves]
    while True:
        moving: set[Atom] = {var for var, does in zip(body.arguments, moves, strict=True) if does}
        is_reached = False
        for eqn in body.equations:
            reached = not moving.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var))
            moving.update(var for var in eqn.outvars if (moves_itself if var is at else reached))
            is_reached |= reached and at in eqn.outvars
        results = [isinstance(out, Var) and out in moving for out in body.outputs]
        carry = [a or b for a, b in zip(moves[num_consts:], results[:num_carry], strict=False)]
        if carry == moves[num_consts : num_consts + num_carry]:
            return results, is_reached
        moves[num_consts : num_consts + num_carry] = carry

"""Programs that compute only what their outputs need of each value: of a class token's block, the class token's row.

A program ends in `x[:, 0]`, and yet computes all 197 rows of x. Backwards from the outputs, `narrowed` asks of every
value for the least range along each axis that is needed, and writes the program anew with these:

    q [1,197,384]     scores = q kᵀ [6,197,197]     out = softmax(scores) v     mlp(out) [1,197,384]     [:, 0]
    q [1,1,384]       scores = q kᵀ [6,1,197]       out = softmax(scores) v     mlp(out) [1,1,384]

What is not known is needed, and computed, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var
from jax.extend.core import primitives as core

from jaxcam.programs.moves import Constants, moved
from jaxcam.programs.primitives import about
from jaxcam.programs.program import (
    Atom,
    Program,
    Stage,
    called,
    dtype,
    is_elementwise,
    moves,
    rule,
    shape,
    straight_line,
)

__all__ = ["narrowed"]

Range: TypeAlias = tuple[tuple[int, int], ...]
"""From where to where along each axis."""


def narrowed(program: Program) -> Program:
    """The same function, with the same arguments, that computes of each value no more than its outputs need."""
    narrow = _Narrow(program, [_whole(atom) for atom in program.outputs])
    if narrow.is_whole:
        return program
    start = (*program.arguments, *program.constants)
    closed = jax.make_jaxpr(narrow)(*(var.aval for var in start))
    found = straight_line(closed)
    arguments, constants = found.arguments[: len(program.arguments)], found.arguments[len(program.arguments) :]
    values = dict(zip(constants, program.constants.values(), strict=True))
    return Program(arguments, found.outputs, found.equations, {**found.constants, **values}, found.places)


class _Narrow:
    """A program that makes these ranges of its outputs, as a function of its arguments and constants."""

    def __init__(
        self,
        program: Program,
        outputs: Sequence[Range],
        has: Mapping[Var, Range] | None = None,
        *,
        in_rule: bool = False,
    ) -> None:
        """`has` says of which arguments only a part will be given; `in_rule`, that this is the rule of a derivative.

        Such a rule is mostly written with the function itself, which is looked at already.
        """
        self._program, self._outputs, self._has = program, outputs, has or {}
        self._needs: list[list[Range | None] | None] = []
        """What each equation needs of its operands, None for nothing."""
        self._made: dict[Var, Range] = {}
        """The range of each value that is made."""
        self.wanted: dict[Var, Range] = {}
        """What is needed of each value."""
        constants = Constants(program)
        for atom, out in zip(program.outputs, outputs, strict=True):
            self._want(atom, out)
        for eqn in reversed(program.equations):
            outs = [self.wanted.get(var) for var in eqn.outvars]
            needs = None
            if any(out is not None for out in outs):
                outs, needs = _needed_by(eqn, outs, constants, in_rule)
                self._made.update((var, out) for var, out in zip(eqn.outvars, outs, strict=True) if out is not None)
                for atom, need in zip(eqn.invars, needs, strict=True):
                    self._want(atom, need)
            self._needs.append(needs)
        self._needs.reverse()

    def _want(self, atom: Atom, need: Range | None) -> None:
        if isinstance(atom, Var) and need is not None:
            self.wanted[atom] = _hull(self.wanted.get(atom), need)

    @property
    def is_whole(self) -> bool:
        """Whether everything that is made is made whole."""
        return all(made == _whole(var) for var, made in self._made.items())

    def __call__(self, *values: Any) -> list[Any]:
        """The outputs."""
        start = (*self._program.arguments, *self._program.constants)
        known: dict[Var, Any] = dict(zip(start, values, strict=True))

        def read(atom: Atom, wanted: Range) -> Any:
            if not isinstance(atom, Var):
                return np.asarray(atom.val, dtype(atom))
            return _cut(known[atom], self._made.get(atom, self._has.get(atom, _whole(atom))), wanted)

        for eqn, needs in zip(self._program.equations, self._needs, strict=True):
            if needs is not None:
                known.update(_run(eqn, self._made, needs, read))
        return [read(atom, out) for atom, out in zip(self._program.outputs, self._outputs, strict=True)]


def _needed_by(
    eqn: JaxprEqn, outs: list[Range | None], constants: Constants, in_rule: bool
) -> tuple[list[Range | None], list[Range | None]]:
    """The ranges that the equation makes, no less than asked for, and those of its operands that this needs."""
    made: list[Range | None] = [_whole(var) for var in eqn.outvars]
    everything = made, list[Range | None](map(_whole, eqn.invars))
    facts, p, (out, *others) = about(eqn), eqn.params, outs
    if eqn.primitive is lax.split_p:
        need = _union(_origin(eqn, 0, outs, constants) or [])
        return everything if need is None else (outs, [need])  # of nothing but empty parts there is no range
    if out is None or others:
        return everything
    is_activation = eqn.primitive is core.custom_jvp_call_p and _is_activation(eqn, None if in_rule else out)
    if is_activation or (facts.elementwise and eqn.primitive not in _AS_THEY_ARE):
        return outs, [_along_with(out, shape(atom)) for atom in eqn.invars]
    if facts.reduces is not None and "axes" in p and not facts.windowed:
        (operand,), axes = eqn.invars, set(map(int, p["axes"]))
        left = iter(out)
        return outs, [tuple((0, n) if i in axes else next(left) for i, n in enumerate(shape(operand)))]
    if eqn.primitive is lax.dot_general_p:
        return outs, [*_of_product(eqn, out)]
    if eqn.primitive is lax.reshape_p:
        out = _unbroken(eqn, out)
    if eqn.primitive in _MOVED:
        found = [_origin(eqn, i, [out], constants) for i in range(len(eqn.invars))]
        needs = [_union(each or []) for each in found]
        if all(each is not None for each in found) and any(need is not None for need in needs):
            return [out], needs
    return everything


def _along_with(out: Range, lengths: tuple[int, ...]) -> Range:
    """Of an operand that is repeated along axes of length 1, or is a scalar."""
    return tuple((0, 1) if n == 1 else r for n, r in zip(lengths, out, strict=True)) if lengths else ()


def _is_activation(eqn: JaxprEqn, out: Range | None) -> bool:
    """Whether a custom derivative acts element by element; if a range is given, its rule as well."""
    if not is_elementwise(eqn) or any(shape(atom) not in ((), shape(eqn.outvars[0])) for atom in eqn.invars):
        return False
    if out is None:
        return True
    operands, moving = [*eqn.invars], _moving(eqn)
    for program in rule(eqn, moving):
        straight = straight_line(program)
        wanted = _Narrow(straight, [out] * len(straight.outputs), in_rule=True).wanted
        atoms = (*operands, *(operands[place] for place in moving))
        for argument, atom in zip(straight.arguments, atoms, strict=True):
            if wanted.get(argument, _along_with(out, shape(atom))) != _along_with(out, shape(atom)):
                return False
    return True


def _narrow_activation(eqn: JaxprEqn, out: Range) -> Callable[..., Any]:
    """The function of a custom derivative, and its rule, of parts in this range."""
    moving = _moving(eqn)
    own = called(eqn, custom=True)
    assert own is not None

    def part(program: ClosedJaxpr) -> Callable[..., Any]:
        straight = straight_line(program)
        has = {argument: _along_with(out, shape(argument)) for argument in straight.arguments}
        narrow = _Narrow(straight, [out] * len(straight.outputs), has, in_rule=True)
        return lambda *values: narrow(*values, *straight.constants.values())[0]

    run = jax.custom_jvp(part(own))

    @run.defjvp
    def _(primals: Any, directions: Any) -> Any:
        results, tangents = map(part, rule(eqn, moving))
        along = [directions[place] for place in moving]
        return results(*primals, *along), tangents(*primals, *along)

    return run


def _moving(eqn: JaxprEqn) -> list[int]:
    return [place for place, atom in enumerate(eqn.invars) if moves(atom)]


def _of_product(eqn: JaxprEqn, out: Range) -> tuple[Range, Range]:
    """Of a dot_general: `out` has the batch axes, then the free ones of the left operand and of the right."""
    contracting, batch = eqn.params["dimension_numbers"]
    at = len(batch[0])
    found = []
    for operand, contracted, batched in zip(eqn.invars, contracting, batch, strict=True):
        ranges = [(0, n) for n in shape(operand)]
        for place, axis in enumerate(batched):
            ranges[axis] = out[place]
        for axis in (axis for axis in range(len(ranges)) if axis not in (*contracted, *batched)):
            ranges[axis] = out[at]
            at += 1
        found.append(tuple(ranges))
    return found[0], found[1]


def _unbroken(eqn: JaxprEqn, out: Range) -> Range:
    """Of a reshape: the range with every axis whole that is not, alone, an axis of the operand."""
    old, new = list(shape(eqn.invars[0])), list(shape(eqn.outvars[0]))
    before = np.cumprod([1, *old])
    alone = {(int(before[axis]), length) for axis, length in enumerate(old)}
    after = np.cumprod([1, *new])
    return tuple(out[j] if (int(after[j]), n) in alone else (0, n) for j, n in enumerate(new))


def _origin(eqn: JaxprEqn, place: int, outs: Sequence[Range | None], constants: Constants) -> list[Range | None] | None:
    """For each result the range of an operand that its range comes from; None for one that is not asked for."""
    operand = eqn.invars[place]
    ranges: list[list[tuple[int, int] | None]] = [[] for _ in outs]
    for axis, length in enumerate(shape(operand)):
        along = np.arange(length).reshape([-1 if i == axis else 1 for i in range(len(shape(operand)))])
        said = [along if i == place else None for i in range(len(eqn.invars))]
        found = moved(eqn, said, constants, fill=-1)
        if found is None:
            return None
        for which, out in enumerate(outs):
            if out is not None:
                here = found[which]
                here = here[tuple(slice(*r) if n > 1 else slice(None) for n, r in zip(here.shape, out, strict=True))]
                here = here[here >= 0]
                ranges[which].append((int(here.min()), int(here.max()) + 1) if here.size else None)
    if not shape(operand):
        return [() if out is not None else None for out in outs]
    return [
        None if out is None or None in each else tuple(r for r in each if r is not None)
        for out, each in zip(outs, ranges, strict=True)
    ]


def _run(
    eqn: JaxprEqn, made: dict[Var, Range], needs: list[Range | None], read: Callable[[Atom, Range], Any]
) -> dict[Var, Any]:
    """The values of the results, in the ranges in which they are made."""
    p = eqn.params
    if needs == [*map(_whole, eqn.invars)] and all(made.get(v, _whole(v)) == _whole(v) for v in eqn.outvars):
        # As it stands: a custom derivative, a loop, a convolution.
        known = {atom: read(atom, _whole(atom)) for atom in eqn.invars if isinstance(atom, Var)}
        results = Stage(tuple(known), tuple(eqn.outvars), [eqn])({}, *known.values())[0]
        return dict(zip(eqn.outvars, results, strict=True))
    values = [None if need is None else read(atom, need) for atom, need in zip(eqn.invars, needs, strict=True)]
    first: Any = next((value for value in values if value is not None), None)
    if eqn.primitive is lax.split_p:
        (base,) = (need for need in needs if need is not None)
        axis, start, found = p["axis"], 0, dict[Var, Any]()
        for var, length in zip(eqn.outvars, map(int, p["sizes"]), strict=True):
            if var in made:
                own = [(lo + start, hi + start) if i == axis else (lo, hi) for i, (lo, hi) in enumerate(made[var])]
                found[var] = _cut(first, base, tuple(own))
            start += length
        return found
    (var,) = eqn.outvars
    out = made[var]
    if eqn.primitive is core.custom_jvp_call_p:
        return {var: _narrow_activation(eqn, out)(*values)}
    lengths = tuple(hi - lo for lo, hi in out)
    if eqn.primitive is lax.concatenate_p:
        parts = [value for value in values if value is not None]
        return {var: parts[0] if len(parts) == 1 else lax.concatenate(parts, p["dimension"])}
    if eqn.primitive is lax.slice_p:
        steps = p["strides"] or (1,) * len(lengths)
        return {var: lax.slice(first, (0,) * len(lengths), first.shape, steps)}
    if eqn.primitive is lax.reshape_p:
        return {var: lax.reshape(first, lengths)}
    if eqn.primitive is lax.broadcast_in_dim_p:
        return {var: lax.broadcast_in_dim(first, lengths, tuple(map(int, p["broadcast_dimensions"])))}
    return {var: eqn.primitive.bind(*values, **p)}


_MOVED = (
    *(lax.transpose_p, lax.squeeze_p, lax.broadcast_in_dim_p, lax.reshape_p),
    *(lax.slice_p, lax.split_p, lax.concatenate_p),
)
"""Those that `_run` can make a part of."""
_AS_THEY_ARE = (lax.optimization_barrier_p, lax.device_put_p, lax.sharding_constraint_p)


def _whole(atom: Atom) -> Range:
    return tuple((0, n) for n in shape(atom))


def _cut(value: Any, has: Range, wanted: Range) -> Any:
    """A part of a value of which the range `has` is there."""
    if has == wanted:
        return value
    starts = [lo - start for (lo, _), (start, _) in zip(wanted, has, strict=True)]
    stops = [hi - start for (_, hi), (start, _) in zip(wanted, has, strict=True)]
    return lax.slice(value, starts, stops)


def _hull(one: Range | None, other: Range) -> Range:
    if one is None:
        return other
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _union(ranges: Sequence[Range | None]) -> Range | None:
    found: Range | None = None
    for each in ranges:
        found = found if each is None else _hull(found, each)
    return found

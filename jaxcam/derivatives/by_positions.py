"""Elementwise derivatives of a head in which positions meet in sums only, as they do in attention and in pooling.

Between the last block's input a and the class token, all that one position p does is to add to a few sums,

    Z = Σ_p φ(a_p),      f(a) = F(Z),

in attention the numerator and the denominator of every head, φ = (e^{q·k_p} v_p, e^{q·k_p}), in pooling the pooled.
While a moves along one element (p, c) only φ(a_p) moves, and what is left of f is a function of one number,

    t ↦ F(Z + φ(a_p + t e_c) - φ(a_p)),

whose derivatives are those by the element. So

- φ along a channel c is computed for all positions at once, since each of them has terms of its own: k passes of what
  acts position by position, and not one for each element;
- F, which has no positions any more, takes one pass for each element: of one token's MLP, and not of all tokens';
- everything that does not move, the class token's query among it, is computed once.

`terms` reads this off the program. A position that everything else depends on (a class token that is an element itself)
stands still for that, and its own elements take the general way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Var

from jaxcam.derivatives.directions import Arrays, along_elements, chunk_length, forward, in_chunks
from jaxcam.derivatives.taylor import Curve, curve_of, follow, followed
from jaxcam.derivatives.terms import NOWHERE, ClashError, Factor, Global, Reader, Sum
from jaxcam.programs.narrowing import narrowed
from jaxcam.programs.program import Program, Stage, dtype, needed, shape
from jaxcam.programs.specs import varied

__all__ = ["Split", "split"]

_MOST_STILL = 4


def split(program: Program) -> Split | None:
    """The program of a scalar taken apart; None where positions meet in other ways than in sums.

    The last axis of its argument is that of the channels, the others are those of the positions.
    """
    (argument,) = program.arguments
    lengths = shape(argument)[:-1]
    if not lengths or math.prod(lengths) == 1:
        return None
    program = narrowed(program)
    owner = np.arange(math.prod(lengths)).reshape(*lengths, 1)
    still: set[int] = set()
    while len(still) <= _MOST_STILL and len(still) < owner.size:
        reader = Reader(program, np.where(np.isin(owner, [*still]), NOWHERE, owner))
        try:
            if not reader.read():
                return None
        except ClashError as clash:
            if not clash.still - still:
                return None
            still |= clash.still
        else:
            return Split(reader)
    return None


class Split:
    """A function of one array, taken apart into what acts position by position, sums, and the rest."""

    def __init__(self, reader: Reader) -> None:
        program = reader.program
        self.argument, self.owner = program.arguments[0], reader.owner
        self._states, self._program = reader.states, program
        # Backwards from the output through all that moves with the sums.
        wanted, rest, sums = {*program.outputs}, list[JaxprEqn](), dict[Var, Sum]()
        for eqn in reversed(program.equations):
            if wanted.isdisjoint(eqn.outvars) or not any(isinstance(self._states.get(v), Global) for v in eqn.outvars):
                continue
            rest.append(eqn)
            total = reader.sums.get(eqn.outvars[0])
            if total is not None:
                sums[eqn.outvars[0]] = total
            more = eqn.invars if total is None else [factor.value for factor in total.factors]
            wanted |= {atom for atom in more if isinstance(atom, Var)}
        self.rest, self.sums = rest[::-1], sums
        self._operands = targets = [atom for total in sums.values() for atom in total.operands if isinstance(atom, Var)]
        fixed = {var for eqn in program.equations for var in eqn.outvars if var not in self._states}
        fixed |= {self.argument, *program.constants}
        self.local = Stage((self.argument,), tuple(targets), needed(reader.equations, targets, fixed))

    def derivatives(self, point: Any, *, order: int, chunk_size: int | None) -> Arrays:
        """∂ⁿf/∂a_eⁿ, n = 1 … `order`, in the shape of the point; `chunk_size` elements at a time."""
        made = Stage((self.argument,), (), self._program.equations)
        known = {
            **self._program.constants,
            **dict(zip(made.defined, made(self._program.constants, point)[1], strict=True)),
        }
        fixed = {var: value for var, value in known.items() if var not in self._states}
        owners = np.broadcast_to(self.owner, (*point.shape[:-1], 1)).reshape(-1)
        moving = np.unique(owners[owners != NOWHERE])
        found = self._of_moving(fixed, point, moving, order, chunk_size)
        places = np.searchsorted(moving, owners)
        places[owners == NOWHERE] = 0
        found = [each[:, places].T.astype(point.dtype) for each in found]  # [position, channel]
        if (still := np.flatnonzero(owners == NOWHERE)).size:
            channels = np.arange(point.shape[-1])
            elements = (still[:, None] * channels.size + channels).reshape(-1)
            whole = Stage((self.argument,), self._program.outputs, self._program.equations)
            chunk = chunk_size or chunk_length(elements.size, whole.defined, order=order)
            g = partial(whole.scalar, self._program.constants)
            rows = along_elements(g, point, elements, order=order, slope=forward, chunk_size=chunk)
            found = [each.at[still].set(row.reshape(still.size, -1)) for each, row in zip(found, rows, strict=True)]
        return tuple(each.reshape(point.shape) for each in found)

    def _of_moving(
        self, fixed: Mapping[Var, Any], point: Any, moving: np.ndarray, order: int, chunk_size: int | None
    ) -> Arrays:
        """`[channel, position]` for each order."""
        totals = [each.sum(0) for each in self._terms(self.local(fixed, point)[0])]
        picks = [_picks(total.owner, moving) for total in self.sums.values()]
        length = point.shape[-1]
        channels, _ = varied((jnp.arange(length), point))

        def along_channel(channel: Any) -> Arrays:
            # Along the channel at all positions at once: each term moves with its own position only.
            unit = jnp.broadcast_to((jnp.arange(length) == channel).astype(point.dtype), point.shape)
            curves = followed(self.local.equations, fixed, {self.argument: (point, unit, *[None] * (order - 1))})
            operands = [curves.get(var) for var in self._operands]
            still = [fixed.get(var) for var in self._operands]
            places = [place for place, curve in enumerate(operands) if curve is not None]

            def terms(*moving: Any) -> tuple[Any, ...]:
                return self._terms([*(dict(enumerate(still)) | dict(zip(places, moving, strict=True))).values()])

            found = curve_of(terms, [curve for curve in operands if curve is not None])
            steps = [tuple(map(pick, rows)) for pick, (_, *rows) in zip(picks, found, strict=True)]
            return jax.vmap(of_position)(steps)

        def of_position(steps: Any) -> Arrays:
            return self._rest(fixed, [(total, *step) for total, step in zip(totals, steps, strict=True)])

        if chunk_size is None:
            rest = [var for eqn in self.rest for var in eqn.outvars]
            chunk_size = chunk_length(length, [*self.local.defined, *rest * moving.size], order=order)
        else:
            chunk_size = max(1, chunk_size // moving.size)
        return in_chunks(along_channel, channels, chunk_size)

    def _terms(self, operands: Sequence[Any]) -> tuple[Any, ...]:
        """Of every sum, from the local values that it is made of."""
        values = iter(operands)
        return tuple(
            total.terms([next(values) if isinstance(atom, Var) else atom.val for atom in total.operands])
            for total in self.sums.values()
        )

    def _rest(self, fixed: Mapping[Var, Any], totals: Sequence[Curve]) -> Arrays:
        """The derivatives of the output, from those of the sums."""
        known, fixed = dict[Var, Curve](), dict(fixed)
        curves = dict(zip(self.sums, totals, strict=True))
        for eqn in self.rest:
            (first, *_) = eqn.outvars
            if first not in curves:
                follow(eqn, fixed, known)
                continue
            curve = curves[first]
            for factor in self.sums[first].factors:
                by = known[factor.value]

                def scaled(x: Any, y: Any, factor: Factor = factor) -> tuple[Any]:
                    y = _aligned(y, factor.axes)
                    return (x / y if factor.divides else x * y,)

                (curve,) = curve_of(scaled, [curve, by])
            known[first] = tuple(each.astype(dtype(first)) for each in curve)
        (output,) = self._program.outputs
        assert isinstance(output, Var)
        return tuple(jnp.zeros_like(known[output][0]) if each is None else each for each in known[output][1:])


def _aligned(value: Any, axes: tuple[int | None, ...]) -> Any:
    """A factor with the axes of what it is a factor of."""
    kept = [axis for axis in axes if axis is not None]
    others = [axis for axis in range(value.ndim) if axis not in kept]
    value = jnp.transpose(
        value[tuple(slice(0, 1) if a in others else slice(None) for a in range(value.ndim))], kept + others
    )
    lengths = iter(value.shape)
    return value.reshape([1 if axis is None else next(lengths) for axis in axes])


def _picks(owner: np.ndarray, moving: np.ndarray) -> Any:
    """What takes terms to the positions that they belong to: `[term, ...]` to `[position, ...]`."""
    places = [np.flatnonzero(owner == position) for position in moving]
    most = max(1, *(len(each) for each in places))
    index = np.array([[*each, *[owner.size] * (most - len(each))] for each in places])  # beyond the last: a zero

    def pick(terms: Any) -> Any:
        if most == 1 and index.max() < owner.size:
            return terms[index[:, 0]]
        padded = jnp.concatenate([terms, jnp.zeros_like(terms[:1])])
        return padded[index].sum(1)

    return pick

"""What each value of a program is, seen from the positions of its argument: rows, a sum over them, or what follows.

    a [16, k]                      rows: row p moves with position p
    k = norm(a) @ K                rows: dense layers, norms and activations act position by position
    e = exp(q @ k.T) [1, 16]       rows: column p moves with position p, as long as q stands still
    Z = e.sum() [1]                a sum: its 16 terms move with one position each
    w = e / Z                      rows e, and a factor 1 / Z, the same for all, that waits
    o = w @ v                      a sum, of e @ v, and multiplied with the factor afterwards: (Σ e_p v_p) / Z
    head(o)                        global: moves with the sums

Anything else that positions meet in is mixed, and not looked into.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Var
from jax.extend.core import primitives as core

from jaxcam.programs.moves import Constants, compressed, moved
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Atom, Program, is_elementwise, moves, rule, runs, shape
from jaxcam.programs.slopes import has_its_slope

__all__ = ["NOWHERE", "ClashError", "Factor", "Global", "Reader", "Rows", "Sum"]

NOWHERE = -1
"""The position of what stands still."""


class Factor(NamedTuple):
    """What all terms of a sum are multiplied with, or divided by."""

    value: Var
    axes: tuple[int | None, ...]
    """For each axis of the terms the axis of `value` that it is; None where it does not vary."""
    divides: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """A value each of whose elements moves with one position, or with none."""

    value: Atom
    """Without the factors."""
    owner: np.ndarray
    """Which position that is: an array with the axes of the value, of length 1 where it is the same all along."""
    factors: tuple[Factor, ...] = ()
    """What waits until after the sum."""


@dataclass(frozen=True)
class Global:
    """A value that moves with the sums."""

    varies: tuple[bool, ...]
    """Along which axes."""


class Mixed:
    """A value in which positions meet in another way than in a sum."""


State: TypeAlias = Rows | Global | Mixed


class Sum(NamedTuple):
    """A sum over the positions: a reduce_sum, or a dot_general that contracts them."""

    equation: JaxprEqn
    operands: tuple[Atom, ...]
    """Those of the equation, without the factors."""
    apart: tuple[int, ...]
    """Which of the axes that are summed, or of the pairs that are contracted, have the positions."""
    owner: np.ndarray
    """`[term]`: to which position each term belongs."""
    factors: tuple[Factor, ...]
    """Of the result."""

    def terms(self, operands: Sequence[Any]) -> Any:
        """`[term, *result]`: what is summed."""
        p = self.equation.params
        if self.equation.primitive is lax.reduce_sum_p:
            (value,) = operands
            axes = [int(axis) for axis in p["axes"]]
            apart = [axes[i] for i in self.apart]
            value = jnp.moveaxis(value, apart, range(len(apart)))
            # Axes beyond those: where the others that are summed are now.
            order = [*apart, *(axis for axis in range(value.ndim) if axis not in apart)]
            terms = value.sum([order.index(axis) for axis in axes if axis not in apart])
        else:
            contracting, batch = p["dimension_numbers"]
            contracted, batched = [], []
            for pairs, others in zip(contracting, batch, strict=True):
                contracted.append(tuple(axis for i, axis in enumerate(pairs) if i not in self.apart))
                batched.append((*(pairs[i] for i in self.apart), *others))
            numbers = (tuple(contracted), tuple(batched))
            left, right = operands
            terms = lax.dot_general(
                left, right, numbers, precision=p["precision"], preferred_element_type=p["preferred_element_type"]
            )
        return terms.reshape(-1, *terms.shape[len(self.apart) :])


class ClashError(Exception):
    """Elements that move with two positions at once; they move with one if these stand still."""

    def __init__(self, still: set[int]) -> None:
        super().__init__()
        self.still = still


class Reader:
    """What each value of a program is."""

    def __init__(self, program: Program, owner: np.ndarray) -> None:
        self.program, self.owner = program, owner
        self.states: dict[Var, State] = {program.arguments[0]: Rows(program.arguments[0], owner)}
        """What is in here moves."""
        self.sums: dict[Var, Sum] = {}
        self.equations: list[JaxprEqn] = []
        """Those of the program, and beside them what they make of values without their factors."""
        self._constants = Constants(program)

    def read(self) -> bool:
        """Whether the output moves with sums over the positions, and in no other way."""
        for eqn in self.program.equations:
            self.equations.append(eqn)
            states = [self.states.get(atom) if isinstance(atom, Var) else None for atom in eqn.invars]
            if any(states) and eqn.primitive is not core.stop_gradient_p:
                for var, found in zip(eqn.outvars, self._results(eqn, states), strict=True):
                    # Masks and counts are locally constant: they stand still, whatever they are made of.
                    stands = isinstance(found, Rows) and not found.factors and (found.owner == NOWHERE).all()
                    if moves(var) and not stands:
                        self.states[var] = found
        (output,) = self.program.outputs
        return isinstance(output, Var) and isinstance(self.states.get(output), Global)

    def _results(self, eqn: JaxprEqn, states: Sequence[State | None]) -> list[State]:
        if any(isinstance(state, Mixed) for state in states) or not _is_a_curve(eqn, states):
            return [Mixed()] * len(eqn.outvars)
        if not any(isinstance(state, Rows) for state in states):
            return [Global(_varies(eqn, states, var)) for var in eqn.outvars]
        found: Sequence[State] | None = None
        if any(isinstance(state, Global) for state in states):
            found = self._scaled(eqn, states)
        elif about(eqn).elementwise or (about(eqn).runs is Runs.CUSTOM and is_elementwise(eqn)):
            found = self._elementwise(eqn, states)
        elif about(eqn).moves is not None or eqn.primitive is lax.scatter_p:
            found = self._moved(eqn, states)
        elif about(eqn).reduces is not None and "axes" in eqn.params and not about(eqn).windowed:
            found = self._reduced(eqn, states[0])
        elif eqn.primitive is lax.dot_general_p:
            found = self._product(eqn, states)
        elif eqn.primitive is lax.conv_general_dilated_p:
            found = self._dense(eqn, states)
        return [Mixed()] * len(eqn.outvars) if found is None else [*found]

    def _scaled(self, eqn: JaxprEqn, states: Sequence[State | None]) -> list[State] | None:
        """Rows that are divided by, or multiplied with, something global: the factor waits."""
        if eqn.primitive not in (lax.mul_p, lax.div_p) or not isinstance(states[1], Global | Rows):
            return None
        place = 0 if isinstance(states[0], Rows) else 1
        rows, factor, atom = states[place], states[1 - place], eqn.invars[1 - place]
        if not isinstance(rows, Rows) or not isinstance(factor, Global) or not isinstance(atom, Var):
            return None
        if eqn.primitive is lax.div_p and place == 1:
            return None
        (out,) = eqn.outvars
        if shape(eqn.invars[place]) != shape(out):
            return None
        along = factor.varies or (False,) * rows.owner.ndim  # lax.mul and lax.div take a scalar as it is, too
        if any(n > 1 and varies for n, varies in zip(rows.owner.shape, along, strict=True)):
            return None
        axes = tuple(axis if varies else None for axis, varies in enumerate(along))
        waiting = Factor(atom, axes, eqn.primitive is lax.div_p)
        return [Rows(rows.value, rows.owner, (*rows.factors, waiting))]

    def _elementwise(self, eqn: JaxprEqn, states: Sequence[State | None]) -> list[State] | None:
        rows = [state for state in states if isinstance(state, Rows)]
        rank = len(shape(eqn.outvars[0]))
        if any(row.owner.ndim != rank for row in rows):
            return None
        waiting = [row for row in rows if row.factors]
        if waiting and not self._is_proportional(eqn, states, waiting):
            return None
        owner = _together([row.owner for row in rows])
        return self._plain(eqn, states, [owner] * len(eqn.outvars), waiting[0].factors if waiting else ())

    def _is_proportional(self, eqn: JaxprEqn, states: Sequence[State | None], waiting: Sequence[Rows]) -> bool:
        """Whether a factor of the one operand that has some is one of the result."""
        (place, *others) = [i for i, state in enumerate(states) if state in waiting]
        same_shape = shape(eqn.invars[place]) == shape(eqn.outvars[0])
        if others or not same_shape or len(eqn.outvars) > 1:
            return False
        return eqn.primitive in (lax.mul_p, *_PROPORTIONAL) or (eqn.primitive is lax.div_p and place == 0)

    def _moved(self, eqn: JaxprEqn, states: Sequence[State | None]) -> list[State] | None:
        owners = [state.owner if isinstance(state, Rows) else None for state in states]
        found = moved(eqn, owners, self._constants, fill=NOWHERE)
        factors = _moved_factors(eqn, states)
        return None if found is None or factors is None else self._plain(eqn, states, found, factors)

    def _reduced(self, eqn: JaxprEqn, rows: State | None) -> list[State] | None:
        assert isinstance(rows, Rows)
        axes, rank = [int(axis) for axis in eqn.params["axes"]], rows.owner.ndim
        left = [axis for axis in range(rank) if axis not in axes]
        is_sum = eqn.primitive is lax.reduce_sum_p
        factors = _placed(rows.factors, {axis: place for place, axis in enumerate(left)}, len(left))
        if factors is None or (factors and not is_sum):
            return None
        owner = rows.owner.transpose(*axes, *left)
        if owner.shape[: len(axes)] == (1,) * len(axes):
            return self._plain(eqn, [rows], [owner.reshape(owner.shape[len(axes) :])] * len(eqn.outvars), factors)
        if not is_sum or owner.shape[len(axes) :] != (1,) * len(left):
            return None
        return self._summed(eqn, (rows.value,), axes, owner.reshape(owner.shape[: len(axes)]), factors)

    def _product(self, eqn: JaxprEqn, states: Sequence[State | None]) -> list[State] | None:
        contracting, batch = eqn.params["dimension_numbers"]
        rank, start = len(shape(eqn.outvars[0])), len(batch[0])
        inner, outer, factors = list[np.ndarray](), list[np.ndarray](), list[Factor]()
        for operand, state, contracted, batched in zip(eqn.invars, states, contracting, batch, strict=True):
            free = [axis for axis in range(len(shape(operand))) if axis not in (*contracted, *batched)]
            places = dict(zip((*batched, *free), (*range(len(batched)), *range(start, start + len(free))), strict=True))
            start += len(free)
            if not isinstance(state, Rows):
                continue
            found = _placed(state.factors, places, rank)
            if found is None:
                return None
            factors += found
            along, across = ([state.owner.shape[axis] for axis in axes] for axes in (contracted, places))
            if max([1, *along]) > 1 and max([1, *across]) > 1:
                return None
            if max([1, *along]) > 1:
                inner.append(state.owner.transpose(*contracted, *places).reshape(along))
            else:
                lengths = [1] * rank
                for axis, place in places.items():
                    lengths[place] = state.owner.shape[axis]
                ordered = sorted(places, key=lambda axis: places[axis])
                outer.append(state.owner.transpose(*ordered, *contracted).reshape(lengths))
        if not inner:
            return self._plain(eqn, states, [_together(outer)], tuple(factors))
        if any(owner.size > 1 or (owner != NOWHERE).any() for owner in outer):
            return None
        values = tuple(s.value if isinstance(s, Rows) else atom for s, atom in zip(states, eqn.invars, strict=True))
        return self._summed(eqn, values, contracting[0], _together(inner), tuple(factors))

    def _dense(self, eqn: JaxprEqn, states: Sequence[State | None]) -> list[State] | None:
        """A convolution whose window is one position: a dense layer."""
        rows, p = states[0], eqn.params
        images, kernels, results = p["dimension_numbers"]
        window = [shape(eqn.invars[1])[axis] for axis in kernels[2:]]
        is_dense = {*window, *p["window_strides"], *p["lhs_dilation"], p["batch_group_count"]} == {1}
        if not is_dense or any(map(any, p["padding"])) or states[1] is not None:
            return None
        if not isinstance(rows, Rows) or rows.factors or rows.owner.shape[images[1]] > 1:
            return None
        origin = dict(zip(results, images, strict=True))
        return self._plain(eqn, states, [rows.owner.transpose([origin[axis] for axis in sorted(origin)])], ())

    def _plain(
        self,
        eqn: JaxprEqn,
        states: Sequence[State | None],
        owners: Sequence[np.ndarray],
        factors: tuple[Factor, ...],
    ) -> list[State]:
        """Results that are rows: where factors wait, of the operands without them."""
        values: Sequence[Atom] = eqn.outvars
        if any(isinstance(state, Rows) and state.factors for state in states):
            own = [state.value if isinstance(state, Rows) else None for state in states]
            invars = [atom if value is None else value for atom, value in zip(eqn.invars, own, strict=True)]
            outvars = [Var(var.aval) for var in eqn.outvars]
            self.equations.append(eqn.replace(invars=invars, outvars=outvars))
            values = outvars
        return [Rows(value, compressed(owner), factors) for value, owner in zip(values, owners, strict=True)]

    def _summed(
        self,
        eqn: JaxprEqn,
        values: tuple[Atom, ...],
        axes: Sequence[int],
        owner: np.ndarray,
        factors: tuple[Factor, ...],
    ) -> list[State]:
        """A sum over these axes of the first operand; `owner` has one for each of them."""
        (out,) = eqn.outvars
        apart = tuple(i for i, n in enumerate(owner.shape) if n > 1)
        lengths = [shape(eqn.invars[0])[axes[i]] for i in apart]
        owner = np.broadcast_to(owner.reshape([owner.shape[i] for i in apart]), lengths).reshape(-1)
        self.sums[out] = Sum(eqn, values, apart, owner, factors)
        return [Global(tuple(n > 1 for n in shape(out)))]


_PROPORTIONAL = (lax.neg_p, lax.convert_element_type_p, lax.copy_p, core.name_p)


def _is_a_curve(eqn: JaxprEqn, states: Sequence[State | None]) -> bool:
    """Whether derivatives above the first are those of the first: not where a rule says another slope than its value's.

    Of those JAX takes the second derivative of the value that the rule returns, which is along no one curve.
    """
    if eqn.primitive is core.custom_jvp_call_p:
        moving = [place for place, state in enumerate(states) if state is not None]
        return has_its_slope(rule(eqn, moving), moving)
    return not runs([eqn], lambda facts: facts.runs is Runs.CUSTOM)


def _varies(eqn: JaxprEqn, states: Sequence[State | None], out: Var) -> tuple[bool, ...]:
    """Along which axes a value that moves with the sums does not only repeat itself."""
    lengths = shape(out)
    if eqn.primitive is lax.broadcast_in_dim_p:
        (state, *_) = states
        assert isinstance(state, Global)
        axes = dict(zip(map(int, eqn.params["broadcast_dimensions"]), state.varies, strict=True))
        return tuple(axes.get(axis, False) for axis in range(len(lengths)))
    if about(eqn).elementwise:
        own = [
            state.varies if isinstance(state, Global) else tuple(n > 1 for n in shape(atom))
            for state, atom in zip(states, eqn.invars, strict=True)
            if len(shape(atom)) == len(lengths)
        ]
        return tuple(any(each) for each in zip(*own, strict=True))
    return tuple(n > 1 for n in lengths)


def _together(owners: Sequence[np.ndarray]) -> np.ndarray:
    """The one position that each element moves with."""
    found, *others = owners
    for other in others:
        both = (found != NOWHERE) & (other != NOWHERE) & (found != other)
        if both.any():
            sides = [{*map(int, np.unique(side))} - {NOWHERE} for side in (found, other)]
            raise ClashError(min(sides, key=len))
        found = np.where(found == NOWHERE, other, found)
    return found


def _moved_factors(eqn: JaxprEqn, states: Sequence[State | None]) -> tuple[Factor, ...] | None:
    """The factors of what is moved; None where their axes are not known afterwards."""
    rows = [state for state in states if isinstance(state, Rows)]
    if not any(row.factors for row in rows):
        return ()
    if len(rows) > 1 or len(eqn.outvars) > 1 or not isinstance(states[0], Rows):
        return None
    (row,), old, new, p = rows, shape(eqn.invars[0]), shape(eqn.outvars[0]), eqn.params
    if eqn.primitive is lax.transpose_p:
        places: list[int | None] = [*p["permutation"]]
    elif eqn.primitive is lax.squeeze_p:
        places = [axis for axis in range(len(old)) if axis not in p["dimensions"]]
    elif eqn.primitive is lax.broadcast_in_dim_p:
        where = {int(there): axis for axis, there in enumerate(p["broadcast_dimensions"])}
        places = [where.get(axis) for axis in range(len(new))]
    elif eqn.primitive is lax.reshape_p:
        # An axis that is alone an axis of the operand is known by how many elements stand before it.
        before = {(math.prod(old[:axis]), n): axis for axis, n in enumerate(old) if n > 1}
        places = [before.get((math.prod(new[:axis]), n)) for axis, n in enumerate(new)]
        kept = {axis for axis in places if axis is not None}
        if any(axis is not None and i not in kept for factor in row.factors for i, axis in enumerate(factor.axes)):
            return None
    elif eqn.primitive is lax.slice_p:
        places = [axis if n == old[axis] else None for axis, n in enumerate(new)]
        if any(factor.axes[axis] is not None for factor in row.factors for axis, n in enumerate(places) if n is None):
            return None
    else:
        return None
    return tuple(
        factor._replace(axes=tuple(None if place is None else factor.axes[place] for place in places))
        for factor in row.factors
    )


def _placed(factors: Sequence[Factor], places: Mapping[int, int], rank: int) -> tuple[Factor, ...] | None:
    """The factors of a sum, of which these axes are left, at these places; None where one varies along the others."""
    found = []
    for factor in factors:
        axes: list[int | None] = [None] * rank
        for axis, own in enumerate(factor.axes):
            if axis in places:
                axes[places[axis]] = own
            elif own is not None:
                return None
        found.append(factor._replace(axes=tuple(axes)))
    return tuple(found)

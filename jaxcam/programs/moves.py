"""Where primitives that only move elements put them: the same moves, made with small arrays of whole numbers.

An array that says something of each element of a value has the value's number of axes, and length 1 along all axes
along which it says the same:

    value [1, 14, 14, 192]     "which row": [1, 14, 1, 1]     "which column": [1, 1, 14, 1]
    reshape to [1, 196, 192]   "which row": [1, 196, 1]       "which column": [1, 196, 1]

So a picture of a million numbers costs a few hundred. What comes from elsewhere (padding, a class token) is `fill`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import JaxprEqn, Literal, Primitive, Var

from jaxcam.programs.program import Atom, Program, needed, shape, size

__all__ = ["Constants", "compressed", "moved"]

Values = Sequence[np.ndarray | None]
"""For each operand, or result, what is said of it; None where nothing is: its elements come from elsewhere."""

_MOST = 2**22
"""Elements of a value of which each is looked at by itself."""


class Constants:
    """The values in a program that depend on no argument: indices as `t[:, 1:]` or `jnp.roll` make them."""

    def __init__(self, program: Program) -> None:
        self._program = program
        unknown: set[Atom] = {*program.arguments}
        for eqn in program.equations:
            if not unknown.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
                unknown.update(eqn.outvars)
        self._unknown = unknown

    def __contains__(self, atom: Atom) -> bool:
        return isinstance(atom, Literal) or atom not in self._unknown

    def __getitem__(self, atom: Atom) -> np.ndarray | None:
        """The value; None where it is not known before the program runs."""
        if isinstance(atom, Literal):
            return np.asarray(atom.val)
        known = {var: value for var, value in self._program.constants.items() if not isinstance(value, Tracer)}
        equations = needed(self._program.equations, [atom], known)
        made = {var for eqn in equations for var in eqn.outvars}
        asked = {a for eqn in equations for a in eqn.invars if isinstance(a, Var)} | {atom}
        if atom not in self or not asked <= made | {*known}:
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(self._program.stage((), (atom,), known)(known)[0][0])


def moved(eqn: JaxprEqn, values: Values, constants: Constants, *, fill: int) -> list[np.ndarray] | None:
    """What is said of the results, given what is said of the operands; None where the equation does more than move.

    Where several operands are said something of they must be joined (concatenate, stack) or put into one another
    (scatter); of all others the first is moved.
    """
    rule = _RULES.get(eqn.primitive, _RULES.get(eqn.primitive.name))
    if rule is not None:
        found = rule(eqn, values, constants, fill)
        return None if found is None else [compressed(x) for x in found]
    if eqn.primitive in (lax.gather_p, lax.dynamic_slice_p):
        return _picked(eqn, values[0], constants, fill)
    return None


def compressed(values: np.ndarray) -> np.ndarray:
    """The same with length 1 along each axis along which nothing changes."""
    for axis, length in enumerate(values.shape):
        if length > 1:
            first = values[(slice(None),) * axis + (slice(0, 1),)]
            if (values == first).all():
                values = first
    return values


def _transposed(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    return [_only(values).transpose(eqn.params["permutation"])]


def _squeezed(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    return [_only(values).squeeze(tuple(eqn.params["dimensions"]))]


def _broadcast(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value, lengths = _only(values), [1] * len(shape(eqn.outvars[0]))
    for axis, length in zip(eqn.params["broadcast_dimensions"], value.shape, strict=True):
        lengths[axis] = length
    return [value.reshape(lengths)]


def _reshaped(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value, old, new = _only(values), shape(eqn.invars[0]), shape(eqn.outvars[0])
    whole: list[int] = []  # as the value is, but each group of axes in full where anything changes along it
    lengths: list[int] = []
    for before, after in _groups(old, new):
        changes = any(value.shape[axis] > 1 for axis in before)
        whole += [old[axis] if changes else 1 for axis in before]
        lengths += [new[axis] if changes else 1 for axis in after]
    return [np.broadcast_to(value, whole).reshape(lengths)]


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The least groups of axes that go to groups: for [2, 3, 4] -> [6, 2, 2] they are ([0, 1], [0]), ([2], [1, 2])."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = ([i] if i < len(old) else []), ([j] if j < len(new) else [])
        left, right = (old[i] if before else 1), (new[j] if after else 1)
        i, j = i + len(before), j + len(after)
        while left != right:
            if left < right:
                left, i, before = left * old[i], i + 1, [*before, i]
            else:
                right, j, after = right * new[j], j + 1, [*after, j]
        groups.append((before, after))
    return groups


def _sliced(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value, p = _only(values), eqn.params
    steps = p["strides"] or (1,) * value.ndim
    limits = zip(p["start_indices"], p["limit_indices"], steps, strict=True)
    return [value[tuple(slice(*cut) if n > 1 else slice(None) for n, cut in zip(value.shape, limits, strict=True))]]


def _split(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value, axis, sizes = _only(values), eqn.params["axis"], eqn.params["sizes"]
    if value.shape[axis] == 1:
        return [value] * len(sizes)
    return np.split(value, np.cumsum(sizes)[:-1], axis)


def _unstacked(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value, axis = _only(values), eqn.params["axis"]
    parts = np.split(value, value.shape[axis], axis)
    return [parts[i if len(parts) > 1 else 0].squeeze(axis) for i in range(len(eqn.outvars))]


def _joined(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    axis = eqn.params["dimension"]
    rank = len(shape(eqn.outvars[0]))
    parts = [np.full((1,) * rank, fill) if value is None else value for value in values]
    lengths = [max(part.shape[i] for part in parts) for i in range(rank)]

    def whole(part: np.ndarray, atom: Atom) -> np.ndarray:
        return np.broadcast_to(part, [*lengths[:axis], shape(atom)[axis], *lengths[axis + 1 :]])

    return [np.concatenate([whole(part, atom) for part, atom in zip(parts, eqn.invars, strict=True)], axis)]


def _stacked(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    axis = eqn.params["axis"]
    rank = len(shape(eqn.outvars[0]))
    parts = [np.full((1,) * rank, fill) if value is None else np.expand_dims(value, axis) for value in values]
    lengths = [max(part.shape[i] for part in parts) for i in range(rank)]
    return [np.concatenate([np.broadcast_to(part, lengths) for part in parts], axis)]


def _padded(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value = _only(values)
    for axis, (low, high, between) in enumerate(eqn.params["padding_config"]):
        if value.shape[axis] == 1 or (low, high, between) == (0, 0, 0):
            continue  # what says the same along an axis says it of the padding, too: another axis tells them apart
        if between:
            spread = list(value.shape)
            spread[axis] += between * (value.shape[axis] - 1)
            apart = np.full(spread, fill)
            apart[(slice(None),) * axis + (slice(None, None, between + 1),)] = value
            value = apart
        around = [(0, 0)] * value.ndim
        around[axis] = (max(low, 0), max(high, 0))
        value = np.pad(value, around, constant_values=fill)
        kept = slice(max(-low, 0), value.shape[axis] - max(-high, 0))
        value = value[(slice(None),) * axis + (kept,)]
    return [value]


def _reversed(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    return [np.flip(_only(values), eqn.params["dimensions"])]


def _tiled(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray]:
    value = _only(values)
    return [np.tile(value, [n if length > 1 else 1 for n, length in zip(eqn.params["reps"], value.shape, strict=True)])]


def _picked(eqn: JaxprEqn, value: np.ndarray | None, constants: Constants, fill: int) -> list[np.ndarray] | None:
    """Of a gather: by JAX itself, for its indices can mean many things. None where these are not constants."""
    operand, *indices = eqn.invars
    if value is None or size(operand) > _MOST or size(eqn.outvars[0]) > _MOST:
        return None
    if value.size == 1 and eqn.primitive is lax.dynamic_slice_p:
        return [value]
    if eqn.primitive is lax.dynamic_slice_p and all(
        n == 1 or length == out
        for n, length, out in zip(value.shape, shape(operand), shape(eqn.outvars[0]), strict=True)
    ):
        return [value]  # what it picks along the other axes does not matter
    known = [constants[atom] for atom in indices]
    if any(index is None for index in known):
        return None
    params = {**eqn.params, "fill_value": fill} if "fill_value" in eqn.params else eqn.params
    with jax.ensure_compile_time_eval():
        whole = jnp.broadcast_to(jnp.asarray(value, jnp.int32), shape(operand))
        starts = [jnp.asarray(index) for index in known]
        bound = jax.jit(lambda *arrays: eqn.primitive.bind(*arrays, **params))
        return [compressed(np.asarray(bound(whole, *starts)))]


def _put(eqn: JaxprEqn, values: Values, constants: Constants, fill: int) -> list[np.ndarray] | None:
    """Of a scatter, `x.at[indices].set(y)`: by JAX itself, too."""
    operand, indices, updates = eqn.invars
    known, p = constants[indices], eqn.params
    if known is None or size(operand) > _MOST:
        return None
    with jax.ensure_compile_time_eval():
        said, put = (
            jnp.broadcast_to(jnp.asarray(fill if value is None else value, jnp.int32), shape(atom))
            for atom, value in ((operand, values[0]), (updates, values[2]))
        )
        found = lax.scatter(
            said,
            jnp.asarray(known),
            put,
            p["dimension_numbers"],
            indices_are_sorted=p["indices_are_sorted"],
            unique_indices=p["unique_indices"],
            mode=p["mode"],
        )
        return [np.asarray(found)]


def _only(values: Values) -> np.ndarray:
    (first, *_) = (value for value in values if value is not None)
    return first


_Rule = Callable[[JaxprEqn, Values, Constants, int], "list[np.ndarray] | None"]

_RULES: dict[Primitive | str, Any] = {
    lax.transpose_p: _transposed,
    lax.squeeze_p: _squeezed,
    lax.broadcast_in_dim_p: _broadcast,
    lax.reshape_p: _reshaped,
    lax.slice_p: _sliced,
    lax.split_p: _split,
    "unstack": _unstacked,
    lax.concatenate_p: _joined,
    "stack": _stacked,
    lax.pad_p: _padded,
    lax.rev_p: _reversed,
    lax.scatter_p: _put,
    "tile": _tiled,
}

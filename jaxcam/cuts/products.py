"""What products, sums and windows make of positions: where several elements become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from jax.extend.core import JaxprEqn, Var

from jaxcam.cuts.fields import Field
from jaxcam.cuts.positions import Positions, Where, line, stepped, without
from jaxcam.programs.moves import Constants
from jaxcam.programs.program import shape

__all__ = ["convolved", "multiplied", "placed", "reduced", "windowed"]


def multiplied(eqn: JaxprEqn, wheres: Sequence[Where | str], learned: set[Var], constants: Constants) -> Where:
    """Of a product: free and batch axes keep their positions, those that are contracted go."""
    contracted, _ = eqn.params["dimension_numbers"]
    found: list[Positions] = []
    is_unknown = False
    for side, where in enumerate(wheres):
        if not isinstance(where, tuple):
            continue
        for positions in where:
            resized = _resized(eqn, side, positions, learned, constants)
            if resized is not None:
                found.append(resized)
                continue
            (left, irregular) = without(positions, contracted[side])
            is_unknown |= irregular
            if left is None:
                continue
            found.append(replace(left, coordinates=tuple(placed(eqn, side, c) for c in left.coordinates)))
    return tuple(found) if found or not is_unknown else None


def placed(eqn: JaxprEqn, side: int, values: np.ndarray) -> np.ndarray:
    """What is said of an operand of a product, with length 1 along the axes that go, where it is in the result."""
    contracted, batch = eqn.params["dimension_numbers"]
    free = [a for a in range(values.ndim) if a not in (*contracted[side], *batch[side])]
    others = [1] * (len(shape(eqn.outvars[0])) - len(batch[side]) - len(free))
    # In the result the batch comes first, then the free axes of the left operand, then those of the right one.
    first, rest = [values.shape[a] for a in batch[side]], [values.shape[a] for a in free]
    lengths = [*first, *rest, *others] if side == 0 else [*first, *others, *rest]
    return values.transpose([*batch[side], *free, *contracted[side]]).reshape(lengths)


def _resized(
    eqn: JaxprEqn, side: int, positions: Positions, learned: set[Var], constants: Constants
) -> Positions | None:
    """Of a product with a matrix that is no weight, along rows in their order: they are resized, as images are."""
    contracted, batch = eqn.params["dimension_numbers"]
    other = eqn.invars[1 - side]
    is_made = other in constants and other not in learned  # of numbers that count, and no weights
    if batch[0] or len(contracted[0]) != 1 or not is_made or len(shape(other)) != 2:
        return None
    axis = contracted[side][0]
    i = line(positions, axis, shape(eqn.invars[side])[axis])
    if i is None:
        return None
    rank = len(shape(eqn.invars[side]))
    kept = [a for a in range(rank) if a != axis]
    new = 0 if side == 1 else rank - 1
    (length,) = (shape(other)[a] for a in (0, 1) if a != contracted[1 - side][0])
    lengths = [1] * rank
    lengths[new] = length
    coordinates = [np.expand_dims(c.transpose([*kept, axis])[..., 0], new) for c in positions.coordinates]
    coordinates[i] = np.arange(length).reshape(lengths)
    sizes = [length if j == i else size for j, size in enumerate(positions.sizes)]
    # Which pixels they are of is for the numbers in the matrix to say.
    fields = [None if j == i else field for j, field in enumerate(positions.fields)]
    return Positions(tuple(sizes), tuple(coordinates), tuple(fields))


def reduced(where: Iterable[Positions], axes: Sequence[int], *, keep: bool) -> Where:
    """Of a sum or a maximum over some axes, which stay with length 1 or go."""
    found: list[Positions] = []
    is_unknown = False
    for positions in where:
        left, irregular = without(positions, axes)
        is_unknown |= irregular
        if left is not None:
            gone = () if keep else tuple(axes)
            found.append(replace(left, coordinates=tuple(c.squeeze(gone) if gone else c for c in left.coordinates)))
    return tuple(found) if found or not is_unknown else None


def convolved(eqn: JaxprEqn, where: Iterable[Positions]) -> Where:
    """Of a convolution."""
    numbers, p = eqn.params["dimension_numbers"], eqn.params
    if p["batch_group_count"] > 1:
        return None
    before = reduced(where, [numbers.lhs_spec[1]], keep=True)
    if before is None:
        return None
    found: list[Positions] = []
    for positions in before:
        here: Positions | None = positions
        for i, (axis, to) in enumerate(zip(numbers.lhs_spec[2:], numbers.out_spec[2:], strict=True)):
            length, out = shape(eqn.invars[0])[axis], shape(eqn.outvars[0])[to]
            step, apart = p["window_strides"][i], p["lhs_dilation"][i]
            wide = p["rhs_dilation"][i] * (shape(eqn.invars[1])[numbers.rhs_spec[2 + i]] - 1)
            before_it = -p["padding"][i][0]
            window = Field(step / apart, before_it / apart, (before_it + wide) / apart)
            here = here and stepped(here, axis, length, out, window, same=step == apart == 1)
        if here is None:
            return None
        order = [0] * len(numbers.out_spec)
        for from_, to in zip(numbers.lhs_spec, numbers.out_spec, strict=True):
            order[to] = from_
        found.append(replace(here, coordinates=tuple(c.transpose(order) for c in here.coordinates)))
    return tuple(found)


def windowed(eqn: JaxprEqn, where: Iterable[Positions]) -> Where:
    """Of pooling by windows."""
    p = eqn.params
    found: list[Positions] = []
    for positions in where:
        here: Positions | None = positions
        for axis, size in enumerate(p["window_dimensions"]):
            step, length, out = p["window_strides"][axis], shape(eqn.invars[0])[axis], shape(eqn.outvars[0])[axis]
            if size > 1 or step > 1 or length != out:
                apart, start = p["base_dilation"][axis], -p["padding"][axis][0]
                wide = p["window_dilation"][axis] * (size - 1)
                window = Field(step / apart, start / apart, (start + wide) / apart)
                here = here and stepped(here, axis, length, out, window, same=step == 1)
        if here is None:
            return None
        found.append(here)
    return tuple(found)

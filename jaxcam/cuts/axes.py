"""Which axis of a value holds the channels, read off the program: nobody has to say "channels first".

A convolution names its axes (`dimension_numbers`), and so does a dense layer (the axis it contracts and the one it
makes). From there the axis is followed through what keeps it: elementwise functions, pooling, padding, transposition.

    images [n, 3, H, W] -> conv NCHW -> [n, k, h, w]      channels on axis 1
                        -> transpose(0, 2, 3, 1)          channels on axis 3
                        -> dense on the last axis         channels on axis 3

Where the program does not show it the answer is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from jax import lax
from jax.extend.core import JaxprEqn, Literal, Primitive, Var

from jaxcam.programs.primitives import about
from jaxcam.programs.program import Program, is_elementwise, shape

__all__ = ["channel_axes", "image_channel_axis"]

Axes = dict[Var, int | None]
"""The channels' axis of each value that depends on the images."""

_ABSENT = -1
"""Of a value that has lost its channels: the mean that a layer norm subtracts says nothing of where they are."""


def channel_axes(program: Program, image: Var, image_axis: int | None = None) -> Axes:
    """The channels' axis of each value, given that of the images, one of the program's arguments."""
    found: Axes = {image: image_axis}
    for eqn in program.equations:
        operands = {i: atom for i, atom in enumerate(eqn.invars) if not isinstance(atom, Literal) and atom in found}
        if operands:
            axis = _axis_of_result(eqn, {i: found[atom] for i, atom in operands.items()})
            found.update(dict.fromkeys(eqn.outvars, axis))
    return {var: None if axis == _ABSENT else axis for var, axis in found.items()}


def image_channel_axis(program: Program, image: Var) -> int | None:
    """The axis of the images' channels: the one that the first convolutions contract; None where there are none."""
    num_axes = len(shape(image))
    for candidate in {1, num_axes - 1}:
        followed = channel_axes(program, image, candidate)
        for eqn in program.equations:
            if eqn.primitive is not lax.conv_general_dilated_p:
                continue
            images = eqn.invars[0]
            if isinstance(images, Var) and images in followed:
                if followed[images] == eqn.params["dimension_numbers"].lhs_spec[1]:
                    return candidate
                break
    return None


def _axis_of_result(eqn: JaxprEqn, axes: dict[int, int | None]) -> int | None:
    """The channels' axis of the results, given that of the operands, by place, that depend on the images."""
    if eqn.primitive is lax.conv_general_dilated_p:
        return eqn.params["dimension_numbers"].out_spec[1]
    if eqn.primitive is lax.dot_general_p:
        return _multiplied(eqn, axes)
    with_channels = {place: axis for place, axis in axes.items() if axis != _ABSENT}
    if not with_channels:
        return _ABSENT
    ranks = {len(shape(eqn.invars[place])) for place in with_channels}
    known = set(with_channels.values())
    if len(known) > 1 or None in known or len(ranks) > 1:
        return None  # they disagree, or nothing is known
    (axis,), (place, *_) = known, with_channels
    assert axis is not None
    operand, result = shape(eqn.invars[place]), shape(eqn.outvars[0])
    if (follow := _MOVES.get(eqn.primitive)) is not None:
        return follow(axis, eqn.params, operand, result)
    if is_elementwise(eqn) or about(eqn).keeps_axes:
        return axis if len(operand) == len(result) else None
    return None


def _multiplied(eqn: JaxprEqn, axes: dict[int, int | None]) -> int | None:
    """Of one operand with channels and a kernel: they stay where they are, or the kernel brings others for them."""
    if len(axes) != 1:
        return None
    ((place, axis),) = axes.items()
    if axis is None or axis == _ABSENT:
        return None
    contracted, batch = eqn.params["dimension_numbers"]
    used = [{*contracted[side], *batch[side]} for side in (0, 1)]
    free = [[a for a in range(len(shape(eqn.invars[side]))) if a not in used[side]] for side in (0, 1)]
    # In the result the batch comes first, then the free axes of the left operand, then those of the right one.
    starts = len(batch[0]), len(batch[0]) + len(free[0])
    if axis in free[place]:
        return starts[place] + free[place].index(axis)
    if axis in batch[place]:
        return list(batch[place]).index(axis)
    is_dense = list(contracted[place]) == [axis] and len(free[1 - place]) == 1
    return starts[1 - place] if is_dense else None


def _transposed(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    return list(params["permutation"]).index(axis)


def _broadcast(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    return int(params["broadcast_dimensions"][axis])


def _squeezed(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    gone = params["dimensions"]
    return _ABSENT if axis in gone else axis - sum(1 for other in gone if other < axis)


def _reduced(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    gone = params["axes"]
    return _ABSENT if axis in gone else axis - sum(1 for other in gone if other < axis)


def _reshaped(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    # The axis is the same one where it has the same size and as much stands before it: [n, H, W, k] -> [n, H * W, k].
    before, size = prod(operand[:axis]), operand[axis]
    same = [i for i, n in enumerate(result) if n == size and prod(result[:i]) == before]
    return same[0] if len(same) == 1 and size > 1 else None


_MOVES: dict[Primitive, Callable[[int, Any, tuple[int, ...], tuple[int, ...]], int | None]] = {
    lax.transpose_p: _transposed,
    lax.broadcast_in_dim_p: _broadcast,
    lax.squeeze_p: _squeezed,
    lax.reshape_p: _reshaped,
    lax.reduce_max_p: _reduced,
    lax.reduce_min_p: _reduced,
    lax.reduce_sum_p: _reduced,
}

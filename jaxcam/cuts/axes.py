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


def channel_axes(program: Program, image_axis: int | None = None) -> Axes:
    """The channels' axis of each value, given that of the images, the program's last argument."""
    found: Axes = {program.arguments[-1]: image_axis}
    for eqn in program.equations:
        operands = {i: atom for i, atom in enumerate(eqn.invars) if not isinstance(atom, Literal) and atom in found}
        if operands:
            axis = _axis_of_result(eqn, {i: found[atom] for i, atom in operands.items()})
            found.update(dict.fromkeys(eqn.outvars, axis))
    return found


def image_channel_axis(program: Program) -> int | None:
    """The axis of the images' channels: the one that the first convolutions contract; None where there are none."""
    num_axes = len(shape(program.arguments[-1]))
    for candidate in {1, num_axes - 1}:
        followed = channel_axes(program, candidate)
        for eqn in program.equations:
            images = eqn.invars[0]
            if eqn.primitive is lax.conv_general_dilated_p and isinstance(images, Var) and images in followed:
                if followed[images] == eqn.params["dimension_numbers"].lhs_spec[1]:
                    return candidate
                break
    return None


def _axis_of_result(eqn: JaxprEqn, axes: dict[int, int | None]) -> int | None:
    """The channels' axis of the results, given that of the operands, by place, that depend on the images."""
    if eqn.primitive is lax.conv_general_dilated_p:
        return eqn.params["dimension_numbers"].out_spec[1]
    if eqn.primitive is lax.dot_general_p:
        return _made_by_dense(eqn, axes)
    ranks = {len(shape(eqn.invars[place])) for place in axes}
    known = set(axes.values())
    if len(known) > 1 or None in known or len(ranks) > 1:
        return None  # they disagree, or nothing is known
    (axis,), (place, *_) = known, axes
    assert axis is not None
    operand, result = shape(eqn.invars[place]), shape(eqn.outvars[0])
    if is_elementwise(eqn) or about(eqn).keeps_axes:
        return axis if len(operand) == len(result) else None
    follow = _MOVES.get(eqn.primitive)
    return follow(axis, eqn.params, operand, result) if follow else None


def _made_by_dense(eqn: JaxprEqn, axes: dict[int, int | None]) -> int | None:
    """Of a layer that contracts the channels of the one operand with a kernel: the axis that the kernel brings."""
    if len(axes) != 1:
        return None
    ((place, axis),) = axes.items()
    contracted, batch = eqn.params["dimension_numbers"]
    kernel, kernel_rank = 1 - place, len(shape(eqn.invars[1 - place]))
    brought = [a for a in range(kernel_rank) if a not in contracted[kernel] and a not in batch[kernel]]
    if contracted[place] != (axis,) or batch[place] or len(brought) != 1:
        return None
    # The free axes of the left operand come first in the result, then those of the right one.
    return 0 if place == 1 else len(shape(eqn.outvars[0])) - 1


def _transposed(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    return list(params["permutation"]).index(axis)


def _broadcast(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    return int(params["broadcast_dimensions"][axis])


def _squeezed(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    gone = params["dimensions"]
    return None if axis in gone else axis - sum(1 for other in gone if other < axis)


def _reduced(axis: int, params: Any, operand: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    gone = params["axes"]
    return None if axis in gone else axis - sum(1 for other in gone if other < axis)


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

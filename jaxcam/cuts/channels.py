"""Which axis of the images has the channels: the one that the first product contracts, never one that it slides along.

images [n, 3, H, W], kernel [O, 3, h, w]      axis 1: axes 2 and 3 are rows and columns
images [n, H, W] -> [n, H, W, 1]              none: it slides along all of them
nodes [n, t, d], (adjacency @ nodes) @ W      axis 2: the first product mixes positions, as a mixer's does; they last
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jax import lax
from jax.extend.core import JaxprEqn, Var

from jaxcam.cuts.axes import Axes, axes_of
from jaxcam.programs.program import Program, shape

__all__ = ["image_channel_axis", "slides_along_all"]

_PRODUCTS = (lax.conv_general_dilated_p, lax.dot_general_p)


def image_channel_axis(program: Program, image: Var, complete: Collection[Var]) -> int:
    """The axis of the images' channels; where no product says it, by their lengths.

    Args:
        program: the model.
        image: its argument.
        complete: the values that everything flows through.
    """
    return _contracted(program, image, complete) or _likely(shape(image))


def _contracted(program: Program, image: Var, complete: Collection[Var]) -> int | None:
    """The axis that the first convolution or product contracts, unless that mixes positions; None without one."""
    first = _until_product(program, image)
    product = first.equations[-1] if first.equations else None
    if product is None or product.primitive not in _PRODUCTS:
        return None
    candidates = {1, len(shape(image)) - 1} - _slid(first, image)
    # Were the other axis the channels', this one would be rows or columns, of which nothing were left.
    fitting = {a for a in candidates if _is_whole(product.outvars[0], axes_of(first, image, a), image, a)}
    lasting: dict[int, tuple[bool, bool]] = {}
    if product.primitive is lax.dot_general_p:
        later = [var for eqn in program.equations[len(first.equations) :] for var in eqn.outvars if var in complete]
        lasting = {a: _lasting(later, axes_of(program, image, a), image, a) for a in candidates}
        fitting |= {a for a, (lasts, _) in lasting.items() if lasts}
        # Nor is axis 1 the channels' because a product contracts it, as one that pools nodes does: (pools @ nodes) @ W.
        fitting -= {1} if lasting.get(1) not in (None, (True, True)) else set()
        if sorted(shape(product.outvars[0])) == sorted(shape(image)):  # as an adjacency matrix leaves it
            fitting.add(len(shape(image)) - 1)
    # An axis of length 1 fits either way: of one channel rather than of one row. And [n, t, d] is what is agreed on.
    return max(fitting, key=lambda axis: (shape(image)[axis] == 1, lasting.get(axis, ()), axis), default=None)


def _lasting(later: Sequence[Var], axes: Axes, image: Var, channel_axis: int) -> tuple[bool, bool]:
    """Whether the images' positions last while there are any, and whether pooling ends them.

    Both `adjacency @ nodes` and a dense layer of channels first contract axis 1. What weights contract while other
    positions are left, or what is left as `[n, k]` when these are pooled, were channels.
    """
    whole = [(sum(n > 1 for n in shape(var)), _is_whole(var, axes, image, channel_axis)) for var in later]
    before = [here for num_axes, here in whole if num_axes > 1]
    return before[-1:] == [True], (1, True) not in whole


def _is_whole(var: Var, axes: Axes, image: Var, channel_axis: int) -> bool:
    """Whether a value has all positions of the images, where `channel_axis` has their channels."""
    lengths = [n for axis, n in enumerate(shape(image)) if axis not in (0, channel_axis)]
    where = axes.get(var)
    return bool(where) and [c.size > 1 for c in where[0].coordinates] == [n > 1 for n in lengths]


def _likely(images: tuple[int, ...]) -> int:
    """Where no convolution says it: the first axis if only that one has the length of colours, else the last."""
    first, *between, last = images[1:]
    return 1 if first in (1, 3) and last > 4 and min(between, default=last) > 4 else len(images) - 1


def slides_along_all(program: Program, image: Var) -> bool:
    """Whether the first convolution slides along all axes of the images but n, of which none are channels then."""
    return _slid(_until_product(program, image), image) == {*range(1, len(shape(image)))}


def _slid(first: Program, image: Var) -> set[int]:
    """The axes of the images that the convolution at the end of a program slides along: rows, and no channels."""
    product = first.equations[-1] if first.equations else None
    if product is None or product.primitive is not lax.conv_general_dilated_p:
        return set()
    where = axes_of(first, image, 0).get(product.invars[0])  # type: ignore[arg-type]
    if where is None or len(where) != 1:
        return set()
    lhs, rhs, _ = product.params["dimension_numbers"]
    windows = {a: shape(product.invars[1])[b] for a, b in zip(lhs[2:], rhs[2:], strict=True)}
    lying = [[a for a, n in enumerate(c.shape) if n > 1] for c in where[0].coordinates]
    return {i for i, axes in enumerate(lying, 1) if len(axes) == 1 and windows.get(axes[0], 1) > 1}


def _until_product(program: Program, image: Var) -> Program:
    """The program up to the first product of what depends on the image."""
    moving: set[Var] = {image}
    equations: list[JaxprEqn] = []
    for eqn in program.equations:
        equations.append(eqn)
        if not moving.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            if eqn.primitive in _PRODUCTS:
                break
            moving.update(eqn.outvars)
    return Program(program.arguments, program.outputs, equations, program.constants, program.places)

"""Convolution by the fastest of several ways to write it: what `nnx.Conv` calls in place of `lax.conv_general_dilated`.

`rewritten` does the same for a convolution that stands in a program already, as those of PyTorch's models do. The ways
differ by rounding only. On two CPU cores, in float32, a 1x1 convolution as a matrix product was 1.2 to 2.5 times as
fast, and a depthwise one as a sum of shifted products 9 to 66 times (`tests/benchmarks/convolution.py`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import Array, Float

from jaxcam.programs.program import shape

Padding = str | Sequence[tuple[int, int]]


def convolution(
    inputs: Float[Array, "n H W d"],
    kernel: Float[Array, "h w d_group k"],
    strides: Sequence[int],
    padding: Padding,
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    feature_group_count: int = 1,
    precision: Any = None,
    **others: Any,
) -> Float[Array, "n H2 W2 k"]:
    """`lax.conv_general_dilated` for channels-last images."""
    size = kernel.shape[:2]
    pads = (
        jax.lax.padtype_to_pads(inputs.shape[1:3], size, strides, padding)
        if isinstance(padding, str)
        else list(padding)
    )
    dilated = any(step != 1 for step in (*lhs_dilation, *rhs_dilation))
    if size == (1, 1) and feature_group_count == 1 and not dilated and all(pad == (0, 0) for pad in map(tuple, pads)):
        rows, columns = strides
        return jnp.matmul(inputs[:, ::rows, ::columns], kernel[0, 0], precision=precision)

    def general(inputs: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            inputs,
            kernel,
            strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            feature_group_count=feature_group_count,
            precision=precision,
            **others,
        )

    if dilated or not feature_group_count == inputs.shape[-1] == kernel.shape[-1] > 1:
        return general(inputs, kernel)
    # Accelerators have kernels of their own for it; XLA's for the CPU is a plain loop.
    return jax.lax.platform_dependent(inputs, kernel, cpu=lambda x, w: _depthwise(x, w, strides, pads), default=general)


def convolution_of_patches(
    inputs: Float[Array, "n H W d"],
    kernel: Float[Array, "h w d_group k"],
    strides: Sequence[int],
    padding: Padding,
    **options: Any,
) -> Float[Array, "n H2 W2 k"]:
    """`lax.conv_general_dilated` for channels-last images as one matrix product; a dilated or grouped one as it is.

    For the body of a loop: there XLA for the CPU takes 11 times as long for its own with the gradients, and as long for
    the values alone (`tests/benchmarks/convolution.py`).
    """
    dilations = (*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ()))
    if options.get("feature_group_count", 1) != 1 or any(step != 1 for step in dilations):
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)
    size, (down, along) = kernel.shape[:2], strides
    pads = lax.padtype_to_pads(inputs.shape[1:3], size, strides, padding) if isinstance(padding, str) else padding
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    height, width = (whole - side + 1 for whole, side in zip(padded.shape[1:3], size, strict=True))
    patches = [padded[:, i : i + height : down, j : j + width : along] for i in range(size[0]) for j in range(size[1])]
    return jnp.matmul(
        jnp.concatenate(patches, -1), kernel.reshape(-1, kernel.shape[-1]), precision=options.get("precision")
    )


def convolution_3d(
    inputs: Float[Array, "n D H W d"],
    kernel: Float[Array, "e h w d k"],
    strides: Sequence[int],
    padding: Padding,
    **others: Any,
) -> Float[Array, "n D2 H2 W2 k"]:
    """`lax.conv_general_dilated` for channels-last volumes and clips; undilated and ungrouped.

    On a CPU by planes, which is 3 to 7 times as fast as XLA's own; its gradients with strides are 32 to 116 times
    as fast (`tests/benchmarks/convolution.py`).
    """
    pads = (
        jax.lax.padtype_to_pads(inputs.shape[1:4], kernel.shape[:3], strides, padding)
        if isinstance(padding, str)
        else list(padding)
    )

    def general(inputs: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(inputs, kernel, strides, pads, **others)

    by_planes = partial(_planes, strides=strides, pads=pads, precision=others.get("precision"))
    return jax.lax.platform_dependent(inputs, kernel, cpu=by_planes, default=general)


def rewritten(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """A depthwise convolution of images with channels first as a program that is faster on the CPU; else None."""
    if eqn.primitive is not lax.conv_general_dilated_p:
        return None
    p, (inputs, kernel) = eqn.params, eqn.invars
    axes = p["dimension_numbers"]
    # Of channels last nothing has to be done: who writes them so has Flax, or their reasons.
    if not axes.lhs_spec == axes.rhs_spec == axes.out_spec == (0, 1, 2, 3):
        return None
    if not p["feature_group_count"] == shape(inputs)[1] == shape(kernel)[0] > 1:
        return None
    if any(step != 1 for step in (*p["lhs_dilation"], *p["rhs_dilation"])):
        return None

    def channels_last(inputs: Array, kernel: Array) -> Array:
        inputs, kernel = inputs.transpose(0, 2, 3, 1), kernel.transpose(2, 3, 1, 0)
        return _depthwise(inputs, kernel, p["window_strides"], p["padding"]).transpose(0, 3, 1, 2)

    def as_it_is(inputs: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated_p.bind(inputs, kernel, **p)

    return jax.make_jaxpr(partial(jax.lax.platform_dependent, cpu=channels_last, default=as_it_is))(
        inputs.aval, kernel.aval
    )


def _planes(
    inputs: Float[Array, "n D H W d"],
    kernel: Float[Array, "e h w d k"],
    *,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    precision: Any,
) -> Float[Array, "n D2 H2 W2 k"]:
    """Sum over the kernel's planes of the convolutions of the input's planes, all of them in one batch."""
    padded = jnp.pad(inputs, ((0, 0), pads[0], (0, 0), (0, 0), (0, 0)))
    num, depth, height, width, channels = padded.shape
    planes, step = kernel.shape[0], strides[0]
    length = (depth - planes) // step + 1
    total: Array | None = None
    for i in range(planes):
        part = padded[:, i : i + (length - 1) * step + 1 : step].reshape(num * length, height, width, channels)
        axes = ("NHWC", "HWIO", "NHWC")
        here = jax.lax.conv_general_dilated(
            part, kernel[i], strides[1:], pads[1:], dimension_numbers=axes, precision=precision
        )
        total = here if total is None else total + here
    assert total is not None  # a kernel has planes
    return total.reshape(num, length, *total.shape[1:])


def _depthwise(
    inputs: Float[Array, "n H W k"],
    kernel: Float[Array, "h w 1 k"],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> Float[Array, "n H2 W2 k"]:
    """Sum over the kernel's positions of the image, shifted, times the weight there: XLA fuses it into one loop."""
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    num, height, width, channels = padded.shape
    rows, columns = kernel.shape[:2]
    last_row, last_column = height - rows, width - columns
    total = None
    for i in range(rows):
        for j in range(columns):
            limit = (num, i + last_row + 1, j + last_column + 1, channels)
            shifted = jax.lax.slice(padded, (0, i, j, 0), limit, (1, *strides, 1))
            product = shifted * kernel[i : i + 1, j : j + 1]
            total = product if total is None else total + product
    return jnp.zeros_like(padded) if total is None else total

"""What the embedded networks share: their trained parameters in the package, and how their layers begin."""

from importlib.resources import as_file, files
from typing import Any

from flax import nnx

from jaxcam.models.architecture import Architecture, N, Options, Weights
from jaxcam.models.build import build
from jaxcam.programs.convolution import convolution_3d

EMBEDDED = "embedded"
"""The `weights` that stand for the parameters in the package."""


def embedded(architecture: Architecture[N], weights: Weights, options: Options) -> N:
    """The network, by default with its parameters in the package.

    Raises:
        ValueError: it has none there; or what `build` raises.
    """
    if weights != EMBEDDED:
        return build(architecture, weights, options)
    name = architecture.name
    file = files("jaxcam") / "data" / f"{name}.safetensors"
    if not file.is_file():
        raise ValueError(
            f"weights: {name} has none in the package: train it (python -m jaxcam train {name}) and give the file, or "
            "None for random ones"
        )
    with as_file(file) as path:
        return build(architecture, path, options)


def conv(
    inputs: int,
    outputs: int,
    size: tuple[int, ...],
    *,
    strides: tuple[int, ...] = (),
    dilation: int = 1,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution over as many axes as its size has. Without a bias: the batch norm that follows has one."""
    own: Any = {"conv_general_dilated": convolution_3d} if len(size) == 3 else {}
    init = nnx.initializers.he_normal()
    strides = strides or (1,) * len(size)
    dilations = (dilation,) * len(size)
    return nnx.Conv(
        inputs, outputs, size, strides, kernel_dilation=dilations, kernel_init=init, use_bias=False, rngs=rngs, **own
    )


def norm(channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch norm."""
    return nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A fully connected layer."""
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.he_normal(), rngs=rngs)

"""fold_batch_norm: batch norm of an inference network multiplied into the convolutions before it."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxcam.models.chain import Chain
from jaxcam.models.modules import Folded

N = TypeVar("N", bound=Chain)


def fold_batch_norm(model: N) -> N:
    """A copy of the network in which every batch norm is part of the convolution before it; for inference only.

    With the running mean m and variance v, γ (conv(x) - m) / sqrt(v + ε) + β is a convolution with the kernel
    γ / sqrt(v + ε) · W and the bias β + γ (b - m) / sqrt(v + ε). The logits and the activations after every batch norm
    stay the same up to rounding; a convolution's own output is what came after its batch norm before.

    Args:
        model: a network of `jaxcam.models` in evaluation mode. It is left alone.

    Raises:
        TypeError: model is none of this package's networks.
        ValueError: the network is in training mode, or a batch norm does not directly follow a convolution.
    """
    if not isinstance(model, Chain):
        raise TypeError(f"model must be a jaxcam.models.Network, but is {type(model).__name__}")
    folded = nnx.clone(model)
    pairs = list(_pairs(folded))
    followed = {id(norm) for _, norm, _ in pairs}
    for path, module in nnx.iter_modules(folded):
        if not isinstance(module, nnx.BatchNorm):
            continue
        name = ".".join(map(str, path))
        if not module.use_running_average:
            raise ValueError(
                "model is in training mode, where batch norm depends on the batch: call model.eval() first"
            )
        if id(module) not in followed:
            raise ValueError(f"model: no convolution is directly before its batch norm {name}: it cannot be folded")
    for conv, norm, replace in pairs:
        _fold(conv, norm)
        replace(Folded())
    return folded


def _fold(conv: nnx.Conv, norm: nnx.BatchNorm) -> None:
    """Makes norm(conv(x)) out of conv."""
    kernel: Any = conv.kernel
    given = (conv.bias, norm.mean, norm.var, norm.scale, norm.bias)
    values = [None if each is None else each[...] for each in given]
    kernel[...], bias = _product(kernel[...], *values, epsilon=norm.epsilon)
    conv.bias = nnx.Param(bias)
    conv.use_bias = True


@partial(jax.jit, static_argnames="epsilon")
def _product(
    kernel: Array,
    bias: Array | None,
    mean: Array,
    var: Array,
    scale: Array | None,
    offset: Array | None,
    *,
    epsilon: float,
) -> tuple[Array, Array]:
    """Kernel and bias of both; one program for all layers of a shape."""
    factor = jax.lax.rsqrt(var + jnp.asarray(epsilon, var.dtype))
    factor = factor if scale is None else factor * scale
    moved = (-mean if bias is None else bias - mean) * factor
    kernel = kernel * factor.reshape((1,) * (kernel.ndim - 1) + (-1,))
    return kernel, moved if offset is None else moved + offset


def _pairs(model: Chain) -> Iterator[tuple[nnx.Conv, nnx.BatchNorm, Callable[[nnx.Module], None]]]:
    """Every batch norm with the convolution right before it, and what puts another module in its place."""
    for _, module in nnx.iter_modules(model):
        for container, before, after in _neighbours(module):
            conv, norm = container[before], container[after]
            if isinstance(conv, nnx.Conv) and isinstance(norm, nnx.BatchNorm):
                yield conv, norm, partial(container.__setitem__, after)


def _neighbours(module: nnx.Module) -> Iterator[tuple[Any, Any, Any]]:
    """(container, key, key) of modules that are applied one after the other."""
    if isinstance(module, Chain):
        yield from ((module.stages, *names) for names in pairwise(module.layers))
    elif isinstance(module, nnx.Sequential):
        yield from ((module.layers, *indices) for indices in pairwise(range(len(module.layers))))
    elif not isinstance(module, nnx.Dict | nnx.List):  # a block: conv1, bn1, conv2, bn2 ...
        own = vars(module)
        for name in own:
            if name.startswith("bn") and (conv := f"conv{name.removeprefix('bn')}") in own:
                yield _Attributes(module), conv, name


class _Attributes:
    """A module's attributes as a container."""

    def __init__(self, module: nnx.Module) -> None:
        self.module = module

    def __getitem__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __setitem__(self, name: str, value: nnx.Module) -> None:
        setattr(self.module, name, value)

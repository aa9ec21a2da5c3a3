"""The layers that networks here are made of, with torch's arithmetic: symmetric padding, ceil mode, adaptive pools."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.programs.convolution import convolution

_KERNEL_INIT = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, as in torchvision


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    strides: int = 1,
    groups: int = 1,
    bias: bool = False,
    padding: str | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution of `size` x `size` pixels, padded by size // 2 on every side as in torch.

    Args:
        inputs: channels.
        outputs: channels.
        size: of the kernel.
        strides: between windows.
        groups: of channels that do not see each other.
        bias: whether there is one; batch norm makes it pointless.
        padding: "VALID" for none, or "SAME" for TensorFlow's, which is asymmetric where the strides do not divide the
            size.
        rngs: for the kernel.
    """
    sides: Any = padding or ((size // 2, size // 2),) * 2
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides,
        padding=sides,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=_KERNEL_INIT,
        conv_general_dilated=convolution,
        rngs=rngs,
    )


def batch_norm(channels: int, *, epsilon: float = 1e-5, momentum: float = 0.1, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch norm, its momentum being the share of the new batch, as in torch.

    In training the running variance averages the biased variance of the batch; torch's averages n / (n - 1) of it.
    """
    return nnx.BatchNorm(channels, epsilon=epsilon, momentum=1 - momentum, rngs=rngs)


class ReLU(nnx.Module):
    """max(x, 0)."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return jax.nn.relu(x)


class ReLU6(nnx.Module):
    """min(max(x, 0), 6)."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return jax.nn.relu6(x)


class SiLU(nnx.Module):
    """x · sigmoid(x)."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return jax.nn.silu(x)


class GELU(nnx.Module):
    """x · Φ(x), Φ being the normal distribution, exactly and not by tanh."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return jax.nn.gelu(x, approximate=False)


class HardSwish(nnx.Module):
    """x · min(max(x + 3, 0), 6) / 6."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return jax.nn.hard_swish(x)


class Unchanged(nnx.Module):
    """The identity: keeps the number of a layer that only moves axes in torch."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return x


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + ε) · scale + bias, mean and variance over the channels of a position.

    In half precision mean and variance are those of float32, as in torch. **Source**: Ba et al. 2016.
    """

    def __init__(self, channels: int, *, epsilon: float) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(self, x: Float[Array, "*n k"]) -> Float[Array, "*n k"]:
        """The layer, applied."""
        wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
        apart = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(apart).mean(-1, keepdims=True)
        normed = (apart * jax.lax.rsqrt(variance + self.epsilon)).astype(x.dtype)
        along = (1,) * (x.ndim - 1) + (-1,)
        return normed * self.scale[...].reshape(along) + self.bias[...].reshape(along)


class MaxPool(nnx.Module):
    """Max-pooling; with `ceil_mode` a last, incomplete window counts as well, as in torch."""

    def __init__(self, window: int, strides: int, *, padding: int = 0, ceil_mode: bool = False) -> None:
        self.window, self.strides, self.padding, self.ceil_mode = window, strides, padding, ceil_mode

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n h w k"]:
        """The layer, applied."""
        if min(x.shape[1:3]) + 2 * self.padding < self.window:
            raise ValueError(
                f"images are too small: {list(x.shape[1:3])} positions are left for a pooling window of "
                f"{self.window}: use larger images"
            )
        sides: Any = [self._sides(size) for size in x.shape[1:3]]
        return nnx.max_pool(x, (self.window, self.window), (self.strides, self.strides), sides)

    def _sides(self, size: int) -> tuple[int, int]:
        rest = (self.window - size - 2 * self.padding) % self.strides if self.ceil_mode else 0
        return self.padding, self.padding + rest


class GlobalAveragePool(nnx.Module):
    """The mean over the positions."""

    def __call__(self, x: Float[Array, "n *spatial k"]) -> Float[Array, "n k"]:
        """The layer, applied."""
        return x.mean(tuple(range(1, x.ndim - 1)))


class AdaptiveAveragePool(nnx.Module):
    """Average pooling of any size to `size` x `size`; window i covers floor(i H / size) to ceil((i + 1) H / size)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n h w k"]:
        """The layer, applied."""
        if x.shape[1:3] == (self.size, self.size):
            return x
        rows, columns = (jnp.asarray(self._windows(length), x.dtype) for length in x.shape[1:3])
        # Full precision: on accelerators the default would round the activations to 8 or 10 bits of mantissa.
        return jnp.einsum("ih,jw,nhwk->nijk", rows, columns, x, precision=jax.lax.Precision.HIGHEST)

    def _windows(self, length: int) -> Float[np.ndarray, "h H"]:
        """Row i averages over window i."""
        rows = np.zeros((self.size, length))
        for i, row in enumerate(rows):
            start, stop = i * length // self.size, math.ceil((i + 1) * length / self.size)
            row[start:stop] = 1 / (stop - start)
        return rows


class Flatten(nnx.Module):
    """Everything but the batch in one axis; `channels_first` in the order that torch's linear layers expect."""

    def __init__(self, *, channels_first: bool = False) -> None:
        self.channels_first = channels_first

    def __call__(self, x: Float[Array, "n *rest"]) -> Float[Array, "n m"]:
        """The layer, applied."""
        if self.channels_first:
            x = jnp.moveaxis(x, -1, 1)
        return x.reshape(x.shape[0], -1)


class Random(nnx.Module):
    """A layer that draws random numbers in training and is called with `rngs`; in evaluation it needs none."""

    def __call__(self, x: Float[Array, "..."], *, rngs: nnx.Rngs | None = None) -> Float[Array, "..."]:
        """The layer, applied."""
        raise NotImplementedError


class Dropout(Random):
    """Zeroes a share `rate` of the activations in training and scales the others up; nothing in evaluation.

    The generator is an argument and no part of the network, whose leaves thus stay floating point: `jax.grad` and casts
    with `jax.tree.map` work on the whole of it.
    """

    def __init__(self, rate: float, *, whole_images: bool = False) -> None:
        """With `whole_images` it is stochastic depth: an image's activations go all or none (Huang et al. 2016)."""
        self.dropout = nnx.Dropout(rate, broadcast_dims=(1, 2, 3) if whole_images else ())

    def __call__(self, x: Float[Array, "n ..."], *, rngs: nnx.Rngs | None = None) -> Float[Array, "n ..."]:
        """The layer, applied."""
        if rngs is None and not self.dropout.deterministic and self.dropout.rate > 0:
            raise ValueError(
                "rngs: this network is in training mode and draws random numbers: pass rngs=nnx.Rngs(0), or call "
                "model.eval() first to explain or to predict"
            )
        return self.dropout(x, rngs=rngs)


class Folded(nnx.Module):
    """Where a batch norm was: the identity. The layer keeps its name."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer, applied."""
        return x

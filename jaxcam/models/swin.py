"""Swin-Tiny, with torchvision's names (timm's are translated). **Source**: Liu et al. 2021.

Attention within windows of 7 x 7 positions, which every other block shifts by 3, in four groups with patches merged
two by two between them; layer norm, global average pooling and one linear layer. The grid stays `[n, h, w, k]` between
the blocks: CAM applies after `norm`, where explanations are made by default (7 x 7 positions at 224 pixels).
"""

import re
from dataclasses import replace
from functools import partial
from typing import Unpack

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.attention import attended
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import GELU, Dropout, GlobalAveragePool, LayerNorm, Random, Unchanged, conv
from jaxcam.models.network import Network

_APART = -100.0
"""What is added to the scores of positions that a shift has made neighbours and that are none."""


class WindowAttention(nnx.Module):
    """Attention among the positions of a window, with a bias for each offset between two of them.

    **Source**: Liu et al. 2021, Section 3.2, Eq. 4.
    """

    def __init__(self, width: int, heads: int, *, window: int, shift: int, rngs: nnx.Rngs) -> None:
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        # [heads, offsets], the transpose of torch's, as all matrices here are.
        table = nnx.initializers.normal(0.02)(rngs.params(), (heads, (2 * window - 1) ** 2))
        self.relative_position_bias_table = nnx.Param(table)

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n H W k"]:
        """The mixed positions; at the margin the windows are filled with zeros."""
        num, height, width, channels = x.shape
        size = self.window
        x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        # A window that covers the whole axis is not shifted.
        shifts = tuple(0 if count == 1 else self.shift for count in (rows, columns))
        if any(shifts):
            x = jnp.roll(x, (-shifts[0], -shifts[1]), (1, 2))
        x = x.reshape(num, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
        qkv = self.qkv(x.reshape(-1, size * size, channels))
        qkv = qkv.reshape(-1, size * size, 3, self.heads, channels // self.heads)
        bias = self.relative_position_bias_table[...][:, _offsets(size)][None]
        if any(shifts):
            mask = _mask(rows * size, columns * size, size, shifts)
            bias = bias + jnp.asarray(mask[:, None], bias.dtype)
        mixed = self.proj(attended(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], bias=bias))
        mixed = mixed.reshape(num, rows, columns, size, size, channels).transpose(0, 1, 3, 2, 4, 5)
        mixed = mixed.reshape(num, rows * size, columns * size, channels)
        if any(shifts):
            mixed = jnp.roll(mixed, shifts, (1, 2))
        return mixed[:, :height, :width]


def _offsets(size: int) -> Int[np.ndarray, "t t"]:
    """The number of the offset between any two positions of a window."""
    row, column = (axis.reshape(-1) for axis in np.mgrid[:size, :size])
    down, right = (axis[:, None] - axis[None] + size - 1 for axis in (row, column))
    return down * (2 * size - 1) + right


def _mask(height: int, width: int, size: int, shifts: tuple[int, ...]) -> Float[np.ndarray, "w t t"]:
    """0 where two positions of a window belong together, `_APART` where the shift has wrapped one of them around."""
    regions = np.zeros((height, width), int)
    for length, shift, view in ((height, shifts[0], regions.T), (width, shifts[1], regions)):
        view *= 3
        # Three stretches: whole windows, and what the last windows hold of either end of the picture.
        view += np.searchsorted([length - size, length - shift], np.arange(length), side="right")[None]
    windows = regions.reshape(height // size, size, width // size, size).transpose(0, 2, 1, 3).reshape(-1, size * size)
    return np.where(windows[:, None] == windows[:, :, None], 0.0, _APART)


class SwinBlock(Random):
    """x + attention(norm(x)), then x + MLP(norm(x)). **Source**: Liu et al. 2021, Eq. 3."""

    def __init__(self, width: int, heads: int, *, window: int, shift: int, drop_rate: float, rngs: nnx.Rngs) -> None:
        self.norm1 = LayerNorm(width, epsilon=1e-5)
        self.attn = WindowAttention(width, heads, window=window, shift=shift, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=1e-5)
        hidden = 4 * width
        self.mlp = nnx.Sequential(
            nnx.Linear(width, hidden, rngs=rngs), GELU(), Unchanged(), nnx.Linear(hidden, width, rngs=rngs)
        )
        self.stochastic_depth = Dropout(drop_rate, whole_images=True)

    def __call__(self, x: Float[Array, "n H W k"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "n H W k"]:
        """Both branches."""
        x = x + self.stochastic_depth(self.attn(self.norm1(x)), rngs=rngs)
        return x + self.stochastic_depth(self.mlp(self.norm2(x)), rngs=rngs)


class PatchMerging(nnx.Module):
    """Every 2 x 2 positions become one of twice the channels; odd sides are filled with zeros."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(4 * width, epsilon=1e-5)
        self.reduction = nnx.Linear(4 * width, 2 * width, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n h w k2"]:
        """The smaller grid."""
        num, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        # The four side by side, column by column: upper left, lower left, upper right, lower right.
        x = x.reshape(num, rows, 2, columns, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.reshape(num, rows, columns, 4 * channels)))


class Swin(Network):
    """`features.0`, the blocks `features.1.0` ... `features.7.1`, `norm`, `avgpool`, `head`."""

    default_layer = "norm"
    smallest_image = 32

    def __init__(
        self,
        width: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        *,
        window: int = 7,
        drop_rate: float = 0.2,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        norm = partial(LayerNorm, epsilon=1e-5)
        patches = conv(3, width, 4, strides=4, padding="VALID", bias=True, rngs=rngs)
        stages: dict[str, nnx.Module] = {"features.0": nnx.Sequential(patches, Unchanged(), norm(width))}
        for group, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            if group:
                stages[f"features.{2 * group}"] = PatchMerging(width, rngs=rngs)
                width *= 2
            for i in range(depth):
                stages[f"features.{2 * group + 1}.{i}"] = SwinBlock(
                    width,
                    count,
                    window=window,
                    shift=window // 2 if i % 2 else 0,
                    drop_rate=drop_rate * (sum(depths[:group]) + i) / max(sum(depths) - 1, 1),
                    rngs=rngs,
                )
        stages |= {
            "norm": norm(width),
            "avgpool": GlobalAveragePool(),
            "head": nnx.Linear(width, num_classes, rngs=rngs),
        }
        preprocessing = replace(IMAGENET, resize=232, interpolation="bicubic")
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=preprocessing)


_OUTER = {"patch_embed.proj": "features.0.0", "patch_embed.norm": "features.0.2", "head.fc": "head"}


def _torchvision_key(key: str) -> str:
    """The key that torchvision has for timm's."""
    module, _, leaf = key.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{leaf}"
    if found := re.fullmatch(r"layers\.(\d+)\.downsample\.(norm|reduction)", module):
        return f"features.{2 * int(found[1])}.{found[2]}.{leaf}"
    found = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)", module)
    if found is None:
        return key
    part = {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}.get(found[3], found[3])
    return f"features.{2 * int(found[1]) + 1}.{found[2]}.{part}.{leaf}"


ARCHITECTURES = family(
    "features.1.0.attn.qkv.weight",
    Architecture(
        "swin_tiny",
        Swin,
        classifier="head",
        repo="timm/swin_tiny_patch4_window7_224.ms_in1k",
        torchvision_key=_torchvision_key,
    ),
)
"""By name."""


def swin_tiny(weights: Weights = None, **options: Unpack[Options]) -> Swin:
    """Swin-T, torchvision's `swin_t`: 28.3 million parameters, 4.5 billion multiplications at 224 pixels."""
    return build(ARCHITECTURES["swin_tiny"], weights, options)

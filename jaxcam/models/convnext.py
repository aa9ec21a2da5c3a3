"""ConvNeXt-Tiny, with torchvision's names (timm's are translated). **Source**: Liu et al. 2022.

Patches of 4 x 4 pixels, four groups of blocks (7x7 depthwise, layer norm, two linear layers) with downsampling between
them, global average pooling, layer norm and one linear layer. Explained by default after the last block, `features.7`
(7 x 7 positions at 224 pixels); CAM does not apply, since layer norm stands between the pooling and the linear layer.
"""

import re
from dataclasses import replace
from functools import partial
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import GELU, Dropout, GlobalAveragePool, LayerNorm, Random, Unchanged, conv
from jaxcam.models.network import Network


class ConvNeXtBlock(Random):
    """x + scale · (depthwise 7x7, layer norm, 4 times the channels, GELU, back). **Source**: Liu 2022, Fig. 4."""

    def __init__(self, width: int, *, drop_rate: float, rngs: nnx.Rngs) -> None:
        self.block = nnx.Sequential(
            conv(width, width, 7, groups=width, bias=True, rngs=rngs),
            Unchanged(),
            LayerNorm(width, epsilon=1e-6),
            nnx.Linear(width, 4 * width, rngs=rngs),
            GELU(),
            nnx.Linear(4 * width, width, rngs=rngs),
        )
        self.layer_scale = nnx.Param(jnp.full((width, 1, 1), 1e-6, jnp.float32))
        self.stochastic_depth = Dropout(drop_rate, whole_images=True)

    def __call__(self, x: Float[Array, "n H W k"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "n H W k"]:
        """The block, applied."""
        residual = self.block(x) * self.layer_scale[...].reshape(1, 1, 1, -1)
        return x + self.stochastic_depth(residual, rngs=rngs)


class ConvNeXt(Network):
    """`features.0`, the blocks `features.1.0` ... `features.7.2`, `avgpool`, `classifier.0`, `classifier.2`."""

    default_layer = "features.7"
    smallest_image = 32

    def __init__(
        self,
        depths: tuple[int, int, int, int] = (3, 3, 9, 3),
        widths: tuple[int, int, int, int] = (96, 192, 384, 768),
        *,
        drop_rate: float = 0.1,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        norm = partial(LayerNorm, epsilon=1e-6)
        stages: dict[str, nnx.Module] = {
            "features.0": nnx.Sequential(_patches(3, widths[0], 4, rngs=rngs), norm(widths[0]))
        }
        for group, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if group:
                before = widths[group - 1]
                stages[f"features.{2 * group}"] = nnx.Sequential(norm(before), _patches(before, width, 2, rngs=rngs))
            for i in range(depth):
                rate = drop_rate * (sum(depths[:group]) + i) / max(sum(depths) - 1, 1)
                stages[f"features.{2 * group + 1}.{i}"] = ConvNeXtBlock(width, drop_rate=rate, rngs=rngs)
        stages |= {
            "avgpool": GlobalAveragePool(),
            "classifier.0": norm(widths[-1]),
            "classifier.2": nnx.Linear(widths[-1], num_classes, rngs=rngs),
        }
        preprocessing = replace(IMAGENET, resize=236)
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=preprocessing)


def _patches(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution whose windows do not overlap."""
    return conv(inputs, outputs, size, strides=size, padding="VALID", bias=True, rngs=rngs)


_BLOCK = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}


def _torchvision_key(key: str) -> str:
    """The key that torchvision has for timm's."""
    module, _, leaf = key.rpartition(".")
    if found := re.fullmatch(r"stem\.([01])", module):
        return f"features.0.{found[1]}.{leaf}"
    if module in ("head.norm", "head.fc"):
        return f"classifier.{'0' if module == 'head.norm' else '2'}.{leaf}"
    if found := re.fullmatch(r"stages\.(\d+)\.downsample\.([01])", module):
        return f"features.{2 * int(found[1])}.{found[2]}.{leaf}"
    found = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)(?:\.(.+))?", module)
    if found is None:
        return key
    block = f"features.{2 * int(found[1]) + 1}.{found[2]}"
    if found[3] is None and leaf == "gamma":
        return f"{block}.layer_scale"
    return f"{block}.{_BLOCK[found[3]]}.{leaf}" if found[3] in _BLOCK else key


ARCHITECTURES = family(
    "features.1.0.layer_scale",
    Architecture(
        "convnext_tiny",
        ConvNeXt,
        classifier="classifier.2",
        repo="timm/convnext_tiny.in12k_ft_in1k",
        torchvision_key=_torchvision_key,
    ),
)
"""By name."""


def convnext_tiny(weights: Weights = None, **options: Unpack[Options]) -> ConvNeXt:
    """ConvNeXt-T: 28.6 million parameters, 4.5 billion multiplications at 224 pixels."""
    return build(ARCHITECTURES["convnext_tiny"], weights, options)

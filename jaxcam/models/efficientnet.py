"""EfficientNet-B0 to B7, with torchvision's names (timm's are translated). **Source**: Tan & Le 2019.

A strided convolution, seven groups of inverted residual blocks with squeeze-and-excitation, a 1x1 convolution, global
average pooling and one linear layer: CAM applies after `features.8`, where explanations are made by default (7 x 7
positions at 224 pixels). The activations are SiLU, so nothing before the last layer is piecewise linear.

Three dialects with the same shapes compute different things, told apart by the checkpoint:

- torchvision: batch norm's epsilon is 1e-3 from B5 on, symmetric padding;
- timm's `efficientnet_b*`: epsilon 1e-5, symmetric padding;
- timm's `tf_efficientnet_b*` (converted from TensorFlow): epsilon 1e-3, TensorFlow's padding. They have the keys of the
  second, so they are recognised by their config.json only: name the repo or a folder with both files.
"""

import math
import re
from functools import partial
from typing import NamedTuple, Unpack

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET, Preprocessing
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import Dropout, GlobalAveragePool, Random, SiLU, batch_norm, conv
from jaxcam.models.network import Network


class _Group(NamedTuple):
    """A row of Table 1: blocks alike but for the first, which has the strides and changes the channels."""

    expansion: int
    size: int
    strides: int
    outputs: int
    depth: int


B0 = (
    _Group(expansion=1, size=3, strides=1, outputs=16, depth=1),
    _Group(expansion=6, size=3, strides=2, outputs=24, depth=2),
    _Group(expansion=6, size=5, strides=2, outputs=40, depth=2),
    _Group(expansion=6, size=3, strides=2, outputs=80, depth=3),
    _Group(expansion=6, size=5, strides=1, outputs=112, depth=3),
    _Group(expansion=6, size=5, strides=2, outputs=192, depth=4),
    _Group(expansion=6, size=3, strides=1, outputs=320, depth=1),
)
"""Table 1."""
_STEM = 32


class Norms(NamedTuple):
    """How a dialect pads and normalises."""

    padding: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.1


_TIMM = Norms()


class SqueezeExcitation(nnx.Module):
    """Scales each channel by a factor in (0, 1) that is computed from the means of all. **Source**: Hu et al. 2018."""

    def __init__(self, channels: int, squeezed: int, *, rngs: nnx.Rngs) -> None:
        self.fc1 = conv(channels, squeezed, 1, bias=True, rngs=rngs)
        self.fc2 = conv(squeezed, channels, 1, bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n H W k"]:
        """The scaled activations."""
        means = x.mean((1, 2), keepdims=True)
        factors = jax.nn.sigmoid(self.fc2(jax.nn.silu(self.fc1(means))))
        return x * jax.numpy.broadcast_to(factors, x.shape)


class MBConv(Random):
    """Inverted residual block: expand 1x1, depthwise, squeeze-and-excitation, project 1x1; and a shortcut past them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        expansion: int,
        size: int,
        strides: int,
        drop_rate: float,
        norms: Norms,
        activation: type[nnx.Module] = SiLU,
        has_excitation: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        hidden = divisible(inputs * expansion)
        part = partial(conv_norm, norms=norms, activation=activation, rngs=rngs)
        expand = [] if hidden == inputs else [part(inputs, hidden, 1)]
        self.block = nnx.Sequential(
            *expand,
            part(hidden, hidden, size, strides=strides, groups=hidden),
            *([SqueezeExcitation(hidden, max(1, inputs // 4), rngs=rngs)] if has_excitation else []),
            part(hidden, outputs, 1, activation=None),
        )
        self.has_shortcut = strides == 1 and inputs == outputs
        self.stochastic_depth = Dropout(drop_rate, whole_images=True)

    def __call__(self, x: Float[Array, "n H W d"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "n h w k"]:
        """Residual + shortcut, where strides and channels allow it."""
        residual = self.block(x)
        return x + self.stochastic_depth(residual, rngs=rngs) if self.has_shortcut else residual


class EfficientNet(Network):
    """`features.0`, the blocks `features.1.0` ... `features.7.0`, `features.8`, `avgpool`, `classifier.1`."""

    default_layer = "features.8"
    smallest_image = 32
    activation: type[nnx.Module] = SiLU
    has_excitation: bool = True

    def __init__(
        self,
        width: float,
        depth: float,
        *,
        dropout: float,
        preprocessing: Preprocessing,
        norms: Norms = _TIMM,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        inputs = divisible(_STEM * width)
        part = partial(conv_norm, norms=norms, activation=self.activation, rngs=rngs)
        stages: dict[str, nnx.Module] = {"features.0": part(3, inputs, 3, strides=2)}
        depths = [math.ceil(group.depth * depth) for group in B0]
        for number, (group, blocks) in enumerate(zip(B0, depths, strict=True), start=1):
            for i in range(blocks):
                outputs = divisible(group.outputs * width)
                stages[f"features.{number}.{i}"] = MBConv(
                    inputs,
                    outputs,
                    expansion=group.expansion,
                    size=group.size,
                    strides=group.strides if i == 0 else 1,
                    drop_rate=0.2 * (sum(depths[: number - 1]) + i) / sum(depths),
                    norms=norms,
                    activation=self.activation,
                    has_excitation=self.has_excitation,
                    rngs=rngs,
                )
                inputs = outputs
        stages["features.8"] = part(inputs, 4 * inputs, 1)
        stages["avgpool"] = GlobalAveragePool()
        stages["classifier.0"] = Dropout(dropout)
        stages["classifier.1"] = nnx.Linear(4 * inputs, num_classes, rngs=rngs)
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=preprocessing)


def conv_norm(
    inputs: int,
    outputs: int,
    size: int,
    *,
    strides: int = 1,
    groups: int = 1,
    activation: type[nnx.Module] | None,
    norms: Norms,
    rngs: nnx.Rngs,
) -> nnx.Sequential:
    """Convolution, batch norm, and the activation if there is one."""
    return nnx.Sequential(
        conv(inputs, outputs, size, strides=strides, groups=groups, padding=norms.padding, rngs=rngs),
        batch_norm(outputs, epsilon=norms.epsilon, momentum=norms.momentum, rngs=rngs),
        *([] if activation is None else [activation()]),
    )


def divisible(channels: int | float) -> int:
    """The nearest multiple of 8, but at least 90 % of the channels."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _torchvision_key(key: str) -> str:
    """The key that torchvision has for timm's."""
    module, _, leaf = key.rpartition(".")
    outer = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.8.0", "bn2": "features.8.1"}
    if module in outer:
        return f"{outer[module]}.{leaf}"
    if module == "classifier":
        return f"classifier.1.{leaf}"
    found = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", module)
    if found is None:
        return key
    group, block, part = int(found[1]), found[2], found[3]
    inner = _SEPARABLE if group == 0 else _INVERTED
    return f"features.{group + 1}.{block}.block.{inner[part]}.{leaf}" if part in inner else key


_INVERTED = {
    "conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1",
    "se.conv_reduce": "2.fc1", "se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1",
}  # fmt: skip
_SEPARABLE = {
    "conv_dw": "0.0", "bn1": "0.1",
    "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2", "conv_pw": "2.0", "bn2": "2.1",
}  # fmt: skip


class _Scale(NamedTuple):
    """What grows from B0 to B7."""

    width: float
    depth: float
    dropout: float
    resize: int
    crop: int
    repo: str


_SCALES = (
    _Scale(1.0, 1.0, 0.2, 256, 224, "timm/efficientnet_b0.ra_in1k"),
    _Scale(1.0, 1.1, 0.2, 256, 240, "timm/efficientnet_b1.ft_in1k"),
    _Scale(1.1, 1.2, 0.3, 288, 288, "timm/efficientnet_b2.ra_in1k"),
    _Scale(1.2, 1.4, 0.3, 320, 300, "timm/efficientnet_b3.ra2_in1k"),
    _Scale(1.4, 1.8, 0.4, 384, 380, "timm/efficientnet_b4.ra2_in1k"),
    _Scale(1.6, 2.2, 0.4, 456, 456, "timm/tf_efficientnet_b5.ra_in1k"),
    _Scale(1.8, 2.6, 0.5, 528, 528, "timm/tf_efficientnet_b6.aa_in1k"),
    _Scale(2.0, 3.1, 0.5, 600, 600, "timm/tf_efficientnet_b7.ra_in1k"),
)


def _architecture(number: int, scale: _Scale) -> Architecture[EfficientNet]:
    preprocessing = Preprocessing(
        resize=scale.resize, crop=scale.crop, mean=IMAGENET.mean, std=IMAGENET.std, interpolation="bicubic"
    )
    return Architecture(
        f"efficientnet_b{number}",
        partial(EfficientNet, scale.width, scale.depth, dropout=scale.dropout, preprocessing=preprocessing),
        classifier="classifier.1",
        repo=scale.repo,
        torchvision_key=_torchvision_key,
        dialects={
            "torchvision": {"norms": Norms(epsilon=1e-3, momentum=0.01) if number >= 5 else _TIMM},
            "timm": {"norms": _TIMM},
            "tf": {"norms": Norms(padding="SAME", epsilon=1e-3)},
        },
    )


ARCHITECTURES = family(
    "features.1.0.block.0.0.weight",
    *(_architecture(number, scale) for number, scale in enumerate(_SCALES)),
)
"""By name."""


def efficientnet_b0(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B0: 5.3 million parameters, for 224 pixels."""
    return build(ARCHITECTURES["efficientnet_b0"], weights, options)


def efficientnet_b1(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B1: 7.8 million parameters, for 240 pixels."""
    return build(ARCHITECTURES["efficientnet_b1"], weights, options)


def efficientnet_b2(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B2: 9.1 million parameters, for 288 pixels."""
    return build(ARCHITECTURES["efficientnet_b2"], weights, options)


def efficientnet_b3(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B3: 12.2 million parameters, for 300 pixels."""
    return build(ARCHITECTURES["efficientnet_b3"], weights, options)


def efficientnet_b4(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B4: 19.3 million parameters, for 380 pixels."""
    return build(ARCHITECTURES["efficientnet_b4"], weights, options)


def efficientnet_b5(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B5: 30.4 million parameters, for 456 pixels."""
    return build(ARCHITECTURES["efficientnet_b5"], weights, options)


def efficientnet_b6(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B6: 43.0 million parameters, for 528 pixels."""
    return build(ARCHITECTURES["efficientnet_b6"], weights, options)


def efficientnet_b7(weights: Weights = None, **options: Unpack[Options]) -> EfficientNet:
    """EfficientNet-B7: 66.3 million parameters, for 600 pixels."""
    return build(ARCHITECTURES["efficientnet_b7"], weights, options)

"""DenseNet-121, with torchvision's names, which are timm's too. **Source**: Huang et al. 2017.

Four blocks in which every layer sees the channels of all before it, with transitions that halve channels and grid
between them, batch norm, ReLU, global average pooling and one linear layer: CAM applies after `relu`, where
explanations are made by default (7 x 7 positions at 224 pixels). Batch norm stands before the convolutions, so that it
cannot be folded into them.
"""

import re
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import GlobalAveragePool, MaxPool, ReLU, batch_norm, conv
from jaxcam.models.network import Network

_BOTTLENECK = 4


class DenseLayer(nnx.Module):
    """Batch norm, ReLU, 1x1 convolution; batch norm, ReLU, 3x3 convolution to the few new channels."""

    def __init__(self, inputs: int, growth: int, *, rngs: nnx.Rngs) -> None:
        self.norm1 = batch_norm(inputs, rngs=rngs)
        self.relu1 = ReLU()
        self.conv1 = conv(inputs, _BOTTLENECK * growth, 1, rngs=rngs)
        self.norm2 = batch_norm(_BOTTLENECK * growth, rngs=rngs)
        self.relu2 = ReLU()
        self.conv2 = conv(_BOTTLENECK * growth, growth, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n H W k"]:
        """The new channels."""
        return self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))


class DenseBlock(nnx.Module):
    """`denselayer1` ...: each adds its channels to all before it."""

    def __init__(self, inputs: int, growth: int, depth: int, *, rngs: nnx.Rngs) -> None:
        self.depth = depth
        for i in range(depth):
            setattr(self, f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth, rngs=rngs))

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n H W k"]:
        """All channels, the block's inputs first."""
        for i in range(self.depth):
            x = jnp.concatenate([x, getattr(self, f"denselayer{i + 1}")(x)], axis=-1)
        return x


class Transition(nnx.Module):
    """Batch norm, ReLU, 1x1 convolution to half the channels, and the means of 2 x 2 positions."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.norm = batch_norm(inputs, rngs=rngs)
        self.relu = ReLU()
        self.conv = conv(inputs, outputs, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n h w k"]:
        """The smaller grid; an odd last row or column is left out, as in torch."""
        x = self.conv(self.relu(self.norm(x)))
        sums = jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return sums / 4


class DenseNet(Network):
    """`features.conv0` ... `features.denseblock4`, `features.norm5`, `relu`, `avgpool`, `classifier`."""

    default_layer = "relu"
    smallest_image = 32

    def __init__(
        self,
        depths: tuple[int, ...] = (6, 12, 24, 16),
        *,
        growth: int = 32,
        width: int = 64,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        stages: dict[str, nnx.Module] = {
            "features.conv0": conv(3, width, 7, strides=2, rngs=rngs),
            "features.norm0": batch_norm(width, rngs=rngs),
            "features.relu0": ReLU(),
            "features.pool0": MaxPool(3, 2, padding=1),
        }
        for number, depth in enumerate(depths, start=1):
            stages[f"features.denseblock{number}"] = DenseBlock(width, growth, depth, rngs=rngs)
            width += depth * growth
            if number < len(depths):
                stages[f"features.transition{number}"] = Transition(width, width // 2, rngs=rngs)
                width //= 2
        stages |= {
            "features.norm5": batch_norm(width, rngs=rngs),
            "relu": ReLU(),
            "avgpool": GlobalAveragePool(),
            "classifier": nnx.Linear(width, num_classes, rngs=rngs),
        }
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=IMAGENET)


def _torchvision_key(key: str) -> str:
    """The key of today for that of torchvision's files, which are of 2017: norm.1 was norm1 then."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)


ARCHITECTURES = family(
    "features.denseblock1.denselayer1.norm1.weight",
    Architecture(
        "densenet121",
        DenseNet,
        classifier="classifier",
        repo="timm/densenet121.ra_in1k",
        torchvision_key=_torchvision_key,
    ),
)
"""By name."""


def densenet121(weights: Weights = None, **options: Unpack[Options]) -> DenseNet:
    """DenseNet-121: 8.0 million parameters, 2.8 billion multiplications at 224 pixels."""
    return build(ARCHITECTURES["densenet121"], weights, options)

"""The CIFAR-10 residual networks: ResNet-20, 32, 44, 56 and 110. **Source**: He et al. 2016, Section 4.2.

6n + 2 layers: a convolution, three groups of n blocks with 16, 32 and 64 channels, global average pooling and one
linear layer. Where shapes differ the shortcut has no parameters (option A): every second pixel, and zeros for the
channels that are not there. Names are those of the checkpoints in use: `conv1`, `bn1`, `layer1.0.conv1` ..., `linear`.
Pictures have 32 x 32 pixels; explanations are made after `layer3`, 8 x 8 positions, where CAM applies as well.
"""

from functools import partial
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET, Preprocessing
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import CIFAR10, class_names
from jaxcam.models.modules import GlobalAveragePool, ReLU, batch_norm, conv
from jaxcam.models.network import Network


class CifarBlock(nnx.Module):
    """Two 3x3 convolutions, and a shortcut past both that has no parameters (option A)."""

    def __init__(self, inputs: int, outputs: int, *, strides: int, rngs: nnx.Rngs) -> None:
        self.conv1 = conv(inputs, outputs, 3, strides=strides, rngs=rngs)
        self.bn1 = batch_norm(outputs, rngs=rngs)
        self.conv2 = conv(outputs, outputs, 3, rngs=rngs)
        self.bn2 = batch_norm(outputs, rngs=rngs)
        self.strides, self.added = strides, outputs - inputs

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n h w k"]:
        """ReLU(residual + shortcut)."""
        residual = nnx.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        shortcut = x[:, :: self.strides, :: self.strides]
        before = self.added // 2
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (before, self.added - before)))
        return nnx.relu(residual + shortcut)


class CifarResNet(Network):
    """`conv1`, `bn1`, `relu`, the blocks `layer1.0` ... `layer3.2`, `avgpool`, `linear`."""

    default_layer = "layer3"
    smallest_image = 4

    def __init__(self, depth: int, *, num_classes: int = 10, rngs: nnx.Rngs) -> None:
        """Makes a network of `depth` = 6n + 2 layers."""
        stages: dict[str, nnx.Module] = {
            "conv1": conv(3, 16, 3, rngs=rngs),
            "bn1": batch_norm(16, rngs=rngs),
            "relu": ReLU(),
        }
        inputs = 16
        for group, outputs in enumerate((16, 32, 64), start=1):
            for i in range((depth - 2) // 6):
                strides = 2 if i == 0 and group > 1 else 1
                stages[f"layer{group}.{i}"] = CifarBlock(inputs, outputs, strides=strides, rngs=rngs)
                inputs = outputs
        stages["avgpool"] = GlobalAveragePool()
        stages["linear"] = nnx.Linear(64, num_classes, rngs=rngs)
        super().__init__(stages, class_names=class_names(num_classes, of=CIFAR10), preprocessing=_PREPROCESSING)


_PREPROCESSING = Preprocessing(resize=32, crop=32, mean=IMAGENET.mean, std=IMAGENET.std)


ARCHITECTURES = family(
    "linear.weight",
    *(
        Architecture(f"resnet{depth}", partial(CifarResNet, depth), classifier="linear", num_classes=10)
        for depth in (20, 32, 44, 56, 110)
    ),
)
"""By name."""


def resnet20(weights: Weights = None, **options: Unpack[Options]) -> CifarResNet:
    """ResNet-20 for CIFAR-10: 0.27 million parameters."""
    return build(ARCHITECTURES["resnet20"], weights, options)


def resnet32(weights: Weights = None, **options: Unpack[Options]) -> CifarResNet:
    """ResNet-32 for CIFAR-10: 0.46 million parameters."""
    return build(ARCHITECTURES["resnet32"], weights, options)


def resnet44(weights: Weights = None, **options: Unpack[Options]) -> CifarResNet:
    """ResNet-44 for CIFAR-10: 0.66 million parameters."""
    return build(ARCHITECTURES["resnet44"], weights, options)


def resnet56(weights: Weights = None, **options: Unpack[Options]) -> CifarResNet:
    """ResNet-56 for CIFAR-10: 0.85 million parameters."""
    return build(ARCHITECTURES["resnet56"], weights, options)


def resnet110(weights: Weights = None, **options: Unpack[Options]) -> CifarResNet:
    """ResNet-110 for CIFAR-10: 1.7 million parameters."""
    return build(ARCHITECTURES["resnet110"], weights, options)

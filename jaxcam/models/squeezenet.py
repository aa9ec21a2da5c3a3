"""SqueezeNet 1.0 and 1.1, with torchvision's names. **Source**: Iandola et al. 2016.

The classifier is a 1x1 convolution to the classes, a ReLU and global average pooling: the pooled maps are the logits,
so CAM applies after `classifier.2`, with the identity as its kernel.
"""

from collections.abc import Callable
from functools import partial
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import Dropout, GlobalAveragePool, MaxPool, ReLU, conv
from jaxcam.models.network import Network


class Fire(nnx.Module):
    """Squeeze to few channels, then expand by 1x1 and 3x3 convolutions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int, *, rngs: nnx.Rngs) -> None:
        self.squeeze = conv(inputs, squeeze, 1, bias=True, rngs=rngs)
        self.expand1x1 = conv(squeeze, expand, 1, bias=True, rngs=rngs)
        self.expand3x3 = conv(squeeze, expand, 3, bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n H W k"]:
        """Both expansions, side by side along the channels."""
        squeezed = nnx.relu(self.squeeze(x))
        return jnp.concatenate([nnx.relu(self.expand1x1(squeezed)), nnx.relu(self.expand3x3(squeezed))], axis=-1)


def _features_1_0(rngs: nnx.Rngs) -> list[nnx.Module]:
    fire, pool = partial(Fire, rngs=rngs), partial(MaxPool, 3, 2, ceil_mode=True)
    return [
        conv(3, 96, 7, strides=2, padding="VALID", bias=True, rngs=rngs), ReLU(), pool(),
        fire(96, 16, 64), fire(128, 16, 64), fire(128, 32, 128), pool(),
        fire(256, 32, 128), fire(256, 48, 192), fire(384, 48, 192), fire(384, 64, 256), pool(),
        fire(512, 64, 256),
    ]  # fmt: skip


def _features_1_1(rngs: nnx.Rngs) -> list[nnx.Module]:
    fire, pool = partial(Fire, rngs=rngs), partial(MaxPool, 3, 2, ceil_mode=True)
    return [
        conv(3, 64, 3, strides=2, padding="VALID", bias=True, rngs=rngs), ReLU(), pool(),
        fire(64, 16, 64), fire(128, 16, 64), pool(),
        fire(128, 32, 128), fire(256, 32, 128), pool(),
        fire(256, 48, 192), fire(384, 48, 192), fire(384, 64, 256), fire(512, 64, 256),
    ]  # fmt: skip


class SqueezeNet(Network):
    """`features.0` ... `features.12`, and `classifier.0` to `classifier.3`: dropout, convolution, ReLU, pooling."""

    default_layer = "features.12"

    def __init__(
        self, features: Callable[[nnx.Rngs], list[nnx.Module]], *, num_classes: int = 1000, rngs: nnx.Rngs
    ) -> None:
        stages = {f"features.{i}": module for i, module in enumerate(features(rngs))}
        stages["classifier.0"] = Dropout(0.5)
        stages["classifier.1"] = conv(512, num_classes, 1, bias=True, rngs=rngs)
        stages["classifier.2"] = ReLU()
        stages["classifier.3"] = GlobalAveragePool()
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=IMAGENET)


ARCHITECTURES = family(
    "features.3.squeeze.weight",
    Architecture("squeezenet1_0", partial(SqueezeNet, _features_1_0), classifier="classifier.1"),
    Architecture("squeezenet1_1", partial(SqueezeNet, _features_1_1), classifier="classifier.1"),
)
"""By name."""


def squeezenet1_0(weights: Weights = None, **options: Unpack[Options]) -> SqueezeNet:
    """SqueezeNet 1.0: 1.25 million parameters, 13 x 13 positions at 224 pixels."""
    return build(ARCHITECTURES["squeezenet1_0"], weights, options)


def squeezenet1_1(weights: Weights = None, **options: Unpack[Options]) -> SqueezeNet:
    """SqueezeNet 1.1: the same accuracy as 1.0 with 2.4 times less arithmetic."""
    return build(ARCHITECTURES["squeezenet1_1"], weights, options)

"""SqueezeNet 1.0 and 1.1, with torchvision's names. **Source**: Iandola et al. 2016.

The classifier is a 1x1 convolution to the classes, a ReLU and global average pooling: the pooled maps are the logits,
so CAM applies after `classifier.2`, with the identity as its kernel.
"""

from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images import IMAGENET, Preprocessing
from jaxcam.models._imagenet import class_names
from jaxcam.models._network import GlobalAveragePool, MaxPool, Network, ReLU
from jaxcam.models.weights import build, rows


class Fire(nnx.Module):
    """Squeeze to few channels, then expand by 1x1 and 3x3 convolutions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int, *, rngs: nnx.Rngs) -> None:
        self.squeeze = nnx.Conv(inputs, squeeze, (1, 1), rngs=rngs)
        self.expand1x1 = nnx.Conv(squeeze, expand, (1, 1), rngs=rngs)
        self.expand3x3 = nnx.Conv(squeeze, expand, (3, 3), rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n H W k"]:
        """Both expansions, side by side along the channels."""
        squeezed = nnx.relu(self.squeeze(x))
        return jnp.concatenate([nnx.relu(self.expand1x1(squeezed)), nnx.relu(self.expand3x3(squeezed))], axis=-1)


def _features_1_0(rngs: nnx.Rngs) -> list[nnx.Module]:
    fire, pool = partial(Fire, rngs=rngs), partial(MaxPool, 3, 2, ceil_mode=True)
    return [
        nnx.Conv(3, 96, (7, 7), 2, padding="VALID", rngs=rngs), ReLU(), pool(),
        fire(96, 16, 64), fire(128, 16, 64), fire(128, 32, 128), pool(),
        fire(256, 32, 128), fire(256, 48, 192), fire(384, 48, 192), fire(384, 64, 256), pool(),
        fire(512, 64, 256),
    ]  # fmt: skip


def _features_1_1(rngs: nnx.Rngs) -> list[nnx.Module]:
    fire, pool = partial(Fire, rngs=rngs), partial(MaxPool, 3, 2, ceil_mode=True)
    return [
        nnx.Conv(3, 64, (3, 3), 2, padding="VALID", rngs=rngs), ReLU(), pool(),
        fire(64, 16, 64), fire(128, 16, 64), pool(),
        fire(128, 32, 128), fire(256, 32, 128), pool(),
        fire(256, 48, 192), fire(384, 48, 192), fire(384, 64, 256), fire(512, 64, 256),
    ]  # fmt: skip


class SqueezeNet(Network):
    """`features.0` ... `features.12`, `classifier.1` (convolution), `classifier.2` (ReLU), `classifier.3` (pooling)."""

    default_layer: ClassVar[str] = "features.12"
    preprocessing: ClassVar[Preprocessing] = IMAGENET

    def __init__(self, features: list[nnx.Module], *, num_classes: int, rngs: nnx.Rngs) -> None:
        stages = {f"features.{i}": module for i, module in enumerate(features)}
        # classifier.0 is the dropout of training, which does nothing here.
        stages["classifier.1"] = nnx.Conv(512, num_classes, (1, 1), rngs=rngs)
        stages["classifier.2"] = ReLU()
        stages["classifier.3"] = GlobalAveragePool()
        super().__init__(stages, class_names=class_names(num_classes))


def squeezenet1_0(
    weights: str | PathLike[str] | None = None, *, num_classes: int | None = None, seed: int = 0
) -> SqueezeNet:
    """SqueezeNet 1.0: 1.25 million parameters, 13 x 13 positions at 224 pixels.

    Args:
        weights: a .safetensors file with torchvision's key names; None for random parameters.
        num_classes: as many as the file has (1,000 without one) unless given.
        seed: of the random parameters.

    Raises:
        ValueError: the file cannot be read or does not fit; missing, unexpected and misshapen keys are listed.
    """
    return _build(_features_1_0, weights, num_classes=num_classes, seed=seed)


def squeezenet1_1(
    weights: str | PathLike[str] | None = None, *, num_classes: int | None = None, seed: int = 0
) -> SqueezeNet:
    """SqueezeNet 1.1: the same accuracy as 1.0 with 2.4 times less arithmetic. Arguments as for `squeezenet1_0`."""
    return _build(_features_1_1, weights, num_classes=num_classes, seed=seed)


def _build(
    features: Callable[[nnx.Rngs], list[nnx.Module]],
    weights: str | PathLike[str] | None,
    *,
    num_classes: int | None,
    seed: int,
) -> SqueezeNet:
    if num_classes is None:
        num_classes = 1000 if weights is None else rows(weights, "classifier.1.bias", otherwise=1000)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, but is {num_classes}")

    def create() -> SqueezeNet:
        rngs = nnx.Rngs(seed)
        return SqueezeNet(features(rngs), num_classes=num_classes, rngs=rngs)

    return build(create, weights)

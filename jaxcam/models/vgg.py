"""VGG-11, 13, 16 and 19, with and without batch norm, with torchvision's names. **Source**: Simonyan & Zisserman 2015.

3x3 convolutions in five groups, max-pooling after each, and three fully connected layers, so that CAM does not apply.
Explained by default after the last convolution's ReLU (`features.29` of VGG-16): 14 x 14 positions at 224 pixels.
Images of other sizes are brought to 7 x 7 positions by adaptive average pooling before the fully connected layers.
"""

from functools import partial
from typing import Unpack

from flax import nnx

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import AdaptiveAveragePool, Dropout, Flatten, MaxPool, ReLU, batch_norm, conv
from jaxcam.models.network import Network

_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


class VGG(Network):
    """`features.0` ... (convolution, batch norm if any, ReLU, pooling), `avgpool`, `classifier.0` to `classifier.6`."""

    smallest_image = 32

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        batch_normed: bool = False,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        features: list[nnx.Module] = []
        inputs = 3
        for channels, depth in zip(_CHANNELS, depths, strict=True):
            for _ in range(depth):
                features.append(conv(inputs, channels, 3, bias=True, rngs=rngs))
                features.extend([batch_norm(channels, rngs=rngs)] if batch_normed else [])
                features.append(ReLU())
                inputs = channels
            features.append(MaxPool(2, 2))
        classifier = [
            nnx.Linear(512 * 7 * 7, 4096, rngs=rngs), ReLU(), Dropout(0.5),
            nnx.Linear(4096, 4096, rngs=rngs), ReLU(), Dropout(0.5),
            nnx.Linear(4096, num_classes, rngs=rngs),
        ]  # fmt: skip
        super().__init__(
            {
                **{f"features.{i}": module for i, module in enumerate(features)},
                "avgpool": AdaptiveAveragePool(7),
                "flatten": Flatten(channels_first=True),
                **{f"classifier.{i}": module for i, module in enumerate(classifier)},
            },
            class_names=class_names(num_classes),
            preprocessing=IMAGENET,
        )
        self.default_layer = f"features.{len(features) - 2}"


def vgg11(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-11 (configuration A): 133 million parameters."""
    return build(ARCHITECTURES["vgg11"], weights, options)


def vgg11_bn(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-11 with batch norm."""
    return build(ARCHITECTURES["vgg11_bn"], weights, options)


def vgg13(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-13 (configuration B): 133 million parameters."""
    return build(ARCHITECTURES["vgg13"], weights, options)


def vgg13_bn(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-13 with batch norm."""
    return build(ARCHITECTURES["vgg13_bn"], weights, options)


def vgg16(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-16 (configuration D): 138 million parameters, 15.5 billion multiplications at 224 pixels."""
    return build(ARCHITECTURES["vgg16"], weights, options)


def vgg16_bn(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-16 with batch norm."""
    return build(ARCHITECTURES["vgg16_bn"], weights, options)


def vgg19(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-19 (configuration E): 144 million parameters."""
    return build(ARCHITECTURES["vgg19"], weights, options)


def vgg19_bn(weights: Weights = None, **options: Unpack[Options]) -> VGG:
    """VGG-19 with batch norm."""
    return build(ARCHITECTURES["vgg19_bn"], weights, options)


_TIMM = {"pre_logits.fc1.": "classifier.0.", "pre_logits.fc2.": "classifier.3.", "head.fc.": "classifier.6."}


def _torchvision_key(key: str) -> str:
    """The key that torchvision has for timm's."""
    for prefix, replacement in _TIMM.items():
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    return key


def _architecture(depth: int, *, batch_normed: bool) -> Architecture[VGG]:
    name = f"vgg{depth}_bn" if batch_normed else f"vgg{depth}"
    return Architecture(
        name,
        partial(VGG, _DEPTHS[depth], batch_normed=batch_normed),
        classifier="classifier.6",
        repo=f"timm/{name}.tv_in1k",
        torchvision_key=_torchvision_key,
    )


ARCHITECTURES = family(
    "classifier.6.weight",
    *(_architecture(depth, batch_normed=batch_normed) for depth in _DEPTHS for batch_normed in (False, True)),
)
"""By name."""

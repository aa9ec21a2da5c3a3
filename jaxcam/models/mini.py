"""The embedded networks: small, really trained on `jaxcam.scenes`, and as different as the methods need.

`mini_vgg` ends in fully connected layers, so that CAM does not apply and Grad-CAM and Grad-CAM++ differ; `mini_resnet`
ends in global average pooling, so that CAM applies and equals Grad-CAM up to a factor; `mini_vit` is a transformer with
a class token, for methods that read attention. All see 64 x 64 pixels; their maps have grids of 8 x 8, 16 x 16 and
8 x 8 positions. `python -m jaxcam train` makes their weights again (see `jaxcam.models.train`).
"""

from typing import Any, Unpack

from flax import nnx
from jaxtyping import Array, Float

from jaxcam import scenes
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.models.architecture import Architecture, Options, Weights
from jaxcam.models.attention import Block as TransformerBlock
from jaxcam.models.class_names import class_names
from jaxcam.models.embedded import EMBEDDED, conv, embedded, linear, norm
from jaxcam.models.modules import AdaptiveAveragePool, Flatten, GlobalAveragePool, LayerNorm, MaxPool, ReLU
from jaxcam.models.network import Network
from jaxcam.models.vit import ClassToken, Tokens

_PREPROCESSING = Preprocessing(resize=64, crop=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
_NUM_CLASSES = len(scenes.CLASS_NAMES)


class MiniVGG(Network):
    """Six convolutions, max-pooling, two hidden fully connected layers: 0.34 million parameters."""

    default_layer = "relu6"
    smallest_image = 16

    def __init__(self, *, num_classes: int = _NUM_CLASSES, rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                "conv1": _conv(3, 24, size=5, strides=2, rngs=rngs), "bn1": norm(24, rngs=rngs), "relu1": ReLU(),
                "conv2": _conv(24, 32, rngs=rngs), "bn2": norm(32, rngs=rngs), "relu2": ReLU(), "pool2": MaxPool(2, 2),
                "conv3": _conv(32, 48, rngs=rngs), "bn3": norm(48, rngs=rngs), "relu3": ReLU(),
                "conv4": _conv(48, 64, rngs=rngs), "bn4": norm(64, rngs=rngs), "relu4": ReLU(), "pool4": MaxPool(2, 2),
                "conv5": _conv(64, 96, rngs=rngs), "bn5": norm(96, rngs=rngs), "relu5": ReLU(),
                "conv6": _conv(96, 96, rngs=rngs), "bn6": norm(96, rngs=rngs), "relu6": ReLU(), "pool6": MaxPool(2, 2),
                "avgpool": AdaptiveAveragePool(4), "flatten": Flatten(),
                "fc7": linear(4 * 4 * 96, 96, rngs=rngs), "relu7": ReLU(),
                "fc8": linear(96, 64, rngs=rngs), "relu8": ReLU(),
                "fc9": linear(64, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.CLASS_NAMES),
            preprocessing=_PREPROCESSING,
        )  # fmt: skip


class Block(nnx.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut past both. **Source**: He et al. 2016, Fig. 2."""

    def __init__(self, inputs: int, outputs: int, *, strides: int = 1, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(inputs, outputs, strides=strides, rngs=rngs)
        self.bn1 = norm(outputs, rngs=rngs)
        self.conv2 = _conv(outputs, outputs, rngs=rngs)
        self.bn2 = norm(outputs, rngs=rngs)
        self.shortcut = (
            None if (inputs, strides) == (outputs, 1) else _conv(inputs, outputs, size=1, strides=strides, rngs=rngs)
        )

    def __call__(self, x: Float[Array, "*n H W d"]) -> Float[Array, "*n h w k"]:
        """ReLU(residual + shortcut); of the frames of clips as of pictures."""
        residual = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


class MiniResNet(Network):
    """Three residual blocks, global average pooling and one linear layer: 0.08 million parameters."""

    default_layer = "layer3"
    smallest_image = 4

    def __init__(self, *, num_classes: int = _NUM_CLASSES, rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                "conv1": _conv(3, 16, strides=2, rngs=rngs),
                "bn1": norm(16, rngs=rngs),
                "relu": ReLU(),
                "layer1": Block(16, 16, rngs=rngs),
                "layer2": Block(16, 32, strides=2, rngs=rngs),
                "layer3": Block(32, 64, rngs=rngs),
                "avgpool": GlobalAveragePool(),
                "fc": linear(64, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.CLASS_NAMES),
            preprocessing=_PREPROCESSING,
        )


class MiniViT(Network):
    """A vision transformer: 8 x 8 tokens from four convolutions, a class token, five blocks: 0.24 million parameters.

    Patches are embedded by convolutions with strides and not by one linear map: transformers learn faster so, and from
    fewer pictures. A token has seen 23 x 23 pixels before the first block; what is further away, attention brings.

    **Source**: Xiao et al. 2021, "Early convolutions help transformers see better".
    """

    default_layer = "blocks.3"  # the input of the last block: behind its attention one token alone is read
    smallest_image = 8

    def __init__(self, *, num_classes: int = _NUM_CLASSES, rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                "conv1": _conv(3, 24, strides=2, rngs=rngs), "bn1": norm(24, rngs=rngs), "relu1": ReLU(),
                "conv2": _conv(24, 48, strides=2, rngs=rngs), "bn2": norm(48, rngs=rngs), "relu2": ReLU(),
                "conv3": _conv(48, 48, rngs=rngs), "bn3": norm(48, rngs=rngs), "relu3": ReLU(),
                "conv4": _conv(48, 64, strides=2, rngs=rngs), "bn4": norm(64, rngs=rngs), "relu4": ReLU(),
                "proj": nnx.Conv(64, 64, (1, 1), rngs=rngs),
                "tokens": Tokens(64, 8, embeds_class=True, rngs=rngs),
                **{f"blocks.{i}": TransformerBlock(64, 4, mlp_ratio=2, rngs=rngs) for i in range(5)},
                "norm": LayerNorm(64, epsilon=1e-6), "pool": ClassToken(),
                "head": nnx.Linear(64, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.CLASS_NAMES),
            preprocessing=_PREPROCESSING,
        )  # fmt: skip


ARCHITECTURES: dict[str, Architecture[Any]] = {
    "mini_vgg": Architecture("mini_vgg", MiniVGG, classifier="fc9", num_classes=_NUM_CLASSES),
    "mini_resnet": Architecture("mini_resnet", MiniResNet, classifier="fc", num_classes=_NUM_CLASSES),
    "mini_vit": Architecture("mini_vit", MiniViT, classifier="head", num_classes=_NUM_CLASSES),
}
"""By name."""


def mini_vgg(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniVGG:
    """The embedded VGG-like network; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_vgg"], weights, options)


def mini_resnet(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniResNet:
    """The embedded residual network; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_resnet"], weights, options)


def mini_vit(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniViT:
    """The embedded vision transformer; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_vit"], weights, options)


def _conv(inputs: int, outputs: int, *, rngs: nnx.Rngs, size: int = 3, strides: int = 1) -> nnx.Conv:
    return conv(inputs, outputs, (size, size), strides=(strides, strides), rngs=rngs)

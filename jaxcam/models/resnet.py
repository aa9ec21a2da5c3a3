"""ResNet-18 to 152, ResNeXt-50 and Wide ResNet-50-2, with torchvision's (and timm's) names.

A strided convolution, max-pooling, four groups of residual blocks, global average pooling and one linear layer: CAM
applies after `layer4`, where explanations are made by default: 7 x 7 positions at 224 pixels. The strides of a group
are in the 3x3 convolution of its first block, as in torchvision ("ResNet v1.5"). The residual networks for pictures of
32 pixels are in `cifar_resnet.py`.

**Source**: He et al. 2016 (ResNet), Xie et al. 2017 (ResNeXt), Zagoruyko & Komodakis 2016 (wide).
"""

from functools import partial
from typing import Unpack

from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import GlobalAveragePool, MaxPool, ReLU, batch_norm, conv
from jaxcam.models.network import Network


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions, and a shortcut past both. **Source**: He et al. 2016, Fig. 5 left."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, *, strides: int, groups: int = 1, base_width: int = 64, rngs: nnx.Rngs
    ) -> None:
        if (groups, base_width) != (1, 64):
            raise ValueError(f"groups={groups} and base_width={base_width} are for bottleneck blocks: use Bottleneck")
        self.conv1 = conv(inputs, width, 3, strides=strides, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.downsample = _downsample(inputs, width, strides, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n h w k"]:
        """ReLU(residual + shortcut)."""
        residual = nnx.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return nnx.relu(residual + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolution, and a shortcut past the three. **Source**: He et al. 2016, Fig. 5 right."""

    expansion = 4

    def __init__(
        self, inputs: int, width: int, *, strides: int, groups: int = 1, base_width: int = 64, rngs: nnx.Rngs
    ) -> None:
        inner, outputs = width * base_width // 64 * groups, width * self.expansion
        self.conv1 = conv(inputs, inner, 1, rngs=rngs)
        self.bn1 = batch_norm(inner, rngs=rngs)
        self.conv2 = conv(inner, inner, 3, strides=strides, groups=groups, rngs=rngs)
        self.bn2 = batch_norm(inner, rngs=rngs)
        self.conv3 = conv(inner, outputs, 1, rngs=rngs)
        self.bn3 = batch_norm(outputs, rngs=rngs)
        self.downsample = _downsample(inputs, outputs, strides, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n h w k"]:
        """ReLU(residual + shortcut)."""
        residual = nnx.relu(self.bn1(self.conv1(x)))
        residual = nnx.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return nnx.relu(residual + (x if self.downsample is None else self.downsample(x)))


def _downsample(inputs: int, outputs: int, strides: int, *, rngs: nnx.Rngs) -> nnx.Sequential | None:
    """The shortcut where shapes differ: a projection (option B)."""
    if (inputs, strides) == (outputs, 1):
        return None
    return nnx.Sequential(conv(inputs, outputs, 1, strides=strides, rngs=rngs), batch_norm(outputs, rngs=rngs))


class ResNet(Network):
    """`conv1`, `bn1`, `relu`, `maxpool`, the blocks `layer1.0` ... `layer4.2`, `avgpool`, `fc`."""

    default_layer = "layer4"
    smallest_image = 32

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        groups: int = 1,
        base_width: int = 64,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        stages: dict[str, nnx.Module] = {
            "conv1": conv(3, 64, 7, strides=2, rngs=rngs),
            "bn1": batch_norm(64, rngs=rngs),
            "relu": ReLU(),
            "maxpool": MaxPool(3, 2, padding=1),
        }
        make = partial(block, groups=groups, base_width=base_width, rngs=rngs)
        inputs = 64
        for group, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), start=1):
            for i in range(depth):
                stages[f"layer{group}.{i}"] = make(inputs, width, strides=2 if i == 0 and group > 1 else 1)
                inputs = width * block.expansion
        stages["avgpool"] = GlobalAveragePool()
        stages["fc"] = nnx.Linear(inputs, num_classes, rngs=rngs)
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=IMAGENET)


_NETWORKS = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": partial(ResNet, Bottleneck, (3, 4, 6, 3), groups=32, base_width=4),
    "wide_resnet50_2": partial(ResNet, Bottleneck, (3, 4, 6, 3), base_width=128),
}
ARCHITECTURES = family(
    "fc.weight",
    *(Architecture(name, network, classifier="fc", repo=f"timm/{name}.tv_in1k") for name, network in _NETWORKS.items()),
)
"""By name."""


def resnet18(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """ResNet-18: 11.7 million parameters, 512 channels at `layer4`."""
    return build(ARCHITECTURES["resnet18"], weights, options)


def resnet34(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """ResNet-34: 21.8 million parameters, 512 channels at `layer4`."""
    return build(ARCHITECTURES["resnet34"], weights, options)


def resnet50(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """ResNet-50: 25.6 million parameters, 2,048 channels at `layer4`."""
    return build(ARCHITECTURES["resnet50"], weights, options)


def resnet101(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """ResNet-101: 44.5 million parameters, 2,048 channels at `layer4`."""
    return build(ARCHITECTURES["resnet101"], weights, options)


def resnet152(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """ResNet-152: 60.2 million parameters, 2,048 channels at `layer4`."""
    return build(ARCHITECTURES["resnet152"], weights, options)


def resnext50_32x4d(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """ResNeXt-50 (32 groups of 4 channels): 25.0 million parameters."""
    return build(ARCHITECTURES["resnext50_32x4d"], weights, options)


def wide_resnet50_2(weights: Weights = None, **options: Unpack[Options]) -> ResNet:
    """Wide ResNet-50-2 (bottlenecks twice as wide): 68.9 million parameters."""
    return build(ARCHITECTURES["wide_resnet50_2"], weights, options)

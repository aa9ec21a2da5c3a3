"""MobileNetV3-Small, with torchvision's names (timm's are translated). **Source**: Howard et al. 2019, Table 2.

A strided convolution, eleven inverted residual blocks, nine of them with squeeze-and-excitation by a hard sigmoid, a
1x1 convolution, global average pooling and two linear layers with a hard swish between them, so that CAM does not
apply. Explained by default after `features.12` (7 x 7 positions at 224 pixels).

Three dialects, as in `efficientnet.py`: torchvision's batch norm has the epsilon 1e-3, timm's `mobilenetv3_small_100`
1e-5, and `tf_mobilenetv3_small_100` 1e-3 with TensorFlow's padding, recognised by its config.json.
"""

import re
from functools import partial
from typing import NamedTuple, Unpack

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.efficientnet import Norms, conv_norm, divisible
from jaxcam.models.modules import Dropout, GlobalAveragePool, HardSwish, ReLU, conv
from jaxcam.models.network import Network


class _Row(NamedTuple):
    """A row of Table 2."""

    size: int
    expanded: int
    outputs: int
    has_excitation: bool
    activation: type[nnx.Module]
    strides: int


_SMALL = (
    _Row(3, 16, 16, True, ReLU, 2),
    _Row(3, 72, 24, False, ReLU, 2),
    _Row(3, 88, 24, False, ReLU, 1),
    _Row(5, 96, 40, True, HardSwish, 2),
    _Row(5, 240, 40, True, HardSwish, 1),
    _Row(5, 240, 40, True, HardSwish, 1),
    _Row(5, 120, 48, True, HardSwish, 1),
    _Row(5, 144, 48, True, HardSwish, 1),
    _Row(5, 288, 96, True, HardSwish, 2),
    _Row(5, 576, 96, True, HardSwish, 1),
    _Row(5, 576, 96, True, HardSwish, 1),
)
_TORCHVISION = Norms(epsilon=1e-3, momentum=0.01)


class HardExcitation(nnx.Module):
    """Scales each channel by a factor from 0 to 1 that is computed from the means of all; piecewise linear inside."""

    def __init__(self, channels: int, squeezed: int, *, rngs: nnx.Rngs) -> None:
        self.fc1 = conv(channels, squeezed, 1, bias=True, rngs=rngs)
        self.fc2 = conv(squeezed, channels, 1, bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n H W k"]:
        """The scaled activations."""
        means = x.mean((1, 2), keepdims=True)
        factors = jax.nn.hard_sigmoid(self.fc2(jax.nn.relu(self.fc1(means))))
        return x * jax.numpy.broadcast_to(factors, x.shape)


class InvertedResidual(nnx.Module):
    """Expand 1x1, depthwise, squeeze-and-excitation, project 1x1; and a shortcut past them where shapes agree."""

    def __init__(self, inputs: int, row: _Row, *, norms: Norms, rngs: nnx.Rngs) -> None:
        part = partial(conv_norm, norms=norms, activation=row.activation, rngs=rngs)
        expanded = row.expanded
        squeezed = divisible(expanded // 4)
        self.block = nnx.Sequential(
            *([] if expanded == inputs else [part(inputs, expanded, 1)]),
            part(expanded, expanded, row.size, strides=row.strides, groups=expanded),
            *([HardExcitation(expanded, squeezed, rngs=rngs)] if row.has_excitation else []),
            conv_norm(expanded, row.outputs, 1, activation=None, norms=norms, rngs=rngs),
        )
        self.has_shortcut = row.strides == 1 and inputs == row.outputs

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n h w k"]:
        """Residual + shortcut, where strides and channels allow it."""
        residual = self.block(x)
        return x + residual if self.has_shortcut else residual


class MobileNetV3(Network):
    """`features.0` ... `features.12`, `avgpool`, `classifier.0` to `classifier.3`."""

    default_layer = "features.12"
    smallest_image = 32

    def __init__(
        self,
        rows: tuple[_Row, ...] = _SMALL,
        *,
        hidden: int = 1024,
        norms: Norms = _TORCHVISION,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        part = partial(conv_norm, activation=HardSwish, norms=norms, rngs=rngs)
        inputs = 16
        stages: dict[str, nnx.Module] = {"features.0": part(3, inputs, 3, strides=2)}
        for number, row in enumerate(rows, start=1):
            stages[f"features.{number}"] = InvertedResidual(inputs, row, norms=norms, rngs=rngs)
            inputs = row.outputs
        stages |= {
            f"features.{len(rows) + 1}": part(inputs, 6 * inputs, 1),
            "avgpool": GlobalAveragePool(),
            "classifier.0": nnx.Linear(6 * inputs, hidden, rngs=rngs),
            "classifier.1": HardSwish(),
            "classifier.2": Dropout(0.2),
            "classifier.3": nnx.Linear(hidden, num_classes, rngs=rngs),
        }
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=IMAGENET)


_OUTER = {
    "conv_stem": "features.0.0", "bn1": "features.0.1",
    "blocks.5.0.conv": "features.12.0", "blocks.5.0.bn1": "features.12.1",
    "conv_head": "classifier.0", "classifier": "classifier.3",
}  # fmt: skip
_GROUPS = (0, 1, 3, 6, 8)
"""How many blocks come before each of timm's groups."""


def _torchvision_key(key: str) -> str:
    """The key that torchvision has for timm's."""
    module, _, leaf = key.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{leaf}"
    found = re.fullmatch(r"blocks\.([0-4])\.(\d+)\.(.+)", module)
    if found is None:
        return key
    number = _GROUPS[int(found[1])] + int(found[2])
    if number >= len(_SMALL):
        return key
    last = 2 + _SMALL[number].has_excitation
    parts = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1"}
    parts |= {"se.conv_reduce": "2.fc1", "se.conv_expand": "2.fc2", "conv_pwl": f"{last}.0", "bn3": f"{last}.1"}
    if number == 0:  # as many channels as the stem's: nothing to expand
        parts = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "2.0", "bn2": "2.1"}
        parts |= {"se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2"}
    return f"features.{number + 1}.block.{parts[found[3]]}.{leaf}" if found[3] in parts else key


ARCHITECTURES = family(
    "features.1.block.0.0.weight",
    Architecture(
        "mobilenet_v3_small",
        MobileNetV3,
        classifier="classifier.3",
        repo="timm/mobilenetv3_small_100.lamb_in1k",
        torchvision_key=_torchvision_key,
        dialects={
            "torchvision": {"norms": _TORCHVISION},
            "timm": {"norms": Norms()},
            "tf": {"norms": Norms(padding="SAME", epsilon=1e-3)},
        },
    ),
)
"""By name."""


def mobilenet_v3_small(weights: Weights = None, **options: Unpack[Options]) -> MobileNetV3:
    """MobileNetV3-Small: 2.5 million parameters, 57 million multiplications at 224 pixels."""
    return build(ARCHITECTURES["mobilenet_v3_small"], weights, options)

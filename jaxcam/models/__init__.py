"""The networks: Flax NNX modules with `features`, `head`, `preprocessing` and `class_names`.

    model = jaxcam.models.resnet50(weights="resnet50.safetensors")

Every constructor takes `weights` (a file, a folder, a Hugging Face repo, "imagenet", or None for random parameters; see
`Weights`) and the keyword arguments of `Options`. The embedded ones need no file: `mini_vgg`, `mini_resnet` and
`mini_vit` of pictures, `mini_tcn` of series, `mini_net3d` of volumes, `mini_c3d` and `mini_convlstm` of clips.
`mini_captioner` and `mini_vqa` read words beside a picture. Flax is imported here; elsewhere only inside the functions
that need it.
"""

from collections.abc import Callable
from types import MappingProxyType

from jaxcam.models import cifar_resnet as _cifar_resnet
from jaxcam.models import convnext as _convnext
from jaxcam.models import densenet as _densenet
from jaxcam.models import efficientnet as _efficientnet
from jaxcam.models import efficientnet_lite as _efficientnet_lite
from jaxcam.models import mini as _mini
from jaxcam.models import mobilenet as _mobilenet
from jaxcam.models import resnet as _resnet
from jaxcam.models import sequences as _sequences
from jaxcam.models import squeezenet as _squeezenet
from jaxcam.models import swin as _swin
from jaxcam.models import vgg as _vgg
from jaxcam.models import vit as _vit
from jaxcam.models import weights as weights
from jaxcam.models.answering import MiniVQA as MiniVQA
from jaxcam.models.answering import mini_vqa as mini_vqa
from jaxcam.models.architecture import Options as Options
from jaxcam.models.architecture import Weights as Weights
from jaxcam.models.batch_norm import fold_batch_norm as fold_batch_norm
from jaxcam.models.captioner import MiniCaptioner as MiniCaptioner
from jaxcam.models.captioner import mini_captioner as mini_captioner
from jaxcam.models.chain import Chain as Chain
from jaxcam.models.cifar_resnet import CifarResNet as CifarResNet
from jaxcam.models.cifar_resnet import resnet20 as resnet20
from jaxcam.models.cifar_resnet import resnet32 as resnet32
from jaxcam.models.cifar_resnet import resnet44 as resnet44
from jaxcam.models.cifar_resnet import resnet56 as resnet56
from jaxcam.models.cifar_resnet import resnet110 as resnet110
from jaxcam.models.classifier import Classifier as Classifier
from jaxcam.models.convnext import ConvNeXt as ConvNeXt
from jaxcam.models.convnext import convnext_tiny as convnext_tiny
from jaxcam.models.densenet import DenseNet as DenseNet
from jaxcam.models.densenet import densenet121 as densenet121
from jaxcam.models.efficientnet import EfficientNet as EfficientNet
from jaxcam.models.efficientnet import efficientnet_b0 as efficientnet_b0
from jaxcam.models.efficientnet import efficientnet_b1 as efficientnet_b1
from jaxcam.models.efficientnet import efficientnet_b2 as efficientnet_b2
from jaxcam.models.efficientnet import efficientnet_b3 as efficientnet_b3
from jaxcam.models.efficientnet import efficientnet_b4 as efficientnet_b4
from jaxcam.models.efficientnet import efficientnet_b5 as efficientnet_b5
from jaxcam.models.efficientnet import efficientnet_b6 as efficientnet_b6
from jaxcam.models.efficientnet import efficientnet_b7 as efficientnet_b7
from jaxcam.models.efficientnet_lite import EfficientNetLite as EfficientNetLite
from jaxcam.models.efficientnet_lite import efficientnet_lite0 as efficientnet_lite0
from jaxcam.models.embedded import EMBEDDED as EMBEDDED
from jaxcam.models.mini import MiniResNet as MiniResNet
from jaxcam.models.mini import MiniVGG as MiniVGG
from jaxcam.models.mini import MiniViT as MiniViT
from jaxcam.models.mini import mini_resnet as mini_resnet
from jaxcam.models.mini import mini_vgg as mini_vgg
from jaxcam.models.mini import mini_vit as mini_vit
from jaxcam.models.mobilenet import MobileNetV3 as MobileNetV3
from jaxcam.models.mobilenet import mobilenet_v3_small as mobilenet_v3_small
from jaxcam.models.network import Network as Network
from jaxcam.models.reader import Reader as Reader
from jaxcam.models.resnet import ResNet as ResNet
from jaxcam.models.resnet import resnet18 as resnet18
from jaxcam.models.resnet import resnet34 as resnet34
from jaxcam.models.resnet import resnet50 as resnet50
from jaxcam.models.resnet import resnet101 as resnet101
from jaxcam.models.resnet import resnet152 as resnet152
from jaxcam.models.resnet import resnext50_32x4d as resnext50_32x4d
from jaxcam.models.resnet import wide_resnet50_2 as wide_resnet50_2
from jaxcam.models.sequences import MiniC3D as MiniC3D
from jaxcam.models.sequences import MiniConvLSTM as MiniConvLSTM
from jaxcam.models.sequences import MiniNet3D as MiniNet3D
from jaxcam.models.sequences import MiniTCN as MiniTCN
from jaxcam.models.sequences import mini_c3d as mini_c3d
from jaxcam.models.sequences import mini_convlstm as mini_convlstm
from jaxcam.models.sequences import mini_net3d as mini_net3d
from jaxcam.models.sequences import mini_tcn as mini_tcn
from jaxcam.models.squeezenet import SqueezeNet as SqueezeNet
from jaxcam.models.squeezenet import squeezenet1_0 as squeezenet1_0
from jaxcam.models.squeezenet import squeezenet1_1 as squeezenet1_1
from jaxcam.models.swin import Swin as Swin
from jaxcam.models.swin import swin_tiny as swin_tiny
from jaxcam.models.vgg import VGG as VGG
from jaxcam.models.vgg import vgg11 as vgg11
from jaxcam.models.vgg import vgg11_bn as vgg11_bn
from jaxcam.models.vgg import vgg13 as vgg13
from jaxcam.models.vgg import vgg13_bn as vgg13_bn
from jaxcam.models.vgg import vgg16 as vgg16
from jaxcam.models.vgg import vgg16_bn as vgg16_bn
from jaxcam.models.vgg import vgg19 as vgg19
from jaxcam.models.vgg import vgg19_bn as vgg19_bn
from jaxcam.models.vit import VisionTransformer as VisionTransformer
from jaxcam.models.vit import vit_base_patch16_224 as vit_base_patch16_224
from jaxcam.models.vit import vit_base_patch16_siglip_224 as vit_base_patch16_siglip_224
from jaxcam.models.vit import vit_small_patch14_dinov2 as vit_small_patch14_dinov2
from jaxcam.models.vit import vit_small_patch14_reg4_dinov2 as vit_small_patch14_reg4_dinov2
from jaxcam.models.vit import vit_small_patch16_224 as vit_small_patch16_224
from jaxcam.models.vit import vit_tiny_patch16_224 as vit_tiny_patch16_224

_FAMILIES = (
    _mini, _squeezenet, _vgg, _resnet, _cifar_resnet, _efficientnet, _efficientnet_lite,
    _convnext, _densenet, _mobilenet, _swin, _vit,
)  # fmt: skip

MODELS: MappingProxyType[str, Callable[..., Network]] = MappingProxyType(
    {name: getattr(family, name) for family in _FAMILIES for name in family.ARCHITECTURES}
)
"""The constructors of networks of pictures by name."""
SEQUENCE_MODELS: MappingProxyType[str, Callable[..., Chain]] = MappingProxyType(
    {name: getattr(_sequences, name) for name in _sequences.ARCHITECTURES}
)
"""Those of series, volumes and clips."""
WORD_MODELS: MappingProxyType[str, Callable[..., Reader]] = MappingProxyType(
    {"mini_captioner": mini_captioner, "mini_vqa": mini_vqa}
)
"""Those of a picture and words."""
EMBEDDED_MODELS = ("mini_resnet", "mini_vgg", "mini_vit")
"""Networks of pictures whose trained weights are in the package."""

__all__ = [
    "EMBEDDED",
    "EMBEDDED_MODELS",
    "MODELS",
    "SEQUENCE_MODELS",
    "VGG",
    "WORD_MODELS",
    "Chain",
    "CifarResNet",
    "Classifier",
    "ConvNeXt",
    "DenseNet",
    "EfficientNet",
    "EfficientNetLite",
    "MiniC3D",
    "MiniCaptioner",
    "MiniConvLSTM",
    "MiniNet3D",
    "MiniResNet",
    "MiniTCN",
    "MiniVGG",
    "MiniVQA",
    "MiniViT",
    "MobileNetV3",
    "Network",
    "Options",
    "Reader",
    "ResNet",
    "SqueezeNet",
    "Swin",
    "VisionTransformer",
    "Weights",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_lite0",
    "fold_batch_norm",
    "mini_c3d",
    "mini_captioner",
    "mini_convlstm",
    "mini_net3d",
    "mini_resnet",
    "mini_tcn",
    "mini_vgg",
    "mini_vit",
    "mini_vqa",
    "mobilenet_v3_small",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "resnext50_32x4d",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_tiny",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vit_base_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_224",
    "vit_tiny_patch16_224",
    "weights",
    "wide_resnet50_2",
]


def __dir__() -> list[str]:
    return __all__

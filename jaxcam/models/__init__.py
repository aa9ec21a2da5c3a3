"""The networks: Flax NNX modules with `features`, `head`, `preprocessing` and `class_names`.

    model = jaxcam.models.squeezenet1_1(weights="squeezenet1_1.safetensors")

The embedded ones, `mini_vgg` and `mini_resnet`, need no file. Flax is imported here and nowhere else in jaxcam.
"""

from collections.abc import Callable
from types import MappingProxyType

from jaxcam.models._network import Network as Network
from jaxcam.models.mini import EMBEDDED as EMBEDDED
from jaxcam.models.mini import MiniResNet as MiniResNet
from jaxcam.models.mini import MiniVGG as MiniVGG
from jaxcam.models.mini import mini_resnet as mini_resnet
from jaxcam.models.mini import mini_vgg as mini_vgg
from jaxcam.models.squeezenet import SqueezeNet as SqueezeNet
from jaxcam.models.squeezenet import squeezenet1_0 as squeezenet1_0
from jaxcam.models.squeezenet import squeezenet1_1 as squeezenet1_1

MODELS: MappingProxyType[str, Callable[..., Network]] = MappingProxyType(
    {
        "mini_resnet": mini_resnet,
        "mini_vgg": mini_vgg,
        "squeezenet1_0": squeezenet1_0,
        "squeezenet1_1": squeezenet1_1,
    }
)
"""The constructors by name."""
EMBEDDED_MODELS = ("mini_resnet", "mini_vgg")
"""Those whose trained weights are in the package."""

"""The network that --model and --weights name, for every command that takes them."""

from jaxcam.commands.parser import UsageError, one_line
from jaxcam.models import EMBEDDED_MODELS, MODELS, Network

MODELS_HELP = (
    "mini_resnet, mini_vgg, mini_vit, resnet18|34|50|101|152, vgg16[_bn], efficientnet_lite0, swin_tiny, "
    "vit_base_patch16_224 ...: any name of jaxcam.models.MODELS"
)
WEIGHTS_HELP = 'a .safetensors or .pth file, a Hugging Face repo, or "imagenet"; the mini networks have theirs built in'


def network(name: str, weights: str | None) -> Network:
    """The network of --model and --weights."""
    if weights is None and name not in EMBEDDED_MODELS:
        raise UsageError(
            f"--model {name} needs --weights: a .safetensors or .pth file, a Hugging Face repo, or imagenet"
        )
    try:
        return MODELS[name]() if weights is None else MODELS[name](weights)
    except (ValueError, OSError) as error:
        raise UsageError(f"--weights: {one_line(error).removeprefix('weights: ')}") from None

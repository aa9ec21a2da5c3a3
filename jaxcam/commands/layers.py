"""`python -m jaxcam layers`: where a network can be cut, as a table."""

import argparse

import jax
import numpy as np

from jaxcam.commands.networks import add_network, default_name, network
from jaxcam.commands.parser import Parser, UsageError, one_line, report
from jaxcam.cuts.layers import layers
from jaxcam.models import MODELS

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
    add_network(parser)
    options = parser.parse_args(arguments)
    name = options.model or default_name(for_photographs=True)
    try:
        model = MODELS[name]() if options.weights is None else network(name, options.weights)
    except UsageError as error:
        report(one_line(error))
        return 2
    side = model.preprocessing.crop or model.preprocessing.resize
    print(f"{name}, {side} x {side} pixels")
    print(layers(model, jax.ShapeDtypeStruct((1, side, side, len(model.preprocessing.mean)), np.float32)))
    return 0

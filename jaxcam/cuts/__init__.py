"""Cuts: any JAX model as a program, its layers, and the two halves before and after one of them.

`adapt` says how a model is called; `layers` lists where it can be cut, `split` cuts it, `named` gives NNX modules names
for their layers.
"""

from jaxcam.cuts.layers import Layer as Layer
from jaxcam.cuts.layers import Layers as Layers
from jaxcam.cuts.layers import layers as layers
from jaxcam.cuts.model import Adapted as Adapted
from jaxcam.cuts.model import adapt as adapt
from jaxcam.cuts.named import named as named
from jaxcam.cuts.split import split as split

__all__ = ["Adapted", "Layer", "Layers", "adapt", "layers", "named", "split"]

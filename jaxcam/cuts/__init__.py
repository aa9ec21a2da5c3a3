"""Cuts: any JAX model as a program, its layers, and the two halves before and after one of them.

`layers` lists where a model can be cut, `split` cuts it, `named` gives NNX modules names for their layers.
"""

from jaxcam.cuts.cut import layers as layers
from jaxcam.cuts.cut import split as split
from jaxcam.cuts.layers import Layer as Layer
from jaxcam.cuts.layers import Layers as Layers
from jaxcam.cuts.named import named as named

__all__ = ["Layer", "Layers", "layers", "named", "split"]

"""Parameters as Flax has them and as torch has them: names, and the order of axes.

The parameters of a network of the package stand under paths that spell torchvision's keys, so conversion is mechanical:
the leaf's name and the axes' order change, nothing else.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Of Network, of nnx.Sequential and of ViT's parameters outside its layers: torch's keys have nothing for them.
_CONTAINERS = ("stages", "layers", "tokens")
# Torch's order of the axes of kernels, by their number: of volumes [d, h, w, in, out], of pictures, of linear layers.
# Three axes are tokens [1, t, k], or a kernel of series [t, in, out] in Flax's order: torch's networks here have none.
_AXES = {5: (4, 3, 0, 1, 2), 4: (3, 2, 0, 1), 2: (1, 0)}


def torch_key(path: Iterable[Any]) -> str:
    """("stages", "conv1", "kernel") -> "conv1.weight"."""
    *modules, name = map(str, path)
    return ".".join([*(part for part in modules if part not in _CONTAINERS), _LEAVES.get(name, name)])


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """That of `to_torch` of an array of this shape."""
    axes = _AXES.get(len(shape))
    return shape if axes is None else tuple(shape[axis] for axis in axes)


def to_torch(array: np.ndarray) -> np.ndarray:
    """[h, w, in, out] -> [out, in, h, w]; [in, out] -> [out, in]; vectors and what has three axes as they are."""
    axes = _AXES.get(array.ndim)
    return np.ascontiguousarray(array if axes is None else array.transpose(axes))


def from_torch(array: np.ndarray) -> np.ndarray:
    """`to_torch` undone."""
    axes = _AXES.get(array.ndim)
    return array if axes is None else array.transpose(np.argsort(axes))

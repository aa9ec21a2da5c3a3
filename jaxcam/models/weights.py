"""Checkpoints -> Flax parameters: .safetensors files whose keys are torchvision's.

The parameters of a `Network` stand under paths that spell torchvision's keys, so conversion is mechanical: the leaf's
name and the axes' order change, nothing else. No code is run from a weights file.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from jaxcam._pictures.atomic import replace_file

Tensors = dict[str, np.ndarray]
N = TypeVar("N", bound=nnx.Module)

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_SHOWN = 4


def read(path: str | os.PathLike[str]) -> Tensors:
    """The tensors of a .safetensors file by their keys, in their stored types.

    Raises:
        ValueError: the file is missing, or is not a whole .safetensors file; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"weights: {str(path)!r} is a folder; name a .safetensors file in it")
    if not path.is_file():
        raise ValueError(f"weights: there is no file {str(path)!r}; give the path of a .safetensors file")
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"weights: {str(path)!r} is not a complete .safetensors file ({error}); download it again, or convert a "
            "torch checkpoint with safetensors.torch.save_file(state_dict, path)"
        ) from None


def rows(path: str | os.PathLike[str], key: str, *, otherwise: int) -> int:
    """The length of a tensor's first axis (a head's number of classes); `otherwise` if the file has no such tensor."""
    tensor = read(path).get(key)
    return otherwise if tensor is None or tensor.ndim == 0 else tensor.shape[0]


def save(model: nnx.Module, path: str | os.PathLike[str], *, dtype: Any = None) -> None:
    """Writes the model's parameters under torchvision's keys, atomically: the file is whole or not there.

    Args:
        model: a `Network`.
        path: of the .safetensors file; replaced if it exists.
        dtype: to store in, e.g. `np.float16`; None keeps the parameters' own.
    """
    tensors = {
        key: _to_torch(np.asarray(leaf[...] if dtype is None else leaf[...].astype(dtype)))
        for key, (_, leaf) in _leaves(nnx.state(model)).items()
    }
    replace_file(Path(path), safetensors.numpy.save(tensors))


def build(create: Callable[[], N], weights: str | os.PathLike[str] | None) -> N:
    """The model that `create` makes, in evaluation mode, with parameters from a file or, for None, its random ones.

    Raises:
        ValueError: the file cannot be read, or its tensors do not fit the model.
    """
    model = create() if weights is None else loaded(create, read(weights), name=str(weights))
    model.eval()
    return model


def loaded(create: Callable[[], N], tensors: Tensors, *, name: str = "the checkpoint") -> N:
    """The model that `create` makes, with its parameters taken from tensors; every tensor is used exactly once.

    The model is only traced (`nnx.eval_shape`), so that no random parameters are ever allocated. Floating point tensors
    become float32 whatever they are stored in.

    Raises:
        ValueError: keys are missing, unexpected or of another shape (the first few of each, and how many), or a tensor
            holds NaN or infinity.
    """
    abstract = nnx.eval_shape(create)
    structure, state = nnx.split(abstract)
    wanted = _leaves(state)
    shapes = {key: _torch_shape(leaf.shape) for key, (_, leaf) in wanted.items()}
    given = {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    missing = [key for key in shapes if key not in given]
    unexpected = [key for key in given if key not in shapes]
    misshapen = [
        f"{key} is {list(given[key].shape)}, not {list(shape)}"
        for key, shape in shapes.items()
        if key in given and given[key].shape != shape
    ]
    problems = [
        f"{len(keys)} {kind} ({'; '.join(keys[:_SHOWN])}{'; …' if len(keys) > _SHOWN else ''})"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise ValueError(f"weights: {name} does not fit {type(abstract).__name__}: " + ", ".join(problems))
    broken = [key for key in shapes if not np.isfinite(given[key].astype(np.float32)).all()]
    if broken:
        raise ValueError(
            f"weights: {name} holds NaN or infinity in {', '.join(broken[:_SHOWN])}: get a whole copy of it"
        )
    for key, (_, leaf) in wanted.items():
        leaf.set_value(jnp.asarray(_from_torch(given[key]), dtype=leaf.dtype))
    return nnx.merge(structure, state)


def size_of(model: nnx.Module) -> int:
    """The number of parameters, batch-norm statistics included."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))


def _leaves(state: nnx.State) -> dict[str, tuple[tuple[Any, ...], nnx.Variable]]:
    """By torchvision's key: (path, variable), of everything but the states of random generators."""
    # The first component is the Network's own dictionary of stages, whose keys are torchvision's prefixes.
    return {
        ".".join([*map(str, path[1:-1]), _LEAVES[str(path[-1])]]): (path, leaf)
        for path, leaf in nnx.to_flat_state(state)
        if not issubclass(leaf.type, nnx.RngState)
    }


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _to_torch(array: np.ndarray) -> np.ndarray:
    """[h, w, in, out] -> [out, in, h, w]; [in, out] -> [out, in]; vectors as they are."""
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _from_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

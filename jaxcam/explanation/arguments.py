"""The arguments of `explain`, checked: static facts only, and what to do about them."""

from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.checks import check_integer, is_integer
from jaxcam.cuts.layers import check_inputs
from jaxcam.cuts.split import check_layer
from jaxcam.cuts.torch_modules import without_torch
from jaxcam.methods.method import Bound
from jaxcam.programs.specs import check_not_explicit

__all__ = ["check_alone", "check_range", "classes_of", "inputs_of", "layers_of", "top_of"]


def inputs_of(inputs: Any) -> Any:
    """Arrays `[n, ...]`, one or a pytree of several, one of which has positions; tensors of torch are converted."""
    inputs = without_torch(inputs)
    leaves = jax.tree.leaves(inputs)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
        wrong = next((leaf for leaf in leaves if not hasattr(leaf, "shape")), inputs)
        is_file = isinstance(wrong, str | PathLike)
        pictures = "of files: model.preprocessing(jaxcam.read_image(file)) of each" if is_file else "of pictures"
        raise TypeError(
            f"inputs must be an array [n, *spatial, d], or several arrays, but hold {type(wrong).__name__}: "
            f"np.stack a list {pictures}"
        )
    check_inputs(inputs)
    inputs = jax.tree.map(jnp.asarray, inputs)
    check_not_explicit("inputs", inputs)
    return inputs


def layers_of(layer: Any, fusion: Any, method: Bound) -> tuple[Any, ...]:
    """One or several layers, as a tuple."""
    if fusion not in ("max", "mean"):
        raise ValueError(f"fusion must be 'max' or 'mean' but is {fusion!r}")
    listed: tuple[Any, ...] = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    if not listed:
        raise ValueError("layer must name at least one layer but is an empty list: leave it out for the default")
    if not method.takes_layer and listed != (None,):
        raise ValueError(f"method={method.name!r} goes back to the image and uses no layer: leave layer out")
    return tuple(map(check_layer, listed))


def classes_of(class_idx: Any, num_examples: Any) -> Array:
    """`[n]` integers, int32; n may be open (`jax.export.symbolic_shape`)."""
    listed = isinstance(class_idx, list | tuple) and all(map(is_integer, class_idx))
    given: Any = np.asarray(class_idx, int) if listed else class_idx
    is_number = is_integer(given) or isinstance(given, np.ndarray | jax.Array)
    if not is_number or not jnp.issubdtype(jnp.result_type(given), jnp.integer):
        name = next((each for each in np.ravel(np.asarray(class_idx, object)) if isinstance(each, str)), None)
        way = "" if name is None else f": the index of a name is model.class_names.index({name!r})"
        raise TypeError(f'class_idx must be an integer, an integer array [n], "all" or None but is {class_idx!r}{way}')
    if jnp.shape(given) not in ((), (num_examples,)):
        raise ValueError(
            f"class_idx must be one class or one for each of the {num_examples} examples but its shape is "
            f"{list(jnp.shape(given))}"
        )
    return jnp.broadcast_to(jnp.asarray(given).astype(jnp.int32), (num_examples,))


def check_alone(target: Any, class_idx: Any, top: Any) -> None:
    """That a target, which says what is explained, is the only one to say it."""
    if not callable(target):
        raise TypeError(
            f"target must be a function (outputs, inputs) -> scores of one example but is {type(target).__name__}"
        )
    if class_idx is not None or top is not None:
        raise ValueError("target excludes class_idx and top: leave them out, or write the class into the target")


def top_of(top: Any, class_idx: Any) -> int:
    """How many classes."""
    if class_idx is not None:
        raise ValueError("top and class_idx exclude each other: leave one of them out")
    return check_integer("top", top, low=1)


def check_range(class_idx: np.ndarray, num_classes: int) -> None:
    """That concrete classes exist: JAX clamps an index that is out of range, and would explain another class."""
    wrong = class_idx[(class_idx < 0) | (class_idx >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"class_idx={wrong[0]} is out of range: the model has {num_classes} classes, 0 to {num_classes - 1}"
        )

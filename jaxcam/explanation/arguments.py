"""The checks of `explain`'s arguments: static facts only, and what to do about them."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam import methods, scores
from jaxcam.explanation.raw_maps import Choice, takes

_EXPLAIN = [
    "class_idx", "top", "method", "layer", "fusion", "score", "model_fn", "channel_axis", "reshape", "key",
]  # fmt: skip


def _options_of(method: str) -> list[str]:
    parameters = inspect.signature(inspect.unwrap(methods.METHODS[method].function)).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _EXPLAIN]


def checked_images(images: Any) -> Array:
    """`[n, ...]` floats with two spatial axes."""
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        raise TypeError(f"images must be an array [n, H, W, 3], not {type(images).__name__}: np.stack a list of them")
    if images.ndim != 4:
        hint = ": add the batch axis with images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be [n, H, W, 3], but came as {list(images.shape)}{hint}")
    if 0 in images.shape:
        raise ValueError(f"images are empty: their shape is {list(images.shape)}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point and normalised for the model, but their dtype is {images.dtype}: "
            "divide by 255 and normalise as in training (model.preprocessing(picture) for jaxcam.models)"
        )
    return jnp.asarray(images)


def checked_channel_axis(channel_axis: Any) -> int:
    """-1 (the last) or 1."""
    if type(channel_axis) is not int:
        raise TypeError(f"channel_axis must be an int, not {channel_axis!r}")
    if channel_axis not in (-1, 3, 1, -3):
        raise ValueError(
            f"channel_axis must be -1 (images [n, H, W, 3]) or 1 (images [n, 3, H, W]), but is {channel_axis}"
        )
    return -1 if channel_axis in (-1, 3) else 1


def checked_choice(method: Any, score: str | scores.Score | None, key: Any, options: Mapping[str, Any]) -> Choice:
    """The method with its score and options."""
    if not isinstance(method, str) or method not in methods.METHODS:
        raise ValueError(f"method={method!r} is not known: use one of {', '.join(map(repr, methods.METHODS))}")
    for name, value in options.items():
        if name in ("layer", "head", "model", "activations", "class_idx", "image") or not takes(method, name):
            owners = [repr(m) for m in methods.METHODS if takes(m, name)]
            if owners:
                raise ValueError(
                    f"{name} is not an option of method={method!r}; it belongs to {', '.join(owners)}: leave it out"
                )
            near = difflib.get_close_matches(name, _EXPLAIN + _options_of(method), 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TypeError(
                f"{name} is not an option of method={method!r}{hint}; it has {', '.join(_options_of(method)) or 'none'}"
            )
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"{name} must be hashable (a number, a name, a function), not {type(value).__name__}"
            ) from None
    if takes(method, "key") and key is None:
        raise ValueError(f"method={method!r} draws random numbers: pass key=jax.random.key(0)")
    if key is not None and not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key must be a jax.random.key, as jax.random.key(0), not {key!r}")
    if not takes(method, "key") and key is not None:
        raise ValueError(f"method={method!r} draws no random numbers: leave key out")
    if not takes(method, "score") and score is not None:
        raise ValueError(f"method={method!r} has no score: leave score out")
    chosen = methods.METHODS[method].default_score if score is None else score
    if chosen is not None:
        scores.resolve(chosen)
    return Choice(method, chosen or "logit", tuple(sorted(options.items())))


def checked_layers(layer: Any, fusion: Any, method: str) -> tuple[Any, ...]:
    """One or several layers, as a tuple."""
    if fusion not in ("max", "mean"):
        raise ValueError(f"fusion={fusion!r} is not known: use 'max' or 'mean'")
    several = isinstance(layer, list | tuple)
    listed: tuple[Any, ...] = tuple(layer) if several else (layer,)
    if not listed:
        raise ValueError("layer is an empty list: name at least one layer, or leave it out for the default")
    for name in listed:
        if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
            raise TypeError(f"layer must be a name, the position of a convolution, or a list of these, not {name!r}")
    if method == "guided_backprop" and listed != (None,):
        raise ValueError('method="guided_backprop" goes back to the image and uses no layer: leave layer out')
    return listed


def checked_classes(class_idx: Any, num_images: int) -> Array:
    """`[n]` integers, int32."""
    listed = isinstance(class_idx, list | tuple) and all(type(c) is int or isinstance(c, np.integer) for c in class_idx)
    given: Any = np.asarray(class_idx, int) if listed else class_idx
    is_number = isinstance(given, int | np.integer | np.ndarray | jax.Array) and not isinstance(given, bool)
    if not is_number or not jnp.issubdtype(jnp.result_type(given), jnp.integer):
        raise TypeError(f'class_idx must be an integer, an integer array [n], "all" or None, not {class_idx!r}')
    if jnp.shape(given) not in ((), (num_images,)):
        raise ValueError(
            f"class_idx must be one class or one for each of the {num_images} images, but its shape is "
            f"{list(jnp.shape(given))}"
        )
    return jnp.broadcast_to(jnp.asarray(given).astype(jnp.int32), (num_images,))


def checked_top(top: Any, class_idx: Any) -> int:
    """How many classes."""
    if isinstance(top, bool) or not isinstance(top, int):
        raise TypeError(f"top must be an integer, not {top!r}")
    if top < 1:
        raise ValueError(f"top must be at least 1, but is {top}")
    if class_idx is not None:
        raise ValueError("top and class_idx exclude each other: leave one of them out")
    return top


def check_range(class_idx: np.ndarray, num_classes: int) -> None:
    """That concrete classes exist: JAX clamps an index that is out of range, and would explain another class."""
    wrong = class_idx[(class_idx < 0) | (class_idx >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"class_idx={wrong[0]} is out of range: the model has {num_classes} classes, 0 to {num_classes - 1}"
        )

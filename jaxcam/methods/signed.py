"""Signed maps: what a method adds up before its ReLU, so that what speaks against a class is seen too."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam.methods.method import Bound, Method, bind
from jaxcam.programs.notes import note, watch

__all__ = ["signed"]

_ROUNDING = 16


def signed(method: str | Callable[..., Array] | Method) -> Method:
    """The method without its last ReLU: positive where something speaks for the class, negative where against it.

        explain(model, images, method=signed("grad_cam")).cam_map    sum_k w_k A_k

    `jax.nn.relu` of its map is the method's own. A method that ends in no ReLU of a weighted sum, as Eigen-CAM, the
    attention maps and one of your own, keeps the map that it makes; CAM's is signed anyway.

    Args:
        method: a name, a function, a partial of one or a record, as for `jaxcam.explain`; its options in a partial.

    Returns:
        A record whose function has the signature of the method's.

    Raises:
        TypeError, ValueError: as `jaxcam.explain` for a method.
    """
    return _signed(bind(method, {}, draws=True))


@lru_cache(maxsize=64)
def _signed(bound: Bound) -> Method:
    """One record for each method and its options, so that what was compiled for it is found again."""

    @wraps(bound.method.function)
    def function(*operands: Any, **given: Any) -> Array:
        with watch() as notes:
            found = bound(*operands, **given)
        for name, values in notes.items():  # of two that watch the inner one sees a note: explain is to see it too
            for value in values:
                note(name, lambda value=value: value)
        before = [each for each in notes.get("signed", []) if each.shape == found.shape]
        if not before:
            return found
        # A sum somewhere on the way, as of one of several copies of the image, is not what this map was made from.
        rounding = _ROUNDING * jnp.finfo(found.dtype).eps * jnp.abs(found).max()
        return jnp.where((jnp.abs(jax.nn.relu(before[-1]) - found) <= rounding).all(), before[-1], found)

    return bound.method._replace(function=function)

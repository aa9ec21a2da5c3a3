"""Precision: half precision is too narrow to differentiate and to add up in, and is widened to float32 for both.

In float16 a gradient of 1e-3 has no cube (1e-9), and 4,000 activations of 20 have no sum (80,000).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["wide_type", "widened", "widened_function"]


def wide_type(dtype: np.dtype) -> np.dtype:
    """The type to compute in: float32 for what is narrower, else the type itself."""
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else np.dtype(dtype)


def widened(*arrays: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """The arrays, in float32 where their own type is narrower."""
    return tuple(array.astype(wide_type(array.dtype)) for array in arrays)


def widened_function(f: Callable[[Array], Array], argument: Float[Array, "..."]) -> Callable[[Array], Array]:
    """f, computing in the argument's type, from the wide type to the wide type: what is done to its result is wide."""
    return lambda x: widened(f(x.astype(argument.dtype)))[0]

"""Precision: half precision is too narrow to differentiate and to add up in, and is widened to float32 for both.

In float16 a gradient of 1e-3 has no cube (1e-9), and 4,000 activations of 20 have no sum (80,000).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["pulled_back", "wide_gradient", "wide_type", "widened", "widened_function"]

_LOSS_SCALE = 2.0**12
"""The mean over 64 x 64 positions divides by this."""


def wide_type(dtype: np.dtype) -> np.dtype:
    """The type to compute in: float32 for what is narrower, else the type itself."""
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else np.dtype(dtype)


def widened(*arrays: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """The arrays, in float32 where their own type is narrower."""
    return tuple(array.astype(wide_type(array.dtype)) for array in arrays)


def widened_function(f: Callable[[Array], Array], argument: Float[Array, "..."]) -> Callable[[Array], Array]:
    """f, computing in the argument's type, from the wide type to the wide type: what is done to its result is wide."""
    return lambda x: widened(f(x.astype(argument.dtype)))[0]


def wide_gradient(f: Callable[[Array], Array], argument: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The gradient of a scalar function that computes in the argument's type, in float32 where that is narrower."""
    return _with_digits(lambda factor: jax.grad(lambda x: factor * widened(f(x))[0] if factor > 1 else f(x))(argument))


def pulled_back(pullback: Callable[[Array], tuple[Array]], cotangent: Float[Array, "..."]) -> Array:
    """What the pullback of a function of one argument with wide results makes of a cotangent, in float32 at least."""
    return _with_digits(lambda factor: pullback(factor * cotangent)[0])


def _with_digits(derivative: Callable[[float], Array]) -> Array:
    """A derivative, given so many times as large.

    Below 6e-5 float16 loses digits, and slopes that were divided by thousands of positions are there: it is made 2^12
    times as large, which is exact, and as it is where that is beyond float16.
    """
    plain = derivative(1)
    if plain.dtype != jnp.float16:
        return widened(plain)[0]
    scaled = widened(derivative(_LOSS_SCALE))[0] / _LOSS_SCALE
    return jnp.where(jnp.isfinite(scaled).all(), scaled, widened(plain)[0])

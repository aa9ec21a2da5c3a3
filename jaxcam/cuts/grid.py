"""Where a layer keeps its positions and channels: channels-first, or tokens that `reshape` turns into a grid."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Layout(NamedTuple):
    """From a layer's value to activations `[n, *spatial, k]`, and back."""

    channel_axis: int = -1
    """Of images and of values without `reshape`."""
    reshape: Callable[[Array], Array] | None = None
    """Value `[n, ...]` -> grid `[n, i, j, k]`."""

    @property
    def keeps_value(self) -> bool:
        """Whether `value` needs the value that the grid was made from: `reshape` may leave something out."""
        return self.reshape is not None

    def grid(self, value: Array) -> Array:
        """The activations, channels last."""
        if self.reshape is None:
            return jnp.moveaxis(value, self.channel_axis, -1)
        _check_reshape(self.reshape, value)
        return self.reshape(value)

    def value(self, grid: Array, value: Array | None) -> Array:
        """The layer's value with another grid in it; `value` is what it was, as far as `keeps_value`."""
        if self.reshape is None or value is None:
            return jnp.moveaxis(grid, -1, self.channel_axis)
        # What reshape leaves out (a class token) stays; what it moves goes back by its transpose, which for a selection
        # is its inverse. At the grid of `value` itself the difference is exactly zero.
        back = jax.linear_transpose(self.reshape, value)
        (difference,) = back(grid - self.reshape(value))
        return value + difference


def _check_reshape(reshape: Callable[[Array], Array], value: Array) -> None:
    """That it selects and moves elements, each at most once."""
    spec = jax.ShapeDtypeStruct(value.shape, value.dtype)
    try:
        out = jax.eval_shape(reshape, spec)
        if hasattr(out, "shape"):
            jax.eval_shape(jax.linear_transpose(reshape, spec), out)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"reshape cannot take the layer's value {list(value.shape)} to a grid: {error}") from error
    if not hasattr(out, "shape") or out.ndim < 3 or out.shape[0] != value.shape[0]:
        raise ValueError(
            f"reshape must return a grid [n, i, j, k] for the layer's value {list(value.shape)}, but returned "
            f"{list(getattr(out, 'shape', [type(out).__name__]))}, such as reshape=lambda t: t[:, 1:].reshape(-1, 14, "
            "14, t.shape[-1])"
        )
    # Numbers that tell the elements apart, exact in float32, and whose multiples are not among them.
    labels = 2**23 + np.random.default_rng(0).permutation(value.size).astype(np.float32).reshape(value.shape)
    with jax.ensure_compile_time_eval():
        moved = np.asarray(reshape(jnp.asarray(labels)))
    if not np.isin(moved, labels).all() or np.unique(moved).size != moved.size:
        raise ValueError(
            "reshape must select and move values only, each at most once: it scales, repeats or mixes them, so that a "
            "change of the grid cannot be taken back to the layer"
        )

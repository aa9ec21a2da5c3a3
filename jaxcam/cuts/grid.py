"""From a layer's value to activations `[n, *spatial, k]`, and back: channels first, or tokens that make a grid."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.program import shape
from jaxcam.programs.specs import spec_of

__all__ = ["Grid", "grid_of", "is_grid"]


class Grid(NamedTuple):
    """How a layer's value holds the activations; hashable if `reshape` is."""

    channel_axis: int = -1
    """Of the value, where there is no `reshape`."""
    reshape: Callable[[Array], Array] | None = None
    """Value `[n, ...]` -> grid `[n, i, j, k]`: the `grid` of `jaxcam.adapt`."""

    @property
    def keeps_value(self) -> bool:
        """Whether `value` needs the value that the grid was made from: `reshape` may leave something out."""
        return self.reshape is not None

    def activations(self, value: Array) -> Array:
        """The activations, channels last."""
        if self.reshape is not None:
            _check_reshape(self.reshape, value)
        return self.reshaped(value)

    def reshaped(self, value: Array) -> Array:
        """The same without the check."""
        return jnp.moveaxis(value, self.channel_axis, -1) if self.reshape is None else self.reshape(value)

    def value(self, activations: Array, value: Array | None) -> Array:
        """The layer's value with other activations in it; `value` is what it was, as far as `keeps_value`."""
        if self.reshape is None or value is None:
            return jnp.moveaxis(activations, -1, self.channel_axis)
        # What reshape leaves out (a class token) stays; what it moves goes back by its transpose, which for a selection
        # is its inverse. At the activations of `value` itself the difference is exactly zero.
        back = jax.linear_transpose(self.reshape, value)
        (difference,) = back(activations - self.reshape(value))
        return value + difference


def grid_of(analysis: Analysis, site: Site, reshape: Callable[[Array], Array] | None) -> Grid:
    """How a layer holds its activations: as `reshape` says, or with its channels where the program has them."""
    axis = analysis.axes.get(site.var)
    if reshape is None and axis is None and not analysis.agrees:
        raise ValueError(
            "layer: the program does not show where this layer has its channels, and other layers have them elsewhere "
            "than the images: say it with jaxcam.adapt(model, grid=lambda a: a) if they are on its last axis, or with "
            "grid=lambda a: a.transpose(0, 2, 3, 1) if they come first"
        )
    return Grid(analysis.image_axis if axis is None else axis, reshape)


def is_grid(analysis: Analysis, site: Site, reshape: Callable[[Array], Array] | None) -> bool:
    """Whether a value has as many axes as the images and more than one position, after `reshape`."""
    aval, images = site.var.aval, shape(analysis.image)
    try:
        spec = spec_of(aval)
        sizes = list(jax.eval_shape(grid_of(analysis, site, reshape).reshaped, spec).shape)
    except (TypeError, ValueError, ZeroDivisionError, IndexError, AttributeError):
        return False
    return len(sizes) == len(images) and sizes[0] == images[0] and max(sizes[1:-1], default=1) > 1


def _check_reshape(reshape: Callable[[Array], Array], value: Array) -> None:
    """That it selects and moves elements, each at most once."""
    spec = spec_of(value)
    try:
        out = jax.eval_shape(reshape, spec)
        if hasattr(out, "shape"):
            jax.eval_shape(jax.linear_transpose(reshape, spec), out)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"grid cannot take the layer's value {list(value.shape)} to a grid: {error}") from error
    if not hasattr(out, "shape") or out.ndim < 3 or out.shape[0] not in (1, value.shape[0]):
        raise ValueError(
            f"grid must return [n, i, j, k] for the layer's value {list(value.shape)}, but returned "
            f"{list(getattr(out, 'shape', [type(out).__name__]))}: as lambda t: t[:, 1:].reshape(-1, 14, 14, "
            "t.shape[-1])"
        )
    # Numbers that tell the elements apart, exact in float32, and whose multiples are not among them.
    labels = 2**23 + np.random.default_rng(0).permutation(value.size).astype(np.float32).reshape(value.shape)
    with jax.ensure_compile_time_eval():
        moved = np.asarray(reshape(jnp.asarray(labels)))
    if not np.isin(moved, labels).all() or np.unique(moved).size != moved.size:
        raise ValueError(
            "grid must select and move values only, each at most once: it scales, repeats or mixes them, so that a "
            "change of the grid cannot be taken back to the layer"
        )

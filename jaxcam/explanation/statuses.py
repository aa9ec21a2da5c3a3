"""The status of a map: whether it can be trusted, from its own values and from what its method noted."""

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxcam.explanation.explanation import PRIORITY, Status
from jaxcam.programs.notes import Notes

__all__ = ["Found", "all_finite", "status_of", "worst"]

_CONSTANT = 16
"""A map whose values differ by less than this many times the rounding is constant."""


class Found(NamedTuple):
    """What a method made for one example, class and layer."""

    cam_map: Array | None
    gradient: Array | None
    """Of methods that go back to the image."""
    notes: Notes
    complete: bool
    """Whether everything flows through the layer."""
    rounded: bool
    """Whether there is a gradient, and steps on its way."""


def status_of(
    found: Sequence[Found],
    cam_maps: tuple[Array, ...],
    finite: Bool[Array, ""],
    num_classes: int,
    class_idx: Array,
) -> Int[Array, ""]:
    """The first of `PRIORITY` that applies, of one example and class.

    Args:
        found: what was made at each layer.
        cam_maps: the maps among it.
        finite: whether the input, the activations, the logits and what was made are.
        num_classes: how many there are.
        class_idx: the class, which may be none of them.
    """
    known = (class_idx >= 0) & (class_idx < num_classes)
    ends = [(cam_map.min(), cam_map.max()) for cam_map in cam_maps]
    applies = {
        Status.NO_SUCH_CLASS: ~known,
        Status.NOT_FINITE: ~finite,
        Status.ROUNDED: any(each.rounded for each in found),
        Status.ZERO_GRADIENT: _noted(found, "has_gradient", lambda each: ~jnp.stack(each).any()),
        Status.ZERO_MAP: _any(top <= 0 for _, top in ends),
        Status.CONSTANT_MAP: _any(_is_constant(low, top) for low, top in ends),
        Status.ILL_CONDITIONED: _noted(found, "ill_conditioned", lambda each: jnp.stack(each).any()),
        Status.BYPASSED: not all(each.complete for each in found),
    }
    # Not jnp.select, which looks for the first in a reduction: that would take longer to compile than all of these.
    status = jnp.int32(Status.OK)
    for each in reversed(PRIORITY):
        status = jax.lax.select(jnp.asarray(applies[each]), jnp.int32(each), status)
    return status


def all_finite(values: Sequence[Array]) -> Bool[Array, ""]:
    """Whether all numbers in all arrays are."""
    # 0 * x is 0, or NaN where x is not finite. x - x need not be, where x is a product: fused, a * b - (a * b) leaves
    # the rounding. A sum compiles in a third of the time of "all".
    return reduce(operator.and_, [(0 * each).sum() == 0 for each in values], jnp.array(True))


def _any(values: Iterable[Bool[Array, ""]]) -> Bool[Array, ""]:
    return reduce(operator.or_, values, jnp.array(False))


def _is_constant(low: Array, top: Array) -> Bool[Array, ""]:
    return top - low <= _CONSTANT * jnp.finfo(top.dtype).eps * jnp.abs(top)


def worst(statuses: Sequence[Array]) -> Array:
    """The first in the order of `PRIORITY` that applies to one of them."""
    found = jnp.full_like(statuses[0], Status.OK)
    for status in reversed(PRIORITY):
        found = jnp.where(jnp.stack([each == status for each in statuses]).any(0), jnp.int32(status), found)
    return found


def _noted(found: Sequence[Found], name: str, says: Callable[[list[Array]], Array]) -> Bool[Array, ""]:
    """Whether that was noted of the map of any layer."""
    return _any(says(each.notes[name]) for each in found if name in each.notes)

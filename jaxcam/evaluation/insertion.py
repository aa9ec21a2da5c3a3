"""Insertion and deletion for a block: the curves of `jaxcam.metrics`, for all examples and methods at once."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from jaxcam import metrics
from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.in_steps import confidence_in, in_place, in_steps, ranked
from jaxcam.evaluation.plan import Plan, background_of, image_of
from jaxcam.metrics.operands import is_explanation


def curves_of(mesh: Mesh, plan: Plan, model: Adapted, data: Any, heatmaps: Array, class_idx: Array) -> dict[str, Array]:
    """The areas under both curves, `[n, m]`; NaN where the heatmap ranks nothing."""
    order = in_place(mesh, ranked, heatmaps)
    num_pixels, num_steps = math.prod(heatmaps.shape[2:]), plan.protocol.num_steps
    counts = [np.int32(step * num_pixels // num_steps) for step in range(num_steps + 1)]
    areas: dict[str, Array] = {}
    for name, change in (("insertion", _appearing), ("deletion", _disappearing)):
        points = in_steps(mesh, plan, change, model, data, class_idx, order, counts)
        areas[name] = in_place(mesh, _area, points, heatmaps)
    return areas


def _appearing(plan: Plan, model: Adapted, data: Any, class_idx: Array, order: Array, count: Array) -> Array:
    """The confidence when the first pixels have appeared on the background."""
    image = image_of(plan, data)
    shown = jnp.where((order < count)[..., None], image[:, None], background_of(plan, image)[:, None])
    return confidence_in(plan, model, data, class_idx, shown)


def _disappearing(plan: Plan, model: Adapted, data: Any, class_idx: Array, order: Array, count: Array) -> Array:
    """The confidence when they have disappeared into it."""
    image = image_of(plan, data)
    left = jnp.where((order < count)[..., None], background_of(plan, image)[:, None], image[:, None])
    return confidence_in(plan, model, data, class_idx, left)


def _area(points: list[Array], heatmaps: Array) -> Array:
    areas = jax.vmap(jax.vmap(metrics.area_under_curve))(jnp.stack(points, -1))
    return jnp.where(jax.vmap(jax.vmap(is_explanation))(heatmaps), areas, jnp.nan)

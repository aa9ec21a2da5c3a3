"""Insertion and deletion for a block: the curves of `jaxcam.metrics`, for all examples and methods at once.

A call of the compiled step makes one point of the curves, the same program for all of them; a loop inside the program
would be slower, since XLA for CPUs runs convolutions in loops on one thread.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from jaxcam import metrics
from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.plan import AXIS, Plan, background_of, confidence_of, image_of, network_input, normalised
from jaxcam.metrics.curves import ranks
from jaxcam.metrics.operands import is_explanation
from jaxcam.programs.compiled import Programs

_SPLIT = PartitionSpec(AXIS)


def curves_of(mesh: Mesh, plan: Plan, model: Adapted, data: Any, heatmaps: Array, class_idx: Array) -> dict[str, Array]:
    """The areas under both curves, `[n, m]`; NaN where the heatmap ranks nothing."""
    order = _ranked(mesh, heatmaps)
    arrays, static = model.tree_flatten()
    num_pixels, num_steps = math.prod(heatmaps.shape[2:]), plan.protocol.num_steps
    counts = [np.int32(step * num_pixels // num_steps) for step in range(num_steps + 1)]
    areas: dict[str, Array] = {}
    for name, appears in (("insertion", True), ("deletion", False)):
        here = (mesh, plan, appears, static)
        points = [_points(here, arrays, data, order, class_idx, count) for count in counts]
        areas[name] = _area(mesh, points, heatmaps)
    return areas


@partial(jax.jit, static_argnums=0)
def _ranked(mesh: Mesh, heatmaps: Array) -> Array:
    over_methods = jax.vmap(jax.vmap(ranks))
    return jax.shard_map(over_methods, mesh=mesh, in_specs=_SPLIT, out_specs=_SPLIT, check_vma=False)(heatmaps)


def _point(static: tuple[Mesh, Plan, bool, Any], arrays: Any, *operands: Any) -> Array:
    """The confidence when the first pixels have appeared on the background, or disappeared into it."""
    mesh, plan, appears, model = static
    whole = PartitionSpec()
    over_devices = jax.shard_map(
        partial(_point_of_block, plan, appears),
        mesh=mesh,
        in_specs=(whole, _SPLIT, _SPLIT, _SPLIT, whole),
        out_specs=_SPLIT,
        check_vma=False,
    )
    return over_devices(Adapted.tree_unflatten(model, arrays), *operands)


_points = Programs(_point)


def _point_of_block(
    plan: Plan,
    appears: bool,
    model: Adapted,
    data: Any,
    order: Array,
    class_idx: Array,
    count: Array,
) -> Array:
    image = image_of(plan, data)
    background = background_of(plan, image)
    shown, hidden = (image, background) if appears else (background, image)
    changed = jnp.where((order < count)[..., None], shown[:, None], hidden[:, None])  # [n, m, *grid, d]
    n, m = changed.shape[:2]
    data = jax.tree.map(lambda x: jnp.repeat(x, m, 0), data)  # the other inputs for all methods
    inputs = network_input(plan, data, normalised(plan, changed.reshape(n * m, *changed.shape[2:])))
    return confidence_of(plan, model, inputs, jnp.repeat(class_idx, m)).reshape(n, m)


@partial(jax.jit, static_argnums=0)
def _area(mesh: Mesh, points: list[Array], heatmaps: Array) -> Array:
    def of_block(points: list[Array], heatmaps: Array) -> Array:
        areas = jax.vmap(jax.vmap(metrics.area_under_curve))(jnp.stack(points, -1))
        return jnp.where(jax.vmap(jax.vmap(is_explanation))(heatmaps), areas, jnp.nan)

    return jax.shard_map(of_block, mesh=mesh, in_specs=_SPLIT, out_specs=_SPLIT, check_vma=False)(points, heatmaps)

"""Insertion and deletion for a block: the curves of `jaxcam.metrics`, for all examples and methods at once.

A call of the compiled step makes one point of the curves, the same program for all of them; a loop inside the program
would be slower, since XLA for CPUs runs convolutions in loops on one thread. `removal` takes the same steps.
"""

import math
from collections.abc import Callable
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

SPLIT = PartitionSpec(AXIS)


def curves_of(mesh: Mesh, plan: Plan, model: Adapted, data: Any, heatmaps: Array, class_idx: Array) -> dict[str, Array]:
    """The areas under both curves, `[n, m]`; NaN where the heatmap ranks nothing."""
    order = in_place(mesh, ranked, heatmaps)
    num_pixels, num_steps = math.prod(heatmaps.shape[2:]), plan.protocol.num_steps
    counts = [np.int32(step * num_pixels // num_steps) for step in range(num_steps + 1)]
    areas: dict[str, Array] = {}
    for name, change in (("insertion", _appearing), ("deletion", _disappearing)):
        points = confidences(mesh, plan, change, model, data, class_idx, order, counts)
        areas[name] = in_place(mesh, _area, points, heatmaps)
    return areas


@partial(jax.jit, static_argnums=(0, 1))
def in_place(mesh: Mesh, function: Callable[..., Array], *operands: Any, shared: tuple[Any, ...] = ()) -> Array:
    """The function of what each device has of the operands, `[n, ...]`, and of what all share, `[n, ...]` again.

    Operations on arrays of several devices, one by one, might leave the results elsewhere.
    """
    specs = (SPLIT,) * len(operands) + (PartitionSpec(),) * len(shared)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=SPLIT, check_vma=False)(*operands, *shared)


def ranked(heatmaps: Array) -> Array:
    """`metrics.curves.ranks` of every heatmap."""
    return jax.vmap(jax.vmap(ranks))(heatmaps)


def confidences(
    mesh: Mesh, plan: Plan, change: Callable[..., Array], model: Adapted, data: Any, class_idx: Array, of_each: Any,
    steps: list[Any],
) -> list[Array]:  # fmt: skip
    """`[n, m]` for each step, of the pictures `[n, m, *grid, d]` that `change(plan, image, of_each, step)` makes.

    A step is what all pictures share, arrays of the same shapes in each; `of_each` is of every picture, `[n, ...]`.
    """
    arrays, static = model.tree_flatten()
    return [_points((mesh, plan, change, static), arrays, data, class_idx, of_each, step) for step in steps]


def _point(static: tuple[Mesh, Plan, Callable[..., Array], Any], arrays: Any, *operands: Any) -> Array:
    """The confidence in the changed pictures."""
    mesh, plan, change, model = static
    whole = PartitionSpec()
    over_devices = jax.shard_map(
        partial(_point_of_block, plan, change),
        mesh=mesh,
        in_specs=(whole, SPLIT, SPLIT, SPLIT, whole),
        out_specs=SPLIT,
        check_vma=False,
    )
    return over_devices(Adapted.tree_unflatten(model, arrays), *operands)


_points = Programs(_point)


def _point_of_block(
    plan: Plan, change: Callable[..., Array], model: Adapted, data: Any, class_idx: Array, of_each: Any, step: Any
) -> Array:
    changed = change(plan, image_of(plan, data), of_each, step)
    n, m = changed.shape[:2]
    data = jax.tree.map(lambda x: jnp.repeat(x, m, 0), data)  # the other inputs for all methods
    inputs = network_input(plan, data, normalised(plan, changed.reshape(n * m, *changed.shape[2:])))
    return confidence_of(plan, model, inputs, jnp.repeat(class_idx, m)).reshape(n, m)


def _appearing(plan: Plan, image: Array, order: Array, count: Array) -> Array:
    """The first pixels have appeared on the background."""
    return jnp.where((order < count)[..., None], image[:, None], background_of(plan, image)[:, None])


def _disappearing(plan: Plan, image: Array, order: Array, count: Array) -> Array:
    """They have disappeared into it."""
    return jnp.where((order < count)[..., None], background_of(plan, image)[:, None], image[:, None])


def _area(points: list[Array], heatmaps: Array) -> Array:
    areas = jax.vmap(jax.vmap(metrics.area_under_curve))(jnp.stack(points, -1))
    return jnp.where(jax.vmap(jax.vmap(is_explanation))(heatmaps), areas, jnp.nan)

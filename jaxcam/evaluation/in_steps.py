"""What is measured of a block step by step: one call of a compiled program for each step, for all examples and methods.

A point of a curve, a removal, a noise: the same program makes all of them; a loop inside the program would be slower,
since XLA for CPUs runs convolutions in loops on one thread.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.block import confidence_of
from jaxcam.evaluation.plan import AXIS, Plan, network_input, normalised
from jaxcam.metrics.curves import ranks
from jaxcam.programs.compiled import Programs

_SPLIT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()

Step = Callable[..., Array]
"""`(plan, model, data, class_idx, of_each, step) -> [n, m]`, of the examples that one device has."""


def in_steps(
    mesh: Mesh, plan: Plan, function: Step, model: Adapted, data: Any, class_idx: Array, of_each: Any, steps: list[Any]
) -> list[Array]:
    """`[n, m]` for each step, by a `Step`.

    A step is what all pictures share, arrays of the same shapes in each; `of_each` is of every picture, `[n, ...]`.
    """
    arrays, static = model.tree_flatten()
    return [_results((mesh, plan, function, static), arrays, data, class_idx, of_each, step) for step in steps]


def _on_devices(static: tuple[Mesh, Plan, Step, Any], arrays: Any, *operands: Any) -> Array:
    mesh, plan, function, model = static
    over_devices = jax.shard_map(
        partial(function, plan),
        mesh=mesh,
        in_specs=(_WHOLE, _SPLIT, _SPLIT, _SPLIT, _WHOLE),
        out_specs=_SPLIT,
        check_vma=False,
    )
    return over_devices(Adapted.tree_unflatten(model, arrays), *operands)


_results = Programs(_on_devices)


def confidence_in(plan: Plan, model: Adapted, data: Any, class_idx: Array, changed: Array) -> Array:
    """`[n, m]`, in the pictures `[n, m, *grid, d]`; the other inputs are the same for all methods."""
    n, m = changed.shape[:2]
    data = jax.tree.map(lambda x: jnp.repeat(x, m, 0), data)
    inputs = network_input(plan, data, normalised(plan, changed.reshape(n * m, *changed.shape[2:])))
    return confidence_of(plan, model, inputs, jnp.repeat(class_idx, m)).reshape(n, m)


@partial(jax.jit, static_argnums=(0, 1))
def in_place(mesh: Mesh, function: Callable[..., Array], *operands: Any, shared: tuple[Any, ...] = ()) -> Array:
    """The function of what each device has of the operands, `[n, ...]`, and of what all share, `[n, ...]` again.

    Operations on arrays of several devices, one by one, might leave the results elsewhere.
    """
    specs = (_SPLIT,) * len(operands) + (_WHOLE,) * len(shared)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=_SPLIT, check_vma=False)(*operands, *shared)


def ranked(heatmaps: Array) -> Array:
    """`metrics.curves.ranks` of every heatmap."""
    return jax.vmap(jax.vmap(ranks))(heatmaps)

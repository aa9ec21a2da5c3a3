"""Max-sensitivity for a block: how much the heatmaps change when noise is added to the input.

As in `insertion` a call of the compiled step is one noise, for all examples and methods at once. The noise depends on
the seed alone, so that a picture's figure does not depend on its place.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.block import Block, heatmap_of, own_key
from jaxcam.evaluation.insertion import SPLIT, in_place
from jaxcam.evaluation.plan import Plan, image_of, network_input, normalised
from jaxcam.explanation.batch import explained
from jaxcam.programs.compiled import Programs


def sensitivity_of(
    mesh: Mesh, plan: Plan, model: Adapted, data: Any, block: Block, seed: np.uint32
) -> dict[str, Array]:
    """`metrics.max_sensitivity` of the heatmaps, `[n, m]`, for the class that was explained.

    δ is uniform within `noise` standard deviations of the input, over its positions and channels.
    """
    arrays, static = model.tree_flatten()
    here, steps = (mesh, plan, static), range(plan.protocol.num_noises)
    operands = (data, block.class_idx, block.heatmaps)
    apart = [_distances(here, arrays, *operands, (seed, np.uint32(step))) for step in steps]
    return {"max_sensitivity": in_place(mesh, _largest, apart)}


def _largest(apart: list[Array]) -> Array:
    return jnp.stack(apart).max(0)


def _distance(static: tuple[Mesh, Plan, Any], arrays: Any, *operands: Any) -> Array:
    mesh, plan, model = static
    whole = PartitionSpec()
    over_devices = jax.shard_map(
        partial(_distance_in_block, plan),
        mesh=mesh,
        in_specs=(whole, SPLIT, SPLIT, SPLIT, whole),
        out_specs=SPLIT,
        check_vma=False,
    )
    return over_devices(Adapted.tree_unflatten(model, arrays), *operands)


_distances = Programs(_distance)


def _distance_in_block(
    plan: Plan, model: Adapted, data: Any, class_idx: Array, heatmaps: Array, step: tuple[Array, Array]
) -> Array:
    """|Φ(x + δ) - Φ(x)| / |Φ(x)| for one δ."""
    seed, number = step
    key = jax.random.key(seed, impl="threefry2x32")
    image = normalised(plan, image_of(plan, data))
    noise = jax.random.uniform(jax.random.fold_in(key, number), image.shape[1:], image.dtype, -1, 1)
    wide = plan.protocol.noise * image.std(tuple(range(1, image.ndim)), keepdims=True)
    inputs = network_input(plan, data, image + wide * noise[None])
    found = [
        explained(model, request, inputs, class_idx, own_key(request, key)).explanation for request in plan.requests
    ]
    again = jnp.stack([heatmap_of(plan.protocol, each, image.shape[1:-1]) for each in found], 1)
    axes = tuple(range(2, heatmaps.ndim))
    size = jnp.sqrt((heatmaps**2).sum(axes))
    return jnp.sqrt(((again - heatmaps) ** 2).sum(axes)) / jnp.where(size > 0, size, jnp.nan)

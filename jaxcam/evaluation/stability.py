"""Max-sensitivity for a block: how much the heatmaps change when noise is added to the input.

A step is one noise. It depends on the seed alone, so that a picture's figure does not depend on its place.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.block import Block, heatmap_of, own_key
from jaxcam.evaluation.in_steps import in_place, in_steps
from jaxcam.evaluation.plan import Plan, image_of, network_input, normalised
from jaxcam.explanation.batch import explained


def sensitivity_of(
    mesh: Mesh, plan: Plan, model: Adapted, data: Any, block: Block, seed: np.uint32
) -> dict[str, Array]:
    """`metrics.max_sensitivity` of the heatmaps, `[n, m]`, for the class that was explained.

    δ is uniform within `noise` standard deviations of the input, over its positions and channels.
    """
    steps = [(seed, np.uint32(number)) for number in range(plan.protocol.num_noises)]
    apart = in_steps(mesh, plan, _distance, model, data, block.class_idx, block.heatmaps, steps)
    return {"max_sensitivity": in_place(mesh, _largest, apart)}


def _largest(apart: list[Array]) -> Array:
    return jnp.stack(apart).max(0)


def _distance(
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

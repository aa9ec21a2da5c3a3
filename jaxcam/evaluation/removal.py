"""ROAD and infidelity for a block: what the confidence says when a part of the picture is removed.

A step is one removal. Infidelity removes the same boxes whatever the heatmap, so that its forward passes serve all
methods.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from jaxcam import metrics
from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.block import Block
from jaxcam.evaluation.in_steps import confidence_in, in_place, in_steps, ranked
from jaxcam.evaluation.plan import Plan, background_of, image_of
from jaxcam.metrics.faithful import infidelity_of
from jaxcam.metrics.imputation import num_removed, removed_of


def road_of(mesh: Mesh, plan: Plan, model: Adapted, data: Any, block: Block, seed: np.uint32) -> dict[str, Array]:
    """`metrics.road` of the confidence, `[n, m]`, with noise from the seed's key."""
    order = in_place(mesh, ranked, block.heatmaps)
    counts = [np.int32(count) for count in num_removed(math.prod(order.shape[2:]))]
    least, most = (
        in_steps(mesh, plan, _without, model, data, block.class_idx, order, [(c, is_most, seed) for c in counts])
        for is_most in (np.bool_(False), np.bool_(True))
    )
    return {"road": in_place(mesh, _gained, least, most)}


def infidelity_in(mesh: Mesh, plan: Plan, model: Adapted, data: Any, block: Block, seed: np.uint32) -> dict[str, Array]:
    """`metrics.infidelity` of the heatmap as attributions of a mask over the picture, relative, `[n, m]`.

    The values of the mask m are attributed, with f(m) the confidence in m ∘ picture + (1 - m) ∘ background at m = 1,
    and the changes are boxes of it: see `metrics.squares`.
    """
    boxes = metrics.squares(block.heatmaps.shape[2:], plan.protocol.num_squares, seed=int(seed))
    o = in_steps(mesh, plan, _without_box, model, data, block.class_idx, (), list(boxes))
    return {"infidelity": in_place(mesh, _infidelity, block.heatmaps, block.y, o, shared=(list(boxes),))}


def _without(
    plan: Plan, model: Adapted, data: Any, class_idx: Array, order: Array, step: tuple[Array, Array, Array]
) -> Array:
    """The confidence when the most relevant pixels, or the least, are filled in from their neighbours."""
    count, most, seed = step
    key = jax.random.key(seed, impl="threefry2x32")

    def one(image: Array, order: Array) -> Array:
        return metrics.imputed(image, removed_of(order, count, most), key=key)

    left = jax.vmap(jax.vmap(one, (None, 0)))(image_of(plan, data), order)
    return confidence_in(plan, model, data, class_idx, left)


def _without_box(plan: Plan, model: Adapted, data: Any, class_idx: Array, of_each: tuple[()], box: Array) -> Array:
    """The confidence when the background is seen in a box."""
    del of_each
    image = image_of(plan, data)
    left = jnp.where(box[..., None], background_of(plan, image), image)[:, None]
    return confidence_in(plan, model, data, class_idx, left)


def _gained(least: list[Array], most: list[Array]) -> Array:
    return (jnp.stack(least) - jnp.stack(most)).mean(0) / 2


def _infidelity(heatmaps: Array, y: Array, o: list[Array], boxes: list[Array]) -> Array:
    happened = y[:, None] - jnp.concatenate(o, 1)
    said = jnp.stack([jnp.where(box, heatmaps, 0).sum(tuple(range(2, heatmaps.ndim))) for box in boxes], -1)
    return jax.vmap(jax.vmap(partial(infidelity_of, is_relative=True), (0, None)))(said, happened)

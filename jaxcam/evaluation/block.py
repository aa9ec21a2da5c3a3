"""The compiled part of `evaluate`: a block of pictures or inputs in, heatmaps and what the methods are worth out.

A block is a fixed number of them, and every device of the mesh works on one block at a time. So a picture's figures
do not depend on how many devices there are: it is always computed in the same place of the same block.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxcam import maps, metrics
from jaxcam.cuts.model import Adapted
from jaxcam.evaluation.plan import (
    AXIS,
    Plan,
    background_of,
    confidence_of,
    image_of,
    masked_input,
    network_input,
    normalised,
    of_class,
)
from jaxcam.evaluation.protocol import Protocol
from jaxcam.evaluation.shuffled import Part, shuffled
from jaxcam.explanation.batch import Request, explained
from jaxcam.explanation.explanation import Explanation, Status
from jaxcam.metrics.operands import is_explanation
from jaxcam.programs.compiled import Programs
from jaxcam.programs.specs import without_batch


class Block(NamedTuple):
    """What the methods made of the pictures of a block."""

    class_idx: Int[Array, " n"]
    """The class that was explained."""
    y: Float[Array, " n"]
    """The confidence on the picture."""
    o: Float[Array, "n m"]
    """The confidence on the explanation map of each method; NaN where the map is empty or there is none."""
    status: Int[Array, "n m"]
    heatmaps: Float[Array, "n m *grid"]
    values: dict[str, Float[Array, "n m"]]
    """By metric; NaN where it is undefined, and for an empty map all of them: `metrics.operands.is_explanation`."""


class Truth(NamedTuple):
    """Where the explained class is."""

    boxes: Bool[Array, "n *grid"]
    """The union of its boxes, or of its masks where only these are known."""
    masks: Bool[Array, "n *grid"]
    """The union of its masks."""


def explained_blocks(
    mesh: Mesh, plan: Plan, model: Adapted, data: Any, labels: Array, seed: Array | np.uint32
) -> Block:
    """Program 1: the data `[n, ...]` of a block for every device of the mesh.

    Methods that draw are given the seed's key for every picture, wherever it stands: see `jaxcam.explain`.
    """
    arrays, static = model.tree_flatten()
    return _compiled((mesh, plan, static), arrays, data, labels, seed)


def _explained_blocks(static: tuple[Mesh, Plan, Any], arrays: Any, *operands: Any) -> Block:
    mesh, plan, model = static
    over_devices = jax.shard_map(
        partial(_explained_block, plan),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    return over_devices(Adapted.tree_unflatten(model, arrays), *operands)


_compiled = Programs(_explained_blocks)


@partial(jax.jit, static_argnums=(0, 1))
def compared_blocks(mesh: Mesh, protocol: Protocol, heatmaps: Array, truth: Truth) -> dict[str, Array]:
    """Program 2: the heatmaps against what is known to be there, `[n, m]` for each metric."""
    over_devices = jax.shard_map(
        partial(_compared_block, protocol),
        mesh=mesh,
        in_specs=PartitionSpec(AXIS),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    return over_devices(heatmaps, truth)


def _explained_block(plan: Plan, model: Adapted, data: Any, labels: Array, seed: Array) -> Block:
    key = jax.random.key(seed, impl="threefry2x32")
    protocol = plan.protocol
    confidence = partial(confidence_of, plan, model)
    image = image_of(plan, data)
    size = image.shape[1:-1]
    inputs = network_input(plan, data, normalised(plan, image))
    class_idx = labels if protocol.class_idx == "true" else None
    found: list[Explanation] = []
    y: Array | None = None
    for request in plan.requests:
        # Each begins with the same forward pass, of which XLA keeps one.
        explanation, logits, probability = explained(model, request, inputs, class_idx, own_key(request, key))
        class_idx = explanation.class_idx
        y = of_class(protocol, probability, logits, class_idx) if y is None else y
        found.append(explanation)
    assert y is not None
    assert class_idx is not None
    heatmaps = [heatmap_of(protocol, explanation, size) for explanation in found]
    background = background_of(plan, image)
    masked = [masked_input(plan, data, heatmap, background) for heatmap in heatmaps]
    values: dict[str, list[Array]] = {}
    if "coherency" in plan.groups:
        o, again = [], []
        for request, inputs_e in zip(plan.requests, masked, strict=True):
            explanation, logits_e, probability = explained(model, request, inputs_e, class_idx, own_key(request, key))
            o.append(of_class(protocol, probability, logits_e, class_idx))
            again.append(heatmap_of(protocol, explanation, size))
        values["coherency"] = [jax.vmap(metrics.coherency)(a, b) for a, b in zip(heatmaps, again, strict=True)]
    else:
        o = _in_one_batch(confidence, masked, class_idx)
    drops = [metrics.relative_drop(y, each) for each in o]
    values["average_drop"] = drops
    values["absolute_drop"] = [jax.nn.relu(y - each) for each in o]
    values["increase"] = [_counted(each > y, each + y) for each in o]
    if "deletion" in plan.groups:
        inverse = [masked_input(plan, data, 1 - heatmap, background) for heatmap in heatmaps]
        o_inverse = _in_one_batch(confidence, inverse, class_idx)
        values["drop_in_deletion"] = [metrics.relative_drop(y, each) for each in o_inverse]
    if "shape" in plan.groups or "coherency" in plan.groups:
        values["complexity"] = [jax.vmap(metrics.complexity)(heatmap) for heatmap in heatmaps]
    if "shape" in plan.groups:
        values["sparsity"] = [jax.vmap(metrics.sparsity)(heatmap) for heatmap in heatmaps]
    if "coherency" in plan.groups:
        values["adcc"] = [
            jax.vmap(metrics.adcc)(*three)
            for three in zip(drops, values["coherency"], values["complexity"], strict=True)
        ]
    if "sanity" in plan.groups:
        again = _with_shuffled(plan, model, inputs, found, key, "behind")
        values["sanity"] = [
            jax.vmap(metrics.rank_correlation)(*map(_raw, two)) for two in zip(found, again, strict=True)
        ]
    if "randomised" in plan.groups:
        again = _with_shuffled(plan, model, inputs, found, key, "before")
        values["bottom_up"] = [
            jax.vmap(metrics.rank_correlation)(*map(_raw, two)) for two in zip(found, again, strict=True)
        ]
        again = [heatmap_of(protocol, each, size) for each in _with_shuffled(plan, model, inputs, found, key, "all")]
        values["emprt"] = [jax.vmap(metrics.emprt)(*two) for two in zip(heatmaps, again, strict=True)]
    status = jnp.stack([explanation.status for explanation in found], 1)
    shown = jnp.stack(heatmaps, 1)
    has_map = (
        (status != Status.NOT_FINITE) & (status != Status.NO_SUCH_CLASS) & jax.vmap(jax.vmap(is_explanation))(shown)
    )
    return Block(
        class_idx,
        y,
        jnp.where(has_map, jnp.stack(o, 1), jnp.nan),
        status,
        shown,
        {name: jnp.where(has_map, jnp.stack(each, 1), jnp.nan) for name, each in values.items()},
    )


def _compared_block(protocol: Protocol, heatmaps: Array, truth: Truth) -> dict[str, Array]:
    tolerance = protocol.tolerance * min(heatmaps.shape[2:])

    def one(heatmap: Array, boxes: Array, masks: Array) -> dict[str, Array]:
        return {
            **{loc_key(delta): metrics.localisation(heatmap, boxes, delta=delta) for delta in protocol.deltas},
            "pointing": metrics.pointing_game(heatmap, boxes, tolerance=tolerance),
            "energy": metrics.energy_pointing_game(heatmap, boxes),
            "iou": metrics.iou(heatmap, masks, threshold=protocol.mask_threshold),
        }

    over_methods = jax.vmap(one, in_axes=(0, None, None))
    return jax.vmap(over_methods)(heatmaps, truth.boxes, truth.masks)


def loc_key(delta: float) -> str:
    """The name of Loc(δ) among the values."""
    return f"loc_{100 * delta:g}"


def heatmap_of(protocol: Protocol, explanation: Explanation, size: tuple[int, ...]) -> Array:
    """`[n, *grid]` as the protocol says; guided methods have a gradient of the input's size instead of a map."""
    if explanation.gradient is not None or (
        (protocol.normalisation, protocol.resize, protocol.epsilon) == ("max", "linear", 0)
    ):
        return explanation.heatmap
    cam_map = explanation.cam_map
    assert isinstance(cam_map, jax.Array)

    def one(raw: Array) -> Array:
        shown = _divided(raw if protocol.normalisation == "max" else raw - raw.min(), protocol.epsilon)
        shown = jnp.clip(jax.image.resize(shown, size, method=protocol.resize), 0, 1)
        return _divided(shown - shown.min(), protocol.epsilon) if protocol.normalisation == "min_max_twice" else shown

    finite = jnp.isfinite(cam_map).all(tuple(range(1, cam_map.ndim)), keepdims=True)
    return jax.vmap(one)(jnp.where(finite, cam_map, 0))


def _divided(cam_map: Array, epsilon: float) -> Array:
    """ReLU(map) / (max(map) + epsilon)."""
    top = jax.nn.relu(cam_map.max())
    return maps.normalised(cam_map) * (top / (top + epsilon) if epsilon else 1)


def _in_one_batch(confidence: Any, masked: list[Any], class_idx: Array) -> list[Array]:
    """The confidence on the explanation maps of all methods, in one forward pass."""
    inputs = jax.tree.map(lambda *each: jnp.concatenate(each), *masked)
    together = confidence(inputs, jnp.tile(class_idx, len(masked)))
    return list(together.reshape(len(masked), -1))


def _counted(is_so: Array, where_finite: Array) -> Array:
    return jnp.where(jnp.isfinite(where_finite), is_so.astype(where_finite.dtype), jnp.nan)


def _with_shuffled(
    plan: Plan, model: Adapted, inputs: Any, found: list[Explanation], key: Array, part: Part
) -> list[Explanation]:
    """The methods' maps for the same class when a part of the network's weights is shuffled."""
    again = []
    for request, explanation in zip(plan.requests, found, strict=True):
        others = shuffled(model, request, without_batch(inputs), plan.main, part=part)
        again.append(explained(others, request, inputs, explanation.class_idx, own_key(request, key)).explanation)
    return again


def _raw(explanation: Explanation) -> Array:
    """The map before resizing; only what speaks for the class, which is all that some methods give."""
    if explanation.gradient is not None:
        return explanation.heatmap
    assert isinstance(explanation.cam_map, jax.Array)
    return jax.nn.relu(explanation.cam_map)


def own_key(request: Request, key: Array) -> Array | None:
    """For methods that draw."""
    return key if request.method.takes_key else None

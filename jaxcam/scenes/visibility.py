"""How much of every instance can be seen, and what gives way when it is too little.

Contract: visibility is counted on a fixed set of sample points of each figure, so that it does not depend on
the resolution. Overlaps and front bars are accepted only while every instance keeps at least `MIN_VISIBLE` of
its points in sight; otherwise the instances spread out and shrink until their circles do not touch, and the
bar is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam.scenes.figures import signed_distance
from jaxcam.scenes.parts import MAX_INSTANCES, Instances, Strokes, instance_distance, stroke_distance

MIN_VISIBLE = 0.67
_REACH = 1.35  # a figure lies within this many radii of its centre, however sheared
_BEHIND, _FRONT = np.stack(np.triu_indices(MAX_INSTANCES, 1)).astype(np.int32)
# Sample points of a figure: the R2 low-discrepancy sequence over the square that encloses every figure.
_SAMPLES = np.asarray(
    (np.arange(1, 225)[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0 * 2.4 - 1.2,
    np.float32,
)


def closeness(centre: Float[Array, "m 2"], radius: Float[Array, " m"], present: Bool[Array, " m"]) -> Float[Array, ""]:
    """Smallest distance of two instances over the sum of their radii: below 1 their circles overlap."""
    difference = centre[_BEHIND] - centre[_FRONT]
    distance = jnp.sqrt(jnp.sum(difference**2, axis=-1))
    ratio = distance / (_REACH * (radius[_BEHIND] + radius[_FRONT]))
    return jnp.min(jnp.where(present[_BEHIND] & present[_FRONT], ratio, 10.0))


def _sample_points(instances: Instances) -> Float[Array, "m p 2"]:
    """The sample points of every figure, on the canvas."""
    m = instances.to_figure
    inverse = jnp.stack(  # the determinant of to_figure is -1
        [
            jnp.stack([-m[:, 1, 1], m[:, 0, 1]], axis=-1),
            jnp.stack([m[:, 1, 0], -m[:, 0, 0]], axis=-1),
        ],
        axis=-2,
    )
    offset = jnp.einsum("mij,pj->mpi", inverse, jnp.asarray(_SAMPLES), precision="highest")
    return instances.centre[:, None, :] + instances.radius[:, None, None] * offset


def _lowest_visible(
    hidden: Bool[Array, "m p"], inside: Bool[Array, "m p"], present: Bool[Array, " m"]
) -> Float[Array, ""]:
    """The visible fraction of the instance that is hidden most."""
    count = jnp.sum(inside, axis=1, dtype=jnp.float32)
    visible = jnp.sum(inside & ~hidden, axis=1, dtype=jnp.float32) / jnp.maximum(count, 1.0)
    return jnp.min(jnp.where(present, visible, 1.0))


def unhidden(
    instances: Instances, widest: Float[Array, "m 2"]
) -> tuple[Instances, Bool[Array, "m p"], Bool[Array, "m p"]]:
    """Spreads and shrinks the instances where they overlap too much.

    Returns:
        The instances; which of the sample points lie in their figure; and which of them cannot be seen.
    """
    present = instances.present
    samples = jnp.asarray(_SAMPLES)
    inside = jax.vmap(signed_distance, in_axes=(0, None, None))(instances.class_idx, samples[:, 0], samples[:, 1]) < 0

    points = _sample_points(instances)
    front = jax.tree.map(lambda leaf: leaf[_FRONT], instances)
    covered = (instance_distance(front, points[_BEHIND]) < 0) & front.present[:, None]
    hidden = jnp.stack([jnp.any(covered[i == _BEHIND], axis=0) for i in range(MAX_INSTANCES)])
    off_canvas = jnp.any((points < 0) | (points > 1), axis=-1)
    too_hidden = _lowest_visible(hidden | off_canvas, inside, present) < MIN_VISIBLE
    apart = jnp.minimum(closeness(widest, instances.radius, present), 1.0)
    instances = instances._replace(
        centre=jnp.where(too_hidden, widest, instances.centre),
        radius=instances.radius * jnp.where(too_hidden, apart, 1.0),
    )
    points = _sample_points(instances)
    off_canvas = jnp.any((points < 0) | (points > 1), axis=-1)
    return instances, inside, (hidden & ~too_hidden) | off_canvas


def accepted_bars(
    bars: Strokes, instances: Instances, inside: Bool[Array, "m p"], hidden: Bool[Array, "m p"]
) -> Strokes:
    """The bars without those that would hide too much of an instance."""
    points = _sample_points(instances)
    barred = stroke_distance(bars, points[:, :, 0], points[:, :, 1]) < 0
    half_width: list[Array] = []
    for i in range(barred.shape[0]):
        accepted = _lowest_visible(hidden | barred[i], inside, instances.present) >= MIN_VISIBLE
        hidden = hidden | (barred[i] & accepted)
        half_width.append(jnp.where(accepted, bars.half_width[i], -1.0))
    return bars._replace(half_width=jnp.stack(half_width))

"""The parts of a generated scene, and where each one lies on the canvas.

Contract: lengths are in units of the canvas (its side is 1), x to the right, y downwards, so that nothing
here knows the resolution. Distances are signed: negative inside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcam.scenes.figures import signed_distance

MAX_INSTANCES = 4
"""So many figures a picture has at most; masks and boxes have a slot for each."""


class Instances(NamedTuple):
    """The figures of a scene in painting order (leading axis m)."""

    slot: Int[Array, " m"]
    present: Bool[Array, " m"]
    class_idx: Int[Array, " m"]
    centre: Float[Array, "m 2"]
    radius: Float[Array, " m"]
    to_figure: Float[Array, "m 2 2"]  # canvas offset / radius -> figure coordinates; determinant -1 (y turns over)
    colour: Float[Array, "m 3"]
    outline: Float[Array, "m 3"]
    pattern: Float[Array, "m 3"]  # strength, frequency and phase of the bands on the figure


class Strokes(NamedTuple):
    """Sticks and dots (behind the figures) or bars (in front): thick line segments."""

    start: Float[Array, "n 2"]
    end: Float[Array, "n 2"]
    half_width: Float[Array, " n"]  # negative: not there
    colour: Float[Array, "n 3"]


class Arcs(NamedTuple):
    """Thin pieces of circles, behind the figures."""

    centre: Float[Array, "n 2"]
    radius: Float[Array, " n"]
    half_width: Float[Array, " n"]  # negative: not there
    direction: Float[Array, "n 2"]
    cosine: Float[Array, " n"]  # of half the opening angle
    colour: Float[Array, "n 3"]


class Background(NamedTuple):
    """A texture that blends two colours, and a fine grain."""

    kind: Int[Array, ""]
    colours: Float[Array, "2 3"]
    angle: Float[Array, ""]
    frequency: Float[Array, ""]
    phase: Float[Array, " 2"]
    coarse: Float[Array, "a a"]
    fine: Float[Array, "b b"]


class Layout(NamedTuple):
    """Everything that is painted, back to front."""

    background: Background
    sticks: Strokes
    arcs: Arcs
    instances: Instances
    bars: Strokes
    light: Float[Array, " 2"]


def to_figure(instances: Instances, points: Float[Array, "m p 2"]) -> tuple[Float[Array, "m p"], Float[Array, "m p"]]:
    """Canvas points -> coordinates of each instance's figure."""
    offset = (points - instances.centre[:, None, :]) / instances.radius[:, None, None]
    matrix = instances.to_figure[:, :, :, None]
    x, y = offset[:, :, 0], offset[:, :, 1]
    return matrix[:, 0, 0] * x + matrix[:, 0, 1] * y, matrix[:, 1, 0] * x + matrix[:, 1, 1] * y


def instance_distance(instances: Instances, points: Float[Array, "m p 2"]) -> Float[Array, "m p"]:
    """Distance of the points from the edge of their instance's figure."""
    x, y = to_figure(instances, points)
    return jax.vmap(signed_distance)(instances.class_idx, x, y) * instances.radius[:, None]


def stroke_distance(strokes: Strokes, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "n *p"]:
    """Distance of the points from the edge of each stroke; 1 or more for strokes that are not there."""

    def one(stroke: Strokes) -> Float[Array, "*p"]:
        step = stroke.end - stroke.start
        dx, dy = x - stroke.start[0], y - stroke.start[1]
        length_squared = jnp.maximum(jnp.sum(step**2), 1e-12)  # a dot has no length
        along = jnp.clip((dx * step[0] + dy * step[1]) / length_squared, 0.0, 1.0)
        dx, dy = dx - along * step[0], dy - along * step[1]
        return jnp.sqrt(dx * dx + dy * dy) - stroke.half_width

    return jax.vmap(one)(strokes)


def arc_distance(arcs: Arcs, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "n *p"]:
    """Distance of the points from the edge of each arc; 1 or more for arcs that are not there."""

    def one(arc: Arcs) -> Float[Array, "*p"]:
        dx, dy = x - arc.centre[0], y - arc.centre[1]
        band = jnp.abs(jnp.sqrt(dx * dx + dy * dy) - arc.radius) - arc.half_width
        # The ends are cut straight, along the chord of the opening angle.
        return jnp.maximum(band, arc.radius * arc.cosine - (dx * arc.direction[0] + dy * arc.direction[1]))

    return jax.vmap(one)(arcs)

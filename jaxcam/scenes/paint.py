"""A scene's layout -> pixels: the picture and the visible mask of every instance.

Contract: the value of a pixel is the scene at the pixel's centre, with edges anti-aliased over one pixel; a
mask holds the pixels whose centre lies in the figure and in nothing in front of it. The same layout painted
at another size is the same picture.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam.scenes.figures import signed_distance
from jaxcam.scenes.parts import (
    MAX_INSTANCES,
    Background,
    Instances,
    Layout,
    Strokes,
    arc_distance,
    stroke_distance,
)

_FRONT = np.triu(np.ones((MAX_INSTANCES, MAX_INSTANCES), np.bool_), 1)  # [i, j]: j is painted after i
_Grid = Float[Array, "h w"]
_Picture = Float[Array, "h w 3"]


def _interpolation(size: int, lattice: int) -> Float[Array, "size lattice"]:
    """Weights of each lattice value at each pixel centre: cubic B-splines, so that no grid shows."""
    position = (np.arange(size) + 0.5) / size * (lattice - 3)
    offset = np.abs(position[:, None] + 1 - np.arange(lattice)[None, :])
    near, far = 2 / 3 - offset**2 + offset**3 / 2, np.maximum(2 - offset, 0) ** 3 / 6
    return jnp.asarray(np.where(offset < 1, near, far), jnp.float32)


def _value_noise(lattice: Float[Array, "a a"], size: int) -> Float[Array, "{size} {size}"]:
    weights = _interpolation(size, lattice.shape[0])
    return jnp.matmul(jnp.matmul(weights, lattice, precision="highest"), weights.T, precision="highest")


def _wave(u: _Grid, sharpness: float) -> _Grid:
    """A triangle wave of period 1 in [0, 1], its flanks `sharpness` times steeper."""
    return jnp.clip(0.5 + sharpness * (jnp.abs(u % 1.0 - 0.5) - 0.25), 0.0, 1.0)


def _background(ground: Background, x: _Grid, y: _Grid) -> _Picture:
    cos, sin = jnp.cos(ground.angle), jnp.sin(ground.angle)
    u, v = cos * (x - 0.5) + sin * (y - 0.5), cos * (y - 0.5) - sin * (x - 0.5)
    size = x.shape[0]
    noise = _value_noise(ground.coarse, size)
    across = _wave(u * ground.frequency + ground.phase[0], 5.0)
    along = _wave(v * ground.frequency + ground.phase[1], 5.0)
    middle = 0.6 * (ground.phase - 0.5)
    radial = 1.3 * jnp.sqrt((u - middle[0]) ** 2 + (v - middle[1]) ** 2)
    kinds = [
        jnp.clip(0.5 + 0.8 * u, 0.0, 1.0),
        across,
        jnp.clip(0.5 + 2.6 * (noise - 0.5), 0.0, 1.0),
        across + along - 2.0 * across * along,
        jnp.clip(radial, 0.0, 1.0),
    ]
    blend = kinds[0]
    for i, kind in enumerate(kinds[1:], start=1):
        blend = jnp.where(ground.kind == i, kind, blend)
    blend = (0.85 * blend + 0.15 * noise)[:, :, None]
    first, second = ground.colours[0][None, None, :], ground.colours[1][None, None, :]
    grain = 0.09 * (_value_noise(ground.fine, size) - 0.5)[:, :, None]
    return first + (second - first) * blend + grain


def _cover(picture: _Picture, distance: _Grid, colour: Float[Array, "..."]) -> _Picture:
    """Paints `colour` where the distance is negative, with an edge one pixel wide."""
    coverage = jnp.clip(0.5 - distance * picture.shape[0], 0.0, 1.0)[:, :, None]
    return picture + coverage * (colour - picture)


def _strokes(picture: _Picture, strokes: Strokes, distance: Float[Array, "n h w"]) -> _Picture:
    for i in range(distance.shape[0]):
        picture = _cover(picture, distance[i], strokes.colour[i][None, None, :])
    return picture


def _instance(
    picture: _Picture, instance: Instances, light: Float[Array, " 2"], x: _Grid, y: _Grid
) -> tuple[_Picture, Bool[Array, "h w"]]:
    """Paints one instance (leaves without the leading axis) and says which pixels it fills."""
    dx, dy = (x - instance.centre[0]) / instance.radius, (y - instance.centre[1]) / instance.radius
    figure_x = instance.to_figure[0, 0] * dx + instance.to_figure[0, 1] * dy
    figure_y = instance.to_figure[1, 0] * dx + instance.to_figure[1, 1] * dy
    distance = signed_distance(instance.class_idx, figure_x, figure_y) * instance.radius
    distance = jnp.where(instance.present, distance, 1.0)

    shadow = 0.35 * jnp.clip(1.0 - distance / (0.22 * instance.radius), 0.0, 1.0)[:, :, None]
    strength, frequency, phase = instance.pattern
    bands = 1.0 - strength * _wave((figure_x + 0.5 * figure_y) * frequency + phase, 4.0)
    shade = (1.0 + 0.16 * (dx * light[0] + dy * light[1])) * bands
    picture = _cover(picture * (1.0 - shadow * shadow), distance, instance.outline[None, None, :])
    colour = instance.colour[None, None, :] * shade[:, :, None]
    return _cover(picture, distance + 0.085 * instance.radius, colour), distance < 0


def paint(layout: Layout, size: int) -> tuple[Float[Array, "{size} {size} 3"], Bool[Array, "m {size} {size}"]]:
    """The picture, in [0, 1], and the visible mask of every slot."""
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    x, y = jnp.broadcast_to(centres[None, :], (size, size)), jnp.broadcast_to(centres[:, None], (size, size))
    picture = _background(layout.background, x, y)
    picture = _strokes(picture, layout.sticks, stroke_distance(layout.sticks, x, y))
    arcs = arc_distance(layout.arcs, x, y)
    for i in range(arcs.shape[0]):
        picture = _cover(picture, arcs[i], layout.arcs.colour[i][None, None, :])

    # A scan, not an unrolled loop: each step is one fused program, and nothing is computed again per output.
    instances = layout.instances
    picture, inside = jax.lax.scan(lambda p, one: _instance(p, one, layout.light, x, y), picture, instances)
    bars = stroke_distance(layout.bars, x, y)
    picture = jnp.clip(_strokes(picture, layout.bars, bars), 0.0, 1.0)

    bar = jnp.any(bars < 0, axis=0)
    in_front = _FRONT[:, :, None, None] & inside[None, :]
    visible = inside & ~bar[None] & ~jnp.any(in_front, axis=1)
    # Back to the order of the slots, by selection: gathering whole masks under vmap is slow.
    fills = instances.slot[None, :] == jnp.arange(MAX_INSTANCES, dtype=jnp.int32)[:, None]
    return picture, jnp.any(fills[:, :, None, None] & visible[None], axis=1)


def tight_boxes(masks: Bool[Array, "m h w"]) -> Array:
    """The half-open pixel box [x0, y0, x1, y1] of every mask, `int32 [m, 4]`; zeros where a mask is empty."""

    def ends(hit: Bool[Array, "m n"]) -> tuple[Array, Array]:
        return jnp.argmax(hit, axis=1), hit.shape[1] - jnp.argmax(hit[:, ::-1], axis=1)

    (x0, x1), (y0, y1) = ends(jnp.any(masks, axis=1)), ends(jnp.any(masks, axis=2))
    boxes = jnp.stack([x0, y0, x1, y1], axis=-1).astype(jnp.int32)
    return jnp.where(jnp.any(masks, axis=(1, 2))[:, None], boxes, 0)

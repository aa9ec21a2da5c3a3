"""Volumes: solids of one kind in a cloudy ground, with rods through them and specks around them.

Contract: deterministic from the key, as pictures are; all but the fine grain is the same at every size. Lengths are in
units of the volume (its side is 1). Axes are z, y, x; the value of a voxel is the density at its centre, with edges
smoothed over one voxel. A mask holds the voxels whose centre lies in the solid and in no rod. Density, place and turn
are drawn independently of the kind.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxcam.checks import check_integer
from jaxcam.scenes.accepted import checked_key
from jaxcam.scenes.draws import Draws

MAX_SOLIDS = 2
MIN_VOLUME, MAX_VOLUME = 16, 128
NUM_RODS, NUM_SPECKS = 3, 6
_Space = Float[Array, "*points"]


def _norm(*axes: _Space) -> _Space:
    return jnp.sqrt(sum((a * a for a in axes[1:]), axes[0] * axes[0]))


def _ball(x: _Space, y: _Space, z: _Space) -> _Space:
    return _norm(x, y, z) - 0.85


def _shell(x: _Space, y: _Space, z: _Space) -> _Space:
    return jnp.abs(_norm(x, y, z) - 0.75) - 0.2


def _cube(x: _Space, y: _Space, z: _Space) -> _Space:
    return jnp.maximum(jnp.maximum(jnp.abs(x), jnp.abs(y)), jnp.abs(z)) - 0.68


def _cylinder(x: _Space, y: _Space, z: _Space) -> _Space:
    return jnp.maximum(_norm(x, y) - 0.45, jnp.abs(z) - 1.0)


def _cone(x: _Space, y: _Space, z: _Space) -> _Space:
    # The tip at z = 1, the base of radius 0.9 at z = -0.7.
    slope = (0.9**2 + 1.7**2) ** 0.5
    return jnp.maximum((1.7 * _norm(x, y) - 0.9 * (1.0 - z)) / slope, -0.7 - z)


def _torus(x: _Space, y: _Space, z: _Space) -> _Space:
    return _norm(_norm(x, y) - 0.72, z) - 0.28


def _jack(x: _Space, y: _Space, z: _Space) -> _Space:
    # Three square bars that cross: a point is in one of them if its two smaller coordinates are small.
    x, y, z = jnp.abs(x), jnp.abs(y), jnp.abs(z)
    largest = jnp.maximum(jnp.maximum(x, y), z)
    middle = jnp.maximum(jnp.minimum(x, y), jnp.minimum(jnp.maximum(x, y), z))
    return jnp.maximum(largest - 1.0, middle - 0.27)


_SOLIDS: dict[str, Callable[[_Space, _Space, _Space], _Space]] = {
    "ball": _ball,
    "shell": _shell,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
    "jack": _jack,
}
SOLID_NAMES: tuple[str, ...] = tuple(_SOLIDS)
"""The solids of volumes, by class."""


class Volume(NamedTuple):
    """A volume and the truth about it; `many` puts one more leading axis on every field.

    Attributes:
        density: `[z, y, x, 1]`, float32 in [0, 1].
        class_idx: `[]`, int32: index into `SOLID_NAMES`: the kind of all its solids.
        present: `[m]`, bool: which slots hold a solid, the first always; m = 2.
        masks: `[m, z, y, x]`, bool: the voxels of every solid that no rod takes.
    """

    density: Float[Array, "*batch z y x 1"]
    class_idx: Int[Array, "*batch"]
    present: Bool[Array, "*batch m"]
    masks: Bool[Array, "*batch m z y x"]


def solid_distance(class_idx: Int[Array, ""], x: _Space, y: _Space, z: _Space) -> _Space:
    """Signed distance of points from the surface of a solid, in its own units: negative inside, exact near faces."""
    distance = _ball(x, y, z)
    for i, solid in enumerate(list(_SOLIDS.values())[1:], start=1):
        distance = jnp.where(class_idx == i, solid(x, y, z), distance)
    return distance


def _turn(draw: Draws) -> Float[Array, "3 3"]:
    """A uniformly random rotation, by a unit quaternion (Shoemake 1992)."""
    u, v, w = draw(), 2 * np.pi * draw(), 2 * np.pi * draw()
    near, far = jnp.sqrt(1.0 - u), jnp.sqrt(u)
    a, b, c, d = near * jnp.sin(v), near * jnp.cos(v), far * jnp.sin(w), far * jnp.cos(w)
    rows = [
        [1 - 2 * (b * b + c * c), 2 * (a * b - c * d), 2 * (a * c + b * d)],
        [2 * (a * b + c * d), 1 - 2 * (a * a + c * c), 2 * (b * c - a * d)],
        [2 * (a * c - b * d), 2 * (b * c + a * d), 1 - 2 * (a * a + b * b)],
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


def _direction(draw: Draws) -> Float[Array, " 3"]:
    height, angle = draw(low=-1.0, high=1.0), 2 * np.pi * draw()
    flat = jnp.sqrt(1.0 - height * height)
    return jnp.stack([flat * jnp.cos(angle), flat * jnp.sin(angle), height])


def _smooth_noise(lattice: Float[Array, "a a a"], size: int) -> Float[Array, "{size} {size} {size}"]:
    """Values of a coarse lattice, blended along each axis."""
    place = (np.arange(size) + 0.5) / size * (lattice.shape[0] - 1)
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(lattice.shape[0])[None, :]), 0)
    blend = jnp.asarray(weights * weights * (3 - 2 * weights), jnp.float32)
    return jnp.einsum("abc,ia,jb,kc->ijk", lattice, blend, blend, blend, precision="highest")


@partial(jax.jit, static_argnames="size")
def _volume(key: Key[Array, ""], size: int) -> Volume:
    content_key, clutter_key, grain_key = jax.random.split(key, 3)
    draw = Draws(content_key, 64)
    class_idx, both = draw.choice(len(SOLID_NAMES)), draw() < 0.4
    present = jnp.stack([jnp.array(True), both])
    radius = jnp.where(both, draw(MAX_SOLIDS, low=0.19, high=0.22), draw(MAX_SOLIDS, low=0.22, high=0.32))
    # One lies anywhere, two lie in the halves of one axis.
    free = 1.0 - 2.0 * 1.05 * radius
    anywhere = 1.05 * radius[:, None] + free[:, None] * draw(MAX_SOLIDS, 3)
    sides = jnp.stack([0.24 + draw(low=-0.02, high=0.02), 0.76 + draw(low=-0.02, high=0.02)])
    sides = jnp.where(draw() < 0.5, sides[::-1], sides)
    split = (jnp.arange(3, dtype=jnp.int32) == draw.choice(3))[None, :] & both
    centre = jnp.where(split, sides[:, None], anywhere)
    turns = jnp.stack([_turn(draw) for _ in range(MAX_SOLIDS)])
    densities = draw(MAX_SOLIDS, low=0.6, high=0.95)

    clutter = Draws(clutter_key, 512)
    axis = jnp.asarray((np.arange(size) + 0.5) / size, jnp.float32)
    z, y, x = jnp.meshgrid(axis, axis, axis, indexing="ij")
    low = clutter(low=0.05, high=0.25)
    density = low + 0.2 * _smooth_noise(clutter(5, 5, 5), size)

    def cover(density: Array, distance: Array, value: Array) -> Array:
        return density + jnp.clip(0.5 - distance * size, 0.0, 1.0) * (value - density)

    for _ in range(NUM_SPECKS):
        spot, extent, value = clutter(3), clutter(low=0.03, high=0.06), clutter(low=0.3, high=0.95)
        density = cover(density, _norm(x - spot[0], y - spot[1], z - spot[2]) - extent, value)

    inside: list[Array] = []
    for i in range(MAX_SOLIDS):
        offset = [(points - centre[i, a]) / radius[i] for a, points in enumerate((x, y, z))]
        own = [turns[i, a, 0] * offset[0] + turns[i, a, 1] * offset[1] + turns[i, a, 2] * offset[2] for a in range(3)]
        distance = jnp.where(present[i], solid_distance(class_idx, own[0], own[1], own[2]) * radius[i], 1.0)
        density = cover(density, distance, densities[i])
        inside.append(distance < 0)

    taken = jnp.zeros((size, size, size), jnp.bool_)
    for i in range(NUM_RODS):
        # Aimed at a solid, but not at its middle: a segment of this direction through a point near its edge.
        target = i % MAX_SOLIDS * both.astype(jnp.int32)
        through = centre[target] + radius[target] * clutter(low=0.3, high=0.9) * _direction(clutter)
        along, reach = _direction(clutter), clutter(low=0.2, high=0.5)
        parts = (x - through[0], y - through[1], z - through[2])
        here = jnp.clip(sum(p * along[a] for a, p in enumerate(parts)), -reach, reach)
        distance = _norm(*(p - here * along[a] for a, p in enumerate(parts))) - clutter(low=0.025, high=0.05)
        distance = jnp.where(clutter() < 0.7, distance, 1.0)
        density = cover(density, distance, clutter(low=0.0, high=1.0))
        taken = taken | (distance < 0)

    grain = clutter(low=0.01, high=0.05) * jax.random.normal(grain_key, (size, size, size), jnp.float32)
    density = jnp.clip(density + grain, 0.0, 1.0)
    # Corners may touch; the second solid is painted last.
    masks = jnp.stack([inside[0] & ~inside[1] & ~taken, inside[1] & ~taken])
    return Volume(density[..., None], class_idx, present, masks)


def volume(key: Key[Array, ""] | UInt32[Array, "2"] | int, *, size: int = 24) -> Volume:
    """A volume with one or two solids of one kind; the label is the kind.

    Args:
        key: a random key, or a seed.
        size: the side of the volume in voxels, static.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: size is out of range.
    """
    check_integer("size", size, low=MIN_VOLUME, high=MAX_VOLUME)
    return _volume(checked_key(key), int(size))

"""Clips: several figures of which one travels, while the others stand or tremble on the spot.

Contract: deterministic from the key, as pictures are. No single frame says which figure travels: each has a path of its
own, drawn in the same way; one that stands does so at a uniformly random place of its path, and the one that travels
goes back and forth along it from a uniformly random place, so that where a figure is in any one frame has the same
distribution for all. Whether a figure trembles is drawn for every one of them, and so is everything about its looks.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxcam.checks import check_integer
from jaxcam.scenes.accepted import MAX_SIZE, MIN_SIZE, checked_key
from jaxcam.scenes.draws import Draws
from jaxcam.scenes.figures import CLASS_NAMES
from jaxcam.scenes.paint import paint
from jaxcam.scenes.parts import MAX_INSTANCES
from jaxcam.scenes.staging import distinct, padded, staged

NUM_FIGURES = 3
MIN_FRAMES, MAX_FRAMES = 8, 16
_LANES = np.array([0.18, 0.5, 0.82], np.float32)


class Clip(NamedTuple):
    """A clip and the truth about it; `many` puts one more leading axis on every field.

    Attributes:
        frames: `[t, h, w, 3]`, float32 in [0, 1].
        class_idx: `[]`, int32: the class of the figure that travels.
        moving: `[]`, int32: its slot.
        instance_classes: `[m]`, int32: the classes of the figures, all different; m = 3.
        masks: `[t, m, h, w]`, bool: the visible pixels of every figure in every frame.
    """

    frames: Float[Array, "*batch t h w 3"]
    class_idx: Int[Array, "*batch"]
    moving: Int[Array, "*batch"]
    instance_classes: Int[Array, "*batch m"]
    masks: Bool[Array, "*batch t m h w"]


def places(key: Key[Array, ""], moving: Int[Array, ""], num_frames: int) -> Float[Array, "t m 2"]:
    """Where the centre of every figure is in every frame, in units of the canvas: `[t, m, 2]`, x and y."""
    path_key, tremor_key = jax.random.split(key)
    draw = Draws(path_key, 64)
    across = jnp.asarray(_LANES)[draw.order(NUM_FIGURES)][:, None] + draw(NUM_FIGURES, 2, low=-0.02, high=0.02)
    begin, end = draw(NUM_FIGURES, low=0.17, high=0.3), draw(NUM_FIGURES, low=0.7, high=0.83)
    phase, speed = 2.0 * draw(NUM_FIGURES), draw(low=1.0, high=1.5)  # in lengths of the path a clip
    trembles, upright = draw(NUM_FIGURES) < 0.5, draw() < 0.5

    time = jnp.asarray(np.arange(num_frames) / (num_frames - 1), jnp.float32)
    travels = jnp.arange(NUM_FIGURES, dtype=jnp.int32) == moving
    gone = phase[None, :] + jnp.where(travels[None, :], speed * time[:, None], 0.0)
    # There and back: a triangle wave of period 2, so that a uniform phase is a uniform place at every time.
    share = 1.0 - jnp.abs(gone % 2.0 - 1.0)
    along = begin[None, :] + (end - begin)[None, :] * share
    aside = across[None, :, 0] + (across[:, 1] - across[:, 0])[None, :] * share
    tremor = jax.random.uniform(tremor_key, (num_frames, NUM_FIGURES, 2), jnp.float32, -0.035, 0.035)
    spot = jnp.stack([along, aside], axis=-1) + jnp.where(trembles[None, :, None], tremor, 0.0)
    return jnp.where(upright, spot[:, :, ::-1], spot)


@partial(jax.jit, static_argnames=("size", "num_frames"))
def _clip(key: Key[Array, ""], size: int, num_frames: int) -> Clip:
    content_key, path_key, look_key = jax.random.split(key, 3)
    draw = Draws(content_key, 32)
    moving = draw.choice(NUM_FIGURES)
    classes = distinct(draw, len(CLASS_NAMES), NUM_FIGURES)
    radius = draw(MAX_INSTANCES, low=0.135, high=0.165)
    spots = places(path_key, moving, num_frames)
    present = jnp.asarray(np.arange(MAX_INSTANCES) < NUM_FIGURES)
    plan = staged(look_key, padded(classes, 0), present, centre=padded(spots[0], 0), radius=radius)
    centres = jax.vmap(lambda spot: padded(spot, 0)[plan.instances.slot])(spots)

    def frame(centre: Float[Array, "m 2"]) -> tuple[Array, Array]:
        return paint(plan._replace(instances=plan.instances._replace(centre=centre)), size)

    frames, masks = jax.vmap(frame)(centres)
    return Clip(frames, classes[moving], moving, classes, masks[:, :NUM_FIGURES])


def clip(key: Key[Array, ""] | UInt32[Array, "2"] | int, *, size: int = 64, num_frames: int = 8) -> Clip:
    """A clip of three figures of different classes; the label is the class of the one that travels.

    Args:
        key: a random key, or a seed.
        size: the side of the frames in pixels, static.
        num_frames: from 8 to 16, static: into how many frames the same time is cut.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: size or num_frames is out of range.
    """
    check_integer("size", size, low=MIN_SIZE, high=MAX_SIZE)
    check_integer("num_frames", num_frames, low=MIN_FRAMES, high=MAX_FRAMES)
    return _clip(checked_key(key), int(size), int(num_frames))

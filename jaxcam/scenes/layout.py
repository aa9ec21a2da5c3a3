"""What is in a generated scene: every random number, drawn before anything is rasterised.

Contract: a `Layout` is a pure function of the key, the classes and which of the slots are filled; it does not
know the resolution. Lengths are in units of the canvas (its side is 1), x to the right, y downwards.
Instances are stored in painting order, back to front; `slot` says which slot of the scene each one fills.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxcam.scenes.draws import Draws, rgb, unit
from jaxcam.scenes.parts import MAX_INSTANCES, Arcs, Background, Instances, Layout, Strokes
from jaxcam.scenes.visibility import accepted_bars, closeness, unhidden

NUM_STICKS, NUM_ARCS, NUM_BARS = 9, 3, 2
COARSE, FINE = 6, 29  # lattice sides of the two value noises

_NUM_PLACEMENTS = 24
_NUM_COLOURS = 6  # candidates for the colour of an instance
_RADIUS_RANGE = ((0.15, 0.24), (0.14, 0.22), (0.125, 0.185), (0.115, 0.165))  # for 1, 2, 3 and 4 instances


def _background(draw: Draws) -> Background:
    hue, saturation, value = draw(), draw(low=0.05, high=0.5), draw(low=0.3, high=0.95)
    contrast = draw(low=0.12, high=0.32)
    other = jnp.where(value > 0.62, value - contrast, value + contrast)
    first = rgb(hue, saturation, value)
    second = rgb(hue + draw(low=-0.12, high=0.12), jnp.clip(saturation + draw(low=-0.15, high=0.2), 0.0, 0.6), other)
    return Background(
        kind=(draw() * 5.0).astype(jnp.int32),
        colours=jnp.stack([first, second]),
        angle=draw(high=2 * np.pi),
        frequency=draw(low=2.5, high=8.0),
        phase=draw(2),
        coarse=draw(COARSE, COARSE),
        fine=draw(FINE, FINE),
    )


def _sticks(draw: Draws) -> Strokes:
    start, shown, is_dot = draw(NUM_STICKS, 2), draw(NUM_STICKS), draw(NUM_STICKS) < 0.4
    length = jnp.where(is_dot, 0.0, draw(NUM_STICKS, low=0.06, high=0.2))
    half_width = jnp.where(is_dot, draw(NUM_STICKS, low=0.01, high=0.022), draw(NUM_STICKS, low=0.005, high=0.012))
    colour = rgb(draw(NUM_STICKS), draw(NUM_STICKS, low=0.1, high=0.9), draw(NUM_STICKS, low=0.2, high=1.0))
    end = start + length[:, None] * unit(draw(NUM_STICKS, high=2 * np.pi))
    return Strokes(start, end, jnp.where(shown < draw(), half_width, -1.0), colour)


def _arcs(draw: Draws) -> Arcs:
    return Arcs(
        centre=draw(NUM_ARCS, 2),
        radius=draw(NUM_ARCS, low=0.05, high=0.12),
        half_width=jnp.where(draw(NUM_ARCS) < 0.5, draw(NUM_ARCS, low=0.005, high=0.010), -1.0),
        direction=unit(draw(NUM_ARCS, high=2 * np.pi)),
        cosine=draw(NUM_ARCS, low=0.3, high=0.8),
        colour=rgb(draw(NUM_ARCS), draw(NUM_ARCS, low=0.1, high=0.9), draw(NUM_ARCS, low=0.2, high=1.0)),
    )


def _bars(draw: Draws, instances: Instances) -> Strokes:
    """Bars aimed at instances; one that would cover too much is taken out later."""
    preference = jnp.where(instances.present[None, :], draw(NUM_BARS, MAX_INSTANCES), -1.0)
    target = jnp.argmax(preference, axis=1)
    offset = draw(NUM_BARS, 2, low=-0.6, high=0.6) * instances.radius[target][:, None]
    along = unit(draw(NUM_BARS, high=2 * np.pi))
    back, ahead = draw(NUM_BARS, 2, low=0.1, high=0.4).T
    middle = instances.centre[target] + offset
    half_width = jnp.where(draw(NUM_BARS) < 0.5, draw(NUM_BARS, low=0.014, high=0.034), -1.0)
    colour = rgb(draw(NUM_BARS), draw(NUM_BARS, low=0.1, high=0.8), draw(NUM_BARS, low=0.15, high=0.95))
    return Strokes(middle - back[:, None] * along, middle + ahead[:, None] * along, half_width, colour)


def _colours(draw: Draws, background: Float[Array, "2 3"]) -> tuple[Float[Array, "m 3"], Float[Array, "m 3"]]:
    """Fill and outline: for each instance the first candidate that stands off both background colours."""
    shape = (_NUM_COLOURS, MAX_INSTANCES)
    candidates = rgb(draw(*shape), draw(*shape, low=0.55, high=0.95), draw(*shape, low=0.55, high=1.0))
    difference = candidates[:, :, None, :] - background[None, None, :, :]
    stand_off = jnp.min(jnp.sqrt(jnp.sum(difference**2, axis=-1)), axis=-1)
    chosen = jnp.argmax(jnp.minimum(stand_off, 0.5), axis=0)
    fill = jnp.take_along_axis(candidates, chosen[None, :, None], axis=0)[0]
    dark_ground = jnp.mean(background) < 0.45
    return fill, jnp.where(dark_ground, 0.45 * fill + 0.55, 0.4 * fill)


def _instances(
    draw: Draws, class_idx: Int[Array, " m"], present: Bool[Array, " m"], background: Float[Array, "2 3"]
) -> tuple[Instances, Float[Array, "m 2"]]:
    """The figures in a random painting order, some overlapping; and the widest placement found for them."""
    slot = jnp.argsort(draw(MAX_INSTANCES)).astype(jnp.int32)
    class_idx, present = class_idx[slot], present[slot]

    low, high = jnp.asarray(_RADIUS_RANGE, jnp.float32)[jnp.sum(present, dtype=jnp.int32) - 1]
    radius = low + (high - low) * draw(MAX_INSTANCES)
    margin = 0.95 * radius[None, :, None]
    placements = margin + (1.0 - 2.0 * margin) * draw(_NUM_PLACEMENTS, MAX_INSTANCES, 2)
    ratio = jax.vmap(closeness, in_axes=(0, None, None))(placements, radius, present)
    # The first placement that is spread out enough; how much is enough varies, so that some scenes overlap.
    centre = placements[jnp.argmax(jnp.minimum(ratio, draw(low=0.42, high=0.95)))]
    widest = placements[jnp.argmax(ratio)]

    angle = draw(MAX_INSTANCES, high=2 * np.pi)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    stretch, shear = draw(MAX_INSTANCES, low=0.88, high=1.14), draw(MAX_INSTANCES, low=-0.12, high=0.12)
    # [[1/stretch, -shear], [0, stretch]] @ [[cos, sin], [sin, -cos]]: turned, y up, stretched at constant
    # area.
    rows = [
        [cos / stretch - shear * sin, sin / stretch + shear * cos],
        [stretch * sin, -stretch * cos],
    ]
    fill, outline = _colours(draw, background)
    strength = jnp.where(draw(MAX_INSTANCES) < 0.4, draw(MAX_INSTANCES, low=0.15, high=0.4), 0.0)
    pattern = jnp.stack([strength, draw(MAX_INSTANCES, low=1.5, high=3.5), draw(MAX_INSTANCES)], axis=-1)
    matrix = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    return Instances(slot, present, class_idx, centre, radius, matrix, fill, outline, pattern), widest


def layout(key: Key[Array, ""], class_idx: Int[Array, " m"], present: Bool[Array, " m"]) -> Layout:
    """Draws everything about one scene.

    Args:
        key: a random key.
        class_idx: the class of every slot, `[m]`, in range.
        present: which slots are filled, `[m]`, at least one.
    """
    background_key, clutter_key, instance_key = jax.random.split(key, 3)
    background = _background(Draws(background_key, 1024))
    clutter = Draws(clutter_key, 256)
    instances, widest = _instances(Draws(instance_key, 384), class_idx, present, background.colours)
    instances, inside, hidden = unhidden(instances, widest)
    bars = accepted_bars(_bars(clutter, instances), instances, inside, hidden)
    return Layout(
        background=background,
        sticks=_sticks(clutter),
        arcs=_arcs(clutter),
        instances=instances,
        bars=bars,
        light=unit(clutter(low=-2.6, high=-0.6)),
    )

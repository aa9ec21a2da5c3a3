"""Figures at given places, in colours that have a name, plain or striped: what clips, captions and questions show.

Contract: grounds are greyer than those of `scene`, so that a named colour stands off all of them; nothing lies in front
of the figures, sticks, dots and arcs lie behind them. The ground, the clutter, turns and shear depend on the key alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxcam.scenes.draws import Draws, rgb
from jaxcam.scenes.layout import layout
from jaxcam.scenes.parts import MAX_INSTANCES, Layout

COLOUR_NAMES: tuple[str, ...] = ("red", "yellow", "green", "blue", "purple", "white")
"""The colours that captions and questions name."""
# The lowest and the highest hue, saturation and value of each, in the order of the names.
_LOWEST = np.array(
    [[0.975, 0.8, 0.75], [0.14, 0.8, 0.85], [0.31, 0.7, 0.55], [0.58, 0.75, 0.7], [0.77, 0.6, 0.65], [0, 0, 0.94]],
    np.float32,
)
_HIGHEST = np.array(
    [[1.01, 0.95, 0.95], [0.165, 0.95, 1.0], [0.38, 0.95, 0.85], [0.65, 0.95, 1.0], [0.83, 0.85, 0.9], [1, 0.04, 1.0]],
    np.float32,
)


def staged(
    key: Key[Array, ""],
    class_idx: Int[Array, " m"],
    present: Bool[Array, " m"],
    *,
    centre: Float[Array, "m 2"],
    radius: Float[Array, " m"],
) -> Layout:
    """A layout with figures at given places, by slots `[m]`, and nothing in front of them."""
    plan = layout(key, class_idx, present)
    slot = plan.instances.slot
    instances = plan.instances._replace(centre=centre[slot], radius=radius[slot])
    return plan._replace(instances=instances, bars=plan.bars._replace(half_width=-jnp.ones_like(plan.bars.half_width)))


def dressed(plan: Layout, draw: Draws, colour: Int[Array, " m"], striped: Bool[Array, " m"]) -> Layout:
    """The layout with its figures in named colours, plain or striped, both by slots `[m]`, before a greyish ground."""
    slot = plan.instances.slot
    low, high = jnp.asarray(_LOWEST)[colour], jnp.asarray(_HIGHEST)[colour]
    hue, saturation, value = (low + (high - low) * draw(MAX_INSTANCES, 3)).T
    fill = rgb(hue, saturation, value)[slot]
    strength = jnp.where(striped, draw(MAX_INSTANCES, low=0.55, high=0.7), 0.0)
    stripes = jnp.stack([strength, draw(MAX_INSTANCES, low=1.7, high=2.3), draw(MAX_INSTANCES)], axis=-1)

    grounds = plan.background.colours
    grey = jnp.mean(grounds, axis=-1, keepdims=True)
    grounds = 0.05 + 0.7 * (grey + 0.3 * (grounds - grey))
    dark = jnp.mean(grounds) < 0.45
    outline = jnp.where(dark, 0.45 * fill + 0.55, 0.4 * fill)
    instances = plan.instances._replace(colour=fill, outline=outline, pattern=stripes[slot])
    return plan._replace(instances=instances, background=plan.background._replace(colours=grounds))


def distinct(draw: Draws, num: int, count: int) -> Int[Array, " {count}"]:
    """`count` different ones of 0 to num - 1."""
    return draw.order(num)[:count]


def padded(values: Array, fill: int) -> Array:
    """`[n, ...]` -> `[m, ...]`, with the slots that are left filled with one number."""
    rest = jnp.full((MAX_INSTANCES - values.shape[0], *values.shape[1:]), fill, values.dtype)
    return jax.lax.concatenate([values, rest], 0)

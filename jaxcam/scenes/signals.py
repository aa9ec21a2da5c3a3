"""Series: short patterns of one kind at known times, in drift and noise.

Contract: deterministic from the key, as pictures are. Kind, times, channels, heights and signs are drawn independently;
they do not depend on the length, noise does. Every pattern is 0 outside of its interval and reaches about 1 in it,
before it is scaled: its height is at least 6 times the standard deviation of the noise. Drift (a line and slow waves)
and outliers (single samples) are the same for all kinds.
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

MAX_PATTERNS = 2
MIN_LENGTH, MAX_LENGTH, MAX_CHANNELS = 64, 65536, 64
_OUTLIERS, _WAVES = 3, 2
_TURN = 2 * np.pi
_Phase = Float[Array, "..."]


def _bump(u: _Phase) -> _Phase:
    return 0.5 - 0.5 * jnp.cos(_TURN * u)


def _plateau(u: _Phase) -> _Phase:
    return jnp.clip(8.0 * jnp.minimum(u, 1.0 - u), 0.0, 1.0)


def _ramp(u: _Phase) -> _Phase:
    return u  # and drops at once


def _doublet(u: _Phase) -> _Phase:
    return jnp.sin(_TURN * u)


def _burst(u: _Phase) -> _Phase:
    return jnp.sin(_TURN * 4.0 * u) * jnp.sin(np.pi * u)


def _chirp(u: _Phase) -> _Phase:
    # From 1 turn an interval to 7.
    return jnp.sin(_TURN * (u + 3.0 * u * u)) * _plateau(u)


def _ringing(u: _Phase) -> _Phase:
    return jnp.exp(-4.0 * u) * jnp.cos(_TURN * 4.0 * u)


def _comb(u: _Phase) -> _Phase:
    return jnp.sin(np.pi * 3.0 * u) ** 4  # three humps on one side


_PATTERNS: dict[str, Callable[[_Phase], _Phase]] = {
    "bump": _bump,
    "plateau": _plateau,
    "ramp": _ramp,
    "doublet": _doublet,
    "burst": _burst,
    "chirp": _chirp,
    "ringing": _ringing,
    "comb": _comb,
}
PATTERN_NAMES: tuple[str, ...] = tuple(_PATTERNS)
"""The patterns of series, by class."""


class Series(NamedTuple):
    """A series and the truth about it; `many` puts one more leading axis on every field.

    Attributes:
        values: `[t, d]`, float32, without a unit; noise has a standard deviation of 0.06 to 0.15.
        class_idx: `[]`, int32: index into `PATTERN_NAMES`: the kind of all its patterns.
        intervals: `[m, 2]`, int32: first sample and the one after the last of every pattern, in the order of time;
            zeros where there is none; m = 2.
        channels: `[m, d]`, bool: in which channels each pattern is, one or more; in none where there is none.
        masks: `[m, t]`, bool: the samples of every pattern.
    """

    values: Float[Array, "*batch t d"]
    class_idx: Int[Array, "*batch"]
    intervals: Int[Array, "*batch m 2"]
    channels: Bool[Array, "*batch m d"]
    masks: Bool[Array, "*batch m t"]


def pattern(class_idx: Int[Array, ""], u: Float[Array, "*points"]) -> Float[Array, "*points"]:
    """The pattern of a kind at the phases u, from 0 at the begin of its interval to 1 at its end; 0 elsewhere."""
    value = _bump(u)
    for i, one in enumerate(list(_PATTERNS.values())[1:], start=1):
        value = jnp.where(class_idx == i, one(u), value)
    return jnp.where((u >= 0.0) & (u < 1.0), value, 0.0)


def _drift(draw: Draws, time: Float[Array, "t 1"], num_channels: int) -> Float[Array, "t d"]:
    slope, total = draw(1, num_channels, low=-1.2, high=1.2), draw(1, num_channels, low=-0.5, high=0.5)
    total = total + slope * time
    for _ in range(_WAVES):
        turns, phase = draw(1, num_channels, low=0.3, high=1.8), draw(1, num_channels)
        total = total + draw(1, num_channels, low=0.0, high=0.5) * jnp.sin(_TURN * (turns * time + phase))
    return total


@partial(jax.jit, static_argnames=("length", "num_channels"))
def _series(key: Key[Array, ""], length: int, num_channels: int) -> Series:
    content_key, drift_key, noise_key = jax.random.split(key, 3)
    draw = Draws(content_key, 32 + 8 * num_channels)
    class_idx = draw.choice(len(PATTERN_NAMES))
    both = draw() < 0.5
    duration = jnp.floor(draw(MAX_PATTERNS, low=0.19, high=0.31) * length)
    # One has the whole series, of two each has a half.
    room = jnp.where(both, length // 2, length).astype(jnp.float32) - duration
    begin = jnp.floor(draw(MAX_PATTERNS) * (room + 1.0)) + jnp.asarray([0.0, length // 2], jnp.float32)
    present = jnp.stack([jnp.array(True), both])
    intervals = jnp.stack([begin, begin + duration], axis=-1).astype(jnp.int32)
    intervals = jnp.where(present[:, None], intervals, 0)

    wanted = draw(MAX_PATTERNS, num_channels)
    first = wanted == jnp.max(wanted, axis=1, keepdims=True)
    channels = ((wanted > 0.5) | first) & present[:, None]
    height = draw(MAX_PATTERNS, num_channels, low=1.0, high=1.6)
    sign = jnp.where(draw(MAX_PATTERNS, num_channels) < 0.5, -1.0, 1.0)
    sample = jnp.arange(length, dtype=jnp.int32)
    masks = (sample[None, :] >= intervals[:, :1]) & (sample[None, :] < intervals[:, 1:])
    u = (sample[None, :].astype(jnp.float32) + 0.5 - begin[:, None]) / duration[:, None]
    shapes = jnp.where(masks, pattern(class_idx, u), 0.0)
    total = jnp.sum(shapes[:, :, None] * jnp.where(channels, height * sign, 0.0)[:, None, :], axis=0)

    time = (sample.astype(jnp.float32)[:, None] + 0.5) / length
    total = total + _drift(Draws(drift_key, 16 * num_channels), time, num_channels)
    deviation = draw(low=0.06, high=0.15)
    total = total + deviation * jax.random.normal(noise_key, (length, num_channels), jnp.float32)
    for _ in range(_OUTLIERS):
        at, channel, size = draw.choice(length), draw.choice(num_channels), draw(low=-1.5, high=1.5)
        there = (sample == at)[:, None] & (jnp.arange(num_channels, dtype=jnp.int32) == channel)[None, :]
        total = total + jnp.where(there, size, 0.0)
    return Series(total, class_idx, intervals, channels, masks)


def series(key: Key[Array, ""] | UInt32[Array, "2"] | int, *, length: int = 128, num_channels: int = 3) -> Series:
    """A series with one or two patterns of one kind; the label is the kind.

    Args:
        key: a random key, or a seed.
        length: the number of samples t, static.
        num_channels: d, static.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: length or num_channels is out of range.
    """
    check_integer("length", length, low=MIN_LENGTH, high=MAX_LENGTH)
    check_integer("num_channels", num_channels, low=1, high=MAX_CHANNELS)
    return _series(checked_key(key), int(length), int(num_channels))

"""Random numbers, drawn at once and dealt out, and what is made of them: choices, orders, colours, directions.

Contract: numbers are float32 and int32 by name, so that what is drawn does not depend on jax_enable_x64. Rooms draw
everything before anything is rasterised.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key


class Draws:
    """Uniform numbers, dealt out one after another from a single draw: far fewer calls to compile and run."""

    def __init__(self, key: Key[Array, ""], num: int) -> None:
        self._values = jax.random.uniform(key, (num,), jnp.float32)
        self._next = 0

    def choice(self, num: int) -> Int[Array, ""]:
        """One of 0 to num - 1."""
        # Rounding may reach num itself.
        return jnp.minimum((self() * num).astype(jnp.int32), num - 1)

    def order(self, num: int) -> Int[Array, " {num}"]:
        """The numbers 0 to num - 1 in a random order."""
        return jnp.argsort(self(num)).astype(jnp.int32)

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Array, "..."]:
        """The next numbers, from low to high."""
        start, self._next = self._next, self._next + int(np.prod(shape))
        if self._next > self._values.shape[0]:
            raise IndexError(f"{self._next} numbers were asked for, {self._values.shape[0]} were drawn")
        return low + (high - low) * self._values[start : self._next].reshape(shape)


def rgb(hue: Float[Array, "*n"], saturation: Float[Array, "*n"], value: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """HSV -> RGB, all in [0, 1]; the hue is periodic."""
    channels = [jnp.clip(jnp.abs((hue + shift) % 1.0 * 6.0 - 3.0) - 1.0, 0.0, 1.0) for shift in (0.0, 2 / 3, 1 / 3)]
    return jnp.stack([value * (1.0 - saturation + saturation * channel) for channel in channels], axis=-1)


def unit(angle: Float[Array, "*n"]) -> Float[Array, "*n 2"]:
    """The direction of an angle."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

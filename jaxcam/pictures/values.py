"""What a network was given, of any range and number of channels -> something that can be drawn.

Contract: one example, channels last or none. Numbers in [0, 1] are drawn as they are and 8-bit ones as n / 255; all
others (a normalised picture, a scan) from their lowest to their highest, or between `limits`. One channel is grey,
three are colours, and of any other number the mean is drawn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float

from jaxcam.checks import check_number
from jaxcam.images.picture import SLACK, checked_heat


def numbers(values: Any, axes: str, *, name: str) -> Float[np.ndarray, "..."]:
    """The example as float64 `[*axes, d]`, finite; d is 1 where it has no axis of channels.

    Args:
        values: `[*axes]` or `[*axes, d]`, of real numbers of any type.
        axes: the names of the axes of positions: "t", "D, H, W".
        name: of the argument.

    Raises:
        TypeError: it is no concrete array of numbers.
        ValueError: it has another number of axes, is empty, or holds NaN or infinity.
    """
    if isinstance(values, Tracer) or not isinstance(values, np.ndarray | Array):
        kind = "a traced array" if isinstance(values, Tracer) else type(values).__name__
        raise TypeError(f"{name} must be a concrete array [{axes}] or [{axes}, d] but is {kind}: draw outside of jit")
    if not any(jnp.issubdtype(values.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"{name} must be real numbers but its dtype is {values.dtype}")
    num_axes = len(axes.split(","))
    if values.ndim not in (num_axes, num_axes + 1):
        hint = f": pass one of the batch, {name}[0]" if values.ndim == num_axes + 2 else ""
        raise ValueError(f"{name} must be [{axes}] or [{axes}, d] but is {list(values.shape)}{hint}")
    if values.size == 0:
        raise ValueError(f"{name} must hold values but is empty: its shape is {list(values.shape)}")
    found = np.asarray(values).astype(np.float64)
    if not np.isfinite(found).all():
        count = int(np.count_nonzero(~np.isfinite(found)))
        raise ValueError(f"{name} must be finite but holds {count} values that are NaN or infinite")
    return found if values.ndim == num_axes + 1 else found[..., np.newaxis]


def colours(
    values: Any, axes: str, *, name: str, limits: Sequence[int | float] | None = None
) -> Float[np.ndarray, "..."]:
    """The example as a picture: float32 `[*axes, 3]` in [0, 1].

    Raises:
        TypeError, ValueError: as `numbers`; limits are not two growing numbers.
    """
    found = numbers(values, axes, name=name)
    low, high = (found.min(), found.max()) if limits is None else _checked(limits)
    if limits is None and values.dtype == np.uint8:
        low, high = 0, 255
    elif limits is None and low >= -SLACK and high <= 1 + SLACK:
        low, high = 0, 1
    if found.shape[-1] != 3:
        found = found.mean(-1, keepdims=True)
    unit = np.clip((found - low) / ((high - low) or 1), 0, 1).astype(np.float32)
    return np.broadcast_to(unit, (*unit.shape[:-1], 3))


def heat_of(heatmap: Any, axes: str, spatial: tuple[int, ...], *, like: str) -> Float[np.ndarray, "..."]:
    """The heatmap as float32 `[*axes]` in [0, 1], of the size of what it lies on.

    Raises:
        TypeError, ValueError: as `checked_heat`; it is of another size.
    """
    heat = checked_heat(heatmap, name="heatmap", axes=axes)
    if heat.shape != spatial:
        raise ValueError(
            f"heatmap must have the size of {like}, {list(spatial)}, but is {list(heat.shape)}: take "
            f"jaxcam.maps.heatmap(cam_map, {spatial})"
        )
    return heat


def _checked(limits: Any) -> tuple[float, float]:
    if not isinstance(limits, Sequence) or isinstance(limits, str) or len(limits) != 2:
        raise ValueError(f"limits must be two numbers, the lower one first, but is {limits!r}")
    low, high = (check_number("limits", limit) for limit in limits)
    check_number("limits[1]", high, above=low)
    return low, high

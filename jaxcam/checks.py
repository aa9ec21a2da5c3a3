"""Checks of arguments that all rooms share: static facts only, and one message style.

"<argument> must be <what was expected> but is <what came>: <what to do>". The wrong kind is a TypeError, the wrong
value a ValueError. Each check returns the value, so that it can stand where the value is used.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["check_floating", "check_integer", "check_key", "check_number", "check_numbers", "is_integer"]

_Limit = int | float | None


def is_integer(value: object) -> bool:
    """Whether it is a whole number of Python or NumPy. True and False are none: they are slips, not counts."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_integer(name: str, value: object, *, low: int | None = None, high: int | None = None, hint: str = "") -> int:
    """A whole number from `low` to `high`.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is out of range.
    """
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer but is {value!r}{hint}")
    number = int(value)  # type: ignore[call-overload, arg-type]
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{name} must be {_limits(low, high)} but is {number}{hint}")
    return number


def check_number(
    name: str,
    value: object,
    *,
    low: _Limit = None,
    high: _Limit = None,
    above: _Limit = None,
    below: _Limit = None,
    hint: str = "",
) -> float:
    """A finite number from `low` to `high`, or beyond `above` and `below`, which are not in the range.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number but is {value!r}{hint}")
    number = float(value)
    outside = (low is not None and number < low) or (high is not None and number > high)
    outside |= (above is not None and number <= above) or (below is not None and number >= below)
    if not np.isfinite(number) or outside:
        limits = _limits(low, high, above, below) or "finite"
        raise ValueError(f"{name} must be {limits} but is {value}{hint}")
    return number


def check_numbers(name: str, values: Any, **limits: Any) -> list[float]:
    """One or more such numbers, in a sequence or an array with one axis.

    Raises:
        TypeError: they are none.
        ValueError: there is none, or one is out of range.
    """
    if isinstance(values, str) or not hasattr(values, "__len__") or np.ndim(values) != 1:
        raise TypeError(f"{name} must be a list of numbers but is {values!r}")
    if not len(values):
        raise ValueError(f"{name} is empty: give one number or more")
    return [check_number(name, each, **limits) for each in values]


def check_floating(name: str, array: Any, hint: str = "") -> None:
    """An array of floating-point numbers.

    Raises:
        TypeError: it is no array, or one of other numbers.
    """
    if not (hasattr(array, "dtype") and hasattr(array, "shape")):
        raise TypeError(f"{name} must be an array but is {type(array).__name__}{hint}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point but its dtype is {array.dtype}{hint}")


def check_key(name: str, key: Any) -> None:
    """One random key.

    Raises:
        TypeError: it is none, as `jax.random.PRNGKey` of old makes, or several.
    """
    is_key = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key or key.shape != ():
        raise TypeError(f"{name} must be one random key, as jax.random.key(0) makes it, but is {key!r}")


def _limits(low: _Limit, high: _Limit, above: _Limit = None, below: _Limit = None) -> str:
    limits = {"at least": low, "above": above, "at most": high, "below": below}
    return " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)

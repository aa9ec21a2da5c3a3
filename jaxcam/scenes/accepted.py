"""What the functions of `jaxcam.scenes` accept, and the errors for everything else."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jaxcam.scenes.figures import CLASS_NAMES

MIN_SIZE, MAX_SIZE = 32, 2048


def checked_size(size: object) -> None:
    """Refuses a size that is not a Python int in range."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise TypeError(f"size must be a Python int, the side of the picture in pixels; got {type(size).__name__}")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size must be from {MIN_SIZE} to {MAX_SIZE} pixels; got {size}")


def checked_num(num: object) -> None:
    """Refuses a number of scenes that is not a positive Python int."""
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num must be a Python int, the number of scenes; got {type(num).__name__}")
    if num < 1:
        raise ValueError(f"num must be at least 1; got {num}")


def checked_key(key: object, name: str = "key") -> Array:
    """A typed random key, from one or from a seed (whose key does not depend on JAX's settings)."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not 0 <= key < 2**32:
            raise ValueError(f"{name} must be a seed from 0 to 2**32 - 1 or a random key; got {key}")
        return jax.random.key(np.uint32(key), impl="threefry2x32")
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape != ():
            raise ValueError(f"{name} must be one key; got an array of keys of shape {key.shape}: use jax.vmap")
        return key
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(key, impl="threefry2x32")
    raise TypeError(f"{name} must be a seed (an int) or a key from jax.random.key; got {type(key).__name__}")


def checked_int(value: object, name: str, low: int, high: int) -> Array | None:
    """An int32 scalar from low to high; the range of a traced value is not checked."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer | np.ndarray | jax.Array):
        raise TypeError(f"{name} must be an integer; got {type(value).__name__}")
    if isinstance(value, np.ndarray | jax.Array):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name} must be an integer; got an array of {value.dtype}")
        if value.shape != ():
            raise ValueError(f"{name} must be one integer; got an array of shape {value.shape}: use jax.vmap")
    if not isinstance(value, Tracer) and not low <= int(value) <= high:
        raise ValueError(f"{name} must be from {low} to {high}; got {int(value)}")
    return jnp.asarray(value).astype(jnp.int32)


def checked_classes(classes: object) -> Array | None:
    """Two different classes, `int32 [2]`; traced ones are not checked."""
    if classes is None:
        return None
    if not isinstance(classes, tuple | list):
        raise TypeError(f"classes must be a pair of integers; got {type(classes).__name__}")
    if len(classes) != 2:
        raise ValueError(f"classes must be a pair of two classes; got {len(classes)}")
    checked = [checked_int(c, f"classes[{i}]", 0, len(CLASS_NAMES) - 1) for i, c in enumerate(classes)]
    if any(c is None for c in checked):
        raise TypeError("classes must be a pair of integers; got None in it")
    if not any(isinstance(c, Tracer) for c in classes) and int(classes[0]) == int(classes[1]):
        raise ValueError(f"classes must be two different classes; got {int(classes[0])} twice: use scene for one")
    return jnp.stack([c for c in checked if c is not None])

"""What the functions of `jaxcam.scenes` accept, and the errors for everything else."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jaxcam.checks import check_integer, is_integer
from jaxcam.scenes.figures import CLASS_NAMES

MIN_SIZE, MAX_SIZE = 32, 2048


def checked_key(key: object, name: str = "key") -> Array:
    """A typed random key, from one or from a seed (whose key does not depend on JAX's settings)."""
    if is_integer(key):
        seed = check_integer(name, key, low=0, high=2**32 - 1)
        return jax.random.key(np.uint32(seed), impl="threefry2x32")
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
    if isinstance(value, np.ndarray | jax.Array):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name} must be an integer but is an array of {value.dtype}")
        if value.shape != ():
            raise ValueError(f"{name} must be one integer but has the shape {value.shape}: use jax.vmap")
    if not isinstance(value, Tracer):
        check_integer(name, int(value) if isinstance(value, np.ndarray | jax.Array) else value, low=low, high=high)
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

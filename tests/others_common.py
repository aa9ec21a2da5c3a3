"""What the models of other people's packages have in common: what a case is, and numbers for their parameters."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CLASSES = 5


class Case(NamedTuple):
    """One of somebody's models."""

    package: str
    """As it is installed; for a checkout the name of its package."""
    module: str
    """What is imported."""
    make: object
    grid: str
    """What `jaxcam.layers` says of the default layer."""
    place: object
    """Takes the tapped value to `[i, j, k]`."""
    lines: int
    """How many lines it takes from the model to a map."""
    around: object = contextlib.nullcontext
    """The context that the model is made and called in."""


def filled(spec, seed=0):
    """Random numbers where a model has parameters."""
    random = np.random.default_rng(seed)

    def leaf(like):
        if not jnp.issubdtype(like.dtype, jnp.floating):
            return jnp.zeros(like.shape, like.dtype)
        scale = 0.3 if len(like.shape) < 2 else np.prod(like.shape[1:]) ** -0.5
        return jnp.asarray(random.normal(size=like.shape) * scale, like.dtype)

    return jax.tree.map(lambda x: leaf(x) if isinstance(x, jax.ShapeDtypeStruct) else x, spec)


def statistics_positive(weights):
    """Variances are no negative numbers."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: abs(x) if "var'" in jax.tree_util.keystr(path) else x, weights
    )


def images(*shape):
    return np.random.default_rng(7).normal(size=(1, *shape)).astype(np.float32)


def tokens(value, first=0):
    """`[1, 16 and what is before, k]` as rows and columns."""
    return value[0, first:].reshape(4, 4, -1)


def after_one(value):
    return tokens(value, 1)

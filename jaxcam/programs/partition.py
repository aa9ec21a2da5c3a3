"""A model as an argument of a compiled function: its arrays are traced, everything else is static."""

from typing import Any, NamedTuple

import jax
import numpy as np


class Static(NamedTuple):
    """What the compiled program depends on: the structure and the leaves that are not arrays, hashable."""

    structure: Any
    leaves: tuple[Any, ...]


class _Array:
    """Marks the place of an array among the static leaves."""


def partitioned(model: Any) -> tuple[Static, list[Any]]:
    """The static part and the arrays of a pytree.

    Leaves that are not arrays, such as the activation function of an equinox.Module, are static. Closing over the
    model instead would turn its parameters into constants of the program.

    Raises:
        TypeError: the model is not a pytree, or a leaf is neither an array nor hashable.
    """
    leaves, structure = jax.tree.flatten(model)
    if len(leaves) == 1 and leaves[0] is model:
        # As one static leaf it would be compiled in with the arrays that it holds now, and never looked at again.
        raise TypeError(
            f"model of type {type(model).__name__} is not a pytree: make it an nnx.Module or an equinox.Module, or "
            "register its class with jax.tree_util.register_dataclass"
        )
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    static = Static(structure, tuple(_Array if known else leaf for leaf, known in zip(leaves, is_array, strict=True)))
    try:
        hash(static)
    except TypeError as error:
        raise TypeError(
            f"model of type {type(model).__name__} holds something that is neither an array nor hashable ({error}): "
            "keep only arrays and hashable values (functions, numbers, tuples) in it"
        ) from None
    return static, [leaf for leaf, known in zip(leaves, is_array, strict=True) if known]


def merged(static: Static, arrays: list[Any]) -> Any:
    """The pytree that `partitioned` took apart."""
    rest = iter(arrays)
    return jax.tree.unflatten(static.structure, [next(rest) if leaf is _Array else leaf for leaf in static.leaves])

"""The inputs that were explained, for as long as somebody else keeps them.

Contract: nothing is kept alive, and nothing waits for a device. What was written over meanwhile, as the buffer of a
loader is, is there no more: of arrays that can be written to some numbers are remembered.
"""

import weakref
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

__all__ = ["Lent"]

_NUM_REMEMBERED = 1024


class Lent:
    """Inputs, one array or a pytree of several; not part of what is pickled."""

    def __init__(self, inputs: Any = None) -> None:
        leaves, self._structure = jax.tree.flatten(inputs)
        known = all(isinstance(leaf, np.ndarray | jax.Array) and not isinstance(leaf, Tracer) for leaf in leaves)
        self._leaves = [(weakref.ref(leaf), _sample(leaf)) for leaf in leaves] if known else []

    def back(self) -> Any | None:
        """The inputs as they were explained; None if one of them is gone, or was changed."""
        leaves: list[Any] = []
        for reference, sample in self._leaves:
            leaf = reference()
            if leaf is None or _sample(leaf) != sample:
                return None
            leaves.append(leaf)
        return jax.tree.unflatten(self._structure, leaves) if leaves else None

    def __reduce__(self) -> tuple[type["Lent"], tuple[()]]:
        return Lent, ()


def _sample(leaf: Any) -> bytes:
    """Some of the numbers of what can be written to, at even distances: a microsecond for a hundred of them."""
    if not isinstance(leaf, np.ndarray):
        return b""
    places = np.linspace(0, leaf.size - 1, min(leaf.size, _NUM_REMEMBERED)).astype(int)
    return leaf.flat[places].tobytes()

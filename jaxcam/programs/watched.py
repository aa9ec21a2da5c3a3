"""Functions of the user's that are a part of something which is compiled: a score, a grid, a method.

A compiled program keeps what they were when it was traced. So it is seen what they are called with at that time, and on
every later call they are traced again, alone, with the like: that is cheap, and tells whether the program still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.programs.identity import identity, reads_nothing
from jaxcam.programs.sameness import fingerprint
from jaxcam.programs.specs import spec_of
from jaxcam.programs.traced import Traced

__all__ = ["Call", "Watched", "calls", "watched"]


@dataclass(frozen=True)
class _Head:
    """In the place of a head that was an argument: another one of such activations and such logits."""

    argument: jax.ShapeDtypeStruct
    output: jax.ShapeDtypeStruct

    def __call__(self, activations: Any) -> Any:
        return jnp.broadcast_to(activations.sum(), self.output.shape).astype(self.output.dtype)


class Watched:
    """A function that tells what it is called with, to whoever watches."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Watches the function."""
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        seen = _seen.get()
        if seen is not None:
            seen.append((self, Call.of(args, kwargs)))
        return self.function(*args, **kwargs)


@dataclass(frozen=True)
class Call:
    """What a function was called with: specs of arrays, stand-ins of heads, plain values, and of all else the type."""

    leaves: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, args: Any, kwargs: Any) -> Call:
        """Holds none of the arrays."""
        leaves, structure = jax.tree.flatten((args, kwargs), is_leaf=lambda x: isinstance(x, Traced))
        return cls(tuple(map(_held, leaves)), structure)

    @property
    def is_known(self) -> bool:
        """Whether the function can be called again with the like: not where it was given a model."""
        return all(isinstance(leaf, _HELD) for leaf in self.leaves)

    def fingerprint(self, function: Callable[..., Any]) -> Hashable:
        """What the function computes now if it is called so."""
        if not self.is_known or reads_nothing(function):
            return identity(function)
        places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]

        def called(*arrays: Any) -> Any:
            leaves = [*self.leaves]
            for place, array in zip(places, arrays, strict=True):
                leaves[place] = array
            args, kwargs = jax.tree.unflatten(self.structure, leaves)
            return function(*args, **kwargs)

        try:
            return fingerprint(called, *(self.leaves[place] for place in places))
        except Exception:  # whatever a method raises for a head that is none
            if not any(isinstance(leaf, _Head) for leaf in self.leaves):
                raise
            return identity(function)


Seen = list[tuple[Watched, Call]]

_seen: ContextVar[Seen | None] = ContextVar("seen", default=None)
_HELD = (jax.ShapeDtypeStruct, _Head, bool, int, float, str, type(None))


def watched(function: Any) -> Any:
    """The function, watched if it is the user's; what is no function, or one of ours, as it is."""
    ours = getattr(function, "__module__", None) or ""
    if not callable(function) or isinstance(function, Watched) or ours.split(".")[0] == "jaxcam":
        return function
    return Watched(function)


@contextmanager
def calls() -> Generator[Seen]:
    """Collects the calls of watched functions inside."""
    seen: Seen = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def _held(leaf: Any) -> Any:
    if isinstance(leaf, Traced) and isinstance(leaf.output, jax.ShapeDtypeStruct):
        return _Head(leaf.argument, leaf.output)
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return spec_of(leaf)
    return leaf if isinstance(leaf, _HELD) else type(leaf)

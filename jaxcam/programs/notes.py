"""Notes: what a function says beside its result, for whoever watches while it is traced.

A method returns a map, and knows more: whether the score had a gradient at all, whether its alphas can be trusted. It
notes that, and `explain`, which watches, makes a status of it; anybody else gets the map and pays nothing.

    def slope(f, x):
        g = jax.grad(f)(x)
        note("flat", lambda: g == 0)
        return g

    with watch() as notes:
        slope(jnp.sin, 1.0)
    notes["flat"]  # [Array(False)]

What is noted inside of a `vmap`, a loop or a `jit` that the function opens itself has no value outside of it, and is
left out: nothing leaks.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array

__all__ = ["Notes", "note", "watch"]

Notes = dict[str, list[Array]]
"""By name, in the order in which they were made."""

_watched: ContextVar[tuple[Notes, Any] | None] = ContextVar("watched", default=None)


@contextmanager
def watch() -> Generator[Notes]:
    """Collects what is noted inside; of two that watch, the inner one sees it."""
    notes: Notes = {}
    token = _watched.set((notes, get_opaque_trace_state()))
    try:
        yield notes
    finally:
        _watched.reset(token)


def note(name: str, value: Callable[[], Array]) -> None:
    """Notes a value, which is computed only where somebody watches at this level of tracing."""
    watching = _watched.get()
    if watching is not None and watching[1] == get_opaque_trace_state():
        watching[0].setdefault(name, []).append(value())

"""Many of what a generator draws, stacked."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam.checks import check_integer
from jaxcam.scenes.accepted import checked_key

_Drawn = TypeVar("_Drawn")
_CHUNK = 64
_VALUES = 2**22  # of a chunk


def many(draw: Callable[..., _Drawn], seed_or_key: Array | int, num: int, **options: int) -> _Drawn:
    """Many clips, series, volumes, captions or questions: `many(clip, 0, 100, size=32)`.

    Number i is the one of `jax.random.fold_in(key, i)` and does not depend on `num`: drawn in chunks of a fixed size in
    one compiled program, bit for bit the same for every `num`, and the one drawn alone up to float32 rounding.

    Args:
        draw: `clip`, `series`, `volume`, `caption` or `question`.
        seed_or_key: a seed, or a random key.
        num: how many, static.
        **options: those of `draw`, static.

    Returns:
        What `draw` returns, with a leading axis of length `num` on every field.

    Raises:
        TypeError: an argument is of the wrong kind, or an option is none of `draw`.
        ValueError: an argument is out of range.
    """
    if not callable(draw):
        raise TypeError(
            f"draw must be a function of a key but is {draw!r}: give scenes.clip, scenes.series or the like"
        )
    check_integer("num", num, low=1)
    key = checked_key(seed_or_key, "seed_or_key")
    one = partial(draw, **options)
    values = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(one, key)))
    chunk = max(1, min(_CHUNK, _VALUES // values))
    index = jnp.arange(-(-num // chunk) * chunk, dtype=jnp.uint32)
    drawn = _drawn(index, key, draw=draw, options=tuple(sorted(options.items())), chunk=chunk)
    return jax.tree.map(lambda leaf: leaf[:num], drawn)


@partial(jax.jit, static_argnames=("draw", "options", "chunk"))
def _drawn(
    index: Array, key: Array, *, draw: Callable[..., Any], options: tuple[tuple[str, int], ...], chunk: int
) -> Any:
    def one(i: Array) -> Any:
        return draw(jax.random.fold_in(key, i), **dict(options))

    drawn = jax.lax.map(jax.vmap(one), index.reshape(-1, chunk))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), drawn)

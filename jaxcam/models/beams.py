"""Decoding: from a network that says what the next word may be to sentences; greedily, or by beams.

Contract: a sentence is the ids `[l]`: start, its words, end, pads. `step` is of one example:
`(state, word) -> (state, logits [v])` for the word after it; states are pytrees of arrays. Everything may be jitted
and vmapped. log p of a sentence is the sum of log p of its words and of its end, each given those before it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcam.checks import check_integer
from jaxcam.scenes import END, PAD, START

Step = Callable[[Any, Int[Array, ""]], tuple[Any, Float[Array, " v"]]]
"""`(state, word) -> (state, logits of the next word)`."""


class Decoded(NamedTuple):
    """Sentences, the likeliest first.

    Attributes:
        words: `[*n, width, l]`, int32.
        log_probability: `[*n, width]`, natural logarithm; -inf where there are no more sentences.
    """

    words: Int[Array, "*n width l"]
    log_probability: Float[Array, "*n width"]


def greedy(step: Step, state: Any, *, length: int) -> Int[Array, " l"]:
    """The sentence whose every word is the likeliest after those before it; cut off at `length`.

    Raises:
        TypeError, ValueError: length is no integer of at least 2.
    """
    check_integer("length", length, low=2)

    def each(carry: tuple[Any, Array], _: None) -> tuple[tuple[Any, Array], Array]:
        state, word = carry
        state, logits = step(state, word)
        word = jnp.where(_is_over(word), PAD, logits.argmax().astype(jnp.int32))
        return (state, word), word

    start = jnp.asarray(START, jnp.int32)
    return jnp.concatenate([start[None], jax.lax.scan(each, (state, start), None, length=length - 1)[1]])


def beams(step: Step, state: Any, *, length: int, width: int) -> Decoded:
    """The likeliest sentences that are found when the `width` likeliest beginnings are kept after every word.

    Of width 1 it is `greedy`; with as many beginnings as there are it is the search through all sentences.

    Raises:
        TypeError, ValueError: length is no integer of at least 2, or width none of at least 1.
    """
    check_integer("length", length, low=2)
    check_integer("width", width, low=1)

    def each(carry: tuple[Any, Array, Array], at: Array) -> tuple[tuple[Any, Array, Array], None]:
        states, words, so_far = carry
        last = jax.lax.dynamic_index_in_dim(words, at, axis=1, keepdims=False)
        states, logits = jax.vmap(step)(states, last)
        # After its end a sentence goes on with pads, and becomes no less likely.
        only_pads = jnp.where(jnp.arange(logits.shape[1]) == PAD, 0, -jnp.inf).astype(logits.dtype)
        gains = jnp.where(_is_over(last)[:, None], only_pads[None], jax.nn.log_softmax(logits, axis=1))
        so_far, chosen = jax.lax.top_k((so_far[:, None] + gains).reshape(-1), width)
        origin, word = chosen // logits.shape[1], (chosen % logits.shape[1]).astype(jnp.int32)
        states, words = jax.tree.map(lambda x: x[origin], (states, words))
        return (states, jax.lax.dynamic_update_index_in_dim(words, word, at + 1, axis=1), so_far), None

    words = jnp.full((width, length), PAD, jnp.int32).at[:, 0].set(START)
    states = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (width, *x.shape)), state)
    dtype = jax.eval_shape(step, state, words[0, 0])[1].dtype
    # There is one beginning, not `width` of them.
    so_far = jnp.where(jnp.arange(width) == 0, 0, -jnp.inf).astype(dtype)
    (_, words, so_far), _ = jax.lax.scan(each, (states, words, so_far), jnp.arange(length - 1))
    return Decoded(words, so_far)


def _is_over(word: Array) -> Array:
    return (word == END) | (word == PAD)

"""The words of captions and questions, as numbers.

Contract: id i is `VOCABULARY[i]`; 0, 1 and 2 are the pad, the start and the end. Sentences are in lower case, their
words and the question mark separated by spaces. One vocabulary serves captions and questions; answers, which are
classes and no sentences, have their own: `ANSWERS`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxcam.checks import check_integer
from jaxcam.scenes.figures import CLASS_NAMES
from jaxcam.scenes.staging import COLOUR_NAMES

PAD: int = 0
"""The id of what fills a sentence up to its length."""
START: int = 1
"""The id of the mark before a caption's first word."""
END: int = 2
"""The id of the mark after a caption's last word."""
PLURALS: tuple[str, ...] = (
    "discs",
    "rings",
    "squares",
    "triangles",
    "stars",
    "crosses",
    "hearts",
    "crescents",
    "arrows",
    "fish",
)
RELATIONS: tuple[tuple[str, ...], ...] = (("left", "of"), ("right", "of"), ("above",), ("below",))
_OTHERS = ("a", "two", "three", "striped", "left", "right", "of", "above", "below")
_ASKING = ("what", "which", "how", "many", "colour", "figure", "is", "the", "?")
VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(("<pad>", "<start>", "<end>", *_OTHERS, *_ASKING, *COLOUR_NAMES, *CLASS_NAMES, *PLURALS))
)
"""The words of captions and questions; a word's id is its index."""
ANSWERS: tuple[str, ...] = (*COLOUR_NAMES, "one", "two", "three", "yes", "no", *CLASS_NAMES)
"""The answers to questions; an answer's class is its index."""

_NUMBERS = {word: i for i, word in enumerate(VOCABULARY)}


def number(word: str) -> int:
    """The id of a word of ours."""
    return _NUMBERS[word]


def numbers(words: tuple[str, ...]) -> Int[np.ndarray, " n"]:
    """The ids of words of ours, to be indexed by class, colour and so on."""
    return np.array([_NUMBERS[word] for word in words], np.int32)


def encode(sentence: str, *, length: int | None = None) -> Int[np.ndarray, " l"]:
    """The ids of a sentence's words, without start and end: int32 `[l]`.

    Args:
        sentence: words of `VOCABULARY` with spaces between them; a question mark may stand at the end of a word.
        length: with pads up to here; as many as there are words by default.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a word is not in the vocabulary, or there are more than `length`.
    """
    if not isinstance(sentence, str):
        raise TypeError(f"sentence must be a string but is {type(sentence).__name__}: to read ids use decode")
    words = sentence.lower().replace("?", " ?").split()
    unknown = [word for word in words if word not in _NUMBERS]
    if unknown:
        known = " ".join(word for word in VOCABULARY if not word.startswith("<"))
        raise ValueError(
            f"sentence must be made of words of scenes.VOCABULARY but has {', '.join(map(repr, unknown))}: use {known}"
        )
    ids = [_NUMBERS[word] for word in words]
    if length is not None:
        check_integer("length", length, low=len(ids), hint=f": the sentence has {len(ids)} words")
        ids += [PAD] * (length - len(ids))
    return np.array(ids, np.int32)


def decode(ids: Int[Array, " l"] | Int[np.ndarray, " l"]) -> str:
    """The sentence of the ids `[l]`, up to the first end, without start and pads.

    Raises:
        TypeError: the ids are no integers.
        ValueError: they are not one row, or one of them is that of no word.
    """
    found = np.asarray(ids)
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"ids must be integers but are {found.dtype}")
    if found.ndim != 1:
        raise ValueError(
            f"ids must be one row [l] but have the shape {list(found.shape)}: decode one sentence at a time"
        )
    if found.size and not (found.min() >= 0 and found.max() < len(VOCABULARY)):
        raise ValueError(f"ids must be from 0 to {len(VOCABULARY) - 1} but reach from {found.min()} to {found.max()}")
    words: list[str] = []
    for i in found.tolist():
        if i == END:
            break
        if i not in (PAD, START):
            words.append(VOCABULARY[i])
    return " ".join(words).replace(" ?", "?")


def joined(words: Int[Array, " n"], names: Array, *, length: int) -> tuple[Int[Array, " l"], Array]:
    """Words with gaps (-1), moved together and filled with pads to `length`; and with them what each one names."""
    order = jnp.argsort(words < 0, stable=True)[:length]
    words, names = words[order], names[order]
    there = words >= 0
    return jnp.where(there, words, PAD), names & jnp.expand_dims(there, tuple(range(1, names.ndim)))


def relation_words(relation: Int[Array, ""]) -> Int[Array, " 2"]:
    """The words of a relation (index into `RELATIONS`); a gap, -1, after those of one word."""
    table = [[_NUMBERS[one[0]], _NUMBERS[one[1]] if len(one) == 2 else -1] for one in RELATIONS]
    return jax.lax.dynamic_index_in_dim(jnp.asarray(np.array(table, np.int32)), relation, keepdims=False)

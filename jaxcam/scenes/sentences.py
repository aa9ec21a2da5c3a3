"""Captions: a picture and the one sentence that describes it.

    [a | two | three] [striped | <colour>] <figure>(s) ( [left of | above] [a | two | three] ... )

Contract: deterministic from the key, as pictures are. A picture has one sentence: a group is called striped if it is
(its colour is then not told), by its colour if it is plain; the group on the left or above comes first. Groups are of
different classes; on the other axis they overlap, so that "left of" and "above" are never both true. Words that name
something (numbers, adjectives, figures) name all figures of their group; "a", "left", "of" and "above" name nothing.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxcam.checks import check_integer
from jaxcam.scenes.accepted import MAX_SIZE, MIN_SIZE, checked_key
from jaxcam.scenes.draws import Draws
from jaxcam.scenes.figures import CLASS_NAMES
from jaxcam.scenes.paint import paint
from jaxcam.scenes.parts import MAX_INSTANCES
from jaxcam.scenes.staging import COLOUR_NAMES, distinct, dressed, staged
from jaxcam.scenes.words import END, PLURALS, START, joined, number, numbers, relation_words

CAPTION_LENGTH = 10
# How many figures the two groups have: one group of 1 to 3 in a quarter of the pictures, else two of up to 4 in all.
_COUNTS = np.array([[1, 0], [2, 0], [3, 0], [1, 1], [1, 1], [1, 1], [1, 2], [2, 1], [2, 2], [1, 3], [3, 1]], np.int32)
_RANKS = np.array([0.18, 0.5, 0.82], np.float32)


class Caption(NamedTuple):
    """A picture and its sentence; `many` puts one more leading axis on every field.

    Attributes:
        image: `[h, w, 3]`, float32 in [0, 1].
        words: `[l]`, int32: start, the ids of the words, end, pads; l = 10. `decode` reads them.
        names: `[l, m]`, bool: which figures each word names.
        word_masks: `[l, h, w]`, bool: the visible pixels of what each word names; nothing for words that name nothing.
        instance_classes: `[m]`, int32: the class of every figure, -1 where there is none; m = 4.
        colours: `[m]`, int32: index into `COLOUR_NAMES`, -1 where there is none.
        striped: `[m]`, bool.
        masks: `[m, h, w]`, bool: the visible pixels of every figure.
    """

    image: Float[Array, "*batch h w 3"]
    words: Int[Array, "*batch l"]
    names: Bool[Array, "*batch l m"]
    word_masks: Bool[Array, "*batch l h w"]
    instance_classes: Int[Array, "*batch m"]
    colours: Int[Array, "*batch m"]
    striped: Bool[Array, "*batch m"]
    masks: Bool[Array, "*batch m h w"]


def sentence(
    counts: Int[Array, " 2"],
    classes: Int[Array, " 2"],
    colours: Int[Array, " 2"],
    striped: Bool[Array, " 2"],
    relation: Int[Array, ""],
) -> tuple[Int[Array, " l"], Bool[Array, "l 2"]]:
    """The words that describe one or two groups (the second is empty), and which group each one names."""
    count_words = jnp.asarray(numbers(("a", "two", "three")))[counts - 1]
    adjectives = jnp.where(striped, number("striped"), jnp.asarray(numbers(COLOUR_NAMES))[colours])
    nouns = jnp.asarray(np.stack([numbers(CLASS_NAMES), numbers(PLURALS)]))[(counts > 1).astype(jnp.int32), classes]
    second = counts[1] > 0
    own = jnp.stack([count_words, adjectives, nouns], axis=-1)
    rest = jnp.where(second, jnp.concatenate([relation_words(relation), own[1]]), -1)
    start, end = (jnp.full((1,), mark, jnp.int32) for mark in (START, END))
    words = jnp.concatenate([start, own[0], rest, end])
    names = jnp.zeros((CAPTION_LENGTH, 2), jnp.bool_)
    for group, at in ((0, 1), (1, 6)):
        names = names.at[at : at + 3, group].set(jnp.stack([counts[group] > 1, jnp.array(True), jnp.array(True)]))
    return joined(words, names, length=CAPTION_LENGTH)


@partial(jax.jit, static_argnames="size")
def _caption(key: Key[Array, ""], size: int) -> Caption:
    content_key, look_key = jax.random.split(key)
    draw = Draws(content_key, 128)
    counts = jnp.asarray(_COUNTS)[draw.choice(len(_COUNTS))]
    classes = distinct(draw, len(CLASS_NAMES), 2)
    colours = (draw(2) * len(COLOUR_NAMES)).astype(jnp.int32) % len(COLOUR_NAMES)
    striped = draw(2) < 0.35
    upright = draw() < 0.5
    words, named = sentence(counts, classes, colours, striped, jnp.where(upright, 2, 0).astype(jnp.int32))

    slot = jnp.arange(MAX_INSTANCES, dtype=jnp.int32)
    group = (slot >= counts[0]).astype(jnp.int32)
    present = slot < counts[0] + counts[1]
    # Both groups take the first of the same ranks: those of the smaller one are among those of the other.
    ranks = jnp.asarray(_RANKS)[draw.order(3)]
    across = ranks[jnp.where(group == 0, slot, slot - counts[0]) % 3] + draw(MAX_INSTANCES, low=-0.02, high=0.02)
    # One group alone lies on both sides.
    side = jnp.where(counts[1] > 0, group, (draw(MAX_INSTANCES) < 0.5).astype(jnp.int32))
    along = 0.26 + 0.48 * side.astype(jnp.float32) + draw(MAX_INSTANCES, low=-0.08, high=0.08)
    centre = jnp.where(upright, jnp.stack([across, along], axis=-1), jnp.stack([along, across], axis=-1))

    radius = draw(MAX_INSTANCES, low=0.11, high=0.14)
    plan = staged(look_key, classes[group], present, centre=centre, radius=radius)
    image, masks = paint(dressed(plan, draw, colours[group], striped[group]), size)
    belongs = (group[:, None] == jnp.arange(2, dtype=jnp.int32)[None, :]) & present[:, None]
    names = jnp.any(named[:, None, :] & belongs[None, :, :], axis=-1)
    return Caption(
        image=image,
        words=words,
        names=names,
        word_masks=jnp.any(names[:, :, None, None] & masks[None], axis=1),
        instance_classes=jnp.where(present, classes[group], -1),
        colours=jnp.where(present, colours[group], -1),
        striped=striped[group] & present,
        masks=masks,
    )


def caption(key: Key[Array, ""] | UInt32[Array, "2"] | int, *, size: int = 64) -> Caption:
    """A picture of one or two groups of figures, and its sentence: "two red hearts left of a striped disc".

    Args:
        key: a random key, or a seed.
        size: the side of the picture in pixels, static.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: size is out of range.
    """
    check_integer("size", size, low=MIN_SIZE, high=MAX_SIZE)
    return _caption(checked_key(key), int(size))

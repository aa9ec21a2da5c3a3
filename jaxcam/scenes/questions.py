"""Questions about a picture, with their answers and what these rest on.

    what colour is the heart?    red, ...          the heart
    how many discs?              one, two, three   the discs
    is a crescent left of the star?    yes, no     both (also right of, above, below)
    which figure is red?         heart, ...        the figure

Contract: deterministic from the key, as pictures are. Given the question, whatever its words, all its answers (the six
colours, three numbers, yes and no, the ten figures) are equally likely, so that the question alone is right in
(1/6 + 1/3 + 1/2 + 1/10) / 4 = 27.5 % of the cases. Questions have one answer: colours of a picture are all different,
"the" figure and "a" figure are the only ones of their class, and any two figures lie clearly left or right of one
another, and above or below.
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
from jaxcam.scenes.words import ANSWERS, PLURALS, RELATIONS, joined, number, numbers, relation_words

QUESTION_LENGTH = 9
QUESTION_KINDS: tuple[str, ...] = ("colour", "count", "relation", "figure")
"""What questions ask for: a figure's colour, how many there are, where one lies, or which figure has a colour."""
_PLACES = np.array([0.16, 0.387, 0.613, 0.84], np.float32)
# Of the class that is asked for one, of the other one to three; of the class asked for two, of the other one or two.
_OTHERS = np.array([[1, 1, 2, 2, 2, 3, 3, 3, 3, 3], [1, 1, 1, 1, 1, 2, 2, 2, 2, 2], [1] * 10], np.int32)
_NUMBERS_AT, _YES = ANSWERS.index("one"), ANSWERS.index("yes")
_FIGURES_AT = ANSWERS.index(CLASS_NAMES[0])


class Question(NamedTuple):
    """A picture, a question and its answer; `many` puts one more leading axis on every field.

    Attributes:
        image: `[h, w, 3]`, float32 in [0, 1].
        words: `[l]`, int32: the ids of the question's words, then pads; l = 9. `decode` reads them.
        kind: `[]`, int32: index into `QUESTION_KINDS`.
        answer: `[]`, int32: index into `ANSWERS`.
        rests_on: `[m]`, bool: which figures the answer rests on.
        evidence: `[h, w]`, bool: their visible pixels.
        instance_classes: `[m]`, int32: the class of every figure, -1 where there is none; m = 4.
        colours: `[m]`, int32: index into `COLOUR_NAMES`, all different; -1 where there is none.
        centres: `[m, 2]`, float32: x to the right and y downwards, in units of the picture's side.
        masks: `[m, h, w]`, bool: the visible pixels of every figure.
    """

    image: Float[Array, "*batch h w 3"]
    words: Int[Array, "*batch l"]
    kind: Int[Array, "*batch"]
    answer: Int[Array, "*batch"]
    rests_on: Bool[Array, "*batch m"]
    evidence: Bool[Array, "*batch h w"]
    instance_classes: Int[Array, "*batch m"]
    colours: Int[Array, "*batch m"]
    centres: Float[Array, "*batch m 2"]
    masks: Bool[Array, "*batch m h w"]


def _question_words(
    kind: Int[Array, ""],
    first: Int[Array, ""],
    second: Int[Array, ""],
    colour: Int[Array, ""],
    relation: Int[Array, ""],
) -> Int[Array, " l"]:
    """The words of a question about the class `first`, one more class, a colour and a relation, as its kind needs."""
    figure, other = (jnp.asarray(numbers(CLASS_NAMES))[c] for c in (first, second))

    def word(text: str) -> Int[Array, ""]:
        return jnp.asarray(number(text), jnp.int32)

    mark, gap = word("?"), jnp.asarray(-1, jnp.int32)
    asked = [
        [word("what"), word("colour"), word("is"), word("the"), figure, mark],
        [word("how"), word("many"), jnp.asarray(numbers(PLURALS))[first], mark],
        [word("is"), word("a"), figure, *relation_words(relation), word("the"), other, mark],
        [word("which"), word("figure"), word("is"), jnp.asarray(numbers(COLOUR_NAMES))[colour], mark],
    ]
    rows = jnp.stack([jnp.stack([*row, *[gap] * (QUESTION_LENGTH - len(row))]) for row in asked])
    words = jax.lax.dynamic_index_in_dim(rows, kind, keepdims=False)
    return joined(words, jnp.zeros((QUESTION_LENGTH, 1), jnp.bool_), length=QUESTION_LENGTH)[0]


class _Figures(NamedTuple):
    """Of a picture."""

    class_idx: Int[Array, " m"]
    """-1, or a class that is not asked for, where there is none."""
    colours: Int[Array, " m"]
    centres: Float[Array, "m 2"]


def _asked(
    about: _Figures, kind: Int[Array, ""], a: Int[Array, ""], b: Int[Array, ""], relation: Int[Array, ""]
) -> tuple[Int[Array, " l"], Int[Array, ""], Bool[Array, " m"]]:
    """The words of a question about the figures a and b, its answer, and which figures that rests on."""
    alike = about.class_idx == about.class_idx[a]
    between = about.centres[a] - about.centres[b]
    holds = jnp.stack([between[0] < 0, between[0] > 0, between[1] < 0, between[1] > 0])[relation]
    number_at, yes_or_no = _NUMBERS_AT + alike.sum() - 1, jnp.where(holds, _YES, _YES + 1)
    answers = [about.colours[a], number_at, yes_or_no, _FIGURES_AT + about.class_idx[a]]
    answer = jnp.stack([jnp.asarray(one, jnp.int32) for one in answers])[kind]
    slot = jnp.arange(MAX_INSTANCES, dtype=jnp.int32)
    compared = (slot == a) | ((slot == b) & (kind == QUESTION_KINDS.index("relation")))
    rests_on = jnp.where(kind == QUESTION_KINDS.index("count"), alike, compared)
    first, second, colour = about.class_idx[a], about.class_idx[b], about.colours[a]
    return _question_words(kind, first, second, colour, relation), answer, rests_on


@partial(jax.jit, static_argnames="size")
def _question(key: Key[Array, ""], size: int) -> Question:
    content_key, look_key = jax.random.split(key)
    draw = Draws(content_key, 128)
    kind = draw.choice(len(QUESTION_KINDS))
    counts = kind == QUESTION_KINDS.index("count")
    four = distinct(draw, len(CLASS_NAMES), MAX_INSTANCES)
    colours = distinct(draw, len(COLOUR_NAMES), MAX_INSTANCES)
    centre = jnp.stack([jnp.asarray(_PLACES)[draw.order(4)], jnp.asarray(_PLACES)[draw.order(4)]], axis=-1)
    centre = centre + draw(MAX_INSTANCES, 2, low=-0.03, high=0.03)
    relation, asked_number = draw.choice(len(RELATIONS)), draw.choice(3)

    # Questions of numbers: so many of the first class, then others of the second, and one of a third if there is room.
    slot = jnp.arange(MAX_INSTANCES, dtype=jnp.int32)
    others = jnp.asarray(_OTHERS)[asked_number, draw.choice(_OTHERS.shape[1])]
    filled = asked_number + 1 + others
    several = (slot > asked_number).astype(jnp.int32) + (slot >= filled).astype(jnp.int32)
    class_idx = jnp.where(counts, four[several], four)
    num_figures = jnp.where(draw() < 0.6, MAX_INSTANCES, 3)
    present = slot < jnp.where(counts, jnp.maximum(num_figures, filled), num_figures)

    # The picture's slots are in a random order already (places, colours and painting order are drawn by slots).
    about = _Figures(class_idx, colours, centre)
    words, answer, rests_on = _asked(about, kind, jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32), relation)

    radius = draw(MAX_INSTANCES, low=0.11, high=0.135)
    plan = staged(look_key, class_idx, present, centre=centre, radius=radius)
    image, masks = paint(dressed(plan, draw, colours, jnp.zeros_like(present)), size)
    return Question(
        image=image,
        words=words,
        kind=kind,
        answer=answer,
        rests_on=rests_on,
        evidence=jnp.any(rests_on[:, None, None] & masks, axis=0),
        instance_classes=jnp.where(present, class_idx, -1),
        colours=jnp.where(present, colours, -1),
        centres=centre,
        masks=masks,
    )


def asked_again(
    key: Key[Array, ""], drawn: Question, num: int
) -> tuple[Int[Array, "*batch q l"], Int[Array, "*batch q"]]:
    """More questions about a picture and their answers: words `[q, l]` and answers `[q]`.

    Where one class is there several times they are mostly of numbers, elsewhere half of them of where figures lie: what
    is learnt last of all.

    Args:
        key: of the choice of questions.
        drawn: a picture.
        num: q.
    """
    about = _Figures(drawn.instance_classes, drawn.colours, drawn.centres)
    many = drawn.kind == QUESTION_KINDS.index("count")
    colour, count, relation, figure = range(len(QUESTION_KINDS))

    def one(key: Key[Array, ""]) -> tuple[Array, Array]:
        draw = Draws(key, 16)
        a, b = jnp.argsort(draw(MAX_INSTANCES) + jnp.where(about.class_idx < 0, 2, 0))[:2].astype(jnp.int32)
        kind = jnp.asarray([colour, relation, relation, figure], jnp.int32)[draw.choice(4)]
        # "The" figure is the only one of its class.
        kind = jnp.where(many & (kind != figure), count, kind).astype(jnp.int32)
        return _asked(about, kind, a, b, draw.choice(len(RELATIONS)))[:2]

    return jax.vmap(one)(jax.random.split(key, num))


def question(key: Key[Array, ""] | UInt32[Array, "2"] | int, *, size: int = 64) -> Question:
    """A picture of three or four figures, a question about it and the answer: "how many discs?", two.

    Args:
        key: a random key, or a seed.
        size: the side of the picture in pixels, static.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: size is out of range.
    """
    check_integer("size", size, low=MIN_SIZE, high=MAX_SIZE)
    return _question(checked_key(key), int(size))

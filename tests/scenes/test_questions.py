import inspect
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sentences import PLURALS, centroids

from jaxcam import scenes
from jaxcam.scenes.questions import asked_again

NUM = 256
SIZE = 48


@pytest.fixture(scope="module")
def many() -> scenes.Question:
    return jax.tree.map(np.asarray, scenes.many(scenes.question, 0, NUM, size=SIZE))


def answered(words, drawn, i):
    """The answer to the words and the slots that it rests on, in plain Python from what is in the picture."""
    present = np.flatnonzero(drawn.instance_classes[i] >= 0)
    names = {int(slot): scenes.CLASS_NAMES[drawn.instance_classes[i, slot]] for slot in present}
    colours = {int(slot): scenes.COLOUR_NAMES[drawn.colours[i, slot]] for slot in present}

    def only(name):
        (slot,) = [slot for slot, own in names.items() if own == name]
        return slot

    match words:
        case ["what", "colour", "is", "the", name, "?"]:
            return colours[only(name)], {only(name)}
        case ["how", "many", plural, "?"]:
            found = {slot for slot, name in names.items() if PLURALS[name] == plural}
            return ["none", "one", "two", "three"][len(found)], found
        case ["which", "figure", "is", colour, "?"]:
            (slot,) = [slot for slot, own in colours.items() if own == colour]
            return names[slot], {slot}
        case ["is", "a", name, *relation, "the", other, "?"]:
            pair = [only(name), only(other)]
            (x, y), (x0, y0) = centroids(drawn.masks[i, pair])
            true = {"left of": x < x0, "right of": x > x0, "above": y < y0, "below": y > y0}[" ".join(relation)]
            return ("yes" if true else "no"), set(pair)
    raise AssertionError(words)


def test_answers_follow_from_the_pictures(many):
    for i in range(NUM):
        words = scenes.decode(many.words[i]).replace("?", " ?").split()
        answer, own = answered(words, many, i)
        assert scenes.ANSWERS[many.answer[i]] == answer, words
        assert set(np.flatnonzero(many.rests_on[i]).tolist()) == own
        np.testing.assert_array_equal(many.evidence[i], many.masks[i, sorted(own)].any(0))
        kind = {"what": "colour", "how": "count", "is": "relation", "which": "figure"}[words[0]]
        assert scenes.QUESTION_KINDS[many.kind[i]] == kind


def test_more_questions_follow_from_the_pictures(many):
    keys = jax.random.split(jax.random.key(1), NUM)
    more = jax.jit(jax.vmap(lambda key, one: asked_again(key, one, 5)))(keys, jax.tree.map(jnp.asarray, many))
    found = Counter()
    for i in range(NUM):
        for ids, answer in zip(*(np.asarray(each[i]) for each in more), strict=True):
            words = scenes.decode(ids).replace("?", " ?").split()
            assert scenes.ANSWERS[answer] == answered(words, many, i)[0], words
            found[words[0]] += 1
    assert min(found.values()) > NUM / 4
    assert set(found) == {"what", "how", "is", "which"}


def test_questions_have_one_answer_and_it_can_be_seen(many):
    for classes, colours, centres in zip(many.instance_classes, many.colours, many.centres, strict=True):
        present = classes >= 0
        assert 3 <= present.sum() <= 4
        assert len(set(colours[present].tolist())) == present.sum()
        for axis in range(2):
            assert np.diff(np.sort(centres[:, axis])).min() > 0.16
    np.testing.assert_array_equal(many.masks.any((2, 3)), many.instance_classes >= 0)
    assert many.masks.sum(1).max() == 1


@pytest.mark.parametrize(
    ("kind", "num", "limit"),
    [("colour", 6, 20.5), ("count", 3, 13.8), ("relation", 2, 10.8), ("figure", 10, 27.9)],
)
def test_answers_to_every_kind_are_balanced(many, kind, num, limit):
    own = many.kind == scenes.QUESTION_KINDS.index(kind)
    counts = np.bincount(many.answer[own], minlength=len(scenes.ANSWERS))
    counts = counts[counts > 0]
    assert len(counts) == num
    assert ((counts - own.sum() / num) ** 2 / (own.sum() / num)).sum() < limit  # the 0.1 % points of chi squared
    assert 0.18 < own.mean() < 0.32


def test_words_of_the_question_do_not_give_the_answer_away(many):
    # For every word of a question: the answers given that it is there are as those of its kind are.
    for word in set(many.words.flatten().tolist()):
        for kind, num in enumerate((6, 3, 2, 10)):
            own = (many.kind == kind) & (many.words == word).any(1)
            if own.sum() >= 20:
                share = Counter(many.answer[own].tolist()).most_common(1)[0][1] / own.sum()
                assert share < 1 / num + 4.5 * np.sqrt(1 / num * (1 - 1 / num) / own.sum())


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"size .* 32 .* 31"):
        inspect.unwrap(scenes.question)(0, size=31)

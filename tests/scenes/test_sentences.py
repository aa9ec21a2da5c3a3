import colorsys
import inspect

import jax
import numpy as np
import pytest
from compactness import by_class, compactness

from jaxcam import scenes
from jaxcam.scenes.figures import signed_distance

NUM = 128
PLURALS = {name: {"cross": "crosses", "fish": "fish"}.get(name, name + "s") for name in scenes.CLASS_NAMES}
HUES = {"red": 0.0, "yellow": 0.15, "green": 0.34, "blue": 0.61, "purple": 0.8}


@pytest.fixture(scope="module")
def many() -> scenes.Caption:
    return jax.tree.map(np.asarray, scenes.many(scenes.caption, 0, NUM))


def groups(drawn, i):
    """The slots of each group: those of one class."""
    classes = drawn.instance_classes[i]
    return [np.flatnonzero(classes == c) for c in dict.fromkeys(classes[classes >= 0].tolist())]


def centroids(masks):
    return np.array([np.argwhere(mask).mean(0)[::-1] for mask in masks])


def told(drawn, i):
    """The sentence of a picture and what each word names, in plain Python from what is in it and where."""
    parts = []
    for slots in groups(drawn, i):
        name = scenes.CLASS_NAMES[drawn.instance_classes[i, slots[0]]]
        colour = scenes.COLOUR_NAMES[drawn.colours[i, slots[0]]]
        adjective = "striped" if drawn.striped[i, slots[0]] else colour
        number = ["a", "two", "three"][len(slots) - 1]
        noun = name if len(slots) == 1 else PLURALS[name]
        own = set(slots.tolist())
        parts.append([(number, own if number != "a" else set()), (adjective, own), (noun, own)])
    if len(parts) == 1:
        return parts[0]
    one, other = (centroids(drawn.masks[i, slots]) for slots in groups(drawn, i))
    # Every figure of the one is left of (above) every one of the other; the other way round it would be told so.
    beside, upon = (other[:, axis].min() - one[:, axis].max() for axis in range(2))
    behind, under = (one[:, axis].min() - other[:, axis].max() for axis in range(2))
    assert max(beside, upon) > 0.15 * 64 > 0.08 * 64 > max(min(beside, upon), behind, under)
    relation = ["left", "of"] if beside > upon else ["above"]
    return [*parts[0], *((word, set()) for word in relation), *parts[1]]


def test_the_sentence_says_what_is_in_the_picture_and_words_name_it(many):
    for i in range(NUM):
        words = told(many, i)
        assert scenes.decode(many.words[i]) == " ".join(word for word, _ in words)
        expected = [set(), *(own for _, own in words)]
        expected += [set()] * (many.words.shape[1] - len(expected))
        assert [set(np.flatnonzero(row).tolist()) for row in many.names[i]] == expected
        for mask, own in zip(many.word_masks[i], expected, strict=True):
            np.testing.assert_array_equal(mask, many.masks[i, sorted(own)].any(0))
        ids = many.words[i].tolist()
        assert ids[0] == scenes.START
        assert ids[len(words) + 1 :] == [scenes.END] + [scenes.PAD] * (len(ids) - len(words) - 2)


def test_pixels_have_the_colour_that_the_word_says(many):
    seen = {name: [] for name in scenes.COLOUR_NAMES}
    for i in range(NUM):
        for word, mask in zip(many.words[i], many.word_masks[i], strict=True):
            name = scenes.VOCABULARY[word]
            if name in seen:
                red, green, blue = np.median(many.image[i][mask], axis=0).tolist()
                seen[name].append(colorsys.rgb_to_hsv(red, green, blue))
    for name, found in seen.items():
        hue, saturation, value = np.array(found).T
        assert len(found) > 15
        if name == "white":
            assert saturation.max() < 0.2
            assert value.min() > 0.7
        else:
            assert np.abs((hue - HUES[name] + 0.5) % 1 - 0.5).max() < 0.06
            assert saturation.min() > 0.35


def test_striped_figures_have_stripes(many):
    bands = [[], []]
    for i, slot in np.argwhere(many.instance_classes >= 0):
        light = many.image[i].mean(-1)[many.masks[i, slot]]
        bands[int(many.striped[i, slot])].append(light.std() / light.mean())
    assert np.quantile(bands[0], 0.9) < np.quantile(bands[1], 0.1) + 0.03
    assert np.median(bands[1]) > 1.5 * np.median(bands[0])


def test_masks_are_those_of_the_classes(many):
    x, y = np.meshgrid(*2 * [np.float32((np.arange(100) + 0.5) / 100 * 2.6 - 1.3)])
    distance = jax.jit(signed_distance)
    expected = [compactness(np.asarray(distance(np.int32(c), x, y)) < 0) for c in range(10)]
    present = many.instance_classes >= 0
    found = by_class(many.masks[present], many.instance_classes[present], 10)
    assert np.corrcoef(found, expected)[0, 1] > 0.97
    np.testing.assert_array_equal(many.masks.any((2, 3)), present)
    assert many.masks.sum(1).max() == 1


def test_sentences_are_varied(many):
    sentences = [scenes.decode(row) for row in many.words]
    assert len(set(sentences)) > 0.9 * NUM
    assert 0.15 < np.mean(["left" not in s and "above" not in s for s in sentences]) < 0.4
    assert 0.25 < np.mean(["left" in s for s in sentences]) < 0.5
    assert {word for s in sentences for word in s.split()} >= {"a", "two", "three", "striped", *scenes.CLASS_NAMES}


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"size .* 32 .* 31"):
        inspect.unwrap(scenes.caption)(0, size=31)


@pytest.mark.parametrize("sentence", ["two red hearts left of a striped disc", "is a crescent left of the star?"])
def test_sentences_survive_as_numbers(sentence):
    ids = scenes.encode(sentence, length=12)
    assert ids.dtype == np.int32
    assert len(ids) == 12
    assert scenes.decode(ids) == sentence
    marked = [scenes.START, *scenes.encode(sentence), scenes.END, scenes.encode("red")[0]]
    assert scenes.decode(np.array(marked)) == sentence
    assert [scenes.VOCABULARY[i] for i in scenes.encode("how many?")] == ["how", "many", "?"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scenes.encode("a red dog"), ValueError, "'dog'"),
        (lambda: scenes.encode("a red disc", length=2), ValueError, "length .* 2"),
        (lambda: scenes.encode(np.array([1])), TypeError, "sentence must be a string"),
        (lambda: scenes.decode(np.zeros((2, 3), np.int32)), ValueError, "one row"),
        (lambda: scenes.decode(np.zeros(3, np.float32)), TypeError, "integers .* float32"),
        (lambda: scenes.decode(np.array([1000])), ValueError, "1000"),
    ],
)
def test_what_is_no_sentence_is_refused(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call()

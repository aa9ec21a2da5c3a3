"""Decoding against the search through all sentences, of a network that is a table."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import drawn

from jaxcam.models import beams
from jaxcam.scenes import END, PAD, START

V, LENGTH = 5, 5


def table_step(table):
    """The next word by the last two; the state is the one before the last."""
    return lambda before, word: (word, jnp.asarray(table)[before, word])


def log_probability(table, words):
    """Of the words after the start, up to the end."""
    total, before, last = 0.0, PAD, START
    for word in words:
        logits = table[before, last]
        total += logits[word] - np.log(np.exp(logits).sum())
        if word in (END, PAD):
            break
        before, last = last, word
    return total


def sentences():
    """All of them: up to an end (or a pad), then pads."""
    for words in itertools.product(range(V), repeat=LENGTH - 1):
        end = next((i for i, word in enumerate(words) if word in (END, PAD)), LENGTH)
        if all(word == PAD for word in words[end + 1 :]):
            yield words


@pytest.mark.parametrize("seed", [0, 1])
def test_beams_of_full_width_are_the_search_through_all_sentences(seed):
    table = 2 * drawn(seed, V, V, V)
    every = sorted(((log_probability(table, words), words) for words in sentences()), reverse=True)
    width = len(every)
    found = jax.jit(lambda table: beams.beams(table_step(table), jnp.int32(PAD), length=LENGTH, width=width))(table)
    np.testing.assert_allclose(found.log_probability, [each for each, _ in every], rtol=1e-12)
    assert [tuple(row[1:]) for row in np.asarray(found.words).tolist()] == [words for _, words in every]
    assert (np.asarray(found.words)[:, 0] == START).all()


@pytest.mark.thorough
def test_a_beam_finds_what_greed_does_not():
    # After the start word 3 is a little likelier than 4; but behind 4 everything is certain, behind 3 nothing.
    table = np.zeros((V, V, V))
    table[PAD, START] = [-9, -9, -9, 0.1, 0]
    table[START, 3] = [0, 0, 0, 0, 0]
    table[START, 4] = [-9, -9, 9, -9, -9]
    step = table_step(table)
    greedy = beams.greedy(step, jnp.int32(PAD), length=3)
    one, two = (beams.beams(step, jnp.int32(PAD), length=3, width=width) for width in (1, 2))
    assert greedy.tolist()[:2] == one.words[0].tolist()[:2] == [START, 3]
    assert two.words[0].tolist() == [START, 4, END]
    assert two.log_probability[0] > one.log_probability[0] + 0.5


def test_greed_is_a_beam_of_one_and_the_word_by_word_maximum():
    tables = 2 * drawn(3, 20, V, V, V)

    @jax.jit
    @jax.vmap
    def both(table):
        step = table_step(table)
        return (
            beams.greedy(step, jnp.int32(PAD), length=LENGTH),
            beams.beams(step, jnp.int32(PAD), length=LENGTH, width=1),
        )

    greedy, beam = both(tables)
    np.testing.assert_array_equal(greedy, beam.words[:, 0])
    over = 0
    for table, words, value in zip(tables, np.asarray(greedy), beam.log_probability[:, 0], strict=True):
        before, last, expected = PAD, START, [START]
        while len(expected) < LENGTH:
            word = PAD if last in (END, PAD) else int(table[before, last].argmax())
            before, last = last, word
            expected.append(word)
        assert words.tolist() == expected
        over += expected[-1] == PAD
        np.testing.assert_allclose(value, log_probability(table, words[1:]), rtol=1e-12)
    assert 5 < over < 20


def test_fewer_sentences_than_beams():
    found = beams.beams(table_step(np.zeros((3, 3, 3))), jnp.int32(PAD), length=2, width=5)
    np.testing.assert_allclose(found.log_probability, [*3 * [-np.log(3)], -np.inf, -np.inf])
    assert sorted(found.words[:3, 1].tolist()) == [0, 1, 2]


@pytest.mark.usefixtures("unchecked")
def test_lengths_and_widths_that_are_none():
    step = table_step(np.zeros((3, 3, 3)))
    for call, error, message in (
        (lambda: beams.greedy(step, jnp.int32(0), length=1), ValueError, "length must be .* 2 .* is 1"),
        (lambda: beams.beams(step, jnp.int32(0), length=3, width=0), ValueError, "width must be .* 1 .* is 0"),
        (lambda: beams.beams(step, jnp.int32(0), length=3.0, width=1), TypeError, "length must be an integer"),
    ):
        with pytest.raises(error, match=message):
            call()

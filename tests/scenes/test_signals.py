import inspect

import jax
import numpy as np
import pytest

from jaxcam import scenes
from jaxcam.scenes.signals import pattern

NUM = 96
LENGTH = 128
NAMES = scenes.PATTERN_NAMES


@pytest.fixture(scope="module")
def many() -> scenes.Series:
    return jax.tree.map(np.asarray, scenes.many(scenes.series, 0, NUM))


@pytest.fixture(scope="module")
def patterns() -> np.ndarray:
    """Every pattern at 4,000 phases from -0.5 to 1.5: [class, phase]."""
    u = np.float32((np.arange(4000) + 0.5) / 2000 - 0.5)
    return np.asarray(jax.jit(jax.vmap(pattern, in_axes=(0, None)))(np.arange(len(NAMES), dtype=np.int32), u))


# Mean, mean square and changes of sign of each pattern, by hand: the integrals of its formula over 0 to 1.
CHIRP = None  # no closed form
FIGURES = {
    "bump": (1 / 2, 3 / 8, 0),
    "plateau": (7 / 8, 3 / 4 + 2 / 24, 0),
    "ramp": (1 / 2, 1 / 3, 0),
    "doublet": (0, 1 / 2, 1),
    "burst": (0, 1 / 4, 7),
    "chirp": (CHIRP, CHIRP, 7),
    # The real part of the integral of exp(-(4 - 8 pi i) u), and that of half its square and half of exp(-8 u).
    "ringing": (
        ((1 - np.exp(-4)) / (4 - 8j * np.pi)).real,
        (1 - np.exp(-8)) / 16 + ((1 - np.exp(-8)) / (2 * (8 - 16j * np.pi))).real,
        8,
    ),
    "comb": (3 / 8, 35 / 128, 0),
}


@pytest.mark.parametrize("name", NAMES)
def test_patterns_are_those_of_their_formulas(name, patterns):
    values = patterns[NAMES.index(name)].astype(np.float64)
    assert not np.any(values[:1000])
    assert not np.any(values[3000:])
    assert 0.8 < np.abs(values).max() <= 1.0001
    mean, square, changes = FIGURES[name]
    inside = values[1000:3000]
    if mean is not CHIRP:
        assert inside.mean() == pytest.approx(mean, abs=2e-3)
        assert (inside**2).mean() == pytest.approx(square, abs=2e-3)
    signs = np.sign(inside[np.abs(inside) > 1e-4])
    assert np.sum(signs[1:] != signs[:-1]) == changes


def test_truth_is_found_by_trying_all_patterns_everywhere(many):
    """Every kind, begin and duration is fitted to the series, with slow waves left out: the best one is the truth."""
    time = (np.arange(LENGTH) + 0.5) / LENGTH
    slow = np.linalg.qr(np.cos(np.pi * time[:, None] * np.arange(7)[None]))[0]
    trials = [(c, b, n) for c in range(len(NAMES)) for n in range(24, 40, 2) for b in range(0, LENGTH - n, 2)]
    fine = np.asarray(
        jax.jit(jax.vmap(pattern, in_axes=(0, None)))(
            np.arange(len(NAMES), dtype=np.int32), np.float32((np.arange(10000) + 0.5) / 10000)
        )
    )
    templates = np.zeros((len(trials), LENGTH))
    for row, (c, b, n) in zip(templates, trials, strict=True):
        row[b : b + n] = fine[c][((np.arange(n) + 0.5) / n * 10000).astype(int)]
    templates -= templates @ slow @ slow.T
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)

    single = np.flatnonzero(many.intervals[:, 1, 1] == 0)
    right, overlaps = [], []
    for i in single:
        rest = many.values[i].astype(np.float64)
        power = ((templates @ (rest - slow @ (slow.T @ rest))) ** 2)[:, many.channels[i, 0]].sum(1)
        c, b, n = trials[int(np.argmax(power))]
        begin, end = many.intervals[i, 0]
        right.append(c == many.class_idx[i])
        overlaps.append(max(0, min(end, b + n) - max(begin, b)) / (max(end, b + n) - min(begin, b)))
    assert len(single) > 25
    assert np.mean(right) > 0.9
    assert np.median(overlaps) > 0.9
    assert np.mean(np.array(overlaps) > 0.6) > 0.9


def test_truth_is_consistent(many):
    sample = np.arange(LENGTH)
    begin, end = many.intervals[..., 0], many.intervals[..., 1]
    present = end > 0
    assert present[:, 0].all()
    assert 0.3 < present[:, 1].mean() < 0.7
    np.testing.assert_array_equal(many.masks, (sample >= begin[..., None]) & (sample < end[..., None]))
    np.testing.assert_array_equal(many.channels.any(2), present)
    assert np.all((end - begin)[present] >= 0.18 * LENGTH)
    assert np.all((end - begin)[present] <= 0.31 * LENGTH)
    assert begin.min() >= 0
    assert end.max() <= LENGTH
    assert many.masks.sum(1).max() == 1
    assert np.all(begin[present[:, 1], 1] >= end[present[:, 1], 0])
    counts = np.bincount(many.class_idx, minlength=8)
    assert ((counts - NUM / 8) ** 2 / (NUM / 8)).sum() < 24.3  # the 0.1 % point with 7 degrees of freedom


@pytest.mark.thorough
def test_number_i_depends_on_seed_and_number_alone(many):
    few = scenes.many(scenes.series, jax.random.key(0), 3)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:3])
    alone = scenes.series(jax.random.fold_in(jax.random.key(0), 70))
    np.testing.assert_allclose(alone.values, many.values[70], atol=5e-6)
    for a, b in zip(alone[1:], many[1:], strict=True):
        np.testing.assert_array_equal(a, b[70])
    assert np.abs(many.values[0] - many.values[1]).max() > 0.1
    assert many.values.dtype == np.float32


def test_other_lengths_show_the_same_events():
    short, long = scenes.series(4), scenes.series(4, length=512, num_channels=3)
    assert short.class_idx == long.class_idx
    np.testing.assert_array_equal(short.channels, long.channels)
    np.testing.assert_allclose(np.asarray(short.intervals) * 4, long.intervals, atol=8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: inspect.unwrap(scenes.series)(0, length=32), ValueError, "length .* 64 .* 32"),
        (lambda: inspect.unwrap(scenes.series)(0, num_channels=0), ValueError, "num_channels .* 1 .* 0"),
        (lambda: inspect.unwrap(scenes.many)(scenes.series, 0, 0), ValueError, "num .* 1 .* 0"),
        (lambda: inspect.unwrap(scenes.many)("series", 0, 1), TypeError, "draw .* 'series'"),
        (lambda: inspect.unwrap(scenes.many)(scenes.series, 0, 1, length=1.5), TypeError, "length .* 1.5"),
        (lambda: inspect.unwrap(scenes.many)(scenes.series, 0, 1, size=1), TypeError, "size"),
    ],
)
def test_bad_arguments_are_refused(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Alphas and weights of every score and every class against arithmetic with 50 digits, whatever the gaps."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxcam import methods, scores
from jaxcam.alphas import exact_alphas
from jaxcam.derivatives.of_score import head_of, scaled_derivatives
from jaxcam.methods.smooth_grad_cam_pp import _mean

SCORES = ["exp", "softmax", "log_softmax"]
RANDOM = np.random.default_rng(1)
A = np.abs(RANDOM.normal(size=(2, 2, 3))).astype(np.float32)
KERNEL = RANDOM.normal(size=(3, 4)).astype(np.float32)
BENT = np.array([1, 0, 0], np.float32)
"""Of a head that is smooth in its first channel and linear in the others."""
GAPS = {np.float32: (0, 20, 90, 200), np.float64: (0, 40, 300, 700)}
TOLERANCES = {np.float32: 1e-4, np.float64: 1e-12}
SHAPES = np.array([[0, -1, -1, -2], [0, -1, -1.03, -0.5]])
"""What the gap is multiplied by, for each class."""


def head(a, offsets, kernel=KERNEL):
    """Pooling, and a square in the channels of BENT."""
    pooled = a.mean((0, 1))
    if not BENT.any():
        return pooled @ kernel.astype(a.dtype) + offsets.astype(a.dtype)
    return (pooled + pooled**2 * BENT.astype(a.dtype) / 3) @ kernel.astype(a.dtype) + offsets.astype(a.dtype)


def by_many_digits(score, class_idx, offsets):
    """Alpha for each channel, how far its terms cancel, and the weights divided by the largest."""
    with mpmath.workdps(50 + int(-offsets.min())):  # of s_c - sum p s, say, 50 are left
        number = lambda x: mpmath.mpf(float(x))
        sums = [sum(number(x) for x in A[..., k].ravel()) for k in range(3)]
        pooled = [s / 4 for s in sums]
        kernel = [[number(x) for x in row] for row in KERNEL]
        bent = [number(b) / 3 for b in BENT]
        values = [m + b * m**2 for m, b in zip(pooled, bent, strict=True)]
        logits = [sum(v * row[j] for v, row in zip(values, kernel, strict=True)) + number(offsets[j]) for j in range(4)]
        top = max(logits)
        exps = [mpmath.exp(s - top) for s in logits]
        p = [e / sum(exps) for e in exps]
        mean = lambda x: sum(a * b for a, b in zip(p, x, strict=True))
        alphas, conditions, weights = [], [], []
        for m, b, row, total in zip(pooled, bent, kernel, sums, strict=True):
            first, second = [(1 + 2 * b * m) / 4 * w for w in row], [b * w / 8 for w in row]
            # K = log sum exp(S): its derivatives along the element, from the cumulants of first and second.
            k1 = mean(first)
            deviations = [x - k1 for x in first]
            k2 = mean([x**2 for x in deviations]) + mean(second)
            k3 = mean([x**3 for x in deviations]) + 3 * mean([x * y for x, y in zip(deviations, second, strict=True)])
            x1, x2, x3 = {
                "exp": (first[class_idx], second[class_idx], 0),
                "softmax": (first[class_idx] - k1, second[class_idx] - k2, -k3),
                "log_softmax": (first[class_idx] - k1, second[class_idx] - k2, -k3),
            }[score]
            d2, d3 = (x2, x3) if score == "log_softmax" else (x2 + x1**2, x3 + 3 * x1 * x2 + x1**3)
            denominator = 2 * d2 + total * d3
            # What d2 and d3 are sums of, without their signs: where they cancel, digits are lost in any arithmetic.
            curved = [y - mean(second) for y in second]
            terms2 = abs(curved[class_idx]) + mean([x**2 for x in deviations])
            terms3 = mean([abs(x) ** 3 + 3 * abs(x * y) for x, y in zip(deviations, curved, strict=True)])
            if score != "log_softmax":
                terms2, terms3 = terms2 + x1**2, terms3 + 3 * abs(x1) * terms2 + abs(x1) ** 3
            alphas.append(float(d2 / denominator))
            conditions.append(float((2 * terms2 + abs(total) * terms3) / abs(denominator)))
            weights.append(d2 / denominator * max(x1, 0))
        largest = max(abs(w) for w in weights) or 1
        return np.array(alphas), np.array(conditions), np.array([float(w / largest) for w in weights])


@functools.cache
def compiled(score, alphas):
    """Alphas and weights of Grad-CAM++, weights of Grad-CAM: one program for all gaps and classes of a type."""

    @jax.jit
    def run(a, offsets, class_idx):
        # Not proven linear anywhere, and linear in two of three channels.
        traced = head_of(lambda x: head(x, offsets), a, class_idx)
        found = scaled_derivatives(traced, a, class_idx, score=score, alphas=alphas)
        weights = (
            methods.grad_cam_pp_weights(traced, a, class_idx, score=score, alphas=alphas),
            methods.grad_cam_weights(traced, a, class_idx, score=score),
        )
        return exact_alphas(a, found.d2, found.d3)[0, 0], *weights

    return run


@pytest.mark.parametrize("dtype", GAPS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.sample(5)
def test_every_class_at_every_gap_against_many_digits(score, dtype):
    for gap in GAPS[dtype]:
        for offsets in gap * SHAPES:
            for class_idx in range(4):
                found = compiled(score, "exact")(A.astype(dtype), offsets.astype(dtype), np.int32(class_idx))
                alphas, conditions, expected = by_many_digits(score, class_idx, offsets)
                of_alphas = np.abs(np.asarray(found[0], float) - alphas) / np.maximum(np.abs(alphas), 0.01) / conditions
                assert of_alphas.max() < TOLERANCES[dtype], (gap, class_idx)
                weights, plain = (np.array(w, float) for w in found[1:])
                weights /= np.abs(weights).max() or 1
                assert np.abs(weights - expected).max() < TOLERANCES[dtype] * conditions.max(), (gap, class_idx)
                assert (plain != 0).all()


@pytest.mark.parametrize("dtype", GAPS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.sample(5, first=3)
def test_closed_form_at_every_gap_is_the_exact_path(score, dtype, monkeypatch):
    # Of a head that is linear in all channels, on which the two are computed in different ways.
    monkeypatch.setitem(globals(), "BENT", np.zeros(3, np.float32))
    ways = [compiled.__wrapped__(score, alphas) for alphas in ("exact", "closed_form")]
    for gap in GAPS[dtype]:
        offsets = gap * SHAPES[1]
        for class_idx in range(4):
            arguments = A.astype(dtype), offsets.astype(dtype), np.int32(class_idx)
            exact, closed = (run(*arguments) for run in ways)
            alphas, conditions, expected = by_many_digits(score, class_idx, offsets)
            for found in (exact, closed):
                error = np.abs(np.asarray(found[0], float) - alphas) / np.maximum(np.abs(alphas), 0.01) / conditions
                assert error.max() < TOLERANCES[dtype], (gap, class_idx)
                weights = np.array(found[1], float)
                weights /= np.abs(weights).max() or 1
                assert np.abs(weights - expected).max() < TOLERANCES[dtype] * conditions.max(), (gap, class_idx)


def test_a_class_with_a_twin_has_a_map_whatever_the_gap():
    # Classes 0 and 1 are the same, and 2 is far behind: what tells 0 from the rest is 2 alone, with p = exp(-60).
    kernel = KERNEL[:, [0, 0, 2]]
    twins = lambda a: a.mean((0, 1)) @ jnp.asarray(kernel, a.dtype) - jnp.array([0, 0, 60], a.dtype)
    # log p_0 is -log(2 + r) with the small r = exp(S_2 - S_0): its derivatives are multiples of x, -x^2 and x^3.
    slopes = (kernel[:, 0] - kernel[:, 2]) / 4
    alphas = 1 / (2 - A.sum((0, 1)) * slopes)
    expected = alphas * np.maximum(slopes, 0)
    for class_idx in (0, 1):
        found = jax.jit(lambda a, c: methods.grad_cam_pp_weights(twins, a, c, score="log_softmax"))(A, class_idx)
        np.testing.assert_allclose(np.asarray(found) / found.max(), expected / expected.max(), rtol=1e-4)


def test_one_class_is_certain():
    run = lambda score: methods.grad_cam_pp_weights(
        lambda a: a.mean((0, 1)) @ KERNEL[:, :1], jnp.asarray(A), 0, score=score, alphas="exact"
    )
    for found in jax.jit(lambda: [run(score) for score in ("softmax", "log_softmax")])():
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("lead", [0, 30, 600])
def test_the_gradient_of_the_scores_keeps_its_digits_backwards(lead):
    # d log p_w / dS_j = -p_j, although 1 and -1 cancel in d log p_w / dS_w.
    logits = np.array([lead, 0.5, 0.0])
    for score, factor in ((scores.log_softmax, 1), (scores.softmax, 1 / (1 + 2.64872127 * np.exp(-float(lead))))):
        found = jax.jit(jax.grad(lambda s, score=score: score(s, 0)))(logits)
        with mpmath.workdps(50):
            exps = [mpmath.exp(s) for s in logits]
            expected = [float(-e / sum(exps)) for e in exps[1:]]
        expected = factor * np.array([-sum(expected), *expected])
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_log_odds():
    found = jax.jit(lambda s: [scores.log_odds(s, c) for c in range(3)])(np.array([700.0, 0.0, -700.0]))
    np.testing.assert_allclose(found, [700, -700, -1400], rtol=1e-12)
    assert np.isposinf(jax.jit(lambda s: scores.log_odds(s, 0))(np.array([3.0])))


def test_a_mean_in_logarithms():
    values, logs = np.array([[1.0, 2.0], [3.0, 5.0]]), np.log([2.0, 6.0]) - 800
    np.testing.assert_allclose(jax.jit(_mean)(values, logs), [(1 / 3 + 3) / 2, (2 / 3 + 5) / 2], rtol=1e-12)

import dataclasses
import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Polynomial
from support import gap_head, relu_head, smooth_head

from jaxcam import scores
from jaxcam.commands import verify as command
from jaxcam.verification import problem as problems
from jaxcam.verification import sections
from jaxcam.verification.concordance import labelled
from jaxcam.verification.differences import Denominator, Difference
from jaxcam.verification.reference import finite_differences
from jaxcam.verification.verify import verify
from jaxcam.verification.wording import figure, percent


def draws(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def scored(head, c, score):
    return lambda a: scores.resolve(score)(head(a), c)


def relu(x):
    return np.maximum(x, 0)


def apart(x, y):
    """|x - y| / max(|x|, |y|), element by element."""
    return np.abs(x - y) / np.maximum(np.abs(x), np.abs(y))


class ByHand:
    """What a report is about, from full tensors of derivatives, flat."""

    def __init__(self, f, a):
        flat = lambda x: f(x.reshape(a.shape))
        tensors = jax.jit(
            lambda x: (flat(x), jax.grad(flat)(x), jax.hessian(flat)(x), jax.jacfwd(jax.hessian(flat))(x))
        )
        self.y, self.d1, self.hessian, self.third = (np.asarray(t) for t in tensors(a.reshape(-1)))
        self.d2, self.d3 = np.diagonal(self.hessian), np.einsum("eee->e", self.third)
        self.a = np.asarray(a)
        self.sums = np.broadcast_to(self.a.sum(tuple(range(a.ndim - 1))), a.shape).reshape(-1)
        self.channels = np.arange(a.size) % a.shape[-1]
        self.alphas = self.d2 / (2 * self.d2 + self.sums * self.d3)

    def weights(self, alphas):
        return (alphas * relu(self.d1)).reshape(-1, self.a.shape[-1]).sum(0)

    def normalised_map(self, alphas):
        found = relu(self.a @ self.weights(alphas)).reshape(-1)
        return found / found.max()


def figures(difference):
    return [difference.largest, difference.median]


def largest_and_median(gaps):
    return [gaps.max(), np.median(gaps)]


# x = 1, y = 2 are two positions of one channel, Y = x^2 y + x^3 + y^2 = 7, S = 3. By hand: d1 = (7, 5), d2 = (10, 2),
# d3 = (6, 0), alpha = (10 / (20 + 18), 2 / 4), and the only mixed partials are Y_xy = 2 and Y_xxy = 2.
POLYNOMIAL = lambda a: jnp.stack([a[0, 0] ** 2 * a[1, 0] + a[0, 0] ** 3 + a[1, 0] ** 2, a.sum()])
AT = np.array([[1.0], [2.0]])


@pytest.fixture(scope="module")
def polynomial():
    return verify(POLYNOMIAL, AT, 0, score="logit")


@pytest.mark.thorough
def test_polynomial_identity(polynomial):
    # W = 5/19 * 7 + 1/2 * 5 = 165/38, and W S / Y = 165/38 * 3/7.
    np.testing.assert_allclose([polynomial.identity, polynomial.linear_model], 495 / 266, rtol=1e-12)
    assert "Eq. 7, from which alpha is derived, does not hold: its right-hand side is 1.86 Y." in polynomial.sentences


def test_polynomial_equation_4(polynomial):
    kept, mixed = np.array([465 / 38, 279 / 38]), np.array([3.0, 30 / 19])
    found = polynomial.first_step
    np.testing.assert_allclose(found.same_channel.median, np.median(mixed / kept), rtol=1e-12)
    np.testing.assert_allclose(found.same_channel.overall, mixed.sum() / kept.sum(), rtol=1e-12)
    assert found.other_channels.overall == 0
    np.testing.assert_allclose(found.as_printed.largest, np.abs(kept - [7, 5]).max() / 7, rtol=1e-12)
    np.testing.assert_allclose(found.with_mixed_partials.median, np.median(apart(kept + mixed, [7, 5])), rtol=1e-12)


def test_polynomial_equation_5(polynomial):
    # 2 alpha d2 + S alpha d3 is d2 itself; dropped: 2 alpha_y Y_xy + S alpha_y Y_xxy = 5 and 2 alpha_x Y_xy = 20/19.
    found = polynomial.second_step
    assert found.as_printed.largest < 1e-15
    assert polynomial.solved.largest < 1e-15
    np.testing.assert_allclose(found.same_channel.overall, (5 + 20 / 19) / 12, rtol=1e-12)
    np.testing.assert_allclose(found.with_mixed_partials.largest, 0.5, rtol=1e-12)


def test_polynomial_with_the_derivative_of_alpha(polynomial):
    def right_hand_side(x, y):
        alpha_x = (2 * y + 6 * x) / (2 * (2 * y + 6 * x) + (x + y) * 6)
        return (x + y) * (alpha_x * (2 * x * y + 3 * x**2) + (x**2 + 2 * y) / 2)

    twice = lambda f, i: jax.grad(jax.grad(f, i), i)
    derivatives = jax.jit(lambda *at: [[d(right_hand_side, i)(*at) for i in (0, 1)] for d in (jax.grad, twice)])
    for order, step, left, kept_and_mixed in (
        (1, polynomial.first_step, [7, 5], np.array([465 / 38 + 3, 339 / 38])),
        (2, polynomial.second_step, [10, 2], np.array([10 + 5, 2 + 20 / 19])),
    ):
        full = np.array(derivatives(1.0, 2.0)[order - 1])
        kept = [465 / 38, 279 / 38] if order == 1 else [10, 2]
        np.testing.assert_allclose(step.in_full.largest, np.abs(full - left).max() / max(left), rtol=1e-10)
        overall = np.abs(full - kept_and_mixed).sum() / np.sum(kept)
        np.testing.assert_allclose(step.alpha_derivative.overall, overall, rtol=1e-10)


def test_polynomial_nested_tapes(polynomial):
    # Row sums of the Hessian: (12, 4); of the third derivatives: (6 + 2 * 2, 2).
    found = polynomial.nested_tapes
    np.testing.assert_allclose([d.largest for d in found.derivatives], [0, 2 / 10, 4 / 6], rtol=1e-12)
    np.testing.assert_allclose([found.alphas.largest, found.alphas.median], [3 / 7, (7 / 45 + 3 / 7) / 2], rtol=1e-12)


def test_polynomial_denominator_and_finite_differences(polynomial):
    assert polynomial.denominator == Denominator(2, 1.0, 0, 0, 0)
    finite = polynomial.finite_differences
    assert (finite.differences[0].num_elements, finite.num_left_out) == (2, 0)
    assert max(x.largest for x in finite.differences) < 1e-10
    assert polynomial.closed_form is None
    assert polynomial.sentences[0].startswith("There is no closed form for the score logit")


@pytest.mark.thorough
def test_denominator_that_crosses_zero():
    # Y = sum of x^2 + u x^3 / 6 at x = 1/2: d2 = 2 + u / 2, d3 = u, S = 1. u = -1 gives alpha = 1.5 / (3 - 1), u = -3
    # gives 0.5 / (1 - 3), and the terms of the denominators cancel to 2 / 4 in both.
    u = np.array([[-1.0], [-3.0]])
    v = verify(lambda a: (a**2 + u * a**3 / 6).sum(0), np.full((2, 1), 0.5), 0, score="logit")
    d = v.denominator
    assert (d.num_elements, d.num_negative, d.num_ill_conditioned, d.num_channels_crossing) == (2, 1, 1, 1)
    np.testing.assert_allclose(d.smallest, 0.5, rtol=1e-12)
    assert any(text.startswith("Alpha is ill-conditioned at 50 % of the elements") for text in v.sentences)


A = np.abs(draws(0, 3, 2, 3))
KERNEL = draws(1, 3, 4)
RELU, SMOOTH, SMOOTH_GELU = (
    relu_head((3, 2), 3, 4),
    *(smooth_head((3, 2), 3, 4, activation=activation) for activation in (jnp.tanh, jax.nn.gelu)),
)


@functools.cache
def verified(head, class_idx, score="exp"):
    """A verification that several tests look at."""
    return verify(head, A, class_idx, score=score)


@functools.cache
def by_hand(head, class_idx, score):
    return ByHand(scored(head, class_idx, score), A)


@pytest.fixture(params=["exp", pytest.param("softmax", marks=pytest.mark.thorough)])
def on_relu(request):
    return verified(RELU, 1, request.param), by_hand(RELU, 1, request.param)


def test_closed_form_is_exact_on_a_relu_head(on_relu):
    v, _ = on_relu
    assert v.piecewise_linear
    assert v.closed_form_holds
    assert v.closed_form_gap < 1e-12
    assert v.closed_form.maps.map_difference < 1e-12
    assert max(d.largest for d in (*v.grad_and_jvp, *v.exact_and_nested, *v.closed_form.derivatives)) < 1e-13
    assert v.sentences[0].startswith("Closed form exact on this head: proven piecewise linear; largest relative")
    assert "finite differences confirm them at" in v.sentences[1]


def test_nested_tapes_are_row_sums_of_the_hessian(on_relu):
    v, true = on_relu
    rows2, rows3 = true.hessian.sum(1), true.third.sum((1, 2))
    _, second, third = v.nested_tapes.derivatives
    np.testing.assert_allclose(second.largest, np.abs(rows2 - true.d2).max() / np.abs(true.d2).max())
    np.testing.assert_allclose(third.largest, np.abs(rows3 - true.d3).max() / np.abs(true.d3).max())
    gaps = apart(rows2 / (2 * rows2 + true.sums * rows3), true.alphas)[true.d1 > 0]
    np.testing.assert_allclose(figures(v.nested_tapes.alphas), largest_and_median(gaps))


@pytest.mark.thorough
def test_distance_from_grad_cam_positive(on_relu):
    v, true = on_relu
    w, plain = true.weights(true.alphas), true.weights(1)
    maps = true.normalised_map(true.alphas), true.normalised_map(1)
    found = v.grad_cam_positive
    np.testing.assert_allclose(found.weights_cosine, w @ plain / np.linalg.norm(w) / np.linalg.norm(plain))
    np.testing.assert_allclose(found.map_correlation, np.corrcoef(*maps)[0, 1])
    np.testing.assert_allclose(found.map_difference, np.abs(maps[0] - maps[1]).max())


def test_exponential_equations_on_a_relu_head(on_relu):
    v, _ = on_relu
    if v.score != "exp":
        assert v.exponential is None
        return
    e = v.exponential
    assert max(d.largest for d in (e.first, e.second, e.second_linear, e.third_linear)) < 1e-14
    assert e.curvature.overall == 0


@pytest.mark.thorough
def test_identity_and_dropped_terms_on_a_gap_head():
    # Y = exp(S), g_k = w_k / n at every position. Everything in Eq. 7 to 9 follows from g_k and S_k alone.
    a, kernel, n = np.abs(draws(0, 4, 3)), draws(1, 3, 2), 4
    v = verify(gap_head(kernel), a, 1)
    g, sums = kernel[:, 1] / n, a.sum(0)
    assert g.min() < 0 < g.max()
    alpha = 1 / (2 + sums * g)
    w = n * alpha * g
    np.testing.assert_allclose(v.identity, w @ sums, rtol=1e-12)
    np.testing.assert_allclose(v.linear_model, relu(w) @ sums, rtol=1e-12)
    kept = w + sums * alpha * g**2
    same = sums * g * (w - alpha * g)
    other = g * (w @ sums - w * sums)
    assert v.first_step.same_channel.overall == pytest.approx(np.abs(same).sum() / np.abs(kept).sum(), rel=1e-10)
    assert v.first_step.other_channels.overall == pytest.approx(np.abs(other).sum() / np.abs(kept).sum(), rel=1e-10)
    assert v.first_step.mixed_partials.overall == pytest.approx(
        np.abs(same + other).sum() / np.abs(kept).sum(), rel=1e-10
    )
    # alpha depends on A through S_k only: S_k * sum over the channel of (-g / (2 + S g)^2) exp(S) g.
    by_alpha = sums * n * g * -g * alpha**2
    assert v.first_step.alpha_derivative.overall == pytest.approx(
        np.abs(by_alpha).sum() / np.abs(kept).sum(), rel=1e-10
    )


@pytest.fixture(params=[SMOOTH, pytest.param(SMOOTH_GELU, marks=pytest.mark.thorough)], ids=["tanh", "gelu"])
def on_smooth(request):
    return verified(request.param, 3), by_hand(request.param, 3, "exp"), by_hand(request.param, 3, "logit")


def test_closed_form_fails_on_a_smooth_head_by_the_brute_force_figure(on_smooth):
    v, true, logit = on_smooth
    closed = 1 / (2 + true.sums * logit.d1)
    gaps = apart(closed, true.alphas)[true.d1 > 0]
    assert gaps.max() > 0.01
    np.testing.assert_allclose(figures(v.closed_form.alphas), largest_and_median(gaps))
    np.testing.assert_allclose(figures(v.closed_form_at_sample), largest_and_median(gaps))
    assert not v.piecewise_linear
    assert v.closed_form_holds is False
    assert v.sentences[0].startswith(
        "Closed form does not hold: the head is not proven piecewise linear, and alphas differ by up to "
        + figure(gaps.max())
    )
    gap = np.abs(true.normalised_map(true.alphas) - true.normalised_map(closed)).max()
    assert gap > 1e-3
    np.testing.assert_allclose(v.closed_form.maps.map_difference, gap, rtol=1e-8)


def test_exponential_equations_on_a_smooth_head(on_smooth):
    v, true, logit = on_smooth
    assert v.exponential.first.largest < 1e-14
    assert v.exponential.second.largest < 1e-14
    second, third = np.abs(true.y * logit.d2).max(), np.abs(true.y * logit.d1**3 - true.d3).max()
    np.testing.assert_allclose(v.exponential.second_linear.largest, second / np.abs(true.d2).max())
    np.testing.assert_allclose(v.exponential.third_linear.largest, third / np.abs(true.d3).max())
    np.testing.assert_allclose(v.exponential.curvature.overall, np.abs(logit.d2).sum() / (logit.d1**2).sum())


@pytest.mark.parametrize("used", [False, True], ids=["derived", "with the ReLU"])
@pytest.mark.sample(2)
def test_dropped_mixed_partials_equal_brute_force_on_a_smooth_head(on_smooth, used):
    v, true, _ = on_smooth
    among = true.d1 > 0 if used else np.full(18, True)
    k, sums, alphas = true.channels, true.sums, true.alphas * among
    w = (alphas * true.d1).reshape(-1, 3).sum(0)[k]
    kept = w + sums * alphas * true.d2, 2 * alphas * true.d2 + sums * alphas * true.d3
    along = np.einsum("eef->ef", true.third)
    same, other = np.zeros((2, 18)), np.zeros((2, 18))
    for e in range(18):
        for f in range(18):
            once, twice = alphas[f] * true.hessian[e, f], alphas[f] * along[e, f]
            if k[f] != k[e]:
                other[:, e] += sums[f] * once, sums[f] * twice
            elif f != e:
                same[:, e] += sums[e] * once, 2 * once + sums[e] * twice
    for i, step in enumerate((v.first_step_used, v.second_step_used) if used else (v.first_step, v.second_step)):
        left, own, others = (true.d1, true.d2)[i][among], same[i][among], other[i][among]
        terms = kept[i][among]
        np.testing.assert_allclose(step.same_channel.median, np.median(np.abs(own / terms)), rtol=1e-9)
        np.testing.assert_allclose(step.other_channels.median, np.median(np.abs(others / terms)), rtol=1e-9)
        assert step.mixed_partials.share_larger == (np.abs(own + others) > np.abs(terms)).mean()
        gap = np.abs(terms - left).max() / np.abs(left).max()
        np.testing.assert_allclose(step.as_printed.largest, gap, rtol=1e-9, atol=1e-12)
        total = terms + own + others
        np.testing.assert_allclose(step.with_mixed_partials.median, np.median(apart(total, left)), rtol=1e-9)


@pytest.mark.thorough
def test_derivative_of_alpha_on_a_smooth_head():
    # Y = F(z) with z = w a and F(z) = exp(tanh(z)): d_n = w_e^n F_n, so alpha_e = F_2 / (2 F_2 + S_k w_e F_3).
    # With t = tanh(z) and t' = 1 - t^2, F_n = exp(t) P_n(t) for the polynomials P_n = (1 - t^2) (P + P') of the last.
    a, w = np.abs(draws(0, 2, 2)), draws(1, 2, 2)
    polynomials = [Polynomial([1.0])]
    for _ in range(3):
        polynomials.append(Polynomial([1, 0, -1]) * (polynomials[-1] + polynomials[-1].deriv()))

    def f(n, z):
        t = jnp.tanh(z)
        return jnp.exp(t) * sum(c * t**i for i, c in enumerate(polynomials[n].coef.tolist()))

    def right_hand_side(x, among):
        z, sums = (w * x).sum(), x.sum(0, keepdims=True)
        return (f(2, z) / (2 * f(2, z) + sums * w * f(3, z)) * w * f(1, z) * among * sums).sum()

    v, z = verify(lambda x: jnp.tanh((w * x).sum()).reshape(1), a, 0), (w * a).sum()
    first, second = jax.grad(right_hand_side), jax.hessian(right_hand_side)
    both = jax.jit(lambda x, among: (first(x, among), second(x, among), f(1, z), f(2, z)))
    # F' is positive, and so d1 > 0 where w > 0: what the ReLU leaves.
    for among, steps in (
        (np.ones((2, 2)), (v.first_step, v.second_step)),
        (1.0 * (w > 0), (v.first_step_used, v.second_step_used)),
    ):
        once, twice, f1, f2 = (np.asarray(found) for found in both(a, among))
        twice = np.diagonal(twice.reshape(4, 4)).reshape(2, 2)
        for step, full, left in zip(steps, (once, twice), (w * f1, w**2 * f2), strict=True):
            gap, size = (np.abs(each)[among > 0].max() for each in (full - left, left))
            np.testing.assert_allclose(step.in_full.largest, gap / size, rtol=1e-8)


@pytest.mark.thorough
def test_only_a_sample_of_a_large_smooth_head_is_looked_at(monkeypatch):
    monkeypatch.setattr(problems, "_MAX_ELEMENTS", 17)
    v = verify(SMOOTH, A, 3, num_sampled=8, seed=3)
    true, logit = (by_hand(SMOOTH, 3, score) for score in ("exp", "logit"))
    # The sample is what numpy's permutation puts first: no element of this head is without a gradient.
    sample = np.sort(np.random.default_rng(3).permutation(18)[:8])
    gaps = apart(1 / (2 + true.sums * logit.d1), true.alphas)[sample][true.d1[sample] > 0]
    assert (v.num_exact, v.num_sampled) == (8, 8)
    np.testing.assert_allclose(figures(v.closed_form.alphas), largest_and_median(gaps))
    gap = np.abs(true.hessian.sum(1) - true.d2)[sample].max() / np.abs(true.d2[sample]).max()
    np.testing.assert_allclose(v.nested_tapes.derivatives[1].largest, gap)
    assert (v.identity, v.first_step, v.closed_form.maps, v.grad_cam_positive) == (None,) * 4
    assert str(v).splitlines()[2] == "Only a sample of 8 elements (seed 3) was looked at."


def test_finite_differences_of_a_function_with_known_derivatives():
    a = jnp.asarray([0.3, -1.2, 2.0])
    f = jax.tree_util.Partial(lambda x: jnp.sin(x[0]) * jnp.exp(x[1]) + x[2] ** 5)
    found = finite_differences(f, a, np.array([2, 0]), eps=2.2e-16)
    expected = [[80, 160, 240], np.exp(-1.2) * np.array([np.cos(0.3), -np.sin(0.3), -np.cos(0.3)])]
    np.testing.assert_allclose(found.derivatives, np.array(expected).T, rtol=1e-7)
    assert (np.abs(found.derivatives - np.array(expected).T) <= 10 * found.uncertainties).all()


def test_finite_differences_find_that_a_derivative_is_zero():
    # exp(-x^4) at 0: D2(h) is about -2 h^2 and never agrees with itself until it is lost in the noise, and about
    # -2 / h^2 far out, which looks small.
    f = jax.tree_util.Partial(lambda x: jnp.exp(-(x[0] ** 4)) + 0 * x[1])
    found = finite_differences(f, jnp.asarray([0.0, 1.0]), np.array([0]), eps=2.2e-16)
    assert (found.uncertainties < 1e-5).all()
    assert (np.abs(found.derivatives) <= found.uncertainties).all()


def test_finite_differences_of_a_bounded_function_in_float32():
    # Far out all differences of a sine are small, and those of some steps agree by chance.
    x = np.random.default_rng(0).normal(size=100)
    f = jax.tree_util.Partial(lambda x: jnp.sin(5 * x.astype(jnp.float32)).astype(jnp.float64).sum())
    found = finite_differences(f, jnp.asarray(x), np.arange(100), eps=1.2e-7, rounding=1.2e-7)
    expected = np.stack([5 * np.cos(5 * x), -25 * np.sin(5 * x), -125 * np.cos(5 * x)])
    for derivative, true in zip(found.derivatives, expected, strict=True):
        np.testing.assert_allclose(derivative, true, atol=0.01 * np.abs(true).max())


def test_finite_differences_are_not_fooled_by_many_small_kinks():
    # exp(x / 3) and five kinks of slope 1/50 near every element: what settles must be right.
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    kinks = x[:, None] + rng.uniform(-1, 1, size=(300, 5))
    f = jax.tree_util.Partial(lambda a: (jnp.exp(a / 3) + jax.nn.relu(a[:, None] - kinks).sum(1) / 50).sum())
    found = finite_differences(f, jnp.asarray(x), np.arange(300), eps=2.2e-16, rounding=300 * 2.2e-16)
    slopes = (x[:, None] > kinks).sum(1) / 50
    expected = np.stack([np.exp(x / 3) / 3 + slopes, np.exp(x / 3) / 9, np.exp(x / 3) / 27])
    scale = np.abs(expected).max(1, keepdims=True)
    settled = (found.uncertainties <= 1e-4 * scale).all(0)
    assert 30 < settled.sum() < 300
    assert (np.abs(found.derivatives - expected)[:, settled] <= 1e-3 * scale).all()


def by_finite_differences(head, a):
    problem = problems.problem(head, np.array(a), 0, score="exp")
    elements = np.arange(len(a))
    derivatives = np.asarray(problems.derivatives_at(problem.f, problem.a, elements))
    return sections.by_finite_differences(problem, elements, derivatives, eps=2.2e-16)


def test_finite_differences_at_a_kink_are_left_out():
    # x sits on the kink: JAX takes slope 0 there, a central difference takes one half. y is smooth.
    found = by_finite_differences(lambda a: jax.nn.relu(a[0] - 1) + a[1], [[1.0], [0.5]])
    assert (found.num_left_out, found.differences[0].num_elements) == (1, 1)
    assert max(d.largest for d in found.differences) < 1e-8


def test_finite_differences_step_between_a_kink_and_the_point():
    found = by_finite_differences(lambda a: 2 * jax.nn.relu(a[0] - 1) + a[1], [[1.01], [0.5]])
    assert found.num_left_out == 0
    assert max(d.largest for d in found.differences) < 1e-4


def test_finite_differences_contradict_a_wrong_derivative():
    v = verify(lambda a: (a * jax.lax.stop_gradient(a)).sum(0), np.array([[1.0], [0.5]]), 0)
    np.testing.assert_allclose(v.finite_differences.differences[0].largest, 1.0, rtol=1e-6)  # 2 x against x
    assert "finite differences contradict them at 2 of 2 elements" in v.sentences[1]


@jax.custom_vjp
def squared(x):
    return x**2


squared.defvjp(lambda x: (x**2, x), lambda x, y: (2 * x * y,))


@pytest.mark.thorough
def test_a_head_without_forward_derivative():
    v = verify(lambda a: jnp.stack([squared(a).sum()]), np.array([[1.0], [0.5]]), 0)
    assert v.grad_and_jvp is None
    assert max(d.largest for d in v.finite_differences.differences) < 1e-8
    assert v.sentences[1].startswith("The head allows only one of the two compositions; finite differences confirm")


def test_float32_session_gets_float64_figures():
    with jax.enable_x64(False):
        kernel, a = (jnp.asarray(x, jnp.float32) for x in (KERNEL, np.abs(draws(2, 3, 2, 3))))
        assert a.dtype == kernel.dtype == jnp.float32
        v = verify(gap_head(kernel), a, 1)
        assert jnp.asarray(np.ones(())).dtype == jnp.float32
    assert v.precision == "float64"
    assert max(d.largest for d in v.exact_and_nested) < 1e-14
    assert v.closed_form_gap < 1e-12


@pytest.mark.thorough
@pytest.mark.parametrize("refuses", [True, False])
def test_head_that_works_in_float32(refuses):
    kernel = KERNEL.astype(np.float32)

    def head(a):
        if refuses and a.dtype != jnp.float32:
            raise TypeError("float32 only")
        return jnp.sin(a.astype(jnp.float32)).mean((0, 1)) @ kernel

    v = verify(head, np.abs(draws(2, 3, 2, 3, dtype=np.float32)), 1, num_sampled=8)
    assert v.precision == "float32"
    assert 1e-7 < v.finite_differences.differences[1].largest < 1e-2
    assert "finite differences confirm" in v.sentences[1]
    assert "The head computes in float32" in str(v)


@pytest.mark.thorough
def test_large_logits_do_not_overflow():
    v = verify(lambda x: gap_head(KERNEL)(x) + 2000.0, A, 1)
    g, sums = KERNEL[:, 1] / 6, A.sum((0, 1))
    assert v.closed_form_gap < 1e-11
    np.testing.assert_allclose(v.identity, (6 * g / (2 + sums * g)) @ sums, rtol=1e-9)


@pytest.mark.thorough
def test_softmax_of_a_nearly_certain_class():
    # 1 - p = 1e-13: S_c - log sum exp(S) would have no digit left of the gradient.
    a, kernel = A, KERNEL
    v = verify(lambda x: gap_head(kernel)(x) + np.array([0.0, 30.0, 0.0, 0.0]), a, 1, score="softmax")
    assert max(d.largest for d in v.grad_and_jvp) < 1e-13
    assert (v.finite_differences.num_left_out, v.closed_form_holds) == (0, True)
    assert max(d.largest for d in v.finite_differences.differences) < 1e-6
    # For small q = 1 - p, Y is 1 - q up to q^2: d1 = -dq / dA, with q = sum_j exp(S_j - S_c).
    logits = gap_head(kernel)(a)
    q = np.exp(logits - logits[1] - 30) * (np.arange(4) != 1)
    slopes = (kernel[:, 1:2] - kernel) / 6
    d1, d2, d3 = (sign * (slopes**n) @ q for n, sign in ((1, 1), (2, -1), (3, 1)))
    sums = a.sum((0, 1))
    np.testing.assert_allclose(v.identity, (6 * d2 / (2 * d2 + sums * d3) * d1) @ sums, rtol=1e-9)


def test_closed_form_that_disagrees_with_either_exact_computation_does_not_hold(on_relu):
    v, _ = on_relu
    other = dataclasses.replace(v, closed_form_at_sample=Difference(5, 0.5, 0.25))
    assert (other.closed_form_gap, other.closed_form_holds) == (0.5, False)
    assert other.sentences[0] == (
        "Closed form contradicted: the head is proven piecewise linear, yet alphas differ by up to 0.5."
    )


def test_sample_is_seeded_and_takes_elements_without_a_gradient_too():
    a = np.abs(draws(0, 20, 2))
    head = lambda x: jnp.stack([x[:10].sum(), x[:10, 0].sum()])
    problem = problems.problem(head, a, 0, score="exp")
    found = problems.sample(problem, 16, 5)
    np.testing.assert_array_equal(found, problems.sample(problem, 16, 5))
    assert (len(set(found)), (found < 20).sum()) == (16, 14)
    assert set(found) != set(problems.sample(problem, 16, 6))
    assert problems.sample(problem, 100, 0).size == 40


@pytest.mark.thorough
def test_dead_head():
    # The hidden layer is dead at these activations: no gradient, no weights, and no division by zero on the way.
    v = verify(lambda a: jnp.stack([jax.nn.relu(a.sum() - 10), a.sum()]), np.ones((2, 2)), 0)
    assert "No element has a positive gradient" in v.verdict
    assert v.denominator.num_elements == 0
    assert json.loads(json.dumps(v.to_dict()))["denominator"]["smallest"] is None


def test_to_dict_round_trips_through_json(on_smooth):
    v = on_smooth[0]
    found = v.to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["closed_form"]["alphas"]["largest"] == v.closed_form.alphas.largest
    assert found["finite_differences"]["differences"][2]["largest"] == v.finite_differences.differences[2].largest
    assert found["verdict"] == " ".join(v.sentences)


def test_table(on_smooth):
    v = on_smooth[0]
    lines = str(v).splitlines()
    assert max(map(len, lines)) <= 100
    rows = {line[2:48].strip(): line[48:].split() for line in lines if len(line) > 48}
    d = v.closed_form.alphas
    assert rows["closed form against exact"] == [str(d.num_elements), figure(d.median), figure(d.largest)]
    tapes = v.nested_tapes.derivatives
    first = next(line for line in lines if "three nested tapes against exact" in line)
    assert first[48:].split() == ["18", *(figure(x.largest) for x in tapes)]
    assert rows["1   Y = sum_k w_k S_k, w_k by 5"] == [figure(v.linear_model), "Y"]
    used = v.first_step_used.same_channel, v.second_step_used.same_channel
    cells = [cell for r in used for cell in (figure(r.median), *percent(r.share_larger, 1).split())]
    assert rows["within the channel"] == cells
    assert rows[labelled(9)] == [figure(v.second_step.as_printed.median), figure(v.second_step.as_printed.largest)]
    assert lines[1] == "The head computes in float64 and is not proven to be piecewise linear."
    assert lines[2] == "All elements were looked at in every way."
    sampled = str(dataclasses.replace(v, num_sampled=8, seed=5)).splitlines()[2]
    assert sampled == "What takes a pass for each element is from a sample of 8 of them (seed 5)."


def test_documented_errors():
    a, head = A, RELU
    check = inspect.unwrap(verify)
    with pytest.raises(ValueError, match=r'alpha is 0/0. Use score="exp"'):
        check(head, a, 0, score="logit")
    with pytest.raises(ValueError, match="class_idx=4 is out of range: the head has 4 classes"):
        check(head, a, 4)
    with pytest.raises(ValueError, match="class_idx=-1 is out of range: the head has 4 classes"):
        check(head, a, -1)
    with pytest.raises(TypeError, match="class_idx must be an integer"):
        check(head, a, 1.0)
    with pytest.raises(ValueError, match="score='prob' is not known"):
        check(head, a, 0, score="prob")
    with pytest.raises(ValueError, match=r"at least one spatial axis, but their shape is \(3,\)"):
        check(lambda x: x, np.ones(3), 0)
    with pytest.raises(ValueError, match=r"head must return logits \[c\] for one image, but returned \(1, 4\)"):
        check(lambda x: head(x)[None], a, 0)
    with pytest.raises(TypeError, match="activations must be floating point but its dtype is int"):
        check(head, np.ones((3, 2, 3), np.int32), 0)
    with pytest.raises(TypeError, match="activations must be an array"):
        check(head, [[1.0]], 0)
    with pytest.raises(ValueError, match=r"activations are empty: their shape is \(0, 3\)"):
        check(head, np.ones((0, 3)), 0)
    with pytest.raises(ValueError, match="activations must be finite"):
        check(head, np.where(a == a.max(), np.nan, a), 0)
    with pytest.raises(TypeError, match="activations must be concrete: verify gives a report"):
        jax.jit(lambda x: check(head, x, 0))(a)
    with pytest.raises(ValueError, match="num_sampled must be at least 1 but is 0"):
        check(head, a, 0, num_sampled=0)
    with pytest.raises(TypeError, match=r"seed must be an integer but is 0\.5"):
        check(head, a, 0, seed=0.5)
    with pytest.raises(ValueError, match="the score is not finite at these activations"):
        check(lambda x: jnp.log(x[0, 0] * 0) * x[0, 0], a, 0)
    with pytest.raises(ValueError, match="the score has derivatives that are not finite"):
        check(lambda x: jnp.sqrt(x[0, 0] - x[0, 0]) + x[0, 0], a, 0)


@pytest.fixture
def small_cases(monkeypatch):
    """The command on the small heads that are verified above, in the place of the networks."""
    network = command._Case("mini_vgg", "mini_vgg on a scene", RELU, A, 1)
    monkeypatch.setattr(command, "_networks", lambda names, seed: [network] * len(names))
    smooth = network._replace(name="smooth", head=SMOOTH, class_idx=3)
    monkeypatch.setattr(command, "_smooth_head", lambda seed: smooth)

    def known(head, activations, class_idx, *, score, seed):
        assert activations is A
        return dataclasses.replace(verified(head, class_idx, score), seed=seed)

    monkeypatch.setattr(command, "verify", known)
    return known


@pytest.mark.thorough
def test_command_prints_tables_and_writes_json(small_cases, tmp_path, capsys):
    file = tmp_path / "found.json"
    assert command.run(["--model", "mini_vgg", "--seed", "2", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    direct = small_cases(RELU, A, 1, score="exp", seed=2)
    assert out.startswith(f"mini_vgg on a scene\n{'=' * 100}\n{direct}\n")
    assert max(map(len, out.splitlines())) <= 100
    entries = json.loads(file.read_text())
    assert [(entry["score"], entry["piecewise_linear"]) for entry in entries] == [
        ("exp", True),
        ("exp", False),
        ("softmax", True),
    ]
    assert entries[0] == {"head": "mini_vgg on a scene", **direct.to_dict()}
    rows = [line.split() for line in out[out.index("In short") :].splitlines()[1:4]]
    assert [row[:3] for row in rows] == [
        ["mini_vgg", "exp", "proven"],
        ["smooth", "exp", "not"],
        ["mini_vgg", "softmax", "proven"],
    ]
    for entry, row in zip(entries, rows, strict=True):
        assert row[-2:] == [
            figure(entry[name]["map_difference"] if name != "nested_tapes" else entry[name]["maps"]["map_difference"])
            for name in ("nested_tapes", "grad_cam_positive")
        ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vgg99"], "--model: 'vgg99' has no built-in weights: use one or more of mini_resnet, mini_vgg"),
        (["--score", "logit"], "--score logit: the second and third derivatives of a ReLU network's logit are zero"),
        (["--score", "prob"], "--score: 'prob' is not known: use one of exp, softmax, log_softmax"),
        (["--json", "."], "--json: '.' is a folder"),
        (["--json", "no/such/folder/x.json"], "--json: there is no folder 'no/such/folder'"),
    ],
)
def test_command_refuses_in_one_line(arguments, message, capsys):
    assert command.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"jaxcam: {message}")
    assert err.count("\n") == 1


@pytest.mark.thorough
def test_command_refuses_a_seed_that_is_none(capsys):
    with pytest.raises(SystemExit) as ended:
        command.run(["--seed", "-1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("must be a whole number from 0 to 2**32 - 1, not '-1'\n")


@pytest.mark.thorough
def test_command_on_the_embedded_networks(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert command.run(["--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.count("Closed form exact on this head: proven piecewise linear") == 2
    assert out.count("Closed form does not hold") == 1
    assert max(map(len, out.splitlines())) <= 100
    entries = json.loads(file.read_text())
    assert [entry["closed_form_holds"] for entry in entries] == [True, True, False, True, True]
    assert all(d["largest"] < 1e-10 for entry in entries for d in entry["grad_and_jvp"])

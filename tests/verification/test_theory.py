"""When the derivation of Grad-CAM++ holds, and what Grad-CAM++ does: theorems on random heads, and counterexamples."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import relu_head

import jaxcam
from jaxcam.verification import EQUATIONS, concordance, equations, regime
from jaxcam.verification import problem as problems
from jaxcam.verification.concordance import equation, labelled


def derivation(function, a):
    """The alphas, the ratio of Eq. 7, and what Eq. 8 and 9 are off by, as `verify` works them out."""
    with problems.in_float64():
        problem = problems.problem(lambda a: jnp.stack([function(a), a.sum()]), a, 0, score="logit")
        known = problems.exact(problem, np.arange(a.size))
        steps, _ = equations.differentiated(
            problem.f, problem.a, known.elements, derivatives=known.derivatives, alphas=known.alphas, with_alpha=True
        )
        weights = problem.by_channel(known.alphas * known.derivatives[0]).sum(0)
        return known.alphas, equations.identity_ratio(problem.y, weights, problem.by_channel(a)), *steps


def test_the_derivation_holds_for_powers():
    # One position in every channel, Y = sum_k C_k A_k^p_k: no mixed partials, and alpha = 1 / p_k whatever A is.
    random = np.random.default_rng(0)
    a, p, c = random.uniform(0.5, 2, (1, 5)), random.uniform(1.5, 4, (1, 5)), random.normal(size=(1, 5))
    alphas, identity, *steps = derivation(lambda x: (c * x**p).sum(), a)
    np.testing.assert_allclose(alphas, 1 / p[0], rtol=1e-12)
    np.testing.assert_allclose(identity, 1, rtol=1e-12)
    for step in steps:
        assert max(step.as_printed.largest, step.with_mixed_partials.largest, step.in_full.largest) < 1e-12
        assert step.mixed_partials.overall < 1e-12


@pytest.mark.parametrize(
    ("y", "at", "identity", "eq_8", "in_full"),
    [
        # Y = exp(A): u = S g = A. R = Y u / (2 + u) is 0.2 Y; Eq. 8 gives d1 (1 + u) / (2 + u) = 0.6 d1; and R has the
        # derivative d1 (u / (2 + u) + 2 / (2 + u)^2) = 0.52 d1: that of alpha repairs nothing, since R is not Y.
        (jnp.exp, [0.5], 0.2, 0.4, 0.48),
        # Y = A^2 + 1/A at 2: d1 = 15/4, d2 = 9/4, d3 = -3/8, alpha = 3/5 = Y / (A d1). R is Y, though alpha moves:
        # Eq. 8 gives 9/4 + 27/10 = 99/20 instead of 15/4, and here the derivative of alpha is what is missing.
        (lambda x: x**2 + 1 / x, [2.0], 1.0, 0.32, 0.0),
        # Y = x^2 + y^2 in one channel: alpha is 1/2, constant, and nothing is mixed, but R = (x + y)^2 is 9 and not 5.
        # So Eq. 8 is the true derivative of R, 6 and 6, instead of 4 and 2. (For x^2 - y^2 all would hold.)
        (lambda x: x * x, [2.0, 1.0], 1.8, 1.0, 1.0),
        pytest.param(
            lambda x: x * x * np.array([[1.0], [-1.0]]), [2.0, 1.0], 1.0, 0.0, 0.0, marks=pytest.mark.thorough
        ),
    ],
    ids=["exp", "two powers", "squares", "saddle"],
)
def test_where_an_equation_holds_and_where_not(y, at, identity, eq_8, in_full):
    _, ratio, first, second = derivation(lambda x: y(x).sum(), np.array(at)[:, None])
    found = ratio, first.as_printed.largest, first.in_full.largest, second.as_printed.largest
    np.testing.assert_allclose(found, [identity, eq_8, in_full, 0], rtol=1e-9, atol=1e-12)


SHAPE = (4, 3)


@pytest.fixture(scope="module")
def heads():
    """Random ReLU heads from tame to violent: g by NumPy's own rules, exact alphas by derivatives of exp(S)."""
    random = np.random.default_rng(1)
    w1, w2 = random.normal(size=(20, 12, 9)), random.normal(size=(20, 9))
    scale = 10.0 ** np.linspace(-2, 2, 20)
    a = np.abs(random.normal(size=(20, *SHAPE)))

    def exact(a, w1, w2):
        score = lambda x: jnp.exp(jax.nn.relu(x.reshape(-1) @ w1) @ w2)
        d1, d2, d3 = jaxcam.elementwise_derivatives(score, a, method="jvp")
        return d1, jaxcam.exact_alphas(a, d2, d3)

    # exp(S) itself would overflow in the violent ones: S is divided by the scale there, and A multiplied.
    hidden = np.einsum("nj,nji->ni", a.reshape(20, -1), w1) > 0
    g = np.einsum("nji,ni->nj", w1, hidden * w2).reshape(20, *SHAPE) * scale[:, None, None] / 12
    w2 = w2 * scale[:, None] / 12
    offset = np.einsum("ni,ni->n", np.maximum(np.einsum("nj,nji->ni", a.reshape(20, -1), w1), 0), w2)
    tame = np.abs(offset) < 300
    d1, alphas = jax.jit(jax.vmap(exact))(a[tame], w1[tame], w2[tame])
    y = np.exp(offset[tame])[:, None, None]
    return a[tame], g[tame], np.asarray(d1) / y, np.asarray(alphas)


def test_alphas_lie_within_their_bounds_at_every_element(heads):
    a, g, d1, alphas = heads
    np.testing.assert_allclose(d1, g, rtol=1e-9)
    u = a.sum(1, keepdims=True) * g
    assert len(a) >= 12
    assert (u > 30).sum() > 5
    assert ((u > 0) & (u < 0.1)).sum() > 10
    rounding = 1e-12
    for eps in (0.05, 0.5, 5.0, 50.0):
        small = (u >= 0) & (u <= eps) & (g > 0)
        assert (alphas[small] >= 1 / (2 + eps) - rounding).all()
        assert (alphas[small] <= 0.5 + rounding).all()
        large = (u >= eps) & (g > 0)
        counts = (alphas * g * a.sum(1, keepdims=True))[large]
        assert (counts >= eps / (2 + eps) - rounding).all()
        assert (counts <= 1 + rounding).all()
    for n in range(len(a)):
        highest = u[n][g[n] > 0].max(initial=0)
        weights, plain = (np.where(g[n] > 0, each, 0).sum(0) for each in (alphas[n] * g[n], g[n] / 2))
        assert (weights <= plain + rounding).all()
        assert (weights >= plain * (1 - highest / (2 + highest)) - rounding).all()


def test_regime_by_numpy():
    kernel, a = np.random.default_rng(2).normal(size=(12, 4)), np.abs(np.random.default_rng(3).normal(size=SHAPE))
    found = regime(lambda x: x.reshape(-1) @ kernel * 3, a, 1)
    g, sums = 3 * kernel[:, 1].reshape(SHAPE), a.sum(0)
    u, there = sums * g, g > 0
    np.testing.assert_allclose(found.quantiles, np.quantile(u[there], [0.05, 0.25, 0.5, 0.75, 0.95]))
    np.testing.assert_allclose(found.extremes, [u[there].min(), u[there].max()])
    np.testing.assert_allclose(found.alpha_bounds, [1 / (2 + u[there].max()), 1 / (2 + u[there].min())])
    added = np.where(there, g / (2 + u), 0)
    shares = [added[where].sum() / added.sum() for where in (u <= 0.2, (u > 0.2) & (u < 20), u >= 20, u < 0)]
    assert sum(share > 0 for share in shares) >= 2
    np.testing.assert_allclose([found.grad_cam_positive, found.between, found.counting, found.beyond], shares)
    for maps, terms in (
        (found.from_grad_cam_positive, np.maximum(g, 0)),
        (found.from_counting, there / sums),
    ):
        w, other = added.sum(0), terms.sum(0)
        np.testing.assert_allclose(maps.weights_cosine, w @ other / np.linalg.norm(w) / np.linalg.norm(other))
        first, second = (np.maximum(a @ each, 0) for each in (w, other))
        gap = np.abs(first / first.max() - second / second.max()).max()
        np.testing.assert_allclose(maps.map_difference, gap, atol=1e-12)
    assert found.sentence.startswith("What Grad-CAM++ does here: in between (")


def test_regime_of_a_sample_and_of_nothing(monkeypatch):
    monkeypatch.setattr(problems, "_MAX_ELEMENTS", 5)
    head = lambda x: jnp.tanh(x.sum(0))
    found = regime(head, np.full((2, 3), 0.2), 1, num_sampled=4)
    assert found.num_elements == 2  # those of channel 1 in a sample of the 2 with a gradient and 2 others
    assert found.from_grad_cam_positive is None
    # Y = exp(tanh(t)) at t = 0.4, S = t: u = t (y''' / y''), with y' = y h, h = 1 - tanh(t)^2.
    t = np.tanh(0.4)
    h = 1 - t**2
    second, third = h**2 - 2 * t * h, h**3 - 6 * t * h**2 - 2 * h**2 + 4 * t**2 * h
    np.testing.assert_allclose(found.quantiles, [0.4 * third / second] * 5)
    dead = regime(lambda x: jax.nn.relu(x - 9).sum(0), np.ones((1, 3)), 1)
    assert (dead.num_elements, dead.quantiles, str(dead)) == (0, None, dead.sentence)
    assert "no element has a positive gradient" in dead.sentence
    with pytest.raises(ValueError, match="activations must be finite"):
        inspect.unwrap(regime)(head, np.full((1, 3), np.nan), 0)


def spots(strength):
    """A is 1 on an object, one a channel; S = strength * sum of ReLU(2 A - 1): g = 2 strength on objects, else 0."""
    return lambda x: jax.nn.relu(2 * x - 1).sum()[None] * strength


def test_how_bright_small_objects_are():
    cases = [
        # The example of the paper's Fig. 2: 15, 4 and 2 of 80 pixels. With its gradient of 1 Grad-CAM++ does not make
        # them equal (its alphas are 1 / (2 + m), not the 1 / m of Eq. 6), and with a gradient of 1/Z not at all.
        ((15, 4, 2), 1 / 2, [1, 0.27, 0.13], [1, 0.76, 0.57]),
        ((15, 4, 2), 1 / 160, [1, 0.27, 0.13], [1, 0.28, 0.14]),
        ((15, 4, 2), 50.0, [1, 0.27, 0.13], [1, 1, 0.99]),
        # Squares of side 20, 12 and 8, in a picture of 64 x 64.
        ((400, 144, 64), 1 / 2, [1, 0.36, 0.16], [1, 0.99, 0.97]),
        ((400, 144, 64), 1 / 8192, [1, 0.36, 0.16], [1, 0.37, 0.17]),
    ]

    @jax.jit
    def weights(a, strength):
        head = spots(strength)
        return jaxcam.grad_cam_weights(head, a, 0), jaxcam.grad_cam_pp_weights(head, a, 0)

    for areas, strength, plain, plus in cases:
        a = (np.arange(403)[:, None] < np.array(areas)).astype(float)
        for found, expected in zip(weights(a, strength), (plain, plus), strict=True):
            np.testing.assert_allclose(np.asarray(found) / np.max(found), expected, atol=0.0051)


def test_grad_cam_pp_finds_what_grad_cam_loses():
    # Above a share t of the maximum Grad-CAM shows an object of area m where m >= t max(m), whatever the strength; and
    # Grad-CAM++, whose weights are x / (2 + x) < 1 with x = 2 strength m, wherever x >= 2 t / (1 - t).
    areas, t = np.array([40, 21, 19, 6, 1]), 0.5
    head = spots(t / (1 - t))
    maps = jax.jit(
        lambda a: [f(head, a, 0) for f in (jaxcam.grad_cam, jaxcam.methods.grad_cam_positive, jaxcam.grad_cam_pp)]
    )
    spread = np.zeros((areas.sum(), 5))
    for k, end in enumerate(np.cumsum(areas)):
        spread[end - areas[k] : end, k] = 1
    plain, positive, plus = (np.asarray(m) / np.asarray(m).max() for m in maps(jnp.asarray(spread)))
    seen = lambda cam_map: [bool(cam_map[end - 1] >= t) for end in np.cumsum(areas)]
    assert seen(plain) == seen(positive) == [True, True, False, False, False]
    assert seen(plus) == [True] * 5
    found = regime(head, spread, 0)
    assert found.counting == pytest.approx((40 / 41 + 21 / 22 + 19 / 20) / sum(m / (m + 1) for m in areas), rel=1e-12)


def test_normalised_tapes_are_positive_gradients():
    # Three nested tapes, exp, alphas divided by their sum over all positions: 1 / (2 + S_k G) is one number a channel.
    head, a = relu_head((3, 2), 3, 4), np.abs(np.random.default_rng(0).normal(size=(3, 2, 3)))

    @jax.jit
    def weights(a):
        tapes = [lambda x: jnp.exp(head(x)[1] - head(a)[1])]
        for _ in range(3):
            tapes.append(jax.grad(lambda x, last=tapes[-1]: last(x).sum()))
        d1, d2, d3 = (tape(a) for tape in tapes[1:])
        alphas = jaxcam.exact_alphas(a, d2, d3)
        return (alphas / alphas.sum((0, 1), keepdims=True) * jax.nn.relu(d1)).sum((0, 1)), jax.nn.relu(d1).mean((0, 1))

    found, positive = weights(a)
    np.testing.assert_allclose(found, positive, rtol=1e-12)


def test_softmax_as_the_paper_prints_it():
    # Eq. 22 to 24 of all classes, by loops, on logits that are linear along an element: what they presuppose.
    random = np.random.default_rng(4)
    s, logits = random.normal(size=(5, 2)), random.normal(size=5)  # slopes of 5 logits along 2 elements
    y = np.exp(logits) / np.exp(logits).sum()
    along = lambda x: jax.nn.softmax(logits + s @ x)[3]
    d1, d2, d3 = jax.jit(lambda x: jaxcam.elementwise_derivatives(along, x))(np.zeros(2))
    for e in range(2):
        bracket = [s[c, e] - sum(y[k] * s[k, e] for k in range(5)) for c in range(5)]
        first = [y[c] * bracket[c] for c in range(5)]
        second = [first[c] * bracket[c] - y[c] * sum(first[k] * s[k, e] for k in range(5)) for c in range(5)]
        third = second[3] * bracket[3] - 2 * first[3] * sum(first[k] * s[k, e] for k in range(5))
        third -= y[3] * sum(second[k] * s[k, e] for k in range(5))
        np.testing.assert_allclose([d1[e], d2[e], d3[e]], [first[3], second[3], third], rtol=1e-10)


def test_concordance():
    assert [e.number for e in EQUATIONS] == list(range(1, 26))
    assert [e.verify_0_1 for e in EQUATIONS if e.verify_0_1 is not None] == list(range(1, 15))
    numbers = [e.report for e in EQUATIONS if e.report is not None]
    assert len(set(numbers)) == len(numbers)
    assert (equation(10).verify_0_1, equation(10).report) == (6, 6)
    assert (equation(19).verify_0_1, equation(19).report) == (13, 14)
    assert labelled(9) == "9   d2 = 2 alpha d2 + S_k alpha d3"
    lines = concordance().splitlines()
    assert lines[10].split()[-3:] == ["10", "6", "6"]
    with pytest.raises(ValueError, match="number must be 1 to 25"):
        equation(26)
    for source, cited in ((jaxcam.exact_alphas, 10), (jaxcam.exp_alphas, 19), (jaxcam.grad_cam_pp_weights, 11)):
        assert re.search(rf"Chattopadhay et al\. 2018.*Eq\. .*\b{cited}\b", source.__doc__, re.DOTALL)

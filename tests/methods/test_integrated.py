"""Integrated Grad-CAM: a loop of hand-written gradients, what algebra says of linear models, other grids, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import cut_model, relu_head, smooth_head

import jaxcam
from jaxcam import methods

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(6, 8, 3))
KERNEL, BIAS = RANDOM.normal(size=(3, 5)), RANDOM.normal(size=(1, 1, 5))
F = smooth_head((3, 4), 5, 4)


def features(x):
    return jax.nn.relu(x[::2, ::2] @ KERNEL + BIAS)


def beside(x):
    return 1 + x.mean() ** 2


MODEL = cut_model(features, lambda a, x: F(a) * beside(x))


@functools.cache
def gradients(score):
    """(A, s) -> Y = score(s F(A)) at A, and dY / dA, by JAX alone."""
    value = {
        "logit": lambda s: s[2],
        "exp": lambda s: jnp.exp(s[2]),
        "softmax": lambda s: jax.nn.softmax(s)[2],
    }[score]
    return jax.jit(jax.grad(lambda a, s: value(F(a) * s)))


@pytest.mark.parametrize("score", ["logit", "exp", "softmax"])
@pytest.mark.sample(2)
def test_a_loop_over_the_way_by_hand(score):
    baseline = np.array([0.3, -0.2, 0.1])
    relu = lambda x: np.maximum(x[::2, ::2] @ KERNEL + BIAS, 0)
    start = np.broadcast_to(baseline, IMAGE.shape)
    expected = np.zeros((3, 4))
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        x = start + t * (IMAGE - start)
        weights = np.asarray(gradients(score)(relu(x), 1 + x.mean() ** 2)).mean((0, 1))
        expected += np.maximum((relu(x) - relu(start)) @ weights, 0) / 5
    options = {"num_steps": 5, "baseline": (0.3, -0.2, 0.1), "score": score}
    found = np.asarray(jax.jit(lambda x: methods.integrated_grad_cam(MODEL, x, 2, **options))(IMAGE))
    if score == "exp":  # up to the largest exp(S_c)
        found, expected = found / found.max(), expected / expected.max()
    assert np.count_nonzero(expected) > 3
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_of_a_linear_model_it_is_half_of_grad_cam_however_many_steps():
    """A(t) - A(0) = t (A(1) - A(0)) and w(t) = w: the integral of t is 1/2, and midpoints of a line are exact."""
    weights = RANDOM.normal(size=(5, 4))
    head = lambda a: a.mean((0, 1)) @ weights + 0.7
    linear = lambda x: x[::2, ::2] @ KERNEL
    model = cut_model(linear, lambda a, x: head(a))
    of = lambda x: [methods.integrated_grad_cam(model, x, 1, num_steps=n) for n in (1, 4)]
    one, four, grad_cam = jax.jit(lambda x: (*of(x), jaxcam.grad_cam(head, linear(x), 1)))(IMAGE)
    assert grad_cam.max() > 0
    np.testing.assert_allclose(one, grad_cam / 2, rtol=1e-12)
    np.testing.assert_allclose(four, grad_cam / 2, rtol=1e-12)


def test_the_difference_from_the_baseline_counts_and_not_its_own_activations():
    """From an image to itself nothing changes: there is nothing to explain, however active the layer is."""
    flat, head = np.full((6, 8, 3), 0.25), lambda a: jnp.stack([a.sum(), -a.sum()])
    active = lambda x: features(x) + 1
    model = cut_model(active, lambda a, x: head(a))
    both = lambda x: (methods.integrated_grad_cam(model, x, 0, baseline=0.25), jaxcam.grad_cam(head, active(x), 0))
    found, grad_cam = jax.jit(both)(flat)
    np.testing.assert_allclose(found, 0, atol=1e-14)
    assert grad_cam.min() > 1


def test_positive_maps_converge_to_the_integral_with_the_square_of_the_steps():
    """S = sum A² with A = x: w(t) = 2 t mean x_k, A(t) = t x; 2 t² makes 2/3, at n midpoints less 1/6n²."""
    x = np.abs(IMAGE[..., :2])
    model = cut_model(lambda x: x, lambda a, x: jnp.stack([(a**2).sum(), a.sum()]))
    by_hand = x @ x.mean((0, 1))
    for n in (2, 8):
        found = jax.jit(lambda x, n=n: methods.integrated_grad_cam(model, x, 0, num_steps=n))(x)
        np.testing.assert_allclose(found, (2 / 3 - 1 / (6 * n**2)) * by_hand, rtol=1e-12)


def test_series_and_targets_through_explain():
    bank, to = RANDOM.normal(size=(5, 3, 4)) / 4, RANDOM.normal(size=(4, 3))

    def conv(x):
        return jax.nn.relu(jax.lax.conv_general_dilated(x, bank, (1,), "SAME", None, None, ("NWC", "WIO", "NWC")))

    head = lambda a: jnp.tanh(a.mean(-2)) @ to
    series = RANDOM.normal(size=(2, 9, 3))
    target = lambda outputs, inputs: outputs[0] * outputs[2]
    found = jaxcam.explain(
        lambda x: head(conv(x)), series, method="integrated_grad_cam", target=target, layer=-1, num_steps=3
    )

    @jax.jit
    def by_hand(x):
        total = jnp.zeros(9)
        for t in (1 / 6, 1 / 2, 5 / 6):
            a = conv(t * x[None])[0]
            weights = jax.grad(lambda a: head(a)[0] * head(a)[2])(a).mean(0)
            total += jax.nn.relu(a @ weights) / 3  # conv(0) = 0
        return total

    expected = np.stack([by_hand(x) for x in series])
    assert (expected.max(1) > 0).all()
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)


def test_large_logits_do_not_overflow_and_a_dead_gradient_is_said():
    flat, steep = relu_head((3, 4), 5, 4), lambda a: 4000 * F(a)
    model = cut_model(features, lambda a, x: steep(a))
    found = jaxcam.explain(model, IMAGE[None], method="integrated_grad_cam", score="exp", num_steps=2, class_idx=2)
    assert np.isfinite(found.cam_map).all()
    dead = cut_model(features, lambda a, x: flat(jax.lax.stop_gradient(a)))
    found = jaxcam.explain(dead, IMAGE[None], method="integrated_grad_cam", num_steps=2, class_idx=1)
    assert jaxcam.Status(int(found.status[0])) == jaxcam.Status.ZERO_GRADIENT


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 0}, ValueError, "num_steps must be"),
        ({"baseline": (0.0, 1.0)}, ValueError, "baseline must be one number, or one for each of 3 channels, but is 2"),
        ({"baseline": float("nan")}, ValueError, "baseline must be finite"),
    ],
)
def test_what_is_wrong_is_said(options, error, message):
    with pytest.raises(error, match=message):
        methods.integrated_grad_cam(MODEL, IMAGE, 0, **options)

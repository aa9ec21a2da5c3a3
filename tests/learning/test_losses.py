"""Losses on maps: by hand on 2 x 2 maps, gradients against finite differences, zero maps, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal

from jaxcam import grad_cam, grad_cam_pp, learning

FIRST = np.array([[1.0, 3.0], [0.0, 4.0]])
SECOND = np.array([[2.0, 0.0], [0.0, 2.0]])
MASK = np.array([[True, False], [False, True]])


def test_by_hand():
    found = jax.jit(
        lambda a, b, m: {
            "distillation": learning.distillation(a, b),
            "normalised": learning.distillation(a, b, normalise=True),
            "inside": learning.inside(a, m),
            "half": learning.inside(a, 0.5 * m.astype(a.dtype)),
            "reasons": learning.right_reasons(jnp.stack([a, -2 * a], -1), m),
            "agreement": learning.agreement(a, b),
            "mirrored": learning.agreement(a, b, transform=lambda x: x[:, ::-1]),
            "sparsity": learning.sparsity(a - 1),
        }
    )(FIRST, SECOND, MASK)
    expected = {
        "distillation": 1 + 9 + 0 + 4,
        "normalised": (1 / 4 - 1) ** 2 + (3 / 4) ** 2,  # [1/4, 3/4, 0, 1] and [1, 0, 0, 1]
        "inside": 3 / 8,
        "half": (3 + 0.5 * (1 + 4)) / 8,
        "reasons": 3**2 + 6**2,
        "agreement": (3 / 4 + 3 / 4) / 4,
        "mirrored": (1 / 4 + 1 / 4 + 1 + 1) / 4,  # [3/4, 1/4, 1, 0] and [1, 0, 0, 1]
        "sparsity": (2 / 3 + 1) / 4,  # [0, 2, -1, 3]
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_erased_by_hand():
    image = np.stack([np.full((2, 2), 2.0), FIRST], -1)
    keep = 1 / (1 + np.exp(8 * (FIRST / 4 - 0.25)))  # 1 - sigmoid
    options = {"threshold": 0.25, "steepness": 8.0}
    found, mined = jax.jit(
        lambda i, m: (learning.erased(i, m, **options), learning.attention_mining(jnp.sum, i, m, **options))
    )(image, FIRST)
    np.testing.assert_allclose(found, image * keep[..., None], rtol=1e-12)
    np.testing.assert_allclose(mined, (image * keep[..., None]).sum(), rtol=1e-12)


def test_zero_maps_have_finite_losses_and_the_gradient_zero():
    zero = np.zeros((2, 2))
    losses = [
        lambda m: learning.distillation(m, jnp.zeros_like(m), normalise=True),
        lambda m: learning.inside(m, MASK),
        lambda m: learning.agreement(m, jnp.asarray(FIRST)),
        learning.sparsity,
        lambda m: learning.attention_mining(jnp.sum, jnp.ones((2, 2, 1)), m),
    ]
    values, gradients = jax.jit(lambda m: (jnp.stack([f(m) for f in losses]), [jax.grad(f)(m) for f in losses]))(zero)
    gone = 4 * (1 - 1 / (1 + np.exp(5)))
    np.testing.assert_allclose(values, [0, 0, 1 / 2, 0, gone], rtol=1e-12)  # 1/2: the mean of [1/4, 3/4, 0, 1]
    assert all((np.asarray(g) == 0).all() for g in gradients)


def test_half_precision_is_added_up_in_float32():
    # 5000 squares of 1: float16 holds no odd number above 2048, and bfloat16 none above 256.
    ones = jnp.ones((50, 101), jnp.bfloat16)
    assert learning.distillation(ones, 0 * ones) == 5050


W1, W2 = normal(0, 5, 7) / 2, normal(1, 2 * 3 * 7, 3) / 3
X = normal(2, 2, 3, 5)
TEACHER, WHERE = np.abs(normal(3, 2, 3)), np.array([[1, 0, 0], [1, 1, 0.0]])


def _map(parameters, x, method):
    w1, w2 = parameters
    a = jax.nn.softplus(x @ w1)
    return method(lambda a: jax.nn.relu(a).reshape(-1) @ w2, a, 1)


LOSSES = {
    "distillation": lambda m, x: learning.distillation(m, TEACHER),
    "normalised": lambda m, x: learning.distillation(m, TEACHER, normalise=True),
    "inside": lambda m, x: learning.inside(m, WHERE),
    "agreement": lambda m, x: learning.agreement(m, jnp.asarray(TEACHER), transform=lambda m: m[:, ::-1]),
    "sparsity": lambda m, x: learning.sparsity(m),
    "attention_mining": lambda m, x: learning.attention_mining(lambda i: jnp.tanh(i).sum(), x, m),
}


@pytest.mark.parametrize("method", [grad_cam, grad_cam_pp])
@pytest.mark.sample(2)
def test_gradients_by_parameters_are_finite_differences(method):
    # Through the gradient that the map is made of: second derivatives of the network.
    direction = (normal(4, 5, 7), normal(5, 2 * 3 * 7, 3))

    def along(t):
        moved = jax.tree.map(lambda p, d: p + t * d, (W1, W2), direction)
        cam_map = _map(moved, X, method)
        reasons = jax.grad(lambda x: jax.nn.logsumexp(jnp.tanh(x @ moved[0])))(X)
        return jnp.stack([*(f(cam_map, X) for f in LOSSES.values()), learning.right_reasons(reasons, WHERE)])

    compiled, step = jax.jit(along), 1e-5
    numeric = (np.asarray(compiled(step)) - np.asarray(compiled(-step))) / (2 * step)
    slopes = np.asarray(jax.jit(jax.jacrev(along))(0.0))
    assert (np.abs(slopes) > 1e-4).all()
    np.testing.assert_allclose(slopes, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: learning.inside(FIRST, np.ones((3, 3))), ValueError, r"mask must be \[2, 2\].*is \[3, 3\].*resized"),
        (lambda: learning.distillation(FIRST, np.ones(4)), ValueError, r"teacher must be \[2, 2\]"),
        (lambda: learning.distillation(FIRST, MASK), TypeError, "teacher must be floating point"),
        (lambda: learning.sparsity(MASK), TypeError, "cam_map must be floating point"),
        (lambda: learning.right_reasons(jnp.ones((2, 2, 3)), MASK[0]), ValueError, "mask must be"),
        (lambda: learning.erased(jnp.ones((4, 4, 3)), jnp.ones((1, 2, 2))), ValueError, "2 spatial axes"),
        (lambda: learning.erased(jnp.ones((2, 2, 1)), FIRST, threshold=2.0), ValueError, "threshold must be"),
        (lambda: learning.attention_mining(lambda i: i, jnp.ones((2, 2, 1)), FIRST), ValueError, "a scalar"),
    ],
)
def test_bad_input(call, error, words, unchecked):
    with pytest.raises(error, match=words):
        call()

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import relu_head

from jaxcam import alphas as al
from jaxcam import scores

SHAPES = [(12, 2), (3, 4, 2), (2, 3, 2, 2)]
SCORES = ["exp", "softmax", "log_softmax"]
SIZE = 24
HEAD = relu_head((SIZE,), 1, 4)
"""Of all elements in a row: the same head for every shape."""

exact_alphas, exp_alphas, ill_conditioned = (jax.jit(f) for f in (al.exact_alphas, al.exp_alphas, al.ill_conditioned))


def draws(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def by_hand(a, d2, d3):
    """Chattopadhay et al., Eq. 10, with loops: the sum over (a, b) has its own indices."""
    a, d2, d3 = (np.asarray(x, np.float64).reshape(-1, np.shape(x)[-1]) for x in (a, d2, d3))
    out = np.zeros_like(a)
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            total = sum(a[m, k] for m in range(a.shape[0]))
            out[i, k] = d2[i, k] / (2 * d2[i, k] + total * d3[i, k])
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_exact_alphas_follow_equation_8(shape):
    a, d2, d3 = (draws(i, *shape) for i in range(3))
    found = exact_alphas(a, d2, d3)
    np.testing.assert_allclose(np.asarray(found).reshape(-1, shape[-1]), by_hand(a, d2, d3), rtol=1e-12)


def test_hand_computed_case():
    # Two positions, one channel: S = 1 + 3 = 4; d2 = 2, 1; d3 = 1, -1 -> 2 / (4 + 4) and 1 / (2 - 4).
    a, d2, d3 = (np.array(x)[:, None] for x in ([1.0, 3.0], [2.0, 1.0], [1.0, -1.0]))
    np.testing.assert_array_equal(exact_alphas(a, d2, d3)[:, 0], [0.25, -0.5])


@pytest.fixture(scope="module")
def brute_force():
    """d2 and d3 of every score by full Hessians and tensors of third derivatives, `[score, element]`."""

    def every_score(x):
        return jnp.stack([scores.resolve(score)(HEAD(x), 1) for score in SCORES])

    hessian = jax.hessian(every_score)
    second, third = jax.jit(lambda x: (hessian(x), jax.jacfwd(hessian)(x)))(np.abs(draws(5, SIZE)))
    return np.einsum("see->se", second), np.einsum("seee->se", third)


@functools.cache
def closed_forms(shape):
    """The alphas of every score at activations of this shape."""

    def every_score(a):
        head = lambda x: HEAD(x.reshape(-1))
        jacobian, p = jax.jacobian(head)(a), jax.nn.softmax(head(a))
        return [
            al.exp_alphas(a, jacobian[1]),
            al.softmax_alphas(a, jacobian, p, 1),
            al.log_softmax_alphas(a, jacobian, p, 1),
        ]

    return dict(zip(SCORES, jax.jit(every_score)(np.abs(draws(5, *shape))), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", SCORES)
def test_closed_forms_equal_brute_force_on_a_relu_head(shape, score, brute_force):
    a, (d2, d3) = np.abs(draws(5, *shape)), (d[SCORES.index(score)].reshape(shape) for d in brute_force)
    found = np.asarray(closed_forms(shape)[score])
    np.testing.assert_allclose(found.reshape(-1, shape[-1]), by_hand(a, d2, d3), rtol=1e-9)


def test_exp_alphas_are_free_of_scale():
    # An eps of 1e-6 in the denominator would be wrong by far here; halving g and doubling A must change nothing.
    a, g = np.abs(draws(0, 4, 4, 3)), draws(1, 4, 4, 3)
    for factor in (1e-3, 1e-9, 1e-20):
        np.testing.assert_allclose(exp_alphas(a / factor, g * factor), exp_alphas(a, g), rtol=1e-12)


def test_small_gradients_in_float32_give_one_half():
    # g^2 underflows float32 for g = 1e-25, and 1 / (2 + S g) = 1/2 to the last digit.
    found = exp_alphas(np.ones((2, 2, 1), np.float32), np.full((2, 2, 1), 1e-25, np.float32))
    np.testing.assert_array_equal(found, np.float32(0.5))


def test_zero_gradient_gives_zero_and_finite_derivatives():
    a, g, zero = np.ones((2, 1)), np.array([[0.0], [1.0]]), np.zeros((2, 1))
    np.testing.assert_allclose(exp_alphas(a, g)[:, 0], [0.0, 0.25])
    for gradient in jax.jit(jax.grad(lambda *x: al.exp_alphas(*x).sum(), (0, 1)))(a, g):
        assert np.isfinite(gradient).all()
    assert np.isfinite(jax.jit(jax.grad(lambda *x: al.exact_alphas(*x).sum(), 1))(a, zero, zero)).all()


def test_pole_gives_zero_and_is_reported():
    # S = -2, g = 1: 2 + S g = 0. Right of it the denominator is negative, left of it fine.
    a, g = np.array([[-2.0, -2.5, -1.0]]), np.ones((1, 3))
    np.testing.assert_allclose(exp_alphas(a, g), [[0.0, -2.0, 1.0]])
    np.testing.assert_array_equal(ill_conditioned(a, g**2, g**3), [[True, True, False]])


def test_cancelling_denominator_is_reported():
    # 2 + S g = 1e-10 of terms of size 2: ten digits are lost.
    a = np.array([[-2.0 * (1 - 5e-11)]])
    np.testing.assert_array_equal(ill_conditioned(a, np.ones((1, 1)), np.ones((1, 1))), [[True]])


def test_no_element_with_a_gradient_is_ill_conditioned_after_a_relu():
    a, g = np.abs(draws(0, 5, 5, 4)), np.abs(draws(1, 5, 5, 4))
    assert not np.asarray(ill_conditioned(a, g**2, g**3)).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_low_precision_is_right_to_its_own_precision(dtype):
    a, g = np.abs(draws(0, 8, 8, 4)).astype(dtype), (0.05 * draws(1, 8, 8, 4)).astype(dtype)
    expected = exp_alphas(a.astype(np.float64), g.astype(np.float64))
    found = exp_alphas(a, g)
    assert found.dtype == dtype
    # Rounding the result costs half a unit in the last place; a sum of 64 values in float32 a few units more.
    units = 8 if dtype == jnp.float32 else 0.51
    denominator = 2 + np.asarray(a, np.float64).sum((0, 1)) * np.asarray(g, np.float64)
    safe = np.abs(denominator) > 1
    np.testing.assert_allclose(
        np.asarray(found, np.float64)[safe], np.asarray(expected)[safe], rtol=units * float(jnp.finfo(dtype).eps)
    )


def test_log_softmax_alphas_do_not_depend_on_the_class():
    a, s, p = np.abs(draws(0, 3, 2)), draws(1, 4, 3, 2), np.exp(draws(2, 4))
    alphas = jax.jit(al.log_softmax_alphas, static_argnums=3)
    np.testing.assert_allclose(alphas(a, s, p / p.sum(), 0), alphas(a, s, p / p.sum(), 3), rtol=1e-13)


def test_softmax_of_many_equal_slopes_is_flat():
    # All slopes equal: softmax does not change along the element, every derivative is 0, alpha is 0 and not NaN.
    a, s = np.ones((3, 1)), np.full((4, 3, 1), 0.5)
    np.testing.assert_array_equal(jax.jit(al.softmax_alphas)(a, s, np.full(4, 0.25), 0), 0.0)


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_refused():
    a = np.ones((2, 2, 3))
    exact, exp, soft = al.exact_alphas, al.exp_alphas, al.softmax_alphas
    with pytest.raises(ValueError, match=r"d3 must have the shape of activations, \(2, 2, 3\), but came as \(3,\)"):
        exact(a, a, np.ones(3))
    with pytest.raises(ValueError, match=r"logit_gradient must have the shape"):
        exp(a, np.ones((1, 2, 2, 3)))
    with pytest.raises(ValueError, match=r"logit_jacobian must be \[c, \*spatial, k\] = \(5, 2, 2, 3\)"):
        soft(a, np.ones((4, 2, 2, 3)), np.full(5, 0.2), 0)

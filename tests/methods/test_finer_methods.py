"""Finer-CAM, ShapleyCAM, EigenGrad-CAM, KPCA-CAM and smoothing: brute force in NumPy, and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import cut_model, normal, positive, relu_head, smooth_head

import jaxcam
from jaxcam import methods
from jaxcam.methods import Transform, smoothed

A = positive(0, 3, 4, 5)
HEAD = smooth_head((3, 4), 5, 6)


@functools.cache
def jacobian_and_hessians():
    """Logits, their gradients `[c, i, j, k]` and the whole Hessian of each, `[c, ..., ...]`."""
    of = jax.jit(lambda a: (HEAD(a), jax.jacrev(HEAD)(a), jax.jacfwd(jax.jacrev(HEAD))(a)))
    return tuple(map(np.asarray, of(A)))


def relu_map(weights):
    return np.maximum(np.asarray(A) @ weights, 0)


@pytest.mark.parametrize(("num_similar", "gamma"), [(1, 1.0), (3, 0.6), (9, 1.0)])
@pytest.mark.sample(3, first=1)
def test_finer_cam_is_grad_cam_of_the_difference_to_the_closest(num_similar, gamma):
    logits, jacobian, _ = jacobian_and_hessians()
    of = jax.jit(lambda a, c: methods.finer_cam(HEAD, a, c, num_similar=num_similar, gamma=gamma))
    for c in (0, 3):
        order = [d for d in np.argsort(np.abs(logits - logits[c]), kind="stable") if d != c]
        gradient = jacobian[c] - gamma * jacobian[order[:num_similar]].mean(0)
        np.testing.assert_allclose(of(A, c), relu_map(gradient.mean((0, 1))), rtol=1e-9, atol=1e-12)


def test_finer_cam_of_a_score_is_that_of_its_own_differences_and_does_not_overflow():
    logits, jacobian, _ = jacobian_and_hessians()
    nearest = sorted(range(6), key=lambda d: abs(logits[d] - logits[2]))[1]
    large = lambda a: HEAD(a) + 2000
    found = jax.jit(lambda a: methods.finer_cam(large, a, 2, score="exp", num_similar=1))(A)
    gradient = jacobian[2] - np.exp(logits[nearest] - logits[2]) * jacobian[nearest]
    np.testing.assert_allclose(found, relu_map(gradient.mean((0, 1))), rtol=1e-9, atol=1e-12)


def test_finer_cam_of_one_score_is_grad_cam():
    one = lambda a: -HEAD(a)[:1]
    found, expected = jax.jit(lambda a: (methods.finer_cam(one, a, 0), jaxcam.grad_cam(one, a, 0)))(A)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert expected.max() > 0


def test_shapley_cam_has_the_whole_hessian():
    _, jacobian, hessians = jacobian_and_hessians()
    of = jax.jit(lambda a, c: methods.shapley_cam(HEAD, a, c))
    for c in (1, 4):
        product = np.tensordot(hessians[c], np.asarray(A), axes=3)
        expected = relu_map((jacobian[c] - product / 2).mean((0, 1)))
        np.testing.assert_allclose(of(A, c), expected, rtol=1e-9, atol=1e-12)
        assert np.abs(product).max() > 0.05 * np.abs(jacobian[c]).max()


def test_shapley_cam_of_a_linear_logit_is_grad_cam_and_of_its_logarithm_not():
    head = relu_head((3, 4), 5, 4)
    of = jax.jit(lambda a: [
        (methods.shapley_cam(head, a, 1, score=s), jaxcam.grad_cam(head, a, 1, score=s)) for s in ("logit", "exp")
    ])  # fmt: skip
    (logit, grad_cam), (exp, by_exp) = (map(np.asarray, pair) for pair in of(A))
    assert grad_cam.max() > 0
    np.testing.assert_allclose(logit, grad_cam, rtol=1e-12)
    # Of exp(S) with S linear here, H A = g <g, A>: another multiple of the same map.
    product = float(jax.jit(lambda a: jax.grad(lambda a: head(a)[1])(a).ravel() @ a.ravel())(A))
    signed = 1 - product / 2
    expected = by_exp * signed if signed > 0 else None
    against = np.asarray(jax.jit(lambda a: methods.counterfactual(head, a, 1, score="exp"))(A)) * -signed
    np.testing.assert_allclose(exp, against if expected is None else expected, rtol=1e-9, atol=1e-12)


def test_eigen_grad_cam_is_the_component_that_agrees_with_the_evidence():
    _, jacobian, _ = jacobian_and_hessians()
    of = jax.jit(lambda a, c: methods.eigen_grad_cam(HEAD, a, c))
    for c in range(4):
        matrix = (jacobian[c] * np.asarray(A)).reshape(12, 5)
        centred = matrix - matrix.mean(0)
        projection = centred @ np.linalg.svd(centred)[2][0]
        projection *= np.sign(projection @ matrix.sum(1))
        np.testing.assert_allclose(of(A, c), np.maximum(projection, 0).reshape(3, 4), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf"])
@pytest.mark.sample(2)
def test_kpca_cam_is_the_eigenvector_of_the_centred_kernel(kernel):
    of = jax.jit(functools.partial(methods.kpca_cam, kernel=kernel, width=0.3))
    for a in (np.asarray(A), np.asarray(normal(3, 3, 4, 5))):
        x = a.reshape(12, 5) - a.reshape(12, 5).mean(0)
        pairs = [[(p @ q, ((p - q) ** 2).sum()) for q in x] for p in x]
        by_kernel = {"sigmoid": lambda p: np.tanh(0.3 * p[0] + 1), "rbf": lambda p: np.exp(-0.3 * p[1])}[kernel]
        gram = np.array([[by_kernel(p) for p in row] for row in pairs])
        middle = np.eye(12) - 1 / 12
        values, vectors = np.linalg.eigh(middle @ gram @ middle)
        component = np.sqrt(values[-1]) * vectors[:, -1]
        component *= np.sign(component @ x.sum(1))
        np.testing.assert_allclose(of(a), np.maximum(component, 0).reshape(3, 4), rtol=1e-7, atol=1e-10)


def test_maps_of_alike_positions_are_zero():
    alike = jnp.broadcast_to(jnp.array([0.1, 0.7, 1.3]), (3, 4, 3))
    pooled = lambda a: a.mean((0, 1)) @ (normal(1, 3, 2) + 1 / 3)
    found = jax.jit(lambda a: (methods.kpca_cam(a), methods.eigen_grad_cam(pooled, a, 0)))(alike)
    np.testing.assert_array_equal(found, 0)


KERNEL = np.random.default_rng(1).normal(size=(3, 5))
F = relu_head((3, 4), 5, 4)
MODEL = cut_model(lambda x: jax.nn.relu(x[::2, ::2] @ KERNEL + 0.1), lambda a, x: F(a) * (1 + x.mean() ** 2))
IMAGES = np.random.default_rng(2).normal(size=(2, 6, 8, 3))


def test_smoothed_is_the_mean_of_maps_turned_back():
    transforms = (Transform(), Transform((-1,), 0.9), Transform((0, 1), 1.2))
    copies = [IMAGES, 0.9 * IMAGES[:, :, ::-1], 1.2 * IMAGES[:, ::-1, ::-1]]
    plain = jaxcam.explain(MODEL, np.concatenate(copies), method="grad_cam", class_idx=2)
    maps = np.asarray(plain.cam_map).reshape(3, 2, 3, 4)
    expected = (maps[0] + maps[1][:, :, ::-1] + maps[2][:, ::-1, ::-1]) / 3
    assert np.abs(expected - maps[0]).max() > 0.01
    found = jaxcam.explain(MODEL, IMAGES, method=smoothed("grad_cam", transforms), class_idx=2)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.status, plain.status[:2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: methods.finer_cam(HEAD, A, 0, gamma=-1.0), ValueError, "gamma must be"),
        (lambda: methods.finer_cam(HEAD, A, 0, num_similar=0), ValueError, "num_similar must be"),
        (lambda: methods.kpca_cam(A, kernel="poly"), ValueError, "use 'sigmoid' or 'rbf'"),
        (lambda: methods.kpca_cam(A, width=0.0), ValueError, "width must be"),
        (lambda: smoothed("grad_cam", ()), ValueError, "transforms must name at least one"),
        (lambda: smoothed("grad_cam", ("flip",)), TypeError, "transforms"),
        (lambda: smoothed("smooth_grad_cam_pp"), ValueError, "cannot be smoothed"),
        (lambda: smoothed("guided_backprop"), ValueError, "cannot be smoothed"),
        (lambda: smoothed("cam"), ValueError, "cannot be smoothed"),
        (lambda: Transform((1.5,)), TypeError, "flip"),
        (lambda: Transform(scale=0.0), ValueError, "scale must be"),
        (
            lambda: jaxcam.explain(MODEL, IMAGES, method=smoothed("grad_cam", (Transform((2,)),))),
            ValueError,
            "flip must name some of 2 spatial axes",
        ),
    ],
)
def test_what_is_wrong_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()

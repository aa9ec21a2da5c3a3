"""Half precision: derivatives and sums over positions are taken in float32, in every method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import elementwise_derivatives, methods

RANDOM = np.random.default_rng(0)
A = (np.abs(RANDOM.normal(size=(14, 14, 4))) * 8).astype(np.float16)
KERNEL = (np.abs(RANDOM.normal(size=(4, 3))) * 0.05).astype(np.float16)
# Numbers that both types have: what differs is how they are computed with.
LARGE = (300 + RANDOM.integers(0, 64, size=(20, 20, 4))).astype(np.float16)


def pooled(a):
    return a.mean((0, 1)) @ jnp.asarray(KERNEL, a.dtype)


def smooth(a):
    return jax.nn.gelu(a.mean((0, 1)) / 4) @ jnp.asarray(KERNEL, a.dtype)


HEADS = {"linear": pooled, "gelu": smooth}


@functools.cache
def every_map(dtype, head):
    """The maps of all methods that take a head, and those of Grad-CAM++ in all ways."""
    ways = {name: functools.partial(getattr(methods, name), head) for name in (
        "grad_cam", "hires_cam", "xgrad_cam", "layer_cam", "grad_cam_positive", "ablation_cam",
    )}  # fmt: skip
    for score in ("exp", "softmax", "log_softmax"):
        ways[f"grad_cam_pp, {score}"] = functools.partial(methods.grad_cam_pp, head, score=score)
    ways["grad_cam_pp, exact"] = functools.partial(methods.grad_cam_pp, head, alphas="exact")
    return jax.jit(lambda a: {name: way(a, 0) for name, way in ways.items()})(A.astype(dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float16, 0.02), (jnp.bfloat16, 0.15)])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.sample(6)
def test_maps_of_every_method_are_those_of_float32(head, dtype, tolerance):
    # g is 1e-4: its square and its cube are zero in float16. What is left is the rounding of the head itself: of its
    # outputs, whose small differences Ablation-CAM takes, and of the second derivative of a GELU.
    found, expected = every_map(dtype, HEADS[head]), every_map(np.float32, HEADS[head])
    for name, cam_map in found.items():
        assert cam_map.dtype == dtype
        reference = np.asarray(expected[name], float)
        size = reference.max() or 1  # with softmax, alphas and gradients may have opposite signs
        assert reference.max() > 0 or "softmax" in name
        np.testing.assert_allclose(np.asarray(cam_map, float) / size, reference / size, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("alphas", ["exact", "closed_form"])
def test_weights_have_the_alphas_of_the_formula(alphas):
    # alpha = 1 / (2 + S_k g): S_k of 196 activations of 6 is 1,200, and g = kernel / 196.
    g = KERNEL[:, 0].astype(float) / 196
    expected = 196 * g / (2 + A.astype(float).sum((0, 1)) * g)
    found = jax.jit(lambda a: methods.grad_cam_pp_weights(pooled, a, 0, alphas=alphas))(A)
    assert found.dtype == np.float16
    np.testing.assert_allclose(np.asarray(found, float), expected, rtol=5e-3)


def test_sums_that_half_precision_does_not_hold():
    # 400 activations of 300 add up to 120,000 and more, and float16 ends at 65,504.
    wide = LARGE.astype(float)
    kernel = KERNEL.astype(float)
    run = jax.jit(
        lambda a: (
            methods.xgrad_cam(lambda x: x.mean((0, 1)) @ jnp.asarray(KERNEL, x.dtype), a, 0),
            methods.cam(jnp.asarray(KERNEL, a.dtype), a, 0),
            methods.eigen_cam(a),
        )
    )
    xgrad, cam, eigen = (np.asarray(x, float) for x in run(LARGE))
    np.testing.assert_allclose(xgrad, wide @ kernel[:, 0] / 400, rtol=5e-3)
    np.testing.assert_allclose(cam, wide @ kernel[:, 0], rtol=2e-3)
    direction = np.linalg.svd(wide.reshape(-1, 4), full_matrices=False)[2][0]
    np.testing.assert_allclose(eigen, np.abs(wide @ direction), rtol=2e-3)


def test_elementwise_derivatives_of_pooling_in_float16():
    # The third derivative of z^4 by one of 64 elements is 24 z / 64^3, and 1 / 64^3 is not a number of float16.
    a = np.full((8, 8), 16, np.float16)
    found = jax.jit(lambda a: elementwise_derivatives(lambda x: (x.mean() / 4) ** 4 * 256, a))(a)
    expected = [4 * 16**3 / 64, 12 * 16**2 / 64**2, 24 * 16 / 64**3]
    for derivative, value in zip(found, expected, strict=True):
        assert derivative.dtype == np.float16
        np.testing.assert_allclose(np.asarray(derivative, float), value, rtol=2e-3)


def test_slopes_of_a_mean_over_thousands_of_positions():
    # kernel / 4096 lies below 6e-5, where float16 has steps of 6e-8: up to 12 % of these slopes.
    kernel = (np.linspace(0.1, 1, 12).reshape(4, 3) * 2e-3).astype(np.float16)
    a = (np.abs(np.random.default_rng(1).normal(size=(64, 64, 4))) * 8).astype(np.float16)
    head = lambda x: x.mean((0, 1)) @ jnp.asarray(kernel, x.dtype)
    found = jax.jit(lambda a: (methods.hires_cam(head, a, 0), methods.grad_cam_pp(head, a, 0, score="softmax")))(a)
    wide = jax.jit(lambda a: methods.grad_cam_pp(head, a, 0, score="softmax"))(a.astype(np.float32))
    expected = a.astype(float) @ kernel[:, 0].astype(float) / 4096, np.asarray(wide, float)
    for ours, right in zip(found, expected, strict=True):
        scale = right.max() or 1
        np.testing.assert_allclose(np.asarray(ours, float) / scale, right / scale, atol=3e-3)


def test_slopes_that_are_too_large_to_be_made_larger():
    # 20 is a number of float16, and 4096 times 20 is none.
    kernel = np.array([[20.0, 1.0], [30.0, 2.0]], np.float16)
    a = np.abs(np.random.default_rng(2).normal(size=(2, 2, 2))).astype(np.float16)
    found = jax.jit(lambda a: methods.hires_cam(lambda x: x.sum((0, 1)) @ jnp.asarray(kernel, x.dtype), a, 0))(a)
    np.testing.assert_allclose(np.asarray(found, float), a.astype(float) @ kernel[:, 0].astype(float), rtol=2e-3)

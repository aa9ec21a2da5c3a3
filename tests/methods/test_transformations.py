"""One table: every method under every transformation, on one model with a skip connection past the layer.

jit = eager, vmap = a loop, grad = finite differences, and `explain` on a batch = the function on each image. Three
methods that are none of ours stand in it: functions of a few lines, one of which draws, and a `functools.partial`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import cut_model, relu_head

import jaxcam
from jaxcam import methods
from jaxcam.methods.method import bind

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(3, 6, 8, 3))
CLASSES = np.array([1, 3, 2])
KERNEL, TO_LOGITS = RANDOM.normal(size=(3, 5)), RANDOM.normal(size=(5, 4))
F = relu_head((3, 4), 5, 4)
MODEL = cut_model(lambda x: jax.nn.relu(x[::2, ::2] @ KERNEL), lambda a, x: F(a) * (1 + x.mean() ** 2))
KEY = jax.random.key(1)


def own(head, activations, class_idx):
    """Somebody's own method: the gradient's square times the activation."""
    gradient = jax.grad(lambda a: head(a)[class_idx])(activations)
    return (gradient**2 * activations).sum(-1)


def drawing(head, activations, class_idx, *, key):
    """Somebody's own method that draws."""
    noise = jax.random.normal(key, activations.shape, jnp.float32).astype(activations.dtype)
    return jax.grad(lambda a: head(a)[class_idx])(activations + noise / 8).sum(-1) ** 2


OPTIONS = {"score_cam": {"chunk_size": 2}, "smooth_grad_cam_pp": {"num_samples": 3}}
NOT_HERE = {"cam"} | {name for name, method in methods.METHODS.items() if method.needs_attention}
TABLE = {name: (name, OPTIONS.get(name, {})) for name in methods.METHODS if name not in NOT_HERE}
TABLE |= {
    "own": (own, {}),
    "drawing": (drawing, {}),
    "partial": (functools.partial(jaxcam.grad_cam_pp, alphas="exact"), {}),
}
NO_DERIVATIVE = ("guided_backprop", "guided_grad_cam")
"""Their gradient by the image is by rule another one than that of their values."""


def of_an_image(name):
    """The method as a function of one image and a class, written out without `explain`."""
    method, options = TABLE[name]
    bound = bind(method, options, draws=True)
    keys = {"key": KEY} if bound.takes_key else {}

    def function(image, class_idx):
        if bound.needs == "image":
            return bound(MODEL, image, class_idx, **keys)
        a = jax.nn.relu(image[::2, ::2] @ KERNEL)
        if bound.needs == "activations":
            return bound(a)
        return bound(lambda a: F(a) * (1 + image.mean() ** 2), a, class_idx, **keys)

    return function


@functools.cache
def compiled(name):
    return jax.jit(of_an_image(name))


@functools.cache
def loop(name):
    """The maps of the three images, compiled, one by one."""
    found = np.stack([compiled(name)(image, c) for image, c in zip(IMAGES, CLASSES, strict=True)])
    assert np.abs(found).max() > 0
    return found


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sample(7)
def test_jit_is_eager(name):
    found = of_an_image(name)(jnp.asarray(IMAGES[0]), int(CLASSES[0]))
    np.testing.assert_allclose(found, loop(name)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sample(5, first=2)
def test_vmap_is_a_loop(name):
    found = jax.jit(jax.vmap(of_an_image(name)))(IMAGES, CLASSES)
    np.testing.assert_allclose(found, loop(name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sample(4, first=2)
def test_a_batch_through_explain_is_one_by_one(name):
    method, options = TABLE[name]
    draws = bind(method, options, draws=True).takes_key
    found = jaxcam.explain(MODEL, IMAGES, method=method, class_idx=CLASSES, key=KEY if draws else None, **options)
    made = found.cam_map if found.gradient is None else found.gradient
    np.testing.assert_allclose(made, loop(name), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in TABLE if name not in NO_DERIVATIVE])
@pytest.mark.sample(6, first=2)
def test_grad_is_finite_differences_and_finite_at_zero(name):
    function, direction = of_an_image(name), RANDOM.normal(size=(6, 8, 3))
    shape = (6, 8) if name == "full_grad" else (3, 4)
    spread = np.abs(RANDOM.normal(size=shape))

    # Wholly without optimisation (conftest.py) XLA makes NaN of x dY/dx differentiated once more, written by hand, too.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def both(image, class_idx):
        return jax.value_and_grad(lambda image: (function(image, class_idx) * spread).sum())(image)

    found, slopes = [], []
    for class_idx in np.arange(4):
        _, gradient = both(IMAGES[0], class_idx)
        found.append((np.asarray(gradient) * direction).sum())
        ends = [np.asarray(compiled(name)(IMAGES[0] + step * direction, class_idx)) for step in (1e-6, -1e-6)]
        slopes.append(((ends[0] - ends[1]) * spread).sum() / 2e-6)
    assert np.abs(slopes).max() > 1e-4
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-6)
    value, gradient = both(np.zeros_like(IMAGES[0]), np.int64(1))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_cam_is_its_product_under_every_transformation():
    a = np.abs(RANDOM.normal(size=(3, 3, 4, 5)))
    expected = np.stack([a[i] @ TO_LOGITS[:, c] for i, c in enumerate(CLASSES)])
    found = jax.jit(jax.vmap(methods.cam, (None, 0, 0)))(TO_LOGITS, a, CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(methods.cam(jnp.asarray(TO_LOGITS), jnp.asarray(a[0]), 1), expected[0], rtol=1e-12)
    weight = jax.grad(lambda a: methods.cam(jnp.asarray(TO_LOGITS), a, 2).sum())(jnp.asarray(a[0]))
    np.testing.assert_allclose(weight, np.broadcast_to(TO_LOGITS[:, 2], (3, 4, 5)), rtol=1e-12)

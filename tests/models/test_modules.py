"""Layers by hand, and the networks' training mode against torch (parity)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import network, normal

from jaxcam import models
from jaxcam.models.modules import AdaptiveAveragePool, Dropout, Flatten, MaxPool


def once(module, x):
    """What the module makes of it, as one program."""
    return jax.jit(lambda x: module(x))(x)


@pytest.mark.parametrize(("size", "ceil_mode", "outputs"), [(7, False, 3), (7, True, 3), (8, False, 3), (8, True, 4)])
def test_max_pool_covers_the_rest_in_ceil_mode(size, ceil_mode, outputs):
    x = np.arange(float(size))[None, :, None, None] * np.ones((1, 1, size, 1))
    pooled = np.asarray(once(MaxPool(3, 2, ceil_mode=ceil_mode), x))[0, :, 0, 0]
    np.testing.assert_array_equal(pooled, [min(2 * i + 2, size - 1) for i in range(outputs)])


def test_max_pool_ignores_its_padding():
    x = -1.0 - np.arange(16.0).reshape(1, 4, 4, 1)  # negative: zeros around it would win
    found = np.asarray(once(MaxPool(3, 2, padding=1), x))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[-1, -2], [-5, -6]])


@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 21), (10, 3), (1, 8)])
def test_adaptive_average_pool_by_windows(height, width):
    x = np.asarray(normal(1, 2, height, width, 3))
    found = np.asarray(once(AdaptiveAveragePool(7), x))
    for i in range(7):
        for j in range(7):
            rows = slice(i * height // 7, -(-(i + 1) * height // 7))
            columns = slice(j * width // 7, -(-(j + 1) * width // 7))
            np.testing.assert_allclose(found[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-14)


def test_flatten_in_torchs_order():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(np.asarray(once(Flatten(), x))[0], np.arange(12))
    found = np.asarray(once(Flatten(channels_first=True), x))[0]
    np.testing.assert_array_equal(found, [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11])


def test_dropout_keeps_the_mean_and_stochastic_depth_drops_whole_images():
    x = jnp.asarray(np.ones((4000, 2, 2, 3)))
    dropped = np.asarray(Dropout(0.25)(x, rngs=nnx.Rngs(0)))
    assert set(np.unique(dropped)) == {0.0, 4 / 3}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.01)
    whole = np.asarray(Dropout(0.25, whole_images=True)(x, rngs=nnx.Rngs(0))).reshape(4000, -1)
    assert (whole == whole[:, :1]).all()
    assert (whole[:, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.thorough
@pytest.mark.usefixtures("unchecked")
def test_training_without_a_generator_says_what_to_do():
    model = network(models.squeezenet1_1, num_classes=10)
    images = normal(0, 1, 32, 32, 3, dtype=np.float32)
    model.train()
    with pytest.raises(ValueError, match=r"training mode and draws random numbers: pass rngs=nnx.Rngs\(0\), or call"):
        jax.eval_shape(lambda images: model(images), images)
    forward = nnx.jit(lambda model, images, rngs: model(images, rngs=rngs))
    one, same, other = (np.asarray(forward(model, images, nnx.Rngs(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-6


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_training_mode_updates_the_statistics_as_torch_does(name, torchvision, tmp_path):
    import torch
    from torch_networks import assert_close, randomised, saved

    # Without random numbers: dropout and stochastic depth are theirs and ours, but not the same draws.
    options = {} if name.startswith("resnet") else {"dropout": 0.0, "stochastic_depth_prob": 0.0}
    theirs = randomised(lambda: getattr(torchvision.models, name)(**options))
    ours = models.MODELS[name](saved(theirs, tmp_path / "w.safetensors"))
    for _, module in nnx.iter_modules(ours):
        if isinstance(module, nnx.Dropout):
            module.rate = 0.0
    images = np.random.default_rng(0).normal(size=(6, 64, 64, 3))
    theirs = theirs.double().train()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.moveaxis(images, -1, 1))).numpy()
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), ours)
    before = np.asarray(_norm(model, name).var[...])
    model.train()
    with jax.numpy_dtype_promotion("standard"):
        found = nnx.jit(lambda model, images: model(images))(model, jnp.asarray(images))
    assert_close(found, expected, 1e-6)
    first = theirs.bn1 if name == "resnet18" else theirs.features[0][1]
    norm = _norm(model, name)
    np.testing.assert_allclose(norm.mean[...], first.running_mean, atol=1e-8)
    n = 6 * 32 * 32  # torch averages n / (n - 1) of the batch's variance
    of_batch = (np.asarray(norm.var[...]) - 0.9 * before) / 0.1
    np.testing.assert_allclose(0.9 * before + 0.1 * of_batch * n / (n - 1), first.running_var, rtol=1e-6)


def _norm(model, name):
    return model.stages["bn1"] if name == "resnet18" else model.stages["features.0"].layers[1]

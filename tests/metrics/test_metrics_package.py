"""Metrics against the grad-cam package, where its definition is the same (parity).

What differs there: DropInConfidence is the absolute drop, not divided by Y, though the paper divides; it masks the
normalised input, not pixels (mask="input" in a protocol). The coherency adds 1e-8 to the product of the standard
deviations, so that a constant map gets 0.5 and not NaN, and faint maps are drawn towards that. Drops, wins and
localisation as the paper has them it has not; its ROAD and ARCC are other metrics than insertion, deletion and ADCC.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import maps, metrics


@pytest.fixture(scope="module")
def package(torchvision):
    """Its modules of metrics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pytorch_grad_cam")
        from pytorch_grad_cam.metrics import arcc, cam_mult_image
    return cam_mult_image, arcc


@pytest.fixture(scope="module")
def case(package):
    """A network in both, images `[n, H, W, 3]`, heatmaps `[n, H, W]` and classes."""
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    random = np.random.default_rng(0)
    images, kernel = random.normal(size=(40, 6, 5, 3)), random.normal(size=(90, 4)) / 4
    heatmaps = np.maximum(random.normal(size=(40, 6, 5)), 0)
    heatmaps /= heatmaps.max((1, 2), keepdims=True)
    heatmaps[0] = 1  # an image that stays as it is: neither drop nor increase
    classes = random.integers(0, 4, 40)

    def confidence(pictures):
        logits = jnp.tanh(pictures).reshape(40, -1) @ kernel
        return jax.nn.softmax(logits)[jnp.arange(40), classes]

    linear = torch.nn.Linear(90, 4, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(kernel.T))
    network = torch.nn.Sequential(torch.nn.Tanh(), Permute(), linear)
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    theirs = (torch.from_numpy(np.moveaxis(images, -1, 1).copy()), heatmaps, targets, network)
    y, o = confidence(images), confidence(maps.explanation_map(images, heatmaps))
    return theirs, np.asarray(y), np.asarray(o)


def Permute():  # noqa: N802
    """Channels last again, and flat."""
    import torch

    class Module(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1)

    return Module()


@pytest.mark.parity
def test_absolute_drop_and_increase_agree(package, case):
    (x, heatmaps, targets, network), y, o = case
    drops = package[0].DropInConfidence()(x, heatmaps, targets, network)
    increases = package[0].IncreaseInConfidence()(x, heatmaps, targets, network)
    assert 0.2 < (o > y).mean() < 0.8
    assert o[0] == y[0]
    # Its confidences are float32.
    np.testing.assert_allclose(metrics.absolute_drop(y, o), 100 * drops.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.increase_in_confidence(y, o), 100 * increases.mean(), rtol=1e-6)
    # The paper's average drop is another number.
    assert float(metrics.average_drop(y, o)) > 1.5 * 100 * drops.mean()


@pytest.mark.parity
def test_complexity_agrees(package, case):
    (_, heatmaps, _, _), _, _ = case
    found = jax.vmap(metrics.complexity)(heatmaps)
    np.testing.assert_allclose(found, package[1].Complexity()(heatmaps), rtol=1e-12)


@pytest.mark.parity
def test_pearson_agrees_but_for_the_eps(package, case):
    (_, heatmaps, _, _), _, _ = case
    a, b = heatmaps[1:20], heatmaps[20:39]
    ours = jax.vmap(metrics.pearson)(a, b)
    np.testing.assert_allclose(ours, package[1].batch_pearson_coherency(a, b), atol=1e-6)
    faint = package[1].batch_pearson_coherency(1e-4 * a, 1e-4 * b)
    np.testing.assert_allclose(jax.vmap(metrics.pearson)(1e-4 * a, 1e-4 * b), ours, rtol=1e-9)
    assert np.abs(faint - ours).max() > 0.1
    flat = np.ones_like(a)
    assert not package[1].batch_pearson_coherency(flat, b).any()
    assert np.isnan(jax.vmap(metrics.pearson)(flat, b)).all()

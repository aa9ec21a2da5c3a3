"""Depthwise convolutions of torch's modules, which are written otherwise for the CPU: values, maps, speed (parity)."""

import importlib.util
import sys

import jax
import numpy as np
import pytest
from torch_networks import randomised

import jaxcam

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity
X = np.random.default_rng(0).normal(size=(2, 3, 13, 10))
CASES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "5x5, strides": {"kernel_size": 5, "stride": 2, "padding": 2},
    "unlike sides": {"kernel_size": (1, 4), "stride": (2, 1), "padding": (0, 3), "bias": False},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "twice the channels": {"kernel_size": 3, "out": 12},
    "by twos": {"kernel_size": 3, "groups": 3},
}
FASTER = ("3x3", "5x5, strides", "unlike sides")


@pytest.fixture(autouse=True)
def torchax():
    if importlib.util.find_spec("torchax") is None:
        pytest.skip("torchax is not installed")


class Separable(torch.nn.Module):
    """A convolution, a depthwise one between rectifiers, a classifier on the mean."""

    def __init__(self, kernel_size, *, out=6, groups=6, **options):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 6, 3)
        self.depthwise = torch.nn.Conv2d(6, out, kernel_size, groups=groups, **options)
        self.fc = torch.nn.Linear(out, 5)

    def head(self, a):
        return self.fc(self.depthwise(a.relu()).relu().mean((2, 3)))

    def forward(self, x):
        return self.head(self.stem(x))


@pytest.mark.parametrize("case", CASES)
def test_values_and_maps_are_torchs(case):
    network = randomised(lambda: Separable(**CASES[case])).double()
    net = jaxcam.adapt(network)
    a = network.stem(torch.tensor(X)).detach().requires_grad_()
    logits = network.head(a)
    np.testing.assert_allclose(net(X), logits.detach(), rtol=1e-12, atol=1e-14)
    logits[:, 2].sum().backward()
    a, gradient = a.detach().numpy(), a.grad.numpy()
    found = jaxcam.explain(net, X, layer="stem", class_idx=2)
    expected = np.maximum((gradient.mean((2, 3), keepdims=True) * a).sum(1), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, atol=1e-12 * expected.max())
    # Grad-CAM++ by the closed form: the head is piecewise linear, however its convolution is written.
    below = 2 * gradient**2 + a.sum((2, 3), keepdims=True) * gradient**3
    alphas = np.where(gradient != 0, gradient**2 / np.where(below != 0, below, 1), 0)
    weights = (alphas * np.maximum(gradient, 0)).sum((2, 3), keepdims=True)
    expected = np.maximum((weights * a).sum(1), 0)
    assert expected.max() > 0
    found = jaxcam.explain(net, X, layer="stem", class_idx=2, method="grad_cam_pp")
    np.testing.assert_allclose(found.cam_map, expected, atol=1e-10 * expected.max())
    written = jax.jit(lambda net, x: net(x)).lower(net, X).compile().as_text()
    num_left = written.count(" convolution(")
    assert num_left == (1 if case in FASTER else 2), "a plain loop on the CPU"


def test_a_module_is_read_once_for_each_shape(monkeypatch):
    """Later calls find the program without tracing and printing it again."""
    read, module = [], sys.modules["jaxcam.cuts.model"]
    true_hoist = module.hoist
    monkeypatch.setattr(module, "hoist", lambda *args: read.append(args) or true_hoist(*args))
    network = randomised(lambda: Separable(3)).double()
    net = jaxcam.adapt(network)
    for images in (X, X + 1, X[:1], X[:, :, 2:], X):
        found = jaxcam.explain(net, images, class_idx=2)
        np.testing.assert_allclose(found.value, network(torch.tensor(images)).detach()[:, 2], rtol=1e-9)
    assert len(read) == 2  # a program is of one image: for two heights
    traced = jax.jit(lambda net, x: jaxcam.explain(net, x, class_idx=1).value)(net, X[:1] + 2)
    np.testing.assert_allclose(traced, network(torch.tensor(X[:1] + 2)).detach()[:, 1], rtol=1e-9)
    np.testing.assert_allclose(jaxcam.explain(net, X[:1] + 2, class_idx=1).value, traced, rtol=1e-12)

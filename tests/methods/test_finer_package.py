"""Finer-CAM, ShapleyCAM and FullGrad against the grad-cam package on the same weights and images (parity)."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_networks import resnet18_in_both

import jaxcam
from jaxcam import methods


@pytest.fixture(scope="module")
def case(torchvision, tmp_path_factory):
    """ResNet-18 in both, float64, with two images and the likeliest class of each."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pytorch_grad_cam")
    ours, theirs, images, x = resnet18_in_both(torchvision, tmp_path_factory.mktemp("weights"))
    with torch.no_grad():
        logits = theirs(x).numpy()
    return ours, theirs, images, x, logits


def finer_package_map(network, x, categories, alpha):
    """The package's raw Finer-CAM in its third group, of the likeliest class."""
    from pytorch_grad_cam import FinerCAM

    with FinerCAM(network, [network.layer3[-1]]) as cam:
        cam(input_tensor=x, targets=None, alpha=alpha, comparison_categories=categories)
        hooked = cam.base_cam.activations_and_grads
        a, g = (np.asarray(t[0].detach()) for t in (hooked.activations, hooked.gradients))
    return np.maximum((a * g.mean((2, 3), keepdims=True)).sum(1), 0)


@pytest.mark.parity
def test_finer_cam_agrees_for_one_similar_class(case):
    """The package divides the class's weight by itself plus 1e-9."""
    ours, theirs, images, x, logits = case
    expected = finer_package_map(theirs, x, [1], 0.6)
    assert expected.max() > 0
    options = {"num_similar": 1, "gamma": 0.6, "layer": "layer3", "class_idx": logits.argmax(1)}
    found = jaxcam.explain(ours, images, method="finer_cam", **options)
    np.testing.assert_allclose(found.cam_map, expected, atol=1e-6 * expected.max())


@pytest.mark.parity
def test_finer_cam_of_several_classes_is_another_target_in_the_package(case):
    """It weighs the classes by their probabilities and differentiates the weights; here each counts as much."""
    ours, theirs, images, x, logits = case
    expected = finer_package_map(theirs, x[:1], [1, 2, 3], 1.0)[0]
    c = int(logits[0].argmax())
    order = np.argsort(np.abs(logits[0] - logits[0, c]), kind="stable")[1:4]

    def weighted(outputs, inputs):
        shares = jax.nn.softmax(outputs)[order]
        return (shares * (outputs[c] - outputs[order])).sum() / shares.sum()

    def equal(outputs, inputs):
        return outputs[c] - outputs[order].mean()

    explain = partial(jaxcam.explain, ours, images[:1], layer="layer3")
    by_target, by_mean = (explain(target=target, method="grad_cam").cam_map[0] for target in (weighted, equal))
    np.testing.assert_allclose(by_target, expected, atol=1e-6 * expected.max())
    found = explain(method="finer_cam", class_idx=c, num_similar=3).cam_map[0]
    np.testing.assert_allclose(found, by_mean, rtol=1e-9, atol=1e-9 * found.max())
    assert np.abs(found / found.max() - expected / expected.max()).max() > 0.01


@pytest.mark.parity
@pytest.mark.parametrize("score", ["logit", "softmax"])
def test_shapley_cam_agrees(case, score):
    """The logit of a ReLU network has no Hessian; its probability has one, and the product counts."""
    import torch
    from pytorch_grad_cam import GradCAM, ShapleyCAM

    ours, theirs, images, x, logits = case
    classes = logits.argmax(1)
    read = {"logit": lambda out, c: out[c], "softmax": lambda out, c: torch.softmax(out, -1)[c]}[score]
    targets = [partial(read, c=int(c)) for c in classes]

    def package_map(method):
        with method(model=theirs, target_layers=[theirs.layer3[-1]]) as cam:
            seen, image = [], cam.get_cam_image
            cam.get_cam_image = lambda *args: seen.append(image(*args)) or seen[-1]
            cam(input_tensor=x, targets=targets)
        return np.maximum(seen[0], 0)

    expected, grad_cam = package_map(ShapleyCAM), package_map(GradCAM)
    assert expected.max() > 0
    curvature = np.abs(expected - grad_cam).max() / grad_cam.max()
    assert curvature > 0.01 if score == "softmax" else curvature < 1e-9
    found = jaxcam.explain(ours, images, method="shapley_cam", score=score, layer="layer3", class_idx=classes)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-7, atol=1e-9 * expected.max())


@pytest.mark.parity
def test_full_grad_agrees(case):
    """It rescales each channel, as the paper's formula does, in float32, with 1e-7 added to the range of each.

    The target is enlarged so that this adds nothing; a factor of the score cancels.
    """
    from pytorch_grad_cam import FullGrad

    ours, theirs, images, x, logits = case
    classes = logits.argmax(1)
    with FullGrad(model=theirs, target_layers=[]) as cam:
        cam.aggregate_multi_layers = lambda maps: maps
        expected = cam(input_tensor=x, targets=[lambda out, c=int(c): 1e7 * out[c] for c in classes])[:, 0]
    found = jaxcam.explain(ours, images, method="full_grad", class_idx=classes)
    np.testing.assert_allclose(found.cam_map, expected, atol=1e-4 * expected.max())
    assert np.ptp(expected) > 0.2 * expected.max()


@pytest.mark.parity
def test_full_grad_of_the_released_code_rescales_layers(case):
    """The authors' formula for whole layers, from the parts of the full gradient that add up to the logit."""
    ours, _, images, _, logits = case
    c = int(logits[0].argmax())
    of = lambda x: ours(x)[0, c]
    parts = jax.jit(lambda x: jaxcam.programs.full_gradient(of, x))(images[:1])
    total = np.sum(parts.input) + sum(np.sum(bias) for bias in parts.biases)
    np.testing.assert_allclose(total, logits[0, c], rtol=1e-9)
    expected = np.zeros((64, 64))
    for share in (parts.input, *(bias for bias in parts.biases if bias.ndim == 4)):
        share = np.abs(np.asarray(share[0]))
        scaled = (share - share.min()) / (share.max() - share.min())
        expected += np.asarray(jax.image.resize(jnp.asarray(scaled.sum(-1)), (64, 64), "linear"))
    found = jax.jit(lambda x: methods.full_grad(ours, x, c, rescale="layer"))(images[0])
    np.testing.assert_allclose(found, expected, rtol=1e-9)

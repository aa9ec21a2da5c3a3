"""Maps against the grad-cam package on the same weights and images, where it is right; and where it is not (parity)."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_networks import randomised, saved

import jaxcam
from jaxcam import models

# The layers that the package's users name for these networks, and ours.
LAYERS = {
    "resnet18": lambda m: m.layer4[-1],
    "resnet50": lambda m: m.layer4[-1],
    "vgg16": lambda m: m.features[29],
    "efficientnet_b0": lambda m: m.features[-1],
}


@pytest.fixture(scope="module")
def package(torchvision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pytorch_grad_cam")


@pytest.fixture(scope="module", params=LAYERS)
def case(request, package, torchvision, tmp_path_factory):
    """Both networks in float64, two images, and the activations and gradients that the package's hooks saw."""
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    theirs = randomised(getattr(torchvision.models, request.param))
    path = saved(theirs, tmp_path_factory.mktemp("weights") / "w.safetensors")
    ours = models.MODELS[request.param](path, dtype=np.float64)
    images = np.random.default_rng(0).normal(size=(2, 96, 128, 3))
    theirs, x = theirs.double(), torch.from_numpy(np.moveaxis(images, -1, 1))
    with torch.no_grad():
        classes = theirs(x).numpy().argmax(1)  # of an unlikely class little may be left by the map's ReLU
    targets = [ClassifierOutputTarget(int(c)) for c in classes]

    def package_map(method):
        """The raw map, before the package's scaling and resizing, and what it was made from, channels first."""
        layer = LAYERS[request.param](theirs)
        with getattr(package, method)(model=theirs, target_layers=[layer]) as cam:
            cam(input_tensor=x, targets=targets)
            a, g = (
                np.asarray(t[0]) for t in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
            )
            return np.maximum(cam.get_cam_image(x, layer, targets, a, g, False), 0), a, g

    return ours, jnp.asarray(images), jnp.asarray(classes), package_map


def own_map(model, images, classes, method):
    return np.asarray(jaxcam.explain(model, images, class_idx=classes, method=method).cam_map)


def relative(found, expected):
    """The largest difference of two maps up to a factor, in units of the maximum, over the images."""
    found, expected = (m / m.max((1, 2), keepdims=True) for m in (found, expected))
    return np.abs(found - expected).max()


@pytest.mark.parity
def test_grad_cam_agrees(case):
    model, images, classes, package_map = case
    expected, _, _ = package_map("GradCAM")
    assert expected.max() > 0
    np.testing.assert_allclose(
        own_map(model, images, classes, "grad_cam"), expected, rtol=1e-9, atol=1e-9 * expected.max()
    )


@pytest.mark.parity
def test_gradients_at_the_layer_agree_with_hirescams(case):
    model, images, classes, package_map = case
    expected, _, _ = package_map("HiResCAM")
    a = model.features(images)
    logit = jax.vmap(lambda a, c: model.head(a[None])[0, c])
    g = jax.vmap(jax.grad(lambda a, c: logit(a[None], c[None])[0]))(a, classes)
    np.testing.assert_allclose(jax.nn.relu((g * a).sum(-1)), expected, rtol=1e-9, atol=1e-9 * expected.max())


@pytest.mark.parity
def test_grad_cam_pp_is_the_closed_form_and_the_package_is_not(case):
    """alpha = 1 / (2 + S g); the package adds 1e-6 to 2 g² + S g³, which is as small or smaller itself."""
    model, images, classes, package_map = case
    theirs, a, g = package_map("GradCAMPlusPlus")
    denominator = 2 + a.sum((2, 3), keepdims=True) * g
    weights = (np.maximum(g, 0) / denominator).sum((2, 3), keepdims=True)
    expected = np.maximum((weights * a).sum(1), 0)
    assert relative(own_map(model, images, classes, "grad_cam_pp"), expected) < 1e-9
    assert np.abs(theirs - expected).max() > 0.02 * expected.max()  # by 7 to 22 % for these networks

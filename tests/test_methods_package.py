"""The method family against the grad-cam package on the same weights and images, where it is right (parity)."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from test_ports import randomised, saved

import jaxcam
from jaxcam import models


@pytest.fixture(scope="module")
def case(torchvision, tmp_path_factory):
    """ResNet-18 cut in its third group, where the gradient differs from place to place; float64."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    theirs = randomised(torchvision.models.resnet18)
    path = saved(theirs, tmp_path_factory.mktemp("weights") / "w.safetensors")
    ours, theirs = models.resnet18(path, dtype=np.float64), theirs.double()
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3))
    x = torch.from_numpy(np.moveaxis(images, -1, 1))
    with torch.no_grad():
        classes = theirs(x).numpy().argmax(1)
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    layer = theirs.layer3[-1]

    def package_map(method, **options):
        with getattr(package, method)(model=theirs, target_layers=[layer], **options) as cam:
            cam(input_tensor=x, targets=targets)
            hooked = cam.activations_and_grads
            a = np.asarray(hooked.activations[0].detach())
            g = np.asarray(hooked.gradients[0]) if hooked.gradients else None
            return np.maximum(np.asarray(cam.get_cam_image(x, layer, targets, a, g, False)), 0), a

    def own_map(method, **options):
        found = jaxcam.explain(
            ours, jnp.asarray(images), class_idx=jnp.asarray(classes), method=method, layer="layer3", **options
        )
        return np.asarray(found.cam_map)

    return package_map, own_map


@pytest.mark.parity
@pytest.mark.parametrize(
    ("theirs", "ours", "tolerance"),
    [
        ("HiResCAM", "hires_cam", 1e-9),
        ("GradCAMElementWise", "layer_cam", None),
        ("LayerCAM", "layer_cam", 1e-9),
        ("XGradCAM", "xgrad_cam", 1e-6),  # it adds 1e-7 to the sum of a channel
    ],
)
def test_gradient_methods_agree(case, theirs, ours, tolerance):
    package_map, own_map = case
    expected, a = package_map(theirs)
    assert expected.max() > 0
    if theirs == "GradCAMElementWise":
        # ReLU(g A) by element is LayerCAM's where A is not negative, as behind a ReLU.
        assert a.min() >= 0
        tolerance = 1e-9
    np.testing.assert_allclose(own_map(ours), expected, rtol=tolerance, atol=tolerance * expected.max())


@pytest.mark.parity
def test_eigen_cam_agrees_but_for_the_centring(case):
    """The package subtracts each channel's mean before the decomposition, the paper does not."""
    package_map, own_map = case
    theirs, a = package_map("EigenCAM")
    ours = own_map("eigen_cam")
    for image, found, package in zip(a, ours, theirs, strict=True):
        matrix = np.moveaxis(image, 0, -1).reshape(-1, image.shape[0])
        _, _, right = np.linalg.svd(matrix, full_matrices=False)
        plain = (matrix @ right[0]).reshape(found.shape)
        np.testing.assert_allclose(found, np.maximum(plain * np.sign(plain.sum()), 0), rtol=1e-7, atol=1e-9)
        centred = matrix - matrix.mean(0)
        _, _, right = np.linalg.svd(centred, full_matrices=False)
        projection = (centred @ right[0]).reshape(found.shape)
        assert min(np.abs(np.maximum(s * projection, 0) - package).max() for s in (1, -1)) < 1e-4 * package.max()


@pytest.mark.parity
@pytest.mark.slow
def test_score_cam_agrees(case):
    package_map, own_map = case
    expected, _ = package_map("ScoreCAM")
    assert expected.max() > 0
    # It enlarges masks with their corners aligned to the image's, ours have their pixels' centres aligned, as in
    # resizing everywhere else: the masks are a little different, so that the maps can only be near each other.
    np.testing.assert_allclose(own_map("score_cam"), expected, atol=0.05 * expected.max())


@pytest.mark.parity
@pytest.mark.slow
def test_ablation_cam_agrees(case):
    package_map, own_map = case
    expected, _ = package_map("AblationCAM")
    found = own_map("ablation_cam")
    scale = (found * expected).sum((1, 2)) / (expected**2).sum((1, 2))
    for ours, theirs, factor in zip(found, expected, scale, strict=True):
        assert factor > 0
        np.testing.assert_allclose(ours, factor * theirs, atol=1e-4 * ours.max())

"""The method family against the grad-cam package on the same weights and images, where it is right (parity)."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_networks import resnet18_in_both

import jaxcam


@pytest.fixture(scope="module")
def case(torchvision, tmp_path_factory):
    """ResNet-18 cut in its third group, where the gradient differs from place to place; float64."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    ours, theirs, images, x = resnet18_in_both(torchvision, tmp_path_factory.mktemp("weights"))
    with torch.no_grad():
        classes = theirs(x).numpy().argmax(1)
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    layer, all_of = theirs.layer3[-1], (x, targets)

    def package_map(method, num=2, lowest=0):
        x, targets = all_of[0][:num], all_of[1][:num]
        with getattr(package, method)(model=theirs, target_layers=[layer]) as cam:
            cam(input_tensor=x, targets=targets)
            hooked = cam.activations_and_grads
            a = np.asarray(hooked.activations[0].detach())
            g = np.asarray(hooked.gradients[0]) if hooked.gradients else None
            return np.maximum(np.asarray(cam.get_cam_image(x, layer, targets, a, g, False)), lowest), a

    def own_map(method, num=2):
        found = jaxcam.explain(ours, images[:num], class_idx=classes[:num], method=method, layer="layer3")
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
@pytest.mark.parametrize(("theirs", "ours"), [("EigenGradCAM", "eigen_grad_cam"), ("KPCA_CAM", "kpca_cam")])
def test_principal_components_agree_but_for_their_sign(case, theirs, ours):
    """The package leaves a component's sign to the decomposition."""
    package_map, own_map = case
    expected, _ = package_map(theirs, lowest=-np.inf)
    for component, found in zip(expected, own_map(ours), strict=True):
        sign = np.sign((component * found).sum())
        assert found.max() > 0
        # It returns float32.
        np.testing.assert_allclose(found, np.maximum(sign * component, 0), atol=1e-5 * np.abs(component).max())


@pytest.mark.parity
@pytest.mark.slow
def test_score_cam_agrees_but_for_the_corners_of_the_masks(case, monkeypatch):
    """The package enlarges masks with their corners aligned to the image's, ours have their pixels' centres aligned."""
    import torch

    package_map, own_map = case
    found = own_map("score_cam", num=1)
    theirs, a = package_map("ScoreCAM", num=1)
    centred = partial(torch.nn.Upsample, mode="bilinear", align_corners=False)
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", centred)
    expected, _ = package_map("ScoreCAM", num=1)
    assert expected.max() > 0
    # Its scores are float32, and it adds 1e-8 to the range of a mask.
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
    assert 0.01 < np.abs(theirs - expected).max() / expected.max() < 0.05
    assert np.abs(a.mean(1) - expected).max() > 0.05 * expected.max()  # the weights are far from equal ones


@pytest.mark.parity
@pytest.mark.slow
def test_ablation_cam_agrees(case):
    """Both scores are positive, and the layer's smallest activation is 0: elsewhere the package leaves the paper."""
    package_map, own_map = case
    expected, a = package_map("AblationCAM", num=1)
    assert a.min() == 0
    assert expected.max() > 0
    # Its scores are float32, of which the differences keep five digits.
    np.testing.assert_allclose(own_map("ablation_cam", num=1), expected, atol=1e-5 * expected.max())


def torch_maps(package, network, x, class_idx, *methods):
    """The package's raw maps of a small network, whose first module is the layer; float64."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    found, targets = [], [ClassifierOutputTarget(class_idx)]
    for method in methods:
        with getattr(package, method)(model=network, target_layers=[network[0]]) as cam:
            cam(input_tensor=x, targets=targets)
            hooked = cam.activations_and_grads
            a = np.asarray(hooked.activations[0])
            g = np.asarray(hooked.gradients[0]) if hooked.gradients else None
            found.append(np.maximum(cam.get_cam_image(x, network[0], targets, a, g, False), 0)[0])
    return found


@pytest.fixture(scope="module")
def small(torchvision):
    """A ReLU and one linear layer in both, float64: `(package, network, head, activations, torch's image)`."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pytorch_grad_cam")
    random = np.random.default_rng(3)
    kernel, a = random.normal(size=(3, 3, 4, 2)), np.abs(random.normal(size=(3, 3, 4)))
    a[0, 0] = 0

    def of(activation, scale=1.0, bias=0.0):
        linear = torch.nn.Linear(36, 2).double()
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.moveaxis(kernel, (2, 3), (1, 0)).reshape(2, 36)))
            linear.bias.fill_(bias)
        network = torch.nn.Sequential(activation, torch.nn.Flatten(), linear)
        x = torch.from_numpy(scale * np.ascontiguousarray(np.moveaxis(a, -1, 0)[None])).requires_grad_()
        head = lambda a: jnp.tensordot(a, jnp.asarray(kernel), axes=3) + bias
        return package, network, head, jnp.asarray(scale * a), x

    return of


@pytest.mark.parity
def test_xgrad_cam_of_small_activations(small):
    """The package adds 1e-7 to the sum of a channel, which is not scale-free; ours is."""
    import torch

    for scale, agrees in ((1.0, True), (1e-8, False)):
        package, network, head, a, x = small(torch.nn.ReLU(), scale)
        (theirs,) = torch_maps(package, network, x, 0, "XGradCAM")
        ours = np.asarray(jaxcam.methods.xgrad_cam(head, a, 0)) / scale
        np.testing.assert_allclose(ours, jaxcam.methods.xgrad_cam(head, a / scale, 0), rtol=1e-9, atol=1e-12)
        difference = np.abs(theirs / scale - ours).max() / ours.max()
        assert difference < 1e-6 if agrees else difference > 0.2


@pytest.mark.parity
def test_ablation_cam_of_a_negative_score(small):
    """The package divides by the score itself: its map of a negative one shows what speaks against the class."""
    import torch

    for bias, sign in ((20.0, 1), (-20.0, -1)):
        package, network, head, a, x = small(torch.nn.ReLU(), bias=bias)
        assert np.sign(head(a)[0]) == sign
        (theirs,) = torch_maps(package, network, x, 0, "AblationCAM")
        drops = np.stack([head(a)[0] - head(a.at[..., k].set(0))[0] for k in range(4)])
        weights = drops / abs(float(head(a)[0]))
        np.testing.assert_allclose(jaxcam.methods.ablation_cam(head, a, 0), np.maximum(a @ weights, 0), atol=1e-12)
        np.testing.assert_allclose(theirs, np.maximum(sign * np.asarray(a @ weights), 0), atol=1e-5)
        assert theirs.max() > 0.01


@pytest.mark.parity
def test_ablation_cam_of_a_layer_whose_minimum_is_not_zero(small):
    """The package then sets channels to ten million less than the minimum, not to zero as the paper does."""
    import torch

    found = []
    for bias in (20.0, -20.0):
        package, network, head, a, x = small(torch.nn.Softplus(), bias=bias)
        a = jax.nn.softplus(a)
        found += torch_maps(package, network, x, 0, "AblationCAM")
        weights = np.stack([head(a)[0] - head(a.at[..., k].set(0))[0] for k in range(4)]) / abs(float(head(a)[0]))
        expected = np.maximum(a @ weights, 0)
        np.testing.assert_allclose(jaxcam.methods.ablation_cam(head, a, 0), expected, rtol=1e-9, atol=1e-12)
        assert expected.max() < 10
    assert np.max(found) > 1e4


@pytest.mark.parity
def test_elementwise_grad_cam_is_layer_cam_only_where_activations_are_not_negative(small):
    """ReLU(g A) keeps what is negative in both, ReLU(g) A what is negative in A: the same behind a ReLU alone."""
    import torch

    package, network, head, a, _ = small(torch.nn.Identity())
    signed = a - 0.5
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.array(signed), -1, 0)[None])).requires_grad_()
    elementwise, layer = torch_maps(package, network, x, 0, "GradCAMElementWise", "LayerCAM")
    found = np.asarray(jaxcam.methods.layer_cam(head, signed, 0))
    np.testing.assert_allclose(found, layer, rtol=1e-9, atol=1e-12)
    assert np.abs(found - elementwise).max() > 0.1 * layer.max()

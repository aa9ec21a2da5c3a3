"""Networks of torchvision and timm, as they come, against the grad-cam package and brute force in torch (parity)."""

import functools
import importlib.util
import os
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_networks import randomised

import jaxcam

pytestmark = pytest.mark.parity
# A name in torchvision or timm, its options there, the size, and the layer where it is cut by default.
QUICK = {
    "resnet18": ({}, 64, "layer4"),
    "squeezenet1_1": ({}, 64, "classifier.2"),
    "convnext_atto": ({}, 64, "stages"),
    "deit_tiny_distilled_patch16_224": ({"img_size": 64, "depth": 2}, 64, "blocks.0"),
    "vit_base_patch16_siglip_224": ({"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3}, 64, "norm"),
    "shufflenet_v2_x0_5": ({}, 64, "conv5"),
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 2}, 64, "blocks.0"),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56, "depth": 2, "embed_dim": 96, "num_heads": 3}, 56, "blocks.0"),
}
LONG = {
    "alexnet": ({}, 64, "features.11"),
    "mobilenet_v2": ({}, 64, "features"),
    "mobilenet_v3_small": ({}, 64, "features"),
    "regnet_y_400mf": ({}, 64, "trunk_output"),
    "efficientnet_b0": ({}, 64, "features"),
    "mnasnet0_5": ({}, 64, "layers"),
    "cait_xxs24_224": ({"img_size": 64, "depth": 2}, 64, "blocks"),
    "swin_t": ({}, 64, "permute"),
    "swin_v2_t": ({}, 64, "permute"),
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "window_size": 4, "depths": (1, 1, 1, 1)}, 64, "norm"),
    "resmlp_12_224": ({"img_size": 64}, 64, "norm"),
    "poolformer_s12": ({}, 64, "stages"),
    "mobilevit_xxs": ({}, 64, "final_conv"),
    "pit_ti_224": ({}, 224, "transformers.2.blocks.2"),
}


@pytest.fixture(scope="module")
def package(torchvision):
    pytest.importorskip("timm")
    if importlib.util.find_spec("torchax") is None:
        pytest.skip("torchax is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pytorch_grad_cam")


@pytest.fixture(autouse=True)
def forget_programs():
    yield
    jax.clear_caches()


def created(name, options):
    import timm
    import torch
    import torchvision

    def create():
        of = getattr(torchvision.models, name, None)
        network = timm.create_model(name, **options) if of is None else of(weights=None, **options)
        for part in network.modules():  # heads that begin with zeros would tell nothing
            if isinstance(part, torch.nn.Linear) and not part.weight.any():
                torch.nn.init.normal_(part.weight, std=0.05)
        return network

    return randomised(create).double()


def in_package(package, network, layer, x, class_idx, grid):
    """The package's raw map, before it is scaled and resized."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    before = int((re.search(r"\((\d+) before\)", grid) or [0, 0])[1])
    height, width = map(int, grid.split()[0].split("x"))

    def channels_first(t):
        t = t[:, before:].reshape(len(t), height, width, -1) if t.ndim == 3 else t
        return t if t.shape[2:] == (height, width) else t.permute(0, 3, 1, 2)

    targets = [ClassifierOutputTarget(class_idx)]
    with package.GradCAM(model=network, target_layers=[layer], reshape_transform=channels_first) as cam:
        cam(input_tensor=x, targets=targets)
        held = cam.activations_and_grads
        a, g = (np.asarray(t[0]) for t in (held.activations, held.gradients))
        return np.maximum(cam.get_cam_image(x, layer, targets, a, g, False), 0)


def check(package, name, options, size, layer):
    import torch

    network = created(name, options)
    x = np.random.default_rng(0).normal(size=(1, 3, size, size))
    with torch.no_grad():
        logits = network(torch.from_numpy(x)).numpy()
    net, best = jaxcam.adapt(network), int(logits.argmax())
    (default,) = (row for row in jaxcam.layers(net, x) if row.default)
    assert default.layer == layer
    found = jaxcam.explain(net, x, class_idx=best)
    np.testing.assert_allclose(found.value, logits[:, best], rtol=1e-9)
    part = dict(network.named_modules())[layer]
    expected = in_package(package, network, part, torch.from_numpy(x), best, default.grid)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map / expected.max(), expected / expected.max(), atol=1e-9)
    difference = np.abs(found.cam_map - expected).max() / expected.max()
    print(f"{name}: cut at {layer}, {default.grid}, map to {difference:.0e}")


@pytest.mark.parametrize("name", QUICK)
def test_grad_cam_is_the_packages(name, package):
    check(package, name, *QUICK[name])


@pytest.mark.skipif("JAXCAM_ALL_NETWORKS" not in os.environ, reason="JAXCAM_ALL_NETWORKS=1 runs it, in two minutes")
@pytest.mark.parametrize("name", LONG)
def test_grad_cam_is_the_packages_for_more_networks(name, package):
    check(package, name, *LONG[name])


# Where each is cut, and what follows in torch; small, for the elements of A move one by one.
HEADS = {
    "resnet18": ({}, 64, "layer4", lambda m, a: m.fc(m.avgpool(a).flatten(1))),
    "vit_tiny_patch16_224": (
        {"img_size": 32, "depth": 2, "embed_dim": 48},
        32,
        "blocks.0",
        lambda m, a: m.forward_head(m.norm(m.blocks[1](a))),
    ),
    "deit_tiny_distilled_patch16_224": (
        {"img_size": 32, "depth": 3, "embed_dim": 48},
        32,
        "blocks.0",
        lambda m, a: m.forward_head(m.norm(m.blocks[2](m.blocks[1](a)))),
    ),
    "vit_base_patch16_siglip_224": (
        {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
        32,
        "norm",
        lambda m, a: m.forward_head(a),
    ),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "window_size": 4, "depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 2, 2)},
        64,
        "layers.2",
        lambda m, a: m.forward_head(m.norm(m.layers[3](a))),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_exact_derivatives_are_those_of_torchs_values(name, package):
    """Three derivatives of exp(S) as one element moves, by the polynomial through torch's values at 28 places.

    Not by derivatives of torch: its attention on CPUs has no second one, and the third of its `layer_norm` is wrong
    (that of `group_norm` is right, and so are softmax, GELU and sigmoid).
    """
    import torch

    options, size, layer, head_in_torch = HEADS[name]
    network = created(name, options)
    x = np.random.default_rng(0).normal(size=(1, 3, size, size))
    net = jaxcam.adapt(network)
    features, head = jaxcam.split(net, layer, x)
    a = np.asarray(features(net, x))
    logits = np.asarray(head(net, jnp.asarray(a), x))[0]
    best, top = int(logits.argmax()), logits.max()
    # exp(S) as it is would be large; a factor cancels from alpha.
    score = lambda a: jnp.exp(head(net, a, x)[0, best] - top)
    derivatives = jax.jit(functools.partial(jaxcam.elementwise_derivatives, score))(jnp.asarray(a))
    derivatives = [np.asarray(d).reshape(-1) for d in derivatives]
    largest = [np.abs(d).max() for d in derivatives]
    elements = [*np.random.default_rng(1).choice(a.size, 6, replace=False), *(np.abs(d).argmax() for d in derivatives)]
    # Nearer together, and the third derivative drowns in rounding.
    places = 1.5 * np.polynomial.chebyshev.chebpts1(28)
    for element in elements:
        moved = np.repeat(a.reshape(1, -1), len(places), 0)
        moved[:, element] += places
        with torch.no_grad():
            found = head_in_torch(network, torch.from_numpy(moved.reshape(-1, *a.shape[1:])))[:, best].numpy()
        line = np.polynomial.Chebyshev.fit(places, np.exp(found - top), len(places) - 1)
        for order in range(3):
            expected, atol = line.deriv(order + 1)(0.0), 1e-8 * largest[order] + 2e-11
            np.testing.assert_allclose(derivatives[order][element], expected, rtol=1e-7, atol=atol)

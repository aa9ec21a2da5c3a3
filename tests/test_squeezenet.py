"""SqueezeNet against torchvision's (parity), and with its genuine weights on real photographs (JAXCAM_DATA)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jaxcam
from jaxcam import models

VERSIONS = ["squeezenet1_0", "squeezenet1_1"]


@pytest.fixture(scope="module", params=VERSIONS)
def pair(request, torchvision, tmp_path_factory):
    """torchvision's network with random parameters, and ours with the same ones."""
    import torch

    torch.manual_seed(1)
    theirs = getattr(torchvision.models, request.param)(weights=None).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases start at zero, where a mix-up would go unseen
            parameter.add_(0.02 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.numpy.save_file({k: v.numpy() for k, v in theirs.state_dict().items()}, path)
    return theirs, models.MODELS[request.param](path)


def outputs_of(theirs, images, dtype):
    """The logits, and what every child of `features` and `classifier` returns, by torchvision's names."""
    import torch

    outputs = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out.detach().clone()}))
        for name, module in theirs.named_modules()
        if name.count(".") == 1
    ]
    theirs = theirs.to(dtype)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(np.moveaxis(images, -1, 1)).to(dtype)).numpy()
    for hook in hooks:
        hook.remove()
    return logits, {name: np.moveaxis(out.numpy(), 1, -1) for name, out in outputs.items() if out.ndim == 4}


@pytest.mark.parity
@pytest.mark.parametrize("size", [(224, 224), (191, 260)])
@pytest.mark.parametrize("double", [False, True])
def test_every_layer_agrees_with_torchvision(pair, size, double):
    import torch

    theirs, ours = pair
    images = np.random.default_rng(0).normal(size=(2, *size, 3))
    dtype, tolerance = (np.float64, 1e-9) if double else (np.float32, 1e-4)
    logits, layers = outputs_of(theirs, images, torch.float64 if double else torch.float32)
    if double:
        ours = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), ours)
    x = jnp.asarray(images.astype(dtype))
    checked = 0
    for layer in ours.layers[:-1]:
        found = np.asarray(ours.features(x, layer=layer))
        scale = np.abs(layers[layer]).max()
        np.testing.assert_allclose(found / scale, layers[layer] / scale, atol=tolerance)
        checked += 1
    assert checked >= 15
    np.testing.assert_allclose(ours(x) / np.abs(logits).max(), logits / np.abs(logits).max(), atol=tolerance)


@pytest.mark.parity
def test_grad_cam_agrees_with_torchs_autograd(pair):
    import torch

    theirs, ours = pair
    theirs = theirs.to(torch.float32)
    images = np.random.default_rng(3).normal(size=(1, 224, 224, 3)).astype(np.float32)
    a = theirs.features(torch.from_numpy(np.moveaxis(images, -1, 1)))
    a.retain_grad()
    logits = torch.flatten(theirs.classifier(a), 1)[0]
    logits.max().backward()
    weights = a.grad[0].mean((1, 2))
    expected = torch.relu((weights[:, None, None] * a.detach()[0]).sum(0)).numpy()
    found = jaxcam.explain(ours, images, method="grad_cam")
    assert found.class_idx[0] == int(logits.argmax())
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map[0] / expected.max(), expected / expected.max(), atol=1e-4)


def photographs(data, model, num):
    entries = json.loads((data / "images" / "imagenet_val.json").read_text())[:num]
    pictures = [jaxcam.read_image(data / "images" / entry["file"]) for entry in entries]
    return entries, np.stack([model.preprocessing(picture) for picture in pictures])


@pytest.mark.slow
@pytest.mark.parametrize(("version", "top_1", "top_5"), [("squeezenet1_0", 57.2, 80.3), ("squeezenet1_1", 55.8, 79.1)])
def test_accuracy_on_photographs(data, version, top_1, top_5):
    model = models.MODELS[version](data / "weights" / f"{version}.safetensors")
    entries, images = photographs(data, model, 300)
    forward = jax.jit(lambda model, images: model(images))
    logits = np.concatenate([forward(model, images[i : i + 50]) for i in range(0, 300, 50)])
    ranks = (logits > logits[np.arange(300), [e["imagenet_index"] for e in entries], None]).sum(1)
    # The published figures are of 1,000 photographs; these are 300 of them: two standard errors.
    assert 100 * (ranks < 1).mean() == pytest.approx(top_1, abs=2 * 2.9)
    assert 100 * (ranks < 5).mean() == pytest.approx(top_5, abs=2 * 2.3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "cam"])
def test_maps_lie_on_the_objects_of_photographs(data, method):
    """The hottest pixel lies in a box of the class far more often than a pixel by chance does."""
    model = models.squeezenet1_1(data / "weights" / "squeezenet1_1.safetensors")
    entries, images = photographs(data, model, 100)
    classes = np.array([entry["imagenet_index"] for entry in entries])
    hits, chances = [], []
    for start in range(0, 100, 20):
        found = jaxcam.explain(model, images[start : start + 20], class_idx=classes[start : start + 20], method=method)
        for heatmap, entry in zip(np.asarray(found.heatmap), entries[start : start + 20], strict=True):
            inside = box_mask(entry)
            hits.append(inside[np.unravel_index(heatmap.argmax(), heatmap.shape)])
            chances.append(inside.mean())
    assert np.mean(hits) > np.mean(chances) + 0.2
    assert np.mean(hits) > 0.7


def box_mask(entry):
    """The boxes in the 224 x 224 crop of the photograph, whose shorter side became 256."""
    scale = 256 / min(entry["width"], entry["height"])
    left, top = (round((round(entry[side] * scale) - 224) / 2) for side in ("width", "height"))
    mask = np.zeros((224, 224), bool)
    for x0, y0, x1, y1 in np.asarray(entry["boxes"]) * scale - [left, top, left, top]:
        mask[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))] = True
    return mask

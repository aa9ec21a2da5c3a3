"""FullGrad: in every framework the map that is written out by hand, on every grid."""

import os

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import methods

CLASS_IDX = 3
ENDS = {"stem_norm": "stem", "first.norm1": "first.conv1", "first.norm2": "first.conv2", "down": "down"}
ENDS |= {"second.norm1": "second.conv1", "second.norm2": "second.conv2"}
"""Where a bias is complete, and the convolution before."""


@pytest.fixture(scope="module")
def shares():
    """Of the image and of the six biases of convolutions and batch norms, from zeros added where they end."""
    p, images = foreign.parameters(), foreign.example()[:1]
    values = jax.jit(lambda x, moved: foreign.by_hand(p, x, moved))
    made = values(images, {})
    logit = lambda x, moved: values(x, moved)["logits"][0, CLASS_IDX]
    by_image, moved = jax.grad(logit, (0, 1))(images, {name: np.zeros_like(made[name]) for name in ENDS})
    found = [np.asarray(images * by_image)[0]]
    for name, before in ENDS.items():
        bias = p[f"{before}.bias"]
        if name != before:
            factor = p[f"{name}.scale"] / np.sqrt(p[f"{name}.var"] + foreign.EPSILON)
            bias = (bias - p[f"{name}.mean"]) * factor + p[f"{name}.offset"]
        found.append(np.asarray(moved[name])[0] * bias)
    head = p["head.bias"][CLASS_IDX]
    np.testing.assert_allclose(sum(map(np.sum, found)) + head, logit(images, {}), rtol=1e-10)
    return images, found


def overlaid(shares, rescale, size):
    """ψ of each, added up, written out for the map's own pixels."""
    total = np.zeros(size)
    for share in map(np.abs, shares):
        axes = None if rescale == "layer" else tuple(range(share.ndim - 1))
        low, high = share.min(axes, keepdims=True), share.max(axes, keepdims=True)
        changes = high - low > 1e-14 * high
        scaled = np.where(changes, (share - low) / np.where(changes, high - low, 1), 0).sum(-1)
        total += np.asarray(jax.image.resize(scaled, size, "linear"))
    return total


@pytest.mark.parametrize("rescale", ["channel", "layer"])
@pytest.mark.sample(2)
def test_the_map_by_hand(shares, rescale):
    images, parts = shares
    model = jaxcam.adapt(foreign.parameters(), apply=foreign.plain)
    found = jaxcam.explain(model, images, method="full_grad", class_idx=CLASS_IDX, rescale=rescale)
    expected = overlaid(parts, rescale, (12, 11))
    np.testing.assert_allclose(found.cam_map[0], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.heatmap[0], expected / expected.max(), rtol=1e-9)
    assert found.gradient is None
    np.testing.assert_array_equal(found.status, 0)


PARITY = [pytest.param(name, marks=pytest.mark.parity) for name in ("equinox", "keras")]


@pytest.mark.parametrize(
    "framework", [*(pytest.param(name, marks=pytest.mark.thorough) for name in ("nnx", "linen")), *PARITY]
)
def test_the_same_map_in_every_framework(framework, shares, monkeypatch):
    images, parts = shares
    if framework in ("equinox", "keras"):
        monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
        pytest.importorskip(framework)
    p, options = foreign.parameters(), {"method": "full_grad", "class_idx": CLASS_IDX}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if framework == "nnx":
            found = jaxcam.explain(foreign.nnx_model(p), images, **options)
        elif framework == "linen":
            module, variables = foreign.linen_model(p)
            found = jaxcam.explain(jaxcam.adapt(variables, apply=module.apply), images, **options)
        elif framework == "equinox":  # channels first
            net = jaxcam.adapt(foreign.equinox_model(p), apply=lambda m, x: jax.vmap(m)(x))
            found = jaxcam.explain(net, jnp.moveaxis(images, -1, 1), **options)
        else:
            found = jaxcam.explain(foreign.keras_model(p, "float32"), images.astype(np.float32), **options)
    tolerance = 1e-3 if framework == "keras" else 1e-8
    expected = overlaid(parts, "channel", (12, 11))
    np.testing.assert_allclose(found.cam_map[0], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.thorough
def test_series_targets_and_scores():
    """A stride of two: the bias lies on five places of nine. A factor of the score cancels, exp of large logits too."""
    random = np.random.default_rng(0)
    bank, bias, to = random.normal(size=(3, 2, 4)), random.normal(size=4), random.normal(size=(4, 3))
    series = random.normal(size=(2, 9, 2))

    def layer(x, moved=None):
        dims = ("NWC", "WIO", "NWC")
        return (
            jax.lax.conv_general_dilated(x, bank, (2,), "SAME", None, None, dims)
            + bias[None, None]
            + (0.0 if moved is None else moved[None])
        )

    model = lambda x: jax.nn.relu(layer(x)).mean(1) @ to
    target = lambda outputs, inputs: outputs[0] - outputs[2]
    found = jaxcam.explain(model, series, method="full_grad", target=target)
    of = lambda x, moved: target((jax.nn.relu(layer(x[None], moved)).mean(1) @ to)[0], x)
    by_x, by_bias = jax.jit(jax.vmap(jax.grad(of, (0, 1))))(series, np.zeros((2, 5, 4)))
    expected = [
        overlaid([x * g, h * bias[None]], "channel", (9,)) for x, g, h in zip(series, by_x, by_bias, strict=True)
    ]
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)
    steep = jaxcam.explain(lambda x: 4000 * model(x), series, method="full_grad", score="exp", class_idx=0)
    plain = jaxcam.explain(model, series, method="full_grad", class_idx=0)
    np.testing.assert_allclose(steep.cam_map, plain.cam_map, rtol=1e-7, atol=1e-9)


def test_what_is_wrong_is_said():
    model, image = lambda x: x.mean((1, 2)), np.ones((4, 4, 3))
    with pytest.raises(ValueError, match="rescale must be 'channel' or 'layer'"):
        jaxcam.explain(model, image[None], method="full_grad", rescale="all")
    with pytest.raises(ValueError, match="class_idx"):
        methods.full_grad(model, jnp.asarray(image), 7)

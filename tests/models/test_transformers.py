"""Attention, layer norm, tokens and the embedded ViT by brute force, and ViT's names for its parameters."""

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf
from support import network, normal

from jaxcam import models
from jaxcam.models.attention import AttentionPool, attended
from jaxcam.models.loading.checkpoint import opened
from jaxcam.models.modules import LayerNorm
from jaxcam.models.swin import WindowAttention
from jaxcam.models.vit import VisionTransformer

OPTIONS = {"width": 8, "heads": 2, "depth": 2, "patch": 4, "image": 12, "num_classes": 5}


def small(weights=None, *, rngs=None, **options):
    return VisionTransformer(**OPTIONS | options, rngs=rngs or nnx.Rngs(0))


def once(module, x):
    """What the module makes of it, as one program."""
    return jax.jit(lambda module, x: module(x))(module, x)


def softmax(scores):
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def test_attention_by_loops():
    queries, keys, values = (np.asarray(normal(seed, 4, 5, 2, 3)) for seed in range(3))
    bias = np.asarray(normal(3, 2, 2, 5, 5))
    found = np.asarray(jax.jit(lambda q, k, v, b: attended(q, k, v, bias=b))(queries, keys, values, bias))
    for n in range(4):
        for q in range(5):
            for head in range(2):
                scores = [queries[n, q, head] @ keys[n, t, head] / 3**0.5 + bias[n % 2, head, q, t] for t in range(5)]
                expected = softmax(np.array(scores)) @ values[n, :, head]
                np.testing.assert_allclose(found[n, q, 3 * head : 3 * head + 3], expected, atol=1e-12)


def test_layer_norm_by_hand():
    layer = LayerNorm(3, epsilon=0.5)
    layer.scale.set_value(np.array([1.0, 2.0, 3.0]))
    layer.bias.set_value(np.array([0.0, 10.0, 0.0]))
    # mean 3, variance 6, sqrt(6.5)
    found = np.asarray(once(layer, np.array([[0.0, 3.0, 6.0]])))
    np.testing.assert_allclose(found, [[-3 / 6.5**0.5, 10.0, 9 / 6.5**0.5]], rtol=1e-12)


@pytest.mark.parametrize(("size", "shift"), [((6, 9), 1), ((5, 7), 1), ((3, 7), 1), ((6, 6), 0)])
@pytest.mark.sample(2)
def test_window_attention_by_its_definition(size, shift):
    """Two positions see each other if they share a window of the shifted grid and nothing wrapped between them."""
    window, heads, channels = 3, 2, 4
    layer = network(
        lambda _, rngs=None: WindowAttention(channels, heads, window=window, shift=shift, rngs=nnx.Rngs(0)),
        dtype=np.float64,
    )
    x = np.asarray(normal(1, 1, *size, channels))
    found = np.asarray(once(layer, x))[0]
    full = [-(-side // window) * window for side in size]
    padded = np.zeros((*full, channels))
    padded[: size[0], : size[1]] = x[0]
    shifts = [0 if side == window else shift for side in full]
    places = [(i, j) for i in range(full[0]) for j in range(full[1])]

    def key(place):
        """Window and, since the shift wraps, which end of the picture."""
        return tuple(((p - s) % side // window, p < s) for p, s, side in zip(place, shifts, full, strict=True))

    def along(place):
        return [(p - s) % side for p, s, side in zip(place, shifts, full, strict=True)]

    qkv = {
        place: (padded[place] @ layer.qkv.kernel[...] + layer.qkv.bias[...]).reshape(3, heads, -1) for place in places
    }
    table = np.asarray(layer.relative_position_bias_table[...])
    for place in [(0, 0), (size[0] - 1, 2), (1, size[1] - 1)]:
        seen = [other for other in places if key(other) == key(place)]
        mixed = []
        for head in range(heads):
            scores = []
            for other in seen:
                down, right = (a - b + window - 1 for a, b in zip(along(place), along(other), strict=True))
                product = qkv[place][0, head] @ qkv[other][1, head] / (channels // heads) ** 0.5
                scores.append(product + table[head, down * (2 * window - 1) + right])
            mixed.append(softmax(np.array(scores)) @ [qkv[other][2, head] for other in seen])
        expected = np.concatenate(mixed) @ layer.proj.kernel[...] + layer.proj.bias[...]
        np.testing.assert_allclose(found[place], expected, atol=1e-12)


def test_attention_pooling_does_not_depend_on_the_order_of_the_tokens():
    layer = network(lambda _, rngs=None: AttentionPool(8, 2, rngs=nnx.Rngs(0)), dtype=np.float64)
    x = np.asarray(normal(0, 2, 6, 8))
    pool = jax.jit(lambda layer, x: layer(x))
    found = np.asarray(pool(layer, x))
    np.testing.assert_allclose(np.asarray(pool(layer, x[:, ::-1])), found, atol=1e-12)
    assert np.abs(np.asarray(pool(layer, x + np.eye(6, 8))) - found).max() > 1e-3


def test_tokens_are_class_registers_and_patches_row_by_row():
    model = network(small, registers=2, dtype=np.float64)
    tokens = model.stages["tokens"]
    grid = np.asarray(normal(0, 1, 3, 3, 8))
    found = np.asarray(once(tokens, grid))[0]
    np.testing.assert_array_equal(found[0], tokens.cls_token[0, 0])  # which has no position beside registers
    np.testing.assert_array_equal(found[1:3], tokens.reg_token[0])
    np.testing.assert_allclose(found[3 + 5], grid[0, 1, 2] + tokens.pos_embed[0, 5], rtol=1e-12)


def test_vit_keeps_timms_names_and_is_cut_at_any_block(tmp_path):
    model = network(small)
    path = tmp_path / "w.safetensors"
    models.weights.save(model, path)
    shapes = models.weights.shapes_of(lambda: model)
    block = ["attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2", "norm1", "norm2"]
    modules = ["patch_embed.proj", "norm", "head", *(f"blocks.{i}.{part}" for i in range(2) for part in block)]
    named = {f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")}
    assert shapes.keys() == named | {"cls_token", "pos_embed"}
    assert shapes["pos_embed"] == (1, 10, 8)
    assert shapes["blocks.0.attn.qkv.weight"] == (24, 8)
    again = models.weights.loaded(small, opened(path))
    for found, expected in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(found, expected)
    images = normal(0, 1, 12, 12, 3, dtype=np.float32)

    @jax.jit
    def outputs(model, images):
        cut = model.features(images)
        return cut, model.head(cut), model(images)

    cut, found, expected = (np.asarray(value) for value in outputs(model, images))
    assert cut.shape == (1, 10, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mini_vit_by_hand():
    """The whole network in NumPy, from the pixels to the logits, and the same from its default layer."""
    model = network(models.mini_vit, seed=4, dtype=np.float64)
    p = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(model))}
    p = {name.removeprefix("stages."): value for name, value in p.items()}
    image = np.asarray(normal(5, 64, 64, 3))

    def conv(x, kernel, strides):
        """3 x 3, padded so that the strides divide the size: on both sides, or below and on the right alone."""
        before = 2 - strides
        padded = np.pad(x, ((before, 1), (before, 1), (0, 0)))
        sides = [(side // strides) * strides for side in x.shape[:2]]
        shifted = [[padded[i : i + sides[0] : strides, j : j + sides[1] : strides] for j in range(3)] for i in range(3)]
        return np.einsum("ijhwd,ijdk->hwk", np.array(shifted), kernel)

    def dense(x, name):
        return x @ p[f"{name}.kernel"] + p[f"{name}.bias"]

    def layer_norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / spread * p[f"{name}.scale"] + p[f"{name}.bias"]

    x = image
    for i, strides in enumerate((2, 2, 1, 2), start=1):
        x = conv(x, p[f"conv{i}.kernel"], strides) - p[f"bn{i}.mean"]
        x = x / np.sqrt(p[f"bn{i}.var"] + 1e-5) * p[f"bn{i}.scale"] + p[f"bn{i}.bias"]
        x = np.maximum(x, 0)
    x = x @ p["proj.kernel"][0, 0] + p["proj.bias"]
    x = np.concatenate([p["tokens.cls_token"][0], x.reshape(64, 64)]) + p["tokens.pos_embed"][0]
    after = []
    for i in range(5):
        qkv = dense(layer_norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").reshape(65, 3, 4, 16)
        heads = []
        for head in range(4):
            queries, keys, values = (qkv[:, part, head] for part in range(3))
            heads.append(np.array([softmax(keys @ query / 4) @ values for query in queries]))
        x = x + dense(np.concatenate(heads, -1), f"blocks.{i}.attn.proj")
        hidden = dense(layer_norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        x = x + dense(hidden * (1 + erf(hidden / 2**0.5)) / 2, f"blocks.{i}.mlp.fc2")
        after.append(x)
    expected = dense(layer_norm(x, "norm")[0], "head")

    @jax.jit
    def outputs(model, images):
        cut = model.features(images)
        return cut, model.head(cut), model.class_logit(cut, 7)

    cut, logits, of_one = (np.asarray(value) for value in outputs(model, image[None]))
    np.testing.assert_allclose(cut[0], after[3], rtol=1e-9, atol=1e-9 * np.abs(after[3]).max())
    np.testing.assert_allclose(logits[0], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(of_one, expected[7:8], rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.usefixtures("unchecked")
def test_pictures_that_are_no_whole_number_of_patches_are_refused():
    model = network(small)
    with pytest.raises(ValueError, match=r"sides that 4, the size of the patches, divides but are \[12, 14\]: crop"):
        jax.eval_shape(model, normal(0, 1, 12, 14, 3, dtype=np.float32))


@pytest.mark.thorough
def test_dinov2_is_an_embedding_unless_classes_are_asked_for():
    embedding = nnx.eval_shape(models.vit_small_patch14_dinov2)
    assert (embedding.layers[-1], embedding.class_names) == ("pool", ())
    classifier = nnx.eval_shape(lambda: small(num_classes=7))
    assert (classifier.layers[-1], len(classifier.class_names)) == ("head", 7)

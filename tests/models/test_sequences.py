"""The networks of series, volumes and clips: layer by layer in NumPy, through the scan, and their explanations."""

import itertools
import json
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import drawn, network

import jaxcam
from jaxcam import models
from jaxcam.models import sequences, train, weights
from jaxcam.programs.convolution import convolution_3d

DATA = files("jaxcam") / "data"
SHAPES = {
    "mini_tcn": (21, 3),
    "mini_net3d": (8, 9, 8, 1),
    "mini_c3d": (8, 16, 24, 3),
    "mini_convlstm": (3, 16, 24, 3),
}


TRAINED = {**models.SEQUENCE_MODELS, **models.WORD_MODELS}


def created(name):
    return network(models.SEQUENCE_MODELS[name], dtype=np.float64)


def inputs(name, num=2):
    return drawn(1, num, *SHAPES[name])


# NumPy, one step after the other.


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def convolved(x, conv):
    """A sum over the kernel's positions of the shifted input, padded as TensorFlow does: the surplus at the end."""
    kernel, strides, dilations = np.asarray(conv.kernel[...]), conv.strides, conv.kernel_dilation
    axes = kernel.ndim - 2
    strides, dilations = (np.broadcast_to(each, axes) for each in (strides, dilations))
    sizes = x.shape[-1 - axes : -1]
    outs = [-(-size // step) for size, step in zip(sizes, strides, strict=True)]
    pads = []
    for size, out, step, wide, apart in zip(sizes, outs, strides, kernel.shape, dilations, strict=False):
        total = max((out - 1) * step + (wide - 1) * apart + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0)] * (x.ndim - 1 - axes) + pads + [(0, 0)])
    found = 0
    for place in itertools.product(*map(range, kernel.shape[:-2])):
        cut = [
            slice(i * apart, i * apart + (out - 1) * step + 1, step)
            for i, apart, out, step in zip(place, dilations, outs, strides, strict=True)
        ]
        found = found + x[(..., *cut, slice(None))] @ kernel[place]
    return found if conv.bias is None else found + np.asarray(conv.bias[...])


def normed(x, norm):
    mean, var, scale, bias = (np.asarray(v[...]) for v in (norm.mean, norm.var, norm.scale, norm.bias))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def linear(x, layer):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def by_layers(model, x, num, first=1):
    s = model.stages
    for i in range(first, num + 1):
        x = relu(normed(convolved(x, s[f"conv{i}"]), s[f"bn{i}"]))
    return x


def tcn(model, x):
    x, s = by_layers(model, x, 1), model.stages
    for i in (1, 2, 3):
        block = s[f"block{i}"]
        residual = relu(normed(convolved(x, block.conv1), block.bn1))
        x = relu(normed(convolved(residual, block.conv2), block.bn2) + x)
    return x, linear(x.mean(1), s["fc"])


def volumes(model, x):
    x, s = by_layers(model, x, 4), model.stages
    return x, linear(relu(linear(x.mean((1, 2, 3)), s["fc5"])), s["fc6"])


def frame_by_frame(model, x):
    """The layers of mini_resnet."""
    s = model.stages
    x = relu(normed(convolved((x - 0.5) / 0.25, s["conv1"]), s["bn1"]))
    for block in (s["layer1"], s["layer2"], s["layer3"]):
        residual = normed(convolved(relu(normed(convolved(x, block.conv1), block.bn1)), block.conv2), block.bn2)
        x = relu(residual + (x if block.shortcut is None else convolved(x, block.shortcut)))
    return x


def clips(model, x):
    x = by_layers(model, frame_by_frame(model, x), 5, first=4)
    return x, linear(x.mean((1, 2, 3)), model.stages["fc"])


def recurrent(model, x):
    x, lstm, states = by_layers(model, frame_by_frame(model, x), 4, first=4), model.stages["lstm"], []
    hidden = cell = np.zeros((*x[:, 0].shape[:-1], lstm.hidden))
    for frame in np.moveaxis(x, 1, 0):
        i, f, o, g = np.split(convolved(frame, lstm.conv_x) + convolved(hidden, lstm.conv_h), 4, -1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    x = np.stack(states, 1)
    return x, linear(x.mean((1, 2, 3)), model.stages["fc"])


BY_HAND = {"mini_tcn": tcn, "mini_net3d": volumes, "mini_c3d": clips, "mini_convlstm": recurrent}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.sample(2)
def test_networks_are_their_layers(name, tmp_path):
    model, x = created(name), inputs(name)
    found = jax.jit(lambda model, x: (model.features(x), model(x)))(model, x)
    for ours, expected in zip(found, BY_HAND[name](model, x), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-10)
    weights.save(model, tmp_path / "w.safetensors")
    again = models.SEQUENCE_MODELS[name](tmp_path / "w.safetensors", dtype=np.float64)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.class_names == model.class_names


@pytest.mark.parametrize(("strides", "padding"), [((1, 2, 2), "SAME"), ((2, 1, 3), [(1, 0), (0, 2), (1, 1)])])
def test_convolution_by_planes(strides, padding):
    x, w = drawn(0, 2, 5, 6, 7, 3), drawn(1, 3, 2, 3, 3, 4)
    dims = ("NDHWC", "DHWIO", "NDHWC")
    ours = lambda x, w: convolution_3d(x, w, strides, padding, dimension_numbers=dims)
    theirs = lambda x, w: jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=dims)
    cotangent = drawn(2, *jax.eval_shape(theirs, x, w).shape)

    @jax.jit
    def both(x, w):
        def everything(f):
            value, back = jax.vjp(f, x, w)
            return value, back(cotangent)

        return everything(ours), everything(theirs)

    for a, b in zip(*map(jax.tree.leaves, both(x, w)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_gradients_through_the_scan_are_those_of_the_frames_written_out():
    lstm = network(lambda _: sequences.ConvLSTM(3, 4, rngs=nnx.Rngs(0)), dtype=np.float64)
    x, wanted = drawn(0, 2, 4, 3, 5, 3), drawn(1, 2, 4, 3, 5, 4)
    kernels = [lstm.conv_x.kernel[...], lstm.conv_h.kernel[...], lstm.conv_x.bias[...]]

    def written_out(x, kernels):
        def conv(x, w):
            return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

        hidden = cell = jnp.zeros((2, 3, 5, 4))
        total = 0.0
        for t in range(4):
            gates = conv(x[:, t], kernels[0]) + conv(hidden, kernels[1]) + kernels[2].reshape(1, 1, 1, -1)
            opened = 1 / (1 + jnp.exp(-gates[..., :12]))
            cell = opened[..., 4:8] * cell + opened[..., :4] * jnp.tanh(gates[..., 12:])
            hidden = opened[..., 8:] * jnp.tanh(cell)
            total = total + (hidden * wanted[:, t]).sum()
        return total

    def scanned(x, lstm):
        return (lstm(x) * wanted).sum()

    @jax.jit
    def both(x, lstm, kernels):
        return jax.grad(scanned, (0, 1))(x, lstm), jax.grad(written_out, (0, 1))(x, kernels)

    (dx, dlstm), (expected_dx, expected) = both(x, lstm, kernels)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-9, atol=1e-12)
    own = [dlstm.conv_x.kernel[...], dlstm.conv_h.kernel[...], dlstm.conv_x.bias[...]]
    for a, b in zip(own, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


GRIDS = {"mini_tcn": (11,), "mini_net3d": (2, 3, 2), "mini_c3d": (4, 2, 3), "mini_convlstm": (3, 2, 3)}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.sample(2)
def test_default_layer_is_found_without_the_networks_word(name):
    model, x = created(name), inputs(name)
    for net in (model, lambda x: model(x)):
        (default,) = (row for row in jaxcam.layers(net, x) if row.default)
        assert (default.layer, default.grid) == (model.default_layer, "x".join(map(str, GRIDS[name])))


def test_an_lstms_gates_are_not_piecewise_linear():
    proven = {
        (name, layer): jaxcam.is_piecewise_linear(
            lambda a, model=model, layer=layer: model.head(a[None], layer=layer)[0],
            jax.eval_shape(lambda x, model=model, layer=layer: model.features(x, layer=layer)[0], inputs(name)),
        )
        for name, layers in {"mini_c3d": ("layer1", "relu5"), "mini_convlstm": ("relu4", "lstm")}.items()
        for model in [created(name)]
        for layer in layers
    }
    assert proven == {
        ("mini_c3d", "layer1"): True,
        ("mini_c3d", "relu5"): True,
        ("mini_convlstm", "relu4"): False,  # before the gates
        ("mini_convlstm", "lstm"): True,  # behind them: a mean and a linear layer
    }


C = 3


@pytest.mark.thorough
def test_maps_of_clips_are_those_of_the_papers():
    """Behind the pooling the gradient g_k is the same at all n positions: g, and n ReLU(g) / (2 + S g)."""
    model, x = created("mini_c3d"), inputs("mini_c3d")
    a, _ = clips(model, x)
    count = a[0, ..., 0].size
    g = np.asarray(model.stages["fc"].kernel[...])[:, C] / count
    mapped = lambda w: relu(np.einsum("ntijk,nk->ntij", a, np.broadcast_to(w, (len(a), len(g)))))
    weights = count * np.maximum(g, 0) / (2 + a.sum((1, 2, 3)) * g)
    for options, w in (({}, g), ({"method": "grad_cam_pp"}, weights)):
        found = jaxcam.explain(model, x, class_idx=C, **options)
        np.testing.assert_allclose(found.cam_map, mapped(w), rtol=1e-8, atol=1e-12)
    exact = jaxcam.explain(model, x, class_idx=C, method="grad_cam_pp", alphas="exact")
    np.testing.assert_allclose(exact.cam_map, mapped(weights), rtol=1e-7, atol=1e-12)


def test_maps_of_clips_through_the_convlstm():
    model, x = created("mini_convlstm"), inputs("mini_convlstm")
    states, _ = recurrent(model, x)
    w = np.asarray(model.stages["fc"].kernel[...])[:, C] / states[0, ..., 0].size
    found = jaxcam.explain(model, x, class_idx=C)
    np.testing.assert_allclose(found.cam_map, relu(states @ w), rtol=1e-8, atol=1e-12)
    assert found.heatmap.shape == x.shape[:-1]


def test_the_last_step_of_the_convlstm_is_a_layer_of_the_network():
    """No layer of the chain, but one of its program; behind the last state there is only the mean."""
    model, x = created("mini_convlstm"), inputs("mini_convlstm")
    states, _ = recurrent(model, x)
    w = np.asarray(model.stages["fc"].kernel[...])[:, C] / states[0, ..., 0].size
    found = jaxcam.explain(model, x, layer="scan[2]", class_idx=C)
    np.testing.assert_allclose(np.ravel(found.cam_map), np.ravel(relu(states[:, 2] @ w)), rtol=1e-8, atol=1e-12)


def test_wrong_inputs_are_told():
    model = created("mini_c3d")
    with pytest.raises(ValueError, match=r"clips must be \[n, t, H, W, 3\].* as \[8, 16, 24, 3\]; add .* clip\[None\]"):
        model.features(inputs("mini_c3d")[0])
    with pytest.raises(ValueError, match=r"volumes must be \[n, z, y, x, 1\].* \[1, 8, 8, 8, 2\]"):
        created("mini_net3d").features(np.zeros((1, 8, 8, 8, 2)))
    with pytest.raises(ValueError, match=r"clips are too small: \[1, 8, 8\] .* needs \(2, 8, 8\)"):
        model.features(np.zeros((1, 1, 8, 8, 3)))
    with pytest.raises(ValueError, match="preprocessing is for networks of pictures, but mini_tcn takes series"):
        models.mini_tcn(None, preprocessing=jaxcam.images.IMAGENET)


def test_networks_without_embedded_weights_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr("jaxcam.models.embedded.files", lambda _: tmp_path)
    with pytest.raises(
        ValueError, match=r"mini_c3d has none in the package: train it \(python -m jaxcam train mini_c3d\)"
    ):
        models.mini_c3d()


@pytest.mark.thorough
def test_batch_norm_folds_into_kernels_of_any_axes():
    for name in ("mini_tcn", "mini_c3d"):
        model, x = created(name), inputs(name)
        both = jax.jit(lambda model, folded, x: (model(x), folded(x)))(model, models.fold_batch_norm(model), x)
        np.testing.assert_allclose(both[1], both[0], rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_embedded_networks_know_unseen_inputs(name):
    record = json.loads((DATA / "training.json").read_text())[name]
    top_1 = train.accuracy(TRAINED[name](), num=500, draw=train.RECIPES[name].draw)
    # The recorded figure is of 2,000: four standard errors of 500.
    assert top_1 == pytest.approx(record["unseen_scenes"]["top_1"], abs=0.035)


@pytest.mark.slow
def test_clips_keep_the_layers_of_pictures():
    """What mini_c3d begins with is the features of mini_resnet, statistics of batch norm too; the rest learns."""
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        found, first = train.train("mini_c3d", num_steps=2), models.mini_c3d(None, seed=0)
    begun = models.mini_resnet()

    def of(net, name):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(net.stages[name]))]

    features = begun.layers[: begun.layers.index("avgpool")]
    for name in filter(lambda name: of(found, name), found.layers):
        kept = name in begun.layers and all(map(np.array_equal, of(found, name), of(begun, name)))
        moved = any(not np.array_equal(a, b) for a, b in zip(of(found, name), of(first, name), strict=True))
        assert (kept, moved) == (name in features, True), name


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_network(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_EVERY", 2)
    file = tmp_path / "run.part"

    def stops(keys, **told):
        yield from keys[:3]
        raise KeyboardInterrupt

    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        whole = train.train("mini_tcn", seed=5, num_steps=4)
        with monkeypatch.context() as patch:
            patch.setattr(train, "progress", stops)
            with pytest.raises(KeyboardInterrupt):
                train.train("mini_tcn", seed=5, num_steps=4, checkpoint=file)
        with pytest.raises(ValueError, match=r"checkpoint must be of mini_tcn, seed 6, 4 steps but .* seed 5"):
            train.train("mini_tcn", seed=6, num_steps=4, checkpoint=file)
        kept = file.read_bytes()
        for damaged in (b"", kept[:1000], kept[:-30]):
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match="checkpoint must be what a training has kept, but"):
                train.train("mini_tcn", seed=5, num_steps=4, checkpoint=file)
        file.write_bytes(kept)
        again = train.train("mini_tcn", seed=5, num_steps=4, checkpoint=file)
    assert not file.exists()
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)

"""explain on anybody's model: how it is called, where it is cut, several classes and layers at once."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from support import normal

import jaxcam
from jaxcam import maps, models
from jaxcam.explanation.explain import _compiled


class Block(nn.Module):
    """With a skip connection past the two convolutions, one of them in groups."""

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), feature_group_count=2)(x)))
        return nn.relu(x + nn.Conv(8, (3, 3))(y))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        x = Block(name="first")(x)
        x = Block(name="second")(x)
        x = nn.relu(nn.Dense(12)(x.reshape(x.shape[0], -1)))
        return nn.Dense(5)(x)


@pytest.fixture(scope="module")
def images():
    return normal(0, 3, 12, 10, 3)


@pytest.fixture(scope="module")
def variables(images):
    shapes = jax.eval_shape(Net().init, jax.random.key(0), images.astype(np.float32))
    leaves, structure = jax.tree.flatten(shapes)
    values = [np.abs(np.random.default_rng(i).normal(size=leaf.shape)) * 0.2 for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, [jnp.asarray(value) for value in values])


@pytest.fixture(scope="module")
def model(variables):
    # The kernels need both signs, the variances must be positive.
    sign = lambda x: np.sign(np.random.default_rng(x.size).normal(size=x.shape))
    signed = jax.tree.map(lambda x: jnp.asarray(np.asarray(x) * sign(x)), variables["params"])
    return jax.tree_util.Partial(Net().apply, {**variables, "params": signed})


def by_hand(model, image, class_idx, sign=1):
    """Grad-CAM after the second block: what Linen itself captures there, and the dense layers written out."""
    a, gradient = (np.asarray(value) for value in captured(model.args[0], image, class_idx))
    return np.maximum(sign * (a @ gradient.mean((0, 1))), 0)


@jax.jit
def captured(variables, image, class_idx):
    """The second block's value, and the gradient of a logit by it."""
    _, state = Net().apply(variables, image[None], capture_intermediates=True, mutable=["intermediates"])
    a = state["intermediates"]["second"]["__call__"][0][0]
    first, last = (variables["params"][name] for name in ("Dense_0", "Dense_1"))

    def logit(a):
        hidden = jax.nn.relu(a.reshape(-1) @ first["kernel"] + first["bias"])
        return hidden @ last["kernel"][:, class_idx] + last["bias"][class_idx]

    return a, jax.grad(logit)(a)


forward = jax.jit(lambda model, images: model(images))


def softmax(logits):
    e = np.exp(np.asarray(logits))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.thorough
def test_a_linen_model_is_cut_by_its_program(model, images):
    found = jaxcam.explain(model, images, method="grad_cam", class_idx=2, layer="second")
    expected = np.stack([by_hand(model, image, 2) for image in images])
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.confidence, softmax(forward(model, images))[:, 2], rtol=1e-9)
    default = jaxcam.explain(model, images, method="grad_cam", class_idx=2)
    np.testing.assert_array_equal(default.cam_map, found.cam_map)


def test_all_ways_of_handing_over_a_model_agree(model, images):
    expected = jaxcam.explain(model, images)
    variables = model.args[0]
    for found in (
        jaxcam.explain(jaxcam.adapt(variables, apply=Net().apply), images),
        jaxcam.explain(lambda x: Net().apply(variables, x), images),
        jaxcam.explain(
            jaxcam.adapt(variables["params"], apply=lambda p, x: Net().apply({**variables, "params": p}, x)), images
        ),
    ):
        jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-12), found, expected)


def test_what_a_function_captures_is_never_stale(images):
    kernel = {"now": normal(1, 3, 4)}
    function = lambda x: jax.nn.relu(x).mean((1, 2)) @ kernel["now"]
    first = jaxcam.explain(function, images, class_idx=1, method="guided_backprop").confidence
    before = _compiled._cache_size()
    kernel["now"] = normal(2, 3, 4)
    second = jaxcam.explain(function, images, class_idx=1, method="guided_backprop").confidence
    assert _compiled._cache_size() == before
    expected = softmax(np.maximum(images, 0).mean((1, 2)) @ np.asarray(kernel["now"]))[:, 1]
    np.testing.assert_allclose(second, expected, rtol=1e-12)
    assert np.abs(first - second).max() > 1e-3


def test_a_new_lambda_on_every_call_is_compiled_once(images):
    kernels = [normal(seed, 3, 4) for seed in (1, 2)]
    explain = lambda kernel: jaxcam.explain(
        jaxcam.adapt(kernel, apply=lambda k, x: jax.nn.relu(x).mean((1, 2)) @ k),
        images,
        method="guided_backprop",
        class_idx=1,
    )
    first = explain(kernels[0])
    before = _compiled._cache_size()
    second = explain(kernels[1])
    assert _compiled._cache_size() == before
    assert np.abs(first.confidence - second.confidence).max() > 1e-3


def test_two_inputs_by_apply(model, images):
    question = normal(5, 5)
    variables = model.args[0]

    def answer(v, x):
        return Net().apply(v, x) * question[None]

    found = jaxcam.explain(
        jaxcam.adapt(variables, apply=answer), images, class_idx=2, method="grad_cam", layer="second"
    )
    expected = np.stack([by_hand(model, image, 2, sign=np.sign(question[2])) for image in images])
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, abs(question[2]) * expected, rtol=1e-9, atol=1e-12)


def test_channels_first(model, images):
    features, head = jaxcam.split(model, "second", images)
    expected = jaxcam.explain(model, images, layer="second", method="grad_cam")

    def channels_first(model, x):
        x = jnp.moveaxis(x, 1, -1)
        a = checkpoint_name(jnp.moveaxis(features(model, x), -1, 1), "first")
        return head(model, jnp.moveaxis(a, 1, -1), x)

    found = jaxcam.explain(
        jaxcam.adapt(model, apply=channels_first), jnp.moveaxis(images, -1, 1), layer="first", method="grad_cam"
    )
    np.testing.assert_allclose(found.cam_map, expected.cam_map, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-9, atol=1e-12)


class TestTransformer:
    """Tokens with a class token in front; one layer in which everything mixes, and a skip connection."""

    @pytest.fixture
    def weights(self):
        return {"embed": normal(0, 3, 4), "cls": normal(1, 4), "mix": normal(2, 7, 7), "out": normal(3, 4, 5)}

    @staticmethod
    def network(w, x):
        patches = x.reshape(x.shape[0], -1, 3) @ w["embed"]
        cls = jnp.broadcast_to(w["cls"], (x.shape[0], 1, 4))
        t = checkpoint_name(jnp.concatenate([cls, patches], 1), "tokens")
        t = t + jnp.tanh(jnp.einsum("st,ntd->nsd", w["mix"], t))
        return t[:, 0] @ w["out"]

    def test_grid_of_tokens(self, weights):
        images = normal(9, 2, 2, 3, 3)
        grid = lambda t: t[:, 1:].reshape(t.shape[0], 2, 3, t.shape[-1])
        found = jaxcam.explain(
            jaxcam.adapt(weights, apply=self.network, grid=grid), images, layer="tokens", method="grad_cam", class_idx=1
        )

        def after(t):
            return ((t + jnp.tanh(weights["mix"] @ t))[0] @ weights["out"])[1]

        w, gradient = jax.tree.map(np.asarray, weights), jax.jit(jax.grad(after))
        for image, cam_map in zip(np.asarray(images), found.cam_map, strict=True):
            t = np.concatenate([w["cls"][None], image.reshape(-1, 3) @ w["embed"]])
            g = np.asarray(gradient(t))[1:].reshape(2, 3, 4)
            a = np.asarray(t)[1:].reshape(2, 3, 4)
            expected = np.maximum(a @ g.mean((0, 1)), 0)
            np.testing.assert_allclose(cam_map, expected, rtol=1e-9, atol=1e-12)
        assert found.cam_map.max() > 0

    @pytest.mark.parametrize(
        ("grid", "message"),
        [
            (lambda t: 2 * t[:, 1:].reshape(-1, 2, 3, 4), "must select and move values only"),
            (lambda t: jnp.repeat(t[:, 1:].reshape(-1, 2, 3, 4), 2, 1), "must select and move values only"),
            (lambda t: t[:, 1:].reshape(-1, 3, 3, 4), "grid cannot take the layer's value"),
            (lambda t: t.reshape(-1), r"grid must return \[n, i, j, k\]"),
            (lambda t: t**2, "grid cannot take the layer's value"),
        ],
    )
    def test_wrong_grids(self, weights, grid, message):
        net = jaxcam.adapt(weights, apply=self.network, grid=grid)
        with pytest.raises(ValueError, match=message):
            jaxcam.explain(net, normal(9, 2, 2, 3, 3), layer="tokens", class_idx=1)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "guided_grad_cam", "ablation_cam"])
@pytest.mark.sample(4)
def test_all_classes_and_the_likeliest(model, images, method):
    alone = [jaxcam.explain(model, images, method=method, class_idx=c) for c in range(5)]
    together = jaxcam.explain(model, images, method=method, class_idx="all")
    order = np.argsort(-np.asarray(forward(model, images)), 1)[:, :2]
    top = jaxcam.explain(model, images, method=method, top=2)
    np.testing.assert_array_equal(top.class_idx, order)
    for field in ("heatmap", "cam_map", "confidence", "status", "gradient"):
        if getattr(together, field) is None:
            continue
        expected = np.stack([np.asarray(getattr(found, field)) for found in alone], 1)
        np.testing.assert_allclose(getattr(together, field), expected, rtol=1e-9, atol=1e-12)
        likeliest = np.stack([e[o] for e, o in zip(expected, order, strict=True)])
        np.testing.assert_allclose(getattr(top, field), likeliest, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(together.class_idx, np.arange(5)[None].repeat(3, 0))
    np.testing.assert_allclose(together.confidence.sum(1), 1, rtol=1e-9)


@pytest.mark.slow
def test_classes_in_chunks_give_the_same(model, images, monkeypatch):
    expected = jaxcam.explain(model, images[:2], class_idx="all")
    monkeypatch.setattr("jaxcam.explanation.batch._CLASS_BYTES", 1)  # one class at a time
    _compiled.clear_cache()
    found = jaxcam.explain(model, images[:2], class_idx="all")
    _compiled.clear_cache()
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fusion", ["max", "mean"])
@pytest.mark.sample(2)
def test_several_layers(model, images, fusion):
    names = ["first", "Net/Conv_0", -1]
    alone = [jaxcam.explain(model, images, method="layer_cam", layer=name) for name in names]
    together = jaxcam.explain(model, images, method="layer_cam", layer=names, fusion=fusion)
    for ours, theirs in zip(together.cam_map, alone, strict=True):
        np.testing.assert_allclose(ours, theirs.cam_map, rtol=1e-9, atol=1e-12)
    stacked = np.stack([np.asarray(found.heatmap) for found in alone])
    fused = getattr(stacked, fusion)(0)
    np.testing.assert_allclose(together.heatmap, fused / fused.max((1, 2), keepdims=True), rtol=1e-9, atol=1e-12)


def convolutions(function, *arguments):
    return len(re.findall(r"= \S+ convolution\(", jax.jit(function).lower(*arguments).compile().as_text()))


def test_one_forward_pass_for_everything(model, images):
    """Counted in the compiled program: the forward pass has five convolutions."""
    explain = lambda **options: convolutions(lambda m, x: jaxcam.explain(m, x, **options), model, images)
    assert convolutions(lambda m, x: m(x), model, images) == 5
    assert explain() == explain(class_idx="all") == explain(top=3) == 5
    # Back to the first layer goes through the four behind it, for all layers and classes together.
    early = {"method": "grad_cam", "layer": ["Net/Conv_0", "first", "second"]}
    assert explain(**early) == explain(**early, class_idx="all") == explain(**{**early, "layer": "Net/Conv_0"}) == 9
    # A layer that a skip connection passes by: what flows past it is not computed again.
    assert explain(method="grad_cam", layer="second/Conv_0") == 6


@pytest.mark.slow
def test_one_forward_pass_for_our_own_networks():
    network, x = models.mini_resnet(), normal(0, 2, 64, 64, 3, dtype=np.float32)
    count = lambda **options: convolutions(lambda m, x: jaxcam.explain(m, x, method="grad_cam", **options), network, x)
    assert count(class_idx="all") == 9
    assert count(layer=["layer1", "layer2", "layer3"]) == count(layer="layer1") == 15


@pytest.mark.slow
def test_our_own_networks_are_cut_the_same_by_their_program():
    network, x = models.mini_resnet(), normal(0, 2, 64, 64, 3, dtype=np.float32)
    for layer in ("layer3", "layer1"):
        ours = jaxcam.explain(network, x, layer=layer, class_idx=3)
        by_program = jaxcam.explain(jaxcam.adapt(network, apply=lambda m, x: m(x)), x, layer=layer, class_idx=3)
        np.testing.assert_allclose(by_program.heatmap, ours.heatmap, atol=2e-4)
        assert ours.heatmap.max() > 0.5


@pytest.mark.thorough
def test_submodules_called_features_and_head_are_no_halves():
    class Torchlike(nnx.Module):
        def __init__(self, rngs):
            self.features = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.head = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.features(x)).mean((1, 2)))

    model, x = Torchlike(nnx.Rngs(0)), normal(0, 2, 6, 6, 3, dtype=np.float32)
    found = jaxcam.explain(model, x, class_idx=1, method="grad_cam")
    kernel = model.head.kernel[...][:, 1] / 36
    expected = np.maximum(jax.jit(lambda m, x: nnx.relu(m.features(x)))(model, x) @ np.asarray(kernel), 0)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_attributes_of_a_model_that_are_called_as_those_of_ours_mean_nothing(images):
    """12 layers, a list of them, a layer that tells classes: no reason to ask them as a network of the package is."""

    class Other(nnx.Module):
        def __init__(self, **attributes):
            self.conv, self.fc = (make(rngs=nnx.Rngs(0)) for make in (conv, fc))
            for name, value in attributes.items():
                setattr(self, name, value)

        def __call__(self, x):
            return self.fc(nnx.relu(self.conv(x)).mean((1, 2)))

    conv = lambda rngs: nnx.Conv(3, 4, (3, 3), param_dtype=np.float64, rngs=rngs)
    fc = lambda rngs: nnx.Linear(4, 5, param_dtype=np.float64, rngs=rngs)
    plain = Other()
    w = np.asarray(plain.fc.kernel[...])[:, 2] / (12 * 10)
    a = np.asarray(nnx.relu(plain.conv(images)))
    expected = np.maximum(a @ w, 0)
    assert expected.max() > 0
    for attributes in (
        {"layers": 12},
        {"layers": nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(1))]), "class_logit": nnx.Linear(2, 2, rngs=nnx.Rngs(1))},
        {"class_logit": 3, "has_layer": True},
    ):
        found = jaxcam.explain(Other(**attributes), images, class_idx=2)
        np.testing.assert_allclose(found.cam_map, expected, atol=1e-12 * expected.max())


def test_channels_first_inside_of_a_channels_last_model(model, images):
    kernel, last = normal(0, 6, 3, 3, 3), normal(1, 6, 5)

    def network(weights, x):
        a = jax.nn.relu(jax.lax.conv(x.transpose(0, 3, 1, 2), weights, (1, 1), "SAME"))
        return a.mean((2, 3)) @ last

    found = jaxcam.explain(jaxcam.adapt(kernel, apply=network), images, class_idx=2, method="grad_cam")
    a = jax.jit(lambda x: jax.nn.relu(jax.lax.conv(x.transpose(0, 3, 1, 2), kernel, (1, 1), "SAME")))(images)
    expected = np.maximum(np.einsum("nkij,k->nij", a, last[:, 2]) / 120, 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)


def test_the_logarithm_of_probabilities_is_explained_with_their_confidence(model, images):
    logs = lambda m, x: jnp.log(jax.nn.softmax(m(x)))
    found = jaxcam.explain(jaxcam.adapt(model, apply=logs), images, class_idx=2, method="guided_backprop")
    np.testing.assert_allclose(found.confidence, softmax(forward(model, images))[:, 2], rtol=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_nnx_models_of_others_in_training_mode_are_refused(images):
    class Own(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return nnx.relu(self.norm(self.conv(x))).mean((1, 2))

    own = Own(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"model is in training mode.*call model.eval\(\) first"):
        jaxcam.explain(own, images.astype(np.float32))
    own.eval()
    assert jaxcam.explain(own, images.astype(np.float32), method="grad_cam").heatmap.max() > 0.5


def test_maps_are_differentiable_by_the_parameters_of_any_model(model, images):
    direction = jax.tree.map(lambda v: normal(v.size, *v.shape), model.args[0])

    def total(step):
        moved = jax.tree.map(lambda v, d: v + step * d, model.args[0], direction)
        partial = jax.tree_util.Partial(Net().apply, moved)
        return jaxcam.explain(partial, images[:1], class_idx=2, method="grad_cam").cam_map.sum()

    step, value = 1e-6, jax.jit(total)
    slope = (value(step) - value(-step)) / (2 * step)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(jax.jit(jax.grad(total))(0.0), slope, rtol=1e-5)


@pytest.mark.thorough
def test_guided_methods_on_a_batch_equal_those_on_an_image(model, images):
    guided = jaxcam.explain(model, images, method="guided_backprop", class_idx=2)
    product = jaxcam.explain(model, images, method="guided_grad_cam", class_idx=2, layer="first")
    heat = jaxcam.explain(model, images, method="grad_cam", class_idx=2, layer="first").heatmap

    @jax.jit
    def alone(model, image):
        one = jaxcam.guided_backprop(model, image, 2)
        return one, jaxcam.guided_grad_cam(model, image, 2, layer="first"), maps.normalised(jnp.abs(one).max(-1))

    for i, image in enumerate(images):
        one, both, normalised = (np.asarray(value) for value in alone(model, image))
        np.testing.assert_allclose(guided.gradient[i], one, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(product.gradient[i], both, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(both, one * np.asarray(heat[i])[..., None], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(guided.heatmap[i], normalised, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(guided.cam_map, np.abs(guided.gradient).max(-1))


@pytest.mark.thorough
def test_guided_in_channels_first(model, images):
    variables = model.args[0]
    network = lambda v, x: Net().apply(v, jnp.moveaxis(x, 1, -1))
    expected = jaxcam.explain(model, images, method="guided_backprop", class_idx=2)
    found = jaxcam.explain(
        jaxcam.adapt(variables, apply=network), jnp.moveaxis(images, -1, 1), method="guided_backprop", class_idx=2
    )
    np.testing.assert_allclose(found.gradient, jnp.moveaxis(expected.gradient, -1, 1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layer": "third"}, ValueError, r"layer='third' is not in this model. Its layers are:\nlayer"),
        ({"layer": 7}, ValueError, r"layer=7 is not in this model"),
        ({"layer": []}, ValueError, r"layer must name at least one layer but is an empty list"),
        ({"layer": 1.5}, TypeError, r"layer must be a name, the position of a convolution"),
        ({"layer": "Dense_0"}, ValueError, r"layer='Dense_0' is not in this model"),
        ({"fusion": "sum"}, ValueError, r"fusion must be 'max' or 'mean' but is 'sum'"),
        ({"top": 0}, ValueError, r"top must be at least 1 but is 0"),
        ({"top": 6}, ValueError, r"top=6 is more than the 5 classes"),
        ({"top": 2, "class_idx": 1}, ValueError, r"top and class_idx exclude each other"),
        ({"top": 1.0}, TypeError, r"top must be an integer"),
        ({"class_idx": "some"}, TypeError, r'"all" or None but is \'some\''),
        ({"method": "cam"}, ValueError, r'method="cam" needs a head that is global average pooling'),
        ({"method": "guided_backprop", "layer": "first"}, ValueError, r"uses no layer: leave layer out"),
        ({"method": "smooth_grad_cam_pp"}, ValueError, r"draws random numbers: pass key=jax.random.key\(0\)"),
        ({"key": jax.random.key(0)}, ValueError, r"draws no random numbers: leave key out"),
        ({"method": "eigen_cam", "score": "exp"}, ValueError, r"has no score: leave score out"),
        ({"method": "grad_cam", "chunk_size": 2}, ValueError, r"chunk_size is not an option of method='grad_cam'; it"),
        ({"method": "grad_cam_pp", "alpha": "exact"}, TypeError, r"alpha is not an option of method='grad_cam_pp'"),
        ({"method": "grad_cam_pp", "alfas": "exact"}, TypeError, r"alfas is not an option .* did you mean alphas\?"),
        ({"method": "smooth_grad_cam_pp", "key": 0}, TypeError, r"key must be one random key"),
        ({"model": {"w": np.ones(3)}}, TypeError, r"model must be something that can be called.*but is dict"),
        ({"model": lambda x: (x.mean((1, 2)), x)}, TypeError, r"must return one array of logits \[n, c\]"),
        ({"model": lambda x: x.mean((0, 1, 2))}, ValueError, r"must return logits \[n, c\] for inputs"),
        ({"model": lambda x: x.reshape(x.shape[0], -1)}, ValueError, r"has no value with positions that everything"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors(model, images, change, error, message):
    arguments = {"model": model, "images": images} | change
    with pytest.raises(error, match=message):
        jaxcam.explain(arguments.pop("model"), arguments.pop("images"), **arguments)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(x @ np.ones((3, 4), np.float32))
        return nn.relu(x).mean((1, 2))


@pytest.mark.usefixtures("unchecked")
def test_training_mode_of_linen_is_refused(images):
    model, images = Normalised(), images.astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    trains = lambda v, x: model.apply(v, x, mutable=["batch_stats"])
    for apply, message in (
        (trains, "returns changed batch_stats beside its outputs"),
        (lambda v, x: trains(v, x)[0], "outputs do not depend on the running batch_stats"),
    ):
        with pytest.raises(ValueError, match=f"apply is in training mode: .*{message}"):
            jaxcam.explain(jaxcam.adapt(variables, apply=apply), images)
    with pytest.raises(ValueError, match="returns changed batch_stats"):
        jaxcam.explain(jaxcam.adapt(variables, apply=trains), images, target=lambda o, _: o[0][1])
    # Where the variables are captured, or some of them: what the program does with two images says it.
    parameters = jaxcam.adapt(variables["params"], apply=lambda p, x: trains({**variables, "params": p}, x)[0])
    of_batch = lambda f, x: f(x, (0, 1, 2), keepdims=True)
    own = lambda x: nn.relu((x - of_batch(jnp.mean, x)) / jnp.sqrt(of_batch(jnp.var, x) + 1e-5)).mean((1, 2))
    for trained in (lambda x: trains(variables, x)[0], parameters, own):
        with pytest.raises(ValueError, match="is in training mode: it takes means over the batch for each channel"):
            jaxcam.explain(trained, images)
    evaluated = jaxcam.adapt(variables, apply=lambda v, x: model.apply(v, x, train=False))
    np.testing.assert_allclose(jaxcam.explain(evaluated, images, class_idx=1).value, evaluated(images)[:, 1], rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_training_mode_of_equinox_is_refused(images):
    eqx = pytest.importorskip("equinox")

    class Drops(eqx.Module):
        drop: eqx.nn.Dropout
        last: jax.Array

        def __call__(self, x):
            return self.drop(jax.nn.relu(x @ self.last), key=jax.random.key(0)).mean((0, 1))

    explain = lambda model: jaxcam.explain(jaxcam.adapt(model, apply=lambda m, x: jax.vmap(m)(x)), images, class_idx=1)
    trains, harmless = (Drops(eqx.nn.Dropout(p), normal(1, 3, 4)) for p in (0.5, 0.0))
    with pytest.raises(ValueError, match=r"training mode \(inference=False\).*equinox.nn.inference_mode\(model\)"):
        explain(trains)
    evaluated = explain(eqx.nn.inference_mode(trains))
    np.testing.assert_array_equal(explain(harmless).cam_map, evaluated.cam_map)
    np.testing.assert_allclose(evaluated.value, jax.nn.relu(images @ trains.last).mean((1, 2))[:, 1], rtol=1e-12)

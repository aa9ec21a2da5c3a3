"""adapt: how a model is called, said once; a callable pytree for every function that takes a model."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from support import drawn, normal

import jaxcam
from jaxcam.images import Preprocessing

COMPILED = sys.modules["jaxcam.explanation.explain"]._compiled
IMAGES = np.abs(normal(0, 2, 6, 5, 3))
KERNEL, LAST = np.asarray(normal(1, 3, 3, 3, 4)) / 3, normal(2, 4, 5)


def conv(x, kernel, axes="NHWC"):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, (axes, "HWIO", axes))


def network(weights, x):
    kernel, last = weights
    return jax.nn.relu(checkpoint_name(conv(x, kernel), "here")).mean((1, 2)) @ last


def by_hand(class_idx):
    """Grad-CAM at the rectified convolution: the mean of the last layer's column, spread evenly."""
    a = np.maximum(conv(IMAGES, KERNEL), 0)
    return np.maximum(a @ LAST[:, class_idx] / 30, 0)


def test_a_callable_pytree():
    net = jaxcam.adapt((KERNEL, LAST), apply=network)
    np.testing.assert_array_equal(net(IMAGES), network((KERNEL, LAST), IMAGES))
    assert [leaf.shape for leaf in jax.tree.leaves(net)] == [KERNEL.shape, LAST.shape]
    twice = jax.tree.map(lambda leaf: 2 * leaf, net)
    np.testing.assert_allclose(jax.jit(lambda net, x: net(x))(twice, IMAGES), 4 * net(IMAGES), rtol=1e-12)
    hash(jax.tree.structure(net))


def test_every_function_takes_it():
    net = jaxcam.adapt((KERNEL, LAST), apply=network)
    expected = by_hand(2)
    assert expected.max() > 0
    found = jaxcam.explain(net, IMAGES, class_idx=2, method="grad_cam")
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)
    features, head = jaxcam.split(net, "here", IMAGES)
    np.testing.assert_allclose(features(net, IMAGES), conv(IMAGES, KERNEL), rtol=1e-12)
    np.testing.assert_allclose(head(net, features(net, IMAGES), IMAGES), net(IMAGES), rtol=1e-12)
    assert [row.layer for row in jaxcam.layers(net, IMAGES)] == ["here", 0]
    image = jnp.asarray(IMAGES[0])

    @jax.jit
    def of(image):
        plain = jax.grad(lambda x: network((KERNEL, LAST), x[None])[0, 2])(image)
        by_rule = jax.grad(lambda x: jaxcam.guided(net)(x[None])[0, 2])(image)
        return plain, by_rule, jaxcam.guided_backprop(net, image, 2), jaxcam.guided_grad_cam(net, image, 2)

    plain, by_rule, guided, product = (np.asarray(gradient) for gradient in of(image))
    np.testing.assert_allclose(guided, by_rule, rtol=1e-9, atol=1e-12)
    assert np.abs(by_rule - plain).max() > 1e-3
    heat = np.asarray(jaxcam.maps.heatmap(found.cam_map[0], (6, 5)))[..., None]
    np.testing.assert_allclose(product, by_rule * heat, rtol=1e-9, atol=1e-12)
    bare = lambda x: network((KERNEL, LAST), x)
    for function, options in (
        (jaxcam.methods.score_cam, {}),
        (jaxcam.methods.smooth_grad_cam_pp, {"num_samples": 2, "key": jax.random.key(0)}),
    ):
        a, b = (jax.jit(lambda x, m=m, f=function, o=options: f(m, x, 2, **o))(image) for m in (net, bare))
        np.testing.assert_allclose(a, b, rtol=1e-9)
        assert a.max() > 0


def test_named_takes_it():
    class Net(nnx.Module):
        def __init__(self):
            self.fc = nnx.Linear(3, 5, param_dtype=np.float64, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.fc(x).mean((1, 2))

    net = jaxcam.named(jaxcam.adapt(Net(), class_names=["abcde"] * 5))
    assert [row.layer for row in jaxcam.layers(net, IMAGES)] == ["fc"]
    assert len(net.class_names) == 5


def test_made_anew_on_every_call_it_is_compiled_once():
    def explained(factor):
        grid = lambda a: a
        net = jaxcam.adapt((factor * KERNEL, LAST), apply=lambda w, x: network(w, x), grid=grid, class_names=["a"] * 5)
        return jaxcam.explain(net, IMAGES, class_idx=2, method="grad_cam").cam_map

    first = explained(1.0)
    count = COMPILED._cache_size()
    np.testing.assert_allclose(explained(2.0), 2 * first, rtol=1e-9)
    assert COMPILED._cache_size() == count


@pytest.mark.parametrize("images", ["first", "last"])
@pytest.mark.parametrize("inside", ["first", "last"])
def test_where_the_channels_are_is_read_off_the_program(images, inside):
    def model(weights, x):
        kernel, last = weights
        if images != inside:
            x = x.transpose((0, 2, 3, 1) if images == "first" else (0, 3, 1, 2))
        axes = "NCHW" if inside == "first" else "NHWC"
        a = jax.nn.relu(conv(x, kernel, axes))
        a = jax.lax.reduce_window(a, -jnp.inf, jax.lax.max, (1,) * 4, (1,) * 4, "VALID")  # pooling keeps the axis
        return a.mean((2, 3) if inside == "first" else (1, 2)) @ last

    x = IMAGES.transpose(0, 3, 1, 2) if images == "first" else IMAGES
    net = jaxcam.adapt((KERNEL, LAST), apply=model)
    found = jaxcam.explain(net, x, class_idx=2, method="grad_cam")
    np.testing.assert_allclose(found.cam_map, by_hand(2), rtol=1e-9, atol=1e-12)
    assert found.heatmap.shape == (2, 6, 5)
    gradient = jaxcam.explain(net, x, class_idx=2, method="guided_backprop").gradient
    assert gradient.shape == x.shape
    heat = jaxcam.explain(net, x, class_idx=2, method="guided_backprop").heatmap
    magnitude = np.abs(gradient).max(1 if images == "first" else -1)
    np.testing.assert_allclose(heat, magnitude / magnitude.max((1, 2), keepdims=True), rtol=1e-9)


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_of_models_of_one_image_are_read_off_the_program(channels):
    """As Equinox writes it: the convolution gives each image a batch axis of its own, under vmap."""
    kernel, x = normal(4, 3, 3, channels, 4), normal(5, 2, channels, 7, 9)

    def one(x):
        x = x - x.mean()  # statistics say nothing of where the channels are
        a = jax.nn.relu(conv(x[None], kernel, "NCHW"))[0]
        return a.mean((1, 2)) @ LAST

    found = jaxcam.explain(jax.vmap(one), x, class_idx=2, method="grad_cam")
    a = np.maximum(conv(x - x.mean((1, 2, 3), keepdims=True), kernel, "NCHW"), 0)
    expected = np.maximum(np.einsum("nkij,k->nij", a, LAST[:, 2]) / 63, 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)
    assert found.heatmap.shape == (2, 7, 9)


def test_layer_norm_keeps_the_axis_and_what_is_not_known_is_refused():
    images = IMAGES.transpose(0, 3, 1, 2)  # channels first, and last inside

    def model(x, mixed):
        a = jax.nn.relu(conv(x.transpose(0, 2, 3, 1), KERNEL))
        a = (a - a.mean(-1, keepdims=True)) / jnp.sqrt(a.var(-1, keepdims=True) + 1e-5)
        if mixed:
            a = checkpoint_name(jnp.sort(a, 2), "mixed")
        return a.mean((1, 2)) @ LAST

    found = jaxcam.explain(lambda x: model(x, False), images, class_idx=2, method="grad_cam")
    a = np.maximum(conv(IMAGES, KERNEL), 0)
    a = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found.cam_map, np.maximum(a @ LAST[:, 2] / 30, 0), rtol=1e-7, atol=1e-10)
    with pytest.raises(ValueError, match=r"does not show a grid in this layer's .* \(mixed\)"):
        jaxcam.explain(lambda x: model(x, True), images, class_idx=2, layer="mixed")
    net = jaxcam.adapt(lambda x: model(x, True), grid=lambda a: a)
    assert jaxcam.explain(net, images, class_idx=2, layer="mixed", method="hires_cam").cam_map.shape == (2, 6, 5)


def test_dense_layers_and_reshapes_keep_the_axis():
    """A network of matrix products on channels last, whose tokens are made a grid again: no convolution says it."""

    def model(w, x):
        tokens = x.reshape(x.shape[0], 30, 3) @ w  # [n, 30, 4]
        a = checkpoint_name(jax.nn.relu(tokens.reshape(x.shape[0], 6, 5, 4)), "grid")
        return a.mean((1, 2)) @ LAST

    found = jaxcam.explain(jaxcam.adapt(KERNEL[0, 0], apply=model), IMAGES, class_idx=2, method="grad_cam")
    a = np.maximum(IMAGES @ KERNEL[0, 0], 0)
    np.testing.assert_allclose(found.cam_map, np.maximum(a @ LAST[:, 2] / 30, 0), rtol=1e-9, atol=1e-12)


def test_what_the_model_says_of_itself_and_what_is_said_of_it():
    class Net:
        preprocessing = Preprocessing(resize=8, crop=6, mean=(0.5,) * 3, std=(1.0,) * 3)
        class_names = ("a", "b")

        def __call__(self, x):
            return x.mean((1, 2))[:, :2]

    own = jaxcam.adapt(Net())
    assert (own.preprocessing, own.class_names) == (Net.preprocessing, ("a", "b"))
    other = Preprocessing(resize=9, crop=6, mean=(0.1,) * 3, std=(1.0,) * 3)
    changed = jaxcam.adapt(own, preprocessing=other, class_names=["c", "d"])
    assert (changed.preprocessing, changed.class_names) == (other, ("c", "d"))
    assert jaxcam.adapt(changed).class_names == ("c", "d")


@pytest.mark.parametrize(("names", "num"), [("ab", 5), ("abcdefg", 5), ("a", 2), ("abc", 2)])
def test_names_are_one_for_each_class(names, num):
    """Of a binary classifier of one logit two."""
    last = LAST if num == 5 else LAST[:, :1]
    named = lambda names: jaxcam.adapt((KERNEL, last), apply=network, class_names=[*names])
    with pytest.raises(ValueError, match=f"each of its {num} classes but are {len(names)}"):
        jaxcam.explain(named(names), IMAGES)
    assert jaxcam.explain(named("abcde"[:num]), IMAGES).class_names == tuple("abcde"[:num])
    assert jaxcam.explain(named(""), IMAGES).class_names == ()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": nnx.Linear}, TypeError, r"model must be an instance but is the class Linear itself"),
        ({"model": {"w": LAST}}, TypeError, r"something that can be called.* but is dict: use jaxcam.adapt"),
        ({"model": LAST, "apply": 3}, TypeError, r"apply must be a function but is int"),
        ({"model": LAST, "apply": network, "grid": 3}, TypeError, r"grid must be a function but is int"),
        ({"model": network, "preprocessing": 224}, TypeError, r"preprocessing must be a .*Preprocessing but is int"),
        ({"model": network, "class_names": "cat"}, TypeError, r"class_names must be a sequence of names"),
        ({"model": network, "class_names": {"cat", "dog"}}, TypeError, r"class_names must be a sequence of names"),
        ({"model": network, "input": 1.5}, TypeError, r"input must be a key or a position.* but is 1.5"),
        ({"model": {"w": {1, 2}}, "apply": network}, TypeError, r"neither an array nor hashable"),
        ({"model": jaxcam.adapt(LAST, apply=network), "apply": network}, TypeError, r"model is adapted already"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        jaxcam.adapt(arguments.pop("model"), **arguments)


def test_a_model_with_time_before_the_batch_is_refused_with_a_way_on_that_works():
    """Self-attention over [t, n, k]: called for one example each it gives the maps of its twin over [n, t, k]."""
    weights = {"first": drawn(1, 4, 6), "value": drawn(2, 6, 6), "head": drawn(3, 6, 3)}

    def attended(axes, weights, x):
        h = jax.nn.relu(x @ weights["first"])
        shares = jax.nn.softmax(jnp.einsum(f"{axes}k,{axes.replace('t', 's')}k->nts", h, h))
        h = jax.nn.relu(h + jnp.einsum(f"nts,{axes.replace('t', 's')}k->{axes}k", shares, h @ weights["value"]))
        return h.mean(axes.index("t")) @ weights["head"]

    time_first = functools.partial(attended, "tn")
    x = drawn(4, 2, 7, 4)
    with pytest.raises(ValueError, match=r"x\[:, None\]"):
        jaxcam.explain(jaxcam.adapt(weights, apply=time_first), x.swapaxes(0, 1), class_idx=1)
    swapped = lambda weights, x: time_first(weights, x.swapaxes(0, 1))
    with pytest.raises(ValueError, match=r"x\[:, None\]"):
        jaxcam.explain(jaxcam.adapt(weights, apply=swapped), x, class_idx=1)
    one_each = lambda weights, x: jax.vmap(lambda one: time_first(weights, one[:, None])[0])(x)
    found = jaxcam.explain(jaxcam.adapt(weights, apply=one_each), x, method="layer_cam", class_idx=1)
    twin = jaxcam.adapt(weights, apply=functools.partial(attended, "nt"))
    expected = jaxcam.explain(twin, x, method="layer_cam", class_idx=1)
    assert (expected.cam_map.max(1) > 0).all()
    np.testing.assert_allclose(found.cam_map, expected.cam_map, rtol=1e-12)

"""split and layers on other frameworks' models, against what each framework itself says (parity, but for Linen)."""

import os
from typing import ClassVar

os.environ.setdefault("KERAS_BACKEND", "jax")

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam

P, X = foreign.parameters(), foreign.example()
X32 = X.astype(np.float32)
HAND = foreign.by_hand(P, X)
COMPLETE = {"stem", "stem_norm", "stem_relu", "first", "down", "down_relu", "second"}


@pytest.fixture
def standard():
    """These frameworks mix dtypes, as JAX allows unless told otherwise."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def keras():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras has another backend: KERAS_BACKEND=jax")
    return keras


def keras_model():
    """In float32: Keras computes parts of a float64 network in float32 all the same."""
    return foreign.keras_model(P, "float32")


def gradients_by_hand(class_idx):
    zeros = {name: jnp.zeros_like(value) for name, value in HAND.items() if name != "logits"}
    return jax.grad(lambda moved: foreign.by_hand(P, X, moved)["logits"][:, class_idx].sum())(zeros)


def check(model, x, expected, gradients, *, channel_axis=-1, rtol=1e-9, atol=1e-11, same=1e-12):
    """At each layer with a name: activations, gradients, the whole network again, and whether all flows through."""
    with jax.disable_jit():  # operation by operation: nothing to compile at each layer
        checked(model, x, expected, gradients, channel_axis, (rtol, atol, same))


def checked(model, x, expected, gradients, channel_axis, tolerances):
    rtol, atol, same = tolerances
    whole = model(x)
    table = jaxcam.layers(model, x)
    for layer, name in expected.items():
        features, head = jaxcam.split(model, layer, x)
        a = features(model, x)
        there = lambda value: jnp.moveaxis(value, -1, channel_axis)
        np.testing.assert_allclose(a, there(HAND[name]), rtol=rtol, atol=atol, err_msg=str(layer))
        np.testing.assert_allclose(head(model, a, x), whole, rtol=same, atol=same)
        g = jax.grad(lambda a, head=head: head(model, a, x)[:, 2].sum())(a)
        np.testing.assert_allclose(g, there(gradients[name]), rtol=rtol, atol=atol, err_msg=str(layer))
    complete = {row.layer: row.complete for row in table}
    for layer, name in expected.items():
        assert complete[layer] == (name in COMPLETE), layer
    default = next(row for row in table if row.default)
    np.testing.assert_allclose(whole, HAND["logits"], rtol=rtol, atol=atol)
    np.testing.assert_array_equal(default.shape, there(HAND["second"]).shape)


@pytest.mark.thorough
def test_linen_captures_the_same():
    net, variables = foreign.linen_model(P)
    model = jax.tree_util.Partial(net.apply, variables)
    _, state = net.apply(variables, X, capture_intermediates=True, mutable=["intermediates"])
    captured = jax.tree_util.tree_leaves_with_path(state["intermediates"])
    count = 0
    for path, value in captured:
        name = "/".join(["Net", *(key.key for key in path[:-2])])
        if value.ndim == 4 and "Dropout" not in name:
            features, _ = jaxcam.split(model, name, X)
            np.testing.assert_allclose(features(model, X), value, rtol=1e-11, atol=1e-12)
            count += 1
    assert count == 13


@pytest.mark.parity
@pytest.mark.usefixtures("standard")
class TestEquinox:
    positions: ClassVar = dict(
        enumerate(["stem_relu", "first.relu", "first.norm2", "down_relu", "second.relu", "second.norm2"])
    )

    @pytest.fixture(autouse=True)
    def equinox(self):
        return pytest.importorskip("equinox")

    def test_layers(self):
        model, x = foreign.equinox_model(P), jnp.moveaxis(X, -1, 1)
        # Equinox has a scope in each of its own layers; the activations come from the convolutions' positions.
        scopes = ["stem", "first.conv1", "first.conv2", "down", "second.conv1", "second.conv2"]
        expected = {f"eqx.nn.Conv:{i}": name for i, name in enumerate(scopes)} | self.positions
        batched = jaxcam.adapt(model, apply=lambda model, x: jax.vmap(model)(x))
        check(batched, x, expected, gradients_by_hand(2), channel_axis=1)

    def test_by_hand(self):
        model, x = foreign.equinox_model(P), jnp.moveaxis(X, -1, 1)
        stem = jax.vmap(lambda x: jax.nn.relu(model.stem_norm(model.stem(x))))(x)
        down = jax.vmap(lambda x: jax.nn.relu(model.down(model.first(x))))(stem)
        batched = jaxcam.adapt(model, apply=lambda model, x: jax.vmap(model)(x))
        for position, value in ((0, stem), (3, down)):
            features, _ = jaxcam.split(batched, position, x)
            np.testing.assert_allclose(features(batched, x), value, rtol=1e-11, atol=1e-13)

    def test_named(self, equinox):
        """Every submodule says where it is; the values, the classes and the compiled program are the same."""
        model, x = foreign.equinox_model(P), jnp.moveaxis(X, -1, 1)
        over = lambda model: jaxcam.adapt(model, apply=lambda model, x: jax.vmap(model)(x))
        tagged = over(jaxcam.named(model))
        np.testing.assert_array_equal(tagged(x), over(model)(x))
        parts = [f"{block}.{part}" for block in ("first", "second") for part in ("conv1", "norm1", "conv2", "norm2")]
        names = {*parts, "first", "second", "stem", "stem_norm", "down", "dropout"}
        assert {row.layer for row in jaxcam.layers(tagged, x) if row.kind == "tag"} == names
        for name in ("first.norm1", "down", "dropout"):
            expected = jnp.moveaxis(HAND["second" if name == "dropout" else name], -1, 1)
            with jax.disable_jit():
                found = jaxcam.split(tagged, name, x)[0](tagged, x)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11, err_msg=name)
        assert isinstance(tagged.state.first.conv1, equinox.nn.Conv2d)
        assert jax.tree.structure(jaxcam.named(model)) == jax.tree.structure(tagged.state)
        assert jax.tree.structure(jaxcam.named(tagged.state)) == jax.tree.structure(tagged.state)

    def test_named_in_containers(self, equinox):
        class Net(equinox.Module):
            blocks: list
            heads: dict

            def __call__(self, x):
                for block in self.blocks:
                    x = jax.vmap(jax.vmap(block))(x)
                return self.heads["a"](x.mean((0, 1)))

        keys = jax.random.split(jax.random.key(0), 3)
        linear = lambda i: equinox.nn.Linear(3, 3, key=keys[i], dtype=np.float64)
        net = Net([linear(0), equinox.nn.Sequential([linear(1), equinox.nn.Lambda(jnp.tanh)])], {"a": linear(2)})
        tagged = jaxcam.adapt(jaxcam.named(net), apply=lambda net, x: jax.vmap(net)(x))
        names = {row.layer for row in jaxcam.layers(tagged, X) if row.kind == "tag"}
        assert names == {"blocks.0", "blocks.1.layers.0", "blocks.1.layers.1", "blocks.1"}
        found = jaxcam.split(tagged, "blocks.1", X)[0](tagged, X)
        (w0, b0), (w1, b1) = ((each.weight, each.bias) for each in (net.blocks[0], net.blocks[1].layers[0]))
        over = lambda b: b[None, None, None]
        np.testing.assert_allclose(found, jnp.tanh((X @ w0.T + over(b0)) @ w1.T + over(b1)), rtol=1e-12)

    def test_state_through_apply(self, equinox):
        """Its own batch norm, whose statistics are in a state that goes through the network."""

        class Net(equinox.Module):
            conv: equinox.nn.Conv2d
            norm: equinox.nn.BatchNorm

            def __init__(self):
                self.conv = equinox.nn.Conv2d(3, 4, 3, key=jax.random.key(0), dtype=np.float64)
                self.norm = equinox.nn.BatchNorm(4, "batch", dtype=np.float64, mode="ema")

            def __call__(self, x, state):
                y, state = self.norm(self.conv(x), state)
                return jax.nn.relu(y).mean((1, 2)), state

        model, state = equinox.nn.make_with_state(Net)()
        x = jnp.moveaxis(X, -1, 1)
        run = lambda model, state: jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
        _, state = run(model, state)  # collects statistics
        model = equinox.nn.inference_mode(model)

        def logits(both, x):
            return jax.vmap(lambda x: both[0](x, both[1])[0])(x)

        net = jaxcam.adapt((model, state), apply=logits)
        features, head = jaxcam.split(net, -1, x)
        a = features(net, x)
        expected = jax.vmap(lambda x: jax.nn.relu(model.norm(model.conv(x), state)[0]))(x)
        np.testing.assert_allclose(a, expected, rtol=1e-12)
        np.testing.assert_allclose(head(net, a, x), run(model, state)[0], rtol=1e-12)


@pytest.mark.parity
@pytest.mark.usefixtures("standard")
class TestKeras:
    def test_layers(self, keras):
        model = keras_model()
        names = [name for name in HAND if name != "logits"]
        expected = {name.replace(".", "_"): name for name in names}
        check(model, X32, expected, gradients_by_hand(2), rtol=1e-4, atol=1e-4, same=1e-5)

    def test_its_own_submodels_say_the_same(self, keras):
        model = keras_model()
        for layer in ("stem_norm", "first_conv2", "second_add", "second"):
            theirs = keras.Model(model.inputs, model.get_layer(layer).output)(X32, training=False)
            features, _ = jaxcam.split(model, layer, X32)
            np.testing.assert_allclose(features(model, X32), theirs, rtol=1e-5, atol=1e-5)

    def test_new_weights_are_seen(self, keras):
        model = keras_model()
        features, head = jaxcam.split(model, "first", X32)
        before = features(model, X32)
        model.get_layer("stem").kernel.assign(2 * P["stem.kernel"])
        assert np.abs(features(model, X32) - before).max() > 1e-2
        np.testing.assert_allclose(
            head(model, features(model, X32), X32), model(X32, training=False), rtol=1e-5, atol=1e-5
        )

    def test_training_changes_nothing(self, keras):
        """Dropout and batch norm are in evaluation mode, and the statistics stay as they are."""
        model = keras_model()
        before = [np.asarray(v.value) for v in model.variables]
        features, head = jaxcam.split(model, "second", X32)
        head(model, features(model, X32), X32)
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable.value, value)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("name", "names", "last"),
        [
            ("MobileNetV2", ["block_3_expand_relu", "block_5_add", "block_13_depthwise"], "out_relu"),
            ("ResNet50", ["conv2_block1_2_relu", "conv3_block4_out", "conv5_block1_add"], "conv5_block3_out"),
        ],
    )
    def test_applications(self, keras, name, names, last):
        keras.utils.set_random_seed(0)
        network = getattr(keras.applications, name)
        model = network(weights=None, input_shape=(64, 64, 3), classes=7, classifier_activation=None)
        x = X[:, :8, :8].astype(np.float32).repeat(8, 1).repeat(8, 2)
        logits = model(x, training=False)
        for layer in (*names, last):
            features, head = jaxcam.split(model, layer, x)
            a = features(model, x)
            theirs = keras.Model(model.inputs, model.get_layer(layer).output)(x, training=False)
            np.testing.assert_allclose(a, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
            np.testing.assert_allclose(head(model, a, x), logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())
        # The position of the last convolution may be the same value.
        assert last in [row.layer for row in jaxcam.layers(model, x) if row.default]


@pytest.mark.parity
@pytest.mark.usefixtures("standard")
def test_haiku_layers():
    pytest.importorskip("haiku")
    net, params, state = foreign.haiku_model(P)
    names = ["stem", "stem_norm", "down"]
    names += [f"{block}.{part}" for block in ("first", "second") for part in ("conv1", "norm1", "conv2", "norm2")]
    expected = {name.replace(".", "_"): name for name in names} | TestEquinox.positions
    model = jaxcam.adapt((params, state), apply=lambda both, x: net.apply(*both, x)[0])
    check(model, X, expected, gradients_by_hand(2))

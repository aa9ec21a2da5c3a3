"""named: a copy of an NNX model whose submodules say where they are, and that computes the same."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import normal

import jaxcam

X = normal(0, 2, 5, 4, 3)


def linear(i, o, seed):
    layer = nnx.Linear(i, o, param_dtype=np.float64, rngs=nnx.Rngs(0))
    layer.kernel[...] = normal(seed, i, o)
    return layer


def bent(x):
    return jnp.tanh(x)


class Pair(nnx.Module):
    """Returns a tuple with something that is no array."""

    def __init__(self, seed):
        self.inner = linear(4, 4, seed)

    def __call__(self, x):
        y = self.inner(x)
        return y, jnp.sin(y), "text", None


class Base(nnx.Module):
    def __init__(self, seed):
        self.linear = linear(4, 4, seed)

    def __call__(self, x):
        return jnp.tanh(self.linear(x))


class Derived(Base):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Jitted(nnx.Module):
    def __init__(self, seed):
        self.inner = linear(4, 4, seed)

    @nnx.jit
    def __call__(self, x, *, factor):
        return factor * self.inner(x)


class Net(nnx.Module):
    def __init__(self):
        self.first = nnx.Sequential(linear(3, 4, 1), bent, linear(4, 4, 2))
        self.items = nnx.List([Derived(3), Base(4)])
        self.table = nnx.Dict({"pair": Pair(5), "shared": self.items[1]})
        self.jitted = Jitted(6)
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(0))

    def __call__(self, x):
        x = self.items[0](self.first(x))
        _, x, _, _ = self.table["pair"](self.items[1](x))
        x = self.jitted(self.table["shared"](x), factor=3.0)
        return self.dropout(x).mean((1, 2))


def values(net):
    """By hand, by path."""
    k = lambda layer, x: x @ layer.kernel[...]
    found = {"first.layers.0": k(net.first.layers[0], X)}
    found["first.layers.2"] = found["first"] = k(net.first.layers[2], jnp.tanh(found["first.layers.0"]))
    found["items.0.linear"] = k(net.items[0].linear, found["first"])
    found["items.0"] = 2 * jnp.tanh(found["items.0.linear"])
    found["items.1.linear:0"] = k(net.items[1].linear, found["items.0"])
    found["items.1:0"] = jnp.tanh(found["items.1.linear:0"])
    found["table.pair.inner"] = found["table.pair:0"] = k(net.table["pair"].inner, found["items.1:0"])
    found["table.pair:1"] = jnp.sin(found["table.pair:0"])
    found["items.1.linear:1"] = k(net.items[1].linear, found["table.pair:1"])
    found["items.1:1"] = jnp.tanh(found["items.1.linear:1"])
    found["jitted.inner"] = k(net.jitted.inner, found["items.1:1"])
    found["jitted"] = found["dropout"] = 3 * found["jitted.inner"]
    return found


@pytest.fixture
def net():
    return Net()


def test_every_module_says_where_it_is(net):
    model, expected = jaxcam.named(net), values(net)
    np.testing.assert_array_equal(model(X), net(X))
    np.testing.assert_allclose(model(X), expected["dropout"].mean((1, 2)), rtol=1e-12)
    names = {row.layer for row in jaxcam.layers(model, X) if row.kind == "tag"}
    # A tag that nothing reads is not in the program: what Pair returns first.
    assert names == set(expected) - {"table.pair:0", "table.pair:1"} | {"table.pair"}
    for name in names:
        wanted = expected["table.pair:1" if name == "table.pair" else name]
        np.testing.assert_allclose(jaxcam.split(model, name, X)[0](model, X), wanted, rtol=1e-12)
    # What several begin with: the last of them.
    np.testing.assert_allclose(jaxcam.split(model, "items", X)[0](model, X), expected["items.1:1"], rtol=1e-12)


def test_the_model_itself_is_left_as_it_is(net):
    before = jax.tree.structure(net)
    model = jaxcam.named(net)
    assert jax.tree.structure(net) == before
    assert not [row for row in jaxcam.layers(net, X) if row.kind == "tag"]
    model.first.layers[0].kernel[...] = jnp.zeros((3, 4))
    assert np.abs(net.first.layers[0].kernel[...]).min() > 0
    assert isinstance(model, Net)
    assert type(model.items[0]) is not Derived
    assert isinstance(model.items[0], Derived)
    assert model.table["shared"] is model.items[1]


def test_one_compilation_for_all_copies(net):
    calls = []

    @jax.jit
    def run(model, x):
        calls.append(1)
        return model(x)

    run(jaxcam.named(net), X)
    net.first.layers[0].kernel[...] = normal(7, 3, 4)
    np.testing.assert_allclose(run(jaxcam.named(net), X), net(X), rtol=1e-12)
    assert len(calls) == 1


def test_naming_twice_changes_nothing(net):
    once = jaxcam.named(net)
    assert jax.tree.structure(jaxcam.named(once)) == jax.tree.structure(once)
    np.testing.assert_array_equal(jaxcam.named(once)(X), net(X))


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        nnx.clone,
        lambda model: nnx.merge(*nnx.split(model)),
        lambda model: jax.tree.map(lambda leaf: leaf, model),
    ],
)
def test_copies_of_a_named_model_are_named(net, copied):
    model = jaxcam.named(net)
    other = copied(model)
    np.testing.assert_array_equal(other(X), net(X))
    assert list(jaxcam.layers(other, X)) == list(jaxcam.layers(model, X))
    assert type(other.items[0]) is type(model.items[0])


def test_state_goes_from_the_model_to_the_copy(net):
    model = jaxcam.named(net)
    net.first.layers[0].kernel[...] = normal(8, 3, 4)
    nnx.update(model, nnx.state(net))
    np.testing.assert_array_equal(model(X), net(X))


def test_compiled_program_is_the_same(net):
    text = lambda model: jax.jit(lambda m, x: m(x)).lower(model, X).compile().as_text().count(" = ")
    assert text(jaxcam.named(net)) == text(net)


@pytest.mark.parametrize("other", [lambda x: x, {"a": 1}, Net, nnx.Param(jnp.ones(3))])
@pytest.mark.usefixtures("unchecked")
def test_only_nnx_modules(other):
    with pytest.raises(
        TypeError,
        match=r"must be an nnx.Module or an equinox.Module, but is \w+: jaxcam.layers\(model, images\) lists",
    ):
        jaxcam.named(other)


@pytest.mark.usefixtures("unchecked")
def test_a_name_that_no_layer_has_is_answered_with_one_that_may_be_meant(net):
    with pytest.raises(
        ValueError, match=r"'items\[0\]' is not in this model. Did you mean 'items\.0'\? Its layers are"
    ):
        jaxcam.split(jaxcam.named(net), "items[0]", X)
    with pytest.raises(ValueError, match=r"'items.1' is not in this model. Its submodules have names in jaxcam\.named"):
        jaxcam.split(net, "items.1", X)

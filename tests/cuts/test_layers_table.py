"""layers: which values are listed, under which names, what flows through them, and what a name means."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.ad_checkpoint import checkpoint_name as tag
from support import normal

import jaxcam

X, W = normal(0, 2, 6, 5, 3), normal(1, 3, 4)
SQUARE = normal(2, 3, 3, 4, 4)


def conv(x, kernel=SQUARE):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def rows(model, x=X, **options):
    return {row.layer: row for row in jaxcam.layers(model, x, **options)}


def features(model, layer, x=X):
    return jaxcam.split(model, layer, x)[0](model, x)


def equal(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


# Which nodes each node of a random network adds up; the last is the logits'.
graphs = st.integers(2, 7).flatmap(
    lambda n: st.tuples(*(st.sets(st.integers(0, i), min_size=1, max_size=3) for i in range(n)))
)


@settings(max_examples=40, deadline=None)
@given(graphs)
def test_complete_is_what_cutting_shows(inputs):
    """A node is complete where the logits no longer see the images once the node is replaced."""

    def network(x, replaced=None):
        values = [x]
        for i, sources in enumerate(inputs, 1):
            total = values[min(sources)]
            for source in sorted(sources - {min(sources)}):
                total = total + 0.5 * values[source]
            with jax.named_scope(f"node{i}"):
                value = jnp.sin(total)
            values.append(jnp.ones_like(value) if replaced == i else value)
        return values[-1].mean((1, 2))

    x, other = X[:1], X[1:]
    table = rows(network, x)
    reached, queue = set(), [len(inputs)]
    while queue:
        node = queue.pop()
        reached.add(node)
        queue += [source for source in inputs[node - 1] if source not in reached and source]
    assert {name for name in table if isinstance(name, str)} == {f"node{i}" for i in reached}
    for i in reached:
        blind = bool((network(x, i) == network(other, i)).all())
        assert table[f"node{i}"].complete == blind


def test_the_default_is_the_last_complete_grid():
    def network(x):
        x = tag(jnp.tanh(x @ W), "first")
        y = tag(jnp.cos(x) + x, "second")
        pooled = tag(y.mean((1, 2), keepdims=True), "pooled")  # one position: no grid
        return pooled[:, 0, 0] + tag(jnp.zeros_like(x), "unused").mean((1, 2))

    table = rows(network)
    assert [name for name, row in table.items() if row.default] == ["second"]
    assert table["pooled"].shape == (2, 1, 1, 4)
    assert "unused" not in table
    past = lambda x: network(x) + x.sum((1, 2, 3))[:, None]
    assert not any(row.default for row in rows(past).values())
    with pytest.raises(ValueError, match=r"there is no default: name one of its layers(.|\n)*'second' +tag +2x6x5x4 +"):
        jaxcam.split(past, None, X)
    with pytest.raises(ValueError, match="there is no default"):  # but for the picture itself
        jaxcam.split(lambda x: ((x - 0.5) / 2).mean((1, 2)), None, X)
    with pytest.raises(ValueError, match="no layers: no value with positions depends on the inputs"):
        jaxcam.split(lambda x: x.reshape(2, -1) @ jnp.ones((90, 5)), None, X)


def test_a_default_without_a_name_has_a_row():
    network = lambda x: jnp.sin(tag(x @ W, "first")).mean((1, 2))
    (first, value) = jaxcam.layers(network, X)
    assert (first.layer, first.default) == ("first", False)
    assert (value.layer, value.kind, value.shape, value.default) == (None, "value", (2, 6, 5, 4), True)
    equal(features(network, value.layer), jnp.sin(X @ W))


def test_where_the_channels_are_decides_what_a_grid_is():
    kernel = normal(7, 1, 1, 3, 6)

    def network(axes, keep, last):  # a column of positions, and in the end none
        def run(x):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=(axes, "HWIO", axes))
            x = tag(x.sum(keep, keepdims=True), "column")
            return tag(x.sum(last, keepdims=True), "channels").reshape(2, 6)

        return run

    grids = lambda run, x: {row.layer: row.grid for row in jaxcam.layers(run, x)}
    default = lambda run, x: [row.layer for row in jaxcam.layers(run, x) if row.default]
    assert grids(network("NHWC", 2, 1), X) == {0: "6x5", "column": "6x1", "channels": "no positions"}
    assert default(network("NHWC", 2, 1), X) == [0]  # a column knows less than the whole grid
    channels_first = X.transpose(0, 3, 1, 2)
    assert grids(network("NCHW", 3, 2), channels_first) == {0: "6x5", "column": "6x1", "channels": "no positions"}
    column = X[:, :, :1]  # unless the input itself is one
    assert default(network("NHWC", 2, 1), column) == ["column"]


def test_the_table_as_printed():
    network = lambda x: jnp.tanh(conv(tag(x @ W, "first"))).mean((1, 2))
    assert str(jaxcam.layers(network, X)) == "\n".join(
        [
            "layer         kind         shape    dtype    grid  centres         everything flows through",
            "'first'       tag          2x6x5x4  float64  6x5   every 1 from 0  yes",
            "0  (default)  convolution  2x6x5x4  float64  6x5   every 1 from 0  yes",
        ]
    )


class TestNames:
    def test_occurrences(self):
        def network(x):
            x = tag(jnp.tanh(x @ W), "t")
            for factor in (2.0, 3.0):
                with jax.named_scope("s"):
                    x = factor * x
                x = tag(jnp.tanh(x), "t")
            return x.mean((1, 2))

        a = jnp.tanh(X @ W)
        b = jnp.tanh(2 * a)
        c = jnp.tanh(3 * b)
        expected = {"t:0": a, "s:0": 2 * a, "t:1": b, "s:1": 3 * b, "t:2": c}
        assert list(rows(network)) == list(expected)
        for name, value in {**expected, "t": c, "s": 3 * b}.items():
            equal(features(network, name), value)

    def test_paths(self):
        def network(x):
            x = x @ W
            for i, block in enumerate(("block_1", "block_2", "stage.0.out"), 1):
                with jax.named_scope("net"), jax.named_scope(block):
                    with jax.named_scope("inner"):
                        x = tag(jnp.tanh(i * x), f"layer4.{i}")
                    x = x + i
            return x.mean((1, 2))

        blocks = ("block_1", "block_2", "stage.0.out")
        expected = [[f"layer4.{i}", f"net/{block}/inner", f"net/{block}"] for i, block in enumerate(blocks, 1)]
        assert list(rows(network)) == [*(name for names in expected for name in names), "net"]
        values, a = [], X @ W
        for i in (1, 2, 3):
            values.append(jnp.tanh(i * a))
            a = values[-1] + i
        for layer, value in {
            "layer4.2": values[1],  # exactly
            "net/block_2/inner": values[1],
            "block_2/inner": values[1],  # the end of one
            "block_1": values[0] + 1,
            "out": a,
            "layer4": values[2],  # what several begin with: the last of them
            "net": a,
        }.items():
            equal(features(network, layer), value)
        with pytest.raises(ValueError, match=r"layer='inner' may be any of 'net/block_1/inner', 'net/block_2/inner', "):
            jaxcam.split(network, "inner", X)
        for layer in ("lock_1", "net/", "layer4.", "Net", "layer4.2.", ".*"):
            with pytest.raises(ValueError, match="is not in this model"):
                jaxcam.split(network, layer, X)

    def test_a_tag_goes_before_a_scope_of_the_same_name(self):
        def network(x):
            with jax.named_scope("same"):
                x = jnp.tanh(tag(x @ W, "same"))
            return x.mean((1, 2))

        assert [(row.layer, row.kind) for row in jaxcam.layers(network, X)] == [("same", "tag"), ("same", "scope")]
        equal(features(network, "same"), X @ W)

    def test_every_row_means_itself(self):
        def network(x):
            with jax.named_scope("a"):
                x = conv(tag(x @ W, "a.b"))
                with jax.named_scope("b"):
                    x = tag(jnp.tanh(x), "b")
            with jax.named_scope("b"):
                x = tag(conv(x) + x, "b")
            return x.mean((1, 2))

        moved = lambda layer: float(features(network, layer).sum())
        found = {row.layer: moved(row.layer) for row in jaxcam.layers(network, X) if row.kind != "value"}
        a = X @ W
        b = jnp.tanh(conv(a))
        c = conv(b) + b
        expected = {"a.b": a, 0: b, "b:0": b, "a/b": b, "a": b, 1: conv(b), "b:1": c, "b": c}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value.sum(), rtol=1e-12, err_msg=str(name))
        assert set(found) == set(expected)

    def test_a_shared_module_called_twice(self):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                shared = nn.Dense(3, name="shared", param_dtype=np.float64)
                return jnp.cos(shared(jnp.sin(shared(x)))).mean((1, 2))

        variables = Net().init(jax.random.key(0), X)
        model = jax.tree_util.Partial(Net().apply, variables)
        dense = lambda x: x @ variables["params"]["shared"]["kernel"]
        equal(features(model, "shared:0"), dense(X))
        equal(features(model, "shared"), dense(jnp.sin(dense(X))))

    def test_scopes_around_a_call_are_those_inside(self):
        def inner(x):
            with jax.named_scope("inner"):
                return jnp.sin(x @ SQUARE[0, 0])

        def network(x):
            with jax.named_scope("outer"):
                x = jax.jit(inner)(x @ W)
            return jnp.cos(x).mean((1, 2))

        for layer in ("outer/inner", "outer", "inner"):
            equal(features(network, layer), jnp.sin(X @ W @ SQUARE[0, 0]))


class TestPositions:
    """A convolution with its bias and batch norm, after its activation where that follows directly."""

    scale, bias = normal(3, 4)[None, None, None], normal(4, 4)[None, None, None]

    def value(self, after, position=0, x=X):
        network = lambda x: jnp.cumsum(after(conv(x @ W), x), 1).mean((1, 2))[:, :4]
        return features(network, position, x)

    @pytest.mark.parametrize(
        ("before", "activation"),
        [
            (lambda y, s, b: y, lambda y: y),
            (lambda y, s, b: y + b, lambda y: y),
            (lambda y, s, b: (y + b - b * s) * s / (1 + s**2) + b, lambda y: y),  # batch norm in evaluation
            (lambda y, s, b: tag(y * s, "here") + b, jax.nn.relu),
            (lambda y, s, b: y + b, lambda y: jnp.maximum(y, 0)),
            (lambda y, s, b: y + b, lambda y: jnp.where(y > 0, y, 0.1 * y)),
            (lambda y, s, b: y * s, jax.nn.gelu),
            (lambda y, s, b: y * s, lambda y: jax.nn.gelu(y, approximate=False)),
            (lambda y, s, b: y * s, jax.nn.silu),
            (lambda y, s, b: y * s, lambda y: y * jax.nn.sigmoid(y)),
            (lambda y, s, b: y, jax.nn.hard_swish),
            (lambda y, s, b: y, jax.nn.mish),
            (lambda y, s, b: y, jax.nn.elu),
        ],
    )
    def test_followed(self, before, activation):
        # The activation ends it: a second one is not part of the convolution.
        after = lambda y, x: jnp.tanh(activation(before(y, self.scale, self.bias)))
        if activation(2.0) == 2.0 and activation(-2.0) == -2.0:
            after = lambda y, x: before(y, self.scale, self.bias)
        equal(self.value(after), activation(before(conv(X @ W), self.scale, self.bias)))

    @pytest.mark.parametrize(
        "after",
        [
            lambda y, x: y + x @ W,  # a skip connection
            lambda y, x: jnp.tanh(y) * (y + x @ W),
            lambda y, x: jnp.tanh(y) + jnp.cumsum(y, 2),
            lambda y, x: y - y.mean((1, 2), keepdims=True),  # a norm with its own statistics
            lambda y, x: y.transpose(0, 3, 1, 2),  # channels elsewhere
            lambda y, x: y.transpose(0, 2, 1, 3),
            lambda y, x: jnp.cumsum(y, 1),
        ],
    )
    def test_not_followed(self, after):
        square = normal(5, 2, 4, 4, 3)  # with as many channels: a transposition does not show in the shape
        equal(self.value(after, x=square), conv(square @ W))

    def test_one_image_at_a_time(self):
        one = lambda x: jax.nn.relu(conv((x @ W)[None])[0] + self.bias[0]).mean((0, 1))
        equal(features(jax.vmap(one), -1), jax.nn.relu(conv(X @ W) + self.bias))

    def test_counted_from_both_ends(self):
        network = lambda x: conv(jnp.tanh(conv(jnp.exp(conv(x @ W) / 9)))).mean((1, 2))
        first = jnp.exp(conv(X @ W) / 9)
        values = [first, jnp.tanh(conv(first)), conv(jnp.tanh(conv(first)))]
        for i in range(3):
            equal(features(network, i), values[i])
            equal(features(network, i - 3), values[i])
        for position in (3, -4):
            with pytest.raises(ValueError, match=f"layer={position} is not in this model"):
                jaxcam.split(network, position, X)

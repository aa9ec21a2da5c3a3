"""Which axis the channels are on, where the first product does not say it: graphs and mixers, against maps by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import drawn

import jaxcam

T, D, HIDDEN = 7, 5, 6
NODES = drawn(40, 2, T, D)
EDGES = (drawn(41, T, T) > 0).astype(NODES.dtype)
FIRST, SECOND, OUT, OF_NODES = drawn(42, D, HIDDEN), drawn(43, HIDDEN, D), drawn(44, D, 4), drawn(45, T, 4)
WIDE, BACK, SQUARE = drawn(46, T, 9), drawn(47, 9, T), drawn(48, D, D)

relu = jax.nn.relu
over_nodes = lambda x, kernel: jnp.einsum("ntd,ts->nsd", x, kernel)


def neighbours(x):  # of a graph, each with itself
    return over_nodes(x, EDGES) + x


def convolved(x):
    return relu(neighbours(relu(neighbours(x) @ FIRST)) @ SECOND)


def mixed(x):
    x = x + over_nodes(relu(over_nodes(x, WIDE)), BACK)
    return x + relu(x @ FIRST) @ SECOND


def grad_cam(activations, head):
    """By the definition, of the likeliest class, for a head of one example's `[t, k]`."""
    weights = jax.vmap(jax.grad(lambda a: head(a).max()))(activations).mean(1)
    return np.maximum(np.einsum("ntk,nk->nt", activations, weights), 0)


def check(model, expected):
    found = jaxcam.explain(model, NODES)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("features", [convolved, mixed])
def test_a_product_that_mixes_nodes_contracts_no_channels(features):
    """Its positions last, or are what a mean ends: the map is one of nodes, not of their features."""
    check(lambda x: features(x).mean(1) @ OUT, grad_cam(features(NODES), lambda a: a.mean(0) @ OUT))


@pytest.mark.parametrize(
    "features",
    [
        lambda x: relu(over_nodes(x, WIDE)),
        lambda x: relu(over_nodes(relu(over_nodes(x, EDGES)), EDGES)),
        lambda x: x + over_nodes(relu(over_nodes(x, WIDE)), BACK),
    ],
)
def test_dense_layers_of_channels_first_do(features):
    kernel = {9: drawn(49, 9, 4), T: OF_NODES}[features(NODES).shape[1]]
    expected = grad_cam(features(NODES).swapaxes(1, 2), lambda a: a.mean(0) @ kernel)
    check(lambda x: features(x).mean(2) @ kernel, expected)


@pytest.mark.parametrize("kernel", [drawn(42, D, HIDDEN), SQUARE])
def test_nodes_that_nothing_keeps_in_place_are_named_by_the_grid(kernel):
    """The adjacency matrix has the loops: that rows are nodes again is what the program does not show."""
    out = drawn(50, kernel.shape[1], 4)
    features = lambda x: relu(over_nodes(x, EDGES) @ kernel)
    model = lambda x: features(x).mean(1) @ out
    with pytest.raises(ValueError, match="no value with positions"):
        jaxcam.explain(model, NODES)
    check(jaxcam.adapt(model, grid=lambda t: t), grad_cam(features(NODES), lambda a: a.mean(0) @ out))


POOLS = drawn(51, T, 3)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: relu(over_nodes(x, POOLS) @ FIRST).mean(1) @ drawn(52, HIDDEN, 4),
        lambda x: relu(relu(over_nodes(x, WIDE) @ FIRST) @ SECOND).mean(1) @ OUT,
        lambda x: relu(over_nodes(x, POOLS)).mean(1) @ OUT,
    ],
)
def test_nodes_that_the_first_product_pools_are_no_channels(model):
    """It contracts axis 1 to another number, as a dense layer of channels does, but then features are what is left."""
    with pytest.raises(ValueError, match="no value with positions"):
        jaxcam.explain(model, NODES)

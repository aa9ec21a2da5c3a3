"""What is taken for a rectifier, and what is not."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal
from test_guided import X, by_hand, gradients, guided_relu, network, relu, runs

import jaxcam
from jaxcam import models
from jaxcam.programs.guided_rule import _rewritten

SQRT2 = 2**0.5
# As they are written in research code, and φ' of each where x > 0.
ACTIVATIONS = {
    "jax.nn.relu": jax.nn.relu,
    "maximum(x, 0)": lambda x: jnp.maximum(x, 0),
    "maximum(0, x)": lambda x: jnp.maximum(0.0, x),
    "maximum(x, zeros)": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "where(x > 0, x, 0)": lambda x: jnp.where(x > 0, x, 0),
    "where(x < 0, 0, x)": lambda x: jnp.where(x < 0, 0, x),
    "x * (x > 0)": lambda x: x * (x > 0).astype(x.dtype),
    "clip(x, 0, 6)": lambda x: jnp.clip(x, 0, 6),
    "clamp": lambda x: jax.lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), 6, x.dtype)),
    "jax.nn.relu6": jax.nn.relu6,
    "jax.nn.leaky_relu": jax.nn.leaky_relu,
    "leaky by hand": lambda x: jnp.where(x >= 0, x, 0.2 * x),
    "jax.nn.silu": jax.nn.silu,
    "x * sigmoid(x)": lambda x: x * jax.nn.sigmoid(x),
    "gelu, tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu, erf": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu by hand": lambda x: 0.5 * x * (1 + jax.lax.erf(x / SQRT2)),
    "jax.nn.elu": jax.nn.elu,
    "jax.nn.celu": jax.nn.celu,
    "jax.nn.selu": jax.nn.selu,
    "jax.nn.mish": jax.nn.mish,
    "jax.nn.hard_swish": jax.nn.hard_swish,
    "hard swish by hand": lambda x: x * jnp.minimum(jnp.maximum(x + 3, 0), 6) / 6,
}


@pytest.mark.parametrize("deconvnet", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_way_of_writing_a_rectifier(name, deconvnet):
    activation, column = ACTIVATIONS[name], np.array([0.0, 1.0, 0.0]) + np.zeros((5, 1))
    ours = jaxcam.guided(network(activation), deconvnet=deconvnet)
    theirs = network(by_hand(activation, deconvnet=deconvnet))
    (value, found), (_, expected), (plain, ordinary) = runs(ours, theirs, network(activation), x=2 * X, out=column)
    assert np.isfinite(plain).all()
    np.testing.assert_array_equal(value, plain)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert np.abs(found - ordinary).max() > 0.1


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(), nn.GroupNorm(2), nn.BatchNorm(use_running_average=False), nn.RMSNorm(), nn.softmax, nn.softplus],
    ids=["LayerNorm", "GroupNorm", "BatchNorm", "RMSNorm", "softmax", "softplus"],
)
@pytest.mark.filterwarnings("ignore:guided")
def test_normalisation_and_softmax_are_no_rectifiers(layer):
    x, out = normal(0, 3, 4, 4, dtype=np.float32), normal(1, 3, 4, 4, dtype=np.float32)
    if isinstance(layer, nn.Module):
        variables = jax.jit(layer.init)(jax.random.key(0), x)
        f = lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0]
    else:
        f = layer
    found, expected = gradients(jaxcam.guided(f), f, x=x, out=out)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize(
    "function",
    [
        jnp.tanh,
        jnp.abs,
        lambda x: jnp.where(x > 0, x, -x),
        jnp.square,
        jax.nn.hard_tanh,
        jnp.exp,
        lambda x: jnp.maximum(x, 1e-6),
        lambda x: 2 * x,
    ],
)
def test_functions_without_rectifiers_warn_and_keep_their_gradient(function):
    with pytest.warns(UserWarning, match="no ReLU or relative of it was found"):
        found, expected = gradients(jaxcam.guided(function), function)
    np.testing.assert_array_equal(found, expected)


def test_no_warning_where_there_is_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxcam.guided(relu)(normal(0, 3))


def test_counts_in_real_networks():
    """A ReLU less would be seen here: one, and two for each of three blocks; eight."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    count = lambda model: _rewritten(jax.make_jaxpr(lambda m, x: m(x))(model, images).jaxpr, False)[1]
    assert count(models.mini_resnet()) == 1 + 3 * 2
    assert count(models.mini_vgg()) == 8


# What is close to a rectifier, and is none


@pytest.mark.parametrize("call", [jax.jit, jax.checkpoint])
@pytest.mark.parametrize("deconvnet", [False, True])
@pytest.mark.parametrize("body", [lambda x, act: x + act(x), lambda x, act: 2 * act(x)], ids=["x + relu", "2 relu"])
def test_a_call_that_is_only_a_skip_connection_is_not_a_rectifier(call, body, deconvnet):
    found, expected = gradients(
        jaxcam.guided(call(lambda x: body(x, relu)), deconvnet=deconvnet),
        lambda x: body(x, by_hand(relu, deconvnet=deconvnet)),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:guided")
@pytest.mark.parametrize(
    "layer", [jax.nn.standardize, jax.nn.hard_sigmoid, lambda x: x * jax.nn.hard_sigmoid(x.mean() + jnp.zeros_like(x))]
)
def test_variances_and_gates_keep_their_gradient(layer):
    np.testing.assert_array_equal(*gradients(jaxcam.guided(layer), layer))


def test_a_rectifier_of_a_difference_with_a_square():
    f = lambda act: lambda x: act(x @ normal(2, 6, 6) - jnp.square(x))
    np.testing.assert_array_equal(*gradients(jaxcam.guided(f(relu)), f(guided_relu)))


@pytest.mark.parametrize("slope", [0.3, 0.6])
def test_steep_leaks(slope):
    act = lambda x: jax.nn.leaky_relu(x, slope)
    f = lambda act: lambda x: act(x @ normal(2, 6, 6))
    np.testing.assert_array_equal(*gradients(jaxcam.guided(f(act)), f(guided_relu)))


def test_batch_norm_over_a_named_axis():
    layer = nn.BatchNorm(use_running_average=False, axis_name="i")
    init = nn.BatchNorm(use_running_average=False).init
    variables = jax.jit(init)(jax.random.key(0), X.astype(np.float32))
    row = lambda x: layer.apply(variables, x.astype(np.float32), mutable=["batch_stats"])[0].astype(x.dtype)
    with pytest.warns(UserWarning, match="no ReLU"):
        found, expected = gradients(jax.vmap(jaxcam.guided(row), axis_name="i"), jax.vmap(row, axis_name="i"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

"""What is taken for a rectifier, and what is not."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal
from test_guided import OUT, X, by_hand, gradients, guided_relu, network, relu, runs

import jaxcam
from jaxcam import models

SQRT2 = 2**0.5
ZEROS, SLOPES = np.zeros(8), np.linspace(0.05, 0.4, 8)
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
    "maximum(x, an array of zeros)": lambda x: jnp.maximum(x, ZEROS[None, : x.shape[1]]),
    "in a jitted function": jax.jit(lambda x: jnp.maximum(ZEROS[None, : x.shape[1]], x)),
    "maximum(x, computed zeros)": lambda x: jnp.maximum(
        x, jnp.zeros((1, x.shape[1])) * 3 - jnp.broadcast_to(0.0, x.shape)
    ),
    "(x + |x|) / 2": lambda x: (x + abs(x)) / 2,
    "x/2 + |x|/2": lambda x: 0.5 * x + 0.5 * abs(x),
    "-min(-x, 0)": lambda x: -jnp.minimum(-x, 0),
    "x (1 + sign(x)) / 2": lambda x: x * (1 + jnp.sign(x)) / 2,
    "PReLU": lambda x: jnp.where(x >= 0, x, SLOPES[None, : x.shape[1]] * x),
    "PReLU of two parts": lambda x: jnp.maximum(x, 0) + SLOPES[None, : x.shape[1]] * jnp.minimum(x, 0),
    "PReLU of two ReLUs": lambda x: jax.nn.relu(x) - SLOPES[None, : x.shape[1]] * jax.nn.relu(-x),
    "ELU of two parts": lambda x: jnp.maximum(x, 0) + jnp.minimum(0, jnp.exp(x) - 1),
    "swish with a slope": lambda x: x * jax.nn.sigmoid(SLOPES[0] * 4 * x),
    "hard swish by hand": lambda x: x * jnp.minimum(jnp.maximum(x + 3, 0), 6) / 6,
}


@pytest.mark.parametrize("deconvnet", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.sample(13)
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
@pytest.mark.sample(2)
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
    images = np.zeros((1, 64, 64, 3), np.float32)
    count = lambda model: jaxcam.guided(lambda m, x: m(x)).report(model, images).count("guided")
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


def variance(x, mean):
    return mean(x * x) - mean(x) ** 2


ROWS = {"axis": 0, "keepdims": True}
LEFT_ALONE = {
    "standardize": jax.nn.standardize,
    "max(0, E[x²] - E[x]²)": lambda x: jnp.maximum(0, variance(x, lambda x: x.mean(**ROWS))),
    "E[x] m": lambda x: jnp.maximum(0, (x * x).mean(**ROWS) - jnp.prod(jnp.stack([x.mean(**ROWS)] * 2), 0)),
    "by jax.nn.relu": lambda x: jax.nn.relu(variance(x, lambda x: x.mean(**ROWS))),
    "where": lambda x: (v := variance(x, lambda x: x.mean(**ROWS)), jnp.where(v > 0, v, 0))[1],
    "of sums": lambda x: jnp.maximum(0, ((x * x).sum(**ROWS) - x.sum(**ROWS) ** 2 / 5) / 4),
    "by a dot product": lambda x: jax.nn.relu(jnp.einsum("ij,ij->j", x, x) / 5 - jnp.square(x.mean(0))),
    "by weights": lambda x: jax.nn.relu(jnp.full(5, 0.2) @ x**2.0 - (jnp.full(5, 0.2) @ x) ** 2.0),
    "of shifted values": lambda x: jnp.clip(variance(x - 3, lambda x: x.mean(**ROWS)), 0),
    "negative, then turned": lambda x: jnp.maximum(-(x.mean(0) * x.mean(0) - (x * x).mean(0)), 0),
    "of groups": lambda x: jax.nn.relu(variance(x.reshape(5, 2, 3), lambda x: x.mean((0, 2), keepdims=True))),
    "covered": lambda x: jax.nn.relu(variance(jnp.where(X > 0, x, 0), lambda x: x.sum(0) / 3)),
    "hard sigmoid": jax.nn.hard_sigmoid,
    "its gate": lambda x: x * jax.nn.hard_sigmoid(x.mean() + jnp.zeros_like(x)),
    "relu6(s + 3) x": lambda x: x[::-1] * jax.nn.relu6(x + 3) / 6,
    "clip(0.2 s + 0.5, 0, 1) x": lambda x: x[::-1] * jnp.clip(0.2 * x + 0.5, 0, 1),
    "max of min": lambda x: x[::-1] * jnp.maximum(0, jnp.minimum(1, (x + 1) / 2)),
    "by a matrix and jit": lambda x: x * jax.jit(lambda s: jax.nn.relu6(s + 3))(x @ normal(2, 6, 6)) / 6,
    "interpolation": lambda x: jnp.maximum(0, 1 - abs(x - X[::-1])) * x[::-1],
    "softplus": jax.nn.softplus,
    "max(x, 0) + log1p(exp(-|x|))": lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-abs(x))),
    "log1p(exp(-|x|)) + relu(x)": lambda x: jnp.log1p(jnp.exp(-abs(2 * x))) + jax.nn.relu(2 * x),
    "log sigmoid": lambda x: -(jnp.maximum(-x, 0) + jnp.log1p(jnp.exp(-abs(x)))),
    "sigmoid": lambda x: jnp.where(
        x >= 0, 1 / (1 + jnp.exp(-jnp.maximum(x, 0))), 1 - 1 / (1 + jnp.exp(jnp.minimum(x, 0)))
    ),
    "logaddexp": lambda x: jnp.logaddexp(x, ZEROS[None, :6]),
    "resized": lambda x: jnp.tanh(jax.image.resize(x, (9, 6), "linear")),
    "constants": lambda x: x * jnp.maximum(0, normal(3, 5, 6)),
}


@pytest.mark.filterwarnings("ignore:guided")
@pytest.mark.parametrize("name", LEFT_ALONE)
@pytest.mark.sample(6)
def test_what_is_no_activation_keeps_its_gradient(name):
    f = LEFT_ALONE[name]
    out = np.asarray(normal(7, *jax.eval_shape(f, X).shape))
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(*gradients(jaxcam.guided(f), f, out=out), rtol=1e-12, atol=1e-14)
        assert "guided" not in jaxcam.guided(f).report(X)


def test_a_learned_slope_as_an_argument():
    """Its gradient is the ordinary one, that of x the guided one."""
    prelu = lambda x, slope: jnp.where(x > 0, x, slope * x)
    f = lambda slope, x: prelu(x @ normal(2, 6, 6), jnp.broadcast_to(slope, X.shape))
    slopes = np.linspace(0.1, 0.6, 6)

    @jax.jit
    def run(slopes, x):
        _, pull = jax.vjp(jaxcam.guided(f), slopes, x)
        _, ordinary = jax.vjp(f, slopes, x)
        _, by_rule = jax.vjp(
            lambda x: by_hand(lambda x: prelu(x, jnp.broadcast_to(SLOPE, x.shape)))(x @ normal(2, 6, 6)), x
        )
        return pull(OUT), ordinary(OUT)[0], by_rule(OUT)[0]

    SLOPE = slopes
    (of_slopes, of_x), expected_slopes, expected_x = run(slopes, X)
    np.testing.assert_allclose(of_slopes, expected_slopes, rtol=1e-12)
    np.testing.assert_allclose(of_x, expected_x, rtol=1e-12)


def test_report():
    """Every rectifier with its place, inside loops too, and every clamp that is left alone."""

    def f(x):
        with jax.named_scope("block"):
            x = jax.nn.relu(x)
        x = x / jnp.sqrt(jnp.maximum(0, variance(x, lambda x: x.mean(**ROWS))) + 1e-5)
        x, _ = jax.lax.scan(lambda c, _: (jax.nn.silu(c), None), x, None, 2)
        return x[::-1] * jnp.clip(0.2 * x + 0.5, 0, 1)

    header, *rows = jaxcam.guided(f).report(X).split("\n")
    assert header.split() == ["place", "function", "rule"]
    relu, norm, silu, gate = rows
    assert relu.startswith("block  test_rectifiers.py:")
    assert relu.endswith("guided")
    assert "left alone: a variance" in norm
    assert silu.endswith("guided")
    assert "left alone: a gate" in gate
    assert jaxcam.guided(jnp.tanh).report(X) == "no rectifier and no clamp"


def test_a_rectifier_of_a_difference_with_a_square():
    f = lambda act: lambda x: act(x @ normal(2, 6, 6) - jnp.square(x))
    np.testing.assert_array_equal(*gradients(jaxcam.guided(f(relu)), f(guided_relu)))


@pytest.mark.parametrize("slope", [0.3, 0.6])
def test_steep_leaks(slope):
    act = lambda x: jax.nn.leaky_relu(x, slope)
    f = lambda act: lambda x: act(x @ normal(2, 6, 6))
    np.testing.assert_array_equal(*gradients(jaxcam.guided(f(act)), f(guided_relu)))


@pytest.mark.thorough
def test_batch_norm_over_a_named_axis():
    layer = nn.BatchNorm(use_running_average=False, axis_name="i")
    init = nn.BatchNorm(use_running_average=False).init
    variables = jax.jit(init)(jax.random.key(0), X.astype(np.float32))
    row = lambda x: layer.apply(variables, x.astype(np.float32), mutable=["batch_stats"])[0].astype(x.dtype)
    with pytest.warns(UserWarning, match="no ReLU"):
        found, expected = gradients(jax.vmap(jaxcam.guided(row), axis_name="i"), jax.vmap(row, axis_name="i"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

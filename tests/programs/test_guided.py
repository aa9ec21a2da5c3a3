"""The guided rule, against networks written by hand with it."""

import inspect
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from support import normal

import jaxcam
from jaxcam import models

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


def by_hand(activation, *, deconvnet=False):
    """The activation with the guided rule written out."""

    @jax.custom_vjp
    def function(x):
        return activation(x)

    def backward(x, g):
        slope = jax.grad(lambda x: activation(x).sum())(x)
        if deconvnet:
            return (jnp.where(g > 0, g, 0),)
        return (jnp.where((g > 0) & (x > 0), slope * g, 0).astype(x.dtype),)

    function.defvjp(lambda x: (activation(x), x), backward)
    return function


def network(activation):
    """Two hidden layers with a skip connection, and max-pooling."""
    w1, w2, w3 = normal(0, 6, 8), normal(1, 8, 8), normal(2, 4, 3)

    def f(x):
        h = activation(x @ w1)
        h = activation(h + activation(h @ w2))
        return h.reshape(-1, 4, 2).max(-1) @ w3

    return f


@pytest.mark.parametrize("deconvnet", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_way_of_writing_a_rectifier(name, deconvnet):
    x = 2 * normal(5, 4, 6)
    ours = jaxcam.guided(network(ACTIVATIONS[name]), deconvnet=deconvnet)
    theirs = network(by_hand(ACTIVATIONS[name], deconvnet=deconvnet))
    plain = network(ACTIVATIONS[name])
    np.testing.assert_array_equal(ours(x), plain(x))
    found = jax.grad(lambda x: ours(x)[:, 1].sum())(x)
    np.testing.assert_allclose(found, jax.grad(lambda x: theirs(x)[:, 1].sum())(x), rtol=1e-12, atol=1e-14)
    ordinary = jax.grad(lambda x: plain(x)[:, 1].sum())(x)
    assert np.abs(found - ordinary).max() > 0.1


def test_by_numbers():
    """relu(3) - relu(2) + relu(-1): guided drops the negative gradient, deconvnet forgets the sign of x as well."""

    def f(x):
        h = jax.nn.relu(x)
        return h[0] - h[1] + h[2]

    x = jnp.array([3.0, 2.0, -1.0])
    np.testing.assert_array_equal(jax.grad(f)(x), [1, -1, 0])
    np.testing.assert_array_equal(jax.grad(jaxcam.guided(f))(x), [1, 0, 0])
    np.testing.assert_array_equal(jax.grad(jaxcam.guided(f, deconvnet=True))(x), [1, 0, 1])


def test_nothing_passes_at_zero():
    np.testing.assert_array_equal(jax.grad(lambda x: jaxcam.guided(jax.nn.silu)(x).sum())(jnp.zeros(3)), 0)


def relu(x):
    return jnp.maximum(x, 0)


guided_relu = by_hand(relu)

# Programs that hold their ReLUs in other programs, as functions of the activation.
NESTED = {
    "jit": lambda act: jax.jit(lambda x: jax.jit(lambda x: act(2 * x - 1))(x) @ normal(3, 6, 6)),
    "remat": lambda act: jax.checkpoint(lambda x: act(x @ normal(3, 6, 6)) * 2),
    "scan": lambda act: lambda x: jax.lax.scan(lambda c, w: (act(c @ w), c.sum()), x, normal(3, 4, 6, 6))[0],
    "reverse scan with outputs": lambda act: (
        lambda x: jax.lax.scan(lambda c, w: (act(c @ w), act(c)), x, normal(3, 4, 6, 6), reverse=True)[1].sum(0)
    ),
    "cond": lambda act: (
        lambda x: jax.lax.cond(x.sum() > 0, lambda x: act(x) * 3, lambda x: act(-x @ normal(3, 6, 6)), x)
    ),
    "switch": lambda act: lambda x: jax.lax.switch(2, [jnp.sin, jnp.cos, lambda x: act(x) - act(-x)], x),
    "fori": lambda act: lambda x: jax.lax.fori_loop(0, 3, lambda i, x: act(x @ normal(3, 6, 6)), x),
    "map": lambda act: lambda x: jax.lax.map(lambda row: act(row) - act(row[::-1]), x),
    "platform": lambda act: lambda x: jax.lax.platform_dependent(x, cpu=lambda x: act(x - 1), default=lambda x: act(x)),
    "vmap": lambda act: jax.vmap(lambda row: act(row - row.mean()) @ normal(3, 6, 6)),
    "tag and scope": lambda act: lambda x: checkpoint_name(jax.named_scope("a")(lambda x: act(x) - act(-x))(x), "b"),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("activation", [relu, jax.nn.silu])
def test_inside_other_programs(name, activation):
    x, out = normal(4, 5, 6), normal(6, 5, 6)
    ours = jaxcam.guided(NESTED[name](activation))
    theirs = NESTED[name](by_hand(activation))
    np.testing.assert_array_equal(ours(x), NESTED[name](activation)(x))
    found = jax.grad(lambda x: (ours(x) * out).sum())(x)
    expected = jax.grad(lambda x: (theirs(x) * out).sum())(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    ordinary = jax.grad(lambda x: (NESTED[name](activation)(x) * out).sum())(x)
    assert np.abs(found - ordinary).max() > 1e-3


@pytest.mark.parametrize("transform", [jax.custom_jvp, jax.custom_vjp])
def test_functions_with_rules_of_their_own(transform):
    """Kept where they hold no rectifier; where they do, their rule gives way to the guided one."""

    def made(body, act=relu):
        function = transform(lambda x: body(act, x))
        if transform is jax.custom_jvp:
            function.defjvp(lambda p, t: (body(act, p[0]), 7 * t[0]))
        else:
            function.defvjp(lambda x: (body(act, x), None), lambda _, g: (7 * g,))
        return function

    x = normal(4, 5)
    without = made(lambda act, x: jnp.sin(x))
    found = jax.grad(lambda x: jaxcam.guided(lambda x: relu(without(x)))(x).sum())(x)
    np.testing.assert_allclose(found, 7 * (np.sin(x) > 0), rtol=1e-12)
    inside = made(lambda act, x: jnp.sin(act(x)) - jnp.cos(act(-x)))
    found = jax.grad(lambda x: jaxcam.guided(inside)(x).sum())(x)
    expected = jax.grad(lambda x: (jnp.sin(guided_relu(x)) - jnp.cos(guided_relu(-x))).sum())(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_composes_with_jit_vmap_and_grad_in_any_order():
    f, x = network(relu), normal(5, 4, 6)
    expected = jax.grad(lambda x: network(guided_relu)(x)[:, 1].sum())(x)
    one = lambda x: f(x[None])[0, 1]
    guided = jaxcam.guided(one)
    for found in (
        jax.vmap(jax.grad(guided))(x),
        jax.jit(jax.vmap(jax.grad(guided)))(x),
        jax.vmap(jax.grad(jax.jit(guided)))(x),
        jax.grad(lambda x: jaxcam.guided(jax.vmap(one))(x).sum())(x),
        jax.grad(lambda x: jax.vmap(guided)(x).sum())(x),
        jax.vmap(jax.grad(jax.checkpoint(guided)))(x),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_parameters_arguments_and_what_is_closed_over():
    x, w = normal(0, 5, 6), {"a": normal(1, 6, 4), "b": normal(2, 4, 3)}

    def f(act, w, x, *, scale, power):
        return (act(x @ w["a"]) @ w["b"] * scale) ** power

    loss = lambda w, act=relu: jaxcam.guided(lambda w, x, **k: f(act, w, x, **k))(w, x, scale=2.0, power=1).sum()
    expected = jax.grad(lambda w: f(guided_relu, w, x, scale=2.0, power=1).sum())(w)
    closed = jax.grad(lambda w: jaxcam.guided(lambda x: f(relu, w, x, scale=2.0, power=1))(x).sum())(w)
    batched = jax.vmap(lambda s: jaxcam.guided(lambda x: f(relu, w, x, scale=s, power=1))(x).sum())(jnp.arange(3.0))
    for name in w:
        np.testing.assert_allclose(jax.grad(loss)(w)[name], expected[name], rtol=1e-12)
        np.testing.assert_allclose(closed[name], expected[name], rtol=1e-12)
    np.testing.assert_allclose(
        batched, np.arange(3.0) * f(relu, w, x, scale=1.0, power=1).sum(), rtol=1e-12, atol=1e-12
    )


class Residual(nn.Module):
    activation: object

    @nn.compact
    def __call__(self, x):
        y = self.activation(nn.BatchNorm(use_running_average=True, use_bias=False)(nn.Conv(4, (3, 3))(x)))
        x = self.activation(nn.Conv(4, (1, 1))(x) + nn.Conv(4, (3, 3), feature_group_count=2)(y))
        x = nn.max_pool(nn.Dropout(0.5, deterministic=True)(x), (2, 2), (2, 2))
        return nn.Dense(3)(nn.relu(x).reshape(x.shape[0], -1)) if self.activation is nn.relu else self.last(x)

    def last(self, x):
        return nn.Dense(3)(self.activation(x).reshape(x.shape[0], -1))


def test_a_convolutional_network_exactly():
    images = normal(0, 2, 6, 6, 3, dtype=np.float32)
    ours, theirs = Residual(nn.relu), Residual(by_hand(jax.nn.relu))
    variables = ours.init(jax.random.key(0), images)
    gradient = lambda f: jax.jit(jax.grad(lambda x: f(x)[:, 1].sum()))(images)
    found = gradient(lambda x: jaxcam.guided(ours.apply)(variables, x))
    np.testing.assert_array_equal(found, gradient(lambda x: theirs.apply(variables, x)))
    assert np.abs(found - gradient(lambda x: ours.apply(variables, x))).max() > 1e-3


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(), nn.GroupNorm(2), nn.BatchNorm(use_running_average=False), nn.RMSNorm(), nn.softmax, nn.softplus],
    ids=["LayerNorm", "GroupNorm", "BatchNorm", "RMSNorm", "softmax", "softplus"],
)
@pytest.mark.filterwarnings("ignore:guided")
def test_normalisation_and_softmax_are_no_rectifiers(layer):
    x, out = normal(0, 3, 4, 4, dtype=np.float32), normal(1, 3, 4, 4, dtype=np.float32)
    if isinstance(layer, nn.Module):
        variables = layer.init(jax.random.key(0), x)
        f = lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0]
    else:
        f = layer
    expected = jax.grad(lambda x: (f(x) * out).sum())(x)
    found = jax.grad(lambda x: (jaxcam.guided(f)(x) * out).sum())(x)
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
    x = normal(0, 7)
    with pytest.warns(UserWarning, match="no ReLU or relative of it was found"):
        found = jax.grad(lambda x: jaxcam.guided(function)(x).sum())(x)
    np.testing.assert_array_equal(found, jax.grad(lambda x: function(x).sum())(x))


def test_no_warning_where_there_is_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxcam.guided(relu)(normal(0, 3))


def test_counts_in_real_networks():
    """A ReLU less would be seen here: one, and two for each of three blocks; eight."""
    from jaxcam.programs.guided_rule import _rewritten

    images = jnp.zeros((1, 64, 64, 3), jnp.float32)
    count = lambda model: _rewritten(jax.make_jaxpr(lambda m, x: m(x))(model, images).jaxpr, False)[1]
    assert count(models.mini_resnet()) == 1 + 3 * 2
    assert count(models.mini_vgg()) == 8


def test_nnx_remat():
    class Block(nnx.Module):
        def __init__(self, act, rngs):
            self.linear, self.act = nnx.Linear(4, 4, param_dtype=np.float64, rngs=rngs), act

        def __call__(self, x):
            return self.act(self.linear(x))

    class Net(nnx.Module):
        def __init__(self, act, rngs, remat=True):
            self.blocks, self.remat = nnx.List([Block(act, rngs) for _ in range(2)]), remat

        def __call__(self, x):
            for block in self.blocks:
                x = x + (nnx.remat(Block.__call__)(block, x) if self.remat else block(x))
            return x[:, 0]

    x = normal(0, 3, 4)
    found = jax.grad(lambda x: jaxcam.guided(lambda m, x: m(x))(Net(nnx.relu, nnx.Rngs(0)), x).sum())(x)
    expected = jax.grad(lambda x: Net(guided_relu, nnx.Rngs(0), remat=False)(x).sum())(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_half_precision_and_mixed():
    x = normal(0, 5, 6, dtype=np.float32)
    f = lambda act: lambda x: act(x.astype(jnp.bfloat16) @ normal(1, 6, 6).astype(jnp.bfloat16)).astype(np.float32)
    found = jax.grad(lambda x: (jaxcam.guided(f(jax.nn.relu))(x) * normal(2, 5, 6, dtype=np.float32)).sum())(x)
    expected = jax.grad(lambda x: (f(by_hand(jax.nn.relu))(x) * normal(2, 5, 6, dtype=np.float32)).sum())(x)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("unchecked")
def test_not_a_function():
    with pytest.raises(TypeError, match="f must be a function, not int"):
        inspect.unwrap(jaxcam.guided)(3)


@pytest.mark.slow
def test_guided_backprop_of_a_network_with_an_image_and_a_traced_class():
    model, image = models.mini_vgg(), normal(0, 64, 64, 3, dtype=np.float32)
    f = jax.jit(lambda model, x, c: jaxcam.guided_backprop(model, x, c))
    logit = lambda x: jaxcam.guided(lambda x: model(x[None])[0])(x)[3]
    expected = jax.grad(logit)(image)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(f(model, image, jnp.int32(3)), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(ValueError, match="class_idx=10 is out of range"):
        jaxcam.guided_backprop(model, image, 10)

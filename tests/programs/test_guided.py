"""The guided rule, against networks written by hand with it."""

import inspect

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

X, OUT = normal(4, 5, 6), normal(6, 5, 6)
OPTIONS = {"xla_backend_optimization_level": 1}


def runs(*functions, x=X, out=OUT):
    """What each function returns, and the gradient of that weighted by `out`: all in one compiled program."""

    def run(f, x):
        y, pull = jax.vjp(f, x)
        return y, pull(out)[0]

    # Wholly without optimisation (conftest.py) XLA's gradient of erf, fused with what is around it, is NaN in places.
    compiled = jax.jit(lambda x: [run(f, x) for f in functions], compiler_options=OPTIONS)
    return [tuple(map(np.asarray, pair)) for pair in compiled(x)]


def gradients(*functions, x=X, out=OUT):
    return [gradient for _, gradient in runs(*functions, x=x, out=out)]


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


def test_by_numbers():
    """relu(3) - relu(2) + relu(-1): guided drops the negative gradient, deconvnet forgets the sign of x as well."""

    def f(x):
        h = jax.nn.relu(x)
        return h[0] - h[1] + h[2]

    x = np.array([3.0, 2.0, -1.0])
    np.testing.assert_array_equal(jax.grad(f)(x), [1, -1, 0])
    np.testing.assert_array_equal(jax.grad(jaxcam.guided(f))(x), [1, 0, 0])
    np.testing.assert_array_equal(jax.grad(jaxcam.guided(f, deconvnet=True))(x), [1, 0, 1])


def test_nothing_passes_at_zero():
    np.testing.assert_array_equal(*gradients(jaxcam.guided(jax.nn.silu), x=0 * X), 0)


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
@pytest.mark.sample(6)
def test_inside_other_programs(name, activation):
    make = NESTED[name]
    (value, found), (_, expected), (plain, ordinary) = runs(
        jaxcam.guided(make(activation)), make(by_hand(activation)), make(activation)
    )
    np.testing.assert_array_equal(value, plain)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
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

    without = made(lambda act, x: jnp.sin(x))
    inside = made(lambda act, x: jnp.sin(act(x)) - jnp.cos(act(-x)))
    kept, found, expected = gradients(
        jaxcam.guided(lambda x: relu(without(x))),
        jaxcam.guided(inside),
        lambda x: jnp.sin(guided_relu(x)) - jnp.cos(guided_relu(-x)),
    )
    np.testing.assert_allclose(kept, 7 * np.where((np.sin(X) > 0) & (OUT > 0), OUT, 0), rtol=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_composes_with_jit_vmap_and_grad_in_any_order():
    f = network(relu)
    one = lambda x: f(x[None])[0, 1]
    guided = jaxcam.guided(one)

    @jax.jit
    def run(x):
        return jax.grad(lambda x: network(guided_relu)(x)[:, 1].sum())(x), [
            jax.vmap(jax.grad(guided))(x),
            jax.jit(jax.vmap(jax.grad(guided)))(x),
            jax.vmap(jax.grad(jax.jit(guided)))(x),
            jax.grad(lambda x: jaxcam.guided(jax.vmap(one))(x).sum())(x),
            jax.grad(lambda x: jax.vmap(guided)(x).sum())(x),
            jax.vmap(jax.grad(jax.checkpoint(guided)))(x),
        ]

    expected, ways = run(X)
    for found in ways:
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_parameters_arguments_and_what_is_closed_over():
    w = {"a": normal(1, 6, 4), "b": normal(2, 4, 3)}

    def f(act, w, x, *, scale, power):
        return (act(x @ w["a"]) @ w["b"] * scale) ** power

    as_argument = lambda w: jaxcam.guided(lambda w, x, **k: f(relu, w, x, **k))(w, X, scale=2.0, power=1).sum()
    closed_over = lambda w: jaxcam.guided(lambda x: f(relu, w, x, scale=2.0, power=1))(X).sum()
    expected = lambda w: f(guided_relu, w, X, scale=2.0, power=1).sum()
    scaled = lambda s: jaxcam.guided(lambda x: f(relu, w, x, scale=s, power=1))(X).sum()

    @jax.jit
    def run(w, scales):
        return [jax.grad(loss)(w) for loss in (as_argument, closed_over, expected)], jax.vmap(scaled)(scales)

    (*found, expected), batched = run(w, np.arange(3.0))
    for ours in found:
        for name in w:
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-12)
    by_hand = (np.maximum(np.asarray(X) @ w["a"], 0) @ np.asarray(w["b"])).sum()
    np.testing.assert_allclose(batched, np.arange(3.0) * by_hand, rtol=1e-12, atol=1e-12)


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
    variables = jax.jit(ours.init)(jax.random.key(0), images)
    found, expected, ordinary = gradients(
        lambda x: jaxcam.guided(ours.apply)(variables, x)[:, 1],
        lambda x: theirs.apply(variables, x)[:, 1],
        lambda x: ours.apply(variables, x)[:, 1],
        x=images,
        out=np.ones(2, np.float32),
    )
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - ordinary).max() > 1e-3


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

    found, expected = gradients(
        lambda x: jaxcam.guided(lambda m, x: m(x))(Net(nnx.relu, nnx.Rngs(0)), x),
        Net(guided_relu, nnx.Rngs(0), remat=False),
        x=normal(0, 3, 4),
        out=np.ones(3),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_half_precision_and_mixed():
    f = lambda act: lambda x: act(x.astype(jnp.bfloat16) @ normal(1, 6, 6).astype(jnp.bfloat16)).astype(np.float32)
    found, expected = gradients(
        jaxcam.guided(f(jax.nn.relu)), f(by_hand(jax.nn.relu)), x=X.astype(np.float32), out=OUT.astype(np.float32)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("unchecked")
def test_not_a_function():
    with pytest.raises(TypeError, match="f must be a function, not int"):
        inspect.unwrap(jaxcam.guided)(3)


@pytest.mark.thorough
def test_guided_backprop_of_a_network_with_an_image_and_a_traced_class():
    model, image = models.mini_vgg(), normal(0, 64, 64, 3, dtype=np.float32)
    f = jax.jit(lambda model, x, c: jaxcam.guided_backprop(model, x, c))
    logit = lambda x: jaxcam.guided(lambda x: model(x[None])[0])(x)[3]
    expected = jax.grad(logit)(image)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(f(model, image, jnp.int32(3)), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(ValueError, match="class_idx=10 is out of range"):
        jaxcam.guided_backprop(model, image, 10)

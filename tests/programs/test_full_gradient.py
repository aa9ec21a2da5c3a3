"""The full gradient: its sum is the value, for networks of every kind, and each bias is the one written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import network

from jaxcam import models
from jaxcam.programs import full_gradient

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 5, 3))
KERNEL, BIAS = RANDOM.normal(size=(3, 3, 3, 4)) / 4, RANDOM.normal(size=(1, 1, 4))
SECOND, TO = RANDOM.normal(size=(3, 3, 4, 4)) / 4, RANDOM.normal(size=4)
MEAN, SCALE = RANDOM.normal(size=(1, 1, 4)), RANDOM.uniform(0.5, 2, size=(1, 1, 4))
WEIGHTS = RANDOM.normal(size=(4, 4))


def conv(x, kernel=KERNEL):
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", None, None, ("NHWC", "HWIO", "NHWC"))[0]


def end(a):
    return jax.nn.relu(a).mean((0, 1)) @ TO + 0.3


def decomposed(f, x=X):
    """The parts, compiled, after the sum was checked."""
    found = jax.jit(lambda x: full_gradient(f, x))(x)
    total = np.sum(found.input) + sum(np.sum(bias) for bias in found.biases)
    np.testing.assert_allclose(total, found.value, rtol=1e-10, atol=1e-12)
    value, gradient = jax.jit(jax.value_and_grad(f))(x)
    np.testing.assert_allclose(found.value, value, rtol=1e-12)
    np.testing.assert_allclose(found.input, np.asarray(x) * gradient, rtol=1e-10, atol=1e-13)
    return found


def test_biases_by_hand():
    """A convolution's with the batch norm behind it, that of a clip where it is saturated, the dense layer's."""

    def f(x, added=(0.0, 0.0)):
        y = (conv(x) + BIAS - MEAN) * SCALE + 0.25 + added[0]
        y = jnp.clip(y, 0, 0.7)
        return end(conv(y, SECOND) + added[1])

    found = decomposed(f)
    normed, clipped, dense = found.biases
    nothing = [np.zeros((6, 5, 4)), np.zeros((6, 5, 4))]
    by_normed, _ = jax.jit(jax.grad(lambda added: f(X, added)))(nothing)
    np.testing.assert_allclose(normed, by_normed * ((BIAS - MEAN) * SCALE + 0.25), rtol=1e-10, atol=1e-13)
    y = np.asarray((conv(X) + BIAS - MEAN) * SCALE + 0.25)
    assert 3 < np.count_nonzero(y > 0.7) < y.size
    by_clipped = jax.jit(jax.grad(lambda y: end(conv(y, SECOND))))(np.clip(y, 0, 0.7))
    np.testing.assert_allclose(clipped, np.where(y > 0.7, 0.7, 0) * by_clipped, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(dense, 0.3, rtol=1e-12)


def test_a_bias_ends_where_its_value_is_used_twice():
    found = decomposed(lambda x: (y := conv(x) + BIAS).max() + (y * 2 - 0.1).sum())
    assert len(found.biases) == 2
    np.testing.assert_allclose(found.biases[1], -0.1, rtol=1e-12)


def test_without_biases_it_is_gradient_times_input():
    found = decomposed(lambda x: jax.nn.relu(jax.nn.leaky_relu(conv(x)).max((0, 1))) @ TO)
    assert found.biases == ()
    np.testing.assert_allclose(found.input.sum(), found.value, rtol=1e-12)


def test_a_smooth_function_adds_the_intercept_of_its_tangent():
    found = decomposed(lambda x: jnp.tanh(x).sum())
    (intercept,) = found.biases
    np.testing.assert_allclose(intercept, np.tanh(X) - X / np.cosh(X) ** 2, rtol=1e-9, atol=1e-12)


def branches(x):
    return lax.cond(x.sum() > 100, lambda a: a * 2 + 1, lambda a: jax.nn.relu(a - 0.2), x)


def rounds(x):
    def step(a, bias):
        return jax.nn.relu(conv(a, SECOND) + bias[None, None]), a.sum()

    a, sums = lax.scan(step, conv(x) + BIAS, jnp.asarray(WEIGHTS))
    return end(a) + sums.sum()


@jax.custom_vjp
def own_rule(x):
    return jax.nn.relu(x) + 0.5


own_rule.defvjp(lambda x: (own_rule(x), x > 0), lambda positive, g: (jnp.where(positive, g, 0),))


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))


def padded_pool(x):
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return lax.reduce_window(padded, -jnp.inf, lax.max, (3, 3, 1), (2, 2, 1), "VALID")


def attention(x):
    tokens = jnp.concatenate([0.3 * jnp.ones((1, 4)), (conv(x) + BIAS).reshape(-1, 4)])
    weights = jax.nn.softmax(tokens @ WEIGHTS @ tokens.T)
    return jax.nn.gelu(weights @ tokens)[0] @ TO


MODELS = {
    "residual": lambda x: end(conv(jax.nn.relu(y := conv(x) + BIAS), SECOND) + y * 2 - 0.1),
    "input normalised": lambda x: end(conv((x - 0.4) / 0.2) + BIAS),
    "branches": lambda x: end(branches(conv(x) + BIAS)),
    "rounds": rounds,
    "remat": jax.checkpoint(lambda x: end(jax.jit(conv)(x) + BIAS)),
    "a rule of its own": lambda x: end(own_rule(conv(x) - 0.1)),
    "straight through": lambda x: end(straight_through(conv(x) * 3) + BIAS),
    "nothing goes back": lambda x: end(conv(x) + lax.stop_gradient(conv(x, KERNEL[::-1]))),
    "steps": lambda x: end(conv(x) * jnp.floor(x[..., :1]) + jnp.sign(x[..., :1])),
    "chosen": lambda x: end(jnp.where(x[..., :1] > 0, conv(x), 0.4)),
    "padded": lambda x: end(padded_pool(conv(x) + BIAS)),
    "several maxima": lambda x: end(jnp.sort(conv(x), 0)[-2:] + BIAS),
    "attention": attention,
    "layer norm": lambda x: end((y := conv(x) + BIAS) - y.mean(-1, keepdims=True) / jnp.sqrt(y.var() + 1e-5)),
    "products": lambda x: (conv(x) * jax.nn.sigmoid(conv(x, KERNEL[::-1]) + BIAS)).mean(),
    "a power": lambda x: (jnp.abs(conv(x)) ** 3).sum() ** 0.5,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.sample(4)
def test_the_sum_is_the_value(name):
    found = decomposed(MODELS[name])
    assert sum(np.abs(bias).sum() for bias in found.biases) > 0.01


def test_a_constant_is_all_bias():
    for f in (lambda x: jnp.float64(2.5), lambda x: jnp.round(x).sum() * 0 + 2.5):
        found = jax.jit(lambda x, f=f: full_gradient(f, x))(X)
        np.testing.assert_array_equal(found.input, 0)
        np.testing.assert_allclose([float(found.value), float(sum(b.sum() for b in found.biases))], 2.5)


def test_it_composes():
    """vmap is a loop, and the derivative of a part by a parameter is finite differences."""

    def part(x, bias):
        found = full_gradient(lambda x: end(jnp.tanh(conv(x) + bias)), x)
        return (found.biases[0] ** 2).sum()

    batch = np.stack([X, -X])
    found = jax.jit(jax.vmap(part, (0, None)))(batch, BIAS)
    compiled = jax.jit(jax.value_and_grad(part, 1))
    values, gradient = zip(*(compiled(x, BIAS) for x in batch), strict=True)
    np.testing.assert_allclose(found, values, rtol=1e-10)
    step = 1e-6 * RANDOM.normal(size=BIAS.shape)
    slope = (compiled(X, BIAS + step)[0] - compiled(X, BIAS - step)[0]) / 2
    np.testing.assert_allclose((gradient[0] * step).sum(), slope, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_networks_add_up(name):
    model = network(getattr(models, name), dtype=np.float64)
    image = np.random.default_rng(1).normal(size=(1, 32, 32, 3))
    # The network as an argument: 130 million numbers would be constants of the program, which XLA folds.
    found = jax.jit(lambda model, x: full_gradient(lambda x: model(x)[0, 5], x))(model, image)
    total = np.sum(found.input) + sum(np.sum(bias) for bias in found.biases)
    size = np.abs(found.input).sum() + sum(np.abs(bias).sum() for bias in found.biases)
    np.testing.assert_allclose(total, found.value, atol=1e-12 * size)


@pytest.mark.parametrize(
    ("f", "x", "error", "message"),
    [
        (lambda x: x, X, ValueError, r"f must return a scalar, but returned \(6, 5, 3\)"),
        (lambda x: (x.sum(), x.sum()), X, ValueError, "f must return a scalar, but returned tuple"),
        (lambda x: jnp.complex128(x.sum()), X, TypeError, r"f\(x\) must be floating point"),
    ],
)
def test_what_is_wrong_is_said(f, x, error, message):
    with pytest.raises(error, match=message):
        full_gradient(f, x)

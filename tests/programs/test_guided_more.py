"""Cases that the committed version of guided got wrong."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal
from test_guided import by_hand, relu

import jaxcam

guided_relu = by_hand(relu)
X, OUT = normal(0, 5, 6), normal(1, 5, 6)


def gradient(f):
    return jax.grad(lambda x: (f(x) * OUT).sum())(X)


@pytest.mark.parametrize("call", [jax.jit, jax.checkpoint])
@pytest.mark.parametrize("deconvnet", [False, True])
@pytest.mark.parametrize("body", [lambda x, act: x + act(x), lambda x, act: 2 * act(x)], ids=["x + relu", "2 relu"])
def test_a_call_that_is_only_a_skip_connection_is_not_a_rectifier(call, body, deconvnet):
    found = gradient(jaxcam.guided(call(lambda x: body(x, relu)), deconvnet=deconvnet))
    expected = gradient(lambda x: body(x, by_hand(relu, deconvnet=deconvnet)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:guided")
@pytest.mark.parametrize(
    "layer", [jax.nn.standardize, jax.nn.hard_sigmoid, lambda x: x * jax.nn.hard_sigmoid(x.mean() + jnp.zeros_like(x))]
)
def test_variances_and_gates_keep_their_gradient(layer):
    np.testing.assert_array_equal(gradient(jaxcam.guided(layer)), gradient(layer))


def test_a_rectifier_of_a_difference_with_a_square():
    f = lambda act: lambda x: act(x @ normal(2, 6, 6) - jnp.square(x))
    np.testing.assert_array_equal(gradient(jaxcam.guided(f(relu))), gradient(f(guided_relu)))


@pytest.mark.parametrize("slope", [0.3, 0.6])
def test_steep_leaks(slope):
    act = lambda x: jax.nn.leaky_relu(x, slope)
    found = gradient(jaxcam.guided(lambda x: act(x @ normal(2, 6, 6))))
    np.testing.assert_array_equal(found, gradient(lambda x: by_hand(relu)(x @ normal(2, 6, 6))))


def test_batch_norm_over_a_named_axis():
    layer = nn.BatchNorm(use_running_average=False, axis_name="i")
    variables = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), X.astype(np.float32))
    row = lambda x: layer.apply(variables, x.astype(np.float32), mutable=["batch_stats"])[0].astype(x.dtype)
    with pytest.warns(UserWarning, match="no ReLU"):
        found = gradient(jax.vmap(jaxcam.guided(row), axis_name="i"))
    np.testing.assert_allclose(found, gradient(jax.vmap(row, axis_name="i")), rtol=1e-5, atol=1e-5)

"""Derivatives along a curve, equation by equation, against those of the whole function."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcam.derivatives.directions import along, forward
from jaxcam.derivatives.taylor import followed
from jaxcam.programs.program import straight_line

RANDOM = np.random.default_rng(0)
X, DIRECTION, W, V = (RANDOM.normal(size=shape) for shape in ((4, 3), (4, 3), (3, 5), (5, 2)))


def network(x):
    """Each kind of equation: linear ones, products of what moves, masks, indices, and what is stopped."""
    y = jnp.concatenate([jnp.tanh(x @ W), W], 0)[np.array([5, 0, 1, 3])]
    y = y.at[1].set(2.0) - jnp.where(y > 0.1, y, 0.5) / (1 + lax.stop_gradient(y) ** 2)
    y = y / (2 + y**2).sum(-1, keepdims=True) * y[:1]
    return (jax.nn.softmax(y.T, -1).T @ V).sum() ** 2


def curves(f, x, direction, order):
    program = straight_line(jax.make_jaxpr(f)(x))
    curve = (x, direction, *[None] * (order - 1))
    return followed(program.equations, program.constants, {program.arguments[0]: curve})[program.outputs[0]]


def test_every_order_is_that_of_the_whole_function():
    value, *found = jax.jit(lambda x: curves(network, x, DIRECTION, 4))(X)
    np.testing.assert_allclose(value, jax.jit(network)(X), rtol=1e-13)
    expected = jax.jit(lambda x: along(network, (x,), (jnp.asarray(DIRECTION),), order=4, slope=forward))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_a_dense_layer_is_applied_once_to_each_derivative():
    f = lambda x: jnp.tanh(jnp.tanh(x @ W) @ V).sum()
    program = jax.make_jaxpr(lambda x: curves(f, x, DIRECTION, 3))(X)
    # Of x only the first derivative is not zero, of tanh(x W) all three are; and each layer's value.
    assert sum(eqn.primitive is lax.dot_general_p for eqn in straight_line(program).equations) == (1 + 1) + (1 + 3)

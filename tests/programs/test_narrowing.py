"""Programs that compute no more than is needed: the same values, from smaller ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcam.programs.narrowing import narrowed
from jaxcam.programs.program import Stage, shape, straight_line

RANDOM = np.random.default_rng(0)
X, W, V = (RANDOM.normal(size=shape) for shape in ((5, 6), (6, 4), (6, 8)))


@jax.custom_jvp
def doubled(x):
    return x**2


doubled.defjvp(lambda primals, tangents: (doubled(primals[0]), 3 * primals[0] * tangents[0]))  # as it is not


@jax.custom_jvp
def centred(x):
    return x - x.mean()


centred.defjvp(lambda primals, tangents: (centred(primals[0]), tangents[0] - tangents[0].mean()))

PROGRAMS = {
    "a row": (lambda x: jnp.tanh(x @ W)[1], 4),
    "a column": (lambda x: (x @ W + 1)[:, 2:3], 5),
    "every other": (lambda x: jnp.sin(x)[1:4:2] * 2, 18),
    "the end of parts": (lambda x: jnp.concatenate([x, 2 * x, jnp.ones((2, 6))])[9:11].T.sum(0), 6),
    "half of a split": (lambda x: jnp.split(jnp.tanh(x @ V), 2, 1)[1][0], 4),
    "both of a split": (lambda x: (lambda a, b: a[:2] @ b[1:4].T)(*jnp.split(jnp.tanh(x @ V), 2, 1)), 32),
    "heads": (lambda x: jnp.exp(x @ V).reshape(5, 2, 4).transpose(1, 0, 2)[1, 3], 8),
    "merged axes": (lambda x: jnp.exp(x).reshape(5, 2, 3).reshape(10, 3)[4:6], 30),
    "another order of axes": (lambda x: jnp.exp(jnp.reshape(x, (6, 5), order="F"))[:, 1], 6),
    "an empty part": (lambda x: jnp.split(jnp.exp(x), [0])[0].sum(0) + jnp.sin(x)[1], 30),
    "nothing but empty parts": (lambda x: jnp.concatenate([jnp.exp(x[:0]), x[:0]]).sum() + jnp.sin(x)[1], 0),
    "a sum": (lambda x: jnp.exp(x).sum(1)[2], 6),
    "broadcast": (lambda x: (jnp.exp(x).sum(1, keepdims=True) * jnp.ones((5, 7)))[2, 3], 6),
    "attention": (lambda x: (jax.nn.softmax(jnp.exp(x) @ (x @ W @ W.T).T) @ x)[0], 6),
    "ReLU": (lambda x: jax.nn.relu(x @ W)[3], 4),
    "a rule of one's own": (lambda x: doubled(x @ W)[3], 4),
    "a rule that looks at all": (lambda x: centred(jnp.exp(x))[3], 30),
    "a loop": (lambda x: lax.fori_loop(0, 3, lambda _, y: jnp.exp(-y), x)[3], 30),
    "two uses": (lambda x: (lambda y: y[0] @ y[3])(jnp.exp(x)), 24),
}
"""Functions, and how many numbers are left of what they make first, an exponential or a product."""
FIRST = ("exp", "dot_general", "sin", "mul", "custom_jvp_call", "while", "scan")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.sample(3)
def test_the_same_values_and_derivatives_from_fewer_numbers(name):
    f, left = PROGRAMS[name]
    program = straight_line(jax.make_jaxpr(f)(X))
    found = narrowed(program)
    whole = Stage(found.arguments, found.outputs, found.equations)
    run = lambda x: whole(found.constants, x)[0][0]
    direction = np.cos(np.arange(30.0)).reshape(5, 6)
    second = lambda f, x: jax.jvp(lambda x: jax.jvp(f, (x,), (direction,))[1], (x,), (direction,))[1]
    (value, derivative), expected = (jax.jit(lambda x, f=f: (f(x), second(f, x)))(X) for f in (run, f))
    np.testing.assert_allclose(value, expected[0], rtol=1e-14)
    np.testing.assert_allclose(derivative, expected[1], rtol=1e-12, atol=1e-12)
    made = next(eqn for eqn in found.equations if eqn.primitive.name in FIRST)
    assert max(np.prod(shape(var)) for var in made.outvars) == left


def test_what_is_needed_whole_is_left_as_it_is():
    program = straight_line(jax.make_jaxpr(lambda x: jnp.tanh(x @ W).sum())(X))
    assert narrowed(program) is program

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.programs.number_types import number_types

X = jax.ShapeDtypeStruct((4,), np.float64)
single = lambda x: jnp.sin(x.astype(np.float32)).astype(np.float64)
half = lambda x: jnp.sin(x.astype(jnp.bfloat16)).astype(np.float64)


@jax.custom_jvp
def inside(x):
    return single(x)


inside.defjvp(lambda primals, tangents: (inside(*primals), tangents[0]))


@jax.custom_vjp
def backwards(x):
    return half(x)


backwards.defvjp(lambda x: (backwards(x), None), lambda _, y: (y,))


def carried(x):
    """The second round takes in float32 what the first has made of the input."""
    step = lambda carry, _: ((carry[1], single(carry[0]) + x), None)
    return jax.lax.scan(step, (jnp.zeros(4), jnp.zeros(4)), None, length=3)[0][0]


def beside(x):
    """What a loop computes in float32 from constants alone is as exact as a parameter."""
    step = lambda carry, _: ((carry[0] + x, single(carry[1])), None)
    return jax.lax.scan(step, (x, jnp.ones(4)), None, length=3)[0][0]


@pytest.mark.parametrize(
    ("f", "eps"),
    [
        (jnp.sin, 2.0**-52),
        (single, 2.0**-23),
        (lambda x: jax.lax.scan(lambda c, _: (single(c), None), x, None, length=2)[0], 2.0**-23),
        (lambda x: jax.lax.cond(x[0] > 0, half, single, x), 2.0**-7),
        (lambda x: jax.lax.fori_loop(0, x[0].astype(np.int32), lambda i, c: single(c), x), 2.0**-23),
        (lambda x: jax.checkpoint(jax.jit(single))(x), 2.0**-23),
        (inside, 2.0**-23),
        (backwards, 2.0**-7),
        (carried, 2.0**-23),
        (beside, 2.0**-52),
        (lambda x: (single(x), 2 * x)[1], 2.0**-52),
        (lambda x: jax.lax.reduce_precision(x, 8, 7), 2.0**-7),
        (lambda x: x * single(jnp.arange(4.0)), 2.0**-52),
        (lambda x: x.at[jnp.array([0])].add(x[1:2]), 2.0**-52),
    ],
)
def test_the_narrowest_type_on_the_way(f, eps):
    found = number_types(jax.make_jaxpr(f)(X))
    assert (found.eps, found.known) == (eps, True)


def test_what_cannot_be_read_is_not_known():
    callback = lambda x: jax.pure_callback(lambda v: v, X, x)
    algorithm = lambda x: jnp.dot(x, x, precision=jax.lax.DotAlgorithmPreset.F32_F32_F32)
    for f in (callback, lambda x: jax.lax.cond(x[0] > 0, callback, jnp.sin, x), algorithm):
        assert not number_types(jax.make_jaxpr(f)(X)).known

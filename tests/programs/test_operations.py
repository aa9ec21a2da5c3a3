"""Operations of programs, counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcam.programs import operations
from jaxcam.programs.operations import num_operations, seconds_of

X, W = np.ones((5, 6)), np.ones((6, 4))
PICTURE, KERNEL = np.ones((1, 8, 8, 3)), np.ones((3, 3, 3, 7))
CASES = {
    "product": (lambda x: x @ W, 2 * 5 * 6 * 4),
    "elementwise": (lambda x: jnp.exp(x) + 1, 30 + 30),
    "a call": (jax.jit(lambda x: jnp.exp(x)), 30),
    "a loop": (lambda x: lax.scan(lambda x, _: (jnp.sin(x), None), x, None, length=11)[0], 11 * 30),
    "branches": (lambda x: lax.cond(x[0, 0] > 0, lambda x: jnp.sin(jnp.cos(x)), jnp.sin, x), 30 + 30 + 4),
    "batched": (jax.vmap(lambda row: row @ W), 2 * 5 * 6 * 4),
}


@pytest.mark.parametrize("name", CASES)
def test_counts(name):
    f, expected = CASES[name]
    assert num_operations(jax.make_jaxpr(f)(X).jaxpr) == expected


def test_a_convolution():
    f = lambda x: lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert num_operations(jax.make_jaxpr(f)(PICTURE).jaxpr) == 2 * 64 * 7 * 27


def test_seconds_at_the_rate_of_a_product_of_a_thousand_rows(monkeypatch):
    ticks = iter([10.0, 12.0])
    monkeypatch.setattr(operations.time, "perf_counter", lambda: next(ticks))
    assert seconds_of(1024**3, np.float32) == 1.0  # half of the 2 * 1024^3 operations that took two seconds

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.checks import check_floating, check_integer, check_key, check_number, is_integer


def test_what_passes_comes_back_as_pythons_own():
    assert check_integer("n", np.int32(3), low=3, high=3) == 3
    assert type(check_integer("n", np.int32(3))) is int
    assert check_number("x", np.float32(0.5), above=0, below=1) == 0.5
    assert type(check_number("x", 1, low=1, high=1)) is float
    check_floating("a", np.zeros(2, np.float16))
    check_floating("a", jnp.zeros(2, jnp.bfloat16))
    check_key("key", jax.random.key(0))
    assert [is_integer(value) for value in (1, np.uint8(1), True, np.bool_(True), 1.0, "1")] == [
        True,
        True,
        *4 * [False],
    ]


@pytest.mark.parametrize(
    ("call", "kind", "facts"),
    [
        (lambda: check_integer("n", True), TypeError, r"n .* True"),
        (lambda: check_integer("n", 2.0), TypeError, r"n .* 2\.0"),
        (lambda: check_integer("n", 0, low=1), ValueError, r"n .* 1 .* 0"),
        (lambda: check_integer("n", 5, low=1, high=4), ValueError, r"n .* 1 .* 4 .* 5"),
        (lambda: check_integer("n", 0, low=1, hint=": do this"), ValueError, r"0: do this$"),
        (lambda: check_number("x", False), TypeError, r"x .* False"),
        (lambda: check_number("x", "1"), TypeError, r"x .* '1'"),
        (lambda: check_number("x", math.nan), ValueError, r"x .* finite .* nan"),
        (lambda: check_number("x", math.inf, low=0), ValueError, r"x .* 0 .* inf"),
        (lambda: check_number("x", 0, above=0, high=1), ValueError, r"x .* 0 .* 1 .* 0$"),
        (lambda: check_number("x", 1.0, low=0, below=1), ValueError, r"x .* 0 .* 1 .* 1\.0$"),
        (lambda: check_number("x", 2, low=0, high=1), ValueError, r"x .* 2$"),
        (lambda: check_number("x", -1, low=0), ValueError, r"x .* -1$"),
        (lambda: check_floating("a", [1.0]), TypeError, r"a .* list"),
        (lambda: check_floating("a", np.zeros(2, int)), TypeError, r"a .* int64"),
        (lambda: check_key("key", 0), TypeError, r"key .* 0"),
        (lambda: check_key("key", jnp.zeros(2, jnp.uint32)), TypeError, r"key "),
        (lambda: check_key("key", jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))), TypeError, r"key "),
    ],
)
def test_what_does_not_pass(call, kind, facts):
    with pytest.raises(kind, match=facts):
        call()

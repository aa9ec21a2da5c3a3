"""What a results file knows a user's own method by: everything that changes what it computes, and no address."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.methods.method import bind
from jaxcam.programs.hashes import code_hash, program_hash


def power(p):
    def method(head, a, c, *, p=p):
        return a**p

    return method


def times(w):
    return lambda head, a, c: w * a


class Own:
    def __init__(self, p):
        self.p = p

    def __call__(self, head, a, c):
        return a**self.p

    def method(self, head, a, c):
        return a**self.p


LONG = np.arange(5000.0)
PAIRS = {
    "nested": (lambda h, a, c: (lambda z: jnp.sin(z))(a), lambda h, a, c: (lambda z: jnp.exp(z))(a)),
    "keyword default": (power(1.0), power(6.0)),
    "long array": (times(LONG), times(np.where(LONG == 2500, 0, LONG))),
    "captured function": (times(lambda a: a), times(lambda a: a**6)),
    "object": (Own(1.0), Own(6.0)),
    "bound method": (Own(1.0).method, Own(6.0).method),
    "jitted": (jax.jit(lambda h, a, c: a), jax.jit(lambda h, a, c: a * 2)),
    "set": (lambda h, a, c: a * (c in {1, 2}), lambda h, a, c: a * (c in {1, 3})),
    "dictionary": (times({"a": 1}), times({"a": 2})),
    "partial": (functools.partial(times, w=1), functools.partial(times, w=2)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_computes_something_else_is_told_apart(kind):
    first, second = PAIRS[kind]
    assert code_hash(first) != code_hash(second)
    assert code_hash(first) == code_hash(first)


def test_what_is_made_anew_is_the_same():
    assert code_hash(power(2.0)) == code_hash(power(2.0))
    assert code_hash(times(LONG)) == code_hash(times(LONG.copy()))
    assert code_hash(Own(1.0)) == code_hash(Own(1.0))
    record = bind(power(2.0), {}).method  # wrapped, as explain has it
    assert code_hash(record.function) == code_hash(power(2.0))


def test_a_function_that_captures_itself_and_something_that_is_not_there_yet():
    def made(p):
        def itself(head, a, c):
            return itself(head, a, c) if later else a**p

        found = code_hash(itself)  # while `later` has no value
        later = False
        return found, code_hash(itself)

    assert made(1) == made(1)
    assert made(1)[0] != made(1)[1]
    assert made(1)[1] != made(2)[1]


@pytest.mark.parametrize("kind", ["attribute", "array", "jvp", "vjp"])
def test_a_program_is_what_it_computes_now_with_its_derivatives(kind):
    own, array = Own(1.0), np.ones(())
    f = lambda x: own.p * x if kind == "attribute" else array * x
    if kind == "jvp":
        f = jax.custom_jvp(lambda x: 1 * x)
        f.defjvp(lambda primals, tangents: (f(*primals), own.p * tangents[0]))
    elif kind == "vjp":
        f = jax.custom_vjp(lambda x: 1 * x)
        f.defvjp(lambda x: (f(x), None), lambda _, ct: (own.p * ct,))
    x = jax.ShapeDtypeStruct((2,), np.float64)
    before = program_hash(f, x)
    assert program_hash(f, x) == before
    own.p, array[...] = 2.0, 2.0
    assert program_hash(f, x) != before


@pytest.mark.thorough
def test_other_processes_say_the_same():
    code = """
import jaxcam.programs.hashes as header
def helper(a): return a
def made(f): return lambda head, a, c: f(a) * (c in {"cat", "dog", "horse", "bird"}) * len({"a": helper, "b": 2})
print(header.code_hash(made(helper)))
"""
    run = lambda seed: subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    assert run("1") == run("2") != ""

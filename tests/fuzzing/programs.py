"""Random programs: the proof of piecewise linearity against differences, the ways to derivatives against each other.

    python tests/fuzzing/programs.py SECONDS [SEED]

tries random programs for as long as it is told, stops at the first wrong one, and prints how many it tried. Each is a
few random steps from six numbers to a scalar: pieces of networks, loops, branches, and custom derivatives whose rules
are right, straight through, or wrong. What is traced is run by NumPy, since compiling takes several times as long; the
tests that try a few of them compile some. One function a program, checked in this way:

- what is proven piecewise linear has no second difference, and no second or third derivative in JAX;
- "auto" and "factored" (where it applies) give the derivatives that nested jax.jvp and nested jax.grad give.
"""

import os
import sys
import time
from itertools import count

os.environ.setdefault(  # before JAX is imported: programs that are compiled quickly and run once
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcam import elementwise_derivatives, is_piecewise_linear

QUICK = {"xla_backend_optimization_level": 0}  # for the tests that compile as users do
POINTS = 8


def dense(shape, x, seed=0):
    """x in another shape: as it is, spread, or through a dense layer."""
    if x.shape == shape:
        return x
    weights = np.random.default_rng(seed).normal(size=(x.size, *shape))
    return jnp.broadcast_to(x, shape) if x.shape == () else x.reshape(-1) @ weights


def with_rule(function, value, slope):
    """The function with a rule of its own: what it returns as the value, and the slope."""
    made = jax.custom_jvp(function)
    made.defjvp(lambda p, t: (value(made, p[0]), slope(p[0]) * t[0]))
    return made


def itself(made, x):
    """The value by the function with its rule, as it should be written."""
    return made(x)


def ones(x):
    """The slope of what passes straight through."""
    return jnp.ones_like(x)


RULES = {
    "straight through": with_rule(lambda x: jnp.round(x), itself, ones),
    "straight through once": with_rule(lambda x: jnp.round(x), lambda _, x: jnp.round(x), ones),
    "reversal": with_rule(lambda x: 1.0 * x, lambda _, x: x, lambda x: -ones(x)),
    # Not maximum(x, 0), whose slope at 0 is 1/2: what is rounded stands at the kink, and there nested derivatives would
    # take the rule's slope at one order and that of maximum at the next.
    "ReLU": with_rule(
        lambda x: jnp.maximum(x, 0), lambda _, x: jnp.where(x > 0, x, 0), lambda x: jnp.where(x > 0, 1.0, 0)
    ),
    "leak backwards": with_rule(lambda x: jax.nn.relu(x), itself, lambda x: jnp.where(x > 0, 1, 0.1)),
    "scaled": with_rule(jnp.tanh, lambda _, x: jnp.tanh(x), lambda x: 0.5 * ones(x)),
}
UNARY = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "abs": jnp.abs,
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "silu": jax.nn.silu,
    "affine": lambda x: 0.5 * x + 1,
    "mean": lambda x: x.mean(),
    "max": lambda x: x.max(),
    "to 6": lambda x: dense((6,), x),
    "to 3": lambda x: dense((3,), x, 1),
    "pairs": lambda x: dense((6,), x).reshape(3, 2).sum(1),
    "times a sign": lambda x: x * jnp.sign(x.sum()),
    "sort": lambda x: jnp.sort(dense((6,), x)),
    "jit": jax.jit(lambda x: 2 * x - jax.nn.relu(x)),
    "remat": jax.checkpoint(lambda x: jnp.abs(x) - 0.3 * x),
    "cond": lambda x: lax.cond(x.sum() > 0, lambda x: 2 * x, jnp.abs, x),
    "bent cond": lambda x: lax.cond(x.sum() > 0, lambda x: x * x, jnp.abs, x),
    "scan": lambda x: lax.scan(lambda c, t: (jnp.maximum(0.5 * c, t), c + t), 0.0, dense((6,), x))[1],
    "product scan": lambda x: lax.scan(lambda c, t: (c * jnp.tanh(t), c), 1.0, dense((6,), x))[0],
    "top": lambda x: lax.top_k(dense((6,), x), 3)[0],
    "pooling": lambda x: lax.reduce_window(dense((6,), x), -jnp.inf, lax.max, (2,), (2,), "VALID"),
    "clamp": lambda x: jnp.clip(x, -0.5, 0.7),
    "moving clamp": lambda x: lax.clamp(-abs(jnp.flip(x)), x, 1 + abs(x)),
    "stopped": lambda x: x + lax.stop_gradient(jnp.floor(x) - x),
    **RULES,
}
BINARY = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "maximum": jnp.maximum,
    "where": lambda x, y: jnp.where(x > y, x, 0.1 * y),
    "times tanh": lambda x, y: x * jnp.tanh(y),
    "times a step": lambda x, y: x * (y > 0.1).astype(x.dtype),
    "cumsum": lambda x, y: jnp.cumsum(dense((6,), x)) - dense((6,), y),
}


def random_steps(random):
    """The names of a few steps, with the numbers of the values that they take."""
    names = [*UNARY, *BINARY, *BINARY]
    return [(str(random.choice(names)), *map(int, random.integers(0, 10, 2))) for _ in range(random.integers(3, 9))]


def values_of(steps, a):
    """All values of a program, the input first."""
    values = [a]
    for name, first, second in steps:
        x, y = values[-1 - first % len(values)], values[-1 - second % len(values)]
        values.append(BINARY[name](x, dense(x.shape, y)) if name in BINARY else UNARY[name](x))
    return values


def compiled(function):
    """The function as it is used: compiled, as fast as that goes."""
    return jax.jit(function, compiler_options=QUICK)


def check(seed, way_of_running=compiled):
    """Tries one random program, `compiled` or `by_numpy`.

    Returns:
        Whether it was proven piecewise linear in its last value, and whether "factored" applied.

    Raises:
        AssertionError: something is wrong; says the program.
    """
    random = np.random.default_rng(seed)
    steps, bend = random_steps(random), int(random.integers(0, 3))

    def inner(a):
        return values_of(steps, a)[-1].sum()

    def f(a):
        values = values_of(steps, a)
        if bend == 0:
            return jnp.exp(0.1 * jnp.sin(values[-1].sum()))
        return jnp.cos(sum(jnp.sum(jnp.sin(x)) for x in values[-bend:])) + jnp.sum(jnp.tanh(0.1 * values[-1]))

    a = random.normal(size=6)
    proven = is_piecewise_linear(inner, a)
    ways = ["jvp", "auto", "grad"]
    if random.random() < 0.5:  # compilation is what the time goes into: three ways at a time
        try:
            jax.eval_shape(lambda a: elementwise_derivatives(f, a, method="factored"), a)
            ways[2] = "factored"
        except ValueError:
            pass
    step, points, along = 1e-5, random.normal(size=(POINTS, 6)), random.normal(size=(POINTS, 6))

    def slope(g):
        return lambda x: jax.jvp(g, (x,), (along,))[1]

    @way_of_running
    def run(a, points, along):
        found = [elementwise_derivatives(f, a, method=way) for way in ways]
        if not proven:
            return found, None
        g = jax.vmap(inner)
        return found, (*(g(points + s * along) for s in (-step, 0, step)), slope(slope(g))(points))

    (expected, *others), lines = run(a, points, along)
    for way, found in zip(ways[1:], others, strict=True):
        for order, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
            size = max(1e-3, np.abs(np.asarray(theirs)).max())
            assert np.allclose(ours, theirs, rtol=0, atol=1e-8 * size, equal_nan=True), (
                f"seed {seed}: derivative {order} by {way!r} is {ours} but {theirs} by 'jvp': {steps}, bend {bend}"
            )
    if lines is not None:
        before, here, after, second = map(np.asarray, lines)
        bent = np.abs(before - 2 * here + after) > 1e-9 * (1 + np.abs(here))
        # A kink or a jump may lie within one step; what is bent is bent nearly everywhere.
        assert bent.sum() <= POINTS // 4, f"seed {seed}: proven, but its values are bent: {steps}"
        assert not second.any(), f"seed {seed}: proven, but its second derivative is {second}: {steps}"
    return proven, "factored" in ways


def main(seconds, seed=0):
    """Tries programs for so many seconds and prints how many there were."""
    from by_numpy import by_numpy  # beside this file, where it is run as a script

    jax.config.update("jax_enable_x64", True)
    end, tried, proven, factored = time.monotonic() + seconds, 0, 0, 0
    for number in count(seed):
        if time.monotonic() >= end:
            break
        found = check(number, by_numpy)
        tried, proven, factored = tried + 1, proven + found[0], factored + found[1]
        if tried % 100 == 0:
            jax.clear_caches()
            print(f"{tried} programs so far", flush=True)
    print(f"{tried} random programs, {proven} proven piecewise linear, {factored} factored: none wrong")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

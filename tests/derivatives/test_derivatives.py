import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from fuzzing import programs
from fuzzing.by_numpy import by_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import normal

from jaxcam.derivatives import elementwise_derivatives

METHODS = ("auto", "factored", "jvp", "grad")
# Most of the time of these tests is compilation; only what measures the compiled program needs it to be optimised.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def derivatives(f, a, **options):
    return jit(lambda a: elementwise_derivatives(f, a, **options))(a)


def by_all_methods(f, a, methods=METHODS):
    """The derivatives by each method, in one compiled program."""
    return jit(lambda a: [elementwise_derivatives(f, a, method=method) for method in methods])(a)


def brute_force(f, a, order=3):
    """The diagonals of the full derivative tensors."""
    found, tensor = [], lambda x: f(x.reshape(a.shape))
    for n in range(1, order + 1):
        tensor = jax.jacfwd(tensor)
        found.append(lambda x, n=n, tensor=tensor: jnp.einsum(f"{'i' * n}->i", tensor(x)).reshape(a.shape))
    return [function(a.reshape(-1)) for function in found]


def close(found, expected, tolerance=1e-10):
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1e-3, np.abs(theirs).max()))


def dense(z, *widths, activation=jax.nn.relu, seed=0):
    """Hidden layers with an activation, then one without."""
    for place, width in enumerate(widths):
        kernel, bias = normal(seed + place, z.size, width) / z.size**0.5, normal(seed + place + 20, width)
        z = z.reshape(-1) @ kernel.astype(z.dtype) + bias.astype(z.dtype)
        z = activation(z) if place < len(widths) - 1 else z
    return z


def pool(a, size=2, stride=2):
    spatial = a.ndim - 1
    return lax.reduce_window(a, -jnp.inf, lax.max, (size,) * spatial + (1,), (stride,) * spatial + (1,), "VALID")


def conv(a, channels, seed=5):
    kernel = normal(seed, *(2,) * (a.ndim - 1), a.shape[-1], channels)
    letters = "HWD"[: a.ndim - 1]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    kernel = kernel.astype(a.dtype)
    return lax.conv_general_dilated(a[None], kernel, (1,) * (a.ndim - 1), "SAME", dimension_numbers=layout)[0]


FACTORED = {
    "logit": ((3, 4), lambda a: dense(a, 6, 4)[1]),
    "exp": ((3, 4), lambda a: jnp.exp(dense(a, 6, 4)[1])),
    "softmax": ((2, 3, 2), lambda a: jax.nn.softmax(dense(a, 6, 4))[1]),
    "log_softmax": ((2, 2, 2, 2), lambda a: jax.nn.log_softmax(dense(a, 6, 4))[1]),
    "max-pooling": ((4, 4, 1), lambda a: jax.nn.softmax(dense(pool(a), 6, 3))[0]),
    "ReLU and pooling": ((2, 2, 4, 1), lambda a: jnp.exp(dense(pool(jax.nn.relu(a)), 6, 3)[0])),
    "overlapping pooling": ((4, 4, 1), lambda a: jnp.exp(dense(pool(a, 3, 1), 6, 3)[2])),
    "average pooling": ((4, 4, 1), lambda a: jnp.exp(dense(nnx.avg_pool(jnp.abs(a), (2, 2), (2, 2)), 6, 3)[2])),
    "convolution": ((3, 3, 2), lambda a: jax.nn.softmax(dense(pool(jax.nn.relu(conv(a, 2))), 5, 3))[1]),
    "global average": ((3, 2, 3), lambda a: jax.nn.softmax(dense(a.mean((0, 1)), 5, 4))[1]),
    "weighted average": ((3, 2, 3), lambda a: jnp.exp(dense(jnp.einsum("ijk,ij->k", a, normal(9, 3, 2)), 4)[1])),
    "global average, GELU": (
        (3, 3, 2),
        lambda a: jax.nn.softmax(dense(a.mean((0, 1)), 5, 4, activation=jax.nn.gelu))[1],
    ),
    "leaky ReLU, average, SiLU": (
        (6, 3),
        lambda a: dense(jax.nn.leaky_relu(a - 0.3).mean(0), 5, 4, activation=jax.nn.silu)[1] ** 2,
    ),
    "a dense layer, then tanh": ((4, 4), lambda a: dense(a, 3, 5, activation=jnp.tanh)[0] ** 2),
    "passing around": ((2, 3, 2), lambda a: jnp.exp(dense(a, 6, 3)[0]) * a.mean() ** 2 + jnp.sin(a.max())),
    "masks from the input": (
        (3, 4),
        lambda a: jnp.exp(dense(a * (a.sum(0, keepdims=True) > 0), 6, 3)[0] * (1.0 + (dense(a, 2)[0] > 0))),
    ),
    "argsort": ((3, 4), lambda a: jnp.exp(dense(a.reshape(-1)[jnp.argsort(-a.reshape(-1))], 6, 3)[0])),
    "more logits than elements": ((4,), lambda a: jax.nn.softmax(dense(a, 5, 9))[0]),
    "scan": (
        (3, 4),
        lambda a: jnp.exp(
            lax.scan(lambda c, row: (jnp.maximum(0.5 * c, row @ normal(0, 4, 2)), 0), jnp.zeros(2), a)[0].sum()
        ),
    ),
    "remat": ((3, 4), lambda a: jax.nn.softmax(jax.checkpoint(lambda a: dense(a, 6, 4))(a))[1]),
}

GENERAL = {
    "cross terms": ((3, 4), lambda a: jnp.prod((a * a[::-1])[0]) * jnp.sum(a[1] * a[2] ** 2)),
    "tanh at once": ((3, 4), lambda a: dense(jnp.tanh(a), 6, 4, activation=jnp.tanh)[0] * a[0, 0] * a[1, 1]),
    "softplus": ((4, 2, 2), lambda a: jnp.exp(dense(jax.nn.softplus(a), 5, 3)[1])),
    "smooth convolution": ((3, 3, 1), lambda a: jax.nn.softmax(dense(jax.nn.gelu(conv(a * a, 2)), 3))[1]),
    "squeeze and excitation": (
        (3, 2, 2),
        lambda a: dense(a * jax.nn.sigmoid(dense(a.mean((0, 1)), 2)).reshape(1, 1, 2), 4, 3)[1] ** 2,
    ),
    "attention": ((4, 3), lambda a: jnp.sum(jax.nn.softmax(a @ normal(0, 3, 3) @ a.T) @ a @ normal(1, 3))),
}


@pytest.mark.parametrize(("shape", "f"), [*FACTORED.values(), *GENERAL.values()], ids=[*FACTORED, *GENERAL])
@pytest.mark.sample(6)
def test_all_methods_equal_brute_force(shape, f):
    a = normal(42, *shape)
    ways = [m for m in METHODS if m != "factored" or any(f is g for _, g in FACTORED.values())]

    @jit
    def run(a):
        return brute_force(f, a), [elementwise_derivatives(f, a, method=m) for m in ways]

    with jax.numpy_dtype_promotion("standard"):  # for the heads, not for jaxcam
        expected, found = run(a)
    for derivatives in found:
        close(derivatives, expected)


@pytest.mark.parametrize(("shape", "f"), GENERAL.values(), ids=GENERAL)
def test_factored_says_what_it_cannot_prove(shape, f):
    with pytest.raises(ValueError, match=r"goes straight into '.*'; use method='auto'"):
        elementwise_derivatives(f, normal(42, *shape), method="factored")


def test_values_on_both_sides_of_the_cut():
    # The cut is at the mean and the deviations. Those need copies of the mean, and so does the outer stage: there
    # they must follow the mean, although the inner stage has made them.
    def f(a):
        copies = jnp.broadcast_to(a.mean(), a.shape)
        return jnp.exp(jnp.sum(jnp.sin(a - copies))) * jnp.sum(jnp.cos(copies * copies))

    close(*jit(lambda a: (elementwise_derivatives(f, a, method="factored"), brute_force(f, a)))(normal(42, 6)))


def to(shape, x, seed=0):
    """x in another shape: as it is, spread, or through a dense layer."""
    if x.shape == shape:
        return x
    return jnp.broadcast_to(x, shape) if x.shape == () else (x.reshape(-1) @ normal(seed, x.size, *shape))


UNARY = [
    jax.nn.relu,
    jax.nn.leaky_relu,
    jnp.abs,
    jnp.tanh,
    jnp.sin,
    lambda x: 0.5 * x + 1,
    lambda x: x.mean(),
    lambda x: x.max(),
    lambda x: to((6,), x),
    lambda x: to((3,), x, 1),
    lambda x: to((6,), x).reshape(3, 2).sum(1),
    lambda x: x * jnp.sign(x.sum()),
    lambda x: jnp.sort(to((6,), x)),
    jax.jit(lambda x: 2 * x - jax.nn.relu(x)),
]
BINARY = [
    jnp.add,
    jnp.subtract,
    jnp.multiply,
    jnp.maximum,
    lambda x, y: jnp.where(x > y, x, 0.1 * y),
    lambda x, y: x * jnp.tanh(y),
]
STEP = st.tuples(st.sampled_from([*UNARY, *UNARY, *BINARY]), st.integers(0, 9), st.integers(0, 9))


def check_random_program(steps, ends):
    def f(a):
        values = [a]
        for function, first, second in steps:
            x, y = values[-1 - first % len(values)], values[-1 - second % len(values)]
            values.append(function(x, to(x.shape, y)) if function in BINARY else function(x))
        taken = [values[-1 - end % len(values)] for end in ends]
        return jnp.cos(sum(jnp.sum(jnp.sin(x)) for x in taken)) + jnp.sum(jnp.exp(0.1 * taken[0]))

    @jit
    def run(a):
        return [elementwise_derivatives(f, a, method=method) for method in ("jvp", "auto", possible)]

    a = normal(42, 6)
    possible = "factored"
    try:
        jax.eval_shape(lambda a: elementwise_derivatives(f, a, method="factored"), a)
    except ValueError:
        possible = "grad"
    expected, *others = run(a)
    for found in others:
        close(found, expected, 1e-9)


@settings(max_examples=15, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=7), st.lists(st.integers(0, 9), min_size=1, max_size=3))
@pytest.mark.thorough
def test_random_programs(steps, ends):
    check_random_program(steps, ends)


@pytest.mark.slow
def test_many_random_programs():
    """Always the same ones; tests/fuzzing/programs.py tries others for as long as it is told."""
    found = [programs.check(seed) for seed in range(10)]
    found += [programs.check(seed, by_numpy) for seed in range(10, 80)]
    assert (np.sum(found, 0) > 20).all()  # proven ones, and factored ones


@pytest.mark.parametrize("method", ["auto", "jvp", "grad"])
def test_polynomial_to_the_fifth_order(method):
    # d^n/da^n of w a^4 = w 4!/(4-n)! a^(4-n), whatever the other elements do.
    a, w = np.asarray(normal(0, 2, 3)), np.asarray(normal(1, 2, 3))
    f = lambda a: jnp.sum(w * a**4) + a[0, 0] * a[0, 1] * a[1, 2]
    found = derivatives(f, a, order=5, method=method)
    mixed = np.zeros_like(a)
    mixed[0, 0], mixed[0, 1], mixed[1, 2] = a[0, 1] * a[1, 2], a[0, 0] * a[1, 2], a[0, 0] * a[0, 1]
    factors = [4 * a**3, 12 * a**2, 24 * a, 24 + 0 * a, 0 * a]
    close(found, [w * factor + (mixed if n == 0 else 0) for n, factor in enumerate(factors)], 1e-14)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_exponential_of_any_order(order):
    # exp(w·a + b) has the derivatives wⁿ exp(w·a + b).
    a, w = np.asarray(normal(0, 2, 3, 2)), np.asarray(normal(1, 2, 3, 2))
    f = lambda a: jnp.exp(jnp.sum(w * a) + 0.3)
    for found in jit(lambda a: [elementwise_derivatives(f, a, order=order, method=m) for m in METHODS])(a):
        close(found, [w ** (n + 1) * np.exp(np.sum(w * a) + 0.3) for n in range(order)], 1e-13)


@pytest.mark.thorough
def test_fourth_order_against_brute_force():
    f = lambda a: jax.nn.softmax(dense(pool(a), 5, 3))[1]
    close(*jit(lambda a: (elementwise_derivatives(f, a, order=4), brute_force(f, a, 4)))(normal(3, 4, 4, 1)))


@pytest.mark.parametrize("name", ["max-pooling", "global average, GELU", "squeeze and excitation"])
@pytest.mark.sample(3)
def test_chunks_of_any_size(name):
    shape, f = (FACTORED | GENERAL)[name]
    run = jit(lambda a: [elementwise_derivatives(f, a, chunk_size=size) for size in (None, 1, 7)])
    whole, *parts = run(normal(1, *shape))
    for found in parts:
        close(found, whole, 1e-12)


def test_without_jit_and_on_numpy_arrays():
    a, f = normal(1, 3, 2), lambda a: jnp.exp(jnp.abs(a).mean(0) @ np.array([2.0, -1.0]))
    expected = derivatives(f, a)
    close(inspect.unwrap(elementwise_derivatives)(f, np.asarray(a)), expected, 1e-13)
    close(elementwise_derivatives(f, a), expected, 1e-13)


@pytest.mark.parametrize("f", [jnp.exp, lambda a: jnp.exp(2 * a), lambda a: jnp.sin(a) * a])
def test_an_array_without_axes(f):
    close(*jit(lambda a: (elementwise_derivatives(f, a), brute_force(f, a)))(normal(0)))


@pytest.mark.parametrize("f", [lambda a: jnp.float64(3), lambda a: jnp.floor(a).sum(), lambda a: 2.0])
@pytest.mark.parametrize("method", METHODS)
def test_functions_that_do_not_move(f, method):
    for derivative in elementwise_derivatives(f, normal(0, 3, 2), method=method):
        np.testing.assert_array_equal(derivative, np.zeros((3, 2)))


# Transformations

PARAMETERS = [normal(10, 4, 5), normal(11, 5, 3)]


def scores(parameters, a, class_idx=1):
    """A head with every stage: a fold, a piecewise-linear part, a smooth part."""
    hidden = jax.nn.relu(pool(a).reshape(-1) @ parameters[0])
    return jax.nn.softmax(hidden @ parameters[1])[class_idx]


def smooth(parameters, a, class_idx=1):
    return jnp.tanh(jnp.tanh((a**2).mean((0, 1)) @ parameters[0]) @ parameters[1])[class_idx]


CASES = {
    "stages": (scores, (4, 4, 1), None),
    "stages in chunks": (scores, (4, 4, 1), 2),
    "elements": (smooth, (2, 2, 4), None),
    "elements in chunks": (smooth, (2, 2, 4), 3),
}


@pytest.mark.parametrize(("head", "shape", "chunk_size"), CASES.values(), ids=CASES)
@pytest.mark.sample(3)
def test_vmap_is_a_loop(head, shape, chunk_size):
    batch, classes = np.asarray(normal(0, 3, *shape)), np.array([0, 2, 1])
    parameters = [np.stack([p, 2 * p, p - 1]) for p in map(np.asarray, PARAMETERS)]

    def one(parameters, a, class_idx):
        return elementwise_derivatives(lambda a: head(parameters, a, class_idx), a, chunk_size=chunk_size)

    @jit
    def run(parameters, batch, classes):
        together = jax.vmap(one)(parameters, batch, classes)
        return together, jax.vmap(one, (None, 0, None))([p[0] for p in parameters], batch, classes[2])

    together, shared = run(parameters, batch, classes)
    alone = jit(one)
    for i in range(3):
        close([d[i] for d in together], alone([p[i] for p in parameters], batch[i], classes[i]), 1e-12)
        close([d[i] for d in shared], alone([p[0] for p in parameters], batch[i], classes[2]), 1e-12)


@pytest.mark.parametrize("case", ["stages in chunks", "elements in chunks"])
@pytest.mark.sample(2)
def test_gradients_by_parameters_and_by_the_input(case):
    head, shape, chunk_size = CASES[case]
    a, weights = normal(0, *shape), normal(1, 3, *shape)

    def total(parameters, a):
        found = elementwise_derivatives(lambda a: head(parameters, a), a, chunk_size=chunk_size)
        return sum(jnp.sum(w * d) for w, d in zip(weights, found, strict=True))

    def reference(parameters, a):
        found = brute_force(lambda a: head(parameters, a), a)
        return sum(jnp.sum(w * d) for w, d in zip(weights, found, strict=True))

    step = jax.tree.map(lambda x: 1e-5 * np.asarray(normal(2, *x.shape)), (PARAMETERS, a))

    @jit
    def run(point, step):
        ways = [jax.grad(function, (0, 1))(*point) for function in (total, reference)]
        ends = jax.tree.map(lambda x, s: jnp.stack([x - s, x + s]), point, step)
        return *map(jax.tree.leaves, ways), jax.vmap(total)(*ends)

    ours, theirs, (behind, ahead) = run((PARAMETERS, a), step)
    close(ours, theirs)
    slope = sum(np.vdot(g, s) for g, s in zip(ours, jax.tree.leaves(step), strict=True))
    np.testing.assert_allclose(slope, (ahead - behind) / 2, rtol=1e-6)


# Number formats


@pytest.mark.parametrize("name", ["convolution", "leaky ReLU, average, SiLU"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.bfloat16, 0.2)])
@pytest.mark.sample(2)
def test_low_precision(name, dtype, tolerance):
    shape, f = FACTORED[name]
    a = np.asarray(normal(1, *shape)).astype(dtype)
    run = jit(lambda *points: [elementwise_derivatives(f, a) for a in points])
    found, exact = run(a, a.astype(np.float64))
    assert [d.dtype for d in found] == [dtype] * 3
    close(found, exact, tolerance)


@pytest.mark.parametrize(
    "f",
    [
        lambda a: FACTORED["max-pooling"][1](a.astype(jnp.float64)),
        lambda a: jax.nn.softmax(dense(a, 6, 3).astype(jnp.float64))[1],
    ],
)
@pytest.mark.sample(2)
def test_a_head_in_another_precision_than_its_input(f):
    a = np.asarray(normal(1, 4, 4, 1), np.float32)

    @jit
    def run(a, wide):
        return elementwise_derivatives(f, wide), [elementwise_derivatives(f, a, method=m) for m in METHODS]

    expected, ways = run(a, a.astype(np.float64))
    for found in ways:
        assert [d.dtype for d in found] == [jnp.float32] * 3
        close(found, expected, 1e-5)


# Kinks


def test_ties_follow_jax():
    # Windows of equal elements, as after a ReLU: the first takes it all, in every method.
    a = np.array([1.0, 1.0, 0.0, 0.0, 2.0, 3.0])[:, None]
    w = np.array([0.5, -1.0, 2.0])
    f = lambda a: jnp.exp(pool(a)[:, 0] @ w)
    place, value = np.array([1.0, 0, 1, 0, 0, 1])[:, None], np.exp(np.array([1.0, 0.0, 3.0]) @ w)
    for found in by_all_methods(f, a):
        close(found, [place * np.repeat(w, 2)[:, None] ** n * value for n in (1, 2, 3)], 1e-14)


KINKS = {jax.nn.relu: 0, lambda a: jnp.maximum(a, 0): 0.5, jnp.abs: 1, jnp.max: 1 / 3}


@pytest.mark.parametrize(("kink", "slope"), KINKS.items())
def test_kinks_follow_jax(kink, slope):
    for found in by_all_methods(lambda a: jnp.exp(kink(a).sum()), np.zeros(3)):
        close(found, [np.full(3, float(slope)) ** n for n in (1, 2, 3)], 1e-14)


# Derivative rules of one's own


@jax.custom_jvp
def rounded(x):
    return jnp.round(x)


rounded.defjvps(lambda t, _, x: t)


@jax.custom_vjp
def doubled_backwards(x):
    return jnp.tanh(x)


doubled_backwards.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (2 * g / jnp.cosh(x) ** 2,))


def test_rules_that_are_not_the_derivative_are_followed():
    # Straight through: exp(w·round(a)) has slopes as if it were exp(w·a), wherever it is taken apart.
    a, w = np.asarray(normal(0, 4)), np.asarray(normal(1, 4))
    f = lambda a: jnp.exp(w @ rounded(a))
    for found in by_all_methods(f, a):
        close(found, [w**n * np.exp(w @ np.round(a)) for n in (1, 2, 3)], 1e-14)
    # Where it is multiplied by the input, the second derivative by these rules is 2, not 0.
    for _, second, _ in by_all_methods(lambda a: jnp.sum(a * rounded(a)), a, ("auto", "jvp", "grad")):
        close([second], [np.full(4, 2.0)], 1e-14)


@pytest.mark.parametrize(
    ("value", "slope"), [(np.round, 1.0), (jnp.asarray, -1.0)], ids=["straight through", "reversal"]
)
def test_rules_whose_value_has_another_slope(value, slope):
    # Of f = exp(w·q(a)) the rule says f' = s w f. Once more: f is differentiated by the rule again, or not at all where
    # its value rounds, or with slope one where it is the identity. jax.grad of jax.grad is the measure.
    q = jax.custom_jvp(lambda x: jnp.round(x) if value is np.round else x)
    q.defjvp(lambda p, t: (jnp.round(p[0]) if value is np.round else p[0], slope * t[0]))
    a, w = np.asarray(normal(0, 3, 2)), np.asarray(normal(1, 3, 2))
    f = lambda a: jnp.exp(jnp.sum(w * q(a)))
    factor = np.array([slope, 0, 0] if value is np.round else [-1, -1, -1])
    for found in by_all_methods(f, a, ("auto", "jvp", "grad")):
        close(found, [c * w**n * np.exp(np.sum(w * value(a))) for n, c in enumerate(factor, 1)], 1e-14)


def test_backward_rules_are_followed():
    a, f = np.asarray(normal(0, 4)), lambda a: doubled_backwards(a).sum()
    found, first = jit(lambda a: [elementwise_derivatives(f, a, order=n) for n in (3, 1)])(a)
    close(found[:2], [2 / np.cosh(a) ** 2, -4 * np.tanh(a) / np.cosh(a) ** 2], 1e-14)
    close(first, found[:1], 1e-14)
    with pytest.raises(ValueError, match=r"custom_vjp.*method='grad'"):
        elementwise_derivatives(f, jnp.asarray(a), method="jvp")


def test_while_loops_are_followed_forwards():
    f = lambda a: lax.while_loop(lambda c: c < 10, lambda c: c**2 + 2, jnp.sum(a))
    a = np.array([0.5, 1.0])
    by_hand = lambda a: ((jnp.sum(a) ** 2 + 2) ** 2) + 2
    found, first, expected = jit(
        lambda a: (elementwise_derivatives(f, a), elementwise_derivatives(f, a, order=1), brute_force(by_hand, a))
    )(a)
    close(found, expected)
    close(first, expected[:1])
    with pytest.raises(ValueError, match=r"while_loop.*method='jvp'"):
        elementwise_derivatives(f, jnp.asarray(a), method="grad")


# Errors


@pytest.mark.parametrize(
    ("f", "a", "options", "error", "message"),
    [
        (3, jnp.ones(2), {}, TypeError, "f must be a function"),
        (jnp.sin, jnp.ones(2), {}, ValueError, r"must return a scalar, got shape \(2,\)"),
        (lambda a: (a.sum(), a.sum()), jnp.ones(2), {}, TypeError, "f must return one floating-point array"),
        (jnp.argmax, jnp.ones(2), {}, TypeError, "f must return one floating-point array"),
        (lambda a: lax.complex(a.sum(), a[0]), jnp.ones(2), {}, TypeError, "f must return one floating-point array"),
        (jnp.sum, [1.0, 2.0], {}, TypeError, "a must be an array of real .* got list"),
        (jnp.sum, 1.0, {}, TypeError, "a must be an array of real .* got float"),
        (jnp.sum, jnp.arange(3), {}, TypeError, "a must be an array of real .* got int64"),
        (jnp.sum, jnp.ones(2, complex), {}, TypeError, "a must be an array of real .* got complex128"),
        (jnp.sum, jnp.ones((3, 0)), {}, ValueError, r"at least one element, got shape \(3, 0\)"),
        (jnp.sum, jnp.ones(2), {"method": "taylor"}, ValueError, "method must be .*'jvp'.* got 'taylor'"),
        (jnp.sum, jnp.ones(2), {"method": None}, ValueError, "method must be .* got None"),
        (jnp.sum, jnp.ones(2), {"order": 0}, ValueError, "order .* 1 .* 0"),
        (jnp.sum, jnp.ones(2), {"order": 2.0}, TypeError, "order .* 2.0"),
        (jnp.sum, jnp.ones(2), {"order": True}, TypeError, "order .* True"),
        (jnp.sum, jnp.ones(2), {"chunk_size": 0}, ValueError, "chunk_size .* 1 .* 0"),
        (jnp.sum, jnp.ones(2), {"chunk_size": 0.5}, TypeError, "chunk_size .* 0.5"),
    ],
)
def test_bad_input(f, a, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(elementwise_derivatives)(f, a, **options)

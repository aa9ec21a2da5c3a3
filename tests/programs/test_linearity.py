import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.experimental import io_callback
from support import normal

from jaxcam.programs.linearity import has_constant_slope, is_piecewise_linear

X = normal(0, 6)
W = normal(1, 6, 6)


@jax.custom_jvp
def straight_through(x):
    """Rounds, and says that its slope is one."""
    return jnp.round(x)


straight_through.defjvps(lambda t, _, x: t)


@jax.custom_jvp
def bent_body(x):
    """A square that says it is the identity."""
    return x * x


bent_body.defjvps(lambda t, _, x: t)


@jax.custom_jvp
def bent_rule(x):
    """The identity, whose rule says that it is a square."""
    return x * 1.0


bent_rule.defjvps(lambda t, _, x: 2 * x * t)


@jax.custom_jvp
def own_value_in_its_rule(x):
    """A ReLU, whose rule asks for its value again."""
    return jnp.maximum(x, 0)


own_value_in_its_rule.defjvps(lambda t, value, x: jnp.where(value > 0, t, 0.0))


def with_rule(function, slope, value=None):
    """The function with a rule that returns `value` of x (the function, unless given) and the slope times t."""
    value = function if value is None else value
    made = jax.custom_jvp(lambda x: function(x))
    made.defjvp(lambda p, t: (value(p[0]), slope(p[0]) * t[0]))
    return made


def step(x):
    return (x > 0).astype(x.dtype)


ONE = jnp.ones_like
RIGHT_RULES = {
    "maximum": with_rule(lambda x: jnp.maximum(x, 0), step),
    "jax.nn.relu": with_rule(jax.nn.relu, step),
    "clip": with_rule(lambda x: jnp.clip(x, 0, 6), lambda x: ((x > 0) & (x < 6)).astype(x.dtype)),
    "leaky": with_rule(lambda x: jnp.where(x > 0, x, 0.1 * x), lambda x: jnp.where(x > 0, 1, 0.1)),
    "scaled": with_rule(lambda x: 3 * x, lambda x: 3 * ONE(x)),
    "through another": with_rule(jnp.round, ONE, straight_through),
    "of two": with_rule(lambda x: jnp.maximum(x, 0), step, lambda x: x * step(x)),
    "stopped": with_rule(jnp.round, ONE, lambda x: x + lax.stop_gradient(jnp.round(x) - x)),
}
WRONG_RULES = {
    "rounding": with_rule(jnp.round, ONE),
    "sign": with_rule(jnp.sign, lambda x: (abs(x) < 1).astype(x.dtype)),
    "reversal": with_rule(lambda x: x, lambda x: -ONE(x)),
    "scaled": with_rule(lambda x: x, lambda x: 0.5 * ONE(x)),
    "stopped": with_rule(lambda x: x, lambda x: 0 * x),
    "leaky backwards": with_rule(jax.nn.relu, lambda x: jnp.where(x > 0, 1, 0.1)),
    "wrong beyond 100": with_rule(lambda x: jnp.clip(x, -100, 100), ONE),
    "wrong beyond 5,000": with_rule(lambda x: jnp.clip(x, -5000, 5000), ONE),
    "wrong below 1/250": with_rule(lambda x: jnp.where(abs(x) > 0.004, x, 0), ONE),
    "inside another": with_rule(lambda x: jnp.round(x), ONE, with_rule(jnp.round, ONE)),
}


@jax.custom_vjp
def guided_relu(x):
    return jnp.maximum(x, 0)


guided_relu.defvjp(lambda x: (guided_relu(x), x), lambda x, g: (jnp.where((x > 0) & (g > 0), g, 0.0),))


def bits(x):
    return lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)


def written_and_read(x):
    box = jax.new_ref(jnp.ones_like(x))
    box[...] = x
    return x * box[...]


def windows(x, size=(2,), strides=(2,), **options):
    return lax.reduce_window(x, -jnp.inf, lax.max, size, strides, "VALID", **options)


LINEAR = {
    "affine": lambda x: 2 * x @ W - 1,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "hard_tanh": jax.nn.hard_tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "abs": jnp.abs,
    "clip": lambda x: jnp.clip(x, -0.5, x[0]),
    "clamp by arrays": lambda x: lax.clamp(-abs(x[::-1]), x, abs(x[::-1])),
    "clamp by scalars that stay": lambda x: lax.clamp(W[0, 0] - 9, x, jnp.sign(x[0])),
    "max and min": lambda x: jnp.maximum(x, x[::-1]) - jnp.minimum(x.max(), x.min()),
    "first power": lambda x: lax.integer_pow(x, 1),
    "divided by a constant": lambda x: x / (1 + W[0] ** 2),
    "times a constant's exp": lambda x: x * jnp.exp(W[0]),
    "times a step": lambda x: x * jnp.sign(x) + x * jnp.floor(x) + x * (x > 0).astype(x.dtype),
    "divided by a step": lambda x: x / (2 + jnp.sign(x)),
    "times its integer part": lambda x: x * x.astype(jnp.int32).astype(x.dtype),
    "any function of steps": lambda x: jnp.exp(jnp.floor(x)) * x + jnp.cumprod(jnp.sign(x)),
    "dot with a step": lambda x: x @ jnp.sign(x),
    "conv with a step": lambda x: jnp.convolve(x, jnp.sign(x)),
    "where on a square": lambda x: jnp.where(x * x > 1, x, 2 * x),
    "argmax as an index": lambda x: x[jnp.argmax(x)] + lax.dynamic_slice(x, (jnp.argmin(x),), (2,)),
    "argmax as a number": lambda x: x * jnp.argmax(x).astype(x.dtype),
    "update at an index": lambda x: x.at[jnp.argmax(x)].add(x[0]).at[0].set(x[1]),
    "sort": jnp.sort,
    "argsort": lambda x: x[jnp.argsort(-x)],
    "median": jnp.median,
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "cumsum, cummax": lambda x: jnp.cumsum(x) + lax.cummax(x),
    "max-pooling": windows,
    "overlapping max-pooling": lambda x: windows(x, (3,), (1,)),
    "integers out": jnp.argmax,
    "single precision": lambda x: x.astype(jnp.float32).astype(x.dtype),
    "stop_gradient": lax.stop_gradient,
    "jit": jax.jit(lambda x: 3 * x),
    "checkpoint": jax.checkpoint(lambda x: jnp.abs(x) + x),
    "vmap": jax.vmap(lambda x: jnp.where(x > 0, x, 0.1 * x)),
    "scan": lambda x: lax.scan(lambda c, t: (jnp.maximum(c, t) + 2 * t, c), 0.0, x),
    "loop of known length": lambda x: lax.fori_loop(0, 3, lambda i, c: jnp.abs(c) - x, x),
    "cond": lambda x: lax.cond(x[0] > 0, lambda x: 2 * x, jnp.abs, x),
    "while on steps": lambda x: x * lax.while_loop(lambda c: c < 5, lambda c: 2 * c + 1, jnp.abs(jnp.sign(x[0]))),
    "custom_jvp": own_value_in_its_rule,
    "custom_vjp of a constant": lambda x: x * guided_relu(W[0]),
    "straight-through": straight_through,
    "composition": lambda x: jnp.sort(jax.nn.relu(W @ jnp.abs(W @ x)).reshape(2, 3), axis=1).sum(0),
}

BENT = {
    "x·x": lambda x: x * x,
    "square": jnp.square,
    "x²": lambda x: x**2,
    "x^1.5": lambda x: x**1.5,
    "x/x": lambda x: x / x,
    "1/x": lambda x: 1 / x,
    "exp": jnp.exp,
    "branch squared": lambda x: jnp.where(x > 0, x**2, x),
    "x·mean(x)": lambda x: x * x.mean(),
    "dot(x, x)": lambda x: x @ x,
    "outer product": lambda x: jnp.outer(x, x),
    "conv with its own kernel": lambda x: jnp.convolve(x, x),
    "sorted squares": lambda x: jnp.sort(x * x),
    "sort times itself": lambda x: x * jnp.sort(x),
    "cumprod": jnp.cumprod,
    "prod": jnp.prod,
    "cumlogsumexp": lax.cumlogsumexp,
    "logsumexp": jax.nn.logsumexp,
    "norm": jnp.linalg.norm,
    "standard deviation": jnp.std,
    "softmax": jax.nn.softmax,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "x·stop_gradient(x)": lambda x: x * lax.stop_gradient(x),
    "carry product": lambda x: lax.scan(lambda c, t: (c * t, c), 1.0, x),
    "carry that turns late": lambda x: lax.scan(lambda c, t: ((c[1], c[0] * t), c), (1.0, 1.0), x),
    "loop product": lambda x: lax.fori_loop(0, 3, lambda i, c: c * x, x),
    "cond with a bent branch": lambda x: lax.cond(x[0] > 0, lambda x: x * x, lambda x: x, x),
    "while": lambda x: lax.while_loop(lambda c: c[0] < 5, lambda c: c + jnp.abs(c), jnp.abs(x) + 0.1),
    "jit": jax.jit(lambda x: x * x),
    "checkpoint": jax.checkpoint(jnp.sin),
    "clip by a square": lambda x: jnp.clip(x, -1, x * x),
    "update with a square": lambda x: x.at[0].set(x[1] * x[2]),
    "interpolated at a bent place": lambda x: jnp.interp(x, jnp.arange(6.0), x),
    "bits as numbers": lambda x: lax.bitcast_convert_type(x, jnp.int64).astype(x.dtype),
    "bits as an index": lambda x: x[lax.bitcast_convert_type(x[0], jnp.int64) % 6],
    "bits as a choice": lambda x: lax.select_n(bits(x) & 1, x, 2 * x),
    "written and read": written_and_read,
    "read from outside": lambda x: x * io_callback(lambda: np.float64(3), jax.ShapeDtypeStruct((), x.dtype)),
    "custom_jvp, body": bent_body,
    "custom_jvp, rule": bent_rule,
    "straight-through of x·x": lambda x: straight_through(x * x),
    "straight-through times x": lambda x: straight_through(x) * x,
    "custom_vjp": guided_relu,
    "a constant padded with the input": lambda x: lax.pad(W[0], x[0], [(1, 1, 0)]),  # JAX's vjp of it fails
    "clamp from a moving scalar": lambda x: lax.clamp(x[0], x, 9 + abs(x)),  # nor derivative of this
    "clamp to a moving scalar": lambda x: lax.clamp(-9 - abs(x), x, x.sum()),
    "dilated max-pooling": lambda x: windows(x, (2,), (1,), window_dilation=(2,)),  # JAX has no vjp for it
    "abs of complex": lambda x: jnp.abs(lax.complex(x, x + 1)),
    "sign of complex": lambda x: jnp.sign(lax.complex(x, x + 1)).real,
    "fft": lambda x: jnp.fft.fft(x).real,
    "one bent output": lambda x: (x, {"second": x * x}),
}


@pytest.mark.parametrize("f", LINEAR.values(), ids=LINEAR)
def test_proven(f):
    assert is_piecewise_linear(f, X)


@pytest.mark.parametrize("f", RIGHT_RULES.values(), ids=RIGHT_RULES)
def test_a_rule_counts_that_has_the_slope_of_its_value(f):
    assert is_piecewise_linear(lambda x: f(2 * x) @ W, X)
    assert is_piecewise_linear(jax.jit(f), jax.ShapeDtypeStruct((10, 2), jnp.bfloat16))


@pytest.mark.parametrize("f", WRONG_RULES.values(), ids=WRONG_RULES)
def test_a_rule_does_not_count_whose_value_has_another_slope(f):
    assert not is_piecewise_linear(lambda x: f(2 * x) @ W, X)
    assert not is_piecewise_linear(lambda x: lax.scan(lambda c, _: (f(c), None), x, None, 2)[0], X)


@pytest.mark.parametrize("f", LINEAR.values(), ids=LINEAR)
@pytest.mark.sample(3)
def test_what_is_proven_can_be_taken_backwards(f):
    def total(x):
        moving = [out for out in jax.tree.leaves(f(x)) if jnp.issubdtype(out.dtype, jnp.floating)]
        return sum([out.sum() for out in moving], 0 * x[0])

    along = np.asarray(W[0])
    gradient, forwards = jax.jit(lambda x: (jax.grad(total)(x), jax.jvp(total, (x,), (along,))[1]))(X)
    np.testing.assert_allclose(gradient @ along, forwards, rtol=1e-6)


@pytest.mark.parametrize("f", BENT.values(), ids=BENT)
def test_not_proven(f):
    assert not is_piecewise_linear(f, X)


def test_jointly_in_all_arguments():
    assert is_piecewise_linear(lambda x, y: jnp.maximum(x, 2 * y), X, X)
    assert not is_piecewise_linear(lambda x, y: x * y, X, X)
    assert is_piecewise_linear(lambda x, tree: x + tree["y"][0], X, {"y": (X, X)})
    assert is_piecewise_linear(lambda x, i: lax.dynamic_index_in_dim(x, i), X, 3)  # an index selects; it cannot move
    assert is_piecewise_linear(lambda x, mask: x * mask.astype(x.dtype), X, X > 0)


def test_shapes_are_enough():
    assert is_piecewise_linear(jax.nn.relu, jax.ShapeDtypeStruct((10**6, 10**3), jnp.bfloat16))
    assert not is_piecewise_linear(jnp.exp, jax.ShapeDtypeStruct((10**6, 10**3), jnp.bfloat16))


def test_closing_over_tracers():
    found = []

    def traced(w, x):
        found.extend([is_piecewise_linear(lambda x: x @ w, x), is_piecewise_linear(lambda x: x @ (w * x[:, None]), x)])
        return x

    jax.jit(traced)(W, X)
    jax.grad(lambda w: traced(w, X).sum())(W)
    jax.vmap(traced)(jnp.stack([W, W]), jnp.stack([X, X]))
    assert found == [True, False] * 3


@pytest.mark.parametrize("f", [3, None, "relu"])
def test_f_must_be_callable(f):
    with pytest.raises(TypeError, match="f must be a function"):
        inspect.unwrap(is_piecewise_linear)(f, X)


class Head(nnx.Module):
    """Convolution, batch normalisation, pooling, dense layers: a real head, as users write one."""

    def __init__(self, activation):
        rngs = nnx.Rngs(0)
        self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.hidden, self.logits = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True)
        self.activation = activation
        self.norm.eval()

    @jax.numpy_rank_promotion("allow")  # Flax does not promise what the tests ask of jaxcam
    @jax.numpy_dtype_promotion("standard")
    def __call__(self, a):
        a = self.activation(self.norm(self.conv(a)))
        a = nnx.avg_pool(nnx.max_pool(a, (3, 3), (2, 2), "SAME"), (2, 2)) + nnx.max_pool(a, (7, 7))[:1, :1]
        return self.logits(self.activation(self.hidden(self.drop(a.mean((0, 1))))))


@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.relu6, partial(jnp.maximum, 0.0), nnx.leaky_relu])
def test_real_heads_are_proven(activation):
    head, a = Head(activation), jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)
    assert is_piecewise_linear(head, a)
    assert is_piecewise_linear(nnx.jit(head), a)
    assert not is_piecewise_linear(lambda a: jax.nn.softmax(head(a)), a)


@pytest.mark.parametrize("activation", [jax.nn.gelu, jax.nn.silu, jnp.tanh, jax.nn.softplus])
def test_smooth_heads_are_not_proven(activation):
    assert not is_piecewise_linear(Head(activation), jax.ShapeDtypeStruct((8, 8, 3), jnp.float32))


UNARY = [
    *(
        LINEAR[name]
        for name in ("affine", "relu", "abs", "times a step", "sort", "cumsum, cummax", "where on a square")
    ),
    *(
        LINEAR[name]
        for name in ("update at an index", "checkpoint", "loop of known length", "cond", "straight-through")
    ),
    *(BENT[name] for name in ("x·x", "exp", "cumprod", "loop product", "cond with a bent branch", "custom_jvp, rule")),
    *(BENT[name] for name in ("branch squared", "x·stop_gradient(x)", "x·mean(x)", "silu", "custom_jvp, body")),
    jnp.floor,
    jnp.sign,
    lax.stop_gradient,
    lambda x: jnp.full_like(x, x[jnp.argmax(x)]),
]
BINARY = [
    jnp.add,
    jnp.multiply,
    jnp.maximum,
    lambda x, y: jnp.where(x > y, x, 2 * y),
    lambda x, y: x / (1 + jnp.abs(y)),
    lambda x, y: jnp.convolve(x, y, mode="same"),
    lambda x, y: lax.cond(x[0] > y[0], lambda: x, lambda: y),
]
STEP = st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_proof_of_a_random_program_holds(steps, seed):
    def program(x):
        values = [x]
        for function, first, second in steps:
            operands = [values[-1 - first % len(values)], values[-1 - second % len(values)]]
            values.append(function(*operands[: 2 if function in BINARY else 1]))
        return values[-1].sum()

    if not is_piecewise_linear(program, X):
        return
    step = 1e-5

    @jax.jit
    def run(x, v):
        f = jax.vmap(program)
        slope = partial(partial, lambda f, x: jax.jvp(f, (x,), (v,))[1])
        return [f(x + s * v) for s in (-step, 0, step)], slope(slope(f))(x), slope(slope(slope(f)))(x)

    (before, here, after), second, third = run(*np.random.default_rng(seed).normal(size=(2, 4, 6)))
    # Of the values: second differences over a step that hardly ever meets a kink.
    bent = np.abs(before - 2 * here + after) > 1e-11 * (1 + np.abs(here))
    assert bent.sum() <= 1
    # Of JAX's derivatives: second ones along the same lines, and third.
    np.testing.assert_array_equal(second, 0)
    np.testing.assert_array_equal(third, 0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a: a.mean(0) @ jnp.ones((4, 2)) + 3, True),
        (lambda a: jax.jit(lambda b: 2 * b.sum())(a), True),
        (lambda a: jax.lax.scan(lambda c, b: (c + b, c), jnp.zeros(4), a)[0], True),
        (lambda a: jnp.floor(a), True),  # its slope is 0 everywhere
        (lambda a: jax.nn.relu(a), False),
        (lambda a: a.max(0), False),
        (lambda a: a * a, False),
        (lambda a: jnp.tanh(a), False),
        (lambda a: jnp.where(a > 0, a, 0.1 * a), False),
        (lambda a: a * jnp.sign(a), False),
    ],
)
def test_a_slope_that_is_the_same_everywhere(function, expected):
    assert has_constant_slope(function, jnp.zeros((3, 4))) is expected


def test_what_is_no_first_argument_is_a_constant():
    product = lambda a, x: a * jnp.exp(x)
    assert has_constant_slope(product, jnp.zeros(3), jnp.zeros(3))
    assert not has_constant_slope(lambda x, a: product(a, x), jnp.zeros(3), jnp.zeros(3))

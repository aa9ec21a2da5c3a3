"""Heads in which positions meet in sums only: derivatives against nested ones, which know nothing of positions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcam.derivatives import elementwise_derivatives
from jaxcam.derivatives.by_positions import split
from jaxcam.programs.program import straight_line

# Most of the time of these tests is compilation, of the slow ones too; what is compiled runs once.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
K, HEADS = 6, 2
RANDOM = np.random.default_rng(0)


def weights(*shape):
    return RANDOM.normal(size=shape) / np.sqrt(shape[0])


QUERY, KEY, VALUE, OUT, UP, LAST = (weights(K, n) for n in (K, K, K, K, 8, 4))
DOWN = weights(8, K)
TOKEN, GRID = weights(1, K), RANDOM.normal(size=(2, 3, K))


def norm(x):
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


def attention(to, tokens, *, mask=None):
    q = (to @ QUERY).reshape(-1, HEADS, K // HEADS)
    k, v = ((tokens @ w).reshape(-1, HEADS, K // HEADS) for w in (KEY, VALUE))
    scores = jnp.einsum("qhd,khd->hqk", q, k)
    scores = scores if mask is None else jnp.where(mask, scores, -1e30)
    return jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores, -1), v).reshape(-1, K) @ OUT


def block(tokens, activation=jnp.tanh, **options):
    x = norm(tokens)
    tokens = tokens + attention(x, x, **options)
    return tokens + activation(norm(tokens) @ UP) @ DOWN


def logit(token):
    return jnp.sin(norm(token) @ LAST)[2]


def rows(a):
    return a.reshape(-1, K)


def with_token(a):
    return jnp.concatenate([jnp.asarray(TOKEN), rows(a)])


def batched(tokens):
    """As a model has it that takes a batch."""
    return jax.vmap(block)(tokens[None])[0]


def scaled_dot_product(a):
    t = norm(with_token(a))
    q, k, v = ((t @ w).reshape(1, -1, HEADS, K // HEADS) for w in (QUERY, KEY, VALUE))
    return logit(jax.nn.dot_product_attention(q, k, v)[0].reshape(-1, K)[0])


def spread_out(a):
    """A softmax whose sum is written out for all its terms, and whose axes are moved before it is used."""
    e = jnp.exp(rows(a) @ KEY[:, :2])
    w = (e / jnp.broadcast_to(e.sum(0), e.shape)).T.reshape(1, 2, -1)
    return logit((-2 * w[0] @ jnp.tanh(rows(a))).sum(0))


@jax.custom_jvp
def reversal(x):
    return x


reversal.defjvp(lambda primals, tangents: (primals[0], -tangents[0]))


@jax.custom_jvp
def kept(mask, x):
    return jnp.where(mask, x, 2 * x)


kept.defjvp(lambda primals, tangents: (kept(*primals), jnp.where(primals[0], 1, 2) * tangents[1]))


def counted(a):
    """Masks and counts, which stand still, and a sum divided by one number as `lax.div` does it."""
    e = jnp.exp(kept(a > 0, jnp.sin(a)))
    mean = lax.div(jnp.where(a > 0.1, e, 0), e.sum()).sum((0, 1)) * 6
    return logit(mean / (1 + (a > 0.1).sum((0, 1)).astype(a.dtype)))


def in_another_order(a):
    return logit(jnp.tanh(jnp.reshape(a @ UP, (12, 4), order="F")[2:11] @ LAST.T).sum(0))


def pointwise(a):
    kernel = UP.reshape(1, 1, K, 8)
    out = lax.conv_general_dilated(a[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return logit((jnp.tanh(out)[0].mean((0, 1))) @ DOWN)


HEADS_OF = {
    "class token": (lambda a: logit(block(with_token(a))[0]), GRID),
    "class token behind": (lambda a: logit(block(with_token(a)[::-1])[-1]), GRID),
    "ReLU": (lambda a: logit(block(with_token(a), jax.nn.relu)[0]), GRID),
    "GELU": (lambda a: logit(block(with_token(a), jax.nn.gelu)[0]), GRID),
    "in a batch": (lambda a: logit(batched(with_token(a))[0]), GRID),
    "masked": (lambda a: logit(block(with_token(a), mask=np.arange(7) % 3 != 1)[0]), GRID),
    "softmax of logits": (lambda a: jax.nn.softmax(norm(block(with_token(a))[0]) @ LAST)[1], GRID),
    "a learned query": (lambda a: logit(jnp.tanh(norm(attention(TOKEN, rows(a))[0]) @ UP) @ DOWN), GRID),
    "the token is an element": (lambda t: logit(block(t)[0]), RANDOM.normal(size=(5, K))),
    "the last token is an element": (lambda t: logit(block(t)[-1]), RANDOM.normal(size=(5, K))),
    "two tokens are elements": (lambda t: logit(block(t)[:2].mean(0)), RANDOM.normal(size=(5, K))),
    "all tokens, each by itself": (lambda a: logit((jnp.tanh(norm(a) @ UP) @ DOWN).mean((0, 1))), GRID),
    "dense layers as convolutions": (pointwise, GRID),
    "positions twice": (lambda a: logit(attention(TOKEN, jnp.concatenate([rows(a), 2 * rows(a)[::-1]]))[0]), GRID),
    "some positions": (lambda a: logit(attention(TOKEN, rows(a)[1:4])[0]), GRID),
    "a factor that waits": (spread_out, GRID),
    "masks and counts": (counted, GRID),
    "in another order of axes": (in_another_order, GRID),
    "summed with another axis": (
        lambda a: logit(jnp.stack([jnp.tanh(a @ KEY), jnp.sin(a @ VALUE)]).sum((0, 1, 2))),
        GRID,
    ),
    "sums of products": (lambda a: jnp.tanh(jnp.einsum("ijk,ijl->kl", a, jnp.tanh(a @ UP))).sum(), GRID),
}  # fmt: skip
MIXED = {
    "all tokens behind attention": (lambda a: logit(block(rows(a)).mean(0)), GRID),
    "one after the other": (lambda a: logit(jnp.tanh(jnp.cumsum(rows(a), 0)).mean(0)), GRID),
    "a rule with another slope": (lambda a: logit(reversal(jnp.tanh(rows(a))).mean(0)), GRID),
    "in a loop": (lambda a: lax.fori_loop(0, 2, lambda _, x: reversal(jnp.sin(x)), logit(rows(a).mean(0))), GRID),
    "the largest": (lambda a: logit(jnp.tanh(rows(a) @ KEY).max(0)), GRID),
    "rows of columns": (lambda a: logit(jnp.tanh(jnp.tanh(a).sum(0)).sum(0)), GRID),
}


def program(f, a):
    return straight_line(jax.make_jaxpr(f)(a))


QUICK = ("class token",)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.thorough) for n in HEADS_OF])
def test_sums_are_found_and_their_derivatives_are_the_nested_ones(name):
    f, a = HEADS_OF[name]
    assert split(program(f, a)) is not None
    run = jit(lambda a: [elementwise_derivatives(f, a, method=method) for method in ("auto", "jvp")])
    for found, expected in zip(*run(a), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-11 * np.abs(expected).max(), rtol=0)


@pytest.mark.thorough
def test_the_attention_of_jax():
    # It sums in float32 whatever it is given: a wider head would not tell more.
    a = GRID.astype(np.float32)
    f = jax.tree_util.Partial(scaled_dot_product)
    with jax.numpy_dtype_promotion("standard"):
        assert split(program(f, a)) is not None
        run = jit(lambda a: [elementwise_derivatives(f, a, method=method) for method in ("auto", "jvp")])
        for found, expected in zip(*run(a), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.sample(6, first=3)
def test_what_meets_in_other_ways_is_left_alone(name):
    f, a = MIXED[name]
    assert split(program(f, a)) is None
    run = jit(lambda a: [elementwise_derivatives(f, a, method=method) for method in ("auto", "jvp")])
    for found, expected in zip(*run(a), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max(), rtol=0)


@pytest.mark.thorough
def test_batches_parameters_orders_and_chunks():
    a = np.stack([GRID, GRID[::-1], 2 * GRID])

    def found(scale, **options):
        f = lambda a: logit(block(with_token(a) * scale)[0])
        return jax.vmap(lambda a: elementwise_derivatives(f, a, order=2, **options)[1])(a).sum()

    run = jit(
        lambda s: [
            jax.value_and_grad(lambda s, o=o: found(s, **o))(s) for o in ({}, {"method": "jvp"}, {"chunk_size": 12})
        ]
    )
    whole, *others = run(1.3)
    for other in others:
        np.testing.assert_allclose(whole, other, rtol=1e-9)


@pytest.mark.thorough
def test_cost_is_passes_for_channels_and_one_token_for_each_element():
    def flops(tokens, method):
        a = RANDOM.normal(size=(tokens, K))
        f = lambda a: elementwise_derivatives(
            lambda a: logit(block(with_token(a))[0]), a, method=method, chunk_size=10**6
        )
        return jax.jit(f).lower(a).compile().cost_analysis()["flops"]

    # Of everything that goes through the block for each element there is a share of one token left.
    assert flops(16, "auto") < 0.2 * flops(16, "jvp")
    assert flops(32, "auto") < 2.5 * flops(16, "auto")

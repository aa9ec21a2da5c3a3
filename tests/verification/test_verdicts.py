"""Verdicts of random heads, whose truth is known by construction and by brute force in float64: none is false."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import scores
from jaxcam.verification.verify import verify

TYPES = {"float64": jnp.float64, "float32": jnp.float32, "bfloat16": jnp.bfloat16}
SCORES = ["exp", "softmax", "log_softmax"]
SHAPE = (2, 2, 2)
EASY = 1
"""So many of the heads are in the default suite."""
KINK = 290
"""One at which third differences agree by chance, over three steps, with a kink in their stencils."""
NUM_HEADS = int(os.environ.get("JAXCAM_NUM_HEADS", "24"))
"""So many in the thorough tests; each takes seconds. JAXCAM_NUM_HEADS=312 tries more of them."""


@jax.custom_jvp
def leaky(x):
    return jnp.where(x > 0, x, x / 4)


leaky.defjvp(lambda primals, tangents: (leaky(*primals), jnp.where(primals[0] > 0, tangents[0], tangents[0] / 4)))

LINEAR = {"relu": jax.nn.relu, "leaky": leaky, "none": lambda x: x}
SMOOTH = {"gelu": jax.nn.gelu, "tanh": jnp.tanh}


def in_place(step, x):
    return step(step(x))


def in_scan(step, x):
    return jax.lax.scan(lambda carry, _: (step(carry), None), x, None, length=2)[0]


def in_cond(step, x):
    return jax.lax.cond(x.sum() > -1e9, lambda x: step(step(x)), lambda x: -x, x)


WAYS = {"in place": in_place, "scan": in_scan, "cond": in_cond}


def case(number):
    """Two layers that compute in a type of their own, within float64, and whether they are piecewise linear."""
    random = np.random.default_rng(number)
    kind = random.choice(["linear", "smooth"], p=[0.7, 0.3])
    activation = (LINEAR if kind == "linear" else SMOOTH)[random.choice(list(LINEAR if kind == "linear" else SMOOTH))]
    way, dtype = WAYS[random.choice(list(WAYS))], TYPES[random.choice(list(TYPES))]
    score, class_idx = str(random.choice(SCORES)), int(random.integers(3))
    weights, kernel = random.normal(size=(8, 8)) / 3, random.normal(size=(8, 3))
    offsets = random.choice([0, 5, 26]) * np.array([1.0, 0.0, -0.5])
    if dtype != jnp.float64:  # numbers that the type has: the head in float64 is the same function
        weights = np.asarray(jnp.asarray(weights, dtype), float)
    a = np.abs(random.normal(size=SHAPE))

    def head(a, dtype=dtype):
        def layer(x):
            return x + activation((x.astype(dtype) @ jnp.asarray(weights, dtype)).astype(dtype)).astype(x.dtype)

        return way(layer, a.reshape(-1)) @ kernel + offsets

    return head, a, class_idx, score, kind == "linear", np.dtype(dtype).name


def gap_by_brute_force(head, a, class_idx, score):
    """The largest relative difference of the closed form's alphas from the exact ones, where d1 > 0."""
    exact_head = lambda x: head(x, jnp.float64)
    f = lambda x: scores.resolve(score)(exact_head(x), class_idx)
    d1, d2, d3 = (np.asarray(d) for d in jax.jit(lambda x: derivatives(f, x))(a))
    s, logits = (np.asarray(x) for x in jax.jit(lambda x: (jax.jacobian(exact_head)(x), exact_head(x)))(a))
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    mean = np.tensordot(p, s, 1)
    u, v, t = s[class_idx] - mean, np.tensordot(p, (s - mean) ** 2, 1), np.tensordot(p, (s - mean) ** 3, 1)
    g = s[class_idx]
    form = {"exp": (g**2, g**3), "softmax": (u**2 - v, u**3 - 3 * u * v - t), "log_softmax": (-v, -t)}[score]
    sums = a.sum((0, 1))
    exact, closed = (x / (2 * x + sums * y) for x, y in ((d2, d3), form))
    size = np.maximum(np.abs(exact), np.abs(closed))
    return (np.abs(exact - closed) / size)[d1 > 0].max(initial=0)


def derivatives(f, a):
    flat = lambda x: f(x.reshape(SHAPE))
    x = a.reshape(-1)
    third = jax.jacfwd(jax.hessian(flat))(x)
    d = jax.grad(flat)(x), jnp.diagonal(jax.hessian(flat)(x)), jnp.einsum("iii->i", third)
    return tuple(each.reshape(SHAPE) for each in d)


@pytest.mark.parametrize(
    "number",
    [n if n < EASY else pytest.param(n, marks=pytest.mark.thorough) for n in sorted({*range(NUM_HEADS), KINK})],
)
def test_no_verdict_is_false(number):
    head, a, class_idx, score, linear, dtype = case(number)
    v = verify(head, a, class_idx, score=score, num_sampled=8)
    assert (v.precision, v.precision_known) == (dtype, True)
    about_form, about_derivatives = v.sentences[0], v.sentences[1]
    assert "contradicted" not in about_form
    assert "contradict " not in about_derivatives
    if "exact on this head" in about_form:
        assert linear
    if "does not hold" in about_form:
        assert not linear
        assert gap_by_brute_force(head, a, class_idx, score) > 1e-6
    if "agrees here" in about_form and dtype == "float64":
        assert gap_by_brute_force(head, a, class_idx, score) < 1e-6


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def sine(x, phase):
    """In float32, by a program that is none of JAX's."""
    function = lambda v: np.sin(np.float32(v + phase)).astype(float)
    return jax.pure_callback(function, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="broadcast_all")


@sine.defjvp
def _(phase, primals, tangents):
    return sine(primals[0], phase), sine(primals[0], phase + np.pi / 2) * tangents[0]


@pytest.mark.thorough
def test_a_head_whose_precision_cannot_be_read_is_not_judged():
    a = np.abs(np.random.default_rng(0).normal(size=(2, 1, 1)))
    v = verify(lambda a: jnp.stack([sine(a.mean(), 0.0), a.sum()]), a, 0)
    assert not v.precision_known
    assert v.sentences[0].startswith("Closed form not decided: alphas differ by up to")
    assert "a precision that is not known" in v.sentences[0]
    assert "contradict" not in v.verdict
    assert "The head computes in float64 or less" in str(v)


@pytest.mark.thorough
def test_an_improbable_class_is_no_contradiction():
    # p_c = 4e-12: d2 and d3 of log p_c are those of the likeliest class, and keep their digits.
    a, kernel = np.abs(np.random.default_rng(0).normal(size=(2, 2, 3))), np.random.default_rng(1).normal(size=(3, 3))
    for score in ("softmax", "log_softmax"):
        v = verify(lambda a: a.mean((0, 1)) @ kernel - np.array([0.0, 26.0, 26.0]), a, 1, score=score, num_sampled=4)
        assert v.closed_form_holds
        assert v.closed_form_gap < 1e-11

"""AttnLRP against a network that has the rules written into it, and against the sums that they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import network, normal

import jaxcam
from jaxcam.models.vit import VisionTransformer

D, HEADS, C = 8, 2, 2
SERIES = np.asarray(normal(0, 6, 3))  # six steps in time, a token for each
EMBED, QKV, OUT = normal(1, 3, D), normal(2, 3, D, D), normal(3, D, D)
UP, DOWN, LAST = normal(4, D, 2 * D), normal(5, 2 * D, D), normal(6, D, 5)
BIAS = normal(7, 1, 1, D)


def by_heads(t):
    return t.reshape(*t.shape[:-1], HEADS, -1)


def norm(t, stop=lambda x: x):
    centred = t - t.mean(-1, keepdims=True)
    return centred / stop(jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))


def rms(t):
    return t * jax.lax.rsqrt((t**2).mean(-1, keepdims=True) + 1e-5)


def plain(x, bias=0.0, gelu=jax.nn.gelu):
    """As somebody writes it."""
    t = x @ EMBED + bias
    q, k, v = (by_heads(norm(t) @ QKV[i]) for i in range(3))
    weights = jax.nn.softmax(jnp.einsum("nqhd,nthd->nhqt", q, k) / 2, -1)
    t = t + jnp.einsum("nhqt,nthd->nqhd", weights, v).reshape(t.shape) @ OUT
    gate = jnp.tanh(rms(t) @ UP)
    return (norm(t) @ UP * gate * gelu(rms(t) @ UP) @ DOWN + t).mean(1) @ LAST


@jax.custom_vjp
def half(x):
    return x


half.defvjp(lambda x: (x, ()), lambda _, g: (g / 2,))


@jax.custom_vjp
def gelu(x):
    return jax.nn.gelu(x)


@jax.custom_vjp
def tanh(x):
    return jnp.tanh(x)


gelu.defvjp(lambda x: (jax.nn.gelu(x), x), lambda x, g: (g * jax.nn.gelu(x) / x,))
tanh.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * jnp.tanh(x) / x,))


def with_rules(x, added, bias=0.0, *, constant=False):
    """With zeros added to scores and weights; and these."""
    stop = jax.lax.stop_gradient
    t = x @ EMBED + bias
    q, k, v = (by_heads(norm(t, stop) @ QKV[i]) for i in range(3))
    scores = half(jnp.einsum("nqhd,nthd->nhqt", q, k)) / 2 + added[0]
    weights = jax.nn.softmax(scores, -1)
    weights = (stop(weights) if constant else weights) + added[1]
    mixed = jnp.einsum("nhqt,nthd->nqhd", weights, v)
    t = t + (mixed if constant else half(mixed)).reshape(t.shape) @ OUT
    scaled = t / stop(jnp.sqrt((t**2).mean(-1, keepdims=True) + 1e-5))
    product = half(half(norm(t, stop) @ UP * tanh(scaled @ UP)) * gelu(scaled @ UP))
    return (product @ DOWN + t).mean(1) @ LAST, (scores, weights)


@pytest.mark.parametrize("softmax", ["gradient", "constant"])
@pytest.mark.sample(2)
def test_rules_and_what_they_keep(softmax):
    zeros = (jnp.zeros((1, HEADS, 6, 6)), jnp.zeros((1, HEADS, 6, 6)))

    @jax.jit
    def run(x):
        def logit(x, added):
            logits, inside = with_rules(x[None], added, constant=softmax == "constant")
            return logits[0, C], inside

        gradients, inside = jax.grad(logit, (0, 1), has_aux=True)(x, zeros)
        found = jaxcam.methods.attn_lrp(plain, x, C, softmax=softmax)
        return found, gradients, inside, plain(x[None])[0, C]

    found, (gradient, added), inside, logit = jax.tree.map(np.asarray, run(SERIES))
    np.testing.assert_allclose(found, gradient * SERIES, rtol=1e-8, atol=1e-12)
    scores, weights = ((g * a).sum() for g, a in zip(added, inside, strict=True))
    # What the softmax keeps: what its result was given, less what its scores get.
    kept = 0 if softmax == "constant" else weights - scores
    assert abs(kept) > 1e-3 or softmax == "constant"
    np.testing.assert_allclose(found.sum(), logit - kept, rtol=1e-9)


def test_through_explain_with_biases_and_a_scan():
    """Of each class; the image's relevance is what `explain` calls the gradient."""

    def model(x):
        layer = lambda t, w: (t + jax.nn.softmax(t @ t.swapaxes(1, 2)) @ t @ w, None)
        t, _ = jax.lax.scan(layer, x @ EMBED + BIAS, OUT[None])
        return t.mean(1) @ LAST

    def by_rules(x):
        t = x @ EMBED + BIAS
        t = t + half(jax.nn.softmax(half(t @ t.swapaxes(1, 2))) @ t) @ OUT
        return t.mean(1) @ LAST

    jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: by_rules(x[None])[0]))(SERIES))
    found = jaxcam.explain(model, SERIES[None], method="attn_lrp", class_idx="all")
    np.testing.assert_allclose(found.gradient[0], jacobian * SERIES, rtol=1e-8, atol=1e-12)


@pytest.mark.thorough
def test_vit_port_without_biases_shares_out_its_logit():
    create = lambda _: VisionTransformer(8, 2, depth=2, patch=4, image=12, num_classes=5, rngs=nnx.Rngs(0))
    vit = network(create, dtype=np.float64)
    structure, state = nnx.split(vit)
    for path, leaf in nnx.to_flat_state(state):
        if path[-1] in ("bias", "cls_token", "pos_embed"):
            leaf.set_value(jnp.zeros_like(leaf[...]))
    vit, image = nnx.merge(structure, state), np.asarray(normal(8, 12, 12, 3))
    relevance = lambda vit, x: jaxcam.methods.attn_lrp(vit, x, C, softmax="constant")
    found, logit = jax.jit(lambda vit, x: (relevance(vit, x), vit(x[None])[0, C]))(vit, image)
    assert abs(logit) > 1e-3
    np.testing.assert_allclose(np.asarray(found).sum(), logit, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxcam.methods.attn_lrp(plain, SERIES, 5), ValueError, "class_idx=5 is out of range"),
        (lambda: jaxcam.methods.attn_lrp(plain, SERIES.astype(int), 1), TypeError, "image must be floating point"),
        (lambda: jaxcam.methods.attn_lrp(plain, SERIES, 1, softmax="no"), ValueError, "softmax must be"),
        (lambda: jaxcam.methods.attn_lrp(lambda x: (x @ EMBED).mean(1), SERIES, 1), ValueError, "must have attention"),
        (
            lambda: jaxcam.methods.attn_lrp(lambda x: plain(x, gelu=jnp.cos), SERIES, 1),
            ValueError,
            "there is no rule for cos",
        ),
    ],
)
def test_bad_input(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call()

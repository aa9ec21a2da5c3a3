"""Attention rollout and relevance, against whole matrices in NumPy of weights that the networks here hand out.

Each network is written twice: once to be explained, with attention spelt in some way, and once by hand, where zeros
are added to the weights and `jax.grad` by these gives the gradients.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import network, normal

import jaxcam
from jaxcam.models.vit import VisionTransformer

D, HEADS, P, C = 8, 2, 4, 2
IMAGES = np.asarray(normal(0, 2, 12, 16, 3))  # 3 x 4 patches
EMBED, LAST = normal(1, P * P * 3, D) / 5, normal(2, D, 5)
QKV, OUT = normal(3, 2, 3, D, D), normal(4, 2, D, D) / 2
TOKENS, PLACES, QUERY = normal(7, 3, D), normal(8, 20, D), normal(9, 1, D)
LAYERS = (QKV, OUT)


def norm(t):
    return (t - t.mean(-1, keepdims=True)) / jnp.sqrt(t.var(-1, keepdims=True) + 1e-5)


def by_heads(t):
    return t.reshape(*t.shape[:-1], HEADS, -1)


def weights_of(q, k):
    """`[n, h, q, t]` of tokens `[n, t, h, d]`."""
    return jax.nn.softmax(jnp.einsum("nqhd,nthd->nhqt", q, k) / 2, -1)


def plain(q, k, v):
    return jnp.einsum("nhqt,nthd->nqhd", weights_of(q, k), v)


def fused(q, k, v):
    """By JAX's own function, which computes its softmax in float32."""
    q, k, v = (u.astype(jnp.float32) for u in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, scale=0.5).astype(jnp.float64)


def one_by_one(q, k, v):
    """Each head in a product of its own, normalised by a reciprocal that is kept from being infinite."""
    heads = []
    for h in range(HEADS):
        e = jnp.exp(q[:, :, h] @ k[:, :, h].swapaxes(1, 2) / 2)
        heads.append((e * (1 / jnp.maximum(e.sum(-1, keepdims=True), 1e-30))) @ v[:, :, h])
    return jnp.stack(heads, 2)


def merged(q, k, v):
    """Heads on the axis of the batch, keys first, and a factor as dropout has one; the values on the left."""
    q, k, v = (u.swapaxes(1, 2).reshape(-1, u.shape[1], u.shape[3]) for u in (q, k, v))
    weights = jax.nn.softmax(jnp.einsum("btd,bqd->btq", k, q) / 2, 1) * 1.0
    mixed = jnp.einsum("btd,btq->bdq", v, weights.astype(jnp.float64))
    return mixed.reshape(-1, HEADS, D // HEADS, q.shape[1]).transpose(0, 3, 1, 2)


def masked(q, k, v):
    """With a mask of scores and one of weights that leave everything as it is."""
    everything = jnp.ones((q.shape[1], k.shape[1]), bool)
    scores = jnp.where(everything, jnp.einsum("nqhd,nthd->nhqt", q, k) / 2, -1e30)
    weights = jax.nn.softmax(scores, -1, where=jnp.ones_like(scores, bool))
    return jnp.einsum("nhqt,nthd->nqhd", jnp.where(everything, weights, 0.0), v)


def patches(x):
    x = x.reshape(-1, 3, P, 4, P, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, 12, P * P * 3) @ EMBED


def tokens(x, before, after=0):
    t = patches(x)
    shown = [jnp.broadcast_to(TOKENS[:m], (t.shape[0], m, D)) for m in (before, after)]
    t = jnp.concatenate([shown[0], t, shown[1]], 1)
    return t + PLACES[None, : t.shape[1]]


def block(t, layer, attend):
    qkv, out = layer
    u = norm(t)
    return t + jnp.tanh(attend(*(by_heads(u @ qkv[i]) for i in range(3))).reshape(t.shape) @ out)


def layer(i):
    return [w[i] for w in LAYERS]


def pooled(t, attend):
    """A learnt query that attends to all tokens."""
    query = jnp.broadcast_to(QUERY, (t.shape[0], 1, D))
    return attend(by_heads(query), by_heads(t @ QKV[0, 1]), by_heads(t @ QKV[0, 2])).reshape(-1, D) @ LAST


READ = {
    "class token": lambda t, attend: norm(t)[:, 0] @ LAST,
    "mean": lambda t, attend: norm(t).mean(1) @ LAST,
    "mean of patches": lambda t, attend: norm(t)[:, 2:-1].mean(1) @ LAST,
    "query": lambda t, attend: pooled(norm(t), attend),
}
ROWS = {"class token": [0], "mean": range(15), "mean of patches": range(2, 14), "query": [0]}
"""Two tokens before the patches and one after them."""


def model(x, attend=(plain, plain), read="class token", scanned=False):
    """Two layers, each with its own way of writing attention; a scan has that of the first in both."""
    t = tokens(x, 2, 1)
    if scanned:
        t, _ = jax.lax.scan(lambda t, w: (block(t, w, attend[0]), None), t, LAYERS)
    else:
        for i in range(2):
            t = block(t, layer(i), attend[i])
    return READ[read](t, attend[1])


def with_zeros(x, zeros, read):
    """The same network with something added to its weights, and these."""
    weights, rest = [], iter(zeros)

    def attend(q, k, v):
        weights.append(weights_of(q, k) + next(rest))
        return jnp.einsum("nhqt,nthd->nqhd", weights[-1], v)

    return model(x, (attend, attend), read), weights


@functools.cache
def by_hand(read, class_idx=C, of=None):
    """Rollout and relevance of both images `[2, 3, 4]`, by products of whole matrices."""
    score = of or (lambda logits: logits[:, class_idx])
    num = 3 if read == "query" else 2
    zeros = [jnp.zeros((2, HEADS, 1 if i == 2 else 15, 15)) for i in range(num)]

    @jax.jit
    def run(x, zeros):
        def total(zeros):
            logits, weights = with_zeros(x, zeros, read)
            return score(logits).sum(), weights

        return jax.grad(total, has_aux=True)(zeros)

    gradients, weights = (list(map(np.asarray, each)) for each in run(IMAGES, zeros))
    return combined(gradients, weights, ROWS[read], slice(2, 14))


def combined(gradients, weights, rows, cells, sizes=(3, 4)):
    rollouts, relevances = [], []
    for n in range(len(weights[0])):
        num = weights[0].shape[-1]
        rollout = relevance = np.eye(num)
        for a, g in zip(weights, gradients, strict=True):
            mean, bar = a[n].mean(0), np.maximum(a[n] * g[n], 0).mean(0)
            if len(mean) == num:
                mean = 0.5 * mean + 0.5 * np.eye(num)
                rollout = mean / mean.sum(1, keepdims=True) @ rollout
                relevance = relevance + bar @ relevance
            else:
                rollout, relevance = mean @ rollout, bar @ relevance
        if len(weights[-1][0, 0]) == num:
            relevance = relevance - np.eye(num)
        rollouts.append(rollout[[*rows]].mean(0)[cells].reshape(sizes))
        relevances.append(relevance[[*rows]].mean(0)[cells].reshape(sizes))
    return np.array(rollouts), np.array(relevances)


def check(model, expected, images=IMAGES, *, rtol=1e-8, rollout=True):
    """Both methods of each image, in one compiled function."""
    functions = [jaxcam.attention_rollout, jaxcam.attention_relevance][0 if rollout else 1 :]
    every = lambda x: [function(model, x, C) for function in functions]
    for found, wanted in zip(jax.jit(jax.vmap(every))(images), expected[-len(functions) :], strict=True):
        assert wanted.max() > 0
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol / 1e4)


@pytest.mark.parametrize(
    ("read", "attend", "scanned"),
    [
        ("class token", (plain, merged), False),
        pytest.param("mean", (plain, one_by_one), False, marks=pytest.mark.thorough),
        pytest.param("mean of patches", (masked, fused), False, marks=pytest.mark.thorough),
        pytest.param("query", (jax.checkpoint(plain), plain), True, marks=pytest.mark.thorough),
    ],
)
def test_rollout_and_relevance_by_hand(read, attend, scanned):
    """Each way of reading the tokens at the end, with attention written in several ways."""
    rtol, rollout = 1e-4 if fused in attend else 1e-8, read != "class token"
    check(lambda x: model(x, attend, read, scanned), by_hand(read), rtol=rtol, rollout=rollout)


@pytest.mark.thorough
def test_explain_takes_a_class_for_each_example():
    first, second = (by_hand("class token", c)[1] for c in (C, 4))
    found = jaxcam.explain(model, IMAGES, method="attention_relevance", class_idx=np.array([C, 4]))
    np.testing.assert_allclose(found.cam_map, [first[0], second[1]], rtol=1e-8)
    np.testing.assert_array_equal(found.status, jaxcam.Status.OK)
    expected = jaxcam.maps.resized(jaxcam.maps.normalised(jnp.asarray(second[1])), (12, 16))
    np.testing.assert_allclose(found.heatmap[1], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.thorough
def test_targets_have_their_own_relevance():
    """What tells one class from another, and a class, from one forward pass."""
    difference = lambda outputs, inputs: jnp.stack([outputs[C] - outputs[4], outputs[4]])
    found = jaxcam.explain(model, IMAGES, method="attention_relevance", target=difference)
    contrast = by_hand("class token", of=lambda logits: logits[:, C] - logits[:, 4])[1]
    np.testing.assert_allclose(
        found.cam_map, np.stack([contrast, by_hand("class token", 4)[1]], 1), rtol=1e-8, atol=1e-12
    )


@pytest.mark.thorough
def test_rollout_knows_no_class_and_scores_are_scores():
    expected = by_hand("class token")
    found = jaxcam.explain(model, IMAGES, method="attention_rollout")
    np.testing.assert_allclose(found.cam_map, expected[0], rtol=1e-8)
    softmax = by_hand("class token", of=lambda logits: jax.nn.softmax(logits)[:, C])[1]
    found = jaxcam.explain(model, IMAGES, method="attention_relevance", class_idx=C, score="softmax")
    np.testing.assert_allclose(found.cam_map, softmax, rtol=1e-7, atol=1e-14)


@pytest.mark.thorough
def test_relevance_has_a_derivative():
    function = lambda x: (jaxcam.attention_relevance(model, x, C) * np.arange(12.0).reshape(3, 4)).sum()
    direction = np.asarray(normal(10, 12, 16, 3))

    @jax.jit
    def both(x):
        ends = [function(x + step * direction) for step in (1e-6, -1e-6)]
        return (jax.grad(function)(x) * direction).sum(), (ends[0] - ends[1]) / 2e-6

    found, slope = both(IMAGES[0])
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(found, slope, rtol=1e-5)


def vit_with_zeros(vit, x, zeros, before):
    """The port, layer by layer, with something added to its weights."""
    stages, weights, rest = vit.stages, [], iter(zeros)

    def attend(q, k, v):
        scores = jnp.einsum("nqhd,nthd->nhqt", q, k) / np.sqrt(q.shape[-1])
        weights.append(jax.nn.softmax(scores, -1) + next(rest))
        return jnp.einsum("nhqt,nthd->nqhd", weights[-1], v).reshape(*q.shape[:2], -1)

    split = lambda t, parts: t.reshape(*t.shape[:2], parts, 2, -1)
    t = stages["tokens"](stages["patch_embed"](x))
    for i in range(len(zeros) - (not before)):
        b = stages[f"blocks.{i}"]
        qkv = split(b.attn.qkv(b.norm1(t)), 3)
        mixed = b.attn.proj(attend(*(qkv[:, :, j] for j in range(3))))
        t = t + (mixed if b.ls1 is None else b.ls1(mixed))
        changed = b.mlp(b.norm2(t))
        t = t + (changed if b.ls2 is None else b.ls2(changed))
    t = stages["norm"](t)
    if before:
        return stages["head"](t[:, 0]), weights
    pool = stages["attn_pool"]
    query, kv = pool.q(pool.latent[...]), split(pool.kv(t), 2)
    query = jnp.broadcast_to(query.reshape(1, 1, 2, -1), (x.shape[0], 1, 2, query.shape[-1] // 2))
    t = pool.proj(attend(query, kv[:, :, 0], kv[:, :, 1]))
    return stages["head"]((t + pool.mlp(pool.norm(t)))[:, 0]), weights


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "depth"), [("registers", 1), ("registers", 2), ("map", 2)])
def test_vit_port(kind, depth):
    """With a class token, three registers and scaled branches; and SigLIP's, which pools by attention."""
    registers = 3 if kind == "registers" else 0
    options = {"registers": 3, "has_scale": True} if registers else {"pool": "map"}
    create = lambda _: VisionTransformer(
        8, 2, depth=depth, patch=4, image=12, num_classes=5, rngs=nnx.Rngs(0), **options
    )
    vit, before = network(create, dtype=np.float64), 4 if registers else 0
    images = np.asarray(normal(11, 2, 12, 12, 3))
    zeros = [jnp.zeros((2, 2, n, 9 + before)) for n in ([13] * depth if registers else [9, 9, 1])]

    @jax.jit
    def run(vit, x, zeros):
        def total(zeros):
            logits, weights = vit_with_zeros(vit, x, zeros, before)
            return logits[:, C].sum(), (weights, logits)

        gradients, (weights, logits) = jax.grad(total, has_aux=True)(zeros)
        return gradients, weights, logits, vit(x)

    gradients, weights, logits, expected = run(vit, images, zeros)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)
    wanted = combined(
        list(map(np.asarray, gradients)), list(map(np.asarray, weights)), [0], slice(before, None), (3, 3)
    )
    check(vit, wanted, images)


@pytest.mark.thorough
def test_half_precision_is_added_up_in_float32():
    half = lambda x: model(x).astype(jnp.bfloat16)
    found = jax.jit(lambda x: jaxcam.attention_relevance(half, x, C))(IMAGES[0])
    np.testing.assert_allclose(found, by_hand("class token")[1][0], rtol=0.02)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxcam.attention_relevance(model, IMAGES[0], 5), ValueError, "class_idx=5 is out of range"),
        (lambda: jaxcam.attention_relevance(model, IMAGES[0], 0.5), TypeError, "class_idx"),
        (lambda: jaxcam.attention_relevance(model, IMAGES[0], 0, score="p"), ValueError, "score='p' is not known"),
        (lambda: jaxcam.explain(model, IMAGES, method="attention_rollout", score="exp"), ValueError, "has no score"),
        (lambda: jaxcam.explain(model, IMAGES, method="attention_rollout", layer=0), ValueError, "uses no layer"),
    ],
)
def test_bad_input(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call()

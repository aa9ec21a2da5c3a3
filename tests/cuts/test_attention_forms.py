"""Attention written in other ways keeps the grid of its tokens: the block before an average of them is a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name as tag
from small_vit import (
    COLUMNS,
    HEADS,
    IMAGES,
    LAST,
    ROWS,
    C,
    D,
    attention,
    beside,
    by_hand,
    check,
    layer_weights,
    norm,
    patches,
)

import jaxcam


def query_by_query(t, qkv, out):
    q, k, v = (u.reshape(*u.shape[:-1], HEADS, -1) for u in jnp.split(t @ qkv, 3, -1))

    def one(q):
        return jnp.einsum("nhk,nkhd->nhd", jax.nn.softmax(jnp.einsum("nhd,nkhd->nhk", q, k), -1), v)

    return jnp.moveaxis(jax.lax.map(one, jnp.moveaxis(q, 1, 0)), 0, 1).reshape(t.shape) @ out


def keys_in_chunks(t, qkv, out):
    """With the softmax made up as they come, as in memory-efficient attention."""
    q, k, v = (u.reshape(*u.shape[:-1], HEADS, -1) for u in jnp.split(t @ qkv, 3, -1))
    n, length = t.shape[:2]
    pad = -length % 4
    chunks = [jnp.pad(u, [(0, 0), (0, pad), (0, 0), (0, 0)]).reshape(n, -1, 4, HEADS, D // HEADS) for u in (k, v)]
    shown = np.where(np.arange(length + pad) < length, 0, -1e9).reshape(-1, 4)

    def step(carry, chunk):
        (top, total, sums), (k, v, shown) = carry, chunk
        s = jnp.einsum("nqhd,nkhd->nhqk", q, k) + shown[None, None, None]
        new = jnp.maximum(top, s.max(-1))
        p, scale = jnp.exp(s - new[..., None]), jnp.exp(top - new)
        sums = sums * scale[..., None] + jnp.einsum("nhqk,nkhd->nhqd", p, v)
        return (new, total * scale + p.sum(-1), sums), None

    low = jnp.full((n, HEADS, length), -1e30)
    start = low, jnp.zeros_like(low), jnp.zeros((*low.shape, D // HEADS))
    (_, total, sums), _ = jax.lax.scan(step, start, (*(jnp.moveaxis(u, 1, 0) for u in chunks), shown))
    return jnp.swapaxes(sums / total[..., None], 1, 2).reshape(t.shape) @ out


def averaged(attend):
    """A class token and two blocks, and the average of the patches: the first block, and the rest."""

    def layer(t, i):
        qkv, out, up, down = layer_weights(i)
        t = t + attend(norm(t), qkv, out)
        return t + jax.nn.gelu(norm(t) @ up) @ down

    before = lambda x: layer(beside(patches(x), 1), 0)
    rest = lambda t: norm(layer(t, 1))[:, 1:].mean(1) @ LAST
    return before, rest, lambda x: rest(tag(before(x), "blocks.0"))


@pytest.mark.thorough
@pytest.mark.parametrize("attend", [query_by_query, keys_in_chunks])
def test_one_block_before_an_average_of_tokens(attend):
    """Where all tokens are averaged the block before still has its grid, however its attention is written."""
    before, rest, model = averaged(attend)
    check(model, by_hand(before, rest, slice(1, None)), layer="blocks.0")


@pytest.mark.slow
def test_exact_grad_cam_pp_one_block_before_an_average_of_tokens():
    before, rest, model = averaged(attention)

    @jax.jit
    def exact(x):
        """By each element alone: d/dt, d2/dt2, d3/dt3 of exp(S_c), less the factor exp(S_c) that cancels."""
        t = before(x[None])[0]
        of = lambda a: jnp.exp(rest(jnp.concatenate([t[:1], a])[None])[0, C])

        def along(direction):
            f = lambda z: of(t[1:] + z * direction.reshape(t[1:].shape))
            d1 = lambda z: jax.jvp(f, (z,), (1.0,))[1]
            d2 = lambda z: jax.jvp(d1, (z,), (1.0,))[1]
            return jnp.stack([d1(0.0), *jax.jvp(d2, (0.0,), (1.0,))]) / of(t[1:])

        return t[1:], jax.vmap(along)(np.eye(12 * D))

    a, derivatives = map(np.asarray, exact(IMAGES[0]))
    d1, d2, d3 = derivatives.T.reshape(3, 12, D)
    weights = (d2 / (2 * d2 + a.sum(0) * d3) * np.maximum(d1, 0)).sum(0)
    expected = np.maximum(a @ weights, 0).reshape(ROWS, COLUMNS)
    found = jaxcam.explain(model, IMAGES[:1], class_idx=C, layer="blocks.0", method="grad_cam_pp", alphas="exact")
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map[0], expected, rtol=1e-7, atol=1e-9)

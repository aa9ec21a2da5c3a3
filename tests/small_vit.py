"""A small transformer of pictures, written by hand, and Grad-CAM of it cut by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from support import drawn

import jaxcam

D, HEADS, P = 6, 2, 4
IMAGES = drawn(0, 2, 12, 16, 3)  # 3 x 4 patches
ROWS, COLUMNS = 3, 4
EMBED, LAST = drawn(1, P * P * 3, D) / 7, drawn(2, D, 5)
QKV, OUT, UP, DOWN = drawn(3, 3, D, 3 * D) / 2, drawn(4, 3, D, D), drawn(5, 3, D, 2 * D), drawn(6, 3, 2 * D, D) / 3
TOKEN, PLACES = drawn(7, 3, D), drawn(8, 20, D) / 5
C = 2


def norm(t):
    return (t - t.mean(-1, keepdims=True)) / jnp.sqrt(t.var(-1, keepdims=True) + 1e-5)


def attention(t, qkv, out):
    q, k, v = (u.reshape(*u.shape[:-1], HEADS, -1) for u in jnp.split(t @ qkv, 3, -1))
    weights = jax.nn.softmax(jnp.einsum("...qhd,...khd->...hqk", q, k), -1)
    return jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(t.shape) @ out


def block(t, weights):
    qkv, out, up, down = weights
    t = t + attention(norm(t), qkv, out)
    return t + jax.nn.gelu(norm(t) @ up) @ down


def layer_weights(i):
    return QKV[i], OUT[i], UP[i], DOWN[i]


def patches(x):
    n = x.shape[0]
    x = x.reshape(n, ROWS, P, COLUMNS, P, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, ROWS * COLUMNS, -1) @ EMBED


def patches_by_convolution(x):  # channels first
    kernel = EMBED.reshape(P, P, 3, D)
    out = jax.lax.conv_general_dilated(x, kernel, (P, P), "VALID", dimension_numbers=("NCHW", "HWIO", "NCHW"))
    return out.reshape(*out.shape[:2], -1).swapaxes(1, 2)


def beside(t, before, after=0):
    shown = [jnp.broadcast_to(TOKEN[:m], (t.shape[0], m, D)) for m in (before, after)]
    t = jnp.concatenate([shown[0], t, shown[1]], 1)
    return t + PLACES[None, : t.shape[1]]


def by_hand(tokens, rest, cells=slice(None), sizes=(ROWS, COLUMNS), images=IMAGES):
    """Grad-CAM of class C at tokens(images) `[n, t, k]`, of which `cells` are the grid's: one program."""

    @jax.jit
    def tokens_and_gradient(images):
        t = tokens(images)
        return t, jax.grad(lambda t: rest(t)[:, C].sum())(t)

    a, g = (np.asarray(values)[:, cells] for values in tokens_and_gradient(images))
    return np.maximum((a * g.mean(1, keepdims=True)).sum(-1), 0).reshape(-1, *sizes)


def check(model, expected, images=IMAGES, layer=None):
    found = jaxcam.explain(model, images, class_idx=C, layer=layer)
    assert expected.max() > 0
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(found.status == jaxcam.Status.OK, expected.reshape(len(images), -1).max(1) > 0)

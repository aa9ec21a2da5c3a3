"""Attention found in programs of other libraries, and what of it is refused, by rollout: no gradient to compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import normal

import jaxcam

D, HEADS = 8, 2
SERIES = np.asarray(normal(0, 2, 6, 3))  # six steps in time, a token for each
EMBED, LAST, QKV = normal(1, 3, D), normal(2, D, 5), normal(3, 3, D, D)
OUT, TOKEN, BIAS = normal(4, D, D), normal(5, 1, D), normal(6, 3, D) / 3


def weights_of(q, k):
    return jax.nn.softmax(jnp.einsum("nqhd,nthd->nhqt", q, k) / 2, -1)


def by_heads(t):
    return t.reshape(*t.shape[:-1], HEADS, -1)


def tokens(x):
    t = x @ EMBED
    return jnp.concatenate([jnp.broadcast_to(TOKEN, (len(t), 1, D)), t], 1)


def rollout(x):
    """Of two layers with the same parameters, by whole matrices."""
    t, product = tokens(x), np.eye(7)
    for _ in range(2):
        q, k, v = (by_heads(t @ QKV[i] + BIAS[i][None, None]) for i in range(3))
        weights = weights_of(q, k)
        t = t + jnp.einsum("nhqt,nthd->nqhd", weights, v).reshape(t.shape) @ OUT
        mean = (np.asarray(weights).mean(1) + np.eye(7)) / 2
        product = mean / mean.sum(-1, keepdims=True) @ product
    return product[:, 0, 1:]


def in_nnx():
    layer = nnx.MultiHeadAttention(HEADS, D, decode=False, use_bias=True, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    f32 = lambda a: jnp.asarray(a, jnp.float32)
    for i, part in enumerate((layer.query, layer.key, layer.value)):
        part.kernel[...], part.bias[...] = f32(by_heads(QKV[i])), f32(by_heads(BIAS[i]))
    layer.out.kernel[...], layer.out.bias[...] = f32(OUT.reshape(HEADS, -1, D)), jnp.zeros(D, jnp.float32)
    return lambda t: layer(t.astype(jnp.float32)).astype(jnp.float64)


def in_linen():
    from flax import linen

    layer = linen.MultiHeadDotProductAttention(HEADS, param_dtype=jnp.float64, dtype=jnp.float64)
    parts = {
        name: {"kernel": by_heads(QKV[i]), "bias": by_heads(BIAS[i])}
        for i, name in enumerate(("query", "key", "value"))
    }
    parts["out"] = {"kernel": OUT.reshape(HEADS, -1, D), "bias": jnp.zeros(D)}
    return lambda t: layer.apply({"params": parts}, t)


def in_equinox():
    eqx = pytest.importorskip("equinox")
    layer = eqx.nn.MultiheadAttention(
        HEADS, D, use_query_bias=True, use_key_bias=True, use_value_bias=True, dtype=np.float64, key=jax.random.key(0)
    )
    projections = lambda m: [m.query_proj, m.key_proj, m.value_proj]
    layer = eqx.tree_at(
        lambda m: [*(p.weight for p in projections(m)), *(p.bias for p in projections(m)), m.output_proj.weight],
        layer,
        [*(w.T for w in QKV), *BIAS, OUT.T],
    )
    return jax.vmap(lambda t: layer(t, t, t))


def in_keras():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras has another backend: KERAS_BACKEND=jax")
    layer = keras.layers.MultiHeadAttention(HEADS, D // HEADS, dtype="float64")
    layer.build((1, 7, D), (1, 7, D))
    pairs = [part for i in range(3) for part in (by_heads(QKV[i]), by_heads(BIAS[i]))]
    layer.set_weights([*map(np.asarray, pairs), np.asarray(OUT.reshape(HEADS, -1, D)), np.zeros(D)])
    values = [v.value for v in layer.trainable_variables], [v.value for v in layer.non_trainable_variables]

    def call(t):
        with jax.numpy_rank_promotion("allow"):
            return layer.stateless_call(*values, t, t)[0]

    return call


@pytest.mark.parametrize(
    "library", [in_linen, *(pytest.param(f, marks=pytest.mark.thorough) for f in (in_equinox, in_nnx, in_keras))]
)
def test_layers_of_libraries(library):
    layer = library()

    def model(x):
        t = tokens(x)
        for _ in range(2):
            t = t + layer(t)
        return t[:, 0] @ LAST

    found = jax.jit(jax.vmap(lambda x: jaxcam.attention_rollout(model, x)))(SERIES)
    np.testing.assert_allclose(found, rollout(SERIES), rtol=1e-8 if library in (in_linen, in_equinox) else 1e-3)


def attend(q, k, v):
    return jnp.einsum("nhqt,nthd->nqhd", weights_of(q, k), v)


def mixed(t, queries=None, values=None, attend=attend):
    """A layer of attention."""
    queries, values = t if queries is None else queries, t if values is None else values
    q, k, v = by_heads(queries @ QKV[0]), by_heads(t @ QKV[1]), by_heads(values @ QKV[2])
    return queries + attend(q, k, v).reshape(queries.shape) @ OUT


def windows(t):
    return mixed(t.reshape(-1, 3, D)).reshape(-1, 6, D)


def talking(q, k, v):
    weights = jnp.einsum("nhqt,hg->ngqt", weights_of(q, k), normal(7, HEADS, HEADS))
    return jnp.einsum("nhqt,nthd->nqhd", weights, v)


def over_queries(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("nqhd,nthd->nhqt", q, k), -2)
    return jnp.einsum("nhqt,nthd->nqhd", weights, v)


def in_a_loop(t):
    return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, mixed(s[1])), (0, t))[1]


def gated(t):
    return t * jax.nn.softmax(t @ normal(8, D, 1), 1)


def over_channels(t):
    weights = jax.nn.softmax(jnp.einsum("nta,ntb->nab", t, t), -1)
    return jnp.einsum("nab,ntb->nta", weights, t)


def queries_of_their_own(t):
    """A decoder: learnt queries look at the tokens, and once more."""
    queries = jnp.broadcast_to(normal(9, 4, D), (len(t), 4, D))
    return mixed(t, mixed(t, queries))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda t: t, "must have attention over the positions of the input"),
        (over_channels, "must have attention over the positions of the input"),
        (windows, "within windows or parts of the grid"),
        (lambda t: mixed(mixed(t)[:, ::2]), "its tokens are others than those of the first layer"),
        (lambda t: mixed(t[:, 1:4]), "its tokens are not each position of the grid once"),
        (lambda t: mixed(t[:, ::2], t), "its queries are other positions than its keys"),
        (lambda t: mixed(t, values=t[:, ::-1]), "its values are of other positions than its keys"),
        (lambda t: mixed(t, attend=talking), "does more than weigh values"),
        (lambda t: mixed(t, attend=over_queries), "not normalised over the keys"),
        (gated, "does more than weigh values"),
        (in_a_loop, "inside of a while"),
        (queries_of_their_own, "its queries are no tokens of the grid, and other attention follows"),
        (lambda t: mixed(jnp.sort(t, 1)), "does not show which positions"),
        (lambda t: jnp.sort(mixed(t), 1)[:, :1], "does not show which of its tokens are read"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: jaxcam.attention_rollout(lambda x: layers(x @ EMBED).mean(1) @ LAST, x), SERIES[0])

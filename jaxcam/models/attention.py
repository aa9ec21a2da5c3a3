"""The layers of transformers: attention written out, the block of two residual branches, layer scale.

Everything is dot products, reshapes and a softmax, in torch's arithmetic: no fused attention, whose axes nobody could
read off the program. Tokens are `[n, t, k]`.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.models.modules import LayerNorm


def attended(
    queries: Float[Array, "n q h d"],
    keys: Float[Array, "n t h d"],
    values: Float[Array, "n t h d"],
    *,
    bias: Float[Array, "w h q t"] | None = None,
) -> Float[Array, "n q k"]:
    """softmax(Q Kᵀ / √d + bias) V for each of h heads, side by side along the channels.

    **Source**: Vaswani et al. 2017, Eq. 1. With a bias, n is a whole number of times w: the i-th of n has the bias of
    i mod w.
    """
    num, length, heads, width = queries.shape
    scores = jnp.einsum("nqhd,nthd->nhqt", queries * width**-0.5, keys)
    if bias is not None:
        scores = (scores.reshape(-1, *bias.shape) + bias[None]).reshape(scores.shape)
    mixed = jnp.einsum("nhqt,nthd->nqhd", jax.nn.softmax(scores, axis=-1), values)
    return mixed.reshape(num, length, heads * width)


class Attention(nnx.Module):
    """Self-attention: every token becomes a mean of all. **Source**: Vaswani et al. 2017, Section 3.2.2."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "n t k"]) -> Float[Array, "n t k"]:
        """The mixed tokens."""
        num, length, width = x.shape
        qkv = self.qkv(x).reshape(num, length, 3, self.heads, width // self.heads)
        return self.proj(attended(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]))


class MLP(nnx.Module):
    """Two linear layers with a GELU between them, position by position."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(width, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Float[Array, "*n k"]) -> Float[Array, "*n k"]:
        """The layer, applied."""
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class LayerScale(nnx.Module):
    """A learnt factor for each channel. **Source**: Touvron et al. 2021, "Going deeper with image transformers"."""

    def __init__(self, width: int, value: float = 1e-5) -> None:
        self.gamma = nnx.Param(jnp.full(width, value, jnp.float32))

    def __call__(self, x: Float[Array, "n t k"]) -> Float[Array, "n t k"]:
        """The layer, applied."""
        return x * self.gamma[...].reshape(1, 1, -1)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)). **Source**: Dosovitskiy et al. 2021, Eq. 2 and 3."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: int = 4, has_scale: bool = False, rngs: nnx.Rngs) -> None:
        self.norm1 = LayerNorm(width, epsilon=1e-6)
        self.attn = Attention(width, heads, rngs=rngs)
        self.ls1 = LayerScale(width) if has_scale else None
        self.norm2 = LayerNorm(width, epsilon=1e-6)
        self.mlp = MLP(width, mlp_ratio * width, rngs=rngs)
        self.ls2 = LayerScale(width) if has_scale else None

    def __call__(self, x: Float[Array, "n t k"]) -> Float[Array, "n t k"]:
        """Both branches."""
        mixed = self.attn(self.norm1(x))
        x = x + (mixed if self.ls1 is None else self.ls1(mixed))
        changed = self.mlp(self.norm2(x))
        return x + (changed if self.ls2 is None else self.ls2(changed))


class AttentionPool(nnx.Module):
    """Pooling by a learnt query that attends to all tokens, and an MLP. **Source**: Zhai et al. 2022, Section 3.

    "Scaling vision transformers", where it is called multihead attention pooling (MAP); SigLIP's head.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.latent = nnx.Param(nnx.initializers.normal(width**-0.5)(rngs.params(), (1, 1, width)))
        self.q = nnx.Linear(width, width, rngs=rngs)
        self.kv = nnx.Linear(width, 2 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=1e-6)
        self.mlp = MLP(width, 4 * width, rngs=rngs)

    def __call__(self, x: Float[Array, "n t k"]) -> Float[Array, "n k"]:
        """The pooled token."""
        num, length, width = x.shape
        split = (self.heads, width // self.heads)
        query = jnp.broadcast_to(self.q(self.latent[...]).reshape(1, 1, *split), (num, 1, *split))
        keys_values = self.kv(x).reshape(num, length, 2, *split)
        pooled = self.proj(attended(query, keys_values[:, :, 0], keys_values[:, :, 1]))
        return (pooled + self.mlp(self.norm(pooled))).reshape(num, width)

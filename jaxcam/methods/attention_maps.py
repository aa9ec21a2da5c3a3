"""Maps from the attention of a transformer: rollout, and relevance by the gradient of each weight. For one image.

Neither changes the model: its program is read (`jaxcam.cuts.attentions`), the weights A `[h, q, t]` of each layer are
values in it, and their gradient is that by a zero added to them. Both multiply the layers, first to last, and assume a
residual connection around each. The row that is read at the end is the class token's, found by what reaches the score;
the mean over those of all tokens that reach it where tokens are averaged; and where a learnt query pools them, as in
SigLIP, or the class token alone is the query of the last layer, that layer's weights times the product of the others.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.cuts.attentions import Attention, attention_of
from jaxcam.cuts.cut import Network, network
from jaxcam.precision import widened
from jaxcam.programs.notes import note
from jaxcam.programs.specs import varied

__all__ = ["attention_relevance", "attention_rollout"]


def attention_rollout(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx | None = None,
) -> Float[Array, "*spatial"]:
    """Attention rollout: how much of each patch is in the token that is read, if every layer only mixed tokens.

    Â = (mean_h A_h + I) / 2, its rows divided by their sums, and R = Â_L ... Â_2 Â_1; the map is the row of R of the
    class token, without its own entry and those of registers. It knows no class, and no gradient.

    Args:
        model: as for `jaxcam.explain`, with self-attention between all tokens in every layer.
        image: I, one image as the model takes it, `[H, W, 3]`; or a series, a volume.
        class_idx: is not used, and taken as by all methods that are given a model.

    Returns:
        The map on the grid of patches `[*spatial]`, not negative; over all tokens a row of R sums to 1.

    Raises:
        ValueError: the model has no attention over positions, or one that cannot be multiplied along the layers:
            windows, cross-attention, tokens that are merged or dropped, weights inside of a loop or of one fused
            operation.

    **Source**: Abnar and Zuidema 2020 (Quantifying Attention Flow in Transformers), Eq. 1 and section 3.
    """
    _, attention, operands = _read(model, image)
    _, zeros = varied((operands, attention.zeros()))
    _, weights = attention(operands, zeros)
    averaged = [a.mean(0) for a in _alike(weights)]
    row, tokens = _read_off(attention, averaged)
    identity = jnp.eye(attention.num_tokens, dtype=row.dtype)
    for a in reversed(tokens):  # the row times the last layer first: no matrix is multiplied with another
        mixed = (a + identity) / 2
        row = _times(row, mixed / mixed.sum(-1, keepdims=True))
    return _on_grid(attention, row, weights[-1])


def attention_relevance(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score = "logit",
) -> Float[Array, "*spatial"]:
    """Relevance through attention, for a class: of every layer what its weights add to the score.

    Ā = mean_h ReLU(dY/dA_h ∘ A_h), and R <- R + Ā R from R = I, first layer to last; the map is the row of R - I of the
    class token, without its own entry and those of registers. For tokens that are averaged the mean of the rows of
    R - I: what each token began with, the same everywhere, is left out.

    This is the method of the later of two papers of 2021 by the same authors. The earlier one ("Transformer
    Interpretability Beyond Attention Visualization") has in the place of A a relevance that is propagated through the
    whole network by rules for every layer.

    Args:
        model: as for `attention_rollout`.
        image: I, one image as the model takes it, `[H, W, 3]`.
        class_idx: c, static or traced; of a target's scores the one that is explained.
        score: Y: "logit" (the paper's), "exp", "softmax", "log_softmax", or a callable (logits, class_idx) -> scalar.

    Returns:
        The map on the grid of patches `[*spatial]`, not negative.

    Raises:
        ValueError: as `attention_rollout`; or class_idx is out of range.
        TypeError: as `jaxcam.explain`.

    **Source**: Chefer et al. 2021 (Generic Attention-model Explainability), Eq. 5, 6 and 8.
    """
    whole, attention, operands = _read(model, image)
    logits = jax.eval_shape(whole, jnp.asarray(image))
    scores.check_class_idx(class_idx, logits.shape[0])
    function = scores.resolve(score)

    def explained(added: list[Array]) -> tuple[Array, list[Array]]:
        logits, weights = attention(operands, added)
        return function(logits, class_idx), weights

    _, zeros = varied((operands, attention.zeros()))
    gradients, weights = jax.grad(explained, has_aux=True)(zeros)
    note("has_gradient", lambda: jnp.stack([(g != 0).any() for g in gradients]).any())
    relevant = [jax.nn.relu(g * a).mean(0) for g, a in zip(_alike(gradients), _alike(weights), strict=True)]
    row, tokens = _read_off(attention, relevant)
    added = jnp.zeros_like(row)  # to the row as it is: that of R - I, without taking a difference
    for a in reversed(tokens):
        added = added + _times(row + added, a)
    return _on_grid(attention, row + added if attention.pools else added, weights[-1])


def _alike(layers: list[Array]) -> list[Array]:
    """The layers in the widest type of theirs, float32 at least."""
    wide = widened(*layers)
    common = np.result_type(*(layer.dtype for layer in wide))
    return [layer.astype(common) for layer in wide]


def _read_off(attention: Attention, layers: list[Array]) -> tuple[Array, list[Array]]:
    """The row `[t]` that is read at the end, as it is after the last layer of tokens, and these layers `[t, t]`."""
    rows = np.asarray(attention.rows)
    if attention.pools:
        return layers[-1][rows].mean(0), layers[:-1]
    start = np.zeros(attention.num_tokens)
    start[rows] = 1 / rows.size
    return jnp.asarray(start, layers[-1].dtype), layers


def _times(row: Float[Array, " t"], matrix: Float[Array, "t t"]) -> Float[Array, " t"]:
    return jnp.dot(row, matrix, precision=jax.lax.Precision.HIGHEST)


def _on_grid(attention: Attention, row: Float[Array, " t"], weights: Array) -> Float[Array, "*spatial"]:
    """What of a row belongs to patches, where they are in the image, in the type of the weights."""
    return row[np.asarray(attention.places)].reshape(attention.sizes).astype(weights.dtype)


def _read(model: object, image: Any) -> tuple[Network, Attention, list[Array]]:
    """The network of one image, its attention, and what its program is run on."""
    image = jnp.asarray(image)
    whole = network(model, image)
    return whole, attention_of(whole), [*jax.tree.leaves(whole.model), *whole.inputs(image)]

"""Methods without gradients, which ask the network what changes: Ablation-CAM and Score-CAM.

Both run it once for every channel, `chunk_size` of them at a time: memory is that of one chunk.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.checks import check_integer
from jaxcam.cuts.cut import cut
from jaxcam.cuts.layers import LayerName
from jaxcam.derivatives.of_score import head_of, scaled_score
from jaxcam.maps import resized, weighted_map
from jaxcam.precision import widened
from jaxcam.types import Head

_CHUNK_SIZE = 32


def ablation_cam(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score = "logit",
    chunk_size: int | None = None,
) -> Float[Array, "*spatial"]:
    """Ablation-CAM: weights w_k = (Y - Y_k) / Y, the share of the score that is lost without channel k.

    Args:
        head: A -> logits `[c]`, for one image.
        activations: A, `[*spatial, k]`.
        class_idx: c, static or traced.
        score: Y, as for `grad_cam`.
        chunk_size: how many channels at a time, 32 unless given.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised. Y is a factor of the whole map, and its magnitude
        is divided by: for a negative Y the paper's formula shows what speaks against the class. Y = 0: no division.

    Raises:
        ValueError, TypeError: as `grad_cam`, and for a chunk_size that is not an integer from 1.

    **Source**: Desai and Ramaswamy 2020 (Ablation-CAM), Eq. 3 and 4.
    """
    head = head_of(head, activations, class_idx)
    # For score="exp" divided by exp(S_c), which cancels: no logit, however large, overflows.
    of, num_channels = scaled_score(head, activations, class_idx, score=score), activations.shape[-1]

    def function(a: Array) -> Array:
        return widened(of(a))[0]

    def without(channel: Array) -> Array:
        kept = jnp.arange(num_channels, dtype=channel.dtype) != channel
        return function(jnp.where(kept, activations, jnp.zeros((), activations.dtype)))

    whole = function(activations)
    size = jnp.where(whole != 0, jnp.abs(whole), 1)
    weights = (whole - _over_channels(without, num_channels, chunk_size)) / size
    return weighted_map(weights, activations)


def score_cam(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    layer: LayerName = None,
    score: str | scores.Score = "logit",
    chunk_size: int | None = None,
) -> Float[Array, "*spatial"]:
    """Score-CAM: weights softmax_k(Y(I ∘ H_k) - Y(0)), with H_k the channel enlarged to the image and scaled to [0, 1].

    What is masked becomes 0 in the normalised image, the mean colour of the training pictures. The score of the empty
    image, Y(0), is the same for all channels and cancels in the softmax.

    The authors' released code does something else: its weights are the probabilities of the masked images themselves,
    without a softmax over the channels, and it adds the enlarged channels. The grad-cam package follows the paper, with
    channels enlarged corner to corner, and 1e-8 added to the range that they are divided by.

    Args:
        model: as for `jaxcam.explain`.
        image: I, one image as the model takes it, `[H, W, 3]`.
        class_idx: c, static or traced.
        layer: whose channels are the masks; None for the model's default.
        score: Y.
        chunk_size: how many channels, and so forward passes, at a time; 32 unless given.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised. A constant channel masks everything: H_k = 0.

    Raises:
        TypeError: the image is not floating point.
        ValueError, TypeError: as `jaxcam.explain`, and for a chunk_size that is not an integer from 1.

    **Source**: Wang et al. 2020 (Score-CAM), Eq. 4 to 8 and Algorithm 1.
    """
    halves = cut(model, image, layer=layer)
    image = jnp.asarray(image)
    activations, _ = halves.features(image)
    logits = jax.eval_shape(halves.network, image)
    scores.check_class_idx(class_idx, logits.shape[0])
    function = scores.resolve(score)

    def masked(channel: Array) -> Array:
        h = jax.lax.dynamic_index_in_dim(activations, channel, axis=-1, keepdims=False)
        h = resized(h, halves.network.size(image))
        low, span = h.min(), h.max() - h.min()
        mask = jnp.where(span > 0, (h - low) / jnp.where(span > 0, span, 1), 0).astype(image.dtype)
        (logits,) = widened(halves.network(image * jnp.expand_dims(mask, halves.network.channel_axis)))
        return function(logits, class_idx)

    weights = jax.nn.softmax(_over_channels(masked, activations.shape[-1], chunk_size))
    return weighted_map(weights, activations)


def _over_channels(function: Callable[[Array], Array], num_channels: int, chunk_size: int | None) -> Float[Array, " k"]:
    size = check_integer("chunk_size", _CHUNK_SIZE if chunk_size is None else chunk_size, low=1)
    channels = jnp.arange(num_channels, dtype=jnp.int32)
    if size >= num_channels:
        return jax.vmap(function)(channels)
    return jax.lax.map(function, channels, batch_size=size)

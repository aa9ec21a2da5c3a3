"""CAM and Grad-CAM: a weight for each channel, from a kernel or from the mean of the gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.derivatives.of_score import gradient_of_score
from jaxcam.maps import weighted_map
from jaxcam.precision import widened
from jaxcam.scores import ClassIdx, Score, check_class_idx
from jaxcam.types import Head


def cam(
    head_kernel: Float[Array, "k c"], activations: Float[Array, "*spatial k"], class_idx: ClassIdx
) -> Float[Array, "*spatial"]:
    """Class activation map: M_c = sum_k w_k^c A_k, for a head that is global average pooling and one linear layer.

    Args:
        head_kernel: w, the linear layer's kernel, `[k, c]`.
        activations: A, what is pooled, `[*spatial, k]`.
        class_idx: c.

    Returns:
        `[*spatial]`, signed: no ReLU is applied. Its mean over the positions is the logit less its bias.

    Raises:
        ValueError: the kernel's rows are not the channels, or class_idx is out of range.
        TypeError: class_idx is not an integer.

    **Source**: Zhou et al. 2016 (CAM), Eq. 2.
    """
    if head_kernel.ndim != 2 or head_kernel.shape[0] != activations.shape[-1]:
        raise ValueError(
            f"head_kernel must be [k, c] with the k = {activations.shape[-1]} channels of the activations, but came as "
            f"{head_kernel.shape}: pass the kernel of the linear layer that follows the pooling (transposed if [c, k])"
        )
    check_class_idx(class_idx, head_kernel.shape[1])
    column = jax.lax.dynamic_index_in_dim(head_kernel, jnp.asarray(class_idx), axis=1, keepdims=False)
    wide, weights = widened(activations, column)
    return jnp.tensordot(wide, weights, axes=1).astype(jnp.result_type(activations, column))


def grad_cam_weights(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, " k"]:
    """w_k = mean over the positions of dY / dA_k. Arguments and errors as in `grad_cam`.

    **Source**: Selvaraju et al. 2017, Eq. 1.
    """
    return mean_gradient(head, activations, class_idx, score=score).astype(activations.dtype)


def mean_gradient(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score
) -> Float[Array, " k"]:
    """`grad_cam_weights` in float32 at least: a mean over many positions may be too small for half precision."""
    gradient = gradient_of_score(head, activations, class_idx, score=score)
    return gradient.mean(tuple(range(gradient.ndim - 1)))


def grad_cam(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """Grad-CAM: ReLU(sum_k w_k A_k) with `grad_cam_weights`.

    Args:
        head: A -> logits `[c]`, for one image.
        activations: A, `[*spatial, k]`.
        class_idx: c, static or traced.
        score: Y: "logit", "exp", "softmax", "log_softmax", or a callable (logits, class_idx) -> scalar.

    Returns:
        The raw map `[*spatial]`, after the ReLU, not normalised; for score="exp" divided by exp(S_c). With "softmax"
        and "log_softmax" it is a multiple of their slope dY / dS_c, p_c (1 - p_c) and 1 - p_c; one below 1e-19 (in
        float32, 1e-154 in float64) is taken for that, so that no class's map underflows.

    Raises:
        ValueError: the head does not return `[c]`, class_idx is out of range, or the score's name is not known.
        TypeError: class_idx is not an integer, or activations are not floating point.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), Eq. 1 and 2.
    """
    return weighted_map(mean_gradient(head, activations, class_idx, score=score), activations)

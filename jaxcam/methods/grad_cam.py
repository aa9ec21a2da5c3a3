"""CAM, Grad-CAM and Grad-CAM++: a weight for each channel from a kernel, from the gradient, from exact alphas."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.derivatives.of_score import Terms, gradient_of_score, terms
from jaxcam.maps import weighted_map
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

    **Source**: Zhou et al. 2016 (CAM), Eq. 2; Eq. 25 of the report.
    """
    if head_kernel.ndim != 2 or head_kernel.shape[0] != activations.shape[-1]:
        raise ValueError(
            f"head_kernel must be [k, c] with the k = {activations.shape[-1]} channels of the activations, but came as "
            f"{head_kernel.shape}: pass the kernel of the linear layer that follows the pooling (transposed if [c, k])"
        )
    check_class_idx(class_idx, head_kernel.shape[1])
    column = jax.lax.dynamic_index_in_dim(head_kernel, jnp.asarray(class_idx), axis=1, keepdims=False)
    return jnp.tensordot(activations, column, axes=1)


def grad_cam_weights(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, " k"]:
    """w_k = mean over the positions of dY / dA_k. Arguments and errors as in `grad_cam`.

    **Source**: Selvaraju et al. 2017, Eq. 1. (Eq. 21 of the report takes the sum: a positive factor.)
    """
    return mean_over_positions(gradient_of_score(head, activations, class_idx, score=score))


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
        The raw map `[*spatial]`, after the ReLU, not normalised; for score="exp" divided by exp(S_c).

    Raises:
        ValueError: the head does not return `[c]`, class_idx is out of range, or the score's name is not known.
        TypeError: class_idx is not an integer, or activations are not floating point.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), Eq. 1 and 2.
    """
    return weighted_map(grad_cam_weights(head, activations, class_idx, score=score), activations)


def grad_cam_pp_weights(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: ClassIdx,
    *,
    score: str | Score = "exp",
    alphas: str = "auto",
    normalize_alphas: bool = False,
) -> Float[Array, " k"]:
    """w_k = sum over the positions of alpha * ReLU(dY / dA_k). Arguments and errors as in `grad_cam_pp`.

    For score="exp" they are divided by exp(S_c), so that they never overflow.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), Eq. 5.
    """
    found = terms(head, activations, class_idx, score=score, alphas=alphas)
    return weights_of(found, normalize_alphas=normalize_alphas).astype(activations.dtype)


def grad_cam_pp(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: ClassIdx,
    *,
    score: str | Score = "exp",
    alphas: str = "auto",
    normalize_alphas: bool = False,
) -> Float[Array, "*spatial"]:
    """Grad-CAM++: ReLU(sum_k w_k A_k) with `grad_cam_pp_weights`.

    Args:
        head: A -> logits `[c]`, for one image.
        activations: A, `[*spatial, k]`.
        class_idx: c, static or traced.
        score: Y: "exp" (the paper's), "softmax", "log_softmax", "logit", or a callable (logits, class_idx) -> scalar.
        alphas: "exact" takes the true second and third derivatives of any head; "closed_form" those of a piecewise
            linear head, in one backward pass (several for softmax); "auto" takes the closed form where it is proven
            to hold, and the exact path elsewhere.
        normalize_alphas: divide each channel's alphas by their sum over the positions with a positive gradient, as the
            authors' released code does and the paper does not.

    Returns:
        The raw map `[*spatial]`, after the ReLU, not normalised; for score="exp" divided by exp(S_c), which cancels
        from the alphas and would overflow. (A callable `(logits, c) -> exp(logits[c])` is not divided.)

    Raises:
        ValueError: alphas="closed_form" with a head not proven piecewise linear or a score that has none; a score that
            is piecewise linear in A, such as a ReLU network's logit, for which alpha is 0/0; an unknown name; the head
            does not return `[c]`; class_idx out of range.
        TypeError: class_idx is not an integer, or activations are not floating point.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), Eq. 2, 5, 8 and 10.
    """
    weights = grad_cam_pp_weights(
        head, activations, class_idx, score=score, alphas=alphas, normalize_alphas=normalize_alphas
    )
    return weighted_map(weights, activations)


def mean_over_positions(gradient: Float[Array, "*spatial k"]) -> Float[Array, " k"]:
    """Grad-CAM's weights from the gradient."""
    return gradient.mean(_positions(gradient))


def weights_of(found: Terms, *, normalize_alphas: bool) -> Float[Array, " k"]:
    """The weights of Grad-CAM++ from its terms."""
    positions = _positions(found.d1)
    alphas = found.alphas.astype(found.d1.dtype)
    if normalize_alphas:
        # The sum runs over the positions with a positive gradient only, as in the authors' code.
        total = jnp.where(found.d1 > 0, alphas, 0).sum(positions, keepdims=True)
        alphas = jnp.where(total != 0, alphas / jnp.where(total != 0, total, 1), alphas)
    return (alphas * jax.nn.relu(found.d1)).sum(positions)


def _positions(activations: Float[Array, "*spatial k"]) -> tuple[int, ...]:
    return tuple(range(activations.ndim - 1))

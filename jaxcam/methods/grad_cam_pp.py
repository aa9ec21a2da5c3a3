"""Grad-CAM++: a weight for each channel from exact alphas and the ReLU of the gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam import scores
from jaxcam.alphas import exact_alphas, ill_conditioned
from jaxcam.derivatives.of_score import head_of, representable_slope, scaled_derivatives
from jaxcam.maps import weighted_map
from jaxcam.precision import widened
from jaxcam.programs.notes import note
from jaxcam.scores import ClassIdx, Score
from jaxcam.types import Head

__all__ = ["grad_cam_pp", "grad_cam_pp_weights"]

_ILL_SHARE = 0.01


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

    For score="exp" they are divided by exp(S_c), so that they never overflow. Notes "has_gradient", and
    "ill_conditioned" where more than 1 % of the weights come from alphas that cannot be trusted.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), Eq. 5 and 11.
    """
    weights = _weights(head, activations, class_idx, score, alphas, normalize_alphas=normalize_alphas)
    return weights.astype(activations.dtype)


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
        from the alphas and would overflow. (A callable `(logits, c) -> exp(logits[c])` is not divided.) The slope of
        "softmax" and "log_softmax", which cancels as well, is as in `grad_cam`: no class's map underflows.

    Raises:
        ValueError: alphas="closed_form" with a head not proven piecewise linear or a score that has none; a score that
            is piecewise linear in A, such as a ReLU network's logit, for which alpha is 0/0; an unknown name; the head
            does not return `[c]`; class_idx out of range.
        TypeError: class_idx is not an integer, or activations are not floating point.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), Eq. 5, 10, 19 and 20.
    """
    weights = _weights(head, activations, class_idx, score, alphas, normalize_alphas=normalize_alphas)
    return weighted_map(weights, activations)


def _weights(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: ClassIdx,
    score: str | Score,
    alphas: str,
    *,
    normalize_alphas: bool,
) -> Float[Array, " k"]:
    """`grad_cam_pp_weights` in float32 at least."""
    head, (wide,) = head_of(head, activations, class_idx), widened(activations)
    found = scaled_derivatives(head, activations, class_idx, score=score, alphas=alphas)
    d1, alpha = found.d1, exact_alphas(wide, found.d2, found.d3)
    note("has_gradient", lambda: jnp.abs(d1).sum() != 0)  # as in gradient_of_score
    note("ill_conditioned", lambda: _is_ill(alpha, d1, ill_conditioned(wide, found.d2, found.d3)))
    positions = tuple(range(activations.ndim - 1))
    if normalize_alphas:
        # The sum runs over the positions with a positive gradient only, as in the authors' code.
        total = jnp.where(d1 > 0, alpha, 0).sum(positions, keepdims=True)
        alpha = jnp.where(total != 0, alpha / jnp.where(total != 0, total, 1), alpha)
    weights = (alpha * jax.nn.relu(d1)).sum(positions)
    if scores.name_of(scores.unsigned(score)) in ("softmax", "log_softmax"):
        weights = representable_slope(found.log_slope, activations.dtype).astype(weights.dtype) * weights
    return weights


def _is_ill(alpha: Float[Array, "..."], d1: Float[Array, "..."], ill: Bool[Array, "..."]) -> Bool[Array, ""]:
    # sum of the ill ones > 1 % of the sum of all, in one sum.
    share = jnp.abs(alpha) * jax.nn.relu(d1)
    return (jnp.where(ill, 1 - _ILL_SHARE, -_ILL_SHARE).astype(share.dtype) * share).sum() > 0

"""One gradient, weighed in other ways: HiResCAM, XGrad-CAM, LayerCAM, grad_cam_positive, counterfactual maps.

The arguments `head`, `activations`, `class_idx` and `score`, and the errors, are those of `grad_cam`. Products and sums
of half precision are taken in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.derivatives.of_score import gradient_of_score
from jaxcam.maps import weighted_map
from jaxcam.methods.grad_cam import mean_gradient
from jaxcam.precision import widened
from jaxcam.programs.notes import note
from jaxcam.scores import ClassIdx, Score
from jaxcam.types import Head


def hires_cam(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """HiResCAM: ReLU(sum_k g_k ∘ A_k), with the gradient g = dY / dA of every position instead of its mean.

    For a head that is one linear layer, with or without pooling before it, the sum over the positions is the logit
    less its bias: the map shows exactly what the network added up.

    Returns:
        The raw map `[*spatial]`, after the ReLU (with which the paper draws it), not normalised.

    **Source**: Draelos and Carin 2020 (HiResCAM), section 3.2.
    """
    gradient, (wide,) = gradient_of_score(head, activations, class_idx, score=score), widened(activations)
    return _positive((gradient * wide).sum(-1), activations)


def xgrad_cam(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """XGrad-CAM: weights w_k = sum_ij g_ijk A_ijk / sum_ij A_ijk, the mean of the gradient weighted by the activation.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised. A channel whose activations sum to zero has no
        weighted mean, and gets weight 0; nothing is added to the sum (an eps would rescale channels with small ones).

    **Source**: Fu et al. 2020 (Axiom-based Grad-CAM), Eq. 8.
    """
    positions = tuple(range(activations.ndim - 1))
    gradient, (wide,) = gradient_of_score(head, activations, class_idx, score=score), widened(activations)
    product, total = (gradient * wide).sum(positions), wide.sum(positions)
    # The inner where keeps the gradient of the branch that is not taken finite.
    weights = jnp.where(total != 0, product / jnp.where(total != 0, total, 1), 0)
    return weighted_map(weights, activations)


def layer_cam(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """LayerCAM: ReLU(sum_k ReLU(g_k) ∘ A_k). Made for early layers, whose gradients change from place to place.

    Returns:
        The raw map `[*spatial]`, not normalised.

    **Source**: Jiang et al. 2021 (LayerCAM), Eq. 6 to 8.
    """
    gradient, (wide,) = gradient_of_score(head, activations, class_idx, score=score), widened(activations)
    return _positive((jax.nn.relu(gradient) * wide).sum(-1), activations)


def grad_cam_positive(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """Grad-CAM with positive gradients only: weights w_k = mean over the positions of ReLU(g_k).

    The baseline for Grad-CAM++, which differs from it by the alphas alone. It goes by this name everywhere here; in the
    literature it is "Grad-CAM+", one sign away from the method that it is a baseline for. Lerma and Lucas find the two
    practically equivalent: alpha is near a constant wherever S_k g is small against 2.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised.

    **Source**: Lerma and Lucas 2022 (Grad-CAM++ is equivalent to Grad-CAM with positive gradients).
    """
    gradient = gradient_of_score(head, activations, class_idx, score=score)
    return weighted_map(jax.nn.relu(gradient).mean(tuple(range(gradient.ndim - 1))), activations)


def counterfactual(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """Counterfactual explanation: Grad-CAM of the negated score, the regions that speak against the class.

    Returns:
        The raw map `[*spatial]`, ReLU(-sum_k w_k A_k) with `grad_cam_weights`, not normalised. It is the map that
        `grad_cam` gives for `scores.negated(score)`.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), section 3.3.
    """
    return weighted_map(-mean_gradient(head, activations, class_idx, score=score), activations)


def _positive(total: Float[Array, "*spatial"], activations: Float[Array, "*spatial k"]) -> Float[Array, "*spatial"]:
    """The ReLU of a sum; notes the sum, as `weighted_map` does."""
    note("signed", lambda: total.astype(activations.dtype))
    return jax.nn.relu(total).astype(activations.dtype)

"""What is explained, or weighed, in another way: Finer-CAM (against similar classes) and ShapleyCAM (second order).

The arguments `head`, `activations`, `class_idx` and `score`, and the errors, are those of `grad_cam`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcam import scores
from jaxcam.checks import check_integer, check_number
from jaxcam.derivatives.of_score import gradient_of_score, head_of, scaled_score
from jaxcam.maps import weighted_map
from jaxcam.precision import widened, widened_function
from jaxcam.programs.notes import note
from jaxcam.scores import ClassIdx, Score
from jaxcam.types import Head


def finer_cam(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: ClassIdx,
    *,
    score: str | Score = "logit",
    gamma: float = 1.0,
    num_similar: int = 3,
) -> Float[Array, "*spatial"]:
    """Finer-CAM: Grad-CAM of Y_c - gamma mean_d Y_d, over the classes d whose logits are closest to that of c.

    What c shares with the classes that it is taken for cancels; what is left tells them apart. The classes are those
    with the smallest |S_d - S_c|, c itself left out.

    The grad-cam package weighs the classes by their probabilities, and differentiates these weights as well, so that
    its target is no difference of scores; with one similar class its weight is 1 and both are the same. Here several
    classes count equally.

    Args:
        head: A -> logits `[c]`, for one image.
        activations: A, `[*spatial, k]`.
        class_idx: c, static or traced.
        score: Y, as for `grad_cam`; for "exp" divided by exp(S_c).
        gamma: how much the similar classes count: 0 is Grad-CAM.
        num_similar: how many there are; all others where there are fewer, and Grad-CAM where there is none.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised.

    Raises:
        ValueError, TypeError: as `grad_cam`, and for a gamma that is no finite number from 0, or a num_similar that is
            no integer from 1.

    **Source**: Zhang et al. 2025 (Finer-CAM), Y_c - gamma Y_d.
    """
    if not isinstance(gamma, jax.Array):
        check_number("gamma", gamma, low=0)
    num_similar = check_integer("num_similar", num_similar, low=1)
    head = head_of(head, activations, class_idx)
    (logits,) = widened(head(activations))
    similar = _closest(logits, class_idx, min(num_similar, logits.size - 1))
    function = scores.resolve(score)
    # exp(S_c) is a factor of the whole map, and would overflow.
    is_exp = scores.name_of(scores.unsigned(score)) == "exp"
    offset = scores.logit(logits, class_idx) if is_exp else jnp.zeros((), logits.dtype)

    def contrast(logits: Array, class_idx: ClassIdx) -> Array:
        (wide,) = widened(logits)
        shifted = wide - offset
        own = function(shifted, class_idx)
        if similar.size == 0:
            return own
        return own - jnp.asarray(gamma, own.dtype) * jax.vmap(lambda d: function(shifted, d))(similar).mean()

    gradient = gradient_of_score(head, activations, class_idx, score=contrast)
    return weighted_map(gradient.mean(tuple(range(gradient.ndim - 1))), activations)


def _closest(logits: Float[Array, " c"], class_idx: ClassIdx, num: int) -> Int[Array, " {num}"]:
    """The classes with the logits closest to that of one, itself left out; of several as close the first."""
    classes = jnp.arange(logits.size, dtype=jnp.int32)
    gaps = jnp.abs(logits - scores.logit(logits, class_idx))
    gaps = jnp.where(classes == jnp.asarray(class_idx).astype(jnp.int32), jnp.inf, gaps)

    def closest(gaps: Array, _: None) -> tuple[Array, Array]:
        found = jax.lax.argmin(gaps, 0, jnp.int32)
        return jnp.where(classes == found, jnp.inf, gaps), found

    # One minimum after the other, and no sorting: XLA would collect a batch that is divided among devices for that.
    return jax.lax.scan(closest, gaps, length=num)[1]


def shapley_cam(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """ShapleyCAM: weights w_k = mean over the positions of (g - H A / 2)_k, with the Hessian H of Y by all of A.

    The Shapley values of the second-order expansion of Y around A. H A is one product, exact, by a forward derivative
    of the gradient: no Hessian is formed. Where Y is piecewise linear, as a ReLU network's logit is, H = 0 and this is
    Grad-CAM: score="softmax" or "log_softmax" has curvature there.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised; for score="exp" divided by exp(S_c). Of "softmax"
        and "log_softmax" the slope is not divided out: for p_c near 0 or 1 the map may underflow.

    **Source**: Cai 2025 (CAMs as Shapley value-based explainers), ShapleyCAM; the grad-cam package has the same.
    """
    head, (wide,) = head_of(head, activations, class_idx), widened(activations)
    function = widened_function(scaled_score(head, activations, class_idx, score=score), activations)
    gradient, product = jax.jvp(jax.grad(function), (wide,), (wide,))
    note("has_gradient", lambda: (gradient != 0).any())
    return weighted_map((gradient - product / 2).mean(tuple(range(wide.ndim - 1))), activations)

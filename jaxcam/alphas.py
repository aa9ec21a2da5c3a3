"""Alphas: the coefficients of Grad-CAM++, from activations A `[*spatial, k]` and derivatives of the score Y.

    alpha = d2 / (2 d2 + S_k d3),    S_k = sum of A over all positions of channel k

with d1, d2, d3 the first, second and third derivative of Y by each single element of A (the diagonal). Everything here
is elementwise, for one image, of any number of spatial axes. Multiplying Y by a positive constant leaves alpha as it
is, and so it is here to the last digit: no eps is added anywhere. Half precision is widened to float32 inside.

Where the fraction is 0/0 or has a pole, alpha is 0 and its gradient is finite; `ill_conditioned` says where that, or a
loss of digits, happens. **Source**: Chattopadhay et al. 2018 (Grad-CAM++), Eq. 7 to 11 and 19.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam.closed_forms import (
    exp_derivatives,
    linear_lead_and_odds,
    log_softmax_derivatives,
    softmax_derivatives,
)
from jaxcam.precision import widened
from jaxcam.scores import ClassIdx

__all__ = ["exact_alphas", "exp_alphas", "ill_conditioned", "log_softmax_alphas", "softmax_alphas"]


def __dir__() -> list[str]:
    return __all__


def _channel_sums(activations: Float[Array, "*spatial k"]) -> Float[Array, "*spatial k"]:
    """S_k, spread over the positions of its channel."""
    # The sum runs over its own indices (a, b), not over the element (i, j) whose alpha it belongs to: sum(A) * d3.
    # sum(A * d3) is a published mistake; the two agree only where d3 is constant over a channel.
    axes = tuple(range(activations.ndim - 1))
    return jnp.broadcast_to(activations.sum(axes, keepdims=True), activations.shape)


def _fraction(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Float[Array, "..."]:
    # The double where: the inner one keeps the division finite, so that its gradient is finite as well; the outer one
    # picks the value. With one where alone, the untaken branch would send inf * 0 = NaN back.
    safe = denominator != 0
    return jnp.where(safe, numerator / jnp.where(safe, denominator, 1), 0)


def _log(probabilities: Float[Array, " c"]) -> Float[Array, " c"]:
    """Their logarithms: minus infinity, and no derivative, where one is zero."""
    (p,) = widened(probabilities)
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -jnp.inf)


def _check_jacobian(
    activations: Float[Array, "..."], logit_jacobian: Float[Array, "..."], probabilities: Float[Array, " c"]
) -> None:
    expected = (*probabilities.shape, *activations.shape)
    if logit_jacobian.shape != expected:
        raise ValueError(
            f"logit_jacobian must be [c, *spatial, k] = {expected} for probabilities {probabilities.shape} and "
            f"activations {activations.shape}, but came as {logit_jacobian.shape}"
        )


def _check_shapes(activations: Float[Array, "..."], **others: Float[Array, "..."]) -> None:
    if activations.ndim < 1:
        raise ValueError("activations must be [*spatial, k], but came as a scalar")
    for name, value in others.items():
        if value.shape != activations.shape:
            raise ValueError(
                f"{name} must have the shape of activations, {activations.shape}, but came as {value.shape}: "
                "pass the derivative by every element, one image at a time (vmap over batches)"
            )


def exact_alphas(
    activations: Float[Array, "..."], d2: Float[Array, "..."], d3: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Alpha = d2 / (2 d2 + S_k d3), for any score and any head.

    Args:
        activations: A, `[*spatial, k]`.
        d2: second derivatives of Y by each element of A, `[*spatial, k]`.
        d3: third derivatives, `[*spatial, k]`.

    Returns:
        alpha, `[*spatial, k]`; 0 where the denominator is exactly 0 (see `ill_conditioned`).

    Raises:
        ValueError: the shapes differ.

    **Source**: Chattopadhay et al. 2018, Eq. 10.
    """
    _check_shapes(activations, d2=d2, d3=d3)
    a, second, third = widened(activations, d2, d3)
    return _fraction(second, 2 * second + _channel_sums(a) * third).astype(activations.dtype)


def exp_alphas(activations: Float[Array, "..."], logit_gradient: Float[Array, "..."]) -> Float[Array, "..."]:
    """The closed form for Y = exp(S_c) with S_c locally linear: alpha = g^2 / (2 g^2 + S_k g^3) = 1 / (2 + S_k g).

    Args:
        activations: A, `[*spatial, k]`.
        logit_gradient: g = dS_c / dA, `[*spatial, k]`: of the logit, not of exp or softmax.

    Returns:
        alpha, `[*spatial, k]`; 0 where g = 0 (there the fraction is 0/0, and alpha multiplies ReLU(0)).

    Raises:
        ValueError: the shapes differ.

    **Source**: Chattopadhay et al. 2018, Eq. 19; evaluated in the cancelled form, which needs no eps.
    """
    _check_shapes(activations, logit_gradient=logit_gradient)
    zero = jnp.zeros_like(logit_gradient)
    found = exp_derivatives((logit_gradient, zero, zero))
    return exact_alphas(activations, found.d2, found.d3)


def softmax_alphas(
    activations: Float[Array, "..."],
    logit_jacobian: Float[Array, "..."],
    probabilities: Float[Array, " c"],
    class_idx: ClassIdx,
) -> Float[Array, "..."]:
    """The closed form for Y = softmax(S)_c with S locally linear: `exact_alphas` of its derivatives.

    Args:
        activations: A, `[*spatial, k]`.
        logit_jacobian: s = dS / dA, `[c, *spatial, k]`.
        probabilities: p = softmax(S), `[c]`.
        class_idx: c.

    Returns:
        alpha, `[*spatial, k]`.

    Raises:
        ValueError: the shapes do not fit.

    **Source**: Chattopadhay et al. 2018, Eq. 10 with 22 to 24, as cumulants (`closed_forms`). Putting
    powers of d1 into `exp_alphas`, as is often done, gives another, wrong number.
    """
    _check_jacobian(activations, logit_jacobian, probabilities)
    log_p = _log(probabilities)
    found = softmax_derivatives(*linear_lead_and_odds(logit_jacobian, log_p, class_idx), log_p, class_idx)
    return exact_alphas(activations, found.d2, found.d3)


def log_softmax_alphas(
    activations: Float[Array, "..."],
    logit_jacobian: Float[Array, "..."],
    probabilities: Float[Array, " c"],
    class_idx: ClassIdx,
) -> Float[Array, "..."]:
    """The closed form for Y = log softmax(S)_c with S locally linear: `exact_alphas` of its derivatives.

    Arguments, returns and errors as in `softmax_alphas`. The class enters d1 only: alpha is the same for every class.
    """
    _check_jacobian(activations, logit_jacobian, probabilities)
    log_p = _log(probabilities)
    found = log_softmax_derivatives(*linear_lead_and_odds(logit_jacobian, log_p, class_idx), log_p, class_idx)
    return exact_alphas(activations, found.d2, found.d3)


def ill_conditioned(
    activations: Float[Array, "..."], d2: Float[Array, "..."], d3: Float[Array, "..."]
) -> Bool[Array, "..."]:
    """Where the fraction of `exact_alphas` cannot be trusted, `[*spatial, k]`.

    True where alpha is negative (the denominator has crossed zero, so a pole lies nearby), where the denominator is
    exactly zero though the numerator is not, and where the two terms of the denominator cancel so far that
    |2 d2 + S_k d3| <= sqrt(eps) (|2 d2| + |S_k d3|): half of the digits are lost. For an exponential score with
    S_k >= 0, as after a ReLU, no element with a positive gradient is ill-conditioned.
    """
    _check_shapes(activations, d2=d2, d3=d3)
    a, second, third = widened(activations, d2, d3)
    first_term, second_term = 2 * second, _channel_sums(a) * third
    denominator = first_term + second_term
    lost = jnp.abs(denominator) <= jnp.finfo(a.dtype).eps ** 0.5 * (jnp.abs(first_term) + jnp.abs(second_term))
    return (second != 0) & (lost | (second * jnp.sign(denominator) < 0))

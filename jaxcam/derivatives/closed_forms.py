"""Closed forms: the elementwise derivatives of a score Y(S), where the logits S are locally linear in the activations.

Each returns d1, d2, d3 **up to a positive factor per image** that cancels from the alphas and leaves the maps as they
are: it is divided out so that no logit, however large, overflows and no probability underflows. Half precision is
widened to float32.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.scores import ClassIdx, logit

Derivatives = tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]


def widened(*arrays: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """The arrays in float32 where their own type is narrower."""
    return tuple(array.astype(jnp.float32) if jnp.finfo(array.dtype).bits < 32 else array for array in arrays)


def exp_derivatives(logit_gradient: Float[Array, "..."]) -> Derivatives:
    """Y = exp(S_c): d1, d2, d3 = exp(S_c) (g, g^2, g^3).

    d1 is divided by exp(S_c); d2 and d3 by exp(S_c) g^2 as well, which alpha, their ratio element by element, allows:
    (1, g) cannot underflow where (g^2, g^3) does.
    """
    (g,) = widened(logit_gradient)
    return g, (g != 0).astype(g.dtype), g


def softmax_derivatives(
    logit_jacobian: Float[Array, "c ..."], probabilities: Float[Array, " c"], class_idx: ClassIdx
) -> Derivatives:
    """Y = softmax(S)_c: d1 = p_c u, d2 = p_c (u^2 - v), d3 = p_c (u^3 - 3 u v - t), each divided by p_c.

    Along one element the logits have slopes s; as the element grows by e, softmax(S)_c = p_c exp(s_c e - K(e)) with
    K(e) = log sum_j p_j exp(s_j e), the cumulant generating function of s under p: its derivatives at 0 are the mean m,
    the variance v and the third central moment t. With u = s_c - m, three derivatives of exp(u e - v e^2/2 - t e^3/6)
    give the formulas.
    """
    u, v, t = _moments(logit_jacobian, probabilities, class_idx)
    return u, u**2 - v, u**3 - 3 * u * v - t


def log_softmax_derivatives(
    logit_jacobian: Float[Array, "c ..."], probabilities: Float[Array, " c"], class_idx: ClassIdx
) -> Derivatives:
    """Y = log softmax(S)_c = s_c e - K(e) + constant: d1 = u, d2 = -v, d3 = -t, as in `softmax_derivatives`."""
    u, v, t = _moments(logit_jacobian, probabilities, class_idx)
    return u, -v, -t


def _moments(
    logit_jacobian: Float[Array, "c ..."], probabilities: Float[Array, " c"], class_idx: ClassIdx
) -> Derivatives:
    s, p = widened(logit_jacobian, probabilities)
    # As the mean of s_c - s_j, not as s_c less the mean of s: for a confident class the two would cancel.
    behind = jnp.expand_dims(logit(s, class_idx), 0) - s
    u = jnp.tensordot(p, behind, axes=1)
    centred = jnp.expand_dims(u, 0) - behind
    return u, jnp.tensordot(p, centred**2, axes=1), jnp.tensordot(p, centred**3, axes=1)

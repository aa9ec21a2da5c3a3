"""The equations of Grad-CAM++'s derivation, each one checked on the head at hand.

They stand in `jaxcam.verification.concordance`, with the paper's numbers (Chattopadhay et al. 2018, section 3), which
are used here as well; for one class, with S_k = sum_ab A_ab^k, d1, d2, d3 = the derivatives of Y by one element of A,
and g = dS_c / dA, the logit's gradient. The derivation is

    1   Y = sum_k w_k S_k                               the linear model that CAM rests on
    5   w_k = sum_ij alpha_ij ReLU(d1)                  the weights
    7   Y = sum_k [sum_ab alpha_ab d1_ab] S_k           1 with 5, the ReLU dropped
    8   d1 = sum_ab alpha_ab d1_ab + S_k alpha d2       7, differentiated by one element
    9   d2 = 2 alpha d2 + S_k alpha d3                  8, differentiated by the same element
    10  alpha = d2 / (2 d2 + S_k d3)                    9, solved for alpha

The 2 in 9 counts one alpha d2 from the bracket and one from S_k, whose derivative by its own element is 1. From 7 to 8
and 9 the bracket, W_k = sum_ab alpha_ab d1_ab, is differentiated as if only d1_ij depended on A_ij, and alpha did not.
In full, for e = (i, j, k) and H = d2Y / dA dA,

    dW_k' / dA_e = sum_f alpha_f H_fe + sum_f (dalpha_f / dA_e) d1_f,    f over the positions of channel k',

and the right-hand side of 7 has the derivative W_k + sum_k' S_k' dW_k' / dA_e; likewise for the second. What is dropped
is, in three parts: mixed partials within the channel (f in k, f not e), mixed partials with other channels (k' not k),
and the derivative of alpha. So 8 and 9 follow from 7 where alpha is constant in A and Y has no mixed partials. That is
so for Y = sum_k C_k A_k^p_k with one position in every channel, where alpha = 1 / p_k, and for hardly anything else:
with three positions or more in a channel alpha d2 = 0 follows.

All of it is worked out twice: with the ReLU dropped, as the derivation does it, and with the ReLU in W_k (alpha and its
derivative count where d1 > 0), which is what Grad-CAM++ uses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxcam.alphas import exact_alphas
from jaxcam.derivatives.elementwise import elementwise_derivatives
from jaxcam.verification.differences import Difference, Ratio, ratio, relative_to_largest

_CHUNK_NUMBERS = 2**22


@dataclass(frozen=True)
class Differentiated:
    """One of Eq. 8 and 9: Eq. 7 differentiated once or twice by one element, over a sample of elements.

    The ratios compare with the terms that the derivation keeps; the differences are between the right-hand side and the
    left-hand side, d1 or d2.
    """

    mixed_partials: Ratio | None
    """The dropped mixed partials, all together."""
    same_channel: Ratio | None
    """The dropped mixed partials within the element's channel."""
    other_channels: Ratio | None
    """The dropped mixed partials with other channels."""
    alpha_derivative: Ratio | None
    """The dropped derivative of alpha; None where it was not computed, see `Verification`."""
    as_printed: Difference
    """With the terms that are kept."""
    with_mixed_partials: Difference
    """With all mixed partials, alpha held constant."""
    in_full: Difference | None
    """The true derivative of the right-hand side of Eq. 7."""


@dataclass(frozen=True)
class Exponential:
    """Eq. 13, 14, 17 and 18, from the derivatives of Y and, taken apart from them, those of S_c, over a sample."""

    first: Difference
    """Eq. 13: d1 against exp(S_c) g."""
    second: Difference
    """Eq. 14: d2 against exp(S_c) (g^2 + d2S_c)."""
    second_linear: Difference
    """Eq. 17: d2 against exp(S_c) g^2."""
    third_linear: Difference
    """Eq. 18: d3 against exp(S_c) g^3."""
    curvature: Ratio | None
    """d2S_c in comparison with g^2: zero where the head is piecewise linear."""


def identity_ratio(y: float, weights: Float[np.ndarray, " k"], activations: Float[np.ndarray, "n k"]) -> float | None:
    """sum_k w_k S_k / Y: 1 where Eq. 1 (or 7) holds. None for Y = 0."""
    return float(weights @ activations.sum(0)) / y if y else None


def solved(
    sums: Float[np.ndarray, " n"],
    d2: Float[np.ndarray, " n"],
    d3: Float[np.ndarray, " n"],
    alphas: Float[np.ndarray, " n"],
) -> Difference:
    """Eq. 10 put into Eq. 9: d2 against 2 alpha d2 + S_k alpha d3. alpha is its solution, so only rounding is left."""
    return relative_to_largest(2 * alphas * d2 + sums * alphas * d3, d2)


Steps = tuple[Differentiated, Differentiated]
"""Eq. 8 and Eq. 9."""


def differentiated(
    f: Partial,
    a: Float[Array, "*spatial k"],
    elements: Int[np.ndarray, " n"],
    *,
    derivatives: Float[np.ndarray, "3 N"],
    alphas: Float[np.ndarray, " N"],
    with_alpha: bool,
) -> tuple[Steps, Steps]:
    """Eq. 8 and 9 at some elements: as they are derived, and with the ReLU at those of the elements where d1 > 0.

    Args:
        f: A -> Y.
        a: A.
        elements: flat indices.
        derivatives: d1, d2, d3 at all N elements.
        alphas: alpha at all N elements.
        with_alpha: whether alpha is differentiated as well, through the exact derivatives of Y.
    """
    full = [np.asarray(d) for d in _in_full(f, a, jnp.asarray(elements))] if with_alpha else None
    found = []
    # With the ReLU an alpha counts where its d1 is positive, and away from d1 = 0 that does not change with A.
    for counted, use, column in (
        (np.ones(a.size, bool), np.ones(elements.size, bool), 0),
        (derivatives[0] > 0, derivatives[0, elements] > 0, 1),
    ):
        in_full = (None, None) if full is None else (full[0][use, column], full[1][use, column])
        found.append(_steps(f, a, elements, use, derivatives, np.where(counted, alphas, 0), in_full))
    return found[0], found[1]


def _steps(
    f: Partial,
    a: Float[Array, "*spatial k"],
    elements: Int[np.ndarray, " n"],
    use: Bool[np.ndarray, " n"],
    derivatives: Float[np.ndarray, "3 N"],
    alphas: Float[np.ndarray, " N"],
    full: tuple[np.ndarray | None, np.ndarray | None],
) -> Steps:
    """Eq. 8 and 9 with these alphas, at those of the elements that are used."""
    num_channels = a.shape[-1]
    # Rows of the Hessian at all elements, of which those used are taken: one shape, and so one program.
    mixed = [np.asarray(m)[use] for m in _mixed(f, a, jnp.asarray(elements), jnp.asarray(alphas))]
    elements = elements[use]
    k, rows = elements % num_channels, np.arange(elements.size)
    sums = np.asarray(a).reshape(-1, num_channels).sum(0)
    d1, d2, d3 = derivatives[:, elements]
    alpha = alphas[elements]
    within = [m[rows, k] - alpha * own for m, own in zip(mixed, (d2, d3), strict=True)]
    beyond = [m @ sums - m[rows, k] * sums[k] for m in mixed]
    w = (alphas * derivatives[0]).reshape(-1, num_channels).sum(0)[k]
    kept = w + sums[k] * alpha * d2, 2 * alpha * d2 + sums[k] * alpha * d3
    same = sums[k] * within[0], 2 * within[0] + sums[k] * within[1]
    first, second = (_step(*terms) for terms in zip((d1, d2), kept, same, beyond, full, strict=True))
    return first, second


def _step(
    left: np.ndarray, kept: np.ndarray, same: np.ndarray, other: np.ndarray, full: np.ndarray | None
) -> Differentiated:
    mixed = kept + same + other
    return Differentiated(
        ratio(same + other, kept),
        ratio(same, kept),
        ratio(other, kept),
        None if full is None else ratio(full - mixed, kept),
        relative_to_largest(kept, left),
        relative_to_largest(mixed, left),
        None if full is None else relative_to_largest(full, left),
    )


@jax.jit
def _mixed(
    f: Partial, a: Float[Array, "*spatial k"], elements: Int[Array, " n"], alphas: Float[Array, " N"]
) -> tuple[Float[Array, "n k"], Float[Array, "n k"]]:
    """Sum over the positions f of channel k' of alpha_f d2Y/(dA_f dA_e), and of alpha_f d3Y/(dA_f dA_e^2)."""

    def weighted_gradient(x: Array) -> Array:
        return (alphas.reshape(-1, a.shape[-1]) * jax.grad(f)(x).reshape(-1, a.shape[-1])).sum(0)

    return _twice_along(weighted_gradient, a, elements)


@jax.jit
def _in_full(
    f: Partial, a: Float[Array, "*spatial k"], elements: Int[Array, " n"]
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    """The first and second derivative of the right-hand side of Eq. 7 by A_e, without and with the ReLU."""

    def right_hand_side(x: Array) -> Array:
        d1, d2, d3 = elementwise_derivatives(f, x)
        alphas, positions = exact_alphas(x, d2, d3), tuple(range(x.ndim - 1))
        brackets = ((alphas * gradient).sum(positions) for gradient in (d1, jax.nn.relu(d1)))
        return jnp.stack([(w * x.sum(positions)).sum() for w in brackets])

    return _twice_along(right_hand_side, a, elements)


def _twice_along(
    g: Callable[[Array], Array], a: Float[Array, "..."], elements: Int[Array, " n"]
) -> tuple[Float[Array, "n ..."], Float[Array, "n ..."]]:
    """The first and second derivative of g (of any shape) along some elements of a."""
    zero, one = jnp.zeros((), a.dtype), jnp.ones((), a.dtype)

    def moved(element: Array, t: Array) -> Array:
        return g(a.reshape(-1).at[element].add(t).reshape(a.shape))

    def slope(element: Array, t: Array) -> Array:
        return jax.jvp(partial(moved, element), (t,), (one,))[1]

    def both(element: Array) -> tuple[Array, Array]:
        return jax.jvp(partial(slope, element), (zero,), (one,))

    chunk = max(1, min(_CHUNK_NUMBERS // (16 * a.size), elements.size))
    return jax.lax.map(both, elements, batch_size=chunk)


def exponential(y: float, derivatives: Float[np.ndarray, "3 n"], of_logit: Float[np.ndarray, "3 n"]) -> Exponential:
    """Eq. 13, 14, 17 and 18, from the derivatives of Y and of S_c at the same elements."""
    (d1, d2, d3), (g, curvature, _) = derivatives, of_logit
    return Exponential(
        relative_to_largest(y * g, d1),
        relative_to_largest(y * (g**2 + curvature), d2),
        relative_to_largest(y * g**2, d2),
        relative_to_largest(y * g**3, d3),
        ratio(curvature, g**2),
    )

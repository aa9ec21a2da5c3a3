"""Closed forms: the derivatives of a score Y by each element of A, from those of a few numbers that Y is a function of.

    Y = exp(S_c)                 of S_c
    Y = p_c and Y = log p_c      of two numbers that lose no digits, whatever the logits: with w the likeliest class,
                                 the lead S_c - S_w, and the odds o = log sum_{j != w} exp(S_j - S_w) against w

They follow by the chain rule, for any head. Where the logits are linear in A the derivatives of those numbers are known
as well: the slopes of the logits give them (`linear_lead_and_odds`), in one reverse pass for each.

What would overflow or underflow is divided out, and its logarithm said: see `Scaled`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.precision import widened
from jaxcam.scores import ClassIdx, is_likeliest, lead_and_odds, logit

__all__ = [
    "Derivatives",
    "Scaled",
    "exp_derivatives",
    "linear_lead_and_odds",
    "log_softmax_derivatives",
    "softmax_derivatives",
]

Derivatives = tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]
"""d1, d2, d3 by each element."""


class Scaled(NamedTuple):
    """Derivatives, each divided by a positive factor: one that cancels from alpha = d2 / (2 d2 + S_k d3).

    Divided by the slope dY / dS_c, all of them are of the order of the logits' derivatives, although p_c may be 1e-90,
    or 1 - p_c. d2 and d3 may have a factor of their own for each element, which cancels from its alpha.
    """

    d1: Float[Array, "..."]
    """Divided by dY / dS_c."""
    d2: Float[Array, "..."]
    d3: Float[Array, "..."]
    log_slope: Float[Array, ""]
    """The logarithm of dY / dS_c."""
    log_curvature: Float[Array, "..."]
    """The logarithm of what d2 and d3 are divided by."""


def exp_derivatives(of_logit: Derivatives) -> Scaled:
    """Y = exp(S_c), whose slope is exp(S_c) itself: d1 = g, d2 = g^2 + d2S, d3 = g^3 + 3 g d2S + d3S.

    Where S_c is linear, d2 and d3 are divided by g^2 as well: (1, g) cannot underflow where (g^2, g^3) does. The
    logarithm of the slope is left to the caller, who has S_c: it is 0 here.

    Args:
        of_logit: g, d2S, d3S, the derivatives of S_c.
    """
    g, second, third = widened(*of_logit)
    bent = (second != 0) | (third != 0)
    _, d2, d3 = _chained((g, second, third), (1, 1, 1))
    size = jnp.where(g != 0, jnp.abs(g), 1)
    log_curvature = jnp.where(bent, 0, 2 * jnp.log(size))
    zero = jnp.zeros((), g.dtype)
    return Scaled(g, jnp.where(bent, d2, (g != 0).astype(g.dtype)), jnp.where(bent, d3, g), zero, log_curvature)


def softmax_derivatives(
    lead: Derivatives, odds: Derivatives, logits: Float[Array, " c"], class_idx: ClassIdx
) -> Scaled:
    """Y = p_c = softmax(S)_c, all derivatives divided by its slope p_c (1 - p_c).

    For the likeliest class p = 1 / (1 + exp(o)), with q = 1 - p: its derivatives by o are -p q, -p q (p - q) and
    -p q (1 - 6 p q). For any other p_c = exp(log p_c), with 1 - p_c of the order of one.

    Args:
        lead: the derivatives of S_c - S_w.
        odds: those of o.
        logits: S, or anything that differs from it by a constant, such as log p.
        class_idx: c.
    """
    lead, odds = _wide(lead), _wide(odds)
    at = _Point(logits, class_idx, odds[0].dtype)
    of_winner = _chained(odds, (-1, at.q - at.p, 6 * at.p * at.q - 1))
    of_other = _chained(_of_log_probability(lead, odds, at), (1, 1, 1))
    d1, d2, d3 = (jnp.where(at.wins, x, y / at.rest) for x, y in zip(of_winner, of_other, strict=True))
    log_slope = at.log_probability + at.log_rest
    return Scaled(d1, d2, d3, log_slope, log_slope)


def log_softmax_derivatives(
    lead: Derivatives, odds: Derivatives, logits: Float[Array, " c"], class_idx: ClassIdx
) -> Scaled:
    """Y = log p_c = (S_c - S_w) + log p_w: d1 divided by its slope 1 - p_c.

    d2 and d3 are divided by 1 - p_w, where the lead is linear, as in a piecewise linear head: they are then those of
    log p_w for every class. Where the lead bends, they are as they are. Arguments as in `softmax_derivatives`.
    """
    lead, odds = _wide(lead), _wide(odds)
    at = _Point(logits, class_idx, odds[0].dtype)
    of_winner = _of_winner(odds, at)
    bent = (lead[1] != 0) | (lead[2] != 0)
    d1, _, _ = _of_log_probability(lead, odds, at)
    d2, d3 = (jnp.where(bent, x + at.q * y, y) for x, y in zip(lead[1:], of_winner[1:], strict=True))
    d1 = jnp.where(at.wins, of_winner[0], d1 / at.rest)
    return Scaled(d1, d2, d3, at.log_rest, jnp.where(bent, 0, at.log_q))


def linear_lead_and_odds(
    logit_jacobian: Float[Array, "c ..."], logits: Float[Array, " c"], class_idx: ClassIdx
) -> tuple[Derivatives, Derivatives]:
    """The derivatives of lead and odds, where the logits are linear in A.

    As an element grows by e, the lead grows by (s_c - s_w) e, and with the slopes x_j = s_j - s_w and the shares r_j of
    the others' probability, o grows by log sum_j r_j exp(x_j e), j != w: the cumulant generating function of x under r.
    Its derivatives at 0 are the mean, the variance and the third central moment.

    Args:
        logit_jacobian: s = dS / dA, `[c, *spatial, k]`.
        logits: S, up to a constant.
        class_idx: c.
    """
    s, logits = widened(logit_jacobian, logits)
    winner = jnp.argmax(logits)
    slopes = s - jnp.expand_dims(logit(s, winner), 0)
    others = jnp.where(jnp.arange(logits.size) != winner, logits, -jnp.inf)
    # Where nothing is left for the others, as of probabilities (1, 0, 0): no derivative, and no NaN.
    some = jnp.isfinite(others).any()
    shares = jnp.where(some, jax.nn.softmax(jnp.where(some, others, 0)), 0).astype(s.dtype)
    expected = partial(jnp.tensordot, shares, axes=1, precision=jax.lax.Precision.HIGHEST)
    mean = expected(slopes)
    centred = slopes - jnp.expand_dims(mean, 0)
    lead, zero = logit(slopes, class_idx), jnp.zeros_like(mean)
    return (lead, zero, zero), (mean, expected(centred**2), expected(centred**3))


class _Point:
    """What lead and odds are, and the probabilities that follow from them."""

    def __init__(self, logits: Float[Array, " c"], class_idx: ClassIdx, dtype: np.dtype) -> None:
        (logits,) = widened(logits)
        lead, odds = (value.astype(dtype) for value in lead_and_odds(logits, class_idx))
        self.wins = is_likeliest(logits, class_idx)
        self.p, self.q = jax.nn.sigmoid(-odds), jax.nn.sigmoid(odds)
        """p_w and 1 - p_w."""
        self.log_q = jax.nn.log_sigmoid(odds)
        self.log_probability = lead - jax.nn.softplus(odds)
        """log p_c."""
        # Of any other class than w, p_c is at most one half: 1 - p_c keeps its digits. (Of w it is not used.)
        self.rest = jnp.where(self.wins, 1, 1 - jnp.exp(self.log_probability))
        self.log_rest = jnp.where(self.wins, self.log_q, jnp.log(self.rest))
        """log(1 - p_c)."""


def _of_winner(odds: Derivatives, at: _Point) -> Derivatives:
    """Those of log p_w = -softplus(o), divided by q = 1 - p_w: by o they are -1, -p and -p (p - q)."""
    return _chained(odds, (-1, -at.p, at.p * (at.q - at.p)))


def _of_log_probability(lead: Derivatives, odds: Derivatives, at: _Point) -> Derivatives:
    """Those of log p_c = lead + log p_w."""
    first, second, third = (x + at.q * y for x, y in zip(lead, _of_winner(odds, at), strict=True))
    return first, second, third


def _wide(derivatives: Derivatives) -> Derivatives:
    first, second, third = widened(*derivatives)
    return first, second, third


def _chained(inner: Derivatives, outer: tuple[Array | int, Array | int, Array | int]) -> Derivatives:
    """The chain rule to the third order, for f(g(e)): of g by e, and of f by g."""
    (g1, g2, g3), (f1, f2, f3) = inner, outer
    return f1 * g1, f1 * g2 + f2 * g1**2, f1 * g3 + 3 * f2 * g1 * g2 + f3 * g1**3

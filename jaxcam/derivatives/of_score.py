"""Derivatives d1, d2, d3 of a score Y = score(head(A), c) by A, and which way they are had: closed form or exact.

A head is traced once (`head_of`) and asked many things then: what it returns, whether it is piecewise linear, its
derivatives. A head that is traced already, as `explain` passes it, is not traced again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam import closed_forms, scores
from jaxcam.closed_forms import Derivatives, Scaled
from jaxcam.derivatives.elementwise import elementwise_derivatives
from jaxcam.precision import pulled_back, wide_gradient, wide_type, widened, widened_function
from jaxcam.programs.linearity import is_piecewise_linear
from jaxcam.programs.notes import note
from jaxcam.programs.specs import varied
from jaxcam.programs.traced import Traced, trace
from jaxcam.types import Head

__all__ = [
    "gradient_of_score",
    "has_closed_form",
    "head_of",
    "is_one_backward_pass",
    "representable_slope",
    "scaled_derivatives",
    "scaled_score",
]

_CLOSED_FORMS = ("exp", "softmax", "log_softmax")
_ALPHAS = ("auto", "exact", "closed_form")


def head_of(head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx) -> Traced:
    """The head, traced, after the checks of static facts: it takes floats to logits `[c]`, and has the class.

    Raises:
        TypeError: activations are not floating point, the head is not callable, or class_idx is not an integer.
        ValueError: the head's output is not `[c]`, or a concrete class_idx is out of range.
    """
    if not callable(head):
        raise TypeError(f"head must be a callable [*spatial, k] -> [c], not {type(head).__name__}")
    if not jnp.issubdtype(activations.dtype, jnp.floating):
        raise TypeError(f"activations must be floating point, but their dtype is {activations.dtype}")
    if activations.ndim < 2:
        raise ValueError(
            f"activations must be [*spatial, k] with at least one spatial axis, but their shape is {activations.shape}"
        )
    traced = trace(head, activations)
    logits = traced.output
    if not hasattr(logits, "shape") or logits.ndim != 1:
        raise ValueError(
            f"head must return logits [c] for one image, but returned {getattr(logits, 'shape', logits)} for "
            f"activations {activations.shape}: a batched head goes in as lambda a: head(a[None])[0]"
        )
    scores.check_class_idx(class_idx, logits.shape[0])
    return traced


def scaled_score(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, score: str | scores.Score
) -> Callable[[Array], Array]:
    """A -> Y(A), for score="exp" divided by the constant exp(S_c) of the given activations, so that it is 1 there."""
    if isinstance(score, scores.Negated):
        positive = scaled_score(head, activations, class_idx, score=score.score)
        return lambda a: -positive(a)
    function, name = scores.resolve(score), scores.name_of(score)
    logit = _one_logit(head, class_idx)
    if name == "logit":
        return logit
    if name != "exp":
        return lambda a: function(_wide_logits(head, a), class_idx)
    # Not a stop_gradient: the factor belongs to the value, so that gradients through the map (by the parameters) are
    # those of the scaled weights.
    (offset,) = widened(logit(activations))
    return lambda a: jnp.exp(widened(logit(a))[0] - offset)


def gradient_of_score(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, score: str | scores.Score
) -> Float[Array, "*spatial k"]:
    """The gradient dY / dA, for score="exp" divided by exp(S_c); the arguments and errors of `methods.grad_cam`.

    In float32 where the activations are narrower. That of "softmax" and "log_softmax" is multiplied by
    `representable_slope`. Notes "has_gradient": whether it is anywhere other than zero.
    """
    head = head_of(head, activations, class_idx)
    name = scores.name_of(scores.unsigned(score))
    log_slope = None
    if name in ("softmax", "log_softmax"):
        by_logits, log_slope = scores.without_slope(score), _log_slope(head(activations), class_idx, name=name)
        gradient = wide_gradient(lambda a: by_logits(_wide_logits(head, a), class_idx), activations)
    elif scores.name_of(score) == "logit":
        gradient = _gradient_of_logit(head, activations, class_idx)
    else:
        gradient = wide_gradient(scaled_score(head, activations, class_idx, score=score), activations)
    # For all classes at once the sum is made together with the mean, in a quarter of the time of "any".
    note("has_gradient", lambda: jnp.abs(gradient).sum() != 0)
    if log_slope is None:
        return gradient
    return representable_slope(log_slope, activations.dtype).astype(gradient.dtype) * gradient


def representable_slope(log_slope: Float[Array, ""], dtype: np.dtype) -> Float[Array, ""]:
    """The slope dY / dS_c, but no less than the root of the smallest number of that type: 1e-19 in float32.

    A factor of the whole map. Of a class with p_c = 1e-50 the map of softmax would be zero in float32, and that of
    log-softmax for one with 1 - p_c = 1e-50: it keeps its digits, and is too large.
    """
    return jnp.exp(jnp.maximum(log_slope, 0.5 * float(np.log(jnp.finfo(dtype).tiny))))


def is_one_backward_pass(head: Any, *, score: str | scores.Score, alphas: str) -> bool:
    """Whether `scaled_derivatives` costs no more than the gradient of one logit, for a head that knows its kind."""
    return scores.name_of(scores.unsigned(score)) == "exp" and alphas != "exact" and head.is_piecewise_linear


def scaled_derivatives(
    head: Traced,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    alphas: str,
) -> Scaled:
    """d1, d2, d3, divided by what cancels from the alphas, in float32 where the activations are narrower.

    For "exp", "softmax" and "log_softmax", negated or not, d1 is divided by |dY / dS_c|; other scores are left as they
    are. The arguments and errors are those of `methods.grad_cam_pp`.
    """
    if isinstance(score, scores.Negated):
        found = scaled_derivatives(head, activations, class_idx, score=score.score, alphas=alphas)
        return found._replace(d1=-found.d1, d2=-found.d2, d3=-found.d3)
    name = scores.name_of(score)
    linear = has_closed_form(head, class_idx, score=score, alphas=alphas)
    if name == "exp":
        found = closed_forms.exp_derivatives(_of_logit(head, activations, class_idx, linear=linear))
        (offset,) = widened(_one_logit(head, class_idx)(activations))
        return found._replace(log_slope=offset, log_curvature=found.log_curvature + offset.astype(found.d1.dtype))
    if name in ("softmax", "log_softmax"):
        lead, odds = (_linear_lead_and_odds if linear else _lead_and_odds)(head, activations, class_idx)
        form = closed_forms.softmax_derivatives if name == "softmax" else closed_forms.log_softmax_derivatives
        return form(lead, odds, head(activations), class_idx)
    d1, d2, d3 = _of_scalar(scaled_score(head, activations, class_idx, score=score), activations)
    one = jnp.zeros((), d1.dtype)
    return Scaled(d1, d2, d3, one, one)


def has_closed_form(head: Traced, class_idx: scores.ClassIdx, *, score: str | scores.Score, alphas: str) -> bool:
    """Whether the closed form is to be taken: proven to hold, and not ruled out by `alphas`.

    Raises:
        ValueError: as `methods.grad_cam_pp` for score and alphas.
    """
    if alphas not in _ALPHAS:
        raise ValueError(f"alphas={alphas!r} is not known: use one of {', '.join(map(repr, _ALPHAS))}")
    function, name = scores.resolve(score), scores.name_of(score)
    if name not in _CLOSED_FORMS:
        label = f"score={score!r}" if name else "this score"
        if is_piecewise_linear(lambda a: function(head(a), class_idx), head.argument):
            raise ValueError(
                f"Grad-CAM++ is not defined for {label} with a piecewise linear head: the second and third derivatives "
                'are zero and alpha is 0/0. Use score="exp" (the paper\'s choice) or score="softmax"'
            )
        if alphas == "closed_form":
            raise ValueError(
                f'{label} has no closed form: use alphas="exact", or one of the scores that have one: '
                + ", ".join(map(repr, _CLOSED_FORMS))
            )
        return False
    if alphas == "exact":
        return False
    if alphas == "closed_form" and not head.is_piecewise_linear:
        raise ValueError(
            'alphas="closed_form" needs a head that is piecewise linear in the activations, and this one is not proven '
            'to be: use alphas="exact" (the true derivatives of any head) or alphas="auto"'
        )
    return head.is_piecewise_linear


def _one_logit(head: Head, class_idx: scores.ClassIdx) -> Callable[[Array], Array]:
    """A -> S_c, by the head's own `logit(A, class_idx)` where it knows a shorter way than all logits."""
    direct = _direct_logit(head)
    if direct is not None:
        return lambda a: direct(a, class_idx)
    return lambda a: scores.logit(head(a), class_idx)


def _direct_logit(head: Head) -> Callable[..., Array] | None:
    return getattr(head.function if isinstance(head, Traced) else head, "logit", None)


def _gradient_of_logit(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx
) -> Float[Array, "*spatial k"]:
    """dS_c / dA."""
    if _direct_logit(head) is not None:
        return wide_gradient(_one_logit(head, class_idx), activations)
    # What the head pulls back of the class's unit vector. Backwards through the choice of an entry JAX writes zeros,
    # and a number among them, by index: six kernels, where the comparison of `unit` is one.
    logits, pullback = jax.vjp(lambda a: _wide_logits(head, a), activations)
    return pulled_back(pullback, scores.unit(logits, class_idx))


def _wide_logits(head: Head, a: Float[Array, "..."]) -> Float[Array, " c"]:
    """What follows the head is computed, and differentiated, in float32 at least."""
    return widened(head(a))[0]


def _log_slope(logits: Float[Array, " c"], class_idx: scores.ClassIdx, *, name: str) -> Float[Array, ""]:
    """log(1 - p_c) for "log_softmax", log(p_c (1 - p_c)) for "softmax"."""
    log_odds = scores.log_odds(widened(logits)[0], class_idx)
    log_rest = jax.nn.log_sigmoid(-log_odds)
    return log_rest if name == "log_softmax" else log_rest + jax.nn.log_sigmoid(log_odds)


def _of_logit(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, linear: bool
) -> Derivatives:
    """The derivatives of S_c; one that is known to be piecewise linear has a gradient only."""
    if linear:
        gradient = _gradient_of_logit(head, activations, class_idx)
        return gradient, jnp.zeros_like(gradient), jnp.zeros_like(gradient)
    return _of_scalar(_one_logit(head, class_idx), activations)


def _of_scalar(f: Callable[[Array], Array], activations: Float[Array, "..."]) -> Derivatives:
    """The derivatives of a function of A."""
    d1, d2, d3 = elementwise_derivatives(widened_function(f, activations), *widened(activations))
    return d1, d2, d3


def _lead_and_odds(
    head: Traced, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx
) -> tuple[Derivatives, Derivatives]:
    """The derivatives of lead and odds for any head."""

    def derivatives(share: Float[Array, " 2"]) -> Derivatives:
        def either(a: Array) -> Array:
            lead, odds = scores.lead_and_odds(_wide_logits(head, a), class_idx)
            odds = jnp.where(jnp.isfinite(odds), odds, 0)  # of a single class: minus infinity, and constant
            return lead * share[0].astype(lead.dtype) + odds * share[1].astype(odds.dtype)

        return _of_scalar(either, activations)

    # Both in one pass: what goes forwards through the head does not depend on the share, and is done once.
    shares, _ = varied((jnp.eye(2, dtype=wide_type(activations.dtype)), activations))
    first, second, third = jax.vmap(derivatives)(shares)
    return (first[0], second[0], third[0]), (first[1], second[1], third[1])


def _linear_lead_and_odds(
    head: Traced, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx
) -> tuple[Derivatives, Derivatives]:
    """The same for a piecewise linear head, from the Jacobian of the logits."""
    logits, pullback = jax.vjp(lambda a: _wide_logits(head, a), activations)
    units, _ = varied((jnp.eye(logits.size, dtype=logits.dtype), logits))
    jacobian = jax.vmap(lambda unit: pulled_back(pullback, unit))(units)
    return closed_forms.linear_lead_and_odds(jacobian, logits, class_idx)

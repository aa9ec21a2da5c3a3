"""Derivatives d1, d2, d3 of a score Y = score(head(A), c) by A, and which way they are had: closed form or exact.

A head is traced once (`head_of`) and asked many things then: what it returns, whether it is piecewise linear, its
derivatives. A head that is traced already, as `explain` passes it, is not traced again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.derivatives import closed_forms
from jaxcam.derivatives.elementwise import elementwise_derivatives
from jaxcam.programs.linearity import is_piecewise_linear
from jaxcam.programs.notes import note
from jaxcam.programs.specs import varied
from jaxcam.programs.traced import Traced, trace
from jaxcam.types import Head

__all__ = [
    "derivatives_of_score",
    "gradient_of_score",
    "has_closed_form",
    "head_of",
    "is_one_backward_pass",
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
    function, name = scores.resolve(score), scores.name_of(score)
    logit = _one_logit(head, class_idx)
    if name == "logit":
        return logit
    if name != "exp":
        return lambda a: function(head(a), class_idx)
    # Not a stop_gradient: the factor belongs to the value, so that gradients through the map (by the parameters) are
    # those of the scaled weights.
    offset = logit(activations)
    return lambda a: jnp.exp(logit(a) - offset)


def gradient_of_score(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, score: str | scores.Score
) -> Float[Array, "*spatial k"]:
    """The gradient dY / dA, for score="exp" divided by exp(S_c); the arguments and errors of `methods.grad_cam`.

    Notes "has_gradient": whether it is anywhere other than zero.
    """
    head = head_of(head, activations, class_idx)
    gradient = jax.grad(scaled_score(head, activations, class_idx, score=score))(activations)
    note("has_gradient", lambda: (gradient != 0).any())
    return gradient


def is_one_backward_pass(head: Any, *, score: str | scores.Score, alphas: str) -> bool:
    """Whether `scaled_derivatives` costs no more than the gradient of one logit, for a head that knows its kind."""
    return scores.name_of(score) == "exp" and alphas != "exact" and head.is_piecewise_linear


def scaled_derivatives(
    head: Traced,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    alphas: str,
) -> closed_forms.Derivatives:
    """d1, d2, d3 up to a positive factor (for "exp" exp(S_c), for "softmax" p_c); "exp" up to one for each element.

    That is all that alphas need; the arguments and errors are those of `methods.grad_cam_pp`.
    """
    if has_closed_form(head, class_idx, score=score, alphas=alphas):
        return _closed_form(head, activations, class_idx, name=scores.name_of(score))
    return _exact(head, activations, class_idx, score=score)


def derivatives_of_score(
    head: Traced,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    alphas: str,
) -> tuple[closed_forms.Derivatives, Float[Array, ""]]:
    """d1, d2 and d3 divided by one positive number, and the logarithm of that number.

    For "exp" it is S_c and for "softmax" log p_c: derivatives at several points can be compared by it, and nothing
    overflows. The arguments and errors are those of `methods.grad_cam_pp`.
    """
    name = scores.name_of(score)
    logits = head(activations)
    log_scale = jnp.zeros((), logits.dtype)
    if name == "exp":
        log_scale = scores.logit(logits, class_idx)
    elif name == "softmax":
        log_scale = scores.log_softmax(logits, class_idx)
    if name == "exp" and has_closed_form(head, class_idx, score=score, alphas=alphas):
        # Not exp_derivatives: its d2 and d3 have a factor for each element, and do not add up over points.
        (g,) = closed_forms.widened(jax.grad(_one_logit(head, class_idx))(activations))
        return (g, g**2, g**3), log_scale
    return scaled_derivatives(head, activations, class_idx, score=score, alphas=alphas), log_scale


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
    direct = getattr(head.function if isinstance(head, Traced) else head, "logit", None)
    if direct is not None:
        return lambda a: direct(a, class_idx)
    return lambda a: scores.logit(head(a), class_idx)


def _closed_form(
    head: Traced, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, name: str | None
) -> closed_forms.Derivatives:
    if name == "exp":
        gradient = jax.grad(_one_logit(head, class_idx))(activations)
        return closed_forms.exp_derivatives(gradient)
    logits, pullback = jax.vjp(head, activations)
    units, _ = varied((jnp.eye(logits.size, dtype=logits.dtype), logits))
    (jacobian,) = jax.vmap(pullback)(units)
    probabilities = jax.nn.softmax(logits)
    if name == "log_softmax":
        return closed_forms.log_softmax_derivatives(jacobian, probabilities, class_idx)
    return closed_forms.softmax_derivatives(jacobian, probabilities, class_idx)


def _exact(
    head: Traced, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, score: str | scores.Score
) -> closed_forms.Derivatives:
    if scores.name_of(score) != "softmax":
        d1, d2, d3 = elementwise_derivatives(scaled_score(head, activations, class_idx, score=score), activations)
        return d1, d2, d3
    # p_c underflows for improbable classes, and alpha does not depend on it: p / p_c is differentiated, not p.
    offset = scores.log_softmax(head(activations), class_idx)
    d1, d2, d3 = elementwise_derivatives(
        lambda a: jnp.exp(scores.log_softmax(head(a), class_idx) - offset), activations
    )
    return d1, d2, d3

"""Derivatives d1, d2, d3 of a score Y = score(head(A), c) by A, and which way they are had: closed form or exact."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam import scores
from jaxcam.alphas import exact_alphas, ill_conditioned
from jaxcam.derivatives import closed_forms as _closed_forms
from jaxcam.derivatives.elementwise import elementwise_derivatives
from jaxcam.programs.linearity import is_piecewise_linear
from jaxcam.types import Head

_CLOSED_FORMS = ("exp", "softmax", "log_softmax")
_ALPHAS = ("auto", "exact", "closed_form")


class Terms(NamedTuple):
    """What Grad-CAM++ is made of, each `[*spatial, k]`."""

    d1: Float[Array, "*spatial k"]
    """First derivatives of Y; for score="exp" divided by exp(S_c)."""
    alphas: Float[Array, "*spatial k"]
    ill_conditioned: Bool[Array, "*spatial k"]
    """Where alpha's denominator crosses zero or cancels; see `alphas.ill_conditioned`."""


def check_head(head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx) -> None:
    """Checks static facts: the head takes floats `[*spatial, k]` to logits `[c]`, and has the class.

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
    logits = jax.eval_shape(head, activations)
    if not hasattr(logits, "shape") or logits.ndim != 1:
        raise ValueError(
            f"head must return logits [c] for one image, but returned {getattr(logits, 'shape', logits)} for "
            f"activations {activations.shape}: a batched head goes in as lambda a: head(a[None])[0]"
        )
    scores.check_class_idx(class_idx, logits.shape[0])


def one_logit(head: Head, class_idx: scores.ClassIdx) -> Callable[[Array], Array]:
    """A -> S_c, by `head.logit(A, class_idx)` where the head knows a shorter way than all logits."""
    direct = getattr(head, "logit", None)
    if direct is not None:
        return lambda a: direct(a, class_idx)
    return lambda a: scores.logit(head(a), class_idx)


def scaled_score(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, score: str | scores.Score
) -> Callable[[Array], Array]:
    """A -> Y(A), for score="exp" divided by the constant exp(S_c) of the given activations, so that it is 1 there."""
    function, name = scores.resolve(score), scores.name_of(score)
    logit = one_logit(head, class_idx)
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
    """The gradient dY / dA, for score="exp" divided by exp(S_c); the arguments and errors of `methods.grad_cam`."""
    check_head(head, activations, class_idx)
    return jax.grad(scaled_score(head, activations, class_idx, score=score))(activations)


def is_one_backward_pass(
    head: Head, activations: jax.ShapeDtypeStruct, *, score: str | scores.Score, alphas: str
) -> bool:
    """Whether `terms` costs no more than the gradient of one logit."""
    if scores.name_of(score) != "exp" or alphas == "exact":
        return False
    return is_piecewise_linear(head, activations)


def terms(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    alphas: str,
) -> Terms:
    """d1 and alphas for Grad-CAM++; the arguments and errors of `methods.grad_cam_pp`."""
    check_head(head, activations, class_idx)
    if _takes_closed_form(head, activations, class_idx, score=score, alphas=alphas):
        d1, d2, d3 = _closed_form(head, activations, class_idx, name=scores.name_of(score))
    else:
        d1, d2, d3 = _exact(head, activations, class_idx, score=score)
    if scores.name_of(score) == "softmax":  # all three came divided by p_c, which the alphas do not need
        d1 = jnp.exp(scores.log_softmax(head(activations), class_idx)).astype(d1.dtype) * d1
    return Terms(d1, exact_alphas(activations, d2, d3), ill_conditioned(activations, d2, d3))


def derivatives_of_score(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    alphas: str,
) -> tuple[_closed_forms.Derivatives, Float[Array, ""]]:
    """d1, d2 and d3 divided by one positive number, and the logarithm of that number.

    For "exp" it is S_c and for "softmax" log p_c: derivatives at several points can be compared by it, and nothing
    overflows. The arguments and errors are those of `methods.grad_cam_pp`.
    """
    check_head(head, activations, class_idx)
    name = scores.name_of(score)
    logits = head(activations)
    log_scale = jnp.zeros((), logits.dtype)
    if name == "exp":
        log_scale = scores.logit(logits, class_idx)
    elif name == "softmax":
        log_scale = scores.log_softmax(logits, class_idx)
    if not _takes_closed_form(head, activations, class_idx, score=score, alphas=alphas):
        return _exact(head, activations, class_idx, score=score), log_scale
    if name == "exp":
        # Not exp_derivatives: its d2 and d3 have a factor for each element, and do not add up over points.
        (g,) = _closed_forms.widened(jax.grad(one_logit(head, class_idx))(activations))
        return (g, g**2, g**3), log_scale
    return _closed_form(head, activations, class_idx, name=name), log_scale


def _takes_closed_form(
    head: Head,
    activations: Float[Array, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    alphas: str,
) -> bool:
    if alphas not in _ALPHAS:
        raise ValueError(f"alphas={alphas!r} is not known: use one of {', '.join(map(repr, _ALPHAS))}")
    function, name = scores.resolve(score), scores.name_of(score)
    if name not in _CLOSED_FORMS:
        label = f"score={score!r}" if name else "this score"
        if is_piecewise_linear(lambda a: function(head(a), class_idx), activations):
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
    proven = is_piecewise_linear(head, activations)
    if alphas == "closed_form" and not proven:
        raise ValueError(
            'alphas="closed_form" needs a head that is piecewise linear in the activations, and this one is not proven '
            'to be: use alphas="exact" (the true derivatives of any head) or alphas="auto"'
        )
    return proven


def _closed_form(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, name: str | None
) -> _closed_forms.Derivatives:
    if name == "exp":
        gradient = jax.grad(one_logit(head, class_idx))(activations)
        return _closed_forms.exp_derivatives(gradient)
    logits, pullback = jax.vjp(head, activations)
    (jacobian,) = jax.vmap(pullback)(jnp.eye(logits.size, dtype=logits.dtype))
    probabilities = jax.nn.softmax(logits)
    if name == "log_softmax":
        return _closed_forms.log_softmax_derivatives(jacobian, probabilities, class_idx)
    return _closed_forms.softmax_derivatives(jacobian, probabilities, class_idx)


def _exact(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: scores.ClassIdx, *, score: str | scores.Score
) -> _closed_forms.Derivatives:
    if scores.name_of(score) != "softmax":
        d1, d2, d3 = elementwise_derivatives(scaled_score(head, activations, class_idx, score=score), activations)
        return d1, d2, d3
    # p_c underflows for improbable classes, and alpha does not depend on it: p / p_c is differentiated, not p.
    offset = scores.log_softmax(head(activations), class_idx)
    d1, d2, d3 = elementwise_derivatives(
        lambda a: jnp.exp(scores.log_softmax(head(a), class_idx) - offset), activations
    )
    return d1, d2, d3

"""Scores: logits S `[c]` and a class -> the scalar Y whose derivatives the methods use.

A score is any callable `(logits, class_idx) -> scalar`; the four of the literature have names. `class_idx` may be
traced. A concrete class outside `[0, c)` is refused by the callers (`check_class_idx`); a traced one is not checked,
and JAX would clamp it.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

__all__ = [
    "ClassIdx",
    "Negated",
    "Score",
    "check_class_idx",
    "exp",
    "is_likeliest",
    "lead_and_odds",
    "log_odds",
    "log_softmax",
    "logit",
    "name_of",
    "negated",
    "resolve",
    "softmax",
    "unit",
    "unsigned",
    "without_slope",
]


def __dir__() -> list[str]:
    return __all__


Score = Callable[..., Array]
"""`(logits [c], class_idx []) -> scalar`."""

ClassIdx = int | np.integer | Int[np.ndarray, ""] | Int[Array, ""]
"""The index of a class: a number that is known, or a traced scalar."""


def logit(logits: Float[Array, "c ..."], class_idx: ClassIdx) -> Float[Array, "..."]:
    """Y = S_c, the class's entry along the first axis.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), section 3: y^c before the softmax.
    """
    return jax.lax.dynamic_index_in_dim(logits, jnp.asarray(class_idx), keepdims=False)


def unit(logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, " c"]:
    """dS_c / dS: 1 at the entry that `logit` takes, else 0."""
    size, index = logits.shape[0], jnp.asarray(class_idx).astype(jnp.int32)
    # Out of range as JAX takes it there: from the end, and no further than the ends.
    index = jax.lax.clamp(np.int32(0), jax.lax.select(index < 0, index + np.int32(size), index), np.int32(size - 1))
    return (jax.lax.iota(np.int32, size) == index).astype(logits.dtype)


def exp(logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, ""]:
    """Y = exp(S_c). **Source**: Chattopadhay et al. 2018 (Grad-CAM++), section 3.2.

    Overflows float32 for logits above 88: the methods divide by exp(S_c), which cancels from the alphas.
    """
    return jnp.exp(logit(logits, class_idx))


def log_softmax(logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, ""]:
    """Y = log softmax(S)_c, computed as (S_c - S_w) - softplus(log sum_{j != w} exp(S_j - S_w)), w the likeliest class.

    S_c - log sum exp(S) has the accuracy of S, and so no digit left of a 1 - p that is smaller than that: the
    derivatives of a confident class would be noise in float32. So would the second and third ones of an improbable
    class in -softplus(log sum_{j != c} exp(S_j) - S_c): as those of log p_w, which they equal where S is linear, they
    keep their digits.
    """
    lead, odds = lead_and_odds(logits, class_idx)
    return lead - jax.nn.softplus(odds)


def lead_and_odds(logits: Float[Array, " c"], class_idx: ClassIdx) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """S_c - S_w, and log((1 - p_w) / p_w) = log sum_{j != w} exp(S_j - S_w), with w the likeliest class.

    Both in differences from S_w: in those, what is small is small by itself, and nothing cancels.
    """
    winner = jnp.argmax(logits)
    behind = logits - logit(logits, winner)
    # Of w itself the lead is 0 anyway, but on the way back 1 - 1 would be added to the gradient by S_w, and cover it.
    lead = jnp.where(is_likeliest(logits, class_idx), 0, logit(behind, class_idx))
    return lead, _log_sum_exp_of_others(behind, winner)


def is_likeliest(logits: Float[Array, " c"], class_idx: ClassIdx) -> Bool[Array, ""]:
    """Whether c is w; of several with the largest logit w is the first."""
    return jnp.asarray(class_idx).astype(jnp.int32) == jnp.argmax(logits).astype(jnp.int32)


def log_odds(logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, ""]:
    """log(p_c / (1 - p_c)) = S_c - log sum_{j != c} exp(S_j), of which softmax and log-softmax are functions.

    In differences from the largest of the others, as `lead_and_odds`. Infinite for a single class.
    """
    others = jnp.where(_others(logits, class_idx), logits, -jnp.inf)
    ahead = logits - logit(logits, jnp.argmax(others))
    return logit(ahead, class_idx) - _log_sum_exp_of_others(ahead, class_idx)


def _others(logits: Float[Array, " c"], class_idx: ClassIdx) -> Bool[Array, " c"]:
    return jnp.arange(logits.shape[0], dtype=jnp.int32) != jnp.asarray(class_idx).astype(jnp.int32)


def _log_sum_exp_of_others(logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, ""]:
    if logits.shape[0] == 1:
        return jnp.full((), -jnp.inf, logits.dtype)
    return jax.nn.logsumexp(jnp.where(_others(logits, class_idx), logits, -jnp.inf))


def softmax(logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, ""]:
    """Y = softmax(S)_c, the class's probability. **Source**: Chattopadhay et al. 2018, section 3.2, "softmax"."""
    return jnp.exp(log_softmax(logits, class_idx))


@dataclass(frozen=True)
class Negated:
    """-Y for a score Y: what speaks against the class. Equal for equal scores, so that compiled programs are found."""

    score: Score

    def __call__(self, logits: Float[Array, " c"], class_idx: ClassIdx) -> Float[Array, ""]:
        """-Y(logits, class_idx)."""
        return -self.score(logits, class_idx)


def negated(score: str | Score = "logit") -> Negated:
    """The score -Y, for counterfactual maps: which regions would have to change to lower the class's score.

    Raises:
        ValueError, TypeError: as `resolve`.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), section 3.3.
    """
    return Negated(resolve(score))


def unsigned(score: str | Score) -> str | Score:
    """The score without its sign: of -Y, which is as large as Y and underflows where Y does, it is Y."""
    while isinstance(score, Negated):
        score = score.score
    return score


def without_slope(score: str | Score) -> Score:
    """A function of the logits with the gradient of Y up to a positive factor, without the factor that may underflow.

    Of exp(S_c) it is S_c, of p_c and log p_c the log odds of c, whose slope by S_c is 1; of any other score itself.
    """
    if isinstance(score, Negated):
        return Negated(without_slope(score.score))
    name = name_of(score)
    return resolve(score) if name is None else {"softmax": log_odds, "log_softmax": log_odds}.get(name, logit)


_NAMED: dict[str, Score] = {"logit": logit, "exp": exp, "softmax": softmax, "log_softmax": log_softmax}


def resolve(score: str | Score) -> Score:
    """The score function of a name, or the callable itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: neither a name nor a callable.
    """
    if isinstance(score, str):
        if score not in _NAMED:
            raise ValueError(
                f"score={score!r} is not known: use one of {', '.join(map(repr, _NAMED))}, "
                "or a callable (logits, class_idx) -> scalar"
            )
        return _NAMED[score]
    if not callable(score):
        raise TypeError(f"score must be a name or a callable (logits, class_idx) -> scalar, not {score!r}")
    return score


def name_of(score: str | Score) -> str | None:
    """The name of a score given by name or as one of this module's functions; None for anybody else's."""
    function = resolve(score)
    return next((name for name, known in _NAMED.items() if known is function), None)


def check_class_idx(class_idx: object, num_classes: int | None) -> None:
    """Refuses a class index that is not an integer scalar or is, when its value is known, outside the classes.

    Raises:
        TypeError: class_idx is not an integer (a float, a bool, a name).
        ValueError: not a scalar, or a concrete value outside `[0, num_classes)`, where their number is known. JAX would
            clamp it silently.
    """
    if isinstance(class_idx, Tracer) or (hasattr(class_idx, "shape") and hasattr(class_idx, "dtype")):
        shape, dtype = jnp.shape(class_idx), jnp.result_type(class_idx)  # type: ignore[arg-type]
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(f"class_idx must be an integer, but its dtype is {dtype}")
        if shape != ():
            raise ValueError(f"class_idx must be a scalar for one image, but its shape is {shape}: vmap over images")
        if isinstance(class_idx, Tracer):
            return
    elif isinstance(class_idx, bool) or not isinstance(class_idx, int):
        raise TypeError(f"class_idx must be an integer, not {class_idx!r}")
    value = operator.index(class_idx)  # type: ignore[arg-type]
    if num_classes is None:
        return
    if not 0 <= value < num_classes:
        raise ValueError(
            f"class_idx={value} is out of range: the head has {num_classes} classes, 0 to {num_classes - 1}"
        )

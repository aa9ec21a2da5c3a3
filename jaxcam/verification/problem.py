"""What is verified: a head, activations and a score, in float64, and the exact terms of Grad-CAM++ there.

Y is divided by its value at A for the scores "exp" and "softmax", so that nothing overflows: alphas, ratios and
normalised maps do not depend on a positive factor. Derivatives do not depend on a constant: 1 is subtracted, so that
differences of Y have more digits.

The head and Y are pytrees (`jax.tree_util.Partial`): what they close over are leaves, and so arguments of the compiled
functions here and in the other parts, not constants in their programs.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from jaxcam import scores
from jaxcam.checks import check_floating, check_integer
from jaxcam.derivatives.elementwise import elementwise_derivatives
from jaxcam.derivatives.of_score import head_of
from jaxcam.programs.linearity import is_piecewise_linear
from jaxcam.programs.number_types import number_types
from jaxcam.types import Head
from jaxcam.verification.differences import alphas_of

CLOSED_FORMS = ("exp", "softmax", "log_softmax")
_MAX_ELEMENTS = 16_384
"""Up to here a head that is not proven piecewise linear is differentiated at every element, in a pass for each."""


class Problem(NamedTuple):
    """What is verified."""

    head: Partial
    """A -> logits `[c]`."""
    a: Float[Array, "*spatial k"]
    class_idx: int
    score: str
    """What the report calls the score."""
    name: str | None
    """Its name in `jaxcam.scores`, or None for somebody else's."""
    f: Partial
    """A -> Y; for exp and softmax divided by its value at A, less 1."""
    y: float
    """Y at A; 1 for exp and softmax."""
    rounding: float
    """About how exact a value of f near A is."""
    proven: bool
    """Whether the head is proven piecewise linear."""
    precision: np.dtype[Any]
    """The narrowest type that the head computes in."""
    eps: float
    """Its machine epsilon, or that of something narrower still that the head rounds to."""
    precision_known: bool
    """Whether all that the head does could be read."""
    size: float
    """1 + the largest logit: exp(S) is as exact as S is, in absolute terms."""

    def by_channel(self, flat: Array | np.ndarray) -> Float[np.ndarray, "n k"]:
        """A value for every element, positions in rows and channels in columns."""
        return np.asarray(flat).reshape(-1, self.a.shape[-1])


class Exact(NamedTuple):
    """The exact terms of Grad-CAM++ at some elements of A."""

    elements: Int[np.ndarray, " n"]
    """Flat indices."""
    channels: Int[np.ndarray, " n"]
    sums: Float[np.ndarray, " n"]
    """S_k of each element's channel."""
    derivatives: Float[np.ndarray, "3 n"]
    """d1, d2, d3 of Y."""
    alphas: Float[np.ndarray, " n"]

    def at(self, sample: Int[np.ndarray, " n"]) -> "Exact":
        """The same at a sample; where only that was looked at, all there is."""
        place = np.searchsorted(self.elements, sample)
        return Exact(*(value[..., place] for value in self))


def problem(head: Head, activations: Any, class_idx: Any, *, score: str | scores.Score) -> Problem:
    """The problem in float64; the errors of `verify`. To be called with 64-bit types enabled."""
    function, name = scores.resolve(score), scores.name_of(score)
    wide, a = _in_float64(head, activations, class_idx)
    hoisted = _hoisted(wide, a)
    found = _score(hoisted, a, int(class_idx), function, name)
    f, y = _hoisted(found.f, a), float(found.y)
    if name not in CLOSED_FORMS and is_piecewise_linear(f, a):
        raise ValueError(
            "there is nothing to verify: this score of this head is piecewise linear in the activations, so that its "
            'second and third derivatives are zero and alpha is 0/0. Use score="exp" (the paper\'s choice) or '
            'score="softmax"'
        )
    if not (np.isfinite(y) and np.isfinite(_value(f, a))):
        raise ValueError("the score is not finite at these activations: look at the parameters of the head")
    label = name or getattr(score, "__name__", type(score).__name__)
    proven, (precision, eps, is_known) = is_piecewise_linear(hoisted, a), _precision(hoisted, a)
    rounding, size = float(found.rounding) * eps, 1 + float(np.abs(_value(hoisted, a)).max())
    return Problem(hoisted, a, int(class_idx), label, name, f, y, rounding, proven, precision, eps, is_known, size)


def _hoisted(f: Callable[[Array], Array], a: Array) -> Partial:
    """The function as a pytree, whose leaves are the arrays that it closes over."""
    program = jax.make_jaxpr(f)(a)

    def run(constants: list[Any], x: Array) -> Array:
        return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, constants))(x)[0]

    return Partial(run, program.consts)


def _in_float64(head: Head, activations: Any, class_idx: Any) -> tuple[Head, Array]:
    """The head and its activations in float64; a head that refuses them gets its own type again."""
    given = jnp.asarray(activations)
    wide = given.astype(jnp.float64) if jnp.issubdtype(given.dtype, jnp.floating) else given
    try:
        head_of(head, wide, class_idx)
    except TypeError:
        head_of(head, given, class_idx)
        return lambda a: head(a.astype(given.dtype)), wide
    return head, wide


def _precision(head: Head, a: Array) -> tuple[np.dtype[Any], float, bool]:
    """The narrowest type on the way from the activations to the logits, its eps, and whether all of them are known."""

    def back(x: Array, cotangents: Array) -> Array:
        return jax.vjp(head, x)[1](cotangents)[0]

    # The rule of a custom derivative may round where its function does not.
    logits = jax.eval_shape(head, a)
    found = number_types(jax.make_jaxpr(head)(a), jax.make_jaxpr(back)(a, logits))
    narrowest = max(found.types, key=lambda dtype: float(jnp.finfo(dtype).eps), default=np.dtype(a.dtype))
    return narrowest, max(found.eps, float(jnp.finfo(a.dtype).eps)), found.known


class _Score(NamedTuple):
    """Y as a function of the activations, up to a positive factor and, where it loses no digits, a constant."""

    f: Callable[[Array], Array]
    y: Array | np.ndarray | float
    rounding: Array | np.ndarray | float


def _score(head: Partial, a: Array, class_idx: int, function: scores.Score, name: str | None) -> _Score:
    logits = _value(head, a)
    if name == "exp":
        s = logits[class_idx]
        return _Score(lambda x: jnp.expm1(scores.logit(head(x), class_idx) - s), 1.0, 1 + abs(s))
    if name in ("softmax", "log_softmax"):
        function = scores.log_softmax
    y = np.asarray(jax.jit(lambda s, c: function(s, c), static_argnums=1)(logits, class_idx))  # as it is now
    if name == "softmax":
        size = abs(y) * (1 + np.abs(logits).max())
        return _Score(lambda x: jnp.expm1(scores.log_softmax(head(x), class_idx) - y), 1.0, size)
    return _Score(lambda x: function(head(x), class_idx), y, abs(y))


def _value(f: Partial, a: Array) -> np.ndarray:
    """f(A), compiled as one program."""
    return np.asarray(_applied(f, a))


@jax.jit
def _applied(f: Partial, a: Float[Array, "..."]) -> Array:
    return f(a)


def sample(problem: Problem, num: int, seed: int) -> Int[np.ndarray, " n"]:
    """Flat indices of elements drawn without replacement: seven of eight from those with a gradient, if there are."""
    live = np.asarray(gradient(problem.f, problem.a)).reshape(-1) != 0
    order = np.random.default_rng(seed).permutation(live.size)
    with_gradient, without = order[live[order]], order[~live[order]]
    num = min(num, live.size)
    share = min(without.size, max(num // 8, num - with_gradient.size))
    return np.sort(np.concatenate([with_gradient[: num - share], without[:share]]))


def is_complete(problem: Problem) -> bool:
    """Whether all elements are looked at, and not only the sample."""
    return problem.proven or problem.a.size <= _MAX_ELEMENTS


def exact(problem: Problem, elements: Int[np.ndarray, " n"]) -> Exact:
    """The exact terms at some elements, or fast at all of them.

    Raises:
        ValueError: a derivative is not finite.
    """
    a, num_channels = problem.a, problem.a.shape[-1]
    whole = elements.size == a.size
    derivatives = np.asarray(derivatives_at(problem.f, a, None if whole else elements))
    if not np.isfinite(derivatives).all():
        raise ValueError("the score has derivatives that are not finite at these activations: alpha is not defined")
    channels = elements % num_channels
    sums = problem.by_channel(a).sum(0)[channels]
    return Exact(elements, channels, sums, derivatives, alphas_of(sums, derivatives))


@partial(jax.jit, static_argnames="method")
def derivatives_at(
    f: Partial,
    a: Float[Array, "..."],
    elements: Int[Array, " n"] | Int[np.ndarray, " n"] | None,
    *,
    method: Literal["auto", "grad", "jvp"] = "auto",
) -> Float[Array, "3 m"]:
    """The exact derivatives by some elements of a only, in as many passes, or by all of them for None."""
    if elements is None:
        return jnp.stack(elementwise_derivatives(f, a, method=method)).reshape(3, -1)

    def moved(steps: Array) -> Array:
        return f(a.reshape(-1).at[elements].add(steps).reshape(a.shape))

    return jnp.stack(elementwise_derivatives(moved, jnp.zeros(elements.size, a.dtype), method=method))


@jax.jit
def gradient(f: Partial, a: Float[Array, "..."]) -> Float[Array, "..."]:
    """The gradient of f."""
    return jax.grad(f)(a)


@contextmanager
def in_float64() -> Generator[None]:
    """64-bit types for one report only; float32 parameters may meet float64 activations, whatever the session says."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.default_matmul_precision("highest"):
        yield


def check(activations: object, class_idx: object, num_sampled: object, seed: object) -> None:
    """The errors of `verify` that need no head."""
    for name, value in {"activations": activations, "class_idx": class_idx}.items():
        if isinstance(value, Tracer):
            raise TypeError(f"{name} must be concrete: verify gives a report, call it outside of jit, vmap and grad")
    scores.check_class_idx(class_idx, None)
    check_floating("activations", activations)
    values = np.asarray(activations)
    if not values.size:
        raise ValueError(f"activations are empty: their shape is {values.shape}")
    if not np.isfinite(values.astype(np.float64)).all():
        raise ValueError("activations must be finite, but have NaN or infinity among them")
    check_integer("num_sampled", num_sampled, low=1)
    check_integer("seed", seed, low=0)

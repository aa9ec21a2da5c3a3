"""The parts of a verification, each computed from the problem and its exact terms, each its own few lines."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxcam import closed_forms, scores
from jaxcam.verification.differences import (
    Difference,
    MapComparison,
    alphas_of,
    compared_maps,
    elementwise,
    relative_to_largest,
    rounding_of_alphas,
)
from jaxcam.verification.problem import CLOSED_FORMS, Exact, Problem, derivatives_at
from jaxcam.verification.reference import finite_differences, nested_tapes

_ROUNDINGS = 32
"""A derivative is taken to be right to so many roundings of the head."""

Three = tuple[Difference, Difference, Difference]
"""One for each of d1, d2, d3."""


@dataclass(frozen=True)
class FiniteDifferences:
    """Finite differences against exact derivatives."""

    num_left_out: int
    """Elements at which they do not settle: a kink lies inside every stencil, or rounding covers the derivative."""
    differences: Three
    """At the elements compared."""


@dataclass(frozen=True)
class Alternative:
    """Another way to the derivatives and alphas, against the exact ones."""

    derivatives: Three
    alphas: Difference
    """Where d1 > 0: the others do not enter the weights."""
    maps: MapComparison | None
    """None where only a sample of elements was looked at."""


def three(found: Float[np.ndarray, "3 n"], reference: Float[np.ndarray, "3 n"]) -> Three:
    """The differences, order by order."""
    first, second, third = (relative_to_largest(x, y) for x, y in zip(found, reference, strict=True))
    return first, second, third


def composition(
    problem: Problem, elements: Int[np.ndarray, " n"], method: Literal["grad", "jvp"]
) -> Float[np.ndarray, "3 n"] | None:
    """The derivatives by one composition; None where the head has no such derivative (`jax.custom_vjp`)."""
    try:
        return np.asarray(derivatives_at(problem.f, problem.a, elements, method=method))
    except ValueError:
        return None


def by_finite_differences(
    problem: Problem, elements: Int[np.ndarray, " n"], derivatives: Float[np.ndarray, "3 n"], *, eps: float
) -> FiniteDifferences:
    """Finite differences count where their uncertainty is below eps^(1/4) times the largest derivative."""
    found, uncertainty = finite_differences(problem.f, problem.a, elements, eps=eps, rounding=problem.rounding)
    scale = np.abs(derivatives).max(1)
    scale = np.where(scale > 0, scale, np.median(np.abs(found), 1))
    settled = (uncertainty <= eps**0.25 * scale[:, None]).all(0)
    return FiniteDifferences(int((~settled).sum()), three(found[:, settled], derivatives[:, settled]))


def map_comparison(
    problem: Problem, known: Exact, alphas: Float[np.ndarray, " n"], gradient: Float[np.ndarray, " n"]
) -> MapComparison | None:
    """Weights and map of other alphas and gradients against the exact ones."""
    if known.elements.size < problem.a.size:
        return None
    weights, reference = (
        problem.by_channel(alpha * np.maximum(d1, 0)).sum(0)
        for alpha, d1 in ((alphas, gradient), (known.alphas, known.derivatives[0]))
    )
    return compared_maps(weights, reference, problem.by_channel(problem.a))


def closed_form(problem: Problem) -> Float[np.ndarray, "3 N"] | None:
    """d1, d2, d3 by the closed form of the score, whether or not it applies to the head; None where there is none."""
    if problem.name not in CLOSED_FORMS:
        return None
    return np.asarray(_closed_form(problem.head, problem.a, problem.class_idx, name=problem.name))


@partial(jax.jit, static_argnames=("class_idx", "name"))
def _closed_form(head: Partial, a: Array, class_idx: int, *, name: str) -> Float[Array, "3 N"]:
    if name == "exp":
        g = jax.grad(lambda x: scores.logit(head(x), class_idx))(a).reshape(-1)
        return jnp.stack([g, g**2, g**3])
    logits, pullback = jax.vjp(head, a)
    (jacobian,) = jax.lax.map(pullback, jnp.eye(logits.size, dtype=logits.dtype))
    lead_and_odds = closed_forms.linear_lead_and_odds(jacobian, logits, class_idx)
    form = {"softmax": closed_forms.softmax_derivatives, "log_softmax": closed_forms.log_softmax_derivatives}[name]
    found = form(*lead_and_odds, logits, class_idx)
    # In the units of f: softmax is divided by its value.
    log_unit = scores.log_softmax(logits, class_idx) if name == "softmax" else jnp.zeros((), a.dtype)
    slope, curvature = (jnp.exp(factor - log_unit) for factor in (found.log_slope, found.log_curvature))
    return jnp.stack([slope * found.d1, curvature * found.d2, curvature * found.d3]).reshape(3, -1)


def tapes(problem: Problem, known: Exact) -> Float[np.ndarray, "3 n"]:
    """What the recipe of three nested tapes takes for d1, d2, d3."""
    d2, d3 = (np.asarray(d).reshape(-1)[known.elements] for d in nested_tapes(problem.f, problem.a))
    return np.stack([known.derivatives[0], d2, d3])


def alternative(problem: Problem, known: Exact, derivatives: Float[np.ndarray, "3 n"]) -> Alternative:
    """Other derivatives, at the elements with exact terms, against those."""
    alphas = alphas_of(known.sums, derivatives)
    return Alternative(
        three(derivatives, known.derivatives),
        elementwise_where(known.derivatives[0] > 0, alphas, known.alphas, rounding(problem, known)),
        map_comparison(problem, known, alphas, derivatives[0]),
    )


def rounding(problem: Problem, known: Exact) -> Float[np.ndarray, " n"]:
    """How far the head's rounding may move the exact alphas."""
    unit = _ROUNDINGS * problem.eps * problem.size
    return rounding_of_alphas(known.sums, known.derivatives, unit)


def elementwise_where(
    counted: Bool[np.ndarray, " n"],
    found: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, " n"],
    rounding: Float[np.ndarray, " n"],
) -> Difference:
    """The `Difference` of alphas over the elements that are counted."""
    return elementwise(found[counted], reference[counted], rounding[counted])

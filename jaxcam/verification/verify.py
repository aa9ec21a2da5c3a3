"""The front door of the verification: a head and activations in, a `Verification` out.

Contract: everything is computed in float64, whatever the session's settings are; `Verification.precision` says what the
head itself works in, and the tolerances follow that. A report has concrete numbers: it is not for jit.
"""

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.types import Head
from jaxcam.verification import equations, sections
from jaxcam.verification import problem as problems
from jaxcam.verification.differences import alphas_of, denominator
from jaxcam.verification.problem import Exact, Problem, derivatives_at, exact
from jaxcam.verification.regime import of_exact
from jaxcam.verification.report import Verification

_ALPHA_ELEMENTS = 1_024
"""Up to here alpha is differentiated for a head that is not proven piecewise linear: for each element of the sample
that takes a pass for every element of A."""


def verify(
    head: Head,
    activations: Float[Array, "*spatial k"] | Float[np.ndarray, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score = "exp",
    num_sampled: int = 256,
    seed: int = 0,
) -> Verification:
    """Checks the derivation of Grad-CAM++ on one head and one image's activations, in figures and in words.

    Exact derivatives by two compositions and by finite differences; the closed form against them; whether the head is
    proven piecewise linear; the condition of alpha's denominator; the paper's equations one by one, with the terms that
    its derivation drops; what three nested tapes compute instead; how far Grad-CAM++ is from grad_cam_positive, and
    which of its limits it works in (`jaxcam.verification.regime`). `print` the result for a table.

    What takes a pass for each element (the compositions, finite differences, rows of the Hessian) is worked out at a
    sample of them. So is everything for a head of more than 16,384 elements that is not proven piecewise linear; what
    needs all elements, as weights and maps do, is then None.

    Args:
        head: A -> logits `[c]`, for one image. Its parameters may be float32: they are promoted with the activations. A
            head that refuses float64 gets what it takes, and the report says so.
        activations: A, `[*spatial, k]`.
        class_idx: c.
        score: Y: "exp", "softmax", "log_softmax", "logit", or a callable (logits, class_idx) -> scalar.
        num_sampled: the size of the sample.
        seed: of the sample.

    Raises:
        ValueError: activations are not `[*spatial, k]`, are empty or not finite; the head does not return `[c]`;
            class_idx is out of range; Y is piecewise linear in A, so that alpha is 0/0 (a ReLU network's logit); Y or
            its derivatives are not finite; the head cannot be differentiated backwards; num_sampled or seed is out of
            range; an unknown score.
        TypeError: activations are not floating point, something is traced, class_idx is not an integer, the head is
            not callable.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), section 3; its equations are listed in
    `jaxcam.verification.concordance`. grad_cam_positive: Lerma and Lucas 2022, "Grad-CAM++ is equivalent to
    Grad-CAM with positive gradients".
    """
    problems.check(activations, class_idx, num_sampled, seed)
    with problems.in_float64():
        problem = problems.problem(head, activations, class_idx, score=score)
        sample = problems.sample(problem, num_sampled, seed)
        complete = problems.is_complete(problem)
        known = exact(problem, np.arange(problem.a.size) if complete else sample)
        return _verification(problem, known, sample, seed)


def _verification(problem: Problem, known: Exact, sample: np.ndarray, seed: int) -> Verification:
    complete = known.elements.size == problem.a.size
    d1, d2, d3 = known.derivatives
    sampled, eps = known.at(sample), problem.eps
    by_grad, by_jvp = (sections.composition(problem, sample, method) for method in ("grad", "jvp"))
    # What does not take the same way as `known`: one of the two compositions, if the head allows only one.
    independent = by_jvp if by_jvp is not None else by_grad
    if independent is None:
        raise ValueError("the head can be differentiated neither forwards nor backwards")
    y = problem.y
    form = sections.closed_form(problem)
    linear_model = identity = exponential = closed_at_sample = None
    (first_step, second_step), (first_used, second_used) = (None, None), (None, None)
    if complete:
        linear_model, identity = (
            equations.identity_ratio(y, problem.by_channel(known.alphas * g).sum(0), problem.by_channel(problem.a))
            for g in (np.maximum(d1, 0), d1)
        )
        (first_step, second_step), (first_used, second_used) = equations.differentiated(
            problem.f,
            problem.a,
            sample[sampled.derivatives[0] != 0],
            derivatives=known.derivatives,
            alphas=known.alphas,
            with_alpha=(problem.proven and form is not None) or problem.a.size <= _ALPHA_ELEMENTS,
        )
    if form is not None:
        closed_at_sample = sections.elementwise_where(
            sampled.derivatives[0] > 0,
            alphas_of(sampled.sums, form[:, sample]),
            alphas_of(sampled.sums, independent),
            sections.rounding(problem, known)[np.searchsorted(known.elements, sample)],
        )
    if problem.name == "exp":
        logit = Partial(_logit, problem.head, problem.class_idx)
        of_logit = np.asarray(derivatives_at(logit, problem.a, sample))
        exponential = equations.exponential(y, independent, of_logit)
    return Verification(
        score=problem.score,
        class_idx=problem.class_idx,
        shape=problem.a.shape,
        precision=problem.precision.name,
        precision_known=problem.precision_known,
        eps=eps,
        piecewise_linear=problem.proven,
        num_exact=known.elements.size,
        num_sampled=sample.size,
        seed=seed,
        grad_and_jvp=None if by_grad is None or by_jvp is None else sections.three(by_grad, by_jvp),
        exact_and_nested=sections.three(sampled.derivatives, independent),
        finite_differences=sections.by_finite_differences(problem, sample, sampled.derivatives, eps=eps),
        closed_form=None if form is None else sections.alternative(problem, known, form[:, known.elements]),
        closed_form_at_sample=closed_at_sample,
        nested_tapes=sections.alternative(problem, known, sections.tapes(problem, known)),
        grad_cam_positive=sections.map_comparison(problem, known, np.ones_like(d1), d1),
        denominator=denominator(known.sums, d2, d3, channels=known.channels, among=d1 > 0),
        denominator_all=denominator(known.sums, d2, d3, channels=known.channels, among=d1 != 0),
        linear_model=linear_model,
        identity=identity,
        first_step=first_step,
        second_step=second_step,
        first_step_used=first_used,
        second_step_used=second_used,
        regime=of_exact(problem, known),
        solved=equations.solved(known.sums, d2, d3, known.alphas),
        exponential=exponential,
    )


def _logit(head: Partial, class_idx: int | Array, a: Array) -> Array:
    return scores.logit(head(a), class_idx)

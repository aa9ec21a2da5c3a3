"""The verdict of a verification: what follows from its figures, in words."""

from jaxcam.verification.record import Record
from jaxcam.verification.wording import figure, percent


def sentences(v: Record) -> tuple[str, ...]:
    """The verdict, a sentence or two for each question."""
    found = [
        _on_closed_form(v), _on_derivatives(v), _on_denominator(v), _on_identity(v), _on_dropped(v), _on_tapes(v),
        _on_grad_cam_positive(v), v.regime.sentence if v.regime.quantiles else "",
    ]  # fmt: skip
    return tuple(text for text in found if text)


def _on_closed_form(v: Record) -> str:
    if v.closed_form is None:
        return f"There is no closed form for the score {v.score}: only exact derivatives give its alphas."
    if not v.denominator.num_elements:
        return ""
    gap = figure(v.closed_form_gap)
    if v.closed_form_holds and v.piecewise_linear:
        return f"Closed form exact on this head: proven piecewise linear; largest relative difference {gap}."
    if v.closed_form_holds:
        return f"Closed form agrees here to {gap}, but the head is not proven piecewise linear."
    if v.closed_form_holds is None:
        precision = v.precision if v.precision_known else "a precision that is not known"
        return f"Closed form not decided: alphas differ by up to {gap}, and the head computes in {precision}."
    if v.piecewise_linear:
        return f"Closed form contradicted: the head is proven piecewise linear, yet alphas differ by up to {gap}."
    maps = v.closed_form.maps
    return (
        "Closed form does not hold: the head is not proven piecewise linear, and alphas differ by up to "
        f"{gap} (median {figure(v.closed_form.alphas.median)})"
        + (f", the maps by up to {figure(maps.map_difference)}." if maps else ".")
    )


def _on_derivatives(v: Record) -> str:
    finite = v.finite_differences
    if v.grad_and_jvp is None:
        text = "The head allows only one of the two compositions"
    elif (gap := max(d.largest for d in v.grad_and_jvp)) <= v.tolerance:
        text = f"Both compositions agree to {figure(gap)}"
    else:
        text = f"The two compositions differ by {figure(gap)}"
    num_compared = finite.differences[0].num_elements
    if not num_compared:
        return f"{text}; finite differences settle at none of {v.num_sampled} elements."
    gap = max(d.largest for d in finite.differences)
    # In half precision a function is a staircase: differences that settle on one of its steps say nothing.
    can_contradict = v.precision_known and v.eps < 1e-4
    verb = "confirm" if gap <= 10 * v.eps**0.25 else "contradict" if can_contradict else "do not confirm"
    return f"{text}; finite differences {verb} them at {num_compared} of {v.num_sampled} elements (to {figure(gap)})."


def _on_denominator(v: Record) -> str:
    d = v.denominator
    if not d.num_elements:
        return "No element has a positive gradient: every weight and the map are zero."
    if not d.num_ill_conditioned:
        worst = "never cancel" if d.smallest in (None, 1) else f"cancel to {figure(d.smallest)} of their size at worst"
        return f"Alpha is well-conditioned wherever the gradient is positive: the terms of its denominator {worst}."
    return (
        f"Alpha is ill-conditioned at {percent(d.num_ill_conditioned, d.num_elements)} of the elements with a positive "
        f"gradient: its denominator is negative at {percent(d.num_negative, d.num_elements)}, and crosses zero within "
        f"{d.num_channels_crossing} channels."
    )


def _on_identity(v: Record) -> str:
    if v.identity is None:
        return ""
    if abs(v.identity - 1) <= v.tolerance:
        return "Eq. 7 holds: the weighted sums are Y."
    return f"Eq. 7, from which alpha is derived, does not hold: its right-hand side is {figure(v.identity)} Y."


def _on_dropped(v: Record) -> str:
    if v.first_step is None or v.second_step is None:
        return ""
    first, second = (step.mixed_partials for step in (v.first_step, v.second_step))
    if first is None or second is None:
        return ""
    if max(first.median, second.median) <= v.tolerance:
        return "The mixed partials that the derivation drops are zero."
    used = [step and step.mixed_partials for step in (v.first_step_used, v.second_step_used)]
    first, second = (ratio or other for ratio, other in zip(used, (first, second), strict=True))
    where = " with a positive gradient" if all(used) else ""
    return (
        "The mixed partials that the derivation drops on the way to Eq. 8 and 9 are larger than all that it keeps at "
        f"{percent(first.share_larger, 1)} and {percent(second.share_larger, 1)} of the elements{where}."
    )


def _on_tapes(v: Record) -> str:
    found = v.nested_tapes.alphas
    if found.largest <= v.tolerance:
        return "Three nested tapes give the same alphas."
    return (
        "Three nested tapes compute sums over rows of the Hessian: their alphas are off by up to "
        f"{figure(found.largest)} (median {figure(found.median)})."
    )


def _on_grad_cam_positive(v: Record) -> str:
    found = v.grad_cam_positive
    if found is None or found.weights_cosine is None:
        return ""
    return (
        f"grad_cam_positive has weights at a cosine of {found.weights_cosine:.4f} to Grad-CAM++'s, "
        f"and a map that differs by at most {figure(found.map_difference)}."
    )

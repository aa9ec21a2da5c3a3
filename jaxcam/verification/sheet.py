"""A verification as a table of at most 100 columns."""

from collections.abc import Sequence
from textwrap import wrap

from jaxcam.verification.concordance import labelled
from jaxcam.verification.differences import Difference, MapComparison, Ratio
from jaxcam.verification.record import Record
from jaxcam.verification.regime import table as regime_table
from jaxcam.verification.sections import Three
from jaxcam.verification.verdict import sentences
from jaxcam.verification.wording import figure, percent

_WIDTH = 100
_LABEL = 48
_COLUMN = 10
_SCORES = {
    "exp": "exp(S_{c})",
    "logit": "S_{c}",
    "softmax": "softmax(S)_{c}",
    "log_softmax": "log softmax(S)_{c}",
}


def table(v: Record) -> str:
    """The figures, section by section, and the verdict."""
    score = _SCORES.get(v.score, v.score + "(S, {c})").format(c=v.class_idx)
    proof = "proven" if v.piecewise_linear else "not proven"
    precision = v.precision if v.precision_known else f"{v.precision} or less"
    sections = [
        [
            f"Grad-CAM++ verified: Y = {score}, {v.num_elements:,} activations [{', '.join(map(str, v.shape))}]",
            f"The head computes in {precision} and is {proof} to be piecewise linear.",
            _sampled(v),
        ],
        _derivatives(v),
        _alphas(v),
        _denominator(v),
        _maps(v),
        _equations(v),
        _dropped(v),
        regime_table(v.regime),
        ["Verdict", *(line for text in sentences(v) for line in _paragraph(text))],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _sampled(v: Record) -> str:
    if v.num_exact < v.num_elements:
        return f"Only a sample of {v.num_sampled:,} elements (seed {v.seed}) was looked at."
    if v.num_sampled < v.num_elements:
        return f"What takes a pass for each element is from a sample of {v.num_sampled:,} of them (seed {v.seed})."
    return "All elements were looked at in every way."


def _derivatives(v: Record) -> list[str]:
    def row(label: str, three: Three | None) -> str:
        if three is None:
            return _row(label, ["-"] * 4)
        return _row(label, [f"{three[0].num_elements:,}", *(figure(d.largest) for d in three)])

    finite = v.finite_differences
    lines = [
        _row("Derivatives: largest difference / value", ["elements", "d1", "d2", "d3"], indent=0),
        row("nested grad against nested jvp", v.grad_and_jvp),
        row("exact, as used below, against nested jvp", v.exact_and_nested),
        row("finite differences against exact", finite.differences),
    ]
    if v.closed_form:
        lines.append(row("closed form against exact", v.closed_form.derivatives))
    lines.append(row("three nested tapes against exact", v.nested_tapes.derivatives))
    if finite.num_left_out:
        lines.append(
            f"  Finite differences do not settle at {finite.num_left_out:,} elements: a kink in reach, or rounding."
        )
    return lines


def _alphas(v: Record) -> list[str]:
    def row(label: str, found: Difference) -> str:
        return _row(label, [f"{found.num_elements:,}", figure(found.median), figure(found.largest)])

    lines = [_row("Alphas where d1 > 0: relative difference", ["elements", "median", "largest"], indent=0)]
    if v.closed_form and v.closed_form_at_sample:
        lines.append(row("closed form against exact", v.closed_form.alphas))
        lines.append(row("closed form against nested jvp", v.closed_form_at_sample))
    return [*lines, row("three nested tapes against exact", v.nested_tapes.alphas)]


def _denominator(v: Record) -> list[str]:
    header = ["elements", "smallest", "negative", "ill-cond.", "crossing"]
    lines = [_row("Denominator 2 d2 + S_k d3 of alpha", header, indent=0)]
    for label, d in (("where d1 > 0 (in the weights)", v.denominator), ("where d1 is not 0", v.denominator_all)):
        bad = percent(d.num_negative, d.num_elements), percent(d.num_ill_conditioned, d.num_elements)
        lines.append(_row(label, [f"{d.num_elements:,}", figure(d.smallest), *bad, str(d.num_channels_crossing)]))
    lines.append("  smallest: relative to its terms; negative: as alpha; crossing: channels with alphas of both signs")
    return lines


def _maps(v: Record) -> list[str]:
    def row(label: str, found: MapComparison | None) -> str:
        cells = (None,) * 3 if found is None else (found.weights_cosine, found.map_correlation, found.map_difference)
        return _row(label, [figure(cell) for cell in cells])

    lines = [_row("Against Grad-CAM++ with exact alphas", ["cosine w", "map corr.", "map diff."], indent=0)]
    if v.closed_form:
        lines.append(row("Grad-CAM++ with the closed form", v.closed_form.maps))
    lines.append(row("Grad-CAM++ with three nested tapes", v.nested_tapes.maps))
    return [*lines, row("grad_cam_positive", v.grad_cam_positive)]


def _equations(v: Record) -> list[str]:
    def off(label: str, difference: Difference | None) -> str:
        cells = (None, None) if difference is None else (difference.median, difference.largest)
        return _row(label, [figure(cell) for cell in cells])

    def gives(label: str, ratio: float | None) -> str:
        return _row(label, ["", "-" if ratio is None else f"{figure(ratio)} Y"])

    lines = [
        _row("Equations of the paper: the right-hand side", ["", "is"], indent=0),
        gives(labelled(1, "Y = sum_k w_k S_k, w_k by 5"), v.linear_model),
        gives(labelled(7, "Y = sum_k W_k S_k, without the ReLU"), v.identity),
        _row("Equations of the paper: both sides differ by", ["median", "largest"], indent=0),
    ]
    for number, step in ((8, v.first_step), (9, v.second_step)):
        lines += [
            off(labelled(number), step and step.as_printed),
            off("      with the mixed partials", step and step.with_mixed_partials),
            off("      with the derivative of alpha as well", step and step.in_full),
        ]
    lines.append(off(labelled(10, "alpha put into 9"), v.solved))
    if e := v.exponential:
        found = {13: e.first, 14: e.second, 17: e.second_linear, 18: e.third_linear}
        lines += [off(labelled(number), difference) for number, difference in found.items()]
        lines.append(off(labelled(19, "alpha = 1 / (2 + S_k g), where d1 > 0"), v.closed_form_at_sample))
        maps = v.closed_form.maps if v.closed_form else None
        lines.append(
            _row(labelled(20, "the map, with alpha by 19 and by 10"), ["", figure(maps and maps.map_difference)])
        )
    if v.score == "softmax" and v.closed_form:
        lines += [off(labelled(n), d) for n, d in zip((22, 23, 24), v.closed_form.derivatives, strict=True)]
    return lines


def _dropped(v: Record) -> list[str]:
    if v.first_step is None or v.second_step is None:
        return []

    def row(label: str, *ratios: Ratio | None) -> str:
        cells = [x for r in ratios for x in ((None, None) if r is None else (r.median, r.share_larger))]
        return _row(label, [figure(x) if i % 2 == 0 or x is None else percent(x, 1) for i, x in enumerate(cells)])

    lines: list[str] = []
    for title, one, two in (
        ("Dropped / kept, ReLU dropped as in the derivation", v.first_step, v.second_step),
        ("Dropped / kept with the ReLU, where d1 > 0", v.first_step_used, v.second_step_used),
    ):
        if one is None or two is None:
            continue
        lines += [
            _row(title, ["8: median", "larger", "9: median", "larger"], indent=0),
            row("all mixed partials", one.mixed_partials, two.mixed_partials),
            row("  within the channel", one.same_channel, two.same_channel),
            row("  with other channels", one.other_channels, two.other_channels),
            row("the derivative of alpha", one.alpha_derivative, two.alpha_derivative),
        ]
    return [*lines, "  larger: the share of the elements where what is dropped is larger than all that is kept"]


def _row(label: str, cells: Sequence[str], *, indent: int = 2) -> str:
    return (" " * indent + label).ljust(_LABEL) + "".join(cell.rjust(_COLUMN) for cell in cells)


def _paragraph(text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent="  - ", subsequent_indent="    ")

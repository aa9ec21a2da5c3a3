"""What Grad-CAM++ does on a head: grad_cam_positive, or a count of positions.

With u = S_k d3 / d2, alpha = 1 / (2 + u), exactly and for every score; for Y = exp(S_c) and a piecewise linear head
u is S_k g. An element adds alpha d1 to the weight of its channel, which has two limits:

    0 <= u <= eps     1 / (2 + eps) <= alpha <= 1/2: the weights are half the sums of ReLU(g), less at most the share
                      eps / (2 + eps) of each. Grad-CAM++ is then `methods.grad_cam_positive`.
    u >> 1            alpha d1 = d1 / (2 + u) -> d1 / u, for exp 1 / S_k, less at most the share 2 / (2 + u): an element
                      counts, whatever its gradient. A channel that is 1 on m positions with g > 0 gets the weight
                      m / S_k = 1, however large m is: small objects become as bright as large ones.

Behind global average pooling of Z positions, g = w_k / Z and u = w_k mean(A_k) is the channel's own share of the
logit: these add up to S_c less its bias, so that u can be large in few channels only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.types import Head
from jaxcam.verification import problem as problems
from jaxcam.verification.differences import MapComparison, compared_maps
from jaxcam.verification.problem import Exact, Problem
from jaxcam.verification.wording import figure, percent

LOW, HIGH = 0.2, 20.0
"""Up to the one, and from the other on, alpha d1 is within 1/11 (9 %) of its limit."""
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Regime:
    """In which of its two limits Grad-CAM++ works, from the elements with a positive gradient, d1 > 0.

    The shares are of the weights, that is of the sum of |alpha| d1, and add up to 1; all is None where no element has a
    positive gradient and a second derivative.
    """

    num_elements: int
    """With d1 > 0 and d2 not 0."""
    quantiles: tuple[float, float, float, float, float] | None
    """Of u = S_k d3 / d2 over the elements, at 5, 25, 50, 75 and 95 %."""
    extremes: tuple[float, float] | None
    """The smallest and the largest u."""
    grad_cam_positive: float | None
    """Share of the weights with 0 <= u <= 0.2: alpha is 1/2, at most 9 % less."""
    between: float | None
    """Share with 0.2 < u < 20."""
    counting: float | None
    """Share with u >= 20: an element adds its limit d1 / u, for exp 1 / S_k, at most 9 % less."""
    beyond: float | None
    """Share with u < 0: alpha is above 1/2, or negative; not for exp, a piecewise linear head and A >= 0."""
    from_grad_cam_positive: MapComparison | None
    """The weights sum of ReLU(d1), against those of Grad-CAM++; None where only a sample was looked at."""
    from_counting: MapComparison | None
    """The weights sum of d1 / u where u > 0, against those of Grad-CAM++."""

    @property
    def alpha_bounds(self) -> tuple[float, float] | None:
        """Where all alphas of elements with d1 > 0 lie, [1 / (2 + u_max), 1 / (2 + u_min)]; None for a u below 0."""
        if self.extremes is None or self.extremes[0] < 0:
            return None
        low, high = self.extremes
        return 1 / (2 + high), 1 / (2 + low)

    @property
    def sentence(self) -> str:
        """What follows, in words."""
        if self.quantiles is None:
            return "What Grad-CAM++ does here: nothing, no element has a positive gradient and a second derivative."
        shares = {
            "grad_cam_positive": self.grad_cam_positive,
            "in between": self.between,
            "a count of positions": self.counting,
            "beyond the limits": self.beyond,
        }
        name, share = max(shares.items(), key=lambda each: each[1] or 0.0)
        maps = self.from_grad_cam_positive
        apart = f"; the map of grad_cam_positive differs by at most {figure(maps.map_difference)}" if maps else ""
        how = f"{percent(share or 0.0, 1)} of the weights, median u {figure(self.quantiles[2])}"
        return f"What Grad-CAM++ does here: {name} ({how}){apart}."

    def __str__(self) -> str:
        return "\n".join(table(self)) or self.sentence


def regime(
    head: Head,
    activations: Float[Array, "*spatial k"] | Float[np.ndarray, "*spatial k"],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score = "exp",
    num_sampled: int = 256,
    seed: int = 0,
) -> Regime:
    """Whether Grad-CAM++ on this head and these activations is grad_cam_positive, a count of positions, or between.

    From the exact derivatives, in float64. It is a part of `jaxcam.verify`'s report, here without the rest. Arguments
    and errors as there; a head of more than 16,384 elements that is not proven piecewise linear is looked at in a
    sample of `num_sampled` elements, and its maps are then not compared.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), Eq. 10; the first limit: Lerma and Lucas 2022, "Grad-CAM++ is
    equivalent to Grad-CAM with positive gradients".
    """
    problems.check(activations, class_idx, num_sampled, seed)
    with problems.in_float64():
        problem = problems.problem(head, activations, class_idx, score=score)
        complete = problems.is_complete(problem)
        elements = np.arange(problem.a.size) if complete else problems.sample(problem, num_sampled, seed)
        return of_exact(problem, problems.exact(problem, elements))


def of_exact(problem: Problem, known: Exact) -> Regime:
    """The regime, from the exact terms."""
    d1, d2, d3 = known.derivatives
    counted = (d1 > 0) & (d2 != 0)
    if not counted.any():
        return Regime(0, *(None,) * 8)
    u = np.divide(known.sums * d3, d2, where=counted, out=np.zeros_like(d1))
    there, added = u[counted], (np.abs(known.alphas) * d1)[counted]
    total = added.sum() or 1.0
    among = [(there >= 0) & (there <= LOW), (there > LOW) & (there < HIGH), there >= HIGH, there < 0]
    first, second, third, fourth = (float(added[where].sum() / total) for where in among)
    low, lower, median, upper, high = (float(q) for q in np.quantile(there, LEVELS))
    limits = d1, np.divide(d1, u, where=counted & (u > 0), out=np.zeros_like(d1))
    plain, counts = (_against(problem, known, np.where(counted, limit, 0)) for limit in limits)
    extremes = float(there.min()), float(there.max())
    quantiles = low, lower, median, upper, high
    return Regime(int(counted.sum()), quantiles, extremes, first, second, third, fourth, plain, counts)


def _against(problem: Problem, known: Exact, terms: Float[np.ndarray, " n"]) -> MapComparison | None:
    """The weights that are sums of these terms against those of Grad-CAM++; None where there is only a sample."""
    if known.elements.size < problem.a.size:
        return None
    exact = known.alphas * np.maximum(known.derivatives[0], 0)
    weights, reference = (problem.by_channel(each).sum(0) for each in (terms, exact))
    return compared_maps(weights, reference, problem.by_channel(problem.a))


def table(found: Regime) -> list[str]:
    """The regime as two tables of one line and of two, as in the report of `verify`."""
    if found.quantiles is None:
        return []
    shares = [found.grad_cam_positive, found.between, found.counting, found.beyond]
    lines = [
        _row("Regime: u = S_k d3 / d2, alpha = 1 / (2 + u)", ["5 %", "25 %", "median", "75 %", "95 %"]),
        _row("  where d1 > 0 (for exp and ReLUs u = S_k g)", [figure(q) for q in found.quantiles]),
        _row("  weights by u", ["0 to 0.2", "to 20", "above", "below 0"]),
        _row("", [percent(share or 0.0, 1) for share in shares]),
    ]
    if found.from_grad_cam_positive and found.from_counting:
        lines.append(_row("  if alpha were its limit", ["cosine w", "map corr.", "map diff."]))
        for label, maps in (
            ("    1/2, the weights of grad_cam_positive", found.from_grad_cam_positive),
            ("    1/u, a count of positions", found.from_counting),
        ):
            cells = maps.weights_cosine, maps.map_correlation, maps.map_difference
            lines.append(_row(label, [figure(cell) for cell in cells]))
    return lines


def _row(label: str, cells: list[str]) -> str:
    return label.ljust(48) + "".join(cell.rjust(10) for cell in cells)

"""The record of a verification: every figure that it found, and what follows from them by arithmetic."""

import math
from dataclasses import dataclass

from jaxcam.verification.differences import Denominator, Difference, MapComparison
from jaxcam.verification.equations import Differentiated, Exponential
from jaxcam.verification.regime import Regime
from jaxcam.verification.sections import Alternative, FiniteDifferences, Three


@dataclass(frozen=True)
class Record:
    """The figures of a verification.

    None stands for what could not be had: a figure that needs all elements where only the sample was looked at, a
    ratio to zero, a closed form that does not exist, a composition that the head does not allow.
    """

    score: str
    class_idx: int
    shape: tuple[int, ...]
    """Of the activations."""
    precision: str
    """The narrowest type that the head is seen to compute in, in loops and branches too; all else is float64."""
    precision_known: bool
    """False where part of the head cannot be read, such as a callback: it may compute in something narrower."""
    eps: float
    """Its machine epsilon, from which the tolerances follow."""
    piecewise_linear: bool
    """Whether the head is proven piecewise linear. False is "not proven"."""
    num_exact: int
    """How many elements have exact terms: all of them, or the sample."""
    num_sampled: int
    """The size of the sample that the compositions, finite differences and Eq. 8, 9, 13, 14, 17 and 18 take."""
    seed: int
    """Of the sample."""
    grad_and_jvp: Three | None
    """d1, d2, d3 by nested `jax.grad` against nested `jax.jvp`."""
    exact_and_nested: Three
    """The exact derivatives that the rest uses (`elementwise_derivatives` takes the head apart where it can) against
    nested `jax.jvp`, or nested `jax.grad` where the head has no forward derivative."""
    finite_differences: FiniteDifferences
    closed_form: Alternative | None
    """The closed form of the score against the exact terms."""
    closed_form_at_sample: Difference | None
    """Its alphas against those of the nested composition in `exact_and_nested`, at the sample where d1 > 0."""
    nested_tapes: Alternative
    """The recipe of three nested tapes against the exact terms."""
    grad_cam_positive: MapComparison | None
    """w_k = mean of ReLU(d1) against Grad-CAM++."""
    denominator: Denominator
    """Where d1 > 0: what enters the weights."""
    denominator_all: Denominator
    """Where d1 is not 0: what enters Eq. 7."""
    linear_model: float | None
    """Eq. 1 and 5: sum_k w_k S_k / Y with the weights of Grad-CAM++."""
    identity: float | None
    """Eq. 7: the same without the ReLU."""
    first_step: Differentiated | None
    """Eq. 8, the ReLU dropped as in the derivation."""
    second_step: Differentiated | None
    """Eq. 9."""
    first_step_used: Differentiated | None
    """Eq. 8 with the ReLU, where d1 > 0: of what Grad-CAM++ uses."""
    second_step_used: Differentiated | None
    """Eq. 9 with the ReLU, where d1 > 0."""
    regime: Regime
    """Whether Grad-CAM++ is grad_cam_positive here, or a count of positions."""
    solved: Difference
    """Eq. 10 put into Eq. 9."""
    exponential: Exponential | None
    """Eq. 13, 14, 17 and 18; None for other scores than "exp"."""

    @property
    def tolerance(self) -> float:
        """Up to here two ways of computing the same agree: eps^(2/3), 4e-11 in float64."""
        return self.eps ** (2 / 3)

    @property
    def num_elements(self) -> int:
        """The number of elements of the activations."""
        return math.prod(self.shape)

    @property
    def closed_form_holds(self) -> bool | None:
        """Whether the closed form's alphas are the exact ones up to rounding.

        None where there is no closed form, and where rounding hides it: alphas that are as far apart as the head's
        rounding may move them, of a head that is not proven piecewise linear or whose precision is not known.
        """
        if self.closed_form_gap is None:
            return None
        # A denominator that cancels magnifies the rounding of its terms.
        if self.closed_form_gap <= self.tolerance / min(1.0, 1e3 * (self.denominator.smallest or 1.0)):
            return True
        if self.is_explained_by_rounding:
            return True if self.piecewise_linear else None
        return False if self.precision_known else None

    @property
    def is_explained_by_rounding(self) -> bool:
        """Whether the closed form's alphas are no further from the exact ones than rounding may move them."""
        found = (self.closed_form and self.closed_form.alphas, self.closed_form_at_sample)
        return all(each is not None and each.over_rounding <= 1 for each in found)

    @property
    def closed_form_gap(self) -> float | None:
        """The largest relative difference of the closed form's alphas where d1 > 0, from either exact computation."""
        if self.closed_form is None or self.closed_form_at_sample is None:
            return None
        return max(self.closed_form.alphas.largest, self.closed_form_at_sample.largest)

"""The equations of Grad-CAM++ and their numbers: one list, which the report, the sources and the notebooks go by.

An equation's number is the paper's: Chattopadhay et al., arXiv:1710.11063, sections 2 and 3. Two other counts are met
with: that of `verify` in jaxcam 0.1, which began anew at the linear model, and that of the report behind this project,
of which only the numbers below are known to us; nothing is guessed between them.
"""

from dataclasses import dataclass

from jaxcam.tables import text


@dataclass(frozen=True)
class Equation:
    """An equation of the paper, with S_k = sum_ab A_ab^k, d1 to d3 of Y by one element of A, and g = dS_c / dA."""

    number: int
    """In the paper, and in this package."""
    says: str
    verify_0_1: int | None = None
    """In the report of `verify` up to jaxcam 0.1."""
    report: int | None = None
    """In the report behind this project, where known."""


EQUATIONS = (
    Equation(1, "Y = sum_k w_k S_k", 1),
    Equation(2, "L = sum_k w_k A_k, of CAM", report=25),
    Equation(3, "w_k = 1/Z sum_ij dY/dA_ij, of Grad-CAM", report=21),
    Equation(4, "dY/dA = 1 where A = 1, else 0 (an example)"),
    Equation(5, "w_k = sum_ij alpha_ij ReLU(d1)", 2),
    Equation(6, "alpha = 1 / sum_lm dY/dA_lm (in the example)"),
    Equation(7, "Y = sum_k [sum_ab alpha_ab d1_ab] S_k", 3),
    Equation(8, "d1 = W_k + S_k alpha d2", 4),
    Equation(9, "d2 = 2 alpha d2 + S_k alpha d3", 5),
    Equation(10, "alpha = d2 / (2 d2 + S_k d3)", 6, 6),
    Equation(11, "w_k = sum_ij alpha ReLU(d1), alpha by 10", 7),
    Equation(12, "Y = exp(S_c)", 8),
    Equation(13, "d1 = exp(S) g", 9),
    Equation(14, "d2 = exp(S) (g^2 + d2S)", 10),
    Equation(15, "ReLU' = 1 where x > 0, else 0"),
    Equation(16, "ReLU'' = 0"),
    Equation(17, "d2 = exp(S) g^2", 11),
    Equation(18, "d3 = exp(S) g^3", 12),
    Equation(19, "alpha = g^2 / (2 g^2 + S_k g^3)", 13, 14),
    Equation(20, "L = ReLU(sum_k w_k A_k)", 14),
    Equation(21, "Y = softmax(S)_c"),
    Equation(22, "d1 = Y_c (s_c - sum_j Y_j s_j)"),
    Equation(23, "d2 = d1 (s_c - sum Y s) - Y_c sum Y' s"),
    Equation(24, "d3 = d2 (..) - 2 d1 sum Y' s - Y_c sum Y'' s"),
    Equation(25, "E = L ∘ I", report=26),
)
"""The equations of the Grad-CAM++ paper, with their numbers in other papers and in the report."""


def equation(number: int) -> Equation:
    """The equation with a number of the paper.

    Raises:
        ValueError: the paper has no such equation.
    """
    if not 1 <= number <= len(EQUATIONS):
        raise ValueError(f"number must be 1 to {len(EQUATIONS)}, those of the paper's equations, but is {number}")
    return EQUATIONS[number - 1]


def labelled(number: int, says: str | None = None) -> str:
    """How a row of the report names an equation: its number and what it says, here in other words if given."""
    return f"{number:<4}{equation(number).says if says is None else says}"


def concordance() -> str:
    """All equations with their three numbers, as a table."""
    rows = [[e.says, *("" if n is None else str(n) for n in (e.number, e.verify_0_1, e.report))] for e in EQUATIONS]
    return text(["equation", "paper", "verify 0.1", "report"], rows)

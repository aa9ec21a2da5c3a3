"""Verification: the derivation of Grad-CAM++ checked on a head and activations, in float64, equation by equation.

`verify` is the way in and returns a `Verification`: figures, a verdict in words, and a table when printed. `regime`
says by itself whether Grad-CAM++ is grad_cam_positive there or a count of positions; `concordance` is a table of the
equations' numbers.
"""

from jaxcam.verification.concordance import EQUATIONS as EQUATIONS
from jaxcam.verification.concordance import Equation as Equation
from jaxcam.verification.concordance import concordance as concordance
from jaxcam.verification.regime import Regime as Regime
from jaxcam.verification.regime import regime as regime
from jaxcam.verification.report import Verification as Verification
from jaxcam.verification.verify import verify as verify

__all__ = ["EQUATIONS", "Equation", "Regime", "Verification", "concordance", "regime", "verify"]

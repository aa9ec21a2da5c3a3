"""Verification: the derivation of Grad-CAM++ checked on a head and activations, in float64, equation by equation.

`verify` is the way in and returns a `Verification`: figures, a verdict in words, and a table when printed.
"""

from jaxcam.verification.report import Verification as Verification
from jaxcam.verification.verify import verify as verify

__all__ = ["Verification", "verify"]

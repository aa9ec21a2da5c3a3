"""Explanation: the front door for a batch: a model and inputs -> heatmaps, from one forward pass, compiled.

`explain` is the way in; `Explanation` is what it returns, and `Status` what became of each example.
"""

from jaxcam.explanation.explain import explain as explain
from jaxcam.explanation.explanation import Explanation as Explanation
from jaxcam.explanation.explanation import Status as Status

__all__ = ["Explanation", "Status", "explain"]

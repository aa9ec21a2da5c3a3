"""Programs: what a function does, read off its jaxpr. Nothing here knows what a class activation map is.

A program is written out in a line, cut into stages, proven piecewise linear, or rewritten with other derivatives.
What is known about each primitive stands in `primitives`, and nowhere else.
"""

from jaxcam.programs.full_gradient import FullGradient as FullGradient
from jaxcam.programs.full_gradient import full_gradient as full_gradient
from jaxcam.programs.guided_rule import guided as guided
from jaxcam.programs.linearity import is_piecewise_linear as is_piecewise_linear

__all__ = ["FullGradient", "full_gradient", "guided", "is_piecewise_linear"]

"""Programs: what a function does, read off its jaxpr. Nothing here knows what a class activation map is.

A program is written out in a line, cut into stages, proven piecewise linear (`linearity`; of a model's own head
`cuts.halves` asks it), or rewritten with other derivatives. What several of these know about a primitive stands in
`primitives`; what one of them alone must know stands there.
"""

from jaxcam.programs.full_gradient import FullGradient as FullGradient
from jaxcam.programs.full_gradient import full_gradient as full_gradient
from jaxcam.programs.guided_rule import guided as guided
from jaxcam.programs.linearity import is_piecewise_linear as is_piecewise_linear

__all__ = ["FullGradient", "full_gradient", "guided", "is_piecewise_linear"]

"""Learning with maps: losses that say where a network should look.

`losses` are pure functions of the maps of one example, differentiable by the network's parameters. The map comes from
the methods, inside the compiled training step.
"""

from jaxcam.learning.losses import agreement as agreement
from jaxcam.learning.losses import attention_mining as attention_mining
from jaxcam.learning.losses import distillation as distillation
from jaxcam.learning.losses import erased as erased
from jaxcam.learning.losses import inside as inside
from jaxcam.learning.losses import right_reasons as right_reasons
from jaxcam.learning.losses import sparsity as sparsity

__all__ = ["agreement", "attention_mining", "distillation", "erased", "inside", "right_reasons", "sparsity"]


def __dir__() -> list[str]:
    return __all__

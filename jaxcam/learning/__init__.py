"""Learning with maps: the classifier that CAM needs, losses that say where a network should look, training observed.

`fit_cam` fits a linear layer behind global average pooling to the features of any model, and returns a network that
everything takes. `losses` are pure functions of the maps of one example, differentiable by the network's parameters;
`forward` gives logits and maps of a batch from one forward pass, inside the compiled training step. An `Observer` keeps
the maps of fixed examples while a network is trained.
"""

from jaxcam.learning.cam_network import CAMFit as CAMFit
from jaxcam.learning.cam_network import CAMNetwork as CAMNetwork
from jaxcam.learning.cam_network import load_cam as load_cam
from jaxcam.learning.fit_cam import fit_cam as fit_cam
from jaxcam.learning.forward import forward as forward
from jaxcam.learning.losses import agreement as agreement
from jaxcam.learning.losses import attention_mining as attention_mining
from jaxcam.learning.losses import distillation as distillation
from jaxcam.learning.losses import erased as erased
from jaxcam.learning.losses import inside as inside
from jaxcam.learning.losses import right_reasons as right_reasons
from jaxcam.learning.losses import sparsity as sparsity
from jaxcam.learning.observer import Observer as Observer

__all__ = [
    "CAMFit",
    "CAMNetwork",
    "Observer",
    "agreement",
    "attention_mining",
    "distillation",
    "erased",
    "fit_cam",
    "forward",
    "inside",
    "load_cam",
    "right_reasons",
    "sparsity",
]


def __dir__() -> list[str]:
    return __all__

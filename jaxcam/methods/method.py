"""What a method is: a function of one image, and the facts about it that stand in no signature."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcam.methods.grad_cam import cam, grad_cam, grad_cam_pp
from jaxcam.methods.gradient import counterfactual, eigen_cam, grad_cam_positive, hires_cam, layer_cam, xgrad_cam
from jaxcam.methods.guided import guided_backprop, guided_grad_cam
from jaxcam.methods.perturbation import ablation_cam, score_cam
from jaxcam.methods.smoothed import smooth_grad_cam_pp


class Method(NamedTuple):
    """A line in the list of methods."""

    title: str
    """As in the papers."""
    source: str
    """The paper."""
    function: Callable[..., Any]
    """Of one image."""
    needs: str = "activations"
    """What the function takes: "activations" (and a head), or "image" (and a model)."""
    default_score: str | None = "logit"
    """None for methods that have no score."""
    differentiates: bool = True
    """Whether the gradient of the score by the activations is part of it."""
    is_cheap: bool = True
    """Whether it costs about one backward pass, so that the maps of a whole batch fit into memory together."""


METHODS: dict[str, Method] = {
    "grad_cam_pp": Method("Grad-CAM++", "Chattopadhay et al. 2018", grad_cam_pp, default_score="exp"),
    "grad_cam": Method("Grad-CAM", "Selvaraju et al. 2017", grad_cam),
    "cam": Method("CAM", "Zhou et al. 2016", cam, default_score=None, differentiates=False),
    "grad_cam_positive": Method("Grad-CAM+", "Lerma and Lucas 2022", grad_cam_positive),
    "hires_cam": Method("HiResCAM", "Draelos and Carin 2020", hires_cam),
    "xgrad_cam": Method("XGrad-CAM", "Fu et al. 2020", xgrad_cam),
    "layer_cam": Method("LayerCAM", "Jiang et al. 2021", layer_cam),
    "eigen_cam": Method("Eigen-CAM", "Muhammad and Yeasin 2020", eigen_cam, default_score=None, differentiates=False),
    "ablation_cam": Method(
        "Ablation-CAM", "Desai and Ramaswamy 2020", ablation_cam, differentiates=False, is_cheap=False
    ),
    "score_cam": Method(
        "Score-CAM", "Wang et al. 2020", score_cam, needs="image", differentiates=False, is_cheap=False
    ),
    "smooth_grad_cam_pp": Method(
        "SmoothGrad-CAM++", "Omeiza et al. 2019", smooth_grad_cam_pp, needs="image", default_score="exp", is_cheap=False
    ),
    "counterfactual": Method("Counterfactual", "Selvaraju et al. 2017", counterfactual),
    "guided_backprop": Method("Guided backpropagation", "Springenberg et al. 2015", guided_backprop, needs="image"),
    "guided_grad_cam": Method("Guided Grad-CAM", "Selvaraju et al. 2017", guided_grad_cam, needs="image"),
}
"""All methods by name."""

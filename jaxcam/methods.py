"""The methods, each a composition of a few lines, for one image -> raw map `[*spatial]`, not normalised (see `maps`).

From activations A `[*spatial, k]`, with any number of spatial axes, and a `head`, any callable from A to logits `[c]`:

    cam                 M_c = sum_k w_k^c A_k                       Zhou et al. 2016
    grad_cam            w_k = mean g_k                              Selvaraju et al. 2017
    grad_cam_pp         w_k = sum alpha ReLU(g_k)                   Chattopadhay et al. 2018
    grad_cam_positive   w_k = mean ReLU(g_k)                        Lerma and Lucas 2022
    hires_cam           sum_k g_k ∘ A_k                             Draelos and Carin 2020
    xgrad_cam           w_k = sum g_k A_k / sum A_k                 Fu et al. 2020
    layer_cam           sum_k ReLU(g_k) ∘ A_k                       Jiang et al. 2021
    eigen_cam           A v_1, the first right singular vector      Muhammad and Yeasin 2020
    ablation_cam        w_k = (Y - Y_k) / Y, channel k removed      Desai and Ramaswamy 2020
    counterfactual      w_k = -mean g_k                             Selvaraju et al. 2017

From a model and an image, because they run it on changed images, or go back to its pixels:

    score_cam           w = softmax_k Y(I ∘ H_k)                    Wang et al. 2020
    smooth_grad_cam_pp  grad_cam_pp with means over noisy images    Omeiza et al. 2019
    guided_backprop     dY / dI by the guided rule `[H, W, 3]`      Springenberg et al. 2015
    guided_grad_cam     guided_backprop times Grad-CAM `[H, W, 3]`  Selvaraju et al. 2017

`class_idx` may be traced. All of it composes with jit, vmap and grad, by the parameters as well (not guided ones
forwards). A batch, an image in and a heatmap out: `jaxcam.explain`, whose `method=` are the names in `METHODS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcam._methods.elementwise import counterfactual as counterfactual
from jaxcam._methods.elementwise import eigen_cam as eigen_cam
from jaxcam._methods.elementwise import grad_cam_positive as grad_cam_positive
from jaxcam._methods.elementwise import hires_cam as hires_cam
from jaxcam._methods.elementwise import layer_cam as layer_cam
from jaxcam._methods.elementwise import xgrad_cam as xgrad_cam
from jaxcam._methods.grad_cam import cam as cam
from jaxcam._methods.grad_cam import grad_cam as grad_cam
from jaxcam._methods.grad_cam import grad_cam_pp as grad_cam_pp
from jaxcam._methods.grad_cam import grad_cam_pp_weights as grad_cam_pp_weights
from jaxcam._methods.grad_cam import grad_cam_weights as grad_cam_weights
from jaxcam._methods.guided import guided_backprop as guided_backprop
from jaxcam._methods.guided import guided_grad_cam as guided_grad_cam
from jaxcam._methods.perturbation import ablation_cam as ablation_cam
from jaxcam._methods.perturbation import score_cam as score_cam
from jaxcam._methods.smoothed import smooth_grad_cam_pp as smooth_grad_cam_pp


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

"""The methods, each a composition of a few lines, for one image -> raw map `[*spatial]`, not normalised (see `maps`).

From activations A `[*spatial, k]`, with any number of spatial axes, and a `head`, any callable from A to logits `[c]`
(`cam` from A and its kernel, `eigen_cam` and `kpca_cam` from A alone):

    cam                 M_c = sum_k w_k^c A_k                       Zhou et al. 2016
    grad_cam            w_k = mean g_k                              Selvaraju et al. 2017
    grad_cam_pp         w_k = sum alpha ReLU(g_k)                   Chattopadhay et al. 2018
    grad_cam_positive   w_k = mean ReLU(g_k)                        Lerma and Lucas 2022
    hires_cam           sum_k g_k ∘ A_k                             Draelos and Carin 2020
    xgrad_cam           w_k = sum g_k A_k / sum A_k                 Fu et al. 2020
    layer_cam           sum_k ReLU(g_k) ∘ A_k                       Jiang et al. 2021
    eigen_cam           A v_1, the first right singular vector      Muhammad and Yeasin 2020
    finer_cam           grad_cam of Y_c - gamma mean_d Y_d          Zhang et al. 2025
    shapley_cam         w_k = mean (g - H A / 2)_k                  Cai 2025
    eigen_grad_cam      first principal component of g ∘ A          the grad-cam package
    kpca_cam            first component of a kernel PCA of A        Karmani et al. 2024
    ablation_cam        w_k = (Y - Y_k) / Y, channel k removed      Desai and Ramaswamy 2020
    counterfactual      w_k = -mean g_k                             Selvaraju et al. 2017

From a model and an image, because they run it on changed images, or go back to its pixels:

    score_cam           w = softmax_k Y(I ∘ H_k)                    Wang et al. 2020
    smooth_grad_cam_pp  grad_cam_pp with means over noisy images    Omeiza et al. 2019
    integrated_grad_cam ∫ grad_cam on the way from an empty image   Sattarzadeh et al. 2021
    full_grad           shares of the input and of all biases       Srinivas and Fleuret 2019
    guided_backprop     dY / dI by the guided rule `[H, W, 3]`      Springenberg et al. 2015
    guided_grad_cam     guided_backprop times Grad-CAM `[H, W, 3]`  Selvaraju et al. 2017
    attn_lrp            I ∘ dS_c / dI by rules `[H, W, 3]`          Achtibat et al. 2024

From a model with self-attention and an image, on the grid of patches, with the attention weights A of every layer:

    attention_rollout   row of (A_L + I) / 2 ... (A_1 + I) / 2      Abnar and Zuidema 2020
    attention_relevance R <- R + mean_h ReLU(dY/dA ∘ A) R           Chefer et al. 2021

`smoothed(method, transforms)` is another method: the mean of its maps over flipped and scaled images; `signed(method)`
is one without the last ReLU.

`class_idx` may be traced. All of it composes with jit, vmap and grad, by the parameters as well (not guided ones
forwards). A batch, an image in and a heatmap out: `jaxcam.explain`, whose `method=` are the names in `METHODS`.
"""

from jaxcam.methods.attention_maps import attention_relevance as attention_relevance
from jaxcam.methods.attention_maps import attention_rollout as attention_rollout
from jaxcam.methods.attn_lrp import attn_lrp as attn_lrp
from jaxcam.methods.contrast import finer_cam as finer_cam
from jaxcam.methods.contrast import shapley_cam as shapley_cam
from jaxcam.methods.eigen_cam import eigen_cam as eigen_cam
from jaxcam.methods.full_grad import full_grad as full_grad
from jaxcam.methods.grad_cam import cam as cam
from jaxcam.methods.grad_cam import grad_cam as grad_cam
from jaxcam.methods.grad_cam import grad_cam_weights as grad_cam_weights
from jaxcam.methods.grad_cam_pp import grad_cam_pp as grad_cam_pp
from jaxcam.methods.grad_cam_pp import grad_cam_pp_weights as grad_cam_pp_weights
from jaxcam.methods.gradient import counterfactual as counterfactual
from jaxcam.methods.gradient import grad_cam_positive as grad_cam_positive
from jaxcam.methods.gradient import hires_cam as hires_cam
from jaxcam.methods.gradient import layer_cam as layer_cam
from jaxcam.methods.gradient import xgrad_cam as xgrad_cam
from jaxcam.methods.guided import guided_backprop as guided_backprop
from jaxcam.methods.guided import guided_grad_cam as guided_grad_cam
from jaxcam.methods.integrated import integrated_grad_cam as integrated_grad_cam
from jaxcam.methods.method import METHODS as METHODS
from jaxcam.methods.method import Method as Method
from jaxcam.methods.perturbation import ablation_cam as ablation_cam
from jaxcam.methods.perturbation import score_cam as score_cam
from jaxcam.methods.principal import eigen_grad_cam as eigen_grad_cam
from jaxcam.methods.principal import kpca_cam as kpca_cam
from jaxcam.methods.signed import signed as signed
from jaxcam.methods.smooth_grad_cam_pp import smooth_grad_cam_pp as smooth_grad_cam_pp
from jaxcam.methods.smoothed import FLIPS_AND_SCALES as FLIPS_AND_SCALES
from jaxcam.methods.smoothed import Transform as Transform
from jaxcam.methods.smoothed import smoothed as smoothed

__all__ = [
    "FLIPS_AND_SCALES",
    "METHODS",
    "Method",
    "Transform",
    "ablation_cam",
    "attention_relevance",
    "attention_rollout",
    "attn_lrp",
    "cam",
    "counterfactual",
    "eigen_cam",
    "eigen_grad_cam",
    "finer_cam",
    "full_grad",
    "grad_cam",
    "grad_cam_positive",
    "grad_cam_pp",
    "grad_cam_pp_weights",
    "grad_cam_weights",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "integrated_grad_cam",
    "kpca_cam",
    "layer_cam",
    "score_cam",
    "shapley_cam",
    "signed",
    "smooth_grad_cam_pp",
    "smoothed",
    "xgrad_cam",
]


def __dir__() -> list[str]:
    return __all__

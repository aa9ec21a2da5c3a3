"""jaxcam: class activation maps as pure JAX functions, with the exact derivatives that Grad-CAM++ is defined by.

    image file -> read_image -> model.preprocessing -> model = head ∘ features -> activations A, logits S
               -> score Y(S) -> elementwise_derivatives d1, d2, d3 of Y by A -> alphas -> weights -> map
               -> heatmap in [0, 1] -> overlay, panel | table

`explain` goes the whole way from a batch of images to heatmaps, compiled, for any JAX model; `split` and `layers` cut a
model by its program, `named` gives NNX modules names, `guided` changes the derivative of a function's ReLUs; the
functions of `methods` work on one image and compose with jit, vmap and grad; `verify` checks the derivation of
Grad-CAM++ on a head and says what holds; `evaluate` says what the maps are worth on a data set, by the measures in
`metrics`. Public namespaces: `alphas`, `images`, `maps`, `methods`, `metrics`, `models`, `scenes` (generated pictures
with known truth), `scores`.
"""

from jaxcam import alphas as alphas
from jaxcam import images as images
from jaxcam import maps as maps
from jaxcam import methods as methods
from jaxcam import metrics as metrics
from jaxcam import models as models
from jaxcam import scenes as scenes
from jaxcam import scores as scores
from jaxcam.alphas import exact_alphas as exact_alphas
from jaxcam.alphas import exp_alphas as exp_alphas
from jaxcam.alphas import log_softmax_alphas as log_softmax_alphas
from jaxcam.alphas import softmax_alphas as softmax_alphas
from jaxcam.cuts.cut import layers as layers
from jaxcam.cuts.cut import split as split
from jaxcam.cuts.layers import Layer as Layer
from jaxcam.cuts.layers import Layers as Layers
from jaxcam.cuts.named import named as named
from jaxcam.datasets.examples import Example as Example
from jaxcam.derivatives.elementwise import elementwise_derivatives as elementwise_derivatives
from jaxcam.evaluation.evaluate import evaluate as evaluate
from jaxcam.evaluation.protocol import Protocol as Protocol
from jaxcam.evaluation.result import Evaluation as Evaluation
from jaxcam.explanation.explain import explain as explain
from jaxcam.explanation.explanation import Explanation as Explanation
from jaxcam.explanation.explanation import Status as Status
from jaxcam.images.reading import read_image as read_image
from jaxcam.maps import explanation_map as explanation_map
from jaxcam.methods import cam as cam
from jaxcam.methods import grad_cam as grad_cam
from jaxcam.methods import grad_cam_pp as grad_cam_pp
from jaxcam.methods import grad_cam_pp_weights as grad_cam_pp_weights
from jaxcam.methods import grad_cam_weights as grad_cam_weights
from jaxcam.methods import guided_backprop as guided_backprop
from jaxcam.methods import guided_grad_cam as guided_grad_cam
from jaxcam.pictures import Cell as Cell
from jaxcam.pictures import Row as Row
from jaxcam.pictures import colour_map as colour_map
from jaxcam.pictures import gradient_picture as gradient_picture
from jaxcam.pictures import overlay as overlay
from jaxcam.pictures import panel as panel
from jaxcam.pictures import save as save
from jaxcam.programs.guided_rule import guided as guided
from jaxcam.programs.linearity import is_piecewise_linear as is_piecewise_linear
from jaxcam.verification.report import Verification as Verification
from jaxcam.verification.verify import verify as verify
from jaxcam.version import __version__ as __version__

"""jaxcam: class activation maps as pure JAX functions, with the exact derivatives that Grad-CAM++ is defined by.

    image file -> read_image -> model.preprocessing -> model = head ∘ features -> activations A, logits S
               -> score Y(S) -> elementwise_derivatives d1, d2, d3 of Y by A -> alphas -> weights -> map
               -> heatmap in [0, 1] -> overlay, panel | table

`explain` goes the whole way from a batch of inputs to heatmaps, compiled, for any JAX model and any `targets`; `adapt`
says how a model is called, where it is not called as model(inputs); `split` and `layers` cut a model by its program,
`named` gives NNX modules names, `guided` changes the derivative of a function's ReLUs; the functions of `methods` work
on one example and compose with jit, vmap and grad; `verify` checks the derivation of Grad-CAM++ on a head and says what
holds; `page` makes a page of the maps of all classes, to look at and play with; `evaluate` says what the maps are worth
on a data set, by the measures in `metrics`.

The rooms, floor by floor from the ground up: `scores`; `programs` (what a function does), `images`, `closed_forms`;
`cuts` (any model in two halves), `derivatives`, `metrics`, `pictures`, `datasets` (where COCO's files are read too),
`alphas`, `maps` (where a map becomes a heatmap), `targets`; `methods`, `verification`, `scenes` (generated pictures
with known truth); `explanation`, `models`; `evaluation`, `pages`, `learning` (losses on maps); `commands`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxcam import alphas as alphas
from jaxcam import images as images
from jaxcam import maps as maps
from jaxcam import methods as methods
from jaxcam import pictures as pictures
from jaxcam import scores as scores
from jaxcam import targets as targets
from jaxcam.alphas import exact_alphas as exact_alphas
from jaxcam.alphas import exp_alphas as exp_alphas
from jaxcam.alphas import log_softmax_alphas as log_softmax_alphas
from jaxcam.alphas import softmax_alphas as softmax_alphas
from jaxcam.cuts import Adapted as Adapted
from jaxcam.cuts import Layer as Layer
from jaxcam.cuts import Layers as Layers
from jaxcam.cuts import adapt as adapt
from jaxcam.cuts import layers as layers
from jaxcam.cuts import named as named
from jaxcam.cuts import split as split
from jaxcam.derivatives import elementwise_derivatives as elementwise_derivatives
from jaxcam.explanation import Explanation as Explanation
from jaxcam.explanation import Status as Status
from jaxcam.explanation import explain as explain
from jaxcam.images import read_image as read_image
from jaxcam.maps import explanation_map as explanation_map
from jaxcam.methods import attention_relevance as attention_relevance
from jaxcam.methods import attention_rollout as attention_rollout
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
from jaxcam.programs import guided as guided
from jaxcam.programs import is_piecewise_linear as is_piecewise_linear
from jaxcam.version import __version__ as __version__

if TYPE_CHECKING:
    from jaxcam import datasets as datasets
    from jaxcam import evaluation as evaluation
    from jaxcam import learning as learning
    from jaxcam import metrics as metrics
    from jaxcam import models as models
    from jaxcam import pages as pages
    from jaxcam import scenes as scenes
    from jaxcam import verification as verification
    from jaxcam.datasets import Example as Example
    from jaxcam.evaluation import Evaluation as Evaluation
    from jaxcam.evaluation import Protocol as Protocol
    from jaxcam.evaluation import evaluate as evaluate
    from jaxcam.pages import page as page
    from jaxcam.verification import Verification as Verification
    from jaxcam.verification import verify as verify

_LATER = {
    "datasets": ("Example",),
    "evaluation": ("Evaluation", "Protocol", "evaluate"),
    "learning": (),
    "metrics": (),
    "models": (),
    "pages": ("page",),
    "scenes": (),
    "verification": ("Verification", "verify"),
}
"""Rooms of which an explanation needs nothing, and the names that they give: they are read when one of these is used,
which is half of what to read all of them takes."""

if not TYPE_CHECKING:  # to a type checker it would mean that every name is known

    def __getattr__(name: str) -> Any:
        for room, names in _LATER.items():
            if name == room or name in names:
                module = importlib.import_module(f"jaxcam.{room}")
                return globals().setdefault(name, module if name == room else getattr(module, name))
        raise AttributeError(f"module 'jaxcam' has no attribute {name!r}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *(name for names in _LATER.values() for name in names)})

"""Guided backpropagation and guided Grad-CAM for one image: fine detail, in the picture's own pixels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam import maps, scores
from jaxcam.cuts.cut import cut, network
from jaxcam.cuts.layers import LayerName
from jaxcam.derivatives.of_score import gradient_of_score
from jaxcam.methods.grad_cam import grad_cam
from jaxcam.programs.guided_rule import guided
from jaxcam.programs.notes import note


def guided_backprop(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score = "logit",
    deconvnet: bool = False,
) -> Float[Array, "..."]:
    """Guided backpropagation: dY / dI, where every ReLU passes back only what is positive, through positive inputs.

    It shows which fine structures the network responds to, and hardly depends on the class (Adebayo et al. 2018 found
    it to resemble an edge detector): multiply it with a class activation map (`guided_grad_cam`) to tell classes apart.
    The rule for activations other than ReLU is that of `jaxcam.guided`.

    Args:
        model: as for `jaxcam.explain`, or a network with features and head.
        image: I, one image as the model takes it, `[H, W, 3]`.
        class_idx: c, static or traced.
        score: Y: "logit" (the paper's), "exp", "softmax", "log_softmax", or a callable (logits, class_idx) -> scalar.
        deconvnet: Zeiler and Fergus's rule instead, which forgets the sign of the input.

    Returns:
        `[H, W, 3]`, signed, for score="exp" divided by exp(S_c); `jaxcam.gradient_picture` draws it.

    Raises:
        TypeError, ValueError: as `jaxcam.explain` for the model, image and class_idx.

    **Source**: Springenberg et al. 2015 (Striving for Simplicity), section 3.4.
    """
    image = jnp.asarray(image)
    gradient = _guided_gradient(network(model, image), image, class_idx, score=score, deconvnet=deconvnet)
    note("has_gradient", lambda: (gradient != 0).any())
    return gradient


def guided_grad_cam(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    layer: LayerName = None,
    score: str | scores.Score = "logit",
    deconvnet: bool = False,
) -> Float[Array, "..."]:
    """Guided Grad-CAM: guided backpropagation, multiplied by the Grad-CAM heatmap, enlarged to the image.

    Fine detail from the one, and the class from the other.

    Args:
        model: as for `guided_backprop`.
        image: I, one image as the model takes it, `[H, W, 3]`.
        class_idx: c, static or traced.
        layer: of Grad-CAM; None for the model's default.
        score: Y, of both.
        deconvnet: as for `guided_backprop`.

    Returns:
        `[H, W, 3]`, signed. The heatmap's maximum is 1 before it is enlarged (the paper does not scale: a factor).

    Raises:
        TypeError, ValueError: as `jaxcam.explain`.

    **Source**: Selvaraju et al. 2017 (Grad-CAM), section 3.2.
    """
    image = jnp.asarray(image)
    halves = cut(model, image, layer=layer)
    a, beside = halves.features(image)
    cam_map = grad_cam(halves.head(beside), a, class_idx, score=score)
    note("cam_map", lambda: cam_map)
    gradient = _guided_gradient(halves.network, image, class_idx, score=score, deconvnet=deconvnet)
    heatmap = maps.heatmap(cam_map, halves.network.size(image))
    return gradient * jnp.expand_dims(heatmap, halves.network.channel_axis)


def _guided_gradient(
    network: Callable[[Array], Array],
    image: Array,
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score,
    deconvnet: bool = False,
) -> Array:
    """The gradient of the score by the image, by the guided rule."""
    logits = jax.eval_shape(network, image)
    scores.check_class_idx(class_idx, logits.shape[0])
    gradient = gradient_of_score(guided(network, deconvnet=deconvnet), image, class_idx, score=score)
    return gradient.astype(image.dtype)

"""The front door: a model and a batch of normalised images in, heatmaps out, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcam import scores
from jaxcam.cuts.model import adapted
from jaxcam.cuts.refusals import check_evaluates
from jaxcam.explanation import arguments
from jaxcam.explanation.batch import Request, explained
from jaxcam.explanation.explanation import Explanation
from jaxcam.methods.method import Method, bind

__all__ = ["explain"]


def explain(
    model: Any,
    images: Float[Array, "n ..."] | Float[np.ndarray, "n ..."],
    *,
    class_idx: int | str | Sequence[int] | Int[Array, ""] | Int[Array, " n"] | Int[np.ndarray, " n"] | None = None,
    top: int | None = None,
    method: str | Callable[..., Array] | Method = "grad_cam_pp",
    layer: str | int | Sequence[str | int] | None = None,
    fusion: str = "max",
    score: str | scores.Score | None = None,
    key: Array | None = None,
    **options: Any,
) -> Explanation:
    """Heatmaps of what speaks for a class, for a batch of images and any JAX model.

    One forward pass to the layer, and then the head alone is differentiated, for all classes and layers asked for.
    Compiled once for each model structure, shape and set of options; the parameters are arguments of the compiled
    program. May be called inside jit, and differentiated.

    Args:
        model: an image network, in evaluation mode: anything that takes images `[n, H, W, 3]` to logits `[n, c]`, such
            as an nnx.Module, an equinox.Module, a Keras model or a function; or `jaxcam.adapt(...)` of what is called
            in another way. It is cut by its program, see `jaxcam.split`; one that has methods `features(images)` and
            `head(activations)` of its own is cut between these unless `layer` is given.
        images: `[n, H, W, 3]`, or channels first where the model takes them so; floating point and normalised for the
            model (`model.preprocessing(picture)`).
        class_idx: the class to explain: one for all images, `[n]`, None for the model's prediction, or "all". May be
            traced (one out of range then gives `Status.NO_SUCH_CLASS`).
        top: explain this many of the likeliest classes of each image. With this or "all" the results have an axis of
            classes after that of the images.
        method: a name from `jaxcam.methods.METHODS`, or any function with the signature of those: one of them, a
            `functools.partial` of one, your own `(head, activations, class_idx) -> map`. As with `jax.jit`, what it
            reads besides its arguments and what it captured (a global that changes) is what it was at the first call.
        layer: where the model is cut; None for its default, else a name from `jaxcam.layers(model, images)`. A number
            is the position of a convolution: -1 for the last. Several layers in a list are explained from one forward
            pass, and their heatmaps fused.
        fusion: of several layers, "max" or "mean" at every pixel, divided by the maximum again. Of the gradients of
            guided methods the one of the largest magnitude, or the mean.
        score: the score that is differentiated; None for the method's own ("exp" for Grad-CAM++, "logit" for Grad-CAM).
        key: for methods that draw random numbers, as `jax.random.key(0)`.
        **options: of the method's function, such as `alphas` and `normalize_alphas` of `methods.grad_cam_pp`.

    Raises:
        ValueError: images are not `[n, H, W, 3]`, class_idx is out of range or of another length, an unknown method or
            layer, an option that the method does not have, a model that the method does not apply to, or one that does
            not return logits `[n, c]` and, at the layer, activations `[n, i, j, k]`.
        TypeError: images are not floating point, class_idx is not an integer, or the model cannot be called.
    """
    images = arguments.images_of(images)
    known = adapted(model)
    check_evaluates(known.state)
    bound = bind(method, options, score=score, key=key)
    layers = arguments.layers_of(layer, fusion, bound)
    num_classes: int | str | None = None
    if top is not None:
        num_classes = arguments.top_of(top, class_idx)
    elif isinstance(class_idx, str) and class_idx == "all":
        num_classes, class_idx = "all", None
    elif class_idx is not None:
        class_idx = arguments.classes_of(class_idx, images.shape[0])
    request = Request(bound, layers, isinstance(layer, list | tuple), fusion, num_classes)
    known = known.hoist(jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype))
    explanation, logits = _compiled(known, request, images, class_idx, key)
    if class_idx is not None and not isinstance(class_idx, Tracer):
        arguments.check_range(np.asarray(class_idx), logits.shape[-1])
    return explanation


_compiled = jax.jit(explained, static_argnums=1)

"""The front door: a model and a batch of normalised images in, heatmaps out, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcam import scores
from jaxcam.cuts.grid import Layout
from jaxcam.cuts.halves import check_model, subject_of
from jaxcam.cuts.model import ModelFn
from jaxcam.cuts.training import in_training
from jaxcam.explanation import arguments as _arguments
from jaxcam.explanation.batch import Request, explained, image_of
from jaxcam.explanation.explanation import Explanation


def explain(
    model: Any,
    images: Float[Array, "n ..."] | Float[np.ndarray, "n ..."],
    *,
    class_idx: int | str | Sequence[int] | Int[Array, ""] | Int[Array, " n"] | Int[np.ndarray, " n"] | None = None,
    top: int | None = None,
    method: str = "grad_cam_pp",
    layer: str | int | Sequence[str | int] | None = None,
    fusion: str = "max",
    score: str | scores.Score | None = None,
    model_fn: ModelFn | None = None,
    channel_axis: int = -1,
    reshape: Callable[[Array], Array] | None = None,
    key: Array | None = None,
    **options: Any,
) -> Explanation:
    """Heatmaps of what speaks for a class, for a batch of images and any JAX model.

    One forward pass to the layer, and then the head alone is differentiated, for all classes and layers asked for.
    Compiled once for each model structure, shape and set of options; the parameters are arguments of the compiled
    program. May be called inside jit, and differentiated.

    Args:
        model: an image network, in evaluation mode: anything that takes images `[n, H, W, 3]` to logits `[n, c]`, such
            as an nnx.Module, an equinox.Module, `jax.tree_util.Partial(linen_model.apply, variables)`, a Keras model or
            a function. Where it has methods `features(images)` and `head(activations)`, like those of
            `jaxcam.models`, these are used; other models are cut by their program, see `jaxcam.split`.
        images: `[n, H, W, 3]`, floating point and normalised for the model (`model.preprocessing(picture)`).
        class_idx: the class to explain: one for all images, `[n]`, None for the model's prediction, or "all". May be
            traced (one out of range then gives `Status.NO_SUCH_CLASS`).
        top: explain this many of the likeliest classes of each image. With this or "all" the results have an axis of
            classes after that of the images.
        method: a name from `jaxcam.methods.METHODS`.
        layer: where the model is cut; None for its default. For a model with features and head it is passed on to
            them; for others it is a name from `jaxcam.layers(model, images)`. A number is the position of a
            convolution: -1 for the last. Several layers in a list are explained from one forward pass, and their
            heatmaps fused.
        fusion: of several layers, "max" or "mean" at every pixel, divided by the maximum again.
        score: the score that is differentiated; None for the method's own ("exp" for Grad-CAM++, "logit" for Grad-CAM).
        model_fn: `(model, images) -> logits`, for models that are not called as `model(images)`: parameters and a
            function of them, several inputs or outputs. The arrays that it closes over are arguments of the compiled
            program too. It is called on one image at a time, `[1, H, W, 3]`: vmap `explain` over a second input that
            differs from image to image.
        channel_axis: 1 for images `[n, 3, H, W]` and activations `[n, k, i, j]`. Where only the activations are
            channels first, `reshape=lambda t: t.transpose(0, 2, 3, 1)`.
        reshape: takes the layer's value to a grid `[n, i, j, k]`, for transformers: `lambda t: t[:, 1:].reshape(-1, 14,
            14, t.shape[-1])` drops the class token. It may only select and move. Where the head looks at the class
            token alone, name a layer before the last attention: behind it no gradient reaches the other tokens. Define
            it once: unlike `model_fn`, a new lambda on every call is compiled on every call.
        key: for methods that draw random numbers, as `jax.random.key(0)`.
        **options: of the method's function, such as `alphas` and `normalize_alphas` of `methods.grad_cam_pp`.

    Raises:
        ValueError: images are not `[n, H, W, 3]`, class_idx is out of range or of another length, an unknown method or
            layer, an option that the method does not have, a model that the method does not apply to, or one that does
            not return logits `[n, c]` and, at the layer, activations `[n, i, j, k]`.
        TypeError: images are not floating point, class_idx is not an integer, or the model can neither be called nor
            has features and head, or takes no layer though one is given.
    """
    images = _arguments.checked_images(images)
    check_model(model, model_fn)
    check_evaluates(model)
    choice = _arguments.checked_choice(method, score, key, options)
    layers = _arguments.checked_layers(layer, fusion, method)
    num_classes: int | str | None = None
    if top is not None:
        num_classes = _arguments.checked_top(top, class_idx)
    elif isinstance(class_idx, str) and class_idx == "all":
        num_classes, class_idx = "all", None
    elif class_idx is not None:
        class_idx = _arguments.checked_classes(class_idx, images.shape[0])
    layout = Layout(_arguments.checked_channel_axis(channel_axis), reshape)
    subject, arrays = subject_of(model, layers, image_of(images), model_fn, layout)
    request = Request(choice, layers, isinstance(layer, list | tuple), fusion, num_classes)
    explanation, logits = _compiled(subject, request, arrays, images, class_idx, key)
    if class_idx is not None and not isinstance(class_idx, Tracer):
        _arguments.check_range(np.asarray(class_idx), logits.shape[-1])
    return explanation


_compiled = jax.jit(explained, static_argnums=(0, 1))


def check_evaluates(model: Any) -> None:
    """Refuses a model in training mode."""
    if in_training(model) or getattr(model, "training", None) is True:
        raise ValueError("model is in training mode, where images depend on each other: call model.eval() first")

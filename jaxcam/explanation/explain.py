"""The front door: a model and a batch of inputs in, heatmaps out, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from jaxcam import scores
from jaxcam.cuts.model import Adapted, adapted
from jaxcam.cuts.refusals import check_evaluates
from jaxcam.explanation import arguments
from jaxcam.explanation.batch import Request, explained
from jaxcam.explanation.explanation import Explanation
from jaxcam.explanation.lent import Lent
from jaxcam.methods.method import Method, bind
from jaxcam.programs.compiled import Programs
from jaxcam.programs.specs import batch_of_one, num_shards, varied
from jaxcam.progress import Progress
from jaxcam.types import Target

__all__ = ["explain"]


def explain(
    model: Any,
    inputs: Any,
    *,
    class_idx: int | str | Sequence[int] | Int[Array, ""] | Int[Array, " n"] | Int[np.ndarray, " n"] | None = None,
    top: int | None = None,
    target: Target | None = None,
    method: str | Callable[..., Array] | Method = "grad_cam",
    layer: str | int | Sequence[str | int] | None = None,
    fusion: str = "max",
    score: str | scores.Score | None = None,
    key: Array | None = None,
    **options: Any,
) -> Explanation:
    """Heatmaps of the evidence for a class, or for anything else, for a batch of inputs and any JAX model.

    One forward pass to the layer, and then the head alone is differentiated, for all classes and layers asked for.
    Compiled once for each model structure, shape and set of options; the parameters are arguments of the compiled
    program. What a function reads (a model, a score, a grid, the rule of a derivative) may change between two calls;
    for that functions and Keras models are traced on every call. Nothing that was explained is kept alive. May be
    called inside jit, and differentiated.

    Args:
        model: a network in evaluation mode: anything that is called with `[n, *spatial, d]`, such as an nnx.Module, an
            equinox.Module, a Keras model, a torch.nn.Module or a function; or `jaxcam.adapt(...)` of what is called in
            another way. It is cut by its program, see `jaxcam.split`; one that has methods `features(images)` and
            `head(activations)` of its own is cut between these unless `layer` is given.
        inputs: `[n, *spatial, d]` with one, two or three axes of positions, as pictures `[n, H, W, 3]`, series
            `[n, t, d]`, volumes and clips, or channels first where the model takes them so; normalised for the model
            (`model.preprocessing(picture)`). Or a pytree of several arrays that share n, at least one of them with
            positions: each example's go to the model together.
        class_idx: the class to explain: one for all examples, `[n]`, None for the model's prediction, or "all". May be
            traced (one out of range then gives `Status.NO_SUCH_CLASS`).
        top: explain this many of the likeliest classes of each example. With this or "all" the results have an axis of
            classes after that of the examples.
        target: for outputs of any structure, what is explained: a function `(outputs, inputs)` of one example, without
            the axis n, to a scalar or to scores `[*m]`, which are all explained from one forward pass to the layer.
            Those that are ready are in `jaxcam.targets`. It may be a new lambda on every call: the arrays that it
            captures are arguments.
        method: a name from `jaxcam.methods.METHODS`, or any function with the signature of those: one of them, a
            `functools.partial` of one, your own `(head, activations, class_idx) -> map`. What it reads besides its
            arguments may change, as what a score reads: every call sees the values of now. One that takes the model is
            the exception, see `jaxcam.programs.compiled`.
        layer: where the model is cut; None for its default, else a name from `jaxcam.layers(model, inputs)`. A number
            is the position of a convolution: -1 for the last. Several layers in a list are explained from one forward
            pass, and their heatmaps fused.
        fusion: of several layers, "max" or "mean" at every pixel, divided by the maximum again. Of the gradients of
            guided methods the one of the largest magnitude, or the mean.
        score: the score that is differentiated; None for the method's own ("exp" for Grad-CAM++, "logit" for Grad-CAM).
            With a target t "logit" is t itself and "exp" is exp(t).
        key: for methods that draw random numbers, as `jax.random.key(0)`. Every example of the batch is given this very
            key, so that a batch is what its examples are one by one, in any order; for other numbers pass another key.
        **options: of the method's function, such as `alphas` and `normalize_alphas` of `methods.grad_cam_pp`.

    Raises:
        ValueError: inputs are no batch, or none of them has positions; class_idx is out of range or of another length;
            an unknown method or layer; an option or score that the method or the model's outputs do not have; a model
            that the method does not apply to; exact derivatives that cost more than 50 forward passes and half a
            second, where alphas="exact" does not ask for them; or outputs that are no logits `[n, c]` where no target
            is given.
        TypeError: inputs are no arrays, or integers that the model does not normalise; class_idx is not an integer; the
            model cannot be called; or the target does not return floating-point scores.
    """
    known, lent = adapted(model), Lent(inputs)
    inputs = arguments.inputs_of(inputs)
    check_evaluates(known.state)
    bound = bind(method, options, score=score, key=key)
    layers = arguments.layers_of(layer, fusion, bound)
    request = Request(bound, layers, isinstance(layer, list | tuple), fusion, None)
    request = request._replace(num_shards=num_shards(jax.tree.leaves(inputs)[0]))
    known, inputs, key = varied((known, inputs, key))
    one = batch_of_one(inputs)
    if target is not None:
        arguments.check_alone(target, class_idx, top)
        known, shape = known.aim(target, one)
        request = request._replace(scores=shape, num_classes="all" if shape else None)
        class_idx = None if shape else 0
    elif top is not None:
        request = request._replace(num_classes=arguments.top_of(top, class_idx))
    elif isinstance(class_idx, str) and class_idx == "all":
        request, class_idx = request._replace(num_classes="all"), None
    if class_idx is not None:
        classes = arguments.classes_of(class_idx, jax.tree.leaves(inputs)[0].shape[0])
        _, class_idx = varied((inputs, classes))
    arrays, static = known.hoist(one).tree_flatten()
    # What costs many passes says so, and how long it has been at it.
    is_told = bound.is_long and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((inputs, arrays)))
    with Progress(total=None, label=f"explain: {bound.method.title}", shown=is_told, counts=False):
        explanation, logits = _compiled((static, request), arrays, inputs, class_idx, key)
        if is_told:
            jax.block_until_ready(explanation.heatmap)
    if class_idx is not None and not isinstance(class_idx, Tracer):
        arguments.check_range(np.asarray(class_idx), logits.shape[-1])
    explanation = explanation._with(_inputs=lent)
    return explanation.with_names(known.class_names) if target is None else explanation


def _explained(static: tuple[Any, Request], arrays: Any, *rest: Any) -> tuple[Explanation, Array]:
    model, request = static
    found = explained(Adapted.tree_unflatten(model, arrays), request, *rest)
    return found.explanation, found.logits


_compiled = Programs(_explained)

"""Logits and maps of a batch from one forward pass, for the loss of a training step."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from jaxcam import scores
from jaxcam.cuts.cut import cuts
from jaxcam.cuts.inputs import grids_of
from jaxcam.cuts.layers import LayerName
from jaxcam.cuts.model import adapted
from jaxcam.cuts.refusals import check_evaluates
from jaxcam.cuts.split import check_layer
from jaxcam.explanation.arguments import classes_of, inputs_of
from jaxcam.methods.method import Method, bind
from jaxcam.programs.specs import batch_of_one, varied, without_batch


def forward(
    model: Any,
    inputs: Any,
    class_idx: Any,
    *,
    method: str | Callable[..., Array] | Method = "grad_cam",
    layer: LayerName = None,
    score: str | scores.Score | None = None,
    **options: Any,
) -> tuple[Float[Array, "n c"], Float[Array, "n *spatial"]]:
    """The logits and the raw maps of a batch, from one forward pass, to be differentiated by the model's parameters.

        logits, cam_maps = learning.forward(student, pictures, labels)
        loss = cross_entropy(logits, labels).mean() + jax.vmap(learning.inside)(cam_maps, masks).mean()

    For use inside a compiled training step: under `jax.jit` and `jax.grad` (or Flax's), on pictures that are divided
    among devices, in half precision. The gradient by the parameters goes through the gradient that the map is made of;
    Grad-CAM++ has its closed form where the head is proven piecewise linear, and that costs one more backward pass of
    the head alone. `explain` makes the same maps, and looks after them (status, heatmap), which training does not need.

    Args:
        model: as for `explain`, in evaluation mode: batch norm would make examples depend on each other.
        inputs: `[n, *spatial, d]`, or a pytree of them of which one has positions.
        class_idx: `[n]`, the classes that are explained, or one for all.
        method: one that takes the head and the activations, by its name or as a function; as for `explain`.
        layer: where the model is cut; None for its default.
        score: what is differentiated; None for the method's own.
        **options: of the method.

    Returns:
        The logits, and the maps on the layer's grid, as the method makes them: positive, not normalised.

    Raises:
        ValueError: the model is in training mode; several inputs have positions; the method goes back to the input,
            draws random numbers or needs a kernel; class_idx is of another length; no such layer.
        TypeError: class_idx is no integers, or another argument is of the wrong kind.

    **Source**: the method's; for training with them Chattopadhay et al. 2018 (Grad-CAM++), section 6.
    """
    known, inputs = adapted(model), inputs_of(inputs)
    check_evaluates(known.state)
    bound = bind(method, options, score=score)
    if bound.needs != "head":
        raise ValueError(
            f"method={bound.name!r} must take the head and the activations of one layer but takes something else: use "
            "grad_cam, grad_cam_pp or another of those in jaxcam.methods"
        )
    known, inputs = varied((known, inputs))
    one, leaves = batch_of_one(inputs), jax.tree.leaves(inputs)
    classes = classes_of(class_idx, leaves[0].shape[0])
    known = known.hoist(one)
    mains = grids_of(known, one, jax.tree.leaves(one))
    if len(mains) > 1:
        raise ValueError(
            f"inputs: {len(mains)} of the {len(leaves)} have positions, and there is one map: say which it is on with "
            "jaxcam.adapt(model, input=...), its key or position"
        )
    (cut,) = cuts(known, without_batch(inputs), (check_layer(layer),), main=mains[0])

    def of_one(class_idx: Int[Array, ""], *leaves: Array) -> tuple[Array, Array]:
        here = cut.given(leaves)
        activations, beside = here.features(leaves[mains[0]])
        head = here.head(beside)
        return head(activations), bound(head, activations, class_idx)

    return jax.vmap(of_one)(classes, *leaves)

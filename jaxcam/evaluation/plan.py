"""What an evaluation asks of the network: its confidence on inputs that are partly masked.

Contract: `data` is what a block holds, arrays `[n, ...]`: pictures in [0, 1], which become the model's input here, or
inputs that are prepared for the model, one array or a pytree. The `image` is what of it the heatmap lies on,
`[n, *grid, d]` in floats; it alone is masked, and other inputs stay as they are.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam import metrics, scores
from jaxcam.cuts.cut import network
from jaxcam.cuts.logits import probability_of
from jaxcam.cuts.model import Adapted, Probability
from jaxcam.evaluation.protocol import Protocol
from jaxcam.explanation.batch import Request
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.metrics.imputation import PERCENTILES
from jaxcam.programs.specs import without_batch

AXIS = "images"
"""Of the mesh."""
GROUPS = (
    "confidence", "localisation", "thresholds", "instances", "shape", "deletion", "coherency", "curves", "road",
    "infidelity", "sensitivity", "sanity", "randomised",
)  # fmt: skip
"""Of metrics: what they cost and need differs."""
OF_PICTURES = ("thresholds", "road")
"""Those that are defined on a grid of two axes only."""
_BLUR = 5 / 224


class Plan(NamedTuple):
    """Everything static about an evaluation, hashable."""

    requests: tuple[Request, ...]
    """One for each method."""
    protocol: Protocol
    preprocessing: Preprocessing | None
    """Of pictures; None: the data are prepared."""
    groups: tuple[str, ...]
    channel_axis: int
    """Of one example as the model takes it: -1, or 0 for channels first."""
    main: int = 0
    """Which of the arrays of the data the heatmap lies on."""


def passes_of(protocol: Protocol, groups: Sequence[str], num_methods: int) -> int:
    """How many forward passes a picture takes, its own included; a map counts as one, though its gradient costs more.

    What the groups ask of the network, as it is said before they are measured.
    """
    each = {
        "confidence": 1, "deletion": 1, "coherency": 1, "curves": 2 * (protocol.num_steps + 1),
        "road": 2 * len(PERCENTILES), "sensitivity": protocol.num_noises, "sanity": 1, "randomised": 2,
    }  # fmt: skip
    of_methods = sum(each.get(group, 0) for group in groups)
    return 1 + num_methods * of_methods + (protocol.num_squares if "infidelity" in groups else 0)


def image_of(plan: Plan, data: Any) -> Array:
    """What the heatmap lies on, channels last."""
    image = jax.tree.leaves(data)[plan.main]
    if plan.preprocessing is None and plan.channel_axis == 0:
        image = jnp.moveaxis(image, 1, -1)
    return image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)


def normalised(plan: Plan, image: Array) -> Array:
    """As the model takes it, but for the place of the channels."""
    return image if plan.preprocessing is None else plan.preprocessing.normalise(image)


def network_input(plan: Plan, data: Any, image: Array) -> Any:
    """The model's inputs with this normalised image among them."""
    leaves, structure = jax.tree.flatten(data)
    given = leaves[plan.main].dtype
    if plan.preprocessing is None and not jnp.issubdtype(given, jnp.floating):  # the model itself scales integers
        image = jnp.round(image).astype(given)
    leaves[plan.main] = jnp.moveaxis(image, -1, 1) if plan.channel_axis == 0 else image
    return jax.tree.unflatten(structure, leaves)


def background_of(plan: Plan, image: Array) -> Array:
    """What is seen where the heatmap is 0, in the image's own units."""
    size = image.shape[1:-1]
    if plan.protocol.baseline in ("black", "zero"):
        return jnp.zeros_like(image)
    if plan.protocol.baseline == "mean":
        if plan.preprocessing is None:
            mean = image.mean(tuple(range(1, image.ndim - 1)), keepdims=True)
        else:
            mean = jnp.asarray(plan.preprocessing.mean, image.dtype).reshape(1, 1, 1, -1)
        return jnp.broadcast_to(mean, image.shape)
    lengths = size if plan.preprocessing is None else (min(size),) * len(size)
    return jax.vmap(partial(metrics.blurred, sigma=tuple(_BLUR * length for length in lengths)))(image)


def masked_input(plan: Plan, data: Any, heatmaps: Array, background: Array) -> Any:
    """The network's input for E = L ∘ I + (1 - L) ∘ background."""
    image, blended = image_of(plan, data), jax.vmap(metrics.blended)
    if plan.protocol.mask == "pixels":
        return network_input(plan, data, normalised(plan, blended(image, heatmaps, background)))
    shown = blended(normalised(plan, image), heatmaps, normalised(plan, background))
    return network_input(plan, data, shown)


def confidence_of(plan: Plan, model: Adapted, inputs: Any, class_idx: Array) -> Array:
    """The confidence in one class for each of a batch of inputs, `[n]`."""
    whole = network(model, without_batch(inputs), main=plan.main)

    def logits(*leaves: Array) -> Array:
        return whole.given(leaves)(leaves[plan.main])

    return of_class(plan.protocol, whole.probability, jax.vmap(logits)(*jax.tree.leaves(inputs)), class_idx)


def of_class(protocol: Protocol, probability: Probability, logits: Array, class_idx: Array) -> Array:
    """`[n]`; NaN where there is no such class. Of a target, whose value is the only score, that."""

    def of_one(logits: Array, class_idx: Array) -> Array:
        if protocol.confidence in ("logit", "target"):
            return scores.logit(logits, class_idx)
        if probability == "softmax":
            return scores.softmax(logits, class_idx)
        return probability_of(probability, logits, class_idx)

    known = (class_idx >= 0) & (class_idx < logits.shape[-1])
    return jnp.where(known, jax.vmap(of_one)(logits, jnp.where(known, class_idx, 0)), jnp.nan)

"""What an evaluation asks of the network: its confidence on pictures that are partly masked."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam import metrics, scores
from jaxcam.cuts.cut import network
from jaxcam.cuts.logits import probabilities
from jaxcam.cuts.model import Adapted, Probability
from jaxcam.evaluation.protocol import Protocol
from jaxcam.explanation.batch import Request
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.programs.specs import without_batch

AXIS = "images"
"""Of the mesh."""
GROUPS = ("confidence", "localisation", "shape", "deletion", "coherency", "curves", "sanity")
"""Of metrics: what they cost and need differs."""
_BLUR = 5 / 224


class Plan(NamedTuple):
    """Everything static about an evaluation, hashable."""

    requests: tuple[Request, ...]
    """One for each method."""
    protocol: Protocol
    preprocessing: Preprocessing
    groups: tuple[str, ...]
    channel_axis: int
    """Of one example as the model takes it: -1, or 0 for channels first."""


def network_input(plan: Plan, normalised: Array) -> Array:
    """Normalised pictures with their channels where the model has them."""
    return jnp.moveaxis(normalised, -1, 1) if plan.channel_axis == 0 else normalised


def background_of(plan: Plan, pictures: Array) -> Array:
    """What is seen where the heatmap is 0, in pixels."""
    if plan.protocol.baseline == "black":
        return jnp.zeros_like(pictures)
    if plan.protocol.baseline == "mean":
        return jnp.broadcast_to(
            jnp.asarray(plan.preprocessing.mean, pictures.dtype).reshape(1, 1, 1, -1), pictures.shape
        )
    sigma = _BLUR * min(pictures.shape[1:3])
    return jax.vmap(partial(metrics.blurred, sigma=sigma))(pictures)


def masked_input(plan: Plan, pictures: Array, heatmaps: Array, background: Array) -> Array:
    """The network's input for E = L ∘ I + (1 - L) ∘ background."""
    blended, normalise = jax.vmap(metrics.blended), plan.preprocessing.normalise
    if plan.protocol.mask == "pixels":
        return network_input(plan, normalise(blended(pictures, heatmaps, background)))
    return network_input(plan, blended(normalise(pictures), heatmaps, normalise(background)))


def confidence_of(plan: Plan, model: Adapted, images: Array, class_idx: Array) -> Array:
    """The confidence in one class for each of a batch of inputs, `[n]`."""
    whole = network(model, without_batch(images))
    return of_class(plan.protocol, whole.probability, jax.vmap(whole)(images), class_idx)


def of_class(protocol: Protocol, probability: Probability, logits: Array, class_idx: Array) -> Array:
    """`[n]`; NaN where there is no such class."""

    def of_one(logits: Array, class_idx: Array) -> Array:
        if protocol.confidence == "logit":
            return scores.logit(logits, class_idx)
        if probability == "softmax":
            return scores.softmax(logits, class_idx)
        return scores.logit(probabilities(probability, logits), class_idx)

    known = (class_idx >= 0) & (class_idx < logits.shape[-1])
    return jnp.where(known, jax.vmap(of_one)(logits, jnp.where(known, class_idx, 0)), jnp.nan)

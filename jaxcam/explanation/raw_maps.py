"""One image, one class, any method -> the raw map, and what `explain` needs to know about it for the status."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam import maps, methods, scores
from jaxcam.cuts.halves import Halves
from jaxcam.derivatives.of_score import gradient_of_score, is_one_backward_pass, terms
from jaxcam.methods.grad_cam import weights_of
from jaxcam.types import Head

_ILL_SHARE = 0.01


class Choice(NamedTuple):
    """The method and its options, hashable."""

    method: str
    score: str | scores.Score
    options: tuple[tuple[str, Any], ...]


class Seen(NamedTuple):
    """What a method may look at, for one image and one layer."""

    image: Array
    activations: Array
    head: Head
    halves: Halves
    cam_kernel: Array | None
    key: Array | None


class Found(NamedTuple):
    """A raw map and what is known about it."""

    cam_map: Float[Array, "*spatial"]
    has_gradient: Bool[Array, ""]
    ill_conditioned: Bool[Array, ""]


def raw_map(choice: Choice, seen: Seen, class_idx: Array) -> Found:
    """The map of one method."""
    head, a, options = seen.head, seen.activations, dict(choice.options)
    yes, no = jnp.array(True), jnp.array(False)
    method = methods.METHODS[choice.method]
    if choice.method == "cam":
        assert seen.cam_kernel is not None
        return Found(methods.cam(seen.cam_kernel, a, class_idx), yes, no)
    if choice.method == "grad_cam_pp":
        return _grad_cam_pp(head, a, class_idx, choice.score, **options)
    if takes(choice.method, "score"):
        options["score"] = choice.score
    if method.needs == "image":
        if takes(choice.method, "key"):
            options["key"] = seen.key
        return Found(method.function(seen.halves, seen.image, class_idx, **options), yes, no)
    if not takes(choice.method, "head"):
        return Found(method.function(a, **options), yes, no)
    has_gradient = yes
    if method.differentiates:
        # XLA merges this gradient with the one inside the method.
        has_gradient = (gradient_of_score(head, a, class_idx, score=choice.score) != 0).any()
    return Found(method.function(head, a, class_idx, **options), has_gradient, no)


def is_cheap(choice: Choice, head: Callable[[Array], Array], activations: jax.ShapeDtypeStruct) -> bool:
    """Whether a map costs about one backward pass, so that those of a whole batch fit into memory together."""
    if choice.method == "grad_cam_pp":
        return is_one_backward_pass(
            head, activations, score=choice.score, alphas=dict(choice.options).get("alphas", "auto")
        )
    return methods.METHODS[choice.method].is_cheap


def takes(method: str, option: str) -> bool:
    """Whether the method's function has this argument."""
    return option in inspect.signature(inspect.unwrap(methods.METHODS[method].function)).parameters


def _grad_cam_pp(
    head: Head,
    a: Array,
    class_idx: Array,
    score: str | scores.Score,
    *,
    alphas: str = "auto",
    normalize_alphas: bool = False,
) -> Found:
    found = terms(head, a, class_idx, score=score, alphas=alphas)
    weights = weights_of(found, normalize_alphas=normalize_alphas).astype(a.dtype)
    share = jnp.abs(found.alphas) * jax.nn.relu(found.d1)
    ill = jnp.where(found.ill_conditioned, share, 0).sum() > _ILL_SHARE * share.sum()
    return Found(maps.weighted_map(weights, a), (found.d1 != 0).any(), ill)

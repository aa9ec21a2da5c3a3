"""Losses on maps, for training: what a network should look at, as a number to add to its loss.

    loss = cross_entropy + 0.1 * learning.inside(cam_map, mask)

Contract: pure functions of the maps of one example (batches by vmap), scalars in float32 at least, differentiable. The
map may come from any method; `jax.grad` by the parameters then goes through the gradient that the map is made of.
A map that is zero everywhere gives a finite loss and the gradient zero: there is nothing in it that could be moved.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam import maps
from jaxcam.checks import check_floating, check_number
from jaxcam.precision import widened

Map = Float[Array, "*spatial"] | Float[np.ndarray, "*spatial"]
Mask = Bool[Array, "*spatial"] | Bool[np.ndarray, "*spatial"] | Map


def distillation(student: Map, teacher: Map, *, normalise: bool = False) -> Float[Array, ""]:
    """||L_s - L_t||², summed over the positions: the student looks where its teacher looks.

    Args:
        student: L_s, `[*spatial]`, raw.
        teacher: L_t, the same shape; a constant if nothing that it depends on is differentiated by.
        normalise: compare ReLU(L) / max(L) instead, whatever the two networks' scales are. (Not in the paper.)

    Raises:
        ValueError: the shapes differ.
        TypeError: a map is not floating point.

    **Source**: Chattopadhay et al. 2018 (Grad-CAM++), on knowledge distillation: L_interpret.
    """
    first, second = _pair("teacher", student, teacher)
    if normalise:
        first, second = maps.normalised(first), maps.normalised(second)
    return jnp.square(first - second).sum()


def inside(cam_map: Map, mask: Mask) -> Float[Array, ""]:
    """The share of the map's energy outside of the mask, Σ ReLU(L) (1 - m) / Σ ReLU(L), in [0, 1]; 0 for a zero map.

    Of the map of a logit a network may come to 0 with a map that is zero everywhere, where what speaks for the class is
    told by the other logits alone. Maps of `score="log_softmax"`, of the class against the others, leave no such way.

    Args:
        cam_map: L, `[*spatial]`, of any positive scale.
        mask: m, the same shape: 1 or True where the network should look.

    Raises:
        ValueError: the shapes differ.
        TypeError: the map is not floating point.

    **Source**: 1 less the energy-based pointing game of Wang et al. 2020 (Score-CAM).
    """
    energy, m = _pair("mask", cam_map, mask)
    energy = jax.nn.relu(energy)
    total = energy.sum()
    return jnp.where(total > 0, (energy * (1 - m)).sum() / jnp.where(total > 0, total, 1), 0)


def right_reasons(gradient: Float[Array, "*spatial d"], mask: Mask) -> Float[Array, ""]:
    """Σ ((1 - m) g)²: the input's gradient outside of the mask; right for the right reasons.

    Args:
        gradient: g `[*spatial, d]`; the paper's is that of Σ_c log p_c by the input.
        mask: m `[*spatial]`: 1 or True where the evidence is. (The paper's A is 1 - m.)

    Raises:
        ValueError: the mask has not the gradient's positions.
        TypeError: the gradient is not floating point.

    **Source**: Ross et al. 2017 (Right for the right reasons), the second term of the loss.
    """
    check_floating("gradient", gradient)
    (wide,) = widened(jnp.asarray(gradient))
    _check_shape("mask", jnp.shape(mask), "gradient", wide.shape[:-1])
    return jnp.square(wide * (1 - jnp.asarray(mask, wide.dtype))[..., None]).sum()


def agreement(first: Map, second: Map, *, transform: Callable[[Array], Array] | None = None) -> Float[Array, ""]:
    """The mean of |T(L_1) - L_2| of the normalised maps: what is looked at moves with the picture.

    Args:
        first: L_1, the map of the picture.
        second: L_2, the map of the picture after the augmentation T.
        transform: T on the map, as `lambda m: m[:, ::-1]` for a mirrored picture; None where T moves nothing.

    Raises:
        ValueError: T(L_1) and L_2 differ in shape.
        TypeError: a map is not floating point.

    **Source**: Wang et al. 2020 (SEAM): L_ER, an L1 norm.
    """
    check_floating("first", first)
    moved = maps.normalised(widened(jnp.asarray(first))[0])
    if transform is not None:
        moved = transform(moved)
    moved, other = _pair("second", moved, second)
    return jnp.abs(moved - maps.normalised(other)).mean()


def sparsity(cam_map: Map) -> Float[Array, ""]:
    """mean(ReLU(L) / max(L)), in [0, 1]: small where the network looks at little; 0 for a zero map.

    Raises:
        TypeError: the map is not floating point.

    **Source**: Poppi et al. 2021 (ADCC): complexity, the L1 norm of the normalised map, here its mean.
    """
    check_floating("cam_map", cam_map)
    return maps.normalised(widened(jnp.asarray(cam_map))[0]).mean()


def erased(
    image: Float[Array, "*spatial d"], cam_map: Map, *, threshold: float = 0.5, steepness: float = 10.0
) -> Float[Array, "*spatial d"]:
    """I* = I - T(L) ∘ I with T(L) = sigmoid(ω (L - σ)) of the normalised map: the picture without what is looked at.

    Args:
        image: I `[*spatial, d]`; what is erased becomes 0.
        cam_map: L, of any grid with as many axes; stretched to the picture.
        threshold: σ, between 0 and 1.
        steepness: ω.

    Raises:
        ValueError: the map has not as many axes as the image has positions; a number is out of range.
        TypeError: image or map is not floating point.

    **Source**: Li et al. 2018 (GAIN), I* and T. (The paper gives no map's scale; ours is in [0, 1].)
    """
    check_number("threshold", threshold, low=0, high=1)
    check_number("steepness", steepness, above=0)
    check_floating("image", image)
    check_floating("cam_map", cam_map)
    if jnp.ndim(cam_map) != jnp.ndim(image) - 1:
        raise ValueError(
            f"cam_map must have the {jnp.ndim(image) - 1} spatial axes of the image but is {list(jnp.shape(cam_map))}: "
            "pass one image and its map; batches go through jax.vmap"
        )
    heatmap = maps.heatmap(widened(jnp.asarray(cam_map))[0], jnp.shape(image)[:-1])
    keep = 1 - jax.nn.sigmoid(steepness * (heatmap - threshold))
    return jnp.asarray(image) * keep[..., None].astype(image.dtype)


def attention_mining(
    score: Callable[[Array], Array],
    image: Float[Array, "*spatial d"],
    cam_map: Map,
    *,
    threshold: float = 0.5,
    steepness: float = 10.0,
) -> Float[Array, ""]:
    """score(I*): what the network still says of the class when what it looked at is erased; the map grows over it all.

    Args:
        score: of one image, a scalar: its class's logit or probability, as `lambda x: model(x[None])[0, class_idx]`.
        image: I `[*spatial, d]`, as the score takes it.
        cam_map: L, as for `erased`.
        threshold: σ, as there.
        steepness: ω, as there.

    Raises:
        ValueError: the score is no scalar; or as `erased`.

    **Source**: Li et al. 2018 (GAIN): L_am, of one class.
    """
    found = score(erased(image, cam_map, threshold=threshold, steepness=steepness))
    if jnp.shape(found) != ():
        raise ValueError(
            f"score must return a scalar for one image but returned {list(jnp.shape(found))}: pick a class"
        )
    return widened(found)[0]


def _pair(name: str, first: Map, second: Mask) -> tuple[Array, Array]:
    """Two of one shape and one dtype."""
    check_floating("the map", first)
    if name != "mask":
        check_floating(name, second)
    _check_shape(name, jnp.shape(second), "map", jnp.shape(first))
    (wide,) = widened(jnp.asarray(first))
    return wide, jnp.asarray(second).astype(wide.dtype)


def _check_shape(name: str, came: tuple[int, ...], other: str, expected: tuple[int, ...]) -> None:
    if came != expected:
        raise ValueError(
            f"{name} must be {list(expected)} as the {other} but is {list(came)}: use jaxcam.maps.resized(...), and "
            "jax.vmap for batches"
        )

"""Integrated Grad-CAM: Grad-CAM of every image on the way from an empty one to this one."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.checks import check_floating, check_integer, check_number
from jaxcam.cuts.cut import cut
from jaxcam.cuts.layers import LayerName
from jaxcam.derivatives.of_score import gradient_of_score, head_of
from jaxcam.precision import widened
from jaxcam.programs.notes import note
from jaxcam.programs.specs import varied

__all__ = ["integrated_grad_cam"]


def integrated_grad_cam(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    layer: LayerName = None,
    score: str | scores.Score = "logit",
    num_steps: int = 32,
    baseline: float | tuple[float, ...] = 0.0,
) -> Float[Array, "*spatial"]:
    """Integrated Grad-CAM: the integral of Grad-CAM along the straight line from a baseline I' to the image I.

        M = ∫₀¹ ReLU(sum_k w_k(t) (A_k(t) - A_k(0))) dt,    w_k(t) = mean over the positions of dY / dA_k at I(t),

    with the activations A(t) of I(t) = I' + t (I - I'). Where Y saturates, so that its gradient at I itself is small,
    the gradients on the way still tell what it came from. With activations and logits linear in the image it is half of
    Grad-CAM's map.

    The integral is the sum of `num_steps` midpoints, whose error falls with their square where the integrand is smooth.
    The authors' released code takes the left end of every step and does not subtract A(0), which is not zero where
    layers have biases; up to a factor that is `A_k(t)` for the difference above.

    Args:
        model: as for `jaxcam.explain`.
        image: I, one example as the model takes it, `[*spatial, d]`.
        class_idx: c, static or traced.
        layer: where A is taken; None for the model's default.
        score: Y, as for `grad_cam`.
        num_steps: how many images on the way; a forward and a backward pass each, one after the other.
        baseline: the value of all of I', or a tuple with one for each channel. 0 is black where the model takes
            pictures in [0, 1] or normalises them itself, and the mean colour where it takes normalised ones.

    Returns:
        The raw map `[*spatial]`, not normalised; for score="exp" divided by the largest exp(S_c) on the way.

    Raises:
        TypeError: the image is not floating point, num_steps no integer, or baseline holds no numbers.
        ValueError: num_steps is less than 1, baseline is not finite or has not one number for each channel; and as
            `grad_cam`.

    **Source**: Sattarzadeh et al. 2021 (Integrated Grad-CAM): the path integral along a straight line.
    """
    num_steps = check_integer("num_steps", num_steps, low=1)
    halves, image = cut(model, image, layer=layer), jnp.asarray(image)
    check_floating("image", image)
    start, image = varied((_filled(baseline, image, halves.network.channel_axis), image))
    (origin,) = widened(halves.features(start)[0])

    def at(t: Array) -> tuple[Array, Array, Array]:
        activations, beside = halves.features(start + t * (image - start))
        head, (wide,) = head_of(halves.head(beside), activations, class_idx), widened(activations)
        gradient = gradient_of_score(head, activations, class_idx, score=score)
        weights = gradient.mean(tuple(range(gradient.ndim - 1)))
        positive = jax.nn.relu(jnp.tensordot(wide - origin, weights.astype(wide.dtype), axes=1))
        # For "exp" each gradient came divided by exp(S_c) of its own image.
        is_exp = scores.name_of(scores.unsigned(score)) == "exp"
        (logit,) = widened(scores.logit(head(activations), class_idx))
        return positive, logit if is_exp else jnp.zeros_like(logit), (gradient != 0).any()

    middles = jnp.asarray((np.arange(num_steps) + 0.5) / num_steps, image.dtype)
    maps, logits, has_gradient = jax.lax.map(at, middles)
    note("has_gradient", lambda: has_gradient.any())
    top = logits.max(0, keepdims=True)
    factors = jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0)).astype(maps.dtype)
    return (jnp.tensordot(factors, maps, axes=1) / num_steps).astype(halves.activations.dtype)


def _filled(baseline: float | tuple[float, ...], image: Array, channel_axis: int) -> Array:
    """The baseline as an image."""
    values = baseline if isinstance(baseline, tuple) else (baseline,)
    for value in values:
        check_number("baseline", value)
    num_channels = image.shape[channel_axis]
    if isinstance(baseline, tuple) and len(baseline) != num_channels:
        raise ValueError(
            f"baseline must be one number, or one for each of {num_channels} channels, but is {len(baseline)}"
        )
    lengths = [1] * image.ndim
    lengths[channel_axis] = len(values)
    return jnp.broadcast_to(jnp.asarray(np.reshape(values, lengths), image.dtype), image.shape)

"""SmoothGrad-CAM++: the derivatives of Grad-CAM++, averaged over noisy copies of the image."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxcam import scores
from jaxcam.alphas import exact_alphas
from jaxcam.checks import check_integer, check_key, check_number
from jaxcam.closed_forms import Scaled
from jaxcam.cuts.cut import cut
from jaxcam.cuts.layers import LayerName
from jaxcam.derivatives.of_score import head_of, scaled_derivatives
from jaxcam.maps import weighted_map
from jaxcam.precision import widened
from jaxcam.programs.notes import note


def smooth_grad_cam_pp(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    key: Key[Array, ""],
    layer: LayerName = None,
    num_samples: int = 25,
    noise: float = 0.15,
    score: str | scores.Score = "exp",
    alphas: str = "auto",
) -> Float[Array, "*spatial"]:
    """SmoothGrad-CAM++: alpha and weights of Grad-CAM++ from the means D1, D2, D3 of the derivatives over noisy images.

    alpha = D2 / (2 D2 + S_k D3) and w_k = sum over the positions of alpha ReLU(D1), with A and S_k of the image itself.
    D_n is the mean over the samples of d_n at the sample's own activations: of its own second and third derivatives,
    not of powers of a mean gradient. These are derivatives of the mean of Y, so that for score="exp" a sample weighs
    exp(S_c) as it does in that mean: with large logits few samples decide; score="softmax" is bounded.

    Args:
        model: as for `jaxcam.explain`.
        image: I, one image as the model takes it, `[H, W, 3]`.
        class_idx: c, static or traced.
        key: a `jax.random.key`, for the noise.
        layer: where A is taken; None for the model's default.
        num_samples: noisy copies.
        noise: the standard deviation of the normal noise, as a share of the image's range, max - min (10 to 20 % in
            SmoothGrad).
        score: Y, as for `grad_cam_pp`.
        alphas: which way the derivatives are taken, as for `grad_cam_pp`.

    Returns:
        The raw map `[*spatial]`, ReLU(sum_k w_k A_k), not normalised; for the scores "exp", "softmax" and
        "log_softmax" divided by the largest slope dY / dS_c of the samples.

    Raises:
        TypeError: the image is not floating point, num_samples no integer, noise no number, or key no random key.
        ValueError: num_samples is less than 1, or noise negative or not finite; and as `grad_cam_pp`.

    **Source**: Omeiza et al. 2019 (Smooth Grad-CAM++), Eq. 7 to 9; Smilkov et al. 2017 (SmoothGrad) for the noise.
    """
    num_samples = check_integer("num_samples", num_samples, low=1)
    if not isinstance(noise, jax.Array):
        check_number("noise", noise, low=0)
    check_key("key", key)
    halves = cut(model, image, layer=layer)
    image = jnp.asarray(image)
    spread = jnp.asarray(noise, image.dtype) * (image.max() - image.min())

    def sample(key: Array) -> Scaled:
        # Drawn in float32 whatever the image's type, which would draw other numbers.
        noisy = image + spread * jax.random.normal(key, image.shape, jnp.float32).astype(image.dtype)
        a, beside = halves.features(noisy)
        head = head_of(halves.head(beside), a, class_idx)
        return scaled_derivatives(head, a, class_idx, score=score, alphas=alphas)

    found = jax.lax.map(sample, jax.random.split(key, num_samples))
    d1 = _mean(found.d1, found.log_slope)
    d2, d3 = (_mean(d, found.log_curvature) for d in (found.d2, found.d3))
    note("has_gradient", lambda: (d1 != 0).any())
    activations, _ = halves.features(image)
    (wide,) = widened(activations)
    weights = exact_alphas(wide, d2, d3) * jax.nn.relu(d1)
    return weighted_map(weights.sum(tuple(range(weights.ndim - 1))), activations)


def _mean(values: Float[Array, "n ..."], log_factors: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """The mean of exp(log_factors) values, divided by the largest factor: it cancels from alpha, and scales the map."""
    top = log_factors.max(0, keepdims=True)
    shares = jnp.exp(log_factors - jnp.where(jnp.isfinite(top), top, 0))
    return (jnp.expand_dims(shares, tuple(range(shares.ndim, values.ndim))) * values).mean(0)

"""FullGrad: the input's share of the score and that of every bias, laid over each other."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.checks import check_floating
from jaxcam.cuts.axes import axes_of
from jaxcam.cuts.cut import network
from jaxcam.cuts.grid import grid_at
from jaxcam.maps import resized
from jaxcam.precision import widened
from jaxcam.programs.full_gradient import parts_of
from jaxcam.programs.notes import note

__all__ = ["full_grad"]

_CONSTANT = 16
"""What differs by less than this many times the rounding is the same."""


def full_grad(
    model: object,
    image: Float[Array, "..."] | Float[np.ndarray, "..."],
    class_idx: scores.ClassIdx,
    *,
    score: str | scores.Score = "logit",
    rescale: str = "channel",
) -> Float[Array, "*spatial"]:
    """FullGrad: the magnitudes of x ∘ dY/dx and of all b ∘ dY/db, each scaled to [0, 1], enlarged, and added up.

        M = sum_c ψ(x ∘ dY/dx)_c + sum over layers and channels of ψ(b ∘ dY/db)_c,    ψ = enlarge(rescale(| |))

    The biases are read off the program (`jaxcam.programs.full_gradient`, which has the parts before ψ: they add up to
    Y). Those that follow each other element by element are one: a batch norm's mean and shift, and with it the bias of
    the convolution before it, which the authors' code counts apart. Biases of values that have no whole grid, as those
    of a dense layer, are not in the map; nor is it known whether a share speaks for the class or against it. Smooth
    activations have biases of their own.

    Args:
        model: as for `jaxcam.explain`.
        image: I, one example as the model takes it, `[*spatial, d]`.
        class_idx: c, static or traced.
        score: Y, as for `grad_cam`. A factor of Y cancels.
        rescale: "channel" scales every channel to [0, 1], as the paper's formula does, so that a weak one counts as
            much as a strong one; "layer" all channels of a layer together, as the authors' released code does.

    Returns:
        The raw map on the input's own grid, `[*spatial]`, not negative. What does not change is scaled to 0.

    Raises:
        TypeError: the image is not floating point.
        ValueError: rescale is not known; and as `jaxcam.explain`.

    **Source**: Srinivas and Fleuret 2019 (Full-Gradient Representation): FullGrad, the saliency map S_f with ψ.
    """
    if rescale not in ("channel", "layer"):
        raise ValueError(f"rescale must be 'channel' or 'layer' but is {rescale!r}")
    image = jnp.asarray(image)
    check_floating("image", image)
    whole = network(model, image)
    (logits,) = widened(whole(image))
    scores.check_class_idx(class_idx, logits.size)
    # A factor of Y cancels, and would overflow or underflow.
    function = scores.without_slope(score)

    def y(batch: Array) -> Array:
        (logits,) = widened(whole(batch[0]))
        return function(logits, class_idx)

    parts = parts_of(y, image[None])
    found = parts(image[None])
    note("has_gradient", lambda: jnp.stack([(part != 0).any() for part in (found.input, *found.biases)]).any())
    argument, size = parts.program.arguments[0], whole.size(image)
    axes = axes_of(parts.program, argument, 1 if whole.channel_axis == 0 else image.ndim)
    shares = zip((argument, *parts.ends), (found.input, *found.biases), strict=False)
    sums: dict[tuple[int, ...], Array] = {}
    for var, share in shares:
        if (grid := grid_at(axes, argument, var)) is not None:
            values = jnp.abs(grid.activations(widened(share)[0])[0])
            over = None if rescale == "layer" else tuple(range(values.ndim - 1))
            low, high = values.min(over, keepdims=True), values.max(over, keepdims=True)
            # Before a global pooling a channel that is active everywhere has the same share in every place: what is
            # left of it is rounding, which must not be enlarged to [0, 1].
            changes = high - low > _CONSTANT * jnp.finfo(values.dtype).eps * high
            scaled = jnp.where(changes, (values - low) / jnp.where(changes, high - low, 1), 0)
            own = scaled.sum(-1)
            sums[own.shape] = sums[own.shape] + own.astype(sums[own.shape].dtype) if own.shape in sums else own
    # Enlarging is linear: once for each grid.
    total = [resized(own, size) for own in sums.values()]
    return jnp.sum(jnp.stack([own.astype(total[0].dtype) for own in total]), 0).astype(image.dtype)

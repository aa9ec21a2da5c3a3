"""Test-time smoothing: the mean of a method's maps over flipped and scaled copies of the image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam.checks import check_number, is_integer
from jaxcam.cuts.cut import cut
from jaxcam.cuts.layers import LayerName
from jaxcam.methods.method import Method, bind
from jaxcam.scores import ClassIdx

__all__ = ["FLIPS_AND_SCALES", "Transform", "smoothed"]


@dataclass(frozen=True)
class Transform:
    """What is done to an image: some of its spatial axes turned round, and all values multiplied.

    Raises:
        TypeError: flip is no tuple of integers, or scale no number.
        ValueError: scale is not above 0, or not finite.
    """

    flip: tuple[int, ...] = ()
    """Which of the spatial axes, counted without the channels; -1 is the last: left and right of a picture."""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.flip, tuple) or not all(map(is_integer, self.flip)):
            raise TypeError(f"flip must be a tuple of spatial axes, as (-1,), but is {self.flip!r}")
        check_number("scale", self.scale, above=0)


FLIPS_AND_SCALES = tuple(Transform(flip, scale) for flip in ((), (-1,)) for scale in (0.9, 1.0, 1.1))
"""Those of the grad-cam package: as it is and turned round, each at 0.9, 1 and 1.1 times its values."""


def smoothed(method: str | Callable[..., Array] | Method, transforms: Sequence[Transform] = FLIPS_AND_SCALES) -> Method:
    """The method that is the mean of another one's raw maps, each turned back, over transformed copies of an image.

        M(I) = mean_t t⁻¹ M(t(I)),    explain(model, images, method=smoothed("grad_cam"))

    What is multiplied is the network's input as it comes (normalised, if it is); a map of that needs no turning back.
    One forward pass for each transform, one after the other. (The grad-cam package scales each map to [0, 1] before the
    mean. Here a copy with less evidence counts less, and the one transform `Transform()` is the method itself.)

    Args:
        method: a name, a function, a partial of one or a record, as for `jaxcam.explain`; its options in a partial.
        transforms: at least one.

    Returns:
        A record with the function `(model, image, class_idx, *, layer=None) -> map [*spatial]`.

    Raises:
        TypeError, ValueError: as `jaxcam.explain` for a method.
        TypeError: a transform is none.
        ValueError: there is no transform, or the method draws random numbers, is "cam" (take "grad_cam": the same map
            for its networks up to a factor and the ReLU), or makes a gradient of the image and no map; when it is
            called, a flipped axis is no spatial axis of the image.

    **Source**: the grad-cam package (`aug_smooth`).
    """
    bound, listed = bind(method, {}, draws=True), tuple(transforms)
    if not listed:
        raise ValueError("transforms must name at least one but is empty: jaxcam.methods.Transform() changes nothing")
    for transform in listed:
        if not isinstance(transform, Transform):
            raise TypeError(f"transforms must be jaxcam.methods.Transform(...)s but one is {transform!r}")
    if bound.takes_key or bound.needs == "kernel" or (bound.needs == "image" and not bound.takes_layer):
        raise ValueError(f"method={bound.name!r} cannot be smoothed: use one that makes a map and draws nothing")

    def function(
        model: object,
        image: Float[Array, "..."] | Float[np.ndarray, "..."],
        class_idx: ClassIdx,
        *,
        layer: LayerName = None,
    ) -> Float[Array, "*spatial"]:
        halves, image = cut(model, image, layer=layer), jnp.asarray(image)
        places = np.delete(np.arange(image.ndim), halves.network.channel_axis)

        def turned_back(transform: Transform) -> Array:
            wrong = [axis for axis in transform.flip if not -len(places) <= axis < len(places)]
            if wrong:
                raise ValueError(f"flip must name some of {len(places)} spatial axes but names {wrong[0]}")
            axes = [int(places[axis]) for axis in transform.flip]
            changed = jnp.flip(image, axes) * jnp.asarray(transform.scale, image.dtype)
            activations, beside = halves.features(changed)
            operands: dict[str, tuple[Any, ...]] = {
                "head": (halves.head(beside), activations, class_idx),
                "activations": (activations,),
                "image": (halves, changed, class_idx),
            }
            found = bound(*operands[bound.needs])
            if found.shape != activations.shape[:-1]:
                raise ValueError(
                    f"method={bound.name!r} cannot be smoothed: its result {found.shape} must be a map "
                    f"{activations.shape[:-1]}"
                )
            return jnp.flip(found, transform.flip)

        return jnp.stack([turned_back(transform) for transform in listed]).mean(0)

    return Method(f"{bound.method.title}, smoothed", bound.method.source, function, is_cheap=False)

"""What `explain` returns: arrays for every image, and a status that hides nothing."""

from enum import IntEnum
from typing import NamedTuple

from jaxtyping import Array, Float, Int


class Status(IntEnum):
    """What became of an image; `Explanation.status` holds these numbers.

    Of several that apply, the first of NO_SUCH_CLASS, NOT_FINITE, ZERO_GRADIENT, ZERO_MAP, ILL_CONDITIONED is given.

    Attributes:
        OK: the map can be used.
        ZERO_MAP: nothing speaks for the class; the weighted sum is negative or zero at every position.
        ZERO_GRADIENT: the score does not depend on the activations, as behind a dead ReLU.
        NOT_FINITE: NaN or infinity in the image, the activations, the logits or the map; look at input and parameters.
            The heatmap is zero and the confidence NaN.
        ILL_CONDITIONED: more than 1 % of Grad-CAM++'s weights come from alphas whose denominator crosses zero or
            cancels. Common with smooth heads (GELU, SiLU, tanh): use Grad-CAM there.
        NO_SUCH_CLASS: a traced class_idx is out of range. The heatmap is zero and the confidence NaN.
    """

    OK = 0
    ZERO_MAP = 1
    ZERO_GRADIENT = 2
    NOT_FINITE = 3
    ILL_CONDITIONED = 4
    NO_SUCH_CLASS = 5


PRIORITY = (
    Status.NO_SUCH_CLASS,
    Status.NOT_FINITE,
    Status.ZERO_GRADIENT,
    Status.ZERO_MAP,
    Status.ILL_CONDITIONED,
)


class Explanation(NamedTuple):
    """What `explain` returns, a pytree of arrays.

    With `class_idx="all"` or `top=` there is an axis of classes after that of the images: `[n, m, H, W]`, `[n, m]`.

    Attributes:
        heatmap: `[n, H, W]` in [0, 1], of the images' size. The map is divided by its maximum on the feature grid and
            then resized, so that its own maximum may be a little below 1. For guided backpropagation and guided
            Grad-CAM it is the largest magnitude of the channels of `gradient`, divided by its maximum.
        cam_map: `[n, *spatial]`, the method's raw map on the feature grid, for score="exp" divided by exp(S_c), which
            would overflow; a tuple of them for a list of layers. For
            guided Grad-CAM that of Grad-CAM; for guided backpropagation the magnitude, `[n, H, W]`.
        class_idx: `[n]`, the class that was explained.
        confidence: `[n]`, its softmax probability on the image.
        status: `[n]`, see `Status`. Of several layers it is the first that applies to one of them.
        gradient: `[n, H, W, d]`, signed, laid out like the images: what guided backpropagation and guided Grad-CAM make
            (`jaxcam.gradient_picture` draws it). None for other methods.
    """

    heatmap: Float[Array, "n *m H W"]
    cam_map: Float[Array, "n ..."] | tuple[Float[Array, "n ..."], ...]
    class_idx: Int[Array, "n *m"]
    confidence: Float[Array, "n *m"]
    status: Int[Array, "n *m"]
    gradient: Float[Array, "n ..."] | None = None

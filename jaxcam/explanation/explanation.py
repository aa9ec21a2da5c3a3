"""What `explain` returns: arrays for every example, and a status that hides nothing."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import partial
from typing import Any, ClassVar

import jax
import jax.export
from jaxtyping import Array, Float, Int
from PIL import Image

from jaxcam.explanation import display
from jaxcam.explanation.lent import Lent
from jaxcam.foldable import foldable


class Status(IntEnum):
    """What became of an example; `Explanation.status` holds these numbers.

    Of several that apply, the first of NO_SUCH_CLASS, NOT_FINITE, ROUNDED, ZERO_GRADIENT, ZERO_MAP, CONSTANT_MAP,
    ILL_CONDITIONED, BYPASSED is given.

    Attributes:
        OK: the map can be used.
        ZERO_MAP: nothing speaks for the class; the weighted sum is negative or zero at every position.
        ZERO_GRADIENT: the score does not depend on the activations, as behind a dead ReLU.
        NOT_FINITE: NaN or infinity in the input, the activations, the logits or the map; look at input and parameters.
            The heatmap is zero and the confidence NaN.
        ILL_CONDITIONED: more than 1 % of Grad-CAM++'s weights come from alphas whose denominator crosses zero or
            cancels. Common with smooth heads (GELU, SiLU, tanh); Grad-CAM has no alphas.
        NO_SUCH_CLASS: a traced class_idx is out of range. The heatmap is zero and the confidence NaN.
        BYPASSED: the layer that was named sees only a part of what reaches the score: the rest flows past it, as past
            the convolution of a shortcut. The map says nothing of that; `jaxcam.layers` lists what everything flows
            through.
        CONSTANT_MAP: the map has one position, or the same value at all of them: it says nothing of where. Small
            pictures leave a deep network with a grid of 1 x 1: name an earlier layer.
        ROUNDED: between layer and score values are rounded, as in networks for int8 inference. The derivative of a step
            is zero, and the gradient that is left comes from the scales: explain the network before quantisation, or
            give the rounding the derivative 1 (`jax.custom_jvp`, or `x + jax.lax.stop_gradient(jnp.round(x) - x)`).
    """

    OK = 0
    ZERO_MAP = 1
    ZERO_GRADIENT = 2
    NOT_FINITE = 3
    ILL_CONDITIONED = 4
    NO_SUCH_CLASS = 5
    BYPASSED = 6
    CONSTANT_MAP = 7
    ROUNDED = 8

    @property
    def words(self) -> str:
        """Its name as people read it: "zero map"."""
        return self.name.lower().replace("_", " ")


PRIORITY = (
    Status.NO_SUCH_CLASS,
    Status.NOT_FINITE,
    Status.ROUNDED,
    Status.ZERO_GRADIENT,
    Status.ZERO_MAP,
    Status.CONSTANT_MAP,
    Status.ILL_CONDITIONED,
    Status.BYPASSED,
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("heatmap", "cam_map", "class_idx", "value", "confidence", "status", "gradient"),
    meta_fields=(),
)
@dataclass(frozen=True, repr=False)
class Explanation:
    """What `explain` returns, a pytree of arrays. A notebook shows it as a table; `over` lays it over the inputs.

    The table has the maps over their inputs where these are still there, as a variable: of the inputs nothing is kept.
    Treescope, which comes with Flax, folds the fields: `treescope.show(found)`.

    With `class_idx="all"`, `top=` or a target of several scores `[*m]` there are axes of these after that of the
    examples: `[n, *m, H, W]`, `[n, *m]`.

    `jax.export` knows how to write it; a program that is to run without jaxcam returns the arrays in a dict.

    Attributes:
        heatmap: `[n, *spatial]` in [0, 1], of the input's size, as `[n, H, W]`. The map is divided by its maximum on
            the feature grid and then resized, so that its own maximum may be a little below 1. Where there is a
            `gradient` it is the largest magnitude of its channels, divided by its maximum. Where several inputs have a
            grid it is like the inputs, None for those that have none.
        cam_map: `[n, *spatial]`, the method's raw map on the feature grid, for score="exp" divided by exp(S_c), which
            would overflow; a tuple of them for a list of layers. For guided Grad-CAM that of Grad-CAM; of any
            other `gradient` the magnitude, of the input's size. Like the inputs where several have a grid.
        class_idx: `[n]`, the class that was explained; with a target, which of its scores.
        value: `[n]`, what was explained: the class's logit, or the target's score.
        confidence: `[n]`, the probability of the class on the input, by what the model's outputs mean (see
            `jaxcam.adapt`); NaN where they are no classes, and with a target.
        status: `[n]`, see `Status`. Of several layers and inputs it is the first that applies to one of them.
        gradient: signed, what a method makes that is laid out like the input: guided backpropagation, guided Grad-CAM,
            AttnLRP, or your own (`jaxcam.gradient_picture` draws it). None for methods that make a map.
        class_names: what the classes are called where it is shown; the model's, or empty. No part of the pytree, so
            that explanations of different models have one structure: what `jax.tree.map` makes, or comes out of a
            compiled function, has none, until `with_names` gives it some.
    """

    heatmap: Float[Array, "n ..."] | Any
    cam_map: Float[Array, "n ..."] | tuple[Float[Array, "n ..."], ...] | Any
    class_idx: Int[Array, "n *m"] | Any
    value: Float[Array, "n *m"] | Any
    confidence: Float[Array, "n *m"] | Any
    status: Int[Array, "n *m"] | Any
    gradient: Float[Array, "n ..."] | Any | None = None
    class_names: tuple[str, ...] = field(default=(), init=False, compare=False)
    _inputs: ClassVar[Lent] = Lent()
    """Those that were explained, while they last; no field."""

    def with_names(self, class_names: Sequence[str]) -> "Explanation":
        """The same with other names of classes to show.

        Raises:
            TypeError: class_names is no sequence of names.
        """
        if isinstance(class_names, str) or not isinstance(class_names, Sequence):
            raise TypeError(
                f"class_names must be a sequence of names, in the order of the classes, but is {class_names!r}"
            )
        return self._with(class_names=tuple(map(str, class_names)))

    def _with(self, **facts: Any) -> "Explanation":
        """The same with something beside its arrays."""
        other = copy.copy(self)
        for name, fact in facts.items():
            object.__setattr__(other, name, fact)
        return other

    def over(
        self, inputs: Any, *, kind: str | None = None, num: int = 8, style: str = "grey", colormap: str = "inferno"
    ) -> Image.Image:
        """The heatmaps over the inputs, with class, confidence and status: one picture of the first examples.

        Series as `jaxcam.pictures.series` draws them, pictures as `overlay`, volumes as three slices through the
        maximum, clips as a strip of frames. Of an example's maps (`top=`, several scores) the first four are drawn.

        Args:
            inputs: those that were explained. Numbers outside [0, 1], as of a normalised picture, are drawn from their
                lowest to their highest; for pictures `model.preprocessing.view(picture)[None]` may stand in their
                place, in any size of the same proportions.
            kind: "volume" or "clip" for inputs with three axes of positions, which do not say what they are; None: a
                clip where they have three channels, the colours, and a volume otherwise.
            num: at most so many examples.
            style: "grey", "colour" or "plain", as in `jaxcam.overlay`.
            colormap: a name that `jaxcam.colour_map` knows.

        Returns:
            A Pillow image, RGB: `jaxcam.save(found.over(inputs), "found.png")`.

        Raises:
            TypeError: the explanation or the inputs are traced, or the inputs are no arrays.
            ValueError: the inputs are not those that were explained; kind does not fit them; no such style or colour
                map.
        """
        return display.over(self, inputs, _status, kind=kind, num=num, style=style, colormap=colormap)

    def __repr__(self) -> str:
        return display.plain(self, _status)

    def _repr_html_(self) -> str:
        return display.table(self, _status, self._inputs.back())

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        return foldable(self, given, path, subtree_renderer)


jax.export.register_pytree_node_serialization(
    Explanation,
    serialized_name="jaxcam.Explanation",
    serialize_auxdata=lambda _: b"",  # names of classes are no part of it
    deserialize_auxdata=lambda _: (),
)


def _status(number: int) -> str:
    """The status of that number in words; of one that is none, in an explanation that was changed, the number."""
    return Status(number).words if number in set(Status) else f"status {number}"

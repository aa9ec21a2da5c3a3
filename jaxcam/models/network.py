"""Network: a chain of stages that sees pictures, with what makes its input of a picture."""

from collections.abc import Iterable, Mapping

from flax import nnx

from jaxcam.images.preprocessing import Preprocessing
from jaxcam.models.chain import Chain


class Network(Chain):
    """An image network `[n, H, W, 3]` -> logits `[n, c]`, equal to `head(features(images))` at any of its layers."""

    kind, one = "images", "image"
    axes = ("H", "W")
    channels = 3
    _unit = "pixels"
    _remedies = (
        "use model.preprocessing(image) on pixels in [0, 1] (uint8 / 255)",
        "use model.preprocessing(image), or enlarge them",
    )

    def __init__(
        self, stages: Mapping[str, nnx.Module], *, class_names: Iterable[str], preprocessing: Preprocessing
    ) -> None:
        """Makes the chain.

        Args:
            stages: the layers in their order, by the names that `layer` takes.
            class_names: of the logits.
            preprocessing: what turns a picture into this network's input.
        """
        super().__init__(stages, class_names=class_names)
        self.preprocessing = preprocessing

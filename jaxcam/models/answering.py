"""The network that answers questions about a picture: `mini_vqa`.

`model({"image": images, "words": questions})` are the logits of the answers. It sees pixels in [0, 1] of 64 x 64, as
`scenes.question` draws them; its maps have 16 x 16 positions. Why this answer, and why rather than another one:

    jaxcam.explain(model, inputs, class_idx=drawn.answer)
    jaxcam.explain(model, inputs, target=targets.contrast(scenes.ANSWERS.index("red"), scenes.ANSWERS.index("blue")))
"""

from typing import Any, Unpack

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxcam import scenes
from jaxcam.models.architecture import Architecture, Options, Weights
from jaxcam.models.class_names import class_names
from jaxcam.models.embedded import EMBEDDED, embedded, linear
from jaxcam.models.reader import Reader


class MiniVQA(Reader):
    """A picture and a question -> the answer: the last state of a `Reader` and two fully connected layers."""

    def __init__(self, *, num_classes: int = len(scenes.ANSWERS), rngs: nnx.Rngs) -> None:
        super().__init__(len(scenes.VOCABULARY), rngs=rngs)
        self.fc1 = linear(self.hidden, self.hidden, rngs=rngs)
        self.fc2 = linear(self.hidden, num_classes, rngs=rngs)
        self.class_names = class_names(num_classes, of=scenes.ANSWERS)

    def told(self, features: Float[Array, "n i j d"], words: Int[Array, "n *q l"]) -> Float[Array, "n *q c"]:
        """The logits of the answers."""
        return self.fc2(jax.nn.relu(self.fc1(self.read(features, words)[..., -1, :])))


ARCHITECTURES: dict[str, Architecture[Any]] = {
    "mini_vqa": Architecture("mini_vqa", MiniVQA, classifier="fc2", num_classes=len(scenes.ANSWERS)),
}
"""By name."""


def mini_vqa(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniVQA:
    """The embedded network that answers questions; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_vqa"], weights, options)

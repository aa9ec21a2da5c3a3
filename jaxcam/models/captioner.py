"""The network that tells a picture in a sentence: `mini_captioner`.

`model(inputs)` are the logits of every word given those before it (teacher forcing), `model.caption(images)` writes
sentences itself, greedily, and `model.captions(images)` by beams. It sees pixels in [0, 1] of 64 x 64, as
`scenes.caption` draws them; its maps have 16 x 16 positions. All words of a sentence are explained from one forward
pass to the layer:

    words = model.caption(images)
    inputs = {"image": images, "words": words}
    said = lambda logits, x: targets.tokens(x["words"][1:], ignore=scenes.PAD)(logits, x)
    jaxcam.explain(model, inputs, target=said)  # a map for each word after the start: [n, l - 1, H, W]
"""

from functools import partial
from typing import Any, Unpack

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxcam import scenes
from jaxcam.models.architecture import Architecture, Options, Weights
from jaxcam.models.beams import Decoded, Step, beams, greedy
from jaxcam.models.class_names import class_names
from jaxcam.models.embedded import EMBEDDED, embedded, linear
from jaxcam.models.reader import Reader, Seen, State
from jaxcam.scenes.sentences import CAPTION_LENGTH

Images = Float[Array, "n H W 3"] | Float[np.ndarray, "n H W 3"]


class MiniCaptioner(Reader):
    """A picture and the words so far -> the next word: a `Reader` and a linear layer. Its classes are the words."""

    def __init__(self, *, num_classes: int = len(scenes.VOCABULARY), rngs: nnx.Rngs) -> None:
        super().__init__(num_classes, rngs=rngs)
        self.fc = linear(self.hidden, num_classes, rngs=rngs)
        self.class_names = class_names(num_classes, of=scenes.VOCABULARY)

    def told(self, features: Float[Array, "n i j d"], words: Int[Array, "n *q l"]) -> Float[Array, "n *q t c"]:
        """The logits of words 1 to l - 1, each given the picture and the words before it; t = l - 1."""
        return self.fc(self.read(features, words[..., :-1]))

    def caption(self, images: Images, *, length: int = CAPTION_LENGTH) -> Int[Array, "n l"]:
        """A sentence for every picture, of which each word is the likeliest: ids `[n, l]`, see `beams.greedy`.

        Args:
            images: `[n, H, W, 3]`, pixels in [0, 1].
            length: l, with start and end.

        Raises:
            TypeError, ValueError: of images as `sight.features`, of length as `beams.greedy`.
        """
        return _greedy(self, images, length)

    def captions(self, images: Images, *, width: int = 3, length: int = CAPTION_LENGTH) -> Decoded:
        """The likeliest sentences for every picture that beams find, and their log probabilities.

        Args:
            images: `[n, H, W, 3]`, pixels in [0, 1].
            width: of the beams, and how many sentences of a picture come back: `words` is `[n, width, l]`.
            length: l, with start and end.

        Raises:
            TypeError, ValueError: of images as `sight.features`, of length and width as `beams.beams`.
        """
        return _beams(self, images, length, width)

    def following(self, seen: Seen) -> Step:
        """The step of `beams` for one picture: the state after a word, and the logits of the next one."""

        def step(state: State, word: Int[Array, ""]) -> tuple[State, Float[Array, " v"]]:
            state = self.step(state, word, seen)
            return state, self.fc(state.hidden)

        return step


@partial(jax.jit, static_argnums=2)
def _greedy(model: MiniCaptioner, images: Float[Array, "n H W 3"], length: int) -> Int[Array, "n l"]:
    return jax.vmap(lambda seen: greedy(model.following(seen), model.begin(), length=length))(
        model.attention.seen(model.look(images))
    )


@partial(jax.jit, static_argnums=(2, 3))
def _beams(model: MiniCaptioner, images: Float[Array, "n H W 3"], length: int, width: int) -> Decoded:
    def each(seen: Seen) -> Decoded:
        return beams(model.following(seen), model.begin(), length=length, width=width)

    return jax.vmap(each)(model.attention.seen(model.look(images)))


ARCHITECTURES: dict[str, Architecture[Any]] = {
    "mini_captioner": Architecture(
        "mini_captioner", MiniCaptioner, classifier="fc", num_classes=len(scenes.VOCABULARY)
    ),
}
"""By name."""


def mini_captioner(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniCaptioner:
    """The embedded network that tells pictures; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_captioner"], weights, options)

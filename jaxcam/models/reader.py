"""Reader: a network that reads words, and looks at a picture with every one of them.

It takes `{"image": [n, H, W, 3], "words": [n, l]}`: pixels in [0, 1], and ids of words as `jaxcam.scenes` has them,
from 0 on; 0, the pad, is passed over. Words may be `[n, q, l]`: q sentences about each picture, which is looked at
once. Convolutions make features of the picture's places, an LSTM reads the words in a scan. For each word it attends
to the places, by the word and by what was read before:

    q = W_q [x_t, h_(t-1)],  s_p = q · k_p / sqrt(d),  z_t = [Σ_p softmax(s)_p v_p, 16 mean_p sigmoid(s_p + b)]
    i, f, o, g = W [x_t, z_t, h_(t-1)] + b
    c_t = sigmoid(f + 1) c_(t-1) + sigmoid(i) tanh(g),  h_t = sigmoid(o) tanh(c_t)

with keys k_p and values v_p linear in the features and the coordinates of place p. The second part of z_t is how much
of the picture is meant, in units of a sixteenth: a mean of values does not tell one heart from three.

**Source**: Xu et al. 2015, "Show, attend and tell", section 3.1, for attention by the state of an LSTM; Jozefowicz et
al. 2015, "An empirical exploration of recurrent network architectures", for the 1 that is added to f.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcam.models.chain import Chain
from jaxcam.models.classifier import Classifier
from jaxcam.models.embedded import conv, linear, norm
from jaxcam.models.modules import MaxPool, ReLU
from jaxcam.scenes import PAD

Inputs = Mapping[str, Any]
"""`{"image": [n, H, W, 3], "words": [n, *q, l]}`."""


class Seen(NamedTuple):
    """What attention finds at the places of one picture, for each of its heads; `*n` where there are several."""

    keys: Float[Array, "*n i j heads d"]
    values: Float[Array, "*n i j heads e"]


class State(NamedTuple):
    """Of the LSTM."""

    hidden: Float[Array, "*n k"]
    cell: Float[Array, "*n k"]


class Sight(Chain):
    """Five convolutions `[n, H, W, 3]` -> `[n, H / 4, W / 4, k]`; the first four have the shapes of `mini_vgg`'s."""

    kind, one, axes, channels = "pictures", "picture", ("H", "W"), 3
    default_layer = "relu5"
    smallest_image = 4

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                "conv1": conv(3, 24, (5, 5), strides=(2, 2), rngs=rngs), "bn1": norm(24, rngs=rngs), "relu1": ReLU(),
                "conv2": conv(24, 32, (3, 3), rngs=rngs), "bn2": norm(32, rngs=rngs), "relu2": ReLU(),
                "pool2": MaxPool(2, 2),
                "conv3": conv(32, 48, (3, 3), rngs=rngs), "bn3": norm(48, rngs=rngs), "relu3": ReLU(),
                "conv4": conv(48, 64, (3, 3), rngs=rngs), "bn4": norm(64, rngs=rngs), "relu4": ReLU(),
                "conv5": conv(64, channels, (3, 3), rngs=rngs), "bn5": norm(channels, rngs=rngs), "relu5": ReLU(),
            },
            class_names=(),
        )  # fmt: skip


class Attention(nnx.Module):
    """Keys and values of places, and what a query finds there: z_t of this module's formula."""

    def __init__(self, channels: int, query: int, *, heads: int, key: int, value: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.query = linear(query, heads * key, rngs=rngs)
        self.key = linear(channels, heads * key, rngs=rngs)
        self.value = linear(channels, heads * value, rngs=rngs)
        self.where = linear(2, heads * (key + value), rngs=rngs)
        self.bias = nnx.Param(jnp.full(heads, -2, jnp.float32))

    def seen(self, features: Float[Array, "n i j k"]) -> Seen:
        """The keys and values of all places."""
        _, i, j, _ = features.shape
        y, x = (np.linspace(1 / size - 1, 1 - 1 / size, size) for size in (i, j))
        where = self.where(jnp.asarray(np.stack(np.meshgrid(x, y), -1)[None], features.dtype))
        of_key, of_value = jnp.split(where, [self.key.out_features], -1)
        found = self.key(features) + of_key, self.value(features) + of_value
        return Seen(*(each.reshape(*each.shape[:-1], self.heads, -1) for each in found))

    def __call__(self, seen: Seen, by: Float[Array, " q"]) -> Float[Array, " z"]:
        """What is found in one picture by the vector that the query is made of."""
        query = self.query(by).reshape(self.heads, -1)
        scores = jnp.einsum("ijhd,hd->ijh", seen.keys, query) / query.shape[-1] ** 0.5
        means = jnp.einsum("ijh,ijhe->he", jax.nn.softmax(scores, (0, 1)), seen.values)
        amounts = 16 * jax.nn.sigmoid(scores + self.bias[...].reshape(1, 1, -1)).mean((0, 1))
        return jnp.concatenate([means.reshape(-1), amounts])


class Reader(Classifier):
    """A picture and words -> the state of an LSTM after every word."""

    kind, one = "pictures with words", "picture with words"
    default_layer = "relu5"
    cam_layer = None

    def __init__(self, num_words: int, *, channels: int = 64, hidden: int = 96, heads: int = 4, rngs: nnx.Rngs) -> None:
        word, key, value = 32, 16, 24
        self.hidden, self.num_words = hidden, num_words
        self.sight = Sight(channels, rngs=rngs)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (num_words, word), jnp.float32))
        self.attention = Attention(channels, word + hidden, heads=heads, key=key, value=value, rngs=rngs)
        self.gates = linear(word + heads * (value + 1) + hidden, 4 * hidden, rngs=rngs)

    def __call__(self, inputs: Inputs) -> Float[Array, "n *q_t c"]:
        """The logits.

        Raises:
            TypeError, ValueError: as `checked`.
        """
        image, words = self.checked(inputs)
        return self.told(self.look(image), words)

    def look(self, image: Float[Array, "n H W 3"]) -> Float[Array, "n i j d"]:
        """The features of every place."""
        return self.sight.features(4 * image - 2)  # as what `mini_vgg` sees: of mean 1/2 and deviation 1/4

    @abstractmethod
    def told(self, features: Float[Array, "n i j d"], words: Int[Array, "n *q l"]) -> Float[Array, "n *q_t c"]:
        """The logits from the features of the picture and the words: what these networks differ in."""

    def begin(self) -> State:
        """The state before the first word, of one picture."""
        nothing = jnp.zeros(self.hidden, self.gates.kernel[...].dtype)
        return State(nothing, nothing)

    def step(self, state: State, word: Int[Array, ""], seen: Seen) -> State:
        """The state after one more word, of one picture."""
        place = jnp.where(word < 0, self.num_words, word)  # NaN behind the last word, and not the last one
        x = jnp.take(self.embedding[...], place, axis=0, mode="fill", fill_value=jnp.nan)
        found = self.attention(seen, jnp.concatenate([x, state.hidden]))
        i, f, o, g = jnp.split(self.gates(jnp.concatenate([x, found, state.hidden])), 4)
        cell = jax.nn.sigmoid(f + 1) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return State(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)

    def read(self, features: Float[Array, "n i j d"], words: Int[Array, "n *q l"]) -> Float[Array, "n *q l k"]:
        """The hidden states after every word; a pad leaves it as it is."""

        def each(seen: Seen, words: Int[Array, " l"]) -> Float[Array, "l k"]:
            def step(state: State, word: Int[Array, ""]) -> tuple[State, Array]:
                made = self.step(state, word, seen)
                state = State(*(jnp.where(word == PAD, old, new) for old, new in zip(state, made, strict=True)))
                return state, state.hidden

            return jax.lax.scan(step, self.begin(), words)[1]

        read = each if words.ndim == 2 else jax.vmap(each, (None, 0))
        return jax.vmap(read)(self.attention.seen(features), words)

    def checked(self, inputs: Inputs) -> tuple[Float[Array, "n H W 3"], Int[Array, "n *q l"]]:
        """The picture and the words.

        Raises:
            TypeError: inputs are of another kind, the picture is no floating-point numbers or the words no integers.
            ValueError: one of the two is not there or not of its shape, or a word is not in the vocabulary.
        """
        if not isinstance(inputs, Mapping) or not {"image", "words"} <= inputs.keys():
            came = list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise TypeError(f'inputs must be {{"image": [n, H, W, 3], "words": [n, l]}} but are {came}')
        image, words = inputs["image"], inputs["words"]
        if not jnp.issubdtype(words.dtype, jnp.integer):
            raise TypeError(f"words must be integers, as of scenes.encode, but are {words.dtype}")
        if words.ndim not in (2, 3) or len(words) != len(image):
            raise ValueError(
                f"words must be [n, l] or [n, q, l], as many rows as the {len(image)} pictures, but are "
                f"{list(words.shape)}: add the batch axis with words[None]"
            )
        if not isinstance(words, Tracer) and ((words < 0) | (words >= self.num_words)).any():
            raise ValueError(
                f"words must be ids from 0 to {self.num_words - 1} but reach from {words.min()} to {words.max()}"
            )
        return jnp.asarray(image), jnp.asarray(words)

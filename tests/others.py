"""Models of other people's packages, tiny and with random weights, each with its last part written by hand.

A case is made by a function that returns the model as `explain` takes it, an input `[1, ...]`, and `by_hand`: a
function of `tap` that computes the logits `[c]`, and calls `tap` on the value that should be the layer.

What tests/parity-requirements.txt does not bring: bonsai and big_vision are on no index (checkouts on the path do), and
the last transformers with Flax, 4.57.3, wants a huggingface_hub below 1 and a tokenizers below 0.23, which are older
than what the rest gets: `pip install transformers==4.57.3` in an environment without it.
"""

import jax
import numpy as np
import others_keras
import others_linen
import others_modules

CASES = others_modules.CASES | others_linen.CASES | others_keras.CASES


def map_by_hand(by_hand, place, class_idx):
    """Grad-CAM of a class, and the logits."""
    taken = []

    def tapped(moved):
        taken.clear()
        logits = by_hand(lambda value: taken.append(value) or (value if moved is None else value + moved))
        (value,) = taken
        return logits[class_idx], (value, logits)

    like = jax.eval_shape(lambda: tapped(None)[1][0])
    zeros = np.zeros(like.shape, like.dtype)
    gradient, (value, logits) = jax.jit(jax.grad(tapped, has_aux=True))(zeros)
    a, g = np.asarray(place(value)), np.asarray(place(gradient))
    return np.maximum((a * g.mean((0, 1))).sum(-1), 0), logits

"""Models of other people's packages, tiny and with random weights, each with its last part written by hand.

A case is made by a function that returns the model as `explain` takes it, an input `[1, ...]`, and `by_hand`: a
function of `tap` that computes the logits `[c]`, and calls `tap` on the value that should be the layer.

What tests/parity-requirements.txt does not bring: tests/transformers-requirements.txt brings the last transformers with
Flax, to an environment of its own. bonsai and big_vision are on no index (`jax-bonsai` is an empty name there, `bonsai`
something else): `JAXCAM_CHECKOUTS` names the folders of their checkouts, with a colon between two.
"""

import os
import sys

import jax
import numpy as np

# Before what is installed: `bonsai` may be somebody else's.
sys.path[:0] = filter(None, os.environ.get("JAXCAM_CHECKOUTS", "").split(os.pathsep))

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

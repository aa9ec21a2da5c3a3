"""The pictures that the experiments teach with and test on: scenes with one figure, of a few of the ten classes."""

from functools import lru_cache

import numpy as np

from jaxcam import scenes

CLASSES = ("disc", "ring", "cross")
SIZE = 32
UNSEEN = 2**20
"""The seed of pictures for testing."""


@lru_cache(maxsize=4)
def drawn(
    seed: int, num: int, classes: tuple[str, ...] = CLASSES, size: int = SIZE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures in [0, 1] `[n, size, size, 3]`, their classes `[n]` in turns from 0, and the masks `[n, size, size]`.

    A seed draws the same pictures in every size.
    """
    known = map(scenes.CLASS_NAMES.index, classes)
    each = [
        scenes.batch(len(scenes.CLASS_NAMES) * seed + c, num // len(classes), size=size, class_idx=c, num_instances=1)
        for c in known
    ]
    pictures = np.stack([np.asarray(one.image) for one in each], 1).reshape(num, size, size, 3)
    masks = np.stack([np.asarray(one.masks.any(1)) for one in each], 1).reshape(num, size, size)
    return pictures, np.arange(num) % len(classes), masks

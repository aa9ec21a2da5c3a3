"""Whether a few masks take a network off a shortcut: a coloured tag in the corner that goes with the class.

    python tests/benchmarks/experiments/shortcut.py [--seeds 0 1 ...] [--weigh]

Scenes of 32 x 32 pixels with one figure of two classes, and in the lower right corner a tag in one of two colours. In
training the colour is that of the class on AGREEING of the pictures and the other on the rest; the groups that are
tested are the two classes with the tag that agrees, and with the one that contradicts. A share of the training pictures
is annotated with the figure's mask. To the cross-entropy of a batch of all pictures comes b times `learning.inside` of
the maps of a batch of annotated ones; plain training has b = 0.

The maps are Grad-CAM's of log p, that is of the class against the others. Of the logit alone there is a way out: the
evidence for one class is told by the logit of the other, the map is zero everywhere, and so is the loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import trials
from lessons import SIZE, UNSEEN, drawn
from student import Student, batches, cross_entropy, outcome, trained

from jaxcam import learning, maps

CLASSES = ("ring", "cross")
COLOURS = np.asarray([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9]], np.float32)
TAG, AGREEING = 5, 0.9
NUM, NUM_STEPS, NUM_TESTED, NUM_ANNOTATED, RATE = 400, 300, 600, 8, 2e-2
SETTINGS = {
    "tag": TAG, "agreeing": AGREEING, "num": NUM, "num_steps": NUM_STEPS, "num_tested": NUM_TESTED,
    "num_annotated": NUM_ANNOTATED, "rate": RATE,
}  # fmt: skip
Arm = tuple[float, float]
"""The share that is annotated, and b."""
ARMS: dict[str, Arm] = {
    "plain": (0.01, 0.0),
    "1 % annotated": (0.01, 0.3),
    "5 % annotated": (0.05, 0.3),
    "25 % annotated": (0.25, 0.3),
}
CANDIDATES: dict[str, Arm] = {
    "plain": (0.01, 0.0),
    **{f"{100 * share:.0f} %, b = {b}": (share, b) for share in (0.05, 0.25) for b in (0.3, 1.0, 3.0)},
}


def tagged(pictures: Any, masks: Any, colours: Any) -> tuple[Any, Any]:
    """The pictures with tags in these colours `[n]`; the masks without what a tag hides."""
    pictures, masks = pictures.copy(), masks.copy()
    pictures[:, -TAG:, -TAG:], masks[:, -TAG:, -TAG:] = COLOURS[colours][:, None, None], False
    return pictures, masks


def loss(model: Student, data: Any, places: Any, weight: Any) -> Any:
    """Of a batch of all pictures, and one of annotated pictures."""
    pictures, labels, masks = data
    every, annotated = places
    _, cam_maps = learning.forward(model, pictures[annotated], labels[annotated], score="log_softmax")
    outside = jax.vmap(learning.inside)(cam_maps, masks[annotated]).mean()
    return cross_entropy(model(pictures[every]), labels[every]) + weight * outside


def of_seed(seed: int) -> Any:
    """A training set with tags; then, for an arm, the figures of a network trained on it."""
    pictures, labels, masks = drawn(seed, NUM, CLASSES)
    agrees = np.random.default_rng(seed).uniform(size=NUM) < AGREEING
    pictures, masks = tagged(pictures, masks, np.where(agrees, labels, 1 - labels))
    grids = jax.vmap(lambda mask: maps.resized(mask, (SIZE // 4, SIZE // 4)))(jnp.asarray(masks, jnp.float32))
    unseen, classes, shown = drawn(UNSEEN, NUM_TESTED, CLASSES)
    corner = np.zeros_like(shown)
    corner[:, -TAG:, -TAG:] = True

    def trial(arm: Arm) -> dict[str, float]:
        share, weight = arm
        student = Student(CLASSES, size=SIZE, seed=seed)
        normalise = student.preprocessing.normalise
        annotated = batches(seed, round(share * NUM), NUM_STEPS, size=NUM_ANNOTATED)
        order = zip(batches(seed, NUM, NUM_STEPS), annotated, strict=True)
        data = normalise(pictures), labels, grids
        student = trained(student, loss, data, order, np.float32(weight), rate=RATE, num=NUM_STEPS)
        found, groups = {}, []
        for name, colours in (("agrees", classes), ("contradicts", 1 - classes)):
            views, figures = tagged(unseen, shown, colours)
            regions = np.stack([figures, corner], 1)
            right, shares = outcome(student, normalise(views), classes, regions, score="log_softmax")
            groups += [100 * right[classes == c].mean() for c in range(len(CLASSES))]
            found |= {name: 100 * right.mean(), f"empty, {name}": np.isnan(shares[:, 0]).sum()}
            found |= {f"{key}, {name}": 100 * np.nanmean(shares[:, k]) for k, key in enumerate(("figure", "tag"))}
        return found | {"worst group": min(groups)}

    return trial


def section(rows: list[trials.Row], arms: dict[str, Arm] = ARMS) -> str:
    """What the page says."""
    accuracies = {"worst group": "worst group %", "contradicts": "tag contradicts %", "agrees": "tag agrees %"}
    energies = {"figure, agrees": "energy in the figure %", "tag, agrees": "energy in the tag %"}
    return "\n\n".join(trials.table(rows, list(arms), keys, ["plain"]) for keys in (accuracies, energies))


if __name__ == "__main__":
    trials.main(__file__, __doc__, ARMS, CANDIDATES, SETTINGS, of_seed, section)

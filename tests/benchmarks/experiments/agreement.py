"""Whether it helps a network with few labels that its maps move with the picture (SEAM's L_ER).

    python tests/benchmarks/experiments/agreement.py [--seeds 0 1 ...] [--weigh]

Scenes of 32 x 32 pixels with one figure of two classes, NUM of them labelled and NUM_UNLABELLED without. T is one of
the eight turns and mirrorings of a square, another in every step. The losses: the cross-entropy of a batch of labelled
pictures; of them as they are and after T; to that b times `learning.agreement` of the Grad-CAM maps of the two, of
these and of as many unlabelled pictures, of the true class or the one that the network says of the picture as it is;
or, as what the maps have to be compared with, b times the squared distance of the two's probabilities, of the same
pictures.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import trials
from lessons import SIZE, UNSEEN, drawn
from student import Student, batches, cross_entropy, outcome, trained

from jaxcam import learning

CLASSES = ("ring", "cross")
NUM, NUM_UNLABELLED, NUM_STEPS, NUM_TESTED, RATE, BATCH = 240, 720, 300, 600, 2e-2, 16
SETTINGS = {
    "num": NUM, "num_unlabelled": NUM_UNLABELLED, "num_steps": NUM_STEPS, "num_tested": NUM_TESTED, "rate": RATE,
    "batch": BATCH,
}  # fmt: skip
TURNS = tuple(
    (lambda x, k=k, flip=flip: jnp.rot90(x[:, ::-1] if flip else x, k)) for flip in (False, True) for k in range(4)
)
"""T, of `[n, n, ...]`."""
Arm = tuple[float, float, float, str]
"""The weights of the second view, of the agreement of maps, and of that of probabilities; what the maps are of."""
ARMS: dict[str, Arm] = {
    "cross-entropy": (0.0, 0.0, 0.0, "logit"),
    "both views": (1.0, 0.0, 0.0, "logit"),
    "maps of the logit": (1.0, 1.0, 0.0, "logit"),
    "maps of log p": (1.0, 1.0, 0.0, "log_softmax"),
    "probabilities": (1.0, 0.0, 1.0, "logit"),
}
CANDIDATES: dict[str, Arm] = {
    "both views": (1.0, 0.0, 0.0, "logit"),
    **{f"maps of the logit, {weight}": (1.0, weight, 0.0, "logit") for weight in (0.3, 1.0)},
    **{f"maps of log p, {weight}": (1.0, weight, 0.0, "log_softmax") for weight in (0.3, 1.0)},
    **{f"probabilities, {weight}": (1.0, 0.0, weight, "logit") for weight in (0.3, 1.0)},
}


def loss(model: Student, data: Any, places: Any, weights: Any, *, score: str) -> Any:
    """Of a batch of labelled pictures and one of unlabelled ones."""
    pictures, labels = data
    at, turn = places
    moved = partial(jax.lax.switch, turn, TURNS)
    first = pictures[at]
    classes = jnp.concatenate([labels[at[:BATCH]], jax.lax.stop_gradient(model(first[BATCH:])).argmax(-1)])
    both = jnp.concatenate([first, jax.vmap(moved)(first)]), jnp.concatenate([classes, classes])
    logits, cam_maps = learning.forward(model, *both, score=score)
    (logits, moved_logits), (first_maps, second_maps) = jnp.split(logits, 2), jnp.split(cam_maps, 2)
    apart = jax.vmap(partial(learning.agreement, transform=moved))(first_maps, second_maps)
    between = jnp.square(jax.nn.softmax(logits) - jax.nn.softmax(moved_logits)).sum(-1)
    own, other = (cross_entropy(each[:BATCH], classes[:BATCH]) for each in (logits, moved_logits))
    second, of_maps, of_probabilities = weights
    told = own + second * (other - own) / 2  # of both views the mean
    return told + of_maps * apart.mean() + of_probabilities * between.mean()


LOSSES = {score: partial(loss, score=score) for score in ("logit", "log_softmax")}


def of_seed(seed: int) -> Any:
    """A training set; then, for an arm, the figures of a network trained on it."""
    pictures, labels, _ = drawn(seed, NUM + NUM_UNLABELLED, CLASSES)
    unseen, classes, shown = drawn(UNSEEN, NUM_TESTED, CLASSES)

    def trial(arm: Arm) -> dict[str, float]:
        student = Student(CLASSES, size=SIZE, seed=seed)
        normalise = student.preprocessing.normalise
        turns = np.random.default_rng(seed).integers(len(TURNS), size=NUM_STEPS)
        some = zip(batches(seed, NUM, NUM_STEPS, BATCH), batches(seed, NUM_UNLABELLED, NUM_STEPS, BATCH), strict=True)
        data = normalise(pictures), labels
        order = ((np.concatenate([a, NUM + b]), turn) for (a, b), turn in zip(some, turns, strict=True))
        *weights, score = arm
        student = trained(
            student, LOSSES[score], data, order, np.asarray(weights, np.float32), rate=RATE, num=NUM_STEPS
        )
        right, shares = outcome(student, normalise(unseen), classes, shown[:, None], score=score)
        return {"error": 100 * (1 - right.mean()), "empty": 100 * np.isnan(shares).mean()}

    return trial


def section(rows: list[trials.Row], arms: dict[str, Arm] = ARMS) -> str:
    """What the page says."""
    keys = {"error": "error %", "empty": "empty maps %"}
    return trials.table(rows, list(arms), keys, [name for name in ("cross-entropy", "both views") if name in arms])


if __name__ == "__main__":
    trials.main(__file__, __doc__, ARMS, CANDIDATES, SETTINGS, of_seed, section)

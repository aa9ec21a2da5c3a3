"""Whether a student learns more from its teacher's maps, where few pictures are labelled.

    python tests/benchmarks/experiments/distillation.py [--seeds 0 1 ...] [--weigh]

The teacher is the embedded `mini_resnet`, which sees the scenes in 64 x 64 pixels; the student, a quarter of it, sees
the same scenes in 32 x 32. Its loss is the cross-entropy, or with "KD" (1 - a) of it and a T² of the divergence from
the teacher's softened probabilities of the classes that are taught (Hinton et al. 2015), and with a map b times the
squared distance of the two maps of the true class, each divided by its maximum, summed over the 8 x 8 positions of the
student's. What the teacher says of the training set is worked out once for a seed.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import trials
from lessons import CLASSES, SIZE, UNSEEN, drawn
from student import Student, batches, cross_entropy, outcome, trained

from jaxcam import learning, maps, models, scenes
from jaxcam.tables import markdown

NUM, NUM_STEPS, NUM_TESTED, RATE, TEMPERATURE = 300, 300, 600, 2e-2, 4.0
SETTINGS = {"num": NUM, "num_steps": NUM_STEPS, "num_tested": NUM_TESTED, "rate": RATE, "temperature": TEMPERATURE}
Arm = tuple[str | None, float, float]
"""The method of the maps, a and b."""
ARMS: dict[str, Arm] = {
    "cross-entropy": (None, 0.0, 0.0),
    "KD": (None, 0.5, 0.0),
    "Grad-CAM": ("grad_cam", 0.0, 0.03),
    "Grad-CAM++": ("grad_cam_pp", 0.0, 0.03),
    "KD + Grad-CAM++": ("grad_cam_pp", 0.5, 0.03),
}
PUBLISHED = {"cross-entropy": 6.78, "KD": 5.68, "Grad-CAM": 6.86, "Grad-CAM++": 6.74, "KD + Grad-CAM++": 5.56}
"""Chattopadhay et al. 2018, section 6: errors on CIFAR-10 in percent."""
CANDIDATES: dict[str, Arm] = {
    "cross-entropy": (None, 0.0, 0.0),
    **{f"KD, a = {a}": (None, a, 0.0) for a in (0.5, 0.9)},
    **{f"{method}, b = {b}": (method, 0.0, b) for method in ("grad_cam", "grad_cam_pp") for b in (0.03, 0.3)},
}


def loss(model: Student, data: Any, places: Any, numbers: Any, *, method: str | None) -> Any:
    """Of a batch."""
    pictures, labels, said, cam_maps = (each[places] for each in data)
    a, b = numbers
    if method is None:
        logits, apart = model(pictures), 0.0
    else:
        logits, own = learning.forward(model, pictures, labels, method=method)
        apart = jax.vmap(partial(learning.distillation, normalise=True))(own, cam_maps).mean()
    log_p, log_q = (jax.nn.log_softmax(each / TEMPERATURE) for each in (logits, said))
    divergence = (jnp.exp(log_q) * (log_q - log_p)).sum(-1).mean()
    return (1 - a) * cross_entropy(logits, labels) + a * TEMPERATURE**2 * divergence + b * apart


LOSSES = {method: partial(loss, method=method) for method in (None, "grad_cam", "grad_cam_pp")}


@partial(jax.jit, static_argnames="method")
def told_by(teacher: Any, inputs: Any, labels: Any, method: str) -> tuple[Any, Any]:
    """The teacher's logits of the classes that are taught, and its maps of the true ones on the student's grid."""
    known = jnp.asarray([scenes.CLASS_NAMES.index(name) for name in CLASSES])
    logits, cam_maps = learning.forward(teacher, inputs, known[labels], method=method)
    return logits[:, known], jax.vmap(lambda one: maps.resized(one, (SIZE // 4, SIZE // 4)))(cam_maps)


def of_seed(seed: int) -> Any:
    """A training set and what the teacher says of it; then, for an arm, the student's figures."""
    pictures, labels, _ = drawn(seed, NUM)
    unseen, classes, figures = drawn(UNSEEN, NUM_TESTED)
    teacher = models.mini_resnet()
    large = teacher.preprocessing.normalise(drawn(seed, NUM, size=2 * SIZE)[0])
    told = {method: told_by(teacher, large, labels, method) for method in ("grad_cam", "grad_cam_pp")}

    def trial(arm: Arm) -> dict[str, float]:
        method, *numbers = arm
        student = Student(CLASSES, size=SIZE, seed=seed)
        normalise = student.preprocessing.normalise
        data, order = (normalise(pictures), labels, *told[method or "grad_cam"]), batches(seed, NUM, NUM_STEPS)
        weights = np.asarray(numbers, np.float32)
        student = trained(student, LOSSES[method], data, order, weights, rate=RATE, num=NUM_STEPS)
        right, shares = outcome(student, normalise(unseen), classes, figures[:, None])
        return {"error": 100 * (1 - right.mean()), "energy": 100 * np.nanmean(shares), "empty": np.isnan(shares).sum()}

    return trial


def section(rows: list[trials.Row], arms: dict[str, Arm] = ARMS) -> str:
    """What the page says."""
    others = [name for name in ("cross-entropy", "KD", "Grad-CAM") if name in arms]
    published = [["CIFAR-10, published, one seed each", *(f"{value:.2f}" for value in PUBLISHED.values())]]
    return "\n\n".join([
        trials.table(rows, list(arms), {"error": "error %"}, others),
        trials.table(rows, list(arms), {"energy": "energy in the figure %"}, others[:1]),
        markdown(["error %", *PUBLISHED], published),
    ])  # fmt: skip


if __name__ == "__main__":
    trials.main(__file__, __doc__, ARMS, CANDIDATES, SETTINGS, of_seed, section)

"""Published protocols on a picture of 2 x 6 pixels that is worked out by hand, and the ledger that lists them."""

import dataclasses
import inspect
import math
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import Protocol
from jaxcam.evaluation import ledger
from jaxcam.evaluation.ledger import PUBLISHED
from jaxcam.images import Preprocessing

evaluate = partial(inspect.unwrap(jaxcam.evaluate), show_progress=False, num_resamples=0)

# Columns of .4, .4, 1, 1, .4, .4 (102 and 255 of 255). Pixels are normalised to 2 p - 1; the one channel is the mean p
# of each 2 x 2 block, A = [.4, 1, .4]; the logits are [4 m, 2 m + 1] with m = mean(A), so that p_0 = s(2 m - 1) with
# the sigmoid s. For the picture m = .6: p_0 = s(.2), the prediction is 0; the label is 1, with p_1 = s(-.2).
PICTURE = np.tile(np.float32([0.4, 0.4, 1, 1, 0.4, 0.4])[:, None], (2, 1, 1))


class Model:
    """Two halves, so that it is cut between them."""

    def features(self, images):
        pixels = (images + 1) / 2
        return pixels.reshape(-1, 1, 2, 3, 2, 1).mean((2, 4))

    def head(self, activations):
        m = activations.mean((1, 2, 3))
        return jnp.stack([4 * m, 2 * m + 1], 1)

    def __call__(self, images):
        return self.head(self.features(images))


def inverse(head, activations, class_idx):
    """A method with a bad map: hot where A is small."""
    del head, class_idx
    return 1.4 - activations[..., 0]


def s(x):
    return 1 / (1 + math.exp(-x))


# Grad-CAM's map is A, that of the other method [1, .4, 1]. A column between two positions has 3/4 of the nearer one.
# paper: L = [.4, .55, .85, .85, .55, .4] and [1, .85, .55, .55, .85, 1]; E = L p has the means
#     (.16 + .22 + .85) / 3 = .41 and (.4 + .34 + .55) / 3 = .43: the bad map wins.
# torch-cam: A - .4 = [0, .6, 0], L = [0, .25, .75, .75, .25, 0] and 1 - L; E = .5 + L (p - .5) has the means
#     (.5 + .475 + .875) / 3 = 1.85 / 3 and (.4 + .425 + .625) / 3 = 1.45 / 3: Grad-CAM wins, and the confidence rises.
# grad-cam package: L is divided by its maximum, .75, and 1 - L goes from .25 to 1: [0, 1/3, 1, 1, 1/3, 0] and 1 - that;
#     E has the means (.5 + .5 - .1/3 + 1) / 3 and (.4 + .5 - .2/3 + .5) / 3.
# shapley-cam: the same for the label, whose p_1 = s(1 - 2 m) falls where p_0 rises: the winner is the other one.
MEANS = {
    "paper": (0.41, 0.43),
    "torch_cam": (1.85 / 3, 1.45 / 3),
    "grad_cam_package": ((2 - 0.1 / 3) / 3, (1.4 - 0.2 / 3) / 3),
    "shapley_cam": ((2 - 0.1 / 3) / 3, (1.4 - 0.2 / 3) / 3),
}
WINNERS = {"paper": 1, "torch_cam": 0, "grad_cam_package": 0, "shapley_cam": 1}


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.sample(2)
def test_a_published_protocol_by_hand(name):
    net = jaxcam.adapt(Model(), preprocessing=Preprocessing(resize=None, crop=None, mean=(0.5,), std=(0.5,)))
    protocol = getattr(Protocol, name)()
    methods = {"Grad-CAM": "grad_cam", "inverse": inverse}
    found = evaluate(net, [(PICTURE, 1)], methods=methods, metrics=["confidence"], protocol=protocol)
    (row,) = found.rows()
    sign = -1 if name == "shapley_cam" else 1
    y = s(sign * 0.2)
    assert row["class_idx"] == (1 if name == "shapley_cam" else 0)
    assert row["y"] == pytest.approx(y, abs=1e-6)
    for method, mean in zip(methods, MEANS[name], strict=True):
        o = s(sign * (2 * mean - 1))
        assert row[f"{method}/o"] == pytest.approx(o, abs=1e-6)
        assert found[method, "average_drop"].value == pytest.approx(100 * max(0, y - o) / y, abs=1e-4)
        assert found[method, "absolute_drop"].value == pytest.approx(100 * max(0, y - o), abs=1e-4)
        assert found[method, "increase"].value == (100 if o > y else 0)
    winner = WINNERS[name]
    assert found.table.wins.value[winner, 1 - winner] == 100
    assert found.table.wins.value[1 - winner, winner] == 0


def test_epsilon_keeps_faint_maps_faint():
    # A map of 1e-8 / .6 A: with 1e-8 below, half of L by torch-cam: E = .5 + L (p - .5) has columns .5, .4875, .6875.
    faint = lambda head, activations, class_idx: activations[..., 0] * np.float32(1e-8 / 0.6)
    net = jaxcam.adapt(Model(), preprocessing=Preprocessing(resize=None, crop=None, mean=(0.5,), std=(0.5,)))
    for protocol, mean in ((Protocol.torch_cam(), 1.675 / 3), (Protocol.paper(), 0.41)):
        found = evaluate(net, [PICTURE], methods={"faint": faint}, metrics=["confidence"], protocol=protocol)
        (row,) = found.rows()
        assert row["faint/o"] == pytest.approx(s(2 * mean - 1), abs=1e-6)


def test_the_paper_is_the_default():
    assert Protocol.paper() == Protocol()


def test_the_ledger_has_every_preset_and_what_differs():
    assert [entry.name for entry in PUBLISHED] == ["paper", "torch_cam", "grad_cam_package", "shapley_cam"]
    text = str(ledger())
    for entry in PUBLISHED:
        assert entry.protocol == getattr(Protocol, entry.name)()
        assert entry.name in text
        assert entry.title in text
    lines = text.splitlines()
    for field in dataclasses.fields(Protocol):
        values = {getattr(entry.protocol, field.name) for entry in PUBLISHED}
        assert any(line.startswith(field.name) for line in lines) == (len(values) > 1), field.name
    assert max(map(len, lines)) <= 120

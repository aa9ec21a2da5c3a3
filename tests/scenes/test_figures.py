import math

import jax
import numpy as np
import pytest
from scipy.spatial import KDTree

from jaxcam.scenes import figures
from jaxcam.scenes.figures import CLASS_NAMES

SPAN = 2.6  # side of the square on which figures are measured


def grid(num: int):
    axis = (np.arange(num) + 0.5) / num * SPAN - SPAN / 2
    x, y = np.meshgrid(axis, axis)
    return x, y


compiled = jax.jit(figures.signed_distance)


def signed_distance(class_idx, x, y):
    """One program for each size of the grid serves all classes."""
    return np.asarray(compiled(np.int32(class_idx), x, y))


def segment_area(radius: float, chord_distance: float) -> float:
    angle = 2 * math.acos(chord_distance / radius)
    return radius**2 * (angle - math.sin(angle)) / 2


def crescent_area() -> float:
    chord = (1 - 0.8**2 + 0.45**2) / (2 * 0.45)  # from the middle of the large disc
    return math.pi - segment_area(1, chord) - (math.pi * 0.8**2 - segment_area(0.8, chord - 0.45))


def fish_area() -> float:
    lens = 2 * segment_area(0.89, 0.39)
    # The tail's upper half: from its tip (-0.3, 0) along the wedge to (-1, edge), the notch up to (-1, 0.4).
    edge = 0.6632 * 0.7 / 0.7485
    x, y = np.array([-0.3, -1.0, -1.0, -0.8]), np.array([0.0, edge, 0.4, 0.0])
    tail = float(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2 * 2
    # Counted twice: where the wedge's tip lies in the lens (whose end is at -0.52), by a fine Riemann sum.
    t = np.linspace(-0.52, -0.3, 20001)
    half = np.minimum(np.sqrt(0.89**2 - (t - 0.28) ** 2) - 0.39, -0.6632 * (t + 0.3) / 0.7485)
    return lens + tail - 2 * float(np.mean(np.maximum(half, 0)) * 0.22) - math.pi * 0.11**2


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", math.pi * 0.86**2),
        ("ring", math.pi * (0.92**2 - 0.50**2)),
        ("square", (2 * 0.76) ** 2),
        ("triangle", 3 * math.sqrt(3) * 0.55**2),
        ("star", 5 * 1.12 * 0.50 * math.sin(math.pi / 5)),
        ("cross", 2 * (2 * 0.96) * (2 * 0.29) - (2 * 0.29) ** 2),
        ("heart", 0.6**2 * (4 + math.pi)),  # a square and two half discs
        ("crescent", crescent_area()),
        ("arrow", 0.4 * 1.12 + (1.08 - 0.12) ** 2 * 0.5812 / 0.8137),
        ("fish", fish_area()),
    ],
)
def test_area_of_every_figure_is_that_of_its_geometry(name, area):
    x, y = grid(520)
    inside = signed_distance(CLASS_NAMES.index(name), x, y) < 0
    assert np.mean(inside) * SPAN**2 == pytest.approx(area, rel=3e-3)


@pytest.mark.parametrize("class_idx", range(len(CLASS_NAMES)))
def test_signed_distance_is_the_distance_to_the_edge_inside(class_idx):
    """Against a search: the distance of an inner point to the nearest of many points outside."""
    x, y = grid(130)
    d = signed_distance(class_idx, x, y)
    inner, outer = np.stack([x[d < 0], y[d < 0]], -1), np.stack([x[d >= 0], y[d >= 0]], -1)
    near, _ = KDTree(outer).query(inner[::7])
    # Never deeper than it is; exact where the outline is painted, except where two parts join (shallower).
    tolerance = 1.6 * SPAN / 130
    depth = -d[d < 0][::7]
    assert np.all(depth <= near + tolerance)
    assert np.mean(np.abs(depth - near)[near < 0.12] < tolerance) > 0.9


@pytest.mark.parametrize("class_idx", range(len(CLASS_NAMES)))
def test_figures_fit_their_circle(class_idx):
    x, y = grid(520)
    inside = signed_distance(class_idx, x, y) < 0
    reach = np.hypot(x, y)[inside].max()
    assert 0.85 < reach < 1.2


def test_figures_have_one_outline_each():
    """No two figures agree on 85 % of their union or more, in any of 36 turns."""
    x, y = grid(80)
    stack = []
    for angle in np.arange(36) * math.pi / 18:
        u, v = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        stack.append([signed_distance(c, u, v) < 0 for c in range(len(CLASS_NAMES))])
    turned = np.asarray(stack)
    for one in range(len(CLASS_NAMES)):
        for other in range(one):
            alone = turned[0, one][None]
            overlap = (alone & turned[:, other]).sum((1, 2)) / (alone | turned[:, other]).sum((1, 2))
            assert overlap.max() < 0.85, (CLASS_NAMES[one], CLASS_NAMES[other])

"""Instance recall by hand: three objects, of which the third has a quarter of the heat and a fourth no pixel."""

import re

import jax
import numpy as np
import pytest

from jaxcam import metrics

HEATMAP = np.asarray([[1.0, 0.0, 0.0, 0.4], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 0.0]]) * 3
BOXES = np.asarray([[0, 0, 1, 1], [1, 1, 3, 2], [2, 2, 4, 3], [2, 2, 2, 3]])
MASKS = np.zeros((4, 3, 4), bool)
MASKS[0, 0, 0] = MASKS[1, 1, 1:3] = MASKS[2, 2, 2:] = True
recall = jax.jit(metrics.instance_recall, static_argnames="threshold")
both = pytest.mark.parametrize("instances", [BOXES, MASKS], ids=["boxes", "masks"])


@both
def test_recall_by_hand(instances):
    heat = jax.jit(metrics.instance_heat)(HEATMAP, instances)
    np.testing.assert_allclose(heat, [1, 0.5, 0.25, np.nan], rtol=1e-15)
    thresholds = np.asarray([0.2, 0.25, 0.3, 0.5, 0.500001, 1.0])
    curve = jax.jit(metrics.instance_recall_curve)(HEATMAP, instances, thresholds)
    np.testing.assert_allclose(curve, np.asarray([3, 3, 2, 2, 1, 1]) / 3, rtol=1e-15)
    assert float(recall(HEATMAP, instances)) == pytest.approx(2 / 3)
    assert float(recall(HEATMAP, instances, threshold=0.25)) == 1


def test_the_area_under_the_curve_is_the_mean_heat():
    random = np.random.default_rng(0)
    heatmap, masks = random.random((6, 7)) ** 4, random.random((5, 6, 7)) < 0.1
    thresholds = (np.arange(4000) + 0.5) / 4000
    curve = jax.jit(metrics.instance_recall_curve)(heatmap, masks, thresholds)
    expected = [heatmap[mask].max() / heatmap.max() for mask in masks]
    assert float(curve.mean()) == pytest.approx(np.mean(expected), abs=1 / 4000)


def test_what_is_no_explanation_does_not_count():
    for heatmap in (np.zeros((3, 4)), np.full((3, 4), np.nan)):
        assert np.isnan(recall(heatmap, MASKS))
    assert np.isnan(recall(HEATMAP, MASKS & False))
    assert np.isnan(recall(HEATMAP, BOXES[:0]))
    series = np.asarray([0.0, 1.0, 0.2, 0.6])
    assert float(recall(series, np.asarray([[0, 2], [2, 4], [2, 3]]))) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("error", "instances", "options", "message"),
    [
        (TypeError, [[0, 0, 1, 1]], {}, "instances must be an array of masks or boxes, not list"),
        (ValueError, MASKS[0], {}, "instances must be masks [m, *grid] of the heatmap, [3, 4], or boxes"),
        (ValueError, np.zeros((2, 3)), {}, "boxes must be [m, 4]"),
        (ValueError, BOXES[:, :2], {}, "boxes must be [m, 4] on this grid"),
        (TypeError, MASKS.astype(np.uint8), {}, "instances must be bool where they are masks, not uint8"),
        (ValueError, BOXES, {"threshold": 0}, "threshold must"),
    ],
)
def test_wrong_instances_are_named(unchecked, error, instances, options, message):
    with pytest.raises(error, match=re.escape(message)):
        metrics.instance_recall(HEATMAP, instances, **options)

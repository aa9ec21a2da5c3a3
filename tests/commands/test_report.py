"""What the command makes of one picture: which classes have rows, which methods columns, and the scale of the maps."""

import numpy as np
import pytest

import jaxcam
from jaxcam import models
from jaxcam.commands.choices import Choice
from jaxcam.commands.report import Explained, Map, _columns, _grouped, _masking, _peaks, explained
from jaxcam.images.reading import read_picture


def found_with(maps, confidence):
    return np.asarray(maps, float), np.arange(len(maps)), np.asarray(confidence)


def test_classes_that_look_at_the_same_share_a_row():
    dog, cat = np.eye(4), np.eye(4)[::-1]
    # Two breeds of the dog, the cat, one more breed, a trace of the cat, nothing much somewhere else.
    maps = [dog, 0.9 * dog + 0.05, 0.5 * cat, dog + 0.1 * cat, 0.3 * cat, 0.1 * np.ones((4, 4)) * np.arange(4)]
    found = found_with(maps, [0.6, 0.3, 0.003, 0.05, 0.002, 0.02])
    assert _grouped(*found) == {0: [1, 3], 2: []}  # 4 is like 2, but too unlikely to be named
    # What has little heat, or hardly any confidence, has no row of its own.
    assert _grouped(*found_with(maps, [0.6, 0.3, 0.0005, 0.05, 0.0001, 0.02])) == {0: [1, 3]}
    assert _grouped(*found_with([np.zeros((4, 4)), dog], [0.9, 0.1])) == {0: [], 1: []}


def test_maps_share_a_scale_and_columns():
    np.testing.assert_allclose(_peaks(np.array([[1.0, 4.0], [2.0, 1.0], [0.0, 0.0]]), 100), [1, 0.5, 0])
    np.testing.assert_allclose(_peaks(np.zeros((2, 3)), 100), [1, 1])
    choices = [Choice(name, name, {}) for name in ("grad_cam", "layer_cam", "cam", "guided_backprop")]

    def one(value, gradient=None):
        return Map(np.full((2, 2), value), 1.0, 0.5, jaxcam.Status.OK, gradient)

    entry = Explained("a", (), 1.0, dict(zip(
        [each.row for each in choices], [one(0.5), one(0.51), one(0.501), one(0.5, np.ones((2, 2, 3)))], strict=True
    )))  # fmt: skip
    columns = [[each.method for each in column] for column in _columns(choices, [entry])]
    assert columns == [["grad_cam", "cam"], ["layer_cam"], ["guided_backprop"]]


@pytest.mark.thorough
def test_e_is_of_the_first_method_and_peaks_are_shares_of_the_highest(picture):
    model, seen = models.mini_resnet(), read_picture(picture)
    options = {"class_idx": None, "layer": None, "top": 2, "size": 128, "told": lambda: None}
    choices = [Choice(name, name, {}) for name in ("layer_cam", "grad_cam_pp")]
    found = explained(model, seen, choices=choices, **options)
    assert _masking(found).method == "layer_cam"
    # One scale: the raw maps' peaks, as shares of the highest.
    view = model.preprocessing.view(np.asarray(seen, np.float32) / 255)
    raw = jaxcam.explain(model, model.preprocessing.normalise(view)[None], method="layer_cam", top=2).cam_map[0]
    peaks = np.asarray(raw).max((1, 2))
    drawn = [entry.maps["layer_cam"].peak for entry in found.classes]
    np.testing.assert_allclose(drawn, peaks / peaks.max(), rtol=1e-5)

"""Captions: each word stands over the overlay of its own map, in order, and the picture before them."""

import numpy as np
import pytest

from jaxcam.pictures import caption, overlay
from jaxcam.pictures.lettering import LIGHT, Lettering

RNG = np.random.default_rng(0)
IMAGE, HEATS = RNG.integers(0, 256, (96, 96, 3)) / 255, RNG.random((5, 96, 96))
WORDS = ("two", "red", "hearts")
OPTIONS = {"cell_size": 96, "scale": 1}


def places(page, part):
    """Where a part lies on the page, [y, x] of its corner."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(page), part.shape)[:, :, 0]
    corner = (windows[..., 0, :4, :] == part[0, :4]).all((-1, -2))  # few are left to compare
    return [[y, x] for y, x in np.argwhere(corner) if (windows[y, x] == part).all()]


def overlays():
    return [np.asarray(overlay(IMAGE, heat)) for heat in HEATS]


def heading(word):
    return np.asarray(Lettering(1.0, None, LIGHT).block(word, 96, (13, "text"), align="centre"))


def test_every_word_stands_over_its_map():
    page = caption(IMAGE, HEATS, WORDS, **OPTIONS)
    picture = np.rint(IMAGE * 255).astype(np.uint8)
    (first,), *maps = (places(page, part) for part in (picture, *overlays()))
    assert [len(found) for found in maps] == [1, 1, 1, 0, 0]  # behind the last word there are pads
    corners = np.array([first, *(found[0] for found in maps[:3])])
    assert len(set(corners[:, 0])) == 1
    assert (np.diff(corners[:, 1]) == 104).all()
    for word, (top, left) in zip(WORDS, corners[1:], strict=True):
        ((y, x),) = places(page, heading(word))
        assert y + heading(word).shape[0] <= top
        assert left <= x <= left + 96


def test_long_sentences_are_broken_into_rows():
    page = caption(IMAGE, HEATS, [*WORDS, "and", "stars"], columns=3, **OPTIONS)
    corners = np.array([places(page, part)[0] for part in overlays()])
    tops = sorted(set(corners[:, 0]))
    assert [tops.index(top) for top in corners[:, 0]] == [0, 0, 1, 1, 1]  # the picture comes first
    assert tops[1] - tops[0] == caption(IMAGE, HEATS, WORDS[:2], **OPTIONS).height
    lefts = sorted(set(corners[:, 1]))
    assert [lefts.index(left) for left in corners[:, 1]] == [1, 2, 0, 1, 2]


def test_notes_stand_below():
    plain = caption(IMAGE, HEATS, WORDS, **OPTIONS)
    noted = caption(IMAGE, HEATS, WORDS, notes=["98 %", "7 %", ""], **OPTIONS)
    added = np.asarray(noted)[plain.height - 20 :]  # a line is added, below
    assert noted.height > plain.height
    lefts = [places(noted, part)[0][1] for part in overlays()[:3]]
    inked = [(added[:, left : left + 96] < 200).any() for left in lefts]
    assert inked == [True, True, False]


def test_a_dark_page():
    page = np.asarray(caption(IMAGE, HEATS, ["a"] * 5, columns=3, dark=True, **OPTIONS))
    assert (page[[0, -1]] < 60).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ((IMAGE, HEATS, "two red"), {}, TypeError, r"words must be a sequence .* use words.split\(\)"),
        ((IMAGE, HEATS, []), {}, ValueError, "words must be 1 to 5, as there are heatmaps, but are 0"),
        ((IMAGE, HEATS[:2], WORDS), {}, ValueError, "words must be 1 to 2"),
        ((IMAGE, HEATS, WORDS), {"notes": ["a"]}, ValueError, "notes must be one string for each of the 3 words"),
        ((IMAGE, HEATS, WORDS), {"columns": 1}, ValueError, "columns must be"),
        ((IMAGE, HEATS[0], WORDS), {}, ValueError, r"heatmaps must have shape \[m, h, w\]"),
        ((IMAGE, HEATS * 2, WORDS), {}, ValueError, "heatmaps must lie in"),
        ((IMAGE[0], HEATS, WORDS), {}, ValueError, "image must"),
        ((IMAGE, HEATS, WORDS), {"style": "gray"}, ValueError, "style must be one of"),
    ],
)
def test_what_is_no_caption(given, options, error, message):
    with pytest.raises(error, match=message):
        caption(*given, **options)

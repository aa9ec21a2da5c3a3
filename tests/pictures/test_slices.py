"""Volumes and clips by hand: the slices through a maximum that is known, frames that are known, and what moves."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

import jaxcam
from jaxcam.images.picture import to_pillow
from jaxcam.pictures import clip, frames, montage, overlay, volume
from jaxcam.pictures.slices import clip_cells, evenly, volume_cells

RNG = np.random.default_rng(0)
SHAPE = (6, 8, 10)
HOT = (4, 2, 7)


def values_and_heat():
    heat = RNG.random(SHAPE) / 2
    heat[HOT] = 1
    return RNG.random(SHAPE), heat


def grey(values):
    return np.repeat(values[..., np.newaxis], 3, axis=-1)


def test_slices_go_through_the_maximum():
    values, heat = values_and_heat()
    cells = volume_cells(values, heat, longest=320)
    assert [cell.caption for cell in cells] == ["D = 4", "H = 2", "W = 7"]
    for axis, cell in enumerate(cells):
        own = to_pillow(grey(values.take(HOT[axis], axis))).resize(cell.image.size, Image.Resampling.BICUBIC)
        expected = np.asarray(overlay(np.asarray(own) / 255, heat.take(HOT[axis], axis))).astype(int)
        found = np.asarray(cell.image).astype(int)
        marks = (found == (0, 210, 255)).all(-1)
        assert np.abs(found[~marks] - expected[~marks]).max() <= 1  # rounding
        # The marks point at the voxel: the middle of its share of the picture.
        down, across = (i for i in range(3) if i != axis)
        rows, columns = (np.flatnonzero(marks[:, 0]), np.flatnonzero(marks[0]))
        size = found.shape
        assert abs(rows.mean() - (HOT[down] + 0.5) / SHAPE[down] * size[0]) <= 1
        assert abs(columns.mean() - (HOT[across] + 0.5) / SHAPE[across] * size[1]) <= 1


def test_another_place_can_be_chosen():
    values, heat = values_and_heat()
    cells = volume_cells(values, heat, longest=10, at=(0, 7, 9))
    assert [cell.caption for cell in cells] == ["D = 0", "H = 7", "W = 9"]


def test_the_panel_of_a_volume_holds_its_slices():
    values, heat = values_and_heat()
    page = np.asarray(volume(values, heat, cell_size=100, scale=1))
    first = np.asarray(volume_cells(values, heat, longest=100)[0].image)
    found = [
        (y, x)
        for y in range(page.shape[0] - first.shape[0])
        for x in range(page.shape[1] // 3)
        if (page[y, x] == first[0, 0]).all() and (page[y : y + len(first), x : x + first.shape[1]] == first).all()
    ]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("size", "num", "hottest", "expected"),
    [
        (10, 4, 0, [0, 3, 6, 9]),
        (10, 4, 4, [0, 4, 6, 9]),
        (10, 4, 8, [0, 3, 6, 8]),
        (3, 8, 1, [0, 1, 2]),
        (1, 8, 0, [0]),
        (9, 1, 5, [5]),
    ],
)
def test_slices_at_even_distances_with_the_hottest(size, num, hottest, expected):
    heat = np.zeros((size, 2, 2))
    heat[hottest, 1, 0] = 0.5
    assert evenly(heat, num) == expected


def test_a_montage_along_an_axis():
    values, heat = values_and_heat()
    scale = {"cell_size": 48, "scale": 1}
    page = montage(values, heat, axis=1, num=5, columns=3, **scale)
    # Two rows of three, of which the last is white: a line through the second row.
    row = np.asarray(page)[-20 - 15 - 20]
    assert [bool((row[x : x + 48] == 255).all()) for x in (20, 76, 132)] == [False, False, True]
    swapped = montage(np.moveaxis(values, 1, 0), np.moveaxis(heat, 1, 0), num=5, columns=3, **scale)
    # The same pictures under other names: captions are all that differs.
    differs = (np.asarray(page) != np.asarray(swapped)).any(-1)
    assert 0 < differs.mean() < 0.02


def test_frames_are_overlays_by_one_scale():
    values, heat = 4 * RNG.random((5, 6, 7)) - 3, RNG.random((5, 6, 7))
    unit = (values - values.min()) / (values.max() - values.min())
    for i, found in enumerate(frames(values, heat, colormap="viridis", alpha=0.3)):
        expected = np.asarray(overlay(grey(unit[i]), heat[i], colormap="viridis", alpha=0.3)).astype(int)
        assert np.abs(np.asarray(found).astype(int) - expected).max() <= 1  # rounding


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (np.array([0, 51, 255], np.uint8), {}, [0, 51, 255]),  # n / 255
        (np.array([0.25, 0.5, 1.0]), {}, [64, 128, 255]),  # as they are
        (np.array([-1.0, 0.0, 3.0]), {}, [0, 64, 255]),  # from the lowest to the highest
        (np.array([100, 300, 500], np.int16), {"limits": (200, 400)}, [0, 128, 255]),  # a window
        (np.array([7.0, 7.0, 7.0]), {}, [0, 0, 0]),
        (np.array([[0.0, 0.2, 0.4, 0.6]] * 3), {}, [76, 76, 76]),  # the mean of four channels
        (np.array([True, False, True]), {}, [255, 0, 255]),
    ],
)
def test_what_numbers_are_drawn_as(values, options, expected):
    # [1, 1, 3] or [1, 1, 3, d]; transparent heat.
    picture = frames(values[np.newaxis, np.newaxis], np.zeros((1, 1, 3)), style="colour", **options)[0]
    np.testing.assert_allclose(np.asarray(picture)[0, :, 0], expected, atol=1)


def test_colours_stay_colours():
    values = RNG.random((2, 3, 4, 3))
    for found, one in zip(frames(values, np.zeros((2, 3, 4)), style="colour"), values, strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.rint(255 * one.astype(np.float32)).astype(int))


def test_a_strip_of_one_frame_and_a_volume_of_one_slice():
    values, heat = RNG.random((1, 20, 30)), np.zeros((1, 20, 30))
    assert [cell.caption for cell in clip_cells(values, heat, num=8, longest=30)] == ["frame 0"]
    cells = volume_cells(values, heat, longest=64)
    assert [cell.image.size for cell in cells] == [(64, 43), (64, 2), (64, 3)]
    # From the side it is a slit: no marks hide it.
    assert not (np.asarray(cells[1].image)[:, 32] == (0, 210, 255)).all(-1).any()


def test_an_animated_webp_has_the_frames(tmp_path):
    heat = np.zeros((5, 32, 48))
    for k in range(5):
        heat[k, :, 8 * k : 8 * k + 12] = 1
    drawn = frames(RNG.random((32, 48))[np.newaxis] * np.ones((5, 1, 1)), heat, size=96)
    assert drawn[0].size == (96, 64)
    jaxcam.save(drawn, tmp_path / "clip.webp", fps=7)
    with Image.open(io.BytesIO((tmp_path / "clip.webp").read_bytes())) as moving:
        assert (moving.n_frames, moving.size, moving.info["loop"]) == (5, (96, 64), 0)
        ends = []
        for k in range(5):
            moving.seek(k)
            moving.load()
            error = [np.abs(np.asarray(moving.convert("RGB")).astype(int) - np.asarray(one)).mean() for one in drawn]
            assert int(np.argmin(error)) == k
            assert error[k] < 8 < min(e for i, e in enumerate(error) if i != k)
            ends.append(moving.info["timestamp"] + moving.info["duration"])
    assert ends == [round(1000 * (k + 1) / 7) for k in range(5)]  # milliseconds, without drift


def test_pictures_that_cannot_move(tmp_path):
    a, b = Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))
    with pytest.raises(ValueError, match=r"2 pictures that move to .*end the name in \.webp"):
        jaxcam.save([a, a], tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"one size but are 2 of sizes \[\(4, 4\), \(5, 4\)\]"):
        jaxcam.save([a, b], tmp_path / "x.webp")
    with pytest.raises(ValueError, match="one or more of one size but are 0"):
        jaxcam.save([], tmp_path / "x.webp")
    with pytest.raises(ValueError, match="fps must be above 0"):
        jaxcam.save([a, a], tmp_path / "x.webp", fps=0)
    jaxcam.save([a], tmp_path / "x.png")  # one does not move
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


VALUES, HEAT = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("draw", [volume, montage, clip, frames])
@pytest.mark.parametrize(
    ("values", "heat", "options", "error", "message"),
    [
        (np.zeros((1, 2, 3, 4, 1)), HEAT, {}, ValueError, r"pass one of the batch, values\[0\]"),
        (VALUES[0], HEAT, {}, ValueError, "values must be"),
        (VALUES, HEAT[:1], {}, ValueError, r"heatmap must have the size of values, \[2, 3, 4\]"),
        (VALUES, HEAT[0], {}, ValueError, "heatmap must have shape"),
        (VALUES, HEAT - 1, {}, ValueError, "must lie in"),
        (VALUES + np.inf, HEAT, {}, ValueError, "finite but holds 24 values"),
        (VALUES, HEAT, {"limits": (1, 0)}, ValueError, r"limits\[1\] must be above 1"),
        (VALUES, HEAT, {"limits": "ab"}, ValueError, "limits must be two numbers"),
        (VALUES.tolist(), HEAT, {}, TypeError, "concrete array"),
    ],
)
def test_what_is_no_volume(draw, values, heat, options, error, message):
    with pytest.raises(error, match=message):
        draw(values, heat, **options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"at": (0, 3, 0)}, ValueError, "at must be .* but is 3"),
        ({"at": (0, 1)}, ValueError, "at must be three indices"),
        ({"at": (0, 1.0, 0)}, TypeError, "at must be an integer"),
    ],
)
def test_places_outside_of_a_volume(options, error, message):
    with pytest.raises(error, match=message):
        volume_cells(VALUES, HEAT, longest=9, **options)


def test_numbers_that_are_out_of_range():
    for draw, options in ((montage, {"axis": 3}), (montage, {"num": 0}), (clip, {"num": 0}), (frames, {"size": 0})):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            draw(VALUES, HEAT, **options)


def test_nothing_is_drawn_inside_jit():
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda x: frames(x, HEAT))(VALUES)

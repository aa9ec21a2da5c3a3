"""Series by hand: which pixel shows which point's heat, and where the curve runs."""

import itertools

import numpy as np
import pytest

from jaxcam.pictures import colour_map, series
from jaxcam.pictures.charts import columns

WIDTH, SCALE = 300, 1
LEFT = 32 + 5  # at scale 1: room for the labels, and a gap
ROOM = WIDTH - LEFT


def pixels(values, heat, **options):
    return np.asarray(series(values, heat, width=WIDTH, scale=SCALE, **options)).astype(int)


def colours_of(heat):
    return np.rint(255 * colour_map(np.asarray(heat, np.float64)[np.newaxis])[0]).astype(int)


def test_each_point_has_its_share_of_the_width():
    heat = np.array([0.0, 0.25, 1.0, 0.5])
    found = pixels(np.array([1.0, 2.0, 5.0, 3.0]), heat)
    # 263 pixels, 65.75 for each point; a row of the lane's edge, which the curve does not reach.
    at = [LEFT + int((i + share) * ROOM / 4) for i in range(4) for share in (0.02, 0.5, 0.97)]
    np.testing.assert_array_equal(found[1, at], np.repeat(colours_of(heat), 3, axis=0))


def test_the_curve_runs_through_the_points():
    # A lane of 110 pixels: a tenth is air above the highest value and below the lowest.
    values = np.array([0.0, 10.0, 10.0, 5.0, 0.0])
    found = pixels(values, np.zeros(5))
    for i, value in enumerate(values):
        x, y = LEFT + (i + 0.5) * ROOM / 5, 110 * (0.9 - 0.8 * value / 10)
        rows = np.flatnonzero(found[:110, int(x)].min(axis=1) > 128)  # white on black
        assert abs(rows.mean() + 0.5 - y) < 1
    assert (found[:5, LEFT:] < 30).all()


def test_of_many_points_in_a_pixel_the_hottest_is_seen_and_the_extremes_are():
    heat, values = np.zeros(10_000), np.zeros(10_000)
    heat[7003], values[7003], values[2001] = 1, 1, -1
    found = pixels(values, heat)
    x = LEFT + 7003 * ROOM // 10_000
    assert (found[105, LEFT:].argmax(axis=0) == x - LEFT).all()
    np.testing.assert_array_equal(found[105, x], colours_of([1.0])[0])
    assert (found[105, LEFT:].sum(axis=1) > 50).sum() == 1
    # One point in 38 of a pixel goes to the top, another to the bottom.
    high, low = (found[row, LEFT:].min(axis=1) > 100 for row in (11, 98))
    assert np.flatnonzero(high).tolist() == [7003 * ROOM // 10_000]
    low[x - LEFT] = False  # pale by its heat
    assert np.flatnonzero(low).tolist() == [2001 * ROOM // 10_000]


@pytest.mark.parametrize(("count", "width"), [(1, 5), (3, 7), (7, 7), (8, 7), (100, 7)])
def test_columns_are_a_maximum_over_what_falls_into_them(count, width):
    heat = np.random.default_rng(0).random(count)
    point_of = (np.arange(width) + 0.5) * count / width
    expected = [heat[int(p)] for p in point_of]
    if count > width:
        edges = [i * count // width for i in range(width + 1)]
        expected = [heat[a:b].max() for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(columns(heat, width), expected)


def test_channels_have_lanes_with_one_heat():
    heat = np.array([0.0, 1.0])
    values = np.array([[0.0, 5.0, -1e300], [1.0, 5.0, 1e300]])  # one of them constant, one overflows a difference
    found = pixels(values, heat)
    left = int((found[26] < 255).any(-1).argmax())  # long numbers need more room
    for lane in range(3):
        top = lane * (52 + 6)
        np.testing.assert_array_equal(found[top, [left + 30, left + 200]], colours_of(heat))
        assert found[top + 52 : top + 58, left + 30].min() == 255 or lane == 2
    middle = found[58 + 26, left + (WIDTH - left) // 4 + 2]
    assert middle.min() > 200  # the constant runs through the middle


def test_more_channels_than_are_drawn_are_told():
    values, heat = np.random.default_rng(0).random((6, 11)), np.zeros(6)
    few, some = (pixels(values, heat, max_channels=n) for n in (2, 11))
    assert few.shape[0] < some.shape[0]
    own = pixels(values[:, :2], heat)
    np.testing.assert_array_equal(few[: own.shape[0]], own)
    assert few[own.shape[0] :].min() < 200  # "and 9 more channels"


def test_names_stand_at_their_lanes():
    values, heat = np.random.default_rng(0).random((6, 2)), np.zeros(6)
    named, bare = pixels(values, heat, names=["", "ii"]), pixels(values, heat)
    assert named.shape == bare.shape
    changed = np.flatnonzero((named != bare).any(axis=(1, 2)))
    assert changed.min() > 58
    assert changed.max() < 110


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("values", "heat", "options", "error", "message"),
    [
        (np.zeros((1, 4, 2)), np.zeros(4), {}, ValueError, r"values must be \[t\] or \[t, d\] .*values\[0\]"),
        (np.zeros(4), np.zeros(5), {}, ValueError, r"heatmap must have the size of values, \[4\], but is \[5\]"),
        (np.zeros(4), np.zeros((4, 1)), {}, ValueError, r"heatmap must have shape \[t\]"),
        (np.zeros(4), np.full(4, 2.0), {}, ValueError, "must lie in"),
        (np.array([0, np.nan]), np.zeros(2), {}, ValueError, "finite but holds 1 values"),
        (np.zeros(0), np.zeros(0), {}, ValueError, "empty"),
        ([0.0, 1.0], np.zeros(2), {}, TypeError, "concrete array"),
        (np.array(["a", "b"]), np.zeros(2), {}, TypeError, "real numbers"),
        (np.zeros(4), np.zeros(4), {"names": ["a", "b"]}, ValueError, "names must be one for each of the 1 channels"),
        (np.zeros(4), np.zeros(4), {"width": 100}, ValueError, "width must be at least 160"),
        (np.zeros(4), np.zeros(4), {"colormap": "jet"}, ValueError, "'jet'"),
        (np.zeros(4), np.zeros(4), {"max_channels": 0}, ValueError, "max_channels"),
    ],
)
def test_what_is_no_series(values, heat, options, error, message):
    with pytest.raises(error, match=message):
        series(values, heat, **options)

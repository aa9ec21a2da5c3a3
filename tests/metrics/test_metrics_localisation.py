"""Metrics of heatmaps against masks and boxes: by hand, by plain loops, and by SciPy's distances and labels."""

import functools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcam import metrics
from jaxcam.metrics.localisation import heatmap_boxes_numpy
from jaxcam.metrics.pointing import dilated

NAN, INF = math.nan, math.inf


def grid(text, dtype=np.float64):
    """Rows of numbers, as they are seen."""
    return np.asarray([[float(v) for v in row.split()] for row in text.split("/")], dtype)


def mask_of(text):
    return grid(text) > 0


def random_case(seed, height=7, width=9):
    random = np.random.default_rng(seed)
    heatmap = np.maximum(random.normal(size=(height, width)), 0)
    return heatmap / heatmap.max(), random.uniform(size=(height, width)) < 0.3


@functools.cache
def compiled(f, **options):
    """In one piece: operation by operation, each would be a program of its own."""
    return jax.jit(partial(f, **options))


# --- Boxes -----------------------------------------------------------------------------------------------------------


def test_box_mask_by_hand():
    assert compiled(metrics.box_mask, size=(2, 3))(np.array([[0, 0, 2, 1]])).tolist() == [
        [True, True, False],
        [False] * 3,
    ]
    # The centres are at 0.5, 1.5, ...: 0.5 is the first, and belongs to a box that begins there, not to one that ends.
    assert compiled(metrics.box_mask, size=(1, 3))(np.array([[0.5, 0.0, 1.5, 1.0]])).tolist() == [[True, False, False]]
    assert compiled(metrics.box_mask, size=(1, 3))(np.array([[0.6, 0.0, 1.6, 1.0]])).tolist() == [[False, True, False]]
    # Out of the picture, without area, turned inside out, undefined.
    assert compiled(metrics.box_mask, size=(2, 2))(np.array([[-5.0, -5.0, INF, 99.0]])).all()
    nothing = np.array([[1.0, 0, 1, 2], [2, 0, 0, 2], [NAN, 0, 2, 2], [5, 5, 9, 9], [-4, 0, 0, 2]])
    assert not compiled(metrics.box_mask, size=(2, 2))(nothing).any()
    assert not compiled(metrics.box_mask, size=(2, 2))(np.zeros((0, 4))).any()


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_box_mask_is_the_loop(dtype):
    random = np.random.default_rng(0)
    for m in range(4):
        boxes = random.uniform(-3, 12, (m, 4)).astype(dtype)
        expected = [
            [any(x0 <= j + 0.5 < x1 and y0 <= i + 0.5 < y1 for x0, y0, x1, y1 in boxes) for j in range(9)]
            for i in range(7)
        ]
        assert compiled(metrics.box_mask, size=(7, 9))(boxes).tolist() == expected


def test_box_iou_by_hand():
    box = np.array([0, 0, 2, 2], np.int32)
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [1, 0, 2, 4], [2, 0, 4, 2], [5, 5, 6, 6], [-2, -2, 2, 2.5]])
    np.testing.assert_allclose(compiled(metrics.box_iou)(box, boxes), [1, 1 / 7, 2 / 6, 0, 0, 4 / 18])
    assert compiled(metrics.box_iou)(box, boxes[:0]).shape == (0,)
    # No area, of either.
    undefined = np.array([[1.0, 1, 1, 2], [2, 2, 0, 0], [2, 0, 0, 2], [0, 0, NAN, 1], [0, 0, INF, 1]])
    assert np.isnan(compiled(metrics.box_iou)(box, undefined)).all()
    assert np.isnan(compiled(metrics.box_iou)(np.zeros(4, np.int32), boxes)).all()
    assert np.isnan(compiled(metrics.box_iou)(np.array([2, 2, 0, 0]), boxes)).all()
    assert np.isnan(compiled(metrics.box_iou)(np.array([0, 0, NAN, 2]), boxes)).all()


def test_box_iou_counts_pixels():
    random = np.random.default_rng(1)
    for _ in range(20):
        corners = np.sort(random.integers(0, 9, (5, 2, 2)), axis=1).reshape(5, 4)
        box, *boxes = corners + np.array([0, 0, 1, 1])
        masks = [np.asarray(compiled(metrics.box_mask, size=(10, 10))(each[None])) for each in (box, *boxes)]
        expected = [(masks[0] & each).sum() / (masks[0] | each).sum() for each in masks[1:]]
        np.testing.assert_allclose(compiled(metrics.box_iou)(box.astype(np.int32), np.array(boxes)), expected)
        assert compiled(metrics.box_iou)(box.astype(np.int32), np.array(boxes, np.float32)).dtype == jnp.float32


# --- Loc and IoU -----------------------------------------------------------------------------------------------------

HEATMAP = grid("1 .5 / .2 0")
LEFT = mask_of("1 0 / 1 0")


def test_localisation_by_hand():
    # Above 0: two of the box's two, one outside; above 0.2: one and one; above 0.5: one and none.
    np.testing.assert_allclose(compiled(metrics.localisation)(HEATMAP, LEFT), 2 / 3)
    np.testing.assert_allclose(compiled(metrics.localisation, delta=0.2)(HEATMAP, LEFT), 1 / 3)
    np.testing.assert_allclose(compiled(metrics.localisation, delta=0.5)(HEATMAP, LEFT), 1 / 2)


def test_iou_by_hand():
    np.testing.assert_allclose(compiled(metrics.iou)(HEATMAP, LEFT), 1 / 2)
    np.testing.assert_allclose(compiled(metrics.iou, threshold=0.3)(HEATMAP, LEFT), 1 / 3)
    np.testing.assert_allclose(compiled(metrics.iou, threshold=0.1)(HEATMAP, LEFT), 2 / 3)
    # Of the maximum, not of 1.
    np.testing.assert_allclose(compiled(metrics.iou, threshold=0.3)(0.1 * HEATMAP, LEFT), 1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_loc_and_iou_are_the_loops(seed):
    heatmap, mask = random_case(seed)
    pixels = [(float(v), bool(m)) for v, m in zip(heatmap.ravel(), mask.ravel(), strict=True)]
    for level in (0.0, 0.25, 0.6):
        internal = sum(v > level and m for v, m in pixels)
        external = sum(v > level and not m for v, m in pixels)
        box = sum(m for _, m in pixels)
        either = sum(v > level or m for v, m in pixels)
        found = compiled(metrics.localisation, delta=level)(heatmap, mask)
        np.testing.assert_allclose(found, internal / (box + external))
        found = compiled(metrics.iou, threshold=level)(0.3 * heatmap, mask)
        np.testing.assert_allclose(found, internal / either)


# --- The box of a heatmap --------------------------------------------------------------------------------------------


def test_heatmap_box_by_hand():
    # Three connected pixels beat one that is higher; corners do not connect.
    heatmap = grid("1 0 0 0 / 0 .2 .2 0 / 0 .2 0 0")
    assert compiled(metrics.heatmap_box)(heatmap).tolist() == [1, 1, 3, 3]
    assert compiled(metrics.heatmap_box, fraction=0.3)(heatmap).tolist() == [0, 0, 1, 1]
    # Exactly the fraction belongs to it; two of the same size: the first in reading order, whatever its height.
    half = compiled(metrics.heatmap_box, fraction=0.5)
    assert half(grid("0 .5 0 / 1 0 1 / .5 0 1")).tolist() == [0, 1, 1, 3]
    assert half(grid("0 0 1 / .5 0 0 / .5 0 .9 / 0 0 .9")).tolist() == [0, 1, 1, 3]
    assert half(grid("0 0 .9 / .5 0 .9 / .5 0 0 / 0 0 1")).tolist() == [2, 0, 3, 2]
    assert compiled(metrics.heatmap_box)(np.full((2, 3), 0.1)).tolist() == [0, 0, 3, 2]


def flooded_box(heatmap, fraction):
    """The same by filling components one pixel after the other, in reading order."""
    height, width = heatmap.shape
    left = {(i, j) for i in range(height) for j in range(width) if heatmap[i, j] >= fraction * heatmap.max()}
    best = []
    while left:
        component = [min(left)]
        left.remove(component[0])
        for i, j in component:
            for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if near in left:
                    left.remove(near)
                    component.append(near)
        best = component if len(component) > len(best) else best
    rows, columns = zip(*best, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@pytest.mark.parametrize("seed", range(40))
def test_heatmap_box_is_the_flood(seed):
    # Small and sparse: components of the same size are common, and some wind back above their first pixel's row.
    heatmap = np.random.default_rng(seed).choice([0.0, 0.1, 0.2, 1.0], p=[0.4, 0.2, 0.2, 0.2], size=(6, 7))
    heatmap[0, seed % 7] = 1
    for fraction in (0.15, 0.5):
        assert compiled(metrics.heatmap_box, fraction=fraction)(heatmap).tolist() == flooded_box(heatmap, fraction)


def test_boxes_of_many_heatmaps_come_in_one_call():
    heatmaps = np.random.default_rng(0).uniform(size=(2, 3, 6, 7)) ** 8
    heatmaps[1, 0] = 0
    expected = [[flooded_box(each, 0.15) if each.any() else [0] * 4 for each in some] for some in heatmaps]
    assert heatmap_boxes_numpy(heatmaps, 0.15).tolist() == expected
    twice = jax.jit(jax.vmap(jax.vmap(metrics.heatmap_box)))
    assert twice(heatmaps).tolist() == expected
    assert twice(heatmaps).dtype == np.int32
    assert jax.jit(metrics.heatmap_box)(heatmaps[0, 1]).tolist() == expected[0][1]
    calls = str(jax.make_jaxpr(twice)(heatmaps))
    assert calls.count("pure_callback[") == 1
    assert "while" not in calls
    assert "scan" not in calls
    assert heatmap_boxes_numpy(np.zeros((0, 3, 4)), 0.15).shape == (0, 4)
    # Single precision: the threshold is rounded to the heatmap's type, so that equal numbers are equal.
    single = np.float32([[1, 0.15], [0, 0]])
    assert heatmap_boxes_numpy(single, 0.15).tolist() == [0, 0, 2, 1]
    half = jnp.asarray([[1, 0.5], [0, 0]], jnp.bfloat16)
    assert compiled(metrics.heatmap_box, fraction=0.5)(half).tolist() == [0, 0, 2, 1]


# --- Pointing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [
        *((9, 11, radius) for radius in (0.0, 1.0, 1.3, 2**0.5, 2.0, 5**0.5, 2.9, 5.0, 13.7, 1000.0)),
        *((1, 11, 2.0), (11, 1, 3.2), (1, 1, 0.0), (2, 7, 1.0)),
    ],
)
@pytest.mark.sample(3)
def test_dilation_is_the_distance_transform(height, width, radius):
    """Of many masks in one program; nothing is near to an empty one."""
    random = np.random.default_rng(0)
    masks = random.uniform(size=(60, height, width)) < random.choice([0.01, 0.05, 0.2], (60, 1, 1))
    # SciPy's distance to nothing is not infinite.
    expected = [(ndimage.distance_transform_edt(~mask) <= radius) & mask.any() for mask in masks]
    np.testing.assert_array_equal(jax.jit(jax.vmap(partial(dilated, radius=radius)))(masks), expected)
    assert not masks.any((1, 2)).all()


def test_dilation_at_the_size_of_a_picture():
    random = np.random.default_rng(0)
    mask = random.uniform(size=(120, 90)) < 0.001
    for radius in (15.0, 15 * 90 / 224, 29.0):
        expected = ndimage.distance_transform_edt(~mask) <= radius
        assert 0 < expected.mean() < 1
        np.testing.assert_array_equal(jax.jit(partial(dilated, radius=radius))(jnp.asarray(mask)), expected)


def test_pointing_game_by_hand():
    heatmap, mask = grid("1 .5 / 0 .5"), mask_of("0 0 / 0 1")
    distances = {0.0: 0, 1.0: 0, 1.4: 0, 1.5: 1, 15.0: 1}  # the maximum is sqrt(2) away
    for tolerance, expected in distances.items():
        assert float(compiled(metrics.pointing_game, tolerance=tolerance)(heatmap, mask)) == expected
    # Two pixels share the maximum, one hits.
    assert float(compiled(metrics.pointing_game, tolerance=0.0)(grid("1 .5 / 0 1"), mask)) == 0.5
    # 15 pixels by default, and no more.
    line, ends = np.arange(20)[None] == 0, np.eye(20, dtype=bool)[:, None]
    assert float(compiled(metrics.pointing_game)(1.0 * line, ends[15])) == 1
    assert float(compiled(metrics.pointing_game)(1.0 * line, ends[16])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_pointing_games_are_the_loops(seed):
    heatmap, mask = random_case(seed)
    heatmap = np.round(3 * heatmap) / 3
    pixels = [(i, j) for i in range(7) for j in range(9)]
    on, tops = [p for p in pixels if mask[p]], [p for p in pixels if heatmap[p] == heatmap.max()]
    for tolerance in (0.0, 1.0, 1.7):
        hits = [p for p in tops if any(math.dist(p, q) <= tolerance for q in on)]
        game = compiled(metrics.pointing_game, tolerance=tolerance)
        found = game(heatmap, mask)
        np.testing.assert_allclose(found, len(hits) / len(tops))
        # Flips change nothing, even where several pixels share the maximum.
        np.testing.assert_allclose(game(heatmap[::-1, ::-1], mask[::-1, ::-1]), found)
    energy = sum(float(heatmap[p]) for p in on) / sum(float(heatmap[p]) for p in pixels)
    np.testing.assert_allclose(compiled(metrics.energy_pointing_game)(heatmap, mask), energy)


def test_energy_pointing_game_by_hand():
    np.testing.assert_allclose(compiled(metrics.energy_pointing_game)(HEATMAP, LEFT), 1.2 / 1.7)
    assert float(compiled(metrics.energy_pointing_game)(HEATMAP, np.ones((2, 2), bool))) == 1


# --- Other numbers of axes -------------------------------------------------------------------------------------------


def test_boxes_of_series_and_volumes_by_hand():
    intervals = np.array([[1, 3], [4.5, 9]])
    found = compiled(metrics.box_mask, size=(6,))(intervals)
    assert found.tolist() == [False, True, True, False, True, True]  # the centre at 4.5 belongs to what begins there
    np.testing.assert_allclose(
        compiled(metrics.box_iou)(np.array([2, 6]), np.array([[1, 3], [4, 8], [7, 9]])), [0.2, 1 / 3, 0]
    )
    # x0, y0, z0, x1, y1, z1 of a volume [z, y, x].
    volume = np.zeros((4, 3, 5), bool)
    volume[1:3, 0:2, 2:5] = True
    box = np.array([[2, 0, 1, 5, 2, 3]])
    np.testing.assert_array_equal(compiled(metrics.box_mask, size=(4, 3, 5))(box), volume)
    assert compiled(metrics.heatmap_box)(1.0 * volume).tolist() == box[0].tolist()
    others = np.array([[2, 0, 1, 5, 2, 3], [3, 1, 2, 6, 3, 5], [2, 0, 3, 5, 2, 4]])
    np.testing.assert_allclose(compiled(metrics.box_iou)(box[0], others), [1, 2 / (12 + 18 - 2), 0])
    assert compiled(metrics.heatmap_box)(np.array([0, 0.2, 1, 0, 0.3, 0.4, 0.2])).tolist() == [4, 7]
    maps = np.stack([1.0 * volume, np.zeros(volume.shape)])
    assert heatmap_boxes_numpy(maps, 0.15, num_axes=3).tolist() == [box[0].tolist(), [0] * 6]


@pytest.mark.parametrize(("shape", "radii"), [((40,), (0.0, 1.0, 3.7, 100.0)), ((5, 6, 7), (0.0, 1.0, 1.5, 2.3, 50.0))])
def test_dilation_in_a_line_and_in_space_is_the_distance_transform(shape, radii):
    masks = np.random.default_rng(0).uniform(size=(20, *shape)) < 0.03
    dilate = lambda masks: [jax.vmap(partial(dilated, radius=radius))(masks) for radius in radii]
    for found, radius in zip(jax.jit(dilate)(masks), radii, strict=True):
        expected = [(ndimage.distance_transform_edt(~mask) <= radius) & mask.any() for mask in masks]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(63,), (3, 7, 3), (3, 1, 7, 3)])
def test_where_pixels_stand_does_not_matter_where_no_distance_does(shape):
    """A picture cut into rows one after the other, or laid in space, has the same figures."""
    heatmap, mask = random_case(3)

    @jax.jit
    def figures(heatmap, mask):
        of_a_mask = [OF_A_MASK["localisation"], metrics.iou, metrics.energy_pointing_game]
        return [f(heatmap, mask) for f in (*of_a_mask, partial(metrics.pointing_game, tolerance=0.0))]

    np.testing.assert_allclose(figures(heatmap.reshape(shape), mask.reshape(shape)), figures(heatmap, mask))


# --- The rules -------------------------------------------------------------------------------------------------------

OF_A_MASK = {
    "localisation": partial(metrics.localisation, delta=0.25),
    "iou": metrics.iou,
    "pointing_game": partial(metrics.pointing_game, tolerance=1.0),
    "energy_pointing_game": metrics.energy_pointing_game,
}


@pytest.mark.parametrize("name", OF_A_MASK)
def test_an_empty_mask_does_not_count(name):
    heatmap, mask = random_case(0)
    f = compiled(OF_A_MASK[name])
    assert np.isnan(f(heatmap, np.zeros_like(mask)))
    assert np.isnan(f(np.zeros_like(heatmap), np.zeros_like(mask)))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("name", OF_A_MASK)
def test_a_heatmap_that_is_not_finite_does_not_count(name, bad):
    heatmap, mask = random_case(0)
    for where in (np.argwhere(mask)[0], np.argwhere(~mask)[0]):
        broken = heatmap.copy()
        broken[tuple(where)] = bad
        assert np.isnan(compiled(OF_A_MASK[name])(broken, mask))
        assert compiled(metrics.heatmap_box)(broken).tolist() == [0, 0, 0, 0]


def test_a_heatmap_of_zeros():
    _, mask = random_case(0)
    zeros = np.zeros(mask.shape)
    for of_a_mask in OF_A_MASK.values():
        assert np.isnan(of_a_mask(zeros, mask))
    assert compiled(metrics.heatmap_box)(zeros).tolist() == [0, 0, 0, 0]
    assert compiled(metrics.heatmap_box)(zeros - 1).tolist() == [0, 0, 0, 0]
    share = (ndimage.distance_transform_edt(~mask) <= 1).mean()
    assert 0.3 < share < 1
    np.testing.assert_allclose(compiled(metrics.pointing_game, tolerance=1.0)(zeros + 0.5, mask), share)


@pytest.mark.parametrize("scale", [1e-200, 0.37, 2.0, 4e307])
def test_a_positive_factor_changes_nothing(scale):
    heatmap, mask = random_case(1)
    assert compiled(metrics.heatmap_box)(scale * heatmap).tolist() == flooded_box(np.asarray(heatmap), 0.15)
    for name in ("iou", "pointing_game", "energy_pointing_game"):
        f = compiled(OF_A_MASK[name])
        np.testing.assert_allclose(f(scale * heatmap, mask), f(heatmap, mask), rtol=1e-12)


# --- All -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_A_MASK)
def test_jit_is_eager_and_vmap_the_loop(name):
    f = OF_A_MASK[name]
    heatmaps, masks = (np.stack(each) for each in zip(*map(random_case, range(3)), strict=True))

    @jax.jit
    def both(heatmaps, masks):
        loop = [f(heatmap, mask) for heatmap, mask in zip(heatmaps, masks, strict=True)]
        one_mask = [f(heatmap, masks[0]) for heatmap in heatmaps]
        # Several heatmaps of one mask, as methods are compared.
        batches = jax.vmap(f)(heatmaps, masks), jax.vmap(f, in_axes=(0, None))(heatmaps, masks[0])
        return batches, (jnp.stack(loop), jnp.stack(one_mask))

    batches, loops = both(heatmaps, masks)
    np.testing.assert_allclose(batches, loops, rtol=1e-12)
    np.testing.assert_allclose(f(heatmaps[1], masks[1]), loops[0][1], rtol=1e-12)


def test_boxes_in_jit_and_vmap():
    boxes = np.random.default_rng(0).uniform(0, 6, (3, 5, 4))
    loop = [metrics.box_mask(each, (6, 7)).tolist() for each in boxes]
    assert jax.jit(jax.vmap(lambda b: metrics.box_mask(b, (6, 7))))(boxes).tolist() == loop
    ious = np.stack([metrics.box_iou(each[0], each) for each in boxes])
    np.testing.assert_allclose(jax.jit(jax.vmap(metrics.box_iou))(boxes[:, 0], boxes), ious)


@pytest.mark.parametrize("name", OF_A_MASK)
@pytest.mark.sample(2)
def test_the_type_is_kept(name):
    heatmap, mask = random_case(0, 20, 30)
    f = OF_A_MASK[name]
    types = {jnp.float32: 1e-6, jnp.bfloat16: 5e-3, jnp.float16: 1e-3}

    @jax.jit
    def outputs(maps, mask):
        return [(f(each, mask), f(each.astype(jnp.float64), mask)) for each in maps]

    for (found, expected), (dtype, tolerance) in zip(
        outputs([heatmap.astype(dtype) for dtype in types], mask), types.items(), strict=True
    ):
        assert found.dtype == dtype
        # Sums over many pixels do not lose digits.
        np.testing.assert_allclose(np.float64(found), expected, rtol=tolerance)
    plain = f(heatmap, mask)  # NumPy's arrays, eagerly
    np.testing.assert_allclose(plain, compiled(f)(jnp.asarray(heatmap), jnp.asarray(mask)), rtol=1e-12)


BOX, BOXES = np.array([0, 0, 1, 1]), np.array([[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        *[
            case
            for name, f in OF_A_MASK.items()
            for case in (
                (lambda f=f: f(HEATMAP, LEFT[:1]), ValueError, "mask must have the shape of heatmap"),
                (lambda f=f: f(HEATMAP, HEATMAP), TypeError, "mask must be a bool array .* not float64"),
                (lambda f=f: f(HEATMAP, [[True]]), TypeError, "mask must be a bool array .* not list"),
                (lambda f=f: f(HEATMAP[0, 0], LEFT[0, 0]), ValueError, r"heatmap must be \[\*grid\], of one example"),
                (lambda f=f: f(HEATMAP[:0], LEFT[:0]), ValueError, "heatmap is empty"),
                (lambda f=f: f(LEFT, LEFT), TypeError, r"heatmap .* floating .* bool"),
            )
        ],
        (lambda: metrics.localisation(HEATMAP, LEFT, delta=1.0), ValueError, r"delta .* 0 .* 1 .* 1.0"),
        (lambda: metrics.localisation(HEATMAP, LEFT, delta=-0.1), ValueError, r"delta .* 0 .* 1 .* -0.1"),
        (lambda: metrics.localisation(HEATMAP, LEFT, delta=HEATMAP), TypeError, r"delta .* array"),
        (lambda: metrics.iou(HEATMAP, LEFT, threshold=1), ValueError, r"threshold .* 0 .* 1 .* 1"),
        (lambda: metrics.iou(HEATMAP, LEFT, threshold=True), TypeError, r"threshold .* True"),
        (
            lambda: metrics.pointing_game(HEATMAP, LEFT, tolerance=-1),
            ValueError,
            r"tolerance .* 0 .* -1",
        ),
        (lambda: metrics.pointing_game(HEATMAP, LEFT, tolerance=INF), ValueError, r"tolerance .* inf"),
        (lambda: metrics.pointing_game(HEATMAP, LEFT, tolerance="15"), TypeError, r"tolerance .* '15'"),
        (lambda: metrics.heatmap_box(HEATMAP, fraction=0), ValueError, r"fraction .* 0 .* 1 .* 0"),
        (lambda: metrics.heatmap_box(HEATMAP, fraction=1.5), ValueError, r"fraction .* 0 .* 1 .* 1.5"),
        (lambda: metrics.heatmap_box(HEATMAP[0, 0]), ValueError, r"heatmap must be \[\*grid\]"),
        (lambda: metrics.heatmap_box(LEFT), TypeError, r"heatmap .* floating .* bool"),
        (lambda: heatmap_boxes_numpy(np.zeros(3), 0.1), ValueError, r"heatmaps must be \[..., \*grid\] with 2 axes"),
        (lambda: heatmap_boxes_numpy(np.zeros((5, 0, 3)), 0.1), ValueError, "heatmap is empty"),
        (lambda: metrics.box_mask([[0, 0, 1, 1]], (2, 2)), TypeError, "boxes must be an array .* not list"),
        (lambda: metrics.box_mask(BOX, (2, 2)), ValueError, r"boxes must be \[m, 4\]"),
        (lambda: metrics.box_mask(BOXES > 0, (2, 2)), TypeError, "boxes must be numbers"),
        (
            lambda: metrics.box_mask(BOXES, (2, 2, 3)),
            ValueError,
            r"size must be \(H, W\) for boxes \[1, 4\], but has 3",
        ),
        (lambda: metrics.box_mask(BOXES[:, :3], (2, 2)), ValueError, r"or \[m, 2 r\] on a grid with r axes"),
        (lambda: metrics.box_mask(BOXES, (2, 0)), ValueError, r"size .* 1 .* 0"),
        (lambda: metrics.box_mask(BOXES, (2, 2.0)), TypeError, r"size .* 2.0"),
        (lambda: metrics.box_iou(BOXES, BOXES), ValueError, r"box must be \[4\]"),
        (lambda: metrics.box_iou(BOX[:2], BOXES), ValueError, r"box must be \[4\], .* \[2\]"),
        (lambda: metrics.box_iou([0, 0, 1, 1], BOXES), ValueError, r"box must be \[4\],? .* list"),
        (lambda: metrics.box_iou(BOX, BOX), ValueError, r"boxes must be \[m, 4\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_answered(call, kind, says):
    with pytest.raises(kind, match=says):
        call()

"""Metrics of confidences, of maps alone and of pictures behind masks: by hand, by plain loops, and by SciPy."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from support import drawn, normal

import jaxcam
from jaxcam import metrics

NAN, INF = math.nan, math.inf


def array(*values, dtype=np.float64):
    return np.asarray(values, dtype)


def heatmaps(seed, *shape):
    """In [0, 1], with a maximum of 1 and some zeros."""
    raw = np.maximum(np.random.default_rng(seed).normal(size=shape), 0)
    return raw / raw.max((-2, -1), keepdims=True)


@functools.cache
def compiled(f, **options):
    """In one piece: operation by operation, each would be a program of its own."""
    return jax.jit(functools.partial(f, **options))


# --- Confidences -----------------------------------------------------------------------------------------------------

# By hand: falls of 1/2 and 1/4, an increase, a tie; then what does not count.
Y = array(0.8, 0.4, 0.5, 0.2, 0.0, -1.0, NAN, 0.5)
O = array(0.4, 0.3, 0.75, 0.2, 0.1, 0.5, 0.5, INF)  # noqa: E741


def test_relative_drop_by_hand():
    expected = [0.5, 0.25, 0, 0, NAN, NAN, NAN, NAN]
    np.testing.assert_allclose(compiled(metrics.relative_drop)(Y, O), expected, atol=1e-15)


def test_data_set_figures_by_hand():
    np.testing.assert_allclose(compiled(metrics.average_drop)(Y, O), 100 * 0.75 / 4)
    np.testing.assert_allclose(compiled(metrics.drop_in_deletion)(Y, O), 100 * 0.75 / 4)
    np.testing.assert_allclose(compiled(metrics.absolute_drop)(Y, O), 100 * 0.5 / 6)  # Y <= 0 counts there
    np.testing.assert_allclose(compiled(metrics.increase_in_confidence)(Y, O), 100 * 3 / 6)


def test_relative_and_absolute_drop_weigh_images_differently():
    # A tenth of an uncertain image weighs as much as half of a certain one only where it is relative.
    y, o = array(0.1, 1.0), array(0.05, 0.5)
    np.testing.assert_allclose(compiled(metrics.average_drop)(y, o), 50)
    np.testing.assert_allclose(compiled(metrics.absolute_drop)(y, o), 27.5)


def test_win_and_ties_by_hand():
    y = array(0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.5, NAN)
    a = array(0.4, 0.2, 0.7, 0.3, 0.9, NAN, 0.9, 0.9)
    b = array(0.3, 0.4, 0.6, 0.3, 0.1, 0.1, -INF, 0.1)
    # Both raise the confidence of the third: the one that raises it more wins.
    assert float(compiled(metrics.win)(a, b, y)) == 50
    assert float(compiled(metrics.win)(b, a, y)) == 25
    assert float(compiled(metrics.ties)(a, b, y)) == 25


def test_win_compares_without_rounding():
    """Y - O rounds to the same number for two O that differ; one of them wins all the same."""
    y, a, b = (array(v, dtype=np.float32) for v in (1.0, 2e-9, 1e-9))
    assert y - a == y - b
    assert float(compiled(metrics.win)(a, b, y)) == 100
    assert float(compiled(metrics.ties)(a, b, y)) == 0


# No subnormal numbers: a device may take them for zero.
confidences = st.one_of(st.floats(-0.5, 1, allow_subnormal=False), st.sampled_from([0.0, 0.5, NAN, INF, -INF]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(confidences, confidences, confidences), min_size=1, max_size=12))
def test_data_set_figures_are_the_loops(rows):
    finite = [(y, a, b) for y, a, b in rows if all(map(math.isfinite, (y, a, b)))]
    wins = [a > b for y, a, b in finite if y > 0]
    equal = [a == b for y, a, b in finite if y > 0]
    pairs = [(y, a) for y, a, _ in rows if math.isfinite(y) and math.isfinite(a)]
    drops = [max(0, y - a) / y for y, a in pairs if y > 0]
    falls, rises = [max(0, y - a) for y, a in pairs], [a > y for y, a in pairs]
    percent = lambda values: 100 * sum(values) / len(values) if values else NAN
    # Filled up with what does not count: one shape, one program.
    y, a, b = (array(*column) for column in zip(*rows, *(12 - len(rows)) * [(NAN, NAN, NAN)], strict=True))
    found = {name: float(value) for name, value in of_a_data_set(y, a, b).items()}
    np.testing.assert_allclose(found["win"], percent(wins))
    np.testing.assert_allclose(found["ties"], percent(equal))
    np.testing.assert_allclose(found["average_drop"], percent(drops), rtol=1e-12)
    np.testing.assert_allclose(found["drop_in_deletion"], percent(drops), rtol=1e-12)
    np.testing.assert_allclose(found["absolute_drop"], percent(falls), rtol=1e-12)
    np.testing.assert_allclose(found["increase_in_confidence"], percent(rises))
    np.testing.assert_allclose(found["win"] + found["defeat"] + found["ties"], 100 if wins else NAN)


@jax.jit
def of_a_data_set(y, a, b):
    drops = ("average_drop", "drop_in_deletion", "absolute_drop", "increase_in_confidence")
    comparisons = {"win": metrics.win(a, b, y), "defeat": metrics.win(b, a, y), "ties": metrics.ties(a, b, y)}
    return comparisons | {name: getattr(metrics, name)(y, a) for name in drops}


@pytest.mark.parametrize("name", ["average_drop", "absolute_drop", "increase_in_confidence", "drop_in_deletion"])
def test_nothing_counts(name):
    assert np.isnan(getattr(metrics, name)(array(NAN, INF), array(0.5, 0.5)))
    assert np.isnan(compiled(metrics.win)(array(0.5), array(0.4), array(0.0)))
    assert np.isnan(compiled(metrics.ties)(array(0.5), array(0.5), array(-1.0)))


def test_gradients_of_the_drop_are_finite():
    y, o = array(0.8, 0.0, 0.5), array(0.4, 0.1, 0.6)
    slopes = jax.grad(lambda y, o: jnp.nansum(compiled(metrics.relative_drop)(y, o)), argnums=(0, 1))(y, o)
    np.testing.assert_allclose(slopes[0], [0.4 / 0.64, 0, 0], atol=1e-15)  # d (1 - O / Y) / dY = O / Y^2
    np.testing.assert_allclose(slopes[1], [-1 / 0.8, 0, 0], atol=1e-15)


# --- Correlations ----------------------------------------------------------------------------------------------------


def test_pearson_by_hand():
    a = array(1, 2, 3, 4).reshape(2, 2)
    b = array(1, 3, 2, 4).reshape(2, 2)
    # Deviations (-3 -1 1 3)/2 and (-3 1 -1 3)/2: (9 - 1 - 1 + 9) / 20.
    np.testing.assert_allclose(compiled(metrics.pearson)(a, b), 0.8)
    np.testing.assert_allclose(compiled(metrics.rank_correlation)(a, b), 0.8)
    np.testing.assert_allclose(compiled(metrics.coherency)(a, b), 0.9)
    np.testing.assert_allclose(compiled(metrics.coherency)(a, -a), 0, atol=1e-15)
    # 16 in place of 4 changes Pearson's: deviations (-4.5 -2.5 -3.5 10.5), and not the ranks.
    c = array(1, 3, 2, 16).reshape(2, 2)
    np.testing.assert_allclose(compiled(metrics.pearson)(a, c), (6.75 + 1.25 - 1.75 + 15.75) / (5 * 149) ** 0.5)
    np.testing.assert_allclose(compiled(metrics.rank_correlation)(a, c), 0.8)


def test_ties_share_the_mean_of_their_ranks():
    # Ranks 1.5 1.5 3 4 against 1 2 3 4: deviations (-1 -1 .5 1.5) and (-1.5 -.5 .5 1.5).
    a, b = array(0, 0, 5, 9), array(1, 2, 3, 4)
    np.testing.assert_allclose(compiled(metrics.rank_correlation)(a, b), (1.5 + 0.5 + 0.25 + 2.25) / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize("seed", range(6))
def test_correlations_are_those_of_scipy(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, 7, 5, 3))
    b = 0.5 * a + b
    tied = np.round(2 * a), np.round(2 * b)
    for x, y in ((a, b), tied, (np.maximum(a, 0), np.maximum(b, 0)), (tied[0], b)):
        flat = x.ravel(), y.ravel()
        pearson, spearman = stats.pearsonr(*flat).statistic, stats.spearmanr(*flat).statistic
        np.testing.assert_allclose(compiled(metrics.pearson)(x, y), pearson, rtol=1e-12)
        np.testing.assert_allclose(compiled(metrics.rank_correlation)(x, y), spearman, rtol=1e-12)
        np.testing.assert_allclose(compiled(metrics.coherency)(x, y), (1 + pearson) / 2, rtol=1e-12)
        # Single precision keeps the exact ranks.
        single = [np.asarray(each, np.float32) for each in (x, y)]
        np.testing.assert_allclose(compiled(metrics.rank_correlation)(*single), spearman, atol=1e-6)


def test_a_constant_map_has_no_correlation():
    varied = np.asarray(normal(0, 5, 7))
    # 0.1 has no exact mean in either precision: its deviations are rounding errors, of which nothing may be made.
    for dtype in (np.float32, np.float64):
        for value in (0.0, 0.1, 1.0):
            flat = np.full((5, 7), value, dtype)
            for f in map(compiled, (metrics.pearson, metrics.rank_correlation, metrics.coherency)):
                assert np.isnan(f(flat, varied.astype(dtype)))
                assert np.isnan(f(varied.astype(dtype), flat))
                assert not np.isnan(f(varied, varied))


def test_correlations_do_not_overflow_or_underflow():
    a, b = np.asarray(normal(0, 9)), np.asarray(normal(1, 9))
    expected, pearson = stats.pearsonr(a, b).statistic, compiled(metrics.pearson)
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(pearson(scale * a, b), expected, rtol=1e-9)
        np.testing.assert_allclose(pearson(a, scale * b), expected, rtol=1e-9)


# --- Shape of a map --------------------------------------------------------------------------------------------------


def test_complexity_and_sparsity_by_hand():
    heatmap = array(1, 0.5, 0, 0.1).reshape(2, 2)
    np.testing.assert_allclose(compiled(metrics.complexity)(heatmap), 0.4)
    np.testing.assert_allclose(compiled(metrics.sparsity)(heatmap), 2.5)
    assert np.isnan(compiled(metrics.complexity)(np.zeros((2, 2))))
    assert np.isnan(compiled(metrics.sparsity)(np.zeros((2, 2))))
    assert float(compiled(metrics.sparsity)(np.full((2, 2), 0.25))) == 1
    assert float(compiled(metrics.sparsity)(array(0, 0, 0.25, 0))) == 4


def test_adcc_by_hand():
    # The harmonic mean of coherency 0.5, 1 - 0.75 and 1 - 0.5: 3 / (2 + 4 + 2).
    np.testing.assert_allclose(compiled(metrics.adcc)(array(0.5), array(0.5), array(0.75)), [0.375])
    # A mean of ones may be more than 1 by its last digit.
    assert float(compiled(metrics.adcc)(array(0.5), array(0.5), array(1 + 1e-15))[0]) == 0
    drop = array(0, 1, 0.5, 0.5, NAN, 0.5, 0.5, 1)
    coherency = array(1, 0.5, 0, 0.5, 0.5, NAN, 0.5, NAN)
    complexity = array(0, 0.5, 0.5, 1, 0.5, 0.5, INF, 0.5)
    np.testing.assert_allclose(compiled(metrics.adcc)(drop, coherency, complexity), [1, 0, 0, 0, NAN, NAN, NAN, NAN])


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_a_map_are_the_loops(seed):
    heatmap = np.asarray(heatmaps(seed, 6, 5))
    total = sum(float(v) for row in heatmap for v in row)
    top = max(float(v) for row in heatmap for v in row)
    np.testing.assert_allclose(compiled(metrics.complexity)(heatmap), total / 30)
    np.testing.assert_allclose(compiled(metrics.sparsity)(heatmap), top / (total / 30))
    drop, coherency, complexity = np.random.default_rng(seed).uniform(size=(3, 4))
    expected = [3 / (1 / b + 1 / (1 - c) + 1 / (1 - a)) for a, b, c in zip(drop, coherency, complexity, strict=True)]
    np.testing.assert_allclose(compiled(metrics.adcc)(drop, coherency, complexity), expected)


# --- Pictures behind masks -------------------------------------------------------------------------------------------


BLURS = [((9, 12), 0.8), ((17, 5), 2.5), ((3, 4), 4.0), ((1, 6), 1.0), ((11,), 0.9), ((4, 5, 3), (0.7, 1.5, 0.4))]


@pytest.mark.parametrize(("size", "sigma"), BLURS)
def test_blurred_is_the_gaussian_of_scipy(size, sigma):
    image = normal(3, *size, 2)
    sigmas = sigma if isinstance(sigma, tuple) else (sigma,) * len(size)
    radius = [math.ceil(3 * each) for each in sigmas]
    expected = ndimage.gaussian_filter(image, (*sigmas, 0), mode="nearest", radius=(*radius, 0))
    np.testing.assert_allclose(compiled(metrics.blurred, sigma=sigma)(image), expected, rtol=1e-12, atol=1e-14)


def test_blurred_by_hand():
    # sigma = 1/3 reaches to the next pixel: weights 1 and e = exp(-9/2), over 1 + 2 e; the edge pixel goes on outside.
    e = math.exp(-4.5)
    image = array(1, 0, 0, 0).reshape(2, 2, 1)
    edge, inner = (1 + e) / (1 + 2 * e), e / (1 + 2 * e)
    expected = np.array([[edge * edge, edge * inner], [inner * edge, inner * inner]])
    np.testing.assert_allclose(compiled(metrics.blurred, sigma=1 / 3)(image)[..., 0], expected, rtol=1e-12)


def test_blended_by_hand():
    image, baseline = np.full((2, 2, 3), 8.0), np.broadcast_to(array(0, 4, 8), (2, 2, 3))
    found = compiled(metrics.blended)(image, array(1, 0, 0.25, 0.5).reshape(2, 2), baseline)
    expected = [[[8, 8, 8], [0, 4, 8]], [[2, 5, 8], [4, 6, 8]]]
    np.testing.assert_allclose(found, expected)
    picture, heatmap = normal(0, 4, 5, 3), heatmaps(1, 4, 5)
    dimmed = jaxcam.explanation_map(picture, heatmap)
    blended, nothing = compiled(metrics.blended), np.zeros((4, 5, 3))
    np.testing.assert_allclose(blended(picture, heatmap, nothing), dimmed)
    np.testing.assert_allclose(blended(picture, 1 - heatmap, nothing), picture - dimmed)


# --- Curves ----------------------------------------------------------------------------------------------------------


def test_curves_by_hand():
    # Order: the 4, the first 3, the second 3, the 1. f sums pixels of different weight, so each is told apart.
    image, baseline = array(1, 10, 100, 1000).reshape(2, 2, 1), jnp.zeros((2, 2, 1))
    heatmap = array(3, 1, 4, 3).reshape(2, 2)
    options = {"baseline": baseline, "num_steps": 4}
    np.testing.assert_allclose(metrics.deletion_curve(jnp.sum, image, heatmap, **options), [1111, 1011, 1010, 10, 0])
    np.testing.assert_allclose(metrics.insertion_curve(jnp.sum, image, heatmap, **options), [0, 100, 101, 1101, 1111])
    # Three steps of four pixels: 0, 1, 2 and 4 of them.
    options["num_steps"] = 3
    np.testing.assert_allclose(metrics.deletion_curve(jnp.sum, image, heatmap, **options), [1111, 1011, 1010, 0])
    options["num_steps"] = 8
    expected = [0, 0, 100, 100, 101, 101, 1101, 1101, 1111]
    np.testing.assert_allclose(metrics.insertion_curve(jnp.sum, image, heatmap, **options), expected)


def test_the_occlusion_curve_by_hand():
    """The 1 goes first, then both 3 or none of them, then the 4: from 1111 to 1101, 100 and 0."""
    image = array(1, 10, 100, 1000).reshape(2, 2, 1)
    heatmap = array(3, 1, 4, 3).reshape(2, 2)
    share, relative = metrics.occlusion_curve(jnp.sum, image, heatmap, baseline=0 * image, num_steps=4)
    np.testing.assert_allclose(share, [0, 1 / 4, 1 / 4, 3 / 4, 1])
    np.testing.assert_allclose(relative, array(1111, 1101, 1101, 100, 0) / 1111)
    # Trapezoids of widths 1/4, 0, 1/2 and 1/4.
    area = compiled(metrics.area_under_curve)(relative, at=share)
    np.testing.assert_allclose(area, (2212 / 2 / 4 + 1201 / 2 / 2 + 100 / 2 / 4) / 1111)
    negative = metrics.occlusion_curve(lambda x: -x.sum(), image, heatmap, baseline=0 * image, num_steps=1)[1]
    assert np.isnan(negative).all()


def test_the_occlusion_curve_is_the_paper_s():
    """Delta = 0 where L < gamma, gamma with Pr(L < gamma) = theta: by NumPy's quantiles, for values that all differ."""
    image, heatmap, baseline = np.asarray(normal(0, 5, 4, 3)), np.abs(drawn(1, 5, 4)), np.asarray(normal(2, 5, 4, 3))
    thetas = np.arange(10) / 10
    gammas = np.quantile(heatmap, thetas + 1e-9, method="inverted_cdf")  # of 20 values the first, the third, ...
    pictures = [np.where((heatmap < gamma)[..., None], baseline, image) for gamma in gammas]
    expected = np.exp([np.sin(picture).sum() - np.sin(image).sum() for picture in [*pictures, baseline]])
    f = lambda x: jnp.exp(jnp.sin(x).sum())
    share, relative = metrics.occlusion_curve(f, image, heatmap, baseline=baseline, num_steps=10)
    np.testing.assert_allclose(share, [*thetas, 1], atol=1e-15)
    np.testing.assert_allclose(relative, expected, rtol=1e-9)


def test_area_under_a_curve_by_hand():
    np.testing.assert_allclose(compiled(metrics.area_under_curve)(array(1, 0)), 0.5)
    np.testing.assert_allclose(compiled(metrics.area_under_curve)(array(4, 2, 0)), 2)
    np.testing.assert_allclose(compiled(metrics.area_under_curve)(array(0, 3, 0, 1)), (0 + 3 + 0 + 0.5) / 3)
    curve = normal(0, 12)
    np.testing.assert_allclose(compiled(metrics.area_under_curve)(curve), np.trapezoid(curve, np.linspace(0, 1, 12)))
    assert np.isnan(compiled(metrics.area_under_curve)(array(1, NAN, 0)))


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
@pytest.mark.parametrize("num_steps", [1, 7, 32])
@pytest.mark.sample(3)
def test_curves_are_the_loop(num_steps, batch_size):
    image, baseline = normal(0, 5, 6, 3), normal(1, 5, 6, 3)
    heatmap = np.round(4 * heatmaps(2, 5, 6)) / 4  # many ties
    weights = np.asarray(normal(3, 5, 6, 3))
    f = lambda x: jax.nn.sigmoid((x * weights).sum())
    sigmoid = lambda x: 1 / (1 + np.exp(-(x * weights).sum()))
    order = sorted(((i, j) for i in range(5) for j in range(6)), key=lambda p: -float(heatmap[p]))
    deleted, inserted = [], []
    for s in range(num_steps + 1):
        without, shown = np.array(image), np.array(baseline)
        for p in order[: math.floor(30 * s / num_steps + 1e-9)]:
            without[p], shown[p] = baseline[p], image[p]
        deleted.append(sigmoid(without))
        inserted.append(sigmoid(shown))
    options = {"baseline": baseline, "num_steps": num_steps, "batch_size": batch_size}

    @jax.jit
    def curves(image, heatmap):
        return [curve(f, image, heatmap, **options) for curve in (metrics.deletion_curve, metrics.insertion_curve)]

    np.testing.assert_allclose(curves(image, heatmap), [deleted, inserted], rtol=1e-9)


def test_the_memory_of_a_curve_is_bounded():
    """F sees batch_size images at a time."""
    seen = []

    @jax.custom_batching.custom_vmap
    def f(x):
        return x.sum()

    @f.def_vmap
    def of_a_batch(axis_size, in_batched, x):
        seen.append(axis_size)
        return x.sum((1, 2, 3)), True

    image = jnp.ones((4, 4, 1))
    found = metrics.deletion_curve(f, image, heatmaps(0, 4, 4), baseline=0 * image, num_steps=16, batch_size=5)
    np.testing.assert_allclose(found, np.arange(16, -1, -1))
    assert set(seen) == {5, 2}


def relative_confidence(*operands, **options):
    return metrics.occlusion_curve(*operands, **options)[1]


def test_a_heatmap_that_ranks_nothing_has_no_curve():
    image = jnp.ones((2, 2, 1))
    for heatmap in (np.zeros((2, 2)), jnp.full((2, 2), NAN), array(1, 0, INF, 0).reshape(2, 2)):
        for curve in (metrics.deletion_curve, metrics.insertion_curve, relative_confidence):
            found = curve(jnp.sum, image, heatmap, baseline=0 * image, num_steps=2)
            assert np.isnan(found).all()
            assert np.isnan(compiled(metrics.area_under_curve)(found))


# --- All -------------------------------------------------------------------------------------------------------------


def of_confidence(f):
    return lambda image, heatmap: f(lambda x: jnp.tanh(x.sum()), image, heatmap, baseline=0 * image, num_steps=5)


IMAGES = np.asarray(normal(7, 3, 6, 5, 2))
MAPS, OTHERS = heatmaps(8, 3, 6, 5), heatmaps(9, 3, 6, 5)
ROWS = np.abs(np.asarray(normal(10, 3, 3, 4))) / 4
ALL = {
    "relative_drop": (metrics.relative_drop, ROWS[0], ROWS[1]),
    "average_drop": (metrics.average_drop, ROWS[0], ROWS[1]),
    "absolute_drop": (metrics.absolute_drop, ROWS[0], ROWS[1]),
    "increase_in_confidence": (metrics.increase_in_confidence, ROWS[0], ROWS[1]),
    "drop_in_deletion": (metrics.drop_in_deletion, ROWS[0], ROWS[1]),
    "win": (metrics.win, *ROWS),
    "ties": (metrics.ties, *ROWS),
    "pearson": (metrics.pearson, MAPS, OTHERS),
    "rank_correlation": (metrics.rank_correlation, MAPS, OTHERS),
    "coherency": (metrics.coherency, MAPS, OTHERS),
    "complexity": (metrics.complexity, MAPS),
    "sparsity": (metrics.sparsity, MAPS),
    "adcc": (metrics.adcc, *ROWS),
    "blurred": (lambda image: metrics.blurred(image, 1.5), IMAGES),
    "blended": (metrics.blended, IMAGES, MAPS, 2 * IMAGES),
    "deletion_curve": (of_confidence(metrics.deletion_curve), IMAGES, MAPS),
    "insertion_curve": (of_confidence(metrics.insertion_curve), IMAGES, MAPS),
    "occlusion_curve": (of_confidence(relative_confidence), IMAGES**2, MAPS),
    "area_under_curve": (metrics.area_under_curve, ROWS[0]),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.sample(5)
def test_jit_is_eager_and_vmap_the_loop(name):
    f, *arguments = ALL[name]

    @jax.jit
    def both(*arguments):
        loop = [f(*(each[i] for each in arguments)) for i in range(3)]
        return jax.vmap(f)(*arguments), jnp.stack(loop)

    batch, loop = map(np.asarray, both(*arguments))
    np.testing.assert_allclose(batch, loop, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(f(*(each[1] for each in arguments)), loop[1], rtol=1e-9, atol=1e-12)
    assert not np.isnan(loop).any()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.sample(3, first=1)
def test_the_type_is_kept(name):
    f, *arguments = ALL[name]
    single, half = ([each[0].astype(dtype) for each in arguments] for dtype in (np.float32, jnp.bfloat16))

    @jax.jit
    def outputs(single, half):
        # Of the same numbers as the narrow type has them, so that only the metric's own rounding is left.
        exact = [f(*(each.astype(jnp.float64) for each in narrow)) for narrow in (single, half)]
        return [f(*single), f(*half)], exact, f(single[0].astype(jnp.float64), *single[1:])

    found, exact, mixed = outputs(single, half)
    for own, expected, dtype, tolerance in zip(found, exact, (jnp.float32, jnp.bfloat16), (1e-5, 0.05), strict=True):
        assert own.dtype == dtype
        np.testing.assert_allclose(np.float64(own), expected, rtol=tolerance, atol=tolerance)
    # Of two types the wider one is the result's.
    assert mixed.dtype == jnp.float64


MAP_ONLY = ["pearson", "rank_correlation", "coherency", "sparsity"]


@pytest.mark.parametrize("name", MAP_ONLY)
@pytest.mark.parametrize("scale", [1e-200, 0.37, 2.0, 4e307])
def test_a_positive_factor_changes_nothing(name, scale):
    f, *arguments = ALL[name]
    f = compiled(f)
    first, *rest = (np.asarray(each[0]) for each in arguments)
    np.testing.assert_allclose(f(scale * first, *rest), f(first, *rest), rtol=1e-9)


@pytest.mark.parametrize("name", [*MAP_ONLY, "complexity"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_map_that_is_not_finite_gives_nan(name, bad):
    f, *arguments = ALL[name]
    for position in range(len(arguments)):
        maps = [np.array(each[0]) for each in arguments]
        maps[position][1, 2] = bad
        assert np.isnan(compiled(f)(*maps))


# --- Bad input -------------------------------------------------------------------------------------------------------

GOOD, IMAGE = jnp.ones((2, 2)), jnp.ones((2, 2, 3))
TWO, THREE, NONE, INTEGERS = array(1, 2), array(1, 2, 3), jnp.zeros(0), jnp.ones(2, int)


def curve_of(f=jnp.sum, image=IMAGE, heatmap=GOOD, **options):
    return inspect.unwrap(metrics.deletion_curve)(f, image, heatmap, **({"baseline": IMAGE} | options))


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        *[
            case
            for name in ("relative_drop", "average_drop", "absolute_drop", "increase_in_confidence")
            for case in (
                (
                    lambda name=name: getattr(metrics, name)(TWO, THREE),
                    ValueError,
                    r"o must have the shape of y, \[2\]",
                ),
                (lambda name=name: getattr(metrics, name)(NONE, NONE), ValueError, "y is empty"),
                (lambda name=name: getattr(metrics, name)(TWO, INTEGERS), TypeError, r"o .* int"),
                (lambda name=name: getattr(metrics, name)([0.5], TWO), TypeError, r"y .* list"),
            )
        ],
        (lambda: metrics.drop_in_deletion(TWO, THREE), ValueError, "o_inverse must have the shape of y"),
        (lambda: metrics.win(TWO, TWO, THREE), ValueError, "y must have the shape of o_a"),
        (lambda: metrics.ties(TWO, THREE, TWO), ValueError, "o_b must have the shape of o_a"),
        (lambda: metrics.win(NONE, NONE, NONE), ValueError, "o_a is empty"),
        (lambda: metrics.ties(INTEGERS, TWO, TWO), TypeError, r"o_a .* int"),
        (lambda: metrics.pearson(TWO, THREE), ValueError, "b must have the shape of a"),
        (lambda: metrics.pearson(NONE, NONE), ValueError, "a is empty"),
        (lambda: metrics.rank_correlation(TWO, THREE), ValueError, "b must have the shape of a"),
        (lambda: metrics.rank_correlation(TWO, INTEGERS), TypeError, r"b .* int"),
        (lambda: metrics.coherency(TWO, THREE), ValueError, "heatmap_of_e must have the shape of heatmap"),
        (lambda: metrics.coherency(INTEGERS, TWO), TypeError, r"heatmap .* int"),
        (lambda: metrics.complexity(INTEGERS), TypeError, r"heatmap .* int"),
        (lambda: metrics.complexity(NONE), ValueError, "heatmap is empty"),
        (lambda: metrics.sparsity(NONE), ValueError, "heatmap is empty"),
        (lambda: metrics.adcc(TWO, TWO, THREE), ValueError, "complexity must have the shape of drop"),
        (lambda: metrics.adcc(TWO, INTEGERS, TWO), TypeError, r"coherency .* int"),
        (lambda: metrics.blurred(TWO, 1.0), ValueError, r"image must be \[\*grid, d\]"),
        (
            lambda: metrics.blurred(IMAGE, (1.0,)),
            ValueError,
            r"sigma must be one number, or one for each of the 2 axes",
        ),
        (lambda: metrics.blurred(IMAGE, 0.0), ValueError, r"sigma .* 0 .* 0.0"),
        (lambda: metrics.blurred(IMAGE, NAN), ValueError, r"sigma .* nan"),
        (lambda: metrics.blurred(IMAGE, "1"), TypeError, r"sigma .* '1'"),
        (lambda: metrics.blurred(IMAGE.astype(int), 1.0), TypeError, r"image .* int"),
        (lambda: metrics.blended(IMAGE, GOOD[:1], IMAGE), ValueError, r"heatmap must be \[\*grid\] of the image"),
        (lambda: metrics.blended(IMAGE, GOOD, IMAGE[:1]), ValueError, "baseline must have the shape of image"),
        (
            lambda: metrics.blended(IMAGE, IMAGE, IMAGE),
            ValueError,
            r"heatmap must be .*\[2, 2\], but came as \[2, 2, 3\]",
        ),
        (lambda: metrics.area_under_curve(TWO[:1]), ValueError, "two values at least"),
        (lambda: metrics.area_under_curve(GOOD), ValueError, r"curve must be \[num_steps \+ 1\]"),
        (lambda: metrics.area_under_curve(INTEGERS), TypeError, r"curve .* int"),
        (lambda: metrics.area_under_curve(TWO, at=THREE), ValueError, r"at must have the shape of curve, \[2\]"),
        (lambda: metrics.area_under_curve(TWO, at=INTEGERS), TypeError, r"at .* int"),
        (lambda: curve_of(f=3), TypeError, "f must be a function"),
        (lambda: curve_of(f=lambda x: x.sum((0, 1))), ValueError, r"f must return a scalar.*\[3\]"),
        (lambda: curve_of(f=lambda x: (x.sum(), x)), ValueError, "f must return a scalar.*tuple"),
        (lambda: curve_of(f=lambda x: x.sum().astype(int)), TypeError, r"the value of f .* int"),
        (lambda: curve_of(heatmap=GOOD[:, :1]), ValueError, r"heatmap must be \[\*grid\] of the image"),
        (lambda: curve_of(baseline=IMAGE[..., :1]), ValueError, "baseline must have the shape of image"),
        (lambda: curve_of(num_steps=0), ValueError, r"num_steps .* 1 .* 0"),
        (lambda: curve_of(num_steps=2.0), TypeError, r"num_steps .* 2.0"),
        (lambda: curve_of(batch_size=0), ValueError, r"batch_size .* 1 .* 0"),
        (lambda: curve_of(batch_size=True), TypeError, r"batch_size .* True"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_answered(call, kind, says):
    with pytest.raises(kind, match=says):
        call()

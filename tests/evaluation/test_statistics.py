import json
import math
from fractions import Fraction
from itertools import combinations, permutations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap

from jaxcam import metrics
from jaxcam.evaluation.journal import Journal, Record
from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.result import Evaluation, table_of
from jaxcam.evaluation.shares import holm, mcnemar, wilson
from jaxcam.evaluation.statistics import LIMIT, Interval, Rows, Statistics, statistics
from jaxcam.evaluation.table import Table
from jaxcam.explanation.explanation import Status

SPECIAL = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    1.0,
    LIMIT,
    -LIMIT,
    np.nextafter(np.float32(LIMIT), 0),
    1e-30,
    1e30,
]
numbers = st.one_of(
    st.sampled_from([float(x) for x in SPECIAL]), st.floats(-10, 10, width=32), st.integers(-3, 3).map(lambda i: i / 4)
)


def rows_of(values, *, o=None, y=None, status=None):
    """Rows around `values`, [n, m, k]; whatever is not given is unremarkable."""
    values = np.asarray(values, np.float64)
    n, m, _ = values.shape
    return Rows(
        y=np.full(n, 0.5) if y is None else np.asarray(y, np.float64),
        o=np.full((n, m), 0.5) if o is None else np.asarray(o, np.float64),
        values=values,
        status=np.zeros((n, m), np.int32) if status is None else np.asarray(status, np.int32),
    )


def figures(rows, *, part=256, **options):
    parts = (Rows(*(field[i : i + part] for field in rows[:4])) for i in range(0, len(rows.y), part))
    return statistics(parts, *rows.values.shape[1:], **options)


def weights_of(num_resamples, num_images, seed, *, part=256):
    """What is drawn: for one part after the other, from one generator."""
    draws = np.random.default_rng(seed)
    sizes = [min(part, num_images - i) for i in range(0, num_images, part)]
    return np.concatenate([draws.poisson(1.0, (num_resamples, size)) for size in sizes], axis=1)


def random_rows(n, m, k, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, m, k)) * 10.0 ** rng.integers(-12, 5, size=(n, m, k))
    values[rng.random((n, m, k)) < 0.2] = np.nan
    values[rng.random((n, m, k)) < 0.05] = np.inf
    o = rng.integers(0, 5, size=(n, m)) / 4
    o[rng.random((n, m)) < 0.1] = np.nan
    y = rng.integers(-1, 5, size=n) / 4
    y[rng.random(n) < 0.1] = np.nan
    y[rng.random(n) < 0.1] = -np.inf
    return rows_of(values, o=o, y=y, status=rng.integers(0, len(Status), size=(n, m)))


# Any order, any split -------------------------------------------------------------------------------------------------


@st.composite
def divided_records(draw):
    """Records of an evaluation, in an order, and where the run was ended and went on."""
    n, m, k = draw(st.integers(0, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    indices = draw(st.lists(st.integers(0, 2**62), min_size=n, max_size=n, unique=True))

    def record(index):
        if draw(st.integers(0, 4)) == 0:
            return Record(index, f"image {index}", error="cut off")
        o = [draw(numbers) for _ in range(m)]
        status = [draw(st.integers(0, len(Status) - 1)) for _ in range(m)]
        values = [[draw(numbers) for _ in range(k)] for _ in range(m)]
        return Record(index, f"image {index}", 3, 2, draw(numbers), o, status, values)

    records = [record(index) for index in indices]
    order = draw(st.permutations(range(n)))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    parts = [[records[i] for i in order[a:b]] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    return records, parts, m, k


@settings(max_examples=80, deadline=None)
@given(divided=divided_records(), num_resamples=st.sampled_from([0, 7]), seed=st.integers(0, 2**32 - 1))
def test_any_partition_and_order_gives_the_same_bytes(tmp_path_factory, divided, num_resamples, seed):
    records, parts, m, k = divided
    names, columns = tuple("abc"[:m]), tuple(Column(x, x) for x in "xy"[:k])
    header = {"jaxcam_evaluation": 1, "methods": names, "metrics": [column.key for column in columns]}

    def told(journal):
        table, bad = table_of(journal, names, columns, {}, num_resamples=num_resamples, seed=seed)
        return table.json(), table.text(), bad

    whole = Journal(None, header)
    whole.append(sorted(records))
    path = tmp_path_factory.mktemp("divided") / "rows.jsonl"
    for part in parts:
        journal = Journal(path, header)
        journal.append(part)
        journal.close()
    journal = Journal(path, header)
    assert told(journal) == told(whole)
    assert [record.index for record in journal.records()] == sorted(record.index for record in records)
    journal.close()


def test_tables_by_the_number_of_instances():
    """Six pictures with one, two or no instances, one of them bad; the number is that of any method that has one."""
    nan = math.nan
    columns = (Column("recall", "instance recall"), Column("instances", "instances"))
    header = {"jaxcam_evaluation": 1, "methods": ("a", "b"), "metrics": [c.key for c in columns], "seed": 3}
    values = [[[0.5, 2], [1, 2]], [[1, 1], [0, 1]], [[nan, nan], [0, 2]], [[nan, nan], [nan, nan]], [[1, 1], [1, 1]]]
    journal = Journal(None, header)
    values = np.asarray(values, float).tolist()
    journal.append([Record(i, "", 0, 0, 0.5, [0.5, 0.5], [0, 0], each) for i, each in enumerate(values)])
    journal.append([Record(5, "", error="cut off")])
    table, bad = table_of(journal, ("a", "b"), columns, {"model": "m"}, num_resamples=5, seed=3)
    found = Evaluation(header, table, bad, journal)
    tables = found.split()
    assert list(tables) == [1, 2]
    np.testing.assert_allclose(tables[1].means.value[:, 0], [1, 0.5])
    np.testing.assert_allclose(tables[2].means.value[:, 0], [0.5, 0.5])
    assert [each.statistics.images for each in tables.values()] == [2, 2]
    assert tables[2].facts == {"model": "m", "instances": "2"}
    np.testing.assert_array_equal(np.isnan(tables[2].means.low[:, 0]), [True, False])  # a counts on a single picture
    with pytest.raises(KeyError, match="no metric 'number'"):
        found.split("number")


def test_other_seeds_and_other_parts_change_the_resamples_only():
    rows = random_rows(50, 2, 2)
    one, same, seed, parts = (
        figures(rows, num_resamples=20, **options) for options in ({}, {}, {"seed": 1}, {"part": 20})
    )
    np.testing.assert_array_equal(one.means, same.means)
    for other in (seed, parts):
        np.testing.assert_allclose(other.means.value, one.means.value, rtol=1e-13)
        assert (other.means.low != one.means.low).all()
        np.testing.assert_array_equal(other.counts, one.counts)


# The figures of the data ----------------------------------------------------------------------------------------------


def test_every_figure_is_that_of_python_fractions():
    rows = random_rows(60, 3, 2)
    n, m, k = rows.values.shape
    found = figures(rows, part=25)
    x = [[[Fraction(v) if abs(v) < 2**20 else None for v in of_method] for of_method in image] for image in rows.values]
    mean = lambda terms: float(sum(terms) / len(terms))
    y, o, of = rows.y, rows.o, range(n)
    for a in range(m):
        for c in range(k):
            kept = [x[i][a][c] for i in of if x[i][a][c] is not None]
            assert found.counts[a, c] == len(kept)
            assert found.means.value[a, c] == pytest.approx(mean(kept), rel=1e-13)
            assert found.out_of_range[a, c] == sum(abs(rows.values[i, a, c]) >= 2**20 for i in of)
            assert found.difference_counts[a, a, c] == len(kept)
        assert found.status[a].tolist() == [sum(rows.status[i, a] == s for i in of) for s in Status]
        assert found.contests[a, a] == 0
        assert np.isnan([found.wins.value[a, a], found.ties[a, a]]).all()
    for a, b in permutations(range(m), 2):
        for c in range(k):
            apart = [x[i][a][c] - x[i][b][c] for i in of if None not in (x[i][a][c], x[i][b][c])]
            assert found.difference_counts[a, b, c] == len(apart)
            assert found.differences.value[a, b, c] == pytest.approx(mean(apart), rel=1e-13)
        fair = [i for i in of if np.isfinite([y[i], o[i, a], o[i, b]]).all() and y[i] > 0]
        assert found.contests[a, b] == len(fair)
        assert found.wins.value[a, b] == pytest.approx(100 * sum(o[i, a] > o[i, b] for i in fair) / len(fair))
        assert found.ties[a, b] == pytest.approx(100 * sum(o[i, a] == o[i, b] for i in fair) / len(fair))
    assert found.images == n
    assert found.y_not_positive == sum(math.isfinite(v) and v <= 0 for v in y)
    assert found.y_not_finite == sum(not math.isfinite(v) for v in y)


def test_values_that_cancel_keep_their_digits():
    rng = np.random.default_rng(1)
    values = rng.uniform(-1, 1, size=(2500, 2, 1)) * (2.0**20 - 1)
    values[1250:] = -values[:1250] + rng.uniform(0, 1, size=(1250, 2, 1))
    found = figures(rows_of(values))
    for a in range(2):
        # In the worst case an error of 2500 roundings of values of 2^20.
        assert found.means.value[a, 0] == pytest.approx(math.fsum(values[:, a, 0]) / 2500, abs=2e-10)
    assert found.differences.value[0, 1, 0] == pytest.approx(
        math.fsum(values[:, 0, 0] - values[:, 1, 0]) / 2500, abs=4e-10
    )


def test_means_are_those_of_numpy_on_dyadic_values():
    rng = np.random.default_rng(2)
    values = rng.integers(-(2**10), 2**10, size=(128, 3, 2)) / 2**8
    values[rng.random(values.shape) < 0.3] = np.nan
    found = figures(rows_of(values), part=50)
    np.testing.assert_array_equal(found.means.value, np.nanmean(values, axis=0))
    for a in range(3):
        for b in range(3):
            expected = np.nanmean(values[:, a] - values[:, b], axis=0)
            np.testing.assert_array_equal(found.differences.value[a, b], expected)


def test_infinities_and_large_values_are_out_of_range_and_nan_does_not_count():
    values = np.asarray([np.nan, np.inf, -np.inf, LIMIT, -LIMIT, np.nextafter(LIMIT, 0), 2.0]).reshape(7, 1, 1)
    found = figures(rows_of(values))
    assert (found.counts.item(), found.out_of_range.item(), found.images) == (2, 4, 7)
    assert found.means.value.item() == pytest.approx((2**20 + 2) / 2, rel=1e-14)


def test_wins_by_hand():
    """Six images, of which y = 0, y = NaN and a NaN confidence do not compare."""
    o = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.7, 0.6], [0.9, 0.1], [np.nan, 0.1]]
    found = figures(rows_of(np.zeros((6, 2, 1)), o=o, y=[1, 1, 1, 0, np.nan, 1]))
    third = 100 / 3
    np.testing.assert_array_equal(found.wins.value, [[np.nan, third], [third, np.nan]])
    np.testing.assert_array_equal(found.ties, [[np.nan, third], [third, np.nan]])
    assert found.contests.tolist() == [[0, 3], [3, 0]]
    assert (found.y_not_positive, found.y_not_finite) == (1, 1)


def test_wins_losses_and_ties_are_everything():
    found = figures(random_rows(200, 4, 1, seed=4), num_resamples=50)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose((found.wins.value + found.wins.value.T + found.ties)[off], 100, rtol=1e-14)
    assert found.ties[off].min() > 0  # or the ties were not tried
    assert ((found.wins.low < found.wins.value) & (found.wins.value < found.wins.high))[off].all()


def test_wins_and_ties_are_those_of_metrics():
    rows = random_rows(100, 3, 1, seed=8)
    found = figures(rows)
    for a, b in permutations(range(3), 2):
        o_a, o_b, y = (jnp.asarray(x) for x in (rows.o[:, a], rows.o[:, b], rows.y))
        assert found.wins.value[a, b] == pytest.approx(float(metrics.win(o_a, o_b, y)), rel=1e-14)
        assert found.ties[a, b] == pytest.approx(float(metrics.ties(o_a, o_b, y)), rel=1e-14)


# Intervals ------------------------------------------------------------------------------------------------------------


def quantiles(estimates):
    return np.nanquantile(estimates, [0.025, 0.975], axis=0)


def test_intervals_are_the_quantiles_of_resamples_that_all_figures_share():
    """Again by NumPy from the images and their weights, resample by resample."""
    rows = random_rows(60, 3, 2, seed=9)
    found = figures(rows, num_resamples=200, seed=3, part=25)
    weights = weights_of(200, 60, 3, part=25)
    x = np.where(np.abs(rows.values) < LIMIT, rows.values, np.nan)

    def means(terms):
        return np.stack([np.nansum(w[:, None] * terms, 0) / np.sum(w[:, None] * ~np.isnan(terms), 0) for w in weights])

    for a in range(3):
        np.testing.assert_allclose([found.means.low[a], found.means.high[a]], quantiles(means(x[:, a])), rtol=1e-11)
    for a, b in combinations(range(3), 2):
        low, high = quantiles(means(x[:, a] - x[:, b]))
        np.testing.assert_allclose([found.differences.low[a, b], found.differences.high[a, b]], [low, high], rtol=1e-11)
        np.testing.assert_allclose(
            [found.differences.low[b, a], found.differences.high[b, a]], [-high, -low], rtol=1e-11
        )


def test_shares_and_wins_have_the_interval_of_scipy():
    """Two methods, three metrics of which the last two are shares; the second is a yes on every image."""
    random = np.random.default_rng(12)
    n = 41
    values = np.stack([random.normal(size=(n, 2)), np.ones((n, 2)), random.random((n, 2)) < [0.3, 0.6]], -1)
    values[:5, 0, 2] = np.nan
    o = random.integers(0, 4, (n, 2)) / 4
    found = figures(rows_of(values, o=o), num_resamples=50, shares=(False, True, True), part=10)
    without = figures(rows_of(values, o=o), shares=(False, True, True))

    def interval(k, n):
        return binomtest(int(k), int(n)).proportion_ci(method="wilson")

    for method, metric in ((0, 1), (1, 1), (0, 2), (1, 2)):
        kept = values[:, method, metric][~np.isnan(values[:, method, metric])]
        expected = interval(kept.sum(), len(kept))
        for each in (found, without):
            ends = (each.means.low[method, metric], each.means.high[method, metric])
            np.testing.assert_allclose(ends, expected, rtol=1e-12)
    assert found.means.low[0, 1] < 0.92 < 1 == found.means.high[0, 1]
    assert np.isnan(without.means.low[:, 0]).all()
    for a, b in ((0, 1), (1, 0)):
        won = (o[:, a] > o[:, b]).sum()
        assert found.won[a, b] == won
        np.testing.assert_allclose(
            [found.wins.low[a, b], found.wins.high[a, b]], 100 * np.asarray(interval(won, n)), rtol=1e-12
        )
        of_both = values[5:, a, 2] - values[5:, b, 2]
        assert found.above[a, b, 2] == (of_both > 0).sum()


def test_the_interval_of_a_paired_difference_of_shares_by_hand():
    """5 images of 10 with the first alone, 1 with the second: (6 - 2) / 12 and sqrt((8 / 12 - (1 / 3)^2) / 12)."""
    values = np.zeros((10, 2, 1))
    values[:5, 0] = values[5, 1] = 1
    found = figures(rows_of(values), shares=(True,)).differences
    half = 1.959963984540054 * math.sqrt((8 / 12 - 1 / 9) / 12)
    assert found.value[0, 1, 0] == pytest.approx(0.4)
    assert (found.low[0, 1, 0], found.high[0, 1, 0]) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    assert (found.low[1, 0, 0], found.high[1, 0, 0]) == pytest.approx((-1 / 3 - half, -1 / 3 + half))
    every = np.zeros((10, 2, 1))
    every[:, 0] = 1
    assert figures(rows_of(every), shares=(True,)).differences.high[0, 1, 0] == 1
    # Two methods that agree on every image leave room: s = 2 / 12, d = 0.
    same = figures(rows_of(np.ones((10, 2, 1))), shares=(True,)).differences
    assert same.high[0, 1, 0] == pytest.approx(1.959963984540054 * math.sqrt(2 / 144))
    assert (same.low[0, 0, 0], same.high[0, 0, 0]) == (0, 0)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5])
def test_wilson_covers_what_it_says(p):
    """The probability that the interval holds p, over all outcomes of 50 images: 95 % to within three points."""
    k = np.arange(51)
    low, high = wilson(k, np.full(51, 50), level=0.95)
    covered = binom.pmf(k, 50, p)[(low <= p) & (p <= high)].sum()
    assert 0.92 < covered < 0.99


def test_mcnemar_is_the_binomial_test_of_scipy():
    one, other = np.asarray([0, 0, 5, 3, 12, 40, 1]), np.asarray([0, 5, 0, 3, 4, 41, 300])
    expected = [1.0, *(binomtest(int(a), int(a + b)).pvalue for a, b in list(zip(one, other, strict=True))[1:])]
    np.testing.assert_allclose(mcnemar(one, other), expected, rtol=1e-12)
    assert mcnemar(one, other)[1] == 2 / 2**5


def test_holm_by_hand():
    p = np.asarray([0.01, 0.04, 0.03, 0.005, 0.9])
    # Sorted .005 .01 .03 .04 .9 times 5 4 3 2 1: .025 .04 .09 .08 .9, none smaller than the one before.
    np.testing.assert_allclose(holm(p), [0.04, 0.09, 0.09, 0.025, 0.9])
    np.testing.assert_allclose(holm(np.asarray([0.6, 0.7])), [1.0, 1.0])
    assert holm(np.zeros(0)).shape == (0,)


@pytest.mark.parity
def test_shares_agree_with_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    from statsmodels.stats.contingency_tables import mcnemar as their_test
    from statsmodels.stats.multitest import multipletests

    k, n = np.asarray([0, 3, 17, 50]), np.asarray([9, 40, 50, 50])
    theirs = proportion.proportion_confint(k, n, method="wilson")
    np.testing.assert_allclose(wilson(k, n, level=0.95), theirs, rtol=1e-10, atol=1e-15)
    one, other = np.asarray([2, 9, 30, 0]), np.asarray([5, 1, 12, 7])
    p = [their_test([[10, a], [b, 20]], exact=True).pvalue for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(mcnemar(one, other), p, rtol=1e-10)
    np.testing.assert_allclose(holm(mcnemar(one, other)), multipletests(p, method="holm")[1], rtol=1e-10)


def test_interval_of_a_mean_is_that_of_normal_theory_and_of_scipy():
    x = np.random.default_rng(5).normal(0.3, 0.2, size=1500)
    found = figures(rows_of(x.reshape(-1, 1, 1)), num_resamples=4000).means
    half = 1.96 * x.std() / math.sqrt(1500)
    assert found.low.item() == pytest.approx(x.mean() - half, abs=0.06 * half)
    assert found.high.item() == pytest.approx(x.mean() + half, abs=0.06 * half)
    options = {"n_resamples": 4000, "method": "percentile", "rng": np.random.default_rng(0), "batch": 500}
    other = bootstrap((x,), np.mean, **options).confidence_interval
    assert [found.low.item(), found.high.item()] == pytest.approx([other.low, other.high], abs=0.09 * half)


def test_interval_of_a_paired_difference_is_that_of_the_differences():
    """What is common to both methods is a hundred times what differs, and cancels."""
    rng = np.random.default_rng(6)
    common, noise = rng.normal(0, 1, size=(1500, 1)), rng.normal(0, 0.01, size=(1500, 2))
    values = common + noise + np.asarray([0.001, 0.0])
    found = figures(rows_of(values[:, :, None]), num_resamples=4000, seed=1).differences
    difference = values[:, 0] - values[:, 1]
    half = 1.96 * difference.std() / math.sqrt(1500)
    assert found.low[0, 1].item() == pytest.approx(difference.mean() - half, abs=0.06 * half)
    assert found.high[0, 1].item() == pytest.approx(difference.mean() + half, abs=0.06 * half)
    np.testing.assert_array_equal(found.low[1, 0], -found.high[0, 1])
    np.testing.assert_array_equal(found.high[1, 0], -found.low[0, 1])


def test_resamples_in_which_nothing_counts_are_left_out():
    values = np.asarray([[0.25, 0.5], [1.0, 0.75], [np.nan, 2.0]]).reshape(3, 2, 1)
    found = figures(rows_of(values), num_resamples=200, seed=2).means
    weights = weights_of(200, 3, 2)
    with np.errstate(invalid="ignore"):
        means = (weights @ np.nan_to_num(values[:, :, 0])) / (weights @ ~np.isnan(values[:, :, 0]))
    assert np.isnan(means).any(axis=0).all()  # or nothing is left out
    np.testing.assert_allclose(np.stack([found.low, found.high])[:, :, 0], quantiles(means), rtol=1e-14)


def test_one_image_says_nothing_of_others():
    """It is all that any resample has: an interval of no width, which would exclude zero."""
    values = np.asarray([[[0.25, 1], [0.5, 0]], [[np.nan, 1], [0.75, 1]]])  # both methods count on the first alone
    found = figures(rows_of(values), num_resamples=100, shares=[False, True])
    assert np.isnan([found.means.low[0, 0], found.differences.low[0, 1, 0], found.differences.high[0, 1, 0]]).all()
    assert found.differences.value[0, 1, 0] == -0.25
    assert found.means.low[1, 0] < found.means.high[1, 0]
    assert not np.isnan(found.means.low[:, 1]).any()  # Wilson's has a width for one image too
    columns = tuple(Column(x, x, better="lower") for x in "xy")
    table = Table(("a", "b"), columns, figures(rows_of(values[:1]), num_resamples=100), {}, 0, "image")
    assert not table.best.any()
    assert "A mean of a single image has no interval." in table.text()


def test_a_method_against_itself_differs_by_exactly_zero():
    x = np.random.default_rng(7).normal(size=(50, 1, 2))
    x[3] = np.nan
    found = figures(rows_of(np.concatenate([x, x], axis=1)), num_resamples=100)
    for part in found.differences:
        np.testing.assert_array_equal(part, np.zeros((2, 2, 2)))
        assert not np.signbit(part).any()


def test_nothing_counts_gives_nan_and_no_warning():
    found = figures(rows_of(np.full((4, 2, 1), np.nan), y=[0, 0, 0, 0]), num_resamples=10)
    for interval in (found.means, found.differences, found.wins):
        assert np.isnan(interval).all()
    without = figures(rows_of(np.ones((4, 2, 1)))).means
    np.testing.assert_array_equal(without.value, np.ones((2, 1)))
    assert np.isnan(without.low).all()
    assert np.isnan(without.high).all()


@pytest.mark.parametrize("parts", [[], [rows_of(np.zeros((0, 2, 3)))]])
def test_of_no_images_there_are_counts_of_zero(parts):
    found = statistics(parts, 2, 3, num_resamples=4)
    assert found.images == 0
    assert not any(x.any() for x in (found.counts, found.out_of_range, found.contests, found.status))
    assert np.isnan(found.means).all()


@pytest.mark.parametrize(("num_methods", "num_resamples"), [(3, 9), (1, 0)])
def test_other_processes_are_told_the_same_figures(num_methods, num_resamples):
    found = figures(random_rows(20, num_methods, 2), num_resamples=num_resamples)
    told = Statistics.of_lists(json.loads(json.dumps(found.to_lists())))
    for name, value in found._asdict().items():
        other = getattr(told, name)
        assert type(other) is type(value)
        parts = zip(value, other, strict=True) if isinstance(value, Interval) else [(value, other)]
        for x, y in parts:
            np.testing.assert_array_equal(x, y)
            assert np.asarray(x).dtype == np.asarray(y).dtype

import math
from fractions import Fraction
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcam import metrics
from jaxcam.evaluation import bootstrap
from jaxcam.evaluation.poisson import poisson_weights
from jaxcam.evaluation.totals import LIMIT, Rows, Totals, merge
from jaxcam.explanation.explanation import Status

UNIT = Fraction(1, 2**32)
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, LIMIT, -LIMIT, np.nextafter(LIMIT, 0), 5e-324, 1e300]
numbers = st.one_of(st.sampled_from(SPECIAL), st.floats(-10, 10), st.integers(-3, 3).map(lambda i: i / 4))


def rows_of(values, *, o=None, y=None, status=None, index=None):
    """Rows around `values`, [n, m, k]; whatever is not given is unremarkable."""
    values = np.asarray(values, np.float64)
    n, m, _ = values.shape
    return Rows(
        index=np.arange(n) if index is None else np.asarray(index, np.int64),
        y=np.full(n, 0.5) if y is None else np.asarray(y, np.float64),
        o=np.full((n, m), 0.5) if o is None else np.asarray(o, np.float64),
        values=values,
        status=np.zeros((n, m), np.int32) if status is None else np.asarray(status, np.int32),
    )


def taken(rows, chosen):
    return Rows(*(field[np.asarray(chosen, int)] for field in rows))


def same(a, b):
    return all(x.dtype == y.dtype == np.int64 and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


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
    return rows_of(
        values, o=o, y=y, status=rng.integers(0, len(Status), size=(n, m)), index=rng.permutation(10 * n)[:n]
    )


@st.composite
def divided_rows(draw):
    n, m, k = draw(st.integers(0, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 2))

    def block(shape, elements, dtype):
        size = math.prod(shape)
        return np.asarray(draw(st.lists(elements, min_size=size, max_size=size)), dtype).reshape(shape)

    rows = Rows(
        index=np.asarray(draw(st.lists(st.integers(0, 2**62), min_size=n, max_size=n, unique=True)), np.int64),
        y=block((n,), numbers, np.float64),
        o=block((n, m), numbers, np.float64),
        values=block((n, m, k), numbers, np.float64),
        status=block((n, m), st.integers(0, len(Status) - 1), np.int32),
    )
    order = draw(st.permutations(range(n)))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    parts = [order[i:j] for i, j in zip([0, *cuts], [*cuts, n], strict=True)]
    return rows, parts, draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(divided_rows(), st.sampled_from([0, 7]), st.integers(0, 2**64 - 1))
def test_any_partition_and_order_gives_the_same_bits(divided, num_resamples, seed):
    rows, parts, from_the_right = divided
    whole = Totals.of(rows, num_resamples=num_resamples, seed=seed)
    totals = [Totals.of(taken(rows, part), num_resamples=num_resamples, seed=seed) for part in parts]
    while len(totals) > 1:
        if from_the_right:
            totals[-2:] = [merge(totals[-2], totals[-1])]
        else:
            totals[:2] = [merge(totals[1], totals[0])]
    assert same(whole, totals[0])
    assert whole.images[0] == len(rows.index)


def by_hand(rows, weights):
    """All totals of one resample with Python's integers and fractions, and nothing of ours."""
    n, m, k = rows.values.shape

    def fixed(x):
        return None if not math.isfinite(x) or abs(x) >= 2**20 else round(Fraction(x) / UNIT)

    f = [[[fixed(float(rows.values[i, a, c])) for c in range(k)] for a in range(m)] for i in range(n)]
    w, of, y, o = [int(x) for x in weights], range(n), rows.y, rows.o
    pairs = list(combinations(range(m), 2))
    counts = [[sum(w[i] for i in of if f[i][a][c] is not None) for c in range(k)] for a in range(m)]
    both = [[[i for i in of if f[i][a][c] is not None and f[i][b][c] is not None] for c in range(k)] for a, b in pairs]
    fair = [[i for i in of if np.isfinite([y[i], o[i, a], o[i, b]]).all() and y[i] > 0] for a, b in pairs]
    return {
        "images": sum(w),
        "sums": [[sum(w[i] * (f[i][a][c] or 0) for i in of) for c in range(k)] for a in range(m)],
        "counts": counts,
        "out_of_range": [
            [sum(w[i] for i in of if abs(rows.values[i, a, c]) >= 2**20) for c in range(k)] for a in range(m)
        ],
        "pair_sums": [
            [sum(w[i] * (f[i][a][c] - f[i][b][c]) for i in both[p][c]) for c in range(k)]
            for p, (a, b) in enumerate(pairs)
        ],
        "pair_counts": [[sum(w[i] for i in both[p][c]) for c in range(k)] for p in range(len(pairs))],
        "wins": [sum(w[i] for i in fair[p] if o[i, a] > o[i, b]) for p, (a, b) in enumerate(pairs)],
        "ties": [sum(w[i] for i in fair[p] if o[i, a] == o[i, b]) for p, (a, b) in enumerate(pairs)],
        "contests": [sum(w[i] for i in fair[p]) for p in range(len(pairs))],
        "status": [[sum(w[i] for i in of if rows.status[i, a] == s) for s in Status] for a in range(m)],
        "y_not_positive": sum(w[i] for i in of if math.isfinite(y[i]) and y[i] <= 0),
        "y_not_finite": sum(w[i] for i in of if not math.isfinite(y[i])),
    }


def test_every_total_is_that_of_python_integers():
    rows = random_rows(60, 3, 2)
    totals = Totals.of(rows, num_resamples=4, seed=3)
    weights = np.concatenate([np.ones((1, 60), np.int64), poisson_weights(rows.index, 4, 3)])
    for r in range(5):
        for name, expected in by_hand(rows, weights[r]).items():
            assert getattr(totals, name)[r].tolist() == expected, (r, name)


def test_sums_are_exact_where_float64_is_not():
    """Values of both signs up to the limit over several chunks: the float sum loses what the integers keep."""
    rng = np.random.default_rng(1)
    values = rng.uniform(-1, 1, size=(2500, 2, 1)) * (2.0**20 - 1)
    values[1250:] = -values[:1250] + rng.uniform(0, 2.0**-20, size=(1250, 2, 1))
    totals = Totals.of(rows_of(values), num_resamples=3, seed=5)
    fixed = [[round(Fraction(float(x)) / UNIT) for x in values[:, a, 0]] for a in range(2)]
    weights = [[1] * 2500, *poisson_weights(np.arange(2500), 3, 5).tolist()]
    for r, w in enumerate(weights):
        for a in range(2):
            assert totals.sums[r, a, 0] == sum(x * y for x, y in zip(w, fixed[a], strict=True))
        assert totals.pair_sums[r, 0, 0] == sum(x * (y - z) for x, y, z in zip(w, *fixed, strict=True))


def test_means_are_those_of_numpy_on_dyadic_values():
    rng = np.random.default_rng(2)
    values = rng.integers(-(2**10), 2**10, size=(128, 3, 2)) / 2**8
    values[rng.random(values.shape) < 0.3] = np.nan
    totals = Totals.of(rows_of(values))
    found = bootstrap.means(totals).value
    np.testing.assert_array_equal(found, np.nanmean(values, axis=0))
    for a in range(3):
        for b in range(3):
            expected = np.nanmean(values[:, a] - values[:, b], axis=0)
            np.testing.assert_array_equal(bootstrap.differences(totals).value[a, b], expected)


def test_means_of_any_values_are_within_the_documented_error():
    values = np.random.default_rng(3).uniform(0, 1, size=(1000, 2, 3))
    exact = [[float(sum(map(Fraction, values[:, a, c])) / 1000) for c in range(3)] for a in range(2)]
    found = bootstrap.means(Totals.of(rows_of(values))).value
    assert 0 < np.abs(found - exact).max() < 1.2e-10


def test_infinities_and_large_values_are_out_of_range_and_nan_does_not_count():
    values = np.asarray([np.nan, np.inf, -np.inf, LIMIT, -LIMIT, np.nextafter(LIMIT, 0), 2.0]).reshape(7, 1, 1)
    totals = Totals.of(rows_of(values))
    assert totals.counts.item() == 2
    assert totals.out_of_range.item() == 4
    assert totals.excluded.item() == 5
    assert totals.sums.item() == (2**20 + 2) * 2**32  # 2^20 - 2^-33 is rounded up


def test_wins_by_hand():
    """Six images, of which y = 0, y = NaN and a NaN confidence do not compare."""
    o = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.7, 0.6], [0.9, 0.1], [np.nan, 0.1]]
    totals = Totals.of(rows_of(np.zeros((6, 2, 1)), o=o, y=[1, 1, 1, 0, np.nan, 1]))
    assert [totals.wins.item(), totals.ties.item(), totals.contests.item()] == [1, 1, 3]
    assert [totals.y_not_positive.item(), totals.y_not_finite.item()] == [1, 1]
    third = 100 / 3
    np.testing.assert_array_equal(bootstrap.wins(totals).value, [[np.nan, third], [third, np.nan]])
    np.testing.assert_array_equal(bootstrap.ties(totals), [[np.nan, third], [third, np.nan]])


def test_wins_losses_and_ties_are_everything():
    rows = random_rows(200, 4, 1, seed=4)
    totals = Totals.of(rows, num_resamples=50)
    won, tied = bootstrap.wins(totals).value, bootstrap.ties(totals)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose((won + won.T + tied)[off], 100, rtol=1e-14)
    assert tied[off].min() > 0  # or the ties were not tried
    found = bootstrap.wins(totals)
    assert ((found.low < found.value) & (found.value < found.high))[off].all()


def test_wins_and_ties_are_those_of_metrics():
    rows = random_rows(100, 3, 1, seed=8)
    totals = Totals.of(rows)
    won, tied = bootstrap.wins(totals).value, bootstrap.ties(totals)
    for a, b in permutations(range(3), 2):
        o_a, o_b, y = (jnp.asarray(x) for x in (rows.o[:, a], rows.o[:, b], rows.y))
        assert won[a, b] == pytest.approx(float(metrics.win(o_a, o_b, y)), rel=1e-14)
        assert tied[a, b] == pytest.approx(float(metrics.ties(o_a, o_b, y)), rel=1e-14)


def test_weights_are_poisson_numbers():
    weights = poisson_weights(np.arange(2000), 500, 7).ravel()
    num = weights.size
    assert abs(weights.mean() - 1) < 4 / math.sqrt(num)
    assert abs(weights.var() - 1) < 4 * math.sqrt(3 / num)  # the variance of (X - 1)^2 is 3
    top = 7
    expected = np.asarray([math.exp(-1) / math.factorial(j) for j in range(top)])
    expected = num * np.append(expected, 1 - expected.sum())
    observed = np.bincount(np.minimum(weights, top), minlength=top + 1)
    chi_square = float(np.sum((observed - expected) ** 2 / expected))
    assert chi_square < 24.3  # 7 degrees of freedom: 0.1 %


def test_weights_of_images_and_of_resamples_are_uncorrelated():
    weights = poisson_weights(np.arange(300), 300, 0) - 1.0
    for axis in (weights, weights.T):
        correlation = axis @ axis.T / 300
        np.fill_diagonal(correlation, 0)
        assert abs(correlation.sum()) / 300 < 4  # a sum of 300 * 299 numbers of variance 1/300, each twice
        assert np.abs(correlation).max() < 0.4
    assert not np.array_equal(weights, poisson_weights(np.arange(300), 300, 1) - 1.0)


def test_weights_depend_on_seed_image_and_resample_alone():
    index = np.asarray([5, 0, 2**62, 17, 3])
    weights = poisson_weights(index, 40, 11)
    np.testing.assert_array_equal(poisson_weights(index[[3, 2]], 25, 11), weights[:25, [3, 2]])


def test_the_hash_is_splitmix64():
    """Its published first outputs from state 1234567 (Steele, Lea and Flood; the reference in C by Vigna)."""
    from jaxcam.evaluation import poisson

    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = np.uint64(1234567) + poisson._steps(np.arange(5, dtype=np.uint64))
    assert poisson._mixed(states).tolist() == expected


def test_interval_of_a_mean_is_that_of_normal_theory():
    x = np.random.default_rng(5).normal(0.3, 0.2, size=1500)
    found = bootstrap.means(Totals.of(rows_of(x.reshape(-1, 1, 1)), num_resamples=4000))
    half = 1.96 * x.std() / math.sqrt(1500)
    assert found.low.item() == pytest.approx(x.mean() - half, abs=0.06 * half)
    assert found.high.item() == pytest.approx(x.mean() + half, abs=0.06 * half)


def test_interval_of_a_paired_difference_is_that_of_the_differences():
    """What is common to both methods is a hundred times what differs, and cancels."""
    rng = np.random.default_rng(6)
    common, noise = rng.normal(0, 1, size=(1500, 1)), rng.normal(0, 0.01, size=(1500, 2))
    values = common + noise + np.asarray([0.001, 0.0])
    totals = Totals.of(rows_of(values[:, :, None]), num_resamples=4000, seed=1)
    difference = values[:, 0] - values[:, 1]
    half = 1.96 * difference.std() / math.sqrt(1500)
    found = bootstrap.differences(totals)
    assert found.low[0, 1].item() == pytest.approx(difference.mean() - half, abs=0.06 * half)
    assert found.high[0, 1].item() == pytest.approx(difference.mean() + half, abs=0.06 * half)
    np.testing.assert_array_equal(found.low[1, 0], -found.high[0, 1])
    np.testing.assert_array_equal(found.high[1, 0], -found.low[0, 1])


def test_quantiles_are_those_of_numpy_without_the_empty_resamples():
    values = np.asarray([[0.25, 0.5], [np.nan, 0.75], [np.nan, 2.0]]).reshape(3, 2, 1)
    totals = Totals.of(rows_of(values), num_resamples=200, seed=2)
    weights = poisson_weights(np.arange(3), 200, 2)
    counted = np.where(np.isnan(values[:, :, 0]), 0, 1)
    with np.errstate(invalid="ignore"):
        means = (weights @ np.nan_to_num(values[:, :, 0])) / (weights @ counted)
    assert np.isnan(means).any(axis=0).all()  # or nothing is left out
    found = bootstrap.means(totals)
    for low_or_high, q in ((found.low, 0.025), (found.high, 0.975)):
        np.testing.assert_allclose(low_or_high[:, 0], np.nanquantile(means, q, axis=0), rtol=1e-14)


def test_a_method_against_itself_differs_by_exactly_zero():
    x = np.random.default_rng(7).normal(size=(50, 1, 2))
    x[3] = np.nan
    totals = Totals.of(rows_of(np.concatenate([x, x], axis=1)), num_resamples=100)
    for part in bootstrap.differences(totals):
        np.testing.assert_array_equal(part, np.zeros((2, 2, 2)))
        assert not np.signbit(part).any()


def test_nothing_counts_gives_nan_and_no_warning():
    totals = Totals.of(rows_of(np.full((4, 2, 1), np.nan), y=[0, 0, 0, 0]), num_resamples=10)
    for found in (bootstrap.means(totals), bootstrap.differences(totals), bootstrap.wins(totals)):
        assert all(np.isnan(part).all() for part in found)
    without = bootstrap.means(Totals.of(rows_of(np.ones((4, 2, 1)))))
    np.testing.assert_array_equal(without.value, np.ones((2, 1)))
    assert np.isnan(without.low).all()
    assert np.isnan(without.high).all()


def test_totals_are_a_pytree_and_empty_totals_are_zero():
    totals = Totals.of(random_rows(10, 2, 2), num_resamples=3)
    doubled = jax.tree.map(lambda x: x * 2, totals)
    assert same(merge(totals, totals), doubled)
    empty = Totals.of(taken(random_rows(10, 2, 2), []), num_resamples=3)
    assert not any(x.any() for x in empty)
    assert same(merge(empty, totals), totals)


def test_overflow_raises(unchecked):
    large = Totals.of(rows_of(np.full((1000, 1, 1), 2.0**20 - 1)))
    assert merge(large, large).sums.item() == 2000 * (2**20 - 1) * 2**32
    with pytest.raises(OverflowError, match="sums: the total does not fit 64 bits"):
        merge(merge(large, large), large)
    negative = large._replace(sums=-large.sums)
    with pytest.raises(OverflowError, match="sums"):
        merge(merge(negative, negative), negative)
    with pytest.raises(OverflowError, match="sums"):  # over the chunks of one block
        Totals.of(rows_of(np.full((3000, 1, 1), 2.0**20 - 1)))
    opposite = np.stack([np.full((1024, 1), 2.0**20 - 1), np.full((1024, 1), -(2.0**20) + 1)], axis=1)
    Totals.of(rows_of(opposite[:1000]))
    with pytest.raises(OverflowError, match="pair_sums"):  # within one chunk: differences of 2^21, weights above one
        Totals.of(rows_of(opposite), num_resamples=50)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"y": np.zeros(4)}, {}, ValueError, r"rows.y must be \[3\] next to values \[3, 2, 1\], but came as \[4\]"),
        ({"o": np.zeros((3, 1))}, {}, ValueError, r"rows.o must be \[3, 2\]"),
        ({"values": np.zeros((3, 2))}, {}, ValueError, r"rows.values must be \[n, m, k\]"),
        ({"values": np.zeros((3, 2, 1), np.float32)}, {}, TypeError, "rows.values must .* float64, not float32"),
        ({"index": [0, 1, 2]}, {}, TypeError, "rows.index must be a NumPy array of int64, not list"),
        ({"status": np.full((3, 2), 6, np.int32)}, {}, ValueError, "0 to 5"),
        ({}, {"num_resamples": -1}, ValueError, "num_resamples must be from 0 to .*, but is -1"),
        ({}, {"num_resamples": 2.0}, TypeError, "num_resamples must be an integer, not 2.0"),
        ({}, {"seed": 2**64}, ValueError, "seed must be from 0"),
        ({}, {"seed": True}, TypeError, "seed must be an integer, not True"),
    ],
)
def test_bad_input(unchecked, change, options, error, message):
    rows = rows_of(np.zeros((3, 2, 1)))._replace(**change)
    with pytest.raises(error, match=message):
        Totals.of(rows, **options)


def test_totals_of_different_shapes_do_not_merge(unchecked):
    a, b = (Totals.of(rows_of(np.zeros((3, 2, 1))), num_resamples=n) for n in (0, 5))
    with pytest.raises(ValueError, match=r"images is \[1\] in one and \[6\] in the other"):
        merge(a, b)

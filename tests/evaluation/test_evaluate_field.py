"""`evaluate`'s ROAD, infidelity, max-sensitivity, MaxBoxAccV2, PxAP and random weights against NumPy, by picture.

The network is one layer position by position, ReLU, the mean and a linear layer, so that Grad-CAM of a class c is
ReLU(A v_c) on the picture's own grid, and NumPy says what the network says.
"""

import inspect
import json
import re
import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import metrics
from jaxcam.evaluation.plan import GROUPS, passes_of
from jaxcam.evaluation.statistics import Rows, statistics
from jaxcam.evaluation.tallies import TALLIES, Sums, pixels, reached

evaluate = partial(inspect.unwrap(jaxcam.evaluate), show_progress=False, num_resamples=20)
SIZE, NUM = (6, 7), 5
FIELD = ("thresholds", "road", "infidelity", "sensitivity", "sanity", "randomised")
PROTOCOL = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true", num_squares=4, num_noises=3, noise=0.5)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


class Net:
    def __init__(self, kernel, head):
        self.kernel, self.head = kernel, head

    def __call__(self, x):
        return jax.nn.relu(x @ self.kernel).mean((1, 2)) @ self.head

    def activations(self, x):
        return np.maximum(x @ self.kernel, 0)

    def confidence(self, x, c):
        logits = self.activations(x).mean((0, 1)) @ self.head
        e = np.exp(logits - logits.max())
        return e[c] / e.sum()

    def raw(self, x, c):
        return np.maximum(self.activations(x) @ self.head[:, c], 0)

    def heatmap(self, x, c):
        raw = self.raw(x, c)
        return raw / max(raw.max(), 1e-300)


NET = Net(normal(1, 2, 5), normal(2, 5, 3))
DATA = [normal(10 + i, *SIZE, 2) for i in range(NUM)]
LABELS = [int(np.argmax([NET.raw(x, c).mean() for c in range(3)])) for x in DATA]
BOXES = [np.array([[1.0, 1, 4, 5], [0, 0, 2, 2]]), *(np.array([[i, 1.0, i + 3, 4]]) for i in range(NUM - 1))]


def mask_of(boxes):
    inside = np.zeros(SIZE, bool)
    for x0, y0, x1, y1 in boxes.astype(int):
        inside[y0:y1, x0:x1] = True
    return inside


def examples():
    return [
        jaxcam.Example(
            x, label=c, boxes=boxes, masks=np.stack([mask_of(boxes[[i]]) for i in range(len(boxes))]),
            box_classes=[c] * len(boxes),
        )
        for x, c, boxes in zip(DATA, LABELS, BOXES, strict=True)
    ]  # fmt: skip


def empty_on_two(activations):
    """A map of the activations alone, and none on the two pictures on which they are lowest."""
    return jnp.where(activations.sum() > THRESHOLD, activations.sum(-1), 0)


TOTALS = [NET.activations(x).sum() for x in DATA]
THRESHOLD = sum(sorted(TOTALS)[1:3]) / 2


@pytest.fixture(scope="module")
def found():
    methods = {"grad_cam": "grad_cam", "sum": empty_on_two}
    return evaluate(NET, examples(), methods=methods, metrics=FIELD, protocol=PROTOCOL, batch_size=2, seed=3)


def test_rows_are_those_of_numpy(found):
    seed_key = jax.random.key(np.uint32(3), impl="threefry2x32")
    squares = metrics.squares(SIZE, 4, seed=3)
    for x, c, row in zip(DATA, LABELS, found.rows(), strict=True):
        heatmap, f = NET.heatmap(x, c), partial(NET.confidence, c=c)
        # ROAD: the pixels at or above each percentile, filled in by a dense system, with the seed's noise on them.
        noise = 0.01 * np.asarray(jax.random.normal(seed_key, x.shape, x.dtype))
        gained = []
        for p in range(10, 100, 10):
            order = np.argsort(np.argsort(-heatmap.reshape(-1), kind="stable")).reshape(SIZE)
            count = heatmap.size - int(np.ceil((heatmap.size - 1) * p / 100))  # zeros are equal: reading order
            o = [
                f(filled(x, gone) + noise * gone[..., None]) for gone in (order >= heatmap.size - count, order < count)
            ]
            gained.append(o[0] - o[1])
        assert row["grad_cam/road"] == pytest.approx(np.mean(gained) / 2, abs=2e-6)
        # Infidelity: the heat in each square against what the confidence loses.
        b = np.array([f(x) - f(np.where(square[..., None], 0, x)) for square in squares])
        a = np.array([heatmap[square].sum() for square in squares])
        error = ((a * (a @ b) / (a @ a) - b) ** 2).mean() / (b**2).mean()
        assert row["grad_cam/infidelity"] == pytest.approx(error, rel=1e-5)
        # Max-sensitivity: half a standard deviation of uniform noise, three times.
        keys = [jax.random.fold_in(seed_key, np.uint32(i)) for i in range(3)]
        deltas = [np.asarray(jax.random.uniform(key, x.shape, x.dtype, -1, 1)) for key in keys]
        apart = [np.linalg.norm(NET.heatmap(x + 0.5 * x.std() * delta, c) - heatmap) for delta in deltas]
        assert row["grad_cam/max_sensitivity"] == pytest.approx(max(apart) / np.linalg.norm(heatmap), rel=1e-5)


def filled(image, removed):
    """Each removed pixel is the weighted mean of its neighbours, all equations together."""
    height, width = removed.shape
    matrix, right = np.eye(removed.size), image.reshape(removed.size, -1).copy()
    for i, j in np.argwhere(removed):
        near = [(i + a, j + b, 1 / (6 if 0 in (a, b) else 12)) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        near = [each for each in near if 0 <= each[0] < height and 0 <= each[1] < width]
        right[i * width + j] = 0
        for y, x, w in near:
            matrix[i * width + j, y * width + x] -= w / sum(each[2] for each in near)
    return np.linalg.solve(matrix, right).reshape(image.shape)


def test_random_weights_are_those_of_a_shuffled_copy(found):
    """Only the head, only the layer before, or both in another order: each array by its own number."""

    def shuffle(array, i):
        key = jax.random.key(i, impl="threefry2x32")
        return np.asarray(jax.random.permutation(key, array.reshape(-1))).reshape(array.shape)

    kernel, head = (shuffle(array, i) for i, array in enumerate((NET.kernel, NET.head)))
    correlation, entropy = jax.jit(metrics.rank_correlation), jax.jit(metrics.emprt)
    others = {"sanity": Net(NET.kernel, head), "bottom_up": Net(kernel, NET.head), "emprt": Net(kernel, head)}
    counted = 0
    for x, c, row in zip(DATA, LABELS, found.rows(), strict=True):
        for key, other in others.items():
            metric = entropy if key == "emprt" else correlation
            expected = float(metric(NET.raw(x, c), other.raw(x, c)))
            assert row[f"grad_cam/{key}"] == pytest.approx(expected, abs=1e-6, nan_ok=True), key
            counted += np.isfinite(expected)
    assert counted > 10


def heatmaps_of(method):
    """As the second method makes them too; those that count."""
    if method == "grad_cam":
        return [NET.heatmap(x, c) for x, c in zip(DATA, LABELS, strict=True)]
    sums = [NET.activations(x).sum(-1) for x in DATA]
    return [s / s.max() if total > THRESHOLD else 0 * s for s, total in zip(sums, TOTALS, strict=True)]


def worth(heatmaps, which):
    """MaxBoxAccV2 and PxAP of a list of pictures, some of them more than once, by the functions of `metrics`."""
    if not which:
        return np.array([np.nan, np.nan])
    maps, masks = np.stack([heatmaps[i] for i in which]), np.stack([mask_of(BOXES[i]) for i in which])
    boxes = metrics.max_box_acc(maps, [BOXES[i] for i in which]).mean()
    return np.array([boxes, metrics.pxap(np.floor(maps * 256) / 256, masks)])


def test_figures_of_the_whole_data_set_and_their_intervals(found):
    """Each resample is the list of its pictures, repeated as often as they were drawn; of a pair those of both."""
    columns = [found.metrics.index(key) for key in TALLIES]
    weights = np.concatenate([np.ones((1, NUM)), np.random.default_rng(3).poisson(1.0, (20, NUM))]).astype(int)
    drawn = [np.repeat(np.arange(NUM), w) for w in weights]
    maps = [heatmaps_of(name) for name in found.methods]
    counts = [[i for i in range(NUM) if each[i].any()] for each in maps]
    assert [len(each) for each in counts] == [5, 3]
    for m, each in enumerate(maps):
        figures = np.array([worth(each, [i for i in w if i in counts[m]]) for w in drawn])
        for k, j in enumerate(columns):
            mean = found.table.means
            low, high = np.nanquantile(figures[1:, k], [0.025, 0.975])
            assert (mean.value[m, j], mean.low[m, j], mean.high[m, j]) == pytest.approx((figures[0, k], low, high))
            assert found.table.statistics.counts[m, j] == len(counts[m])
    both = [[i for i in w if i in counts[0] and i in counts[1]] for w in drawn]
    apart = np.array([worth(maps[0], w) - worth(maps[1], w) for w in both])
    for k, key in enumerate(TALLIES):
        low, high = np.nanquantile(apart[1:, k], [0.025, 0.975])
        assert found.difference("grad_cam", "sum")[key] == pytest.approx((apart[0, k], low, high, 3))
        assert found.difference("sum", "grad_cam")[key] == pytest.approx((-apart[0, k], -high, -low, 3))


def test_an_empty_map_counts_for_none_of_them(found):
    empty = [not each.any() for each in heatmaps_of("sum")]
    assert sum(empty) == 2
    for row, is_empty in zip(found.rows(), empty, strict=True):
        for key in found.metrics:
            if is_empty:
                assert np.isnan(row[f"sum/{key}"]), key
    assert re.search(r"MaxBoxAccV2,[^.]* do not count: sum 2\.", str(found))
    assert not found.table.best[1].any()


def test_resumed_streamed_and_in_another_order_the_table_is_the_same(found, tmp_path):
    options = {"methods": {"grad_cam": "grad_cam", "sum": empty_on_two}, "metrics": FIELD, "protocol": PROTOCOL}
    results = tmp_path / "rows.jsonl"
    whole = evaluate(NET, examples(), **options, results=results, batch_size=2, seed=3)
    assert whole.json() == found.json()
    header, *lines = results.read_bytes().splitlines(keepends=True)
    assert list(json.loads(lines[0])["tallies"]) == list(TALLIES)
    results.unlink()
    (tmp_path / "rows.jsonl.part").write_bytes(b"".join([header, lines[3], lines[0], lines[1]]))
    assert evaluate(NET, examples(), **options, results=results, batch_size=2, seed=3).json() == found.json()
    streamed = evaluate(NET, iter(examples()), **options, batch_size=2, seed=3)
    assert streamed.table.to_dict()["rows"] == found.table.to_dict()["rows"]
    split = whole.compare(whole)["grad_cam"]
    assert all(split[key].value == 0 for key in TALLIES)
    # A tally that is too short is no line of ours.
    record = json.loads(lines[0])
    record["tallies"]["pxap"][0] = [1, 2]
    del record["crc32"]
    body = json.dumps(record).encode()
    line = body[:-1] + f', "crc32": "{zlib.crc32(body):08x}"}}\n'.encode()
    results.unlink()
    (tmp_path / "rows.jsonl.part").write_bytes(header + line)
    with pytest.raises(ValueError, match=r"tally of pxap must be 512 whole numbers"):
        evaluate(NET, examples(), **options, results=results, batch_size=2, seed=3)


def test_tallies_by_hand():
    heatmap = np.array([[1.0, 0.5], [0.0, 0.249]])
    numbers = pixels(heatmap, np.array([[True, False], [False, True]]))
    inside, outside = numbers[:256], numbers[256:]
    # 1 and 0.249 inside are the levels 255 and 63; 0.5 and 0 outside are 128 and 0. The highest comes first.
    assert np.flatnonzero(inside).tolist() == [0, 255 - 63]
    assert np.flatnonzero(outside).tolist() == [255 - 128, 255]
    # Recall 1/2 at precision 1, then 1 at 2/3.
    assert TALLIES["pxap"].figure(numbers) == pytest.approx((1 + 2 / 3) / 2)
    # A box of one pixel against one of two: IoU 1/2 from 0.5 on, 1 (both pixels) below, and 2/3 with three at 0.
    found = reached(np.array([[1.0, 0.5, 0.005]]), np.array([[0.0, 0, 2, 1]]))
    assert found[0] == 2
    assert found[1:50].tolist() == [3] * 49
    assert found[50:].tolist() == [2] * 50
    sums = Sums(TALLIES["max_box_acc"], 1)
    # Two pictures, of which one reaches all at low thresholds and the other at high ones: the best is one of both.
    sums.add(np.array([[np.r_[[3.0] * 10, [0] * 90]], [np.r_[[0.0] * 10, [3] * 90]]]), np.array([[1.0, 1], [3, 1]]))
    assert sums.figures[0].tolist() == [[0.5], [0.75]]


def test_statistics_without_pictures_have_no_figures():
    rows = Rows(
        np.zeros(0), np.zeros((0, 1)), np.zeros((0, 1, 1)), np.zeros((0, 1), int), {"pxap": np.zeros((0, 1, 512))}
    )
    found = statistics([rows], 1, 1, tallies={"pxap": 0})
    assert np.isnan(found.means.value).all()


def test_what_is_not_asked_for_costs_nothing():
    """Passes a picture, by hand: with two methods 1 + 2 for their masks; 18 for ROAD of each; 4 squares for both."""
    assert passes_of(PROTOCOL, ("confidence", "localisation", "shape"), 2) == 3
    assert passes_of(PROTOCOL, ("confidence", "road"), 2) == 3 + 36
    assert passes_of(PROTOCOL, ("confidence", "infidelity"), 2) == 3 + 4
    assert passes_of(PROTOCOL, ("confidence", "sensitivity", "sanity", "randomised"), 2) == 3 + 2 * (3 + 1 + 2)
    assert passes_of(PROTOCOL, GROUPS, 1) == 1 + (1 + 1 + 1 + 66 + 18 + 3 + 1 + 2) + 4


def test_series_have_no_pictures_metrics(unchecked):
    series = [jaxcam.Example(normal(i, 9, 2), label=0, masks=np.ones((1, 9), bool)) for i in range(2)]
    net = jaxcam.adapt(lambda x: jax.nn.relu(x @ NET.kernel).mean(1) @ NET.head)
    with pytest.raises(ValueError, match='metrics: "road" is of pictures, with two axes of positions'):
        evaluate(net, series, methods=["grad_cam"], metrics=["road"])


@pytest.mark.thorough
def test_all_metrics_of_series_are_those_without_pictures():
    series = [jaxcam.Example(normal(i, 9, 2), label=0, masks=np.ones((1, 9), bool)) for i in range(2)]
    net = jaxcam.adapt(lambda x: jax.nn.relu(x @ NET.kernel).mean(1) @ NET.head)
    protocol = jaxcam.Protocol(mask="input", baseline="zero", num_squares=1, num_noises=1, num_steps=1)
    found = evaluate(net, series, methods=["grad_cam"], metrics="all", protocol=protocol)
    assert not {"road", "pxap", "max_box_acc"} & set(found.metrics)
    assert {"infidelity", "max_sensitivity", "bottom_up", "emprt"} <= set(found.metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_squares": 0}, "num_squares must be at least 1"), ({"noise": 0}, "noise must be above 0")],
)
def test_protocols_without_changes_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(jaxcam.Protocol)(**options)

import csv
import html
import io
import json
import math
import re

import numpy as np
import pytest

from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.rendering import number
from jaxcam.evaluation.statistics import Rows, statistics
from jaxcam.evaluation.table import Table
from jaxcam.explanation.explanation import Status

DROP = Column("average_drop", "average drop", "%", "lower", 100.0)
IOU = Column("iou", "mask IoU", "", "higher", 1.0)
SPARSITY = Column("sparsity", "sparsity")


def table_of(values, columns, *, names=("cam", "grad_cam", "grad_cam_pp"), num_resamples=0, o=None, **rest):
    values = np.asarray(values, np.float64)
    n, m, k = values.shape
    rows = Rows(
        y=np.asarray(rest.pop("y", np.ones(n)), np.float64),
        o=np.zeros((n, m)) if o is None else np.asarray(o, np.float64),
        values=values,
        status=np.asarray(rest.pop("status", np.zeros((n, m))), np.int32),
    )
    shares = [column.is_share for column in columns]
    found = statistics([rows], m, k, shares=shares, num_resamples=num_resamples)
    return Table(list(names[:m]), columns, found, **rest)


def weights_of(num_resamples, num_images):
    """What the statistics draw."""
    return np.random.default_rng(0).poisson(1.0, (num_resamples, num_images))


def small(**rest):
    """Four images, two methods: drops by hand, one of them NaN; no IoU at all."""
    nan = math.nan
    values = [
        [[0.5, nan, 1.0], [0.25, nan, -0.001]],
        [[0.25, nan, 1.0], [0.5, nan, 0.0]],
        [[0.75, nan, 2.0], [nan, nan, 0.0]],
        [[0.5, nan, math.inf], [0.75, nan, 0.0]],
    ]
    o = [[0.9, 0.8], [0.1, 0.2], [0.3, 0.2], [0.4, 0.4]]
    facts = {"model": "mini_vgg", "a|b": "two\nlines"}
    return table_of(values, [DROP, IOU, SPARSITY], o=o, facts=facts, **rest)


def test_text_by_hand():
    assert small(num_bad=2, status=[[1, 0], [0, 0], [0, 3], [1, 0]]).text() == (
        "model: mini_vgg\n"
        "a|b: two lines\n"
        "\n"
        "method    average drop %   mask IoU   sparsity\n"
        "                 (lower)   (higher)\n"
        "-----------------------------------------------\n"
        "cam                50.00          -      1.333\n"
        "grad_cam           50.00          -      0.000\n"
        "\n"
        "Means over the images that count; (lower) and (higher) say which is better.\n"
        "Without resamples there are no intervals, and no method is marked as the best.\n"
        '"-": no image counts; see below.\n'
        "\n"
        "Win %: on which share of the images the row's method keeps more of the confidence than the column's.\n"
        "A tie is a win of neither; [low, high]: Wilson's 95 % interval. "
        "Images with a positive confidence on them: 4.\n"
        "\n"
        "method                                cam                          grad_cam\n"
        "---------------------------------------------------------------------------\n"
        "cam                                        50.00 [15.00, 85.00], 25.00 tied\n"
        "grad_cam  25.00 [4.56, 69.94], 25.00 tied\n"
        "\n"
        "McNemar's exact test on the same images, two-sided, p: wins 1.000.\n"
        "\n"
        "Images: 4; bad images, in no figure: 2.\n"
        "average drop does not count: grad_cam 1.\n"
        "mask IoU does not count: 4 with every method.\n"
        "sparsity does not count: cam 1 (1 out of range).\n"
        "Status zero map: cam 2.\n"
        "Status not finite: grad_cam 1."
    )
    assert str(small()) == small().text()


def test_metrics_that_leave_out_the_same_images_are_told_together():
    nan = math.nan
    values = [[[0.5, nan, 1.0], [0.25, nan, nan]], [[nan, 0.5, 1.0], [nan, 0.5, 1.0]]]
    lines = table_of(values, [DROP, IOU, SPARSITY]).text().splitlines()
    at = lines.index("average drop, mask IoU do not count: 1 with every method.")
    assert lines[at + 1] == "sparsity does not count: grad_cam 1."


def test_markdown_by_hand():
    table = small(names=("c|am", "back\\slash"))
    lines = table.markdown().splitlines()
    assert lines[:7] == [
        "- model: mini_vgg",
        "- a\\|b: two lines",
        "",
        "| method | average drop % (lower) | mask IoU (higher) | sparsity |",
        "| --- | ---: | ---: | ---: |",
        "| c\\|am | 50.00 | - | 1.333 |",
        "| back\\\\slash | 50.00 | - | 0.000 |",
    ]
    assert "| c\\|am |  | 50.00 [15.00, 85.00], 25.00 tied |" in lines
    assert "- Status of every map: ok." in lines
    for line in lines:  # as many cells in every row of a table, whatever the names are
        if line.startswith("|"):
            assert len(re.split(r"(?<!\\)\|", line)) in (6, 5)


def test_a_notebook_has_the_same_as_markdown():
    table = small(names=("<i>cam", "grad_cam"), num_bad=2)
    shown = table._repr_html_()
    assert shown.startswith("<p>model: mini_vgg<br>a|b: two lines</p>")
    assert "<i>" not in shown
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", shown)]
    pipes = [line.strip("| ").split(" | ") for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(rows) == 6  # both tables
    wanted = [[html.escape(cell) for cell in row] for row in pipes if "---" not in row]
    assert [[cell for cell in row if cell] for row in rows] == [[cell for cell in row if cell] for row in wanted]
    notes = [re.sub("^- ", "", line) for line in table.markdown().splitlines() if line.startswith("- ")]
    for note in notes[2:]:
        assert html.escape(note) in shown


def test_cells_have_the_interval_of_the_resamples():
    """The quantiles again, by NumPy, from the images and their weights."""
    x = np.random.default_rng(0).random((40, 2))
    table = table_of(x[:, :, None], [DROP], num_resamples=400)
    weights = weights_of(400, 40)
    means = 100 * (weights @ x) / weights.sum(axis=1, keepdims=True)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    text = table.text()
    for i in range(2):
        assert f"{100 * x[:, i].mean():.2f} [{low[i]:.2f}, {high[i]:.2f}]" in text
    assert "95 % interval, from 400 bootstrap resamples" in text


def test_csv_read_back_gives_the_numbers_exactly():
    rng = np.random.default_rng(1)
    values = rng.random((30, 3, 2))
    values[:4, 1, 0] = np.nan
    names = ('say "cam"', "a,b", "two\nlines")
    table = table_of(values, [DROP, IOU], names=names, num_resamples=20)
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert [(row["method"], row["metric"]) for row in rows] == [(n, c) for n in names for c in ("average_drop", "iou")]
    for row, (i, j) in zip(rows, np.ndindex(3, 2), strict=True):
        scale = (100.0, 1.0)[j]
        for name, part in zip(("mean", "low", "high"), table.statistics.means, strict=True):
            assert float(row[name]) == part[i, j] * scale
        count = int(np.sum(~np.isnan(values[:, i, j])))
        assert (int(row["count"]), int(row["excluded"])) == (count, 30 - count)
        assert float(row["mean"]) == pytest.approx(scale * np.nanmean(values[:, i, j]), abs=1e-7)
        assert row["unit"] == ("%", "")[j]


def test_csv_is_empty_where_there_is_no_number():
    rows = list(csv.DictReader(io.StringIO(small().csv())))
    assert rows[1] == {
        "method": "cam", "metric": "iou", "unit": "", "mean": "", "low": "", "high": "", "count": "0", "excluded": "4",
    }  # fmt: skip
    assert (rows[0]["mean"], rows[0]["low"]) == ("50.0", "")


def test_json_has_everything_and_null_for_nan():
    table = small(num_bad=3, y=[1.0, 1.0, 1.0, -1.0], status=[[1, 0], [0, 0], [0, 3], [1, 0]])
    data = json.loads(table.json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data == table.to_dict()
    assert data["facts"] == {"model": "mini_vgg", "a|b": "two\nlines"}
    assert [data[name] for name in ("images", "bad_images", "y_not_positive", "y_not_finite")] == [4, 3, 1, 0]
    assert data["rows"][0] == {
        "method": "cam", "metric": "average_drop", "unit": "%", "mean": 50.0, "low": None, "high": None, "count": 4,
        "excluded": 0, "out_of_range": 0, "best": False,
    }  # fmt: skip
    assert data["rows"][2]["out_of_range"] == 1
    assert data["rows"][1]["mean"] is None
    assert data["wins"][0] == {
        "method": "cam", "against": "grad_cam", "percent": pytest.approx(200 / 3),
        "low": pytest.approx(20.766, abs=1e-3), "high": pytest.approx(93.851, abs=1e-3), "ties": 0.0, "images": 3,
    }  # fmt: skip
    assert data["wins"][1]["percent"] == pytest.approx(100 / 3)
    assert data["wins"][1]["images"] == 3
    assert data["status"]["cam"] == {s.name.lower(): {0: 2, 1: 2}.get(s, 0) for s in Status}
    assert data["columns"][0] == DROP._asdict()


def test_the_best_is_marked_where_it_is_clear_of_all_others():
    """Methods 0 and 2 differ from 1 by a constant on every image, so the paired interval has no width."""
    base = np.random.default_rng(2).random((50, 1))
    apart = base + np.asarray([0.0, 0.25, 0.5])
    mixed = base + np.asarray([0.0, 0.0, 0.5])  # two are the same
    unsure = np.random.default_rng(3).random((50, 3))
    values = np.stack([apart, apart, apart, mixed, mixed, unsure], axis=2)
    better = ["lower", "higher", "", "lower", "higher", "higher"]
    columns = [Column(f"k{i}", f"metric {i}", "", b) for i, b in enumerate(better)]
    table = table_of(values, columns, num_resamples=200)
    expected = np.zeros((3, 6), bool)
    expected[0, 0] = expected[2, 1] = expected[2, 4] = True
    np.testing.assert_array_equal(table.best, expected)
    lines = table.text().splitlines()
    assert [sum(x.count("*") for x in lines if x.startswith(f"{name} ")) for name in table.names] == [1, 0, 2]
    rows = [line for line in table.markdown().splitlines() if line.startswith(("| cam", "| grad_cam"))][:3]
    bold = [[cell.startswith(" **") and cell.endswith("** ") for cell in row.split("|")[2:-1]] for row in rows]
    np.testing.assert_array_equal(bold, expected)
    first_block = next(line for line in lines if line.startswith("cam "))
    assert re.match(r"cam +[\d.]+ \[[\d., ]+\]\* ", first_block)  # the mark is in the first column
    assert "*: the best of its column" in table.text()
    assert not table_of(values, columns).best.any()
    assert not table_of(values[:, :1], columns, num_resamples=200).best.any()


def test_shares_are_told_with_their_tests():
    """Three methods with 30, 40 and 40 hits of 40: the first misses ten that both others hit."""
    hits = np.ones((40, 3, 1))
    hits[:10, 0] = 0
    o = np.tile([0.1, 0.2, 0.2], (40, 1))
    share = Column("pointing", "pointing game", "%", "higher", 100.0, True)
    table = table_of(hits, [share], o=o, num_resamples=50)
    text = " ".join(table.text().split())
    assert "100.00 [91.24, 100.00]" in text  # 1 / (1 + z^2 / 40)
    assert "from 50 bootstrap resamples with all methods paired; Wilson's of shares (pointing game)." in text
    assert "of 3 comparisons (3 pairs of methods, 1 metrics) of what is the same, 1 or so would be apart" in text
    # Six tests: ten against none twice, none against none, 40 against none twice, none against none.
    one, win = 2 / 2**10, 2 / 2**40
    found = table.mcnemar("grad_cam", "cam")
    assert found["pointing"] == (10, 0, one, pytest.approx(4 * one))
    assert found["wins"] == (40, 0, pytest.approx(win), pytest.approx(6 * win))
    assert table.mcnemar("grad_cam", "grad_cam_pp")["pointing"] == (0, 0, 1, 1)
    assert "corrected by Holm for all 6: with p below 0.05, of 3 pairs of methods, pointing game 2, wins 2." in text
    assert table.to_dict()["mcnemar"][0] == {
        "method": "cam", "against": "grad_cam", "metric": "pointing", "more": 0, "less": 10, "p": one,
        "p_holm": pytest.approx(4 * one),
    }  # fmt: skip
    assert not table.best.any()  # two are the same
    two = table_of(hits[:, :2], [share], o=o[:, :2])
    assert two.best[:, 0].tolist() == [False, True]
    assert "Without resamples means that are no shares have no intervals" in two.text()
    # Five against none: the interval of the difference excludes 0, the exact test does not (p = 1 / 16).
    few = np.ones((40, 2, 1))
    few[:5, 0] = 0
    unsure = table_of(few, [share])
    assert unsure.differences("grad_cam", "cam")["pointing"].low > 0
    assert not unsure.best.any()
    with pytest.raises(ValueError, match="a and b must be two methods, but both are 'cam'"):
        table.mcnemar("cam", "cam")


def test_the_best_has_no_rival_where_nothing_counts():
    values = np.random.default_rng(4).random((50, 1, 1)) + np.asarray([0.0, 0.25, np.nan])[:, None]
    table = table_of(values, [IOU], num_resamples=100)
    assert table.best[:, 0].tolist() == [False, True, False]
    alone = table_of(np.where([[[True], [False], [False]]], values, np.nan), [IOU], num_resamples=100)
    assert not alone.best.any()
    assert "here there is none" in " ".join(alone.text().split())


def test_the_best_of_the_pairs_is_not_marked_if_another_has_the_better_mean():
    """Method 0 is better on every image that both have; method 1 has others, on which it is better still."""
    values = np.full((40, 2, 1), np.nan)
    values[:20, 0, 0], values[:20, 1, 0], values[20:, 1, 0] = 0.5, 0.25, 1.0
    assert not table_of(values, [IOU], num_resamples=100).best.any()


def test_what_is_left_out_does_not_help():
    """Method 0 is better wherever it counts, which is on a quarter of the images."""
    values = np.full((40, 2, 1), 0.5)
    values[:10, 0], values[10:, 0] = 0.9, np.nan
    assert not table_of(values, [IOU], num_resamples=100).best.any()
    values[:, 0] = 0.9
    assert table_of(values, [IOU], num_resamples=100).best[:, 0].tolist() == [True, False]


def test_differences_of_two_methods():
    x = np.random.default_rng(5).random((60, 3, 2))
    x[:5, 0, 1] = np.nan
    table = table_of(x, [DROP, IOU], num_resamples=300)
    found = table.differences("cam", "grad_cam_pp")
    weights = weights_of(300, 60)
    for key, c, scale, kept in (("average_drop", 0, 100, slice(None)), ("iou", 1, 1, slice(5, None))):
        d, w = scale * (x[kept, 0, c] - x[kept, 2, c]), weights[:, kept]
        low, high = np.quantile((w @ d) / w.sum(axis=1), [0.025, 0.975])
        assert found[key][:3] == pytest.approx((d.mean(), low, high), abs=1e-7)
        assert found[key].images == len(d)
    back = table.differences("grad_cam_pp", "cam")["iou"]
    assert back == (-found["iou"].value, -found["iou"].high, -found["iou"].low, 55)
    assert table.differences("cam", "cam") == {"average_drop": (0.0, 0.0, 0.0, 60), "iou": (0.0, 0.0, 0.0, 55)}


@pytest.mark.parametrize(
    ("x", "decimals", "expected"),
    [
        (-0.001, 2, "0.00"),
        (-0.0, 2, "0.00"),
        (-0.006, 2, "-0.01"),
        (0.0, 3, "0.000"),
        (-12.345, 1, "-12.3"),
        (math.nan, 2, "-"),
    ],
)
def test_no_negative_zero(x, decimals, expected):
    assert number(x, decimals) == expected


def test_a_wide_table_is_broken_into_blocks_of_columns():
    values = np.random.default_rng(6).random((30, 3, 14))
    values[:, :, 13] *= 1000
    columns = [Column(f"k{i}", f"metric number {i}", "", "higher") for i in range(14)]
    table = table_of(values, columns, num_resamples=50, o=np.random.default_rng(7).random((30, 3)))
    lines = table.text().splitlines()
    assert max(map(len, lines)) <= 120
    headers = [line for line in lines if line.startswith("method") and "metric" in line]
    assert len(headers) > 1
    assert re.findall(r"metric number \d+", " ".join(headers)) == [column.title for column in columns]
    assert sum(line.startswith("grad_cam_pp ") for line in lines) == len(headers) + 1  # and the wins
    cells = re.findall(r"^cam +(.*)$", table.text(), re.MULTILINE)
    means = [float(x) for line in cells for x in re.findall(r"([-\d.]+) \[", line)][:14]
    np.testing.assert_allclose(means, values[:, 0].mean(axis=0), atol=5.1e-4)
    assert len(table.markdown().split("metric number 13")) == 2


def test_one_method_has_no_win_matrix_and_equal_rows_equal_bytes():
    values = np.random.default_rng(8).random((9, 1, 1))
    text = table_of(values, [IOU], num_resamples=9).text()
    assert "Win" not in text
    assert "Win" not in table_of(values, [IOU]).markdown()
    again = table_of(values.copy(), [IOU], num_resamples=9)
    assert again.text() == text


def test_confidences_that_are_not_positive_are_told():
    text = small(y=[-1.0, 0.0, math.nan, 1.0]).text()
    assert "Confidence on the image: zero or negative 2, not finite 1." in text
    assert "Images with a positive confidence on them: 1." in text
    assert "100.00 tied" in text  # the fourth image
    assert "0.00 tied" not in small(y=[1.0, 1.0, 1.0, 0.0]).text()


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (["a"], [IOU], "the statistics are of 2 methods and 1 metrics, but there are 1 names and 1 columns"),
        (["a", "b"], [IOU, DROP], "but there are 2 names and 2 columns"),
        (["a", "a"], [IOU], "the names must differ from each other, but 'a' comes twice"),
        (["a", "b"], [IOU._replace(better="more")], "better of 'iou' must be"),
        (["a", "b"], [IOU._replace(scale=0.0)], "scale of 'iou' must be positive and finite, not 0.0"),
    ],
)
def test_bad_tables(unchecked, names, columns, message):
    found = table_of(np.zeros((3, 2, 1)), [IOU]).statistics
    with pytest.raises(ValueError, match=re.escape(message)):
        Table(names, columns, found)


def test_unknown_methods_have_no_differences(unchecked):
    with pytest.raises(ValueError, match="b='camm' is not in this table: its methods are 'cam', 'grad_cam'"):
        small().differences("cam", "camm")

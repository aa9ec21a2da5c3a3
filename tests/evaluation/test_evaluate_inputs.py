"""`evaluate` on what is no picture, against a loop in NumPy: the map, the mask and every metric from their definitions.

The networks are one layer, ReLU, the mean over positions and a linear layer, so that Grad-CAM of t = v . mean(A) is
ReLU(A v), and NumPy says what the network says.
"""

import inspect
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import targets
from jaxcam.cuts.model import adapted
from jaxcam.evaluation.requests import requests_of
from jaxcam.evaluation.shuffled import behind
from jaxcam.images import Preprocessing

evaluate = partial(inspect.unwrap(jaxcam.evaluate), methods=["grad_cam"], show_progress=False, num_resamples=0)
GROUPS = ("localisation", "shape", "deletion")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


class Net:
    """Windows of `stride` samples along the first axis -> k features -> ReLU -> mean -> c outputs."""

    def __init__(self, d, c, *, k=4, stride=1):
        self.kernel, self.head, self.stride = normal(1, stride * d, k), normal(2, k, c), stride

    def __call__(self, x):  # [n, *spatial, d]
        kernel = self.kernel.reshape(self.stride, -1, self.kernel.shape[-1])
        if self.stride > 1:
            x = jax.lax.conv_general_dilated(x, kernel, (self.stride,), "VALID", None, None, ("NWC", "WIO", "NWC"))
        else:
            x = x @ kernel[0]
        return jax.nn.relu(x).mean(tuple(range(1, x.ndim - 1))) @ self.head

    def activations(self, x):  # of one example, NumPy
        if self.stride > 1:
            x = x.reshape(len(x) // self.stride, -1)
        return np.maximum(x @ self.kernel, 0)

    def outputs(self, x):
        a = self.activations(x)
        return a.reshape(-1, a.shape[-1]).mean(0) @ self.head

    def heatmap(self, x, v):
        """Of the score outputs . v."""
        raw = np.maximum(self.activations(x) @ self.head @ v, 0)
        shown = raw / raw.max() if raw.max() > 0 else raw
        if self.stride > 1:  # between the centres linearly, edges held
            centres = (np.arange(len(x)) + 0.5) / self.stride - 0.5
            shown = np.interp(centres, np.arange(len(shown)), shown)
        return shown


def softmax(s):
    e = np.exp(s - s.max())
    return e / e.sum()


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def background(x, baseline):
    axes = tuple(range(x.ndim - 1))
    if baseline == "blur":
        from scipy import ndimage

        sigma = [5 / 224 * n for n in x.shape[:-1]]
        radius = [math.ceil(3 * s) for s in sigma]
        return ndimage.gaussian_filter(x, (*sigma, 0), mode="nearest", radius=(*radius, 0))
    return np.zeros_like(x) if baseline == "zero" else np.broadcast_to(x.mean(axes, keepdims=True), x.shape)


def figures(heatmap, x, value, baseline="zero", inside=None, mask=None, tolerance=15 / 224):
    """What a row says of an example, from the definitions; `value` is the confidence as a function of x."""
    weights, behind_it = heatmap[..., None], background(x, baseline)
    y, o = value(x), value(weights * x + (1 - weights) * behind_it)
    removed = value((1 - weights) * x + weights * behind_it)
    found = {
        "o": o,
        "average_drop": max(0, y - o) / y if y > 0 else np.nan,
        "absolute_drop": max(0, y - o),
        "increase": float(o > y),
        "drop_in_deletion": max(0, y - removed) / y if y > 0 else np.nan,
        "complexity": heatmap.mean(),
        "sparsity": heatmap.max() / heatmap.mean() if heatmap.any() else np.nan,
    }
    if inside is not None and inside.any():
        for delta in (0, 0.25, 0.5):
            above = heatmap > delta
            found[f"loc_{100 * delta:g}"] = (above & inside).sum() / (inside.sum() + (above & ~inside).sum())
        top = np.unravel_index(heatmap.argmax(), heatmap.shape)
        near = min(math.dist(top, place) for place in np.argwhere(inside))
        found["pointing"] = float(near <= tolerance * min(heatmap.shape))
        found["energy"] = heatmap[inside].sum() / max(heatmap.sum(), 1e-300)
    if mask is not None and mask.any():
        above = heatmap > heatmap.max() / 2
        found["iou"] = (above & mask).sum() / (above | mask).sum()
    if not heatmap.any():  # an empty map counts for nothing
        found = dict.fromkeys(found, np.nan)
    return y, found


def check(row, y, expected):
    assert row["error"] is None
    assert row["y"] == pytest.approx(y, rel=1e-6, abs=1e-9)
    for key, value in expected.items():
        assert row[f"grad_cam/{key}"] == pytest.approx(value, rel=1e-6, abs=1e-8, nan_ok=True), key


def onehot(c, n):
    return np.eye(n)[c]


# --- Kinds of inputs -------------------------------------------------------------------------------------------------

SERIES = [normal(10 + i, 24, 3) + 2 * onehot(i % 24, 24)[:, None] for i in range(5)]


def masks_of_series():
    masks = np.zeros((5, 2, 24), bool)
    for i in range(5):
        masks[i, 0, i : i + 6] = masks[i, 1, 14 + i : 17 + i] = True
    return masks


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"baseline": "zero"}, id="zero"),
        pytest.param({"baseline": "mean", "class_idx": "true"}, id="mean", marks=pytest.mark.thorough),
        pytest.param({"baseline": "blur", "confidence": "logit"}, id="blur", marks=pytest.mark.thorough),
    ],
)
def test_rows_of_series_are_those_of_a_loop(options):
    net, masks = Net(3, 4, stride=2), masks_of_series()
    # Of the two patterns of an example the second is of another class.
    data = [
        jaxcam.Example(x, label=i % 4, masks=masks[i], box_classes=[i % 4, (i + 1) % 4]) for i, x in enumerate(SERIES)
    ]
    protocol = jaxcam.Protocol(mask="input", **options)
    found = evaluate(net, data, metrics=GROUPS, protocol=protocol, batch_size=2)
    counted = 0
    for i, (x, row) in enumerate(zip(SERIES, found.rows(), strict=True)):
        c = int(net.outputs(x).argmax()) if protocol.class_idx == "predicted" else i % 4
        assert row["class_idx"] == c
        of = (lambda s: s) if protocol.confidence == "logit" else softmax
        own = masks[i][[k for k in range(2) if (i + k) % 4 == c]]
        inside = own.any(0) if len(own) else None
        check(row, *figures(net.heatmap(x, onehot(c, 4)), x, lambda x, c=c, of=of: of(net.outputs(x))[c],
                            protocol.baseline, inside, inside))  # fmt: skip
        counted += inside is not None
    assert counted >= 2
    assert found["grad_cam", "energy"].images == counted
    assert "box_iou" not in found.metrics
    assert "energy inside" in str(found)
    assert "Examples: 5; bad examples, in no figure: 0." in str(found)
    assert "mask on the input" in str(found)


@pytest.mark.thorough
def test_intervals_are_boxes_of_one_axis():
    net = Net(3, 4)
    intervals = [np.array([[i, i + 6], [14 + i, 16.4 + i]]) for i in range(5)]
    # One that is outside of the series, and one of another class, before those that are meant.
    known = [np.concatenate([[[30.0, 40.0], [3, 20]], boxes]) for boxes in intervals]
    data = [
        jaxcam.Example(x, label=1, boxes=boxes, box_classes=[1, 0, 1, 1])
        for x, boxes in zip(SERIES, known, strict=True)
    ]
    protocol = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true")
    found = evaluate(net, iter(data), metrics=GROUPS, protocol=protocol, batch_size=2)
    for i, (x, row) in enumerate(zip(SERIES, found.rows(), strict=True)):
        inside = np.zeros(24, bool)
        inside[i : i + 6] = inside[14 + i : 16 + i] = True  # the centre at 16.5 is outside
        heatmap = net.heatmap(x, onehot(1, 4))
        check(row, *figures(heatmap, x, lambda x: softmax(net.outputs(x))[1], inside=inside))
        # The longest run of samples above 15 % of the maximum, and its overlap with the best interval.
        above = np.flatnonzero(heatmap >= 0.15 * heatmap.max())
        runs = np.split(above, np.flatnonzero(np.diff(above) > 1) + 1)
        run = max(runs, key=len)
        begin, end = run[0], run[-1] + 1
        overlaps = [max(0, min(end, b) - max(begin, a)) for a, b in intervals[i]]
        unions = [end - begin + b - a - both for (a, b), both in zip(intervals[i], overlaps, strict=True)]
        expected = max(both / union for both, union in zip(overlaps, unions, strict=True))
        assert row["grad_cam/box_iou"] == pytest.approx(expected, abs=1e-6)
        assert row["grad_cam/localised"] == (expected >= 0.5)


@pytest.mark.thorough
def test_rows_of_volumes_and_of_several_labels_are_those_of_a_loop():
    """Multi-label: the confidence is the sigmoid of each logit by itself. Boxes are x0, y0, z0, x1, y1, z1."""
    net = Net(2, 3)
    volumes = [normal(20 + i, 4, 6, 5, 2) for i in range(3)]
    boxes, masks = np.array([[1, 0, 2, 4, 3, 4]]), np.zeros((1, 4, 6, 5), bool)
    masks[0, 2:4, 1:3, 1:3] = True
    data = [jaxcam.Example(x, label=c, boxes=boxes, masks=masks) for x in volumes for c in (1, 2)]
    protocol = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true", tolerance=0.5)
    net_ = jaxcam.adapt(net, probability="sigmoid")
    found = evaluate(net_, data, metrics=("localisation",), protocol=protocol, batch_size=4)
    inside = np.zeros((4, 6, 5), bool)
    inside[2:4, 0:3, 1:4] = True
    expected = []
    for example, row in zip(data, found.rows(), strict=True):
        x, c = example.image, example.label
        value = lambda x, c=c: sigmoid(net.outputs(x))[c]
        heatmap = net.heatmap(x, onehot(c, 3))
        y, figure = figures(heatmap, x, value, inside=inside, mask=masks[0], tolerance=0.5)
        check(row, y, {key: figure[key] for key in figure if key in ("o", *found.metrics)})
        box = np.asarray(jaxcam.metrics.heatmap_box(jnp.asarray(heatmap)))
        expected.append(float(jaxcam.metrics.box_iou(box, boxes)[0]))
        assert row["grad_cam/box_iou"] == pytest.approx(expected[-1], abs=1e-6, nan_ok=True)
    assert np.isfinite(expected).sum() >= 3


@pytest.mark.thorough
def test_clips_with_a_box_in_every_frame_and_one_logit():
    """Binary: class 1 and, negated, class 0. A box that changes is no box of the whole clip."""
    net = Net(3, 1)
    clips = [normal(30 + i, 3, 5, 4, 3) for i in range(3)]
    boxes = np.array([[[0, 1, 2, 3], [1, 1, 3, 3], [0, 0, 0, 0]]])  # gone in the last frame
    data = [jaxcam.Example(x, label=c, boxes=boxes) for x in clips for c in (0, 1)]
    protocol = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true")
    found = evaluate(net, data, metrics=("localisation",), protocol=protocol, batch_size=4)
    inside = np.zeros((3, 5, 4), bool)
    inside[0, 1:3, 0:2] = inside[1, 1:3, 1:3] = True
    assert set(found.metrics) & {"energy", "box_iou", "iou"} == {"energy"}
    for example, row in zip(data, found.rows(), strict=True):
        x, sign = example.image, 2 * example.label - 1
        value = lambda x, sign=sign: sigmoid(sign * net.outputs(x)[0])
        y, figure = figures(net.heatmap(x, np.array([sign])), x, value, inside=inside)
        check(row, y, {key: figure[key] for key in figure if key in ("o", *found.metrics)})


def test_grey_pictures_without_an_axis_of_channels():
    net = Net(1, 3)
    pictures = [np.float32(np.round(255 * np.random.default_rng(i).random((6, 7)))) / 255 for i in range(3)]
    preprocessing = Preprocessing(mean=(0.4,), std=(0.3,))
    mask = np.zeros((1, 6, 7), bool)
    mask[0, 2:5, 1:4] = True
    data = [jaxcam.Example(x, label=2, masks=mask) for x in pictures]  # masks without boxes, of pictures too
    protocol = jaxcam.Protocol(class_idx="true")
    found = evaluate(jaxcam.adapt(lambda x: net(x.astype(float)), preprocessing=preprocessing), data, metrics=GROUPS,
                     protocol=protocol)  # fmt: skip
    normalise = lambda x: (x - 0.4) / 0.3
    for picture, row in zip(pictures, found.rows(), strict=True):
        x = picture.astype(float)[..., None]
        heatmap = net.heatmap(normalise(x), onehot(2, 3))
        y, expected = figures(heatmap, x, lambda x: softmax(net.outputs(normalise(x)))[2], inside=mask[0], mask=mask[0])
        assert row["error"] is None
        assert row["y"] == pytest.approx(y, rel=1e-5)
        for key, value in expected.items():
            assert row[f"grad_cam/{key}"] == pytest.approx(value, rel=1e-4, abs=1e-5), key


# --- Several inputs, targets -----------------------------------------------------------------------------------------

FACTS = [normal(50 + i, 4) - 0.5 for i in range(5)]


def two_inputs(net):
    return lambda d: {"scores": net(d["series"]) * d["facts"], "rest": d["facts"]}


def value_of(net, facts, p=2, q=1):
    """The target below by hand."""
    return lambda x: net.outputs(x)[p] * facts[p] - net.outputs(x)[q] * facts[q]


def examples(masks):
    return [
        jaxcam.Example({"series": x, "facts": f}, masks=m, box_classes=[0, 7])
        for x, f, m in zip(SERIES, FACTS, masks, strict=True)
    ]


def test_rows_of_two_inputs_and_a_target_are_those_of_a_loop():
    """The series is masked, the facts are not. A target may be negative: a drop is of Y > 0."""
    net, masks = Net(3, 4), masks_of_series()
    target = targets.contrast(2, 1, of=lambda outputs: outputs["scores"])
    methods = {"grad_cam": "grad_cam", "flat": lambda activations: activations.sum(-1)}
    found = evaluate(two_inputs(net), examples(masks), methods=methods, target=target, metrics=GROUPS, batch_size=2)
    rows = list(found.rows())
    signs, losses = [], []
    for i, (x, facts, row) in enumerate(zip(SERIES, FACTS, rows, strict=True)):
        v = onehot(2, 4) * facts[2] - onehot(1, 4) * facts[1]
        inside = masks[i].any(0)  # whatever their class
        y, expected = figures(net.heatmap(x, v), x, value_of(net, facts), inside=inside, mask=inside)
        check(row, y, expected)
        a = net.activations(x).sum(-1)
        _, other = figures(a / a.max(), x, value_of(net, facts))
        assert row["flat/o"] == pytest.approx(other["o"], rel=1e-6)
        signs.append(y > 0)
        losses.append((y > 0, expected["o"], other["o"]))
    assert 0 < sum(signs) < len(signs)
    contests = [(a, b) for is_positive, a, b in losses if is_positive and np.isfinite(a)]
    wins = 100 * np.mean([a > b for a, b in contests])
    assert found.table.wins.value[0, 1] == pytest.approx(wins)
    assert found.table.statistics.contests[0, 1] == len(contests)
    assert found["grad_cam", "average_drop"].images == len(contests)
    assert found["grad_cam", "absolute_drop"].images == sum(np.isfinite(a) for _, a, _ in losses)
    text = str(found)
    assert "value of the target; mask on the input, zero where the map is 0" in text
    assert "target: contrast" in text


@pytest.mark.thorough
def test_of_two_inputs_with_positions_the_named_one_is_masked():
    net, others = Net(3, 4), [normal(70 + i, 24, 3) for i in range(5)]
    pairs = [jaxcam.Example({"a": x, "b": y}) for x, y in zip(SERIES, others, strict=True)]
    siamese = jaxcam.adapt(lambda d: net(d["a"]) - 2 * net(d["b"]), input="b")
    found = evaluate(siamese, pairs, target=targets.logit(1), metrics=("confidence",))
    assert 0 < sum(row["y"] > 0 for row in found.rows()) < 5
    for x, y, row in zip(SERIES, others, found.rows(), strict=True):
        value = lambda y, x=x: (net.outputs(x) - 2 * net.outputs(y))[1]
        expected_y, figure = figures(net.heatmap(y, -onehot(1, 4)), y, value)
        check(row, expected_y, {key: figure[key] for key in ("o", *found.metrics)})


@pytest.mark.thorough
def test_curves_and_coherency_mask_the_one_input():
    net, protocol = Net(3, 4), jaxcam.Protocol(confidence="target", mask="input", baseline="mean", num_steps=4)
    target = lambda outputs, inputs: outputs["scores"][2] - outputs["scores"][1]
    data = examples(masks_of_series())[:3]
    methods = {"grad_cam": "grad_cam", "flat": lambda activations: activations.sum(-1)}
    options = {"metrics": ("curves", "coherency"), "protocol": protocol}
    found = evaluate(two_inputs(net), data, target=target, methods=methods, **options)
    for x, facts, row in zip(SERIES, FACTS, found.rows(), strict=False):
        v, value = onehot(2, 4) * facts[2] - onehot(1, 4) * facts[1], value_of(net, facts)
        heatmap, behind_it = net.heatmap(x, v), background(x, "mean")
        for method, ranked in (("grad_cam", heatmap), ("flat", net.activations(x).sum(-1))):
            order = np.argsort(-ranked, kind="stable")
            for name, shown, hidden in (("insertion", x, behind_it), ("deletion", behind_it, x)):
                points = []
                for step in range(5):
                    changed = np.array(hidden)
                    changed[order[: step * 6]] = shown[order[: step * 6]]
                    points.append(value(changed))
                expected = np.trapezoid(points, np.linspace(0, 1, 5)) if ranked.any() else np.nan
                assert row[f"{method}/{name}"] == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)
        e = heatmap[:, None] * x + (1 - heatmap[:, None]) * behind_it
        r = np.corrcoef(heatmap, net.heatmap(e, v))[0, 1]
        assert row["grad_cam/coherency"] == pytest.approx((1 + r) / 2, abs=1e-6, nan_ok=True)


def test_what_a_target_has_captured_is_not_shuffled():
    net, reference = Net(3, 4, k=5), normal(3, 4, 2)
    one = jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float64)
    known, _ = adapted(net).aim(lambda outputs, inputs: (outputs @ reference)[1], one)
    (request,) = requests_of(["grad_cam"], None).values()
    where = behind(known, request, jax.ShapeDtypeStruct(one.shape[1:], one.dtype))
    assert [jax.tree.leaves(known)[i].shape for i in where] == [net.head.shape]


# --- The same figures whatever the way -------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_table_is_the_same_resumed_and_streamed(tmp_path):
    net, masks = Net(3, 4), masks_of_series()
    data = [jaxcam.Example(x, label=i % 4, masks=masks[i]) for i, x in enumerate(SERIES)]
    options = {"metrics": ("confidence", "localisation"), "batch_size": 2}
    whole = evaluate(net, data, results=tmp_path / "whole.jsonl", **options)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "part.jsonl.part").write_bytes(b"".join(lines[:3]))  # the header and two examples of five
    resumed = evaluate(net, data, results=tmp_path / "part.jsonl", **options)
    assert list(resumed.rows()) == list(whole.rows())
    assert resumed.json() == whole.json()
    streamed = evaluate(net, (example for example in data), **options)
    for a, b in zip(whole.rows(), streamed.rows(), strict=True):
        names = [name for name in a if not isinstance(a[name], str | None)]
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], abs=0, nan_ok=True)
    other = [data[0]._replace(image=data[0].image + 1e-6), *data[1:]]
    with pytest.raises(ValueError, match=r"dataset\.content"):
        evaluate(net, other, results=tmp_path / "whole.jsonl", **options)
    # A target is another evaluation, and none that compares.
    by_target = evaluate(net, data, target=targets.logit(2), **options)
    with pytest.raises(ValueError, match="differ in protocol: confidence"):
        whole.compare(by_target)
    with pytest.raises(ValueError, match=r"differ in target: logit .* and logit"):
        by_target.compare(evaluate(net, data, target=targets.logit(1), **options))


def test_an_array_is_a_data_set_channels_may_come_first_and_integers_are_rounded():
    net = Net(2, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 8), np.uint8)
    found = evaluate(lambda x: net(jnp.moveaxis(x.astype(float) / 255, 1, -1)), pixels, metrics=("confidence",))
    for x, row in zip(np.moveaxis(pixels, 1, -1), found.rows(), strict=True):
        value = lambda x: softmax(net.outputs(x / 255))
        c = value(x).argmax()
        # The network is given whole numbers, halves to even; the mask is laid on in single precision.
        e = np.round(net.heatmap(x / 255, onehot(c, 3)).astype(np.float32)[:, None] * x.astype(np.float32))
        assert row["class_idx"] == c
        assert row["grad_cam/o"] == pytest.approx(value(e)[c], rel=1e-5)


# --- What does not make sense ----------------------------------------------------------------------------------------

PREPARED = jaxcam.Protocol(mask="input", baseline="zero")
X = SERIES[0]


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        ([X], {"metrics": ["localisation"]}, ValueError, r"no box or mask is known.*Example\(series"),
        ([X], {"protocol": jaxcam.Protocol()}, ValueError, 'mask="pixels" is of pictures'),
        ([X], {"protocol": jaxcam.Protocol(confidence="target")}, ValueError, "without a target: pass target="),
        (
            [X],
            {"target": targets.logit(1), "protocol": PREPARED},
            ValueError,
            "with a target but has 'probability': pass",
        ),
        ([X, X], {"protocol": replace(PREPARED, class_idx="true")}, ValueError, "no label is known: give pairs"),
        ([X], {"target": lambda outputs, inputs: outputs}, ValueError, r"one number for each example .* \[4\]"),
        ([X], {"target": 3}, TypeError, "target must be a function"),
        ([X[:, 0]], {}, ValueError, r"must be \[\*spatial, d\] but that of example 0 is \[24\]: add the channels"),
        (X, {}, ValueError, r"an array as a data set must be \[n, \*spatial, d\].* array\[\.\.\., None\]"),
        (
            {"a": X[None]},
            {},
            TypeError,
            "a sequence of examples but is a dict: of arrays that share n make n dictionaries",
        ),
        ([], {}, ValueError, "must have one example or more but is empty"),
        (["a.png"], {}, TypeError, "is the path 'a.png': for image files say what the model expects"),
        ([{"a": X, "b": 3}], {}, TypeError, "holds a int"),
        (iter([]), {}, ValueError, "there is no example in it"),
        ([(X, "dog")], {}, ValueError, "none of its examples can be used; example 0: label must be a class index"),
        ([{"a": X, "b": X}], {}, ValueError, r"2 of the 2 inputs have positions.*adapt\(model, input=\.\.\.\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_make_sense_is_refused(data, options, error, says):
    net = Net(3, 4)
    with pytest.raises(error, match=says):
        evaluate(lambda x: net(x["a"]) if isinstance(x, dict) else net(x), data, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"baseline": "zero"}, 'baseline="zero" belongs to mask="input"'),
        ({"confidence": "target", "class_idx": "true"}, 'class_idx="true" means nothing'),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_protocols_that_mean_nothing(options, says):
    with pytest.raises(ValueError, match=says):
        inspect.unwrap(jaxcam.Protocol)(**options)
    with pytest.raises(ValueError, match=r'of a normalised picture is the mean colour: pass "mean"'):
        evaluate(jaxcam.models.mini_resnet(), [np.zeros((64, 64, 3))], protocol=PREPARED)


@pytest.mark.usefixtures("unchecked")
def test_examples_that_do_not_fit_are_bad_ones():
    net = Net(3, 4)
    wrong = {
        "inputs must all be like the first one, float64[24, 3], but this one is float64[20, 3]": {"image": X[:20]},
        "but this one is float32[24, 3]": {"image": X.astype(np.float32)},
        "masks must be [m, 24], on the grid that the heatmap lies on, but are [1, 20]": {
            "masks": np.ones((1, 20), bool)
        },
        "masks must have shape [m, *spatial], one an instance, got [24]": {"masks": np.ones(24, bool)},
        "masks must be bool [m, *spatial], got float64": {"masks": np.ones((1, 24))},
        "boxes must be [m, 2] (begin and end) on the grid [24], but are [1, 4]": {"boxes": [[0, 0, 3, 3]]},
        "boxes [m, t, 4] must be of a clip": {"boxes": np.ones((1, 24, 4))},
        "[m, 2] of a series: begin, end": {"boxes": [[1, 2, 3]]},
        "boxes must begin before they end": {"boxes": [[3, 1]]},
        "box_classes belong to boxes or masks": {"box_classes": [1]},
    }
    data = [jaxcam.Example(X), *(jaxcam.Example(**{"image": X, **fields}) for fields in wrong.values())]
    found = evaluate(net, data, metrics=("confidence",))
    assert found.num_images == 1
    for (_, _, reason), says in zip(found.bad_images, wrong, strict=True):
        assert says in reason

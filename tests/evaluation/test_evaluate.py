"""`evaluate` against a loop written by hand: explain, mask, forward and the metric's formula, picture by picture."""

import inspect
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support import relu_head

import jaxcam
from jaxcam import metrics, scenes
from jaxcam.cuts.model import adapted
from jaxcam.evaluation.block import explained_blocks
from jaxcam.evaluation.insertion import curves_of
from jaxcam.evaluation.plan import Plan
from jaxcam.evaluation.requests import parsed, requests_of
from jaxcam.evaluation.shuffled import behind, shuffled
from jaxcam.images import Preprocessing

evaluate = partial(inspect.unwrap(jaxcam.evaluate), show_progress=False, num_resamples=20)
METHODS = ["grad_cam", "grad_cam_pp", "grad_cam_positive"]


forward = jax.jit(lambda model, images: model(images))
resized = jax.jit(jax.image.resize, static_argnums=(1, 2))
heatmap_box, box_iou = map(jax.jit, (metrics.heatmap_box, metrics.box_iou))
blurred = jax.jit(metrics.blurred, static_argnums=1)


@pytest.fixture(scope="module")
def model():
    return jaxcam.models.mini_resnet()


@pytest.fixture(scope="module")
def pairs():
    """Pictures of two classes, so that the predicted class is often not the label."""
    return scenes.Dataset(7, seed=3, kind="pair")


@pytest.fixture(scope="module")
def found(model, pairs):
    groups = ("localisation", "instances", "shape", "deletion", "coherency", "curves", "sanity")
    return evaluate(model, pairs, methods=METHODS, metrics=groups, protocol=jaxcam.Protocol(num_steps=4), batch_size=3)


def by_hand(model, example, method, protocol):
    """The figures of one picture, from the definitions."""
    view = model.preprocessing.view(example.image)
    normalised = model.preprocessing.normalise(view[None])
    class_idx = None if protocol.class_idx == "predicted" else int(example.label)
    explanation = jaxcam.explain(model, normalised, class_idx=class_idx, method=method)
    class_idx = int(explanation.class_idx[0])
    raw = np.asarray(explanation.cam_map[0], np.float64)
    raw = raw - raw.min() if protocol.normalisation == "min_max" else np.maximum(raw, 0)
    shown = (raw / raw.max()).astype(np.float32)
    heatmap = np.clip(np.asarray(resized(shown, view.shape[:2], protocol.resize)), 0, 1)
    mean = np.asarray(model.preprocessing.mean, np.float32)
    behind_it = {
        "black": np.zeros_like(view),
        "mean": np.broadcast_to(mean, view.shape),
        "blur": np.asarray(blurred(view, 5 / 224 * 64)),
    }[protocol.baseline]

    def confidence(picture):
        logits = np.asarray(forward(model, model.preprocessing.normalise(np.asarray(picture, np.float32)[None])))[0]
        if protocol.confidence == "logit":
            return float(logits[class_idx])
        e = np.exp(logits.astype(np.float64) - logits.max())
        return float(e[class_idx] / e.sum())

    weights = np.asarray(heatmap, np.float64)[..., None]
    y, o = confidence(view), confidence(weights * view + (1 - weights) * behind_it)
    removed = confidence((1 - weights) * view + weights * behind_it)
    own = example.box_classes == class_idx
    here = {
        "class_idx": class_idx,
        "y": y,
        "o": o,
        "average_drop": max(0.0, y - o) / y if y > 0 else np.nan,
        "absolute_drop": max(0.0, y - o),
        "increase": float(o > y),
        "drop_in_deletion": max(0.0, y - removed) / y if y > 0 else np.nan,
        "complexity": heatmap.mean(),
        "sparsity": heatmap.max() / heatmap.mean(),
    }
    if own.any():
        box, mask = np.zeros(view.shape[:2], bool), example.masks[own].any(0)
        for x0, y0, x1, y1 in np.asarray(example.boxes)[own]:
            box[int(y0) : int(y1), int(x0) : int(x1)] = True
        for delta in protocol.deltas:
            above = np.asarray(heatmap) > delta
            here[f"loc_{100 * delta:g}"] = (above & box).sum() / (box.sum() + (above & ~box).sum())
        here["energy"] = heatmap[box].sum() / heatmap.sum()
        each = [
            heatmap[int(y0) : int(y1), int(x0) : int(x1)].max() for x0, y0, x1, y1 in np.asarray(example.boxes)[own]
        ]
        here["recall"] = np.mean([one >= 0.5 * heatmap.max() for one in each])
        here["instance_heat"], here["instances"] = np.mean(each) / heatmap.max(), len(each)
        above = np.asarray(heatmap) > 0.5 * heatmap.max()
        here["iou"] = (above & mask).sum() / (above | mask).sum()
        here["box_iou"] = np.max(box_iou(heatmap_box(heatmap), np.asarray(example.boxes)[own]))
    return here


PROTOCOLS = {
    "default": {},
    "input": {"mask": "input", "baseline": "mean"},
    "logit": {"confidence": "logit", "class_idx": "true"},
    "blur": {"baseline": "blur", "normalisation": "min_max", "resize": "nearest"},
    "true": {"mask": "input", "baseline": "blur", "class_idx": "true", "resize": "cubic"},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "default" else [pytest.mark.thorough]) for name in PROTOCOLS]
)
def test_rows_are_those_of_a_loop_by_hand(model, pairs, name):
    protocol = jaxcam.Protocol(num_steps=4, **PROTOCOLS[name])
    groups = ("confidence", "localisation", "instances", "shape", "deletion")
    found = evaluate(model, pairs, methods=METHODS[:2], metrics=groups, protocol=protocol, batch_size=3)
    rows = list(found.rows())
    assert [row["index"] for row in rows] == list(range(7))
    for i, row in enumerate(rows):
        for method in METHODS[:2]:
            expected = by_hand(model, pairs[i], method, protocol)
            assert row["class_idx"] == expected.pop("class_idx")
            assert row["label"] == int(pairs[i].label)
            assert row["y"] == pytest.approx(expected.pop("y"), abs=2e-5)
            for key, value in expected.items():
                # A drop is relative to y, and one pixel more or less in a mask of 4096 is rounding.
                tolerance = 1e-3 if key.startswith(("loc", "iou", "box")) else 3e-4
                assert row[f"{method}/{key}"] == pytest.approx(float(value), rel=1e-3, abs=tolerance, nan_ok=True), key


def test_the_table_has_the_means_of_the_rows(found):
    rows = list(found.rows())
    for method in METHODS:
        for j, metric in enumerate(found.metrics):
            values = np.array([row[f"{method}/{metric}"] for row in rows])
            counted = values[np.isfinite(values)]
            scale = found.table.columns[j].scale
            assert found[method, metric].images == len(counted)
            if len(counted):
                assert found[method, metric].value == pytest.approx(scale * counted.mean(), abs=1e-7 * scale)
    assert found.num_images == 7
    assert not found.bad_images


def test_wins_are_those_of_the_rows(found):
    rows = list(found.rows())
    for i, a in enumerate(METHODS):
        for j, b in enumerate(METHODS):
            if i != j:
                o_a, o_b, y = (jnp.asarray(np.array([r[k] for r in rows])) for k in (f"{a}/o", f"{b}/o", "y"))
                assert found.table.wins.value[i, j] == pytest.approx(float(metrics.win(o_a, o_b, y)))


def test_coherency_and_adcc_are_those_of_explaining_e_again(model, pairs, found):
    rows = list(found.rows())
    for i in range(3):
        view = model.preprocessing.view(pairs[i].image)
        images = model.preprocessing.normalise(view[None])
        first = jaxcam.explain(model, images, method="grad_cam")
        e = model.preprocessing.normalise(jaxcam.explanation_map(view[None], first.heatmap))
        again = jaxcam.explain(model, e, class_idx=first.class_idx, method="grad_cam")
        r = np.corrcoef(np.ravel(first.heatmap), np.ravel(again.heatmap))[0, 1]
        coherency, complexity = (1 + r) / 2, float(first.heatmap.mean())
        drop = max(0.0, 1 - float(again.confidence[0]) / float(first.confidence[0]))
        assert rows[i]["grad_cam/coherency"] == pytest.approx(coherency, abs=1e-4)
        adcc = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))
        assert rows[i]["grad_cam/adcc"] == pytest.approx(adcc, abs=1e-3)


@pytest.mark.parametrize("baseline", ["black", "blur"])
@pytest.mark.sample(2)
def test_curves_are_those_of_the_metrics(model, pairs, baseline):
    protocol = jaxcam.Protocol(num_steps=5, baseline=baseline)
    plan = Plan(tuple(requests_of(METHODS[:2], None).values()), protocol, model.preprocessing, ("curves",), -1)
    mesh = jax.make_mesh((1,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))
    pictures = np.stack([pairs[i].image for i in range(2)])
    heatmaps = np.random.default_rng(0).random((2, 2, 64, 64), np.float32)
    heatmaps[1, 1] = 0
    class_idx = np.array([3, 7], np.int32)
    areas = curves_of(mesh, plan, adapted(model), *map(jnp.asarray, (pictures, heatmaps, class_idx)))

    @jax.jit
    def areas_of(picture, heatmap, class_idx, behind_it):
        f = lambda picture: jax.nn.softmax(model(model.preprocessing.normalise(picture[None])))[0, class_idx]
        curves = {"insertion": metrics.insertion_curve, "deletion": metrics.deletion_curve}
        curve = lambda name: curves[name](f, picture, heatmap, baseline=behind_it, num_steps=5)
        return {name: metrics.area_under_curve(curve(name)) for name in curves}

    for i, j in np.ndindex(2, 2):
        behind_it = metrics.blurred(pictures[i], 5 / 224 * 64) if baseline == "blur" else np.zeros_like(pictures[i])
        for name, area in areas_of(pictures[i], heatmaps[i, j], class_idx[i], behind_it).items():
            assert float(areas[name][i, j]) == pytest.approx(float(area), abs=1e-6, nan_ok=True)
    assert np.isnan(areas["insertion"][1, 1])


@pytest.mark.thorough
def test_mask_on_pixels_with_the_mean_is_mask_on_the_input(model, pairs):
    # E is a blend, and blending commutes with (x - mean) / std.
    protocols = (jaxcam.Protocol(mask=mask, baseline="mean") for mask in ("pixels", "input"))
    found = [
        evaluate(model, pairs, methods=["grad_cam"], metrics=["confidence"], protocol=protocol)
        for protocol in protocols
    ]
    for a, b in zip(*(each.rows() for each in found), strict=True):
        assert a["grad_cam/o"] == pytest.approx(b["grad_cam/o"], abs=1e-5)
    with pytest.raises(ValueError, match="differ in protocol: mask: 'pixels' and 'input'"):
        found[0].compare(found[1])


@pytest.mark.thorough
def test_the_sanity_check_shuffles_the_weights_behind_the_layer_only(model, pairs, found):
    requests = requests_of(["grad_cam"], "layer1")
    image = jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)
    (request,) = requests.values()
    where = behind(adapted(model), request, image)
    arrays, others = jax.tree.leaves(model), jax.tree.leaves(shuffled(adapted(model), request, image))
    for i, (old, new) in enumerate(zip(arrays, others, strict=True)):
        if i in where:
            assert not np.array_equal(old, new)
            np.testing.assert_array_equal(np.sort(np.ravel(old)), np.sort(np.ravel(new)))
        else:
            assert new is old
    # Of four groups of layers those from layer2 on, and the linear layer: found by name here.
    stages = {name for name in model.layers if name not in ("conv1", "bn1", "relu") and not name.startswith("layer1")}
    from flax import nnx

    kernels = {
        id(leaf)
        for name in stages
        for leaf in jax.tree.leaves(nnx.state(model.stages[name]))
        if getattr(leaf, "ndim", 0) > 1
    }
    assert {id(arrays[i]) for i in where} == kernels
    rows = [row["grad_cam/sanity"] for row in found.rows()]
    assert np.nanmax(np.abs(rows)) <= 1 + 1e-6


def test_the_sanity_check_is_the_rank_correlation_with_a_shuffled_copy(model, pairs, found):
    image = jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)
    (request,) = requests_of(["grad_cam"], None).values()
    changed = shuffled(adapted(model), request, image)
    for i, row in enumerate(found.rows()):
        images = model.preprocessing.normalise(np.asarray(pairs[i].image)[None])
        maps = [
            jaxcam.explain(m, images, class_idx=row["class_idx"], method="grad_cam").cam_map for m in (model, changed)
        ]
        expected = metrics.rank_correlation(*(m[0] for m in maps))
        # Positions that rounding lifts above zero pass the hundred that share the last rank.
        assert row["grad_cam/sanity"] == pytest.approx(float(expected), abs=3e-2, nan_ok=True)


@pytest.mark.parametrize("methods", [["grad_cam"], METHODS])
@pytest.mark.sample(2, first=1)
def test_two_forward_passes_whatever_the_number_of_methods(model, methods):
    protocol = jaxcam.Protocol()
    plan = Plan(tuple(requests_of(methods, None).values()), protocol, model.preprocessing, ("confidence", "shape"), -1)
    mesh = jax.make_mesh((1,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))
    inputs = (jnp.zeros((4, 64, 64, 3), jnp.float32), jnp.zeros(4, jnp.int32), np.uint32(0))
    program = jax.jit(explained_blocks, static_argnums=(0, 1)).lower(mesh, plan, adapted(model), *inputs).compile()
    program = program.as_text()
    alone = jax.jit(lambda m, x: m(x)).lower(model, inputs[0]).compile().as_text()
    # One pass over the pictures, and one over the explanation maps of all methods.
    assert program.count(" convolution(") == 2 * alone.count(" convolution(") > 0


@pytest.mark.thorough
def test_any_model_is_evaluated_like_its_ports():
    kernel = np.float32(np.random.default_rng(0).normal(size=(3, 3, 3, 4)) / 3)
    weights = np.float32(np.random.default_rng(1).normal(size=(4, 5)))
    preprocessing = Preprocessing(resize=20, crop=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))

    def network(parameters, x):
        kernel, weights = parameters
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(x).mean((1, 2)) @ weights

    def channels_first(parameters, x):
        kernel, weights = parameters
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW"))
        return jax.nn.relu(x).mean((2, 3)) @ weights

    pictures = [np.random.default_rng(i).random((24, 30, 3), np.float32) for i in range(3)]
    options = {"methods": ["grad_cam", "layer_cam"], "metrics": "all"}
    options["protocol"] = jaxcam.Protocol(num_steps=3, num_squares=3, num_noises=2)
    adapt = lambda apply: jaxcam.adapt((kernel, weights), apply=apply, preprocessing=preprocessing)
    net = adapt(network)
    last = evaluate(net, pictures, **options)
    first = evaluate(adapt(channels_first), pictures, **options)
    for a, b in zip(last.rows(), first.rows(), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert b[key] == pytest.approx(value, abs=1e-4, nan_ok=True), key
    # Against a loop by hand, once.
    view = preprocessing(pictures[0])[None]
    found = jaxcam.explain(net, view, method="grad_cam")
    e = preprocessing.normalise(preprocessing.view(pictures[0])[None] * found.heatmap[..., None])
    o = jax.jit(lambda e: jax.nn.softmax(network((kernel, weights), e)))(e)[0, found.class_idx[0]]
    row = next(iter(last.rows()))
    assert row["y"] == pytest.approx(float(found.confidence[0]), abs=1e-6)
    assert row["grad_cam/o"] == pytest.approx(float(o), abs=1e-6)


@pytest.mark.thorough
def test_methods_that_draw_or_loop_are_evaluated():
    # Behind global average pooling the gradient does not depend on the noise: a network with dense layers.
    model, data = jaxcam.models.mini_vgg(), scenes.Dataset(2, seed=1)
    found = evaluate(model, data, methods=["smooth_grad_cam_pp:num_samples=3", "guided_grad_cam", "eigen_cam"], seed=4)
    row = next(iter(found.rows()))
    images = model.preprocessing(data[0].image)[None]
    guided = jaxcam.explain(model, images, method="guided_grad_cam")
    assert row["guided_grad_cam/complexity"] == pytest.approx(float(guided.heatmap.mean()), abs=1e-5)
    again = evaluate(model, data, methods=["smooth_grad_cam_pp:num_samples=3"], seed=4)
    assert (
        next(iter(again.rows()))["smooth_grad_cam_pp:num_samples=3/complexity"]
        == row["smooth_grad_cam_pp:num_samples=3/complexity"]
    )
    alone = evaluate(model, data[1:], methods=["smooth_grad_cam_pp:num_samples=3"], seed=4, batch_size=1)
    name = "smooth_grad_cam_pp:num_samples=3/complexity"
    assert next(iter(alone.rows()))[name] == pytest.approx(list(again.rows())[1][name], abs=1e-6)
    other = evaluate(model, data, methods=["smooth_grad_cam_pp:num_samples=3"], seed=5)
    assert (
        next(iter(other.rows()))["smooth_grad_cam_pp:num_samples=3/complexity"]
        != row["smooth_grad_cam_pp:num_samples=3/complexity"]
    )


def test_options_of_methods_as_text_and_as_dictionaries():
    assert parsed("grad_cam_pp:alphas=exact:normalize_alphas=true") == {
        "method": "grad_cam_pp",
        "alphas": "exact",
        "normalize_alphas": True,
    }
    assert parsed("smooth_grad_cam_pp:num_samples=3:noise=0.5") == {
        "method": "smooth_grad_cam_pp",
        "num_samples": 3,
        "noise": 0.5,
    }
    text = requests_of(["grad_cam_pp:alphas=exact"], None)
    assert list(text) == ["grad_cam_pp:alphas=exact"]
    named = requests_of({"exact": {"method": "grad_cam_pp", "alphas": "exact"}}, None)
    assert named["exact"] == text["grad_cam_pp:alphas=exact"]


def test_rules_are_counted(tmp_path, model):
    """No label, a wrong class, a damaged file, a NaN: every exclusion is a number in the table."""
    good = scenes.scene(0, size=64, class_idx=2)
    picture = np.asarray(good.image)
    Image.fromarray(np.uint8(255 * picture)).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:400])
    (tmp_path / "empty.jpg").write_bytes(b"")
    items = [
        jaxcam.Example(picture, label=2, boxes=[[0, 0, 64, 64]]),
        jaxcam.Example(picture),
        jaxcam.Example(picture, label=2, boxes=[[0, 0, 9, 9]], box_classes=[5], name="elsewhere"),
        tmp_path / "cut.png",
        tmp_path / "empty.jpg",
        tmp_path / "missing.png",
        np.uint8(255 * picture),
        (tmp_path / "good.png", 2),
    ]
    protocol = jaxcam.Protocol(class_idx="true")
    found = evaluate(model, items, methods=["grad_cam"], protocol=protocol, batch_size=3, num_workers=0)
    assert found.num_images == 4
    assert [index for index, _, _ in found.bad_images] == [3, 4, 5, 6]
    reasons = [reason for _, _, reason in found.bad_images]
    assert "truncated or damaged" in reasons[0]
    assert "empty" in reasons[1]
    assert "does not exist" in reasons[2]
    assert "uint8" in reasons[3]
    assert found["grad_cam", "average_drop"].images == 3  # not the one without a label
    assert found["grad_cam", "loc_0"].images == 1  # only where a box of the explained class is known
    rows = list(found.rows())
    assert [row["grad_cam/status"] for row in rows if row["error"] is None] == ["OK", "NO_SUCH_CLASS", "OK", "OK"]
    assert rows[2]["name"] == "elsewhere"
    text = str(found)
    assert f"and {len(reasons) - 3} more" in text
    assert reasons[0] in text
    assert "bad images, in no figure: 4" in text
    assert "no such class" in text.lower()


@pytest.mark.parametrize("num", [1, 6, *(pytest.param(num, marks=pytest.mark.thorough) for num in (5, 7))])
def test_iterables_end_where_they_end(model, num):
    data = scenes.Dataset(num, seed=2)
    options = {"methods": ["grad_cam"], "metrics": ["confidence"], "batch_size": 3}
    listed = evaluate(model, data, **options)
    streamed = evaluate(model, (example for example in data), **options)
    assert streamed.num_images == num
    for a, b in zip(listed.rows(), streamed.rows(), strict=True):
        assert a["y"] == b["y"]
        assert a["grad_cam/o"] == b["grad_cam/o"]


@pytest.mark.thorough
def test_two_networks_compare_picture_by_picture(pairs, found, unchecked):
    other = evaluate(jaxcam.models.mini_vgg(), pairs, methods=["grad_cam"], protocol=found.protocol, batch_size=3)
    apart = found.compare(other)
    assert list(apart) == ["grad_cam"]
    a = np.array([row["grad_cam/average_drop"] for row in found.rows()])
    b = np.array([row["grad_cam/average_drop"] for row in other.rows()])
    assert apart["grad_cam"]["average_drop"].value == pytest.approx(100 * (a - b).mean(), abs=1e-5)
    with pytest.raises(TypeError, match="what evaluate returned"):
        found.compare("other")
    more = evaluate(jaxcam.models.mini_vgg(), scenes.Dataset(2), methods=["grad_cam"], protocol=found.protocol)
    with pytest.raises(ValueError, match="differ in dataset"):
        found.compare(more)


def test_figures_by_name(found):
    with pytest.raises(KeyError, match="no metric 'drop' in this evaluation: it has average_drop"):
        found["grad_cam", "drop"]
    with pytest.raises(KeyError, match="no method 'cam'"):
        found["cam", "average_drop"]
    assert json.loads(found.json())["facts"]["model"] == "MiniResNet"
    assert found.csv().startswith("method,metric,unit,mean,low,high,count,excluded\ngrad_cam,average_drop,%,")
    assert "| grad_cam |" in found.markdown()


BAD = [
    (TypeError, {"methods": "grad_cam"}, "methods must be a list of names"),
    (ValueError, {"methods": []}, "methods must not be empty"),
    (ValueError, {"methods": ["grad_cam", "grad_cam"]}, "twice"),
    (ValueError, {"methods": ["gradcam"]}, "methods: method='gradcam' is not known"),
    (ValueError, {"methods": ["grad_cam_pp:exact"]}, "must look like grad_cam_pp:alphas=exact"),
    (ValueError, {"methods": {"a": {"alphas": "exact"}}}, "dictionary with method="),
    (ValueError, {"metrics": ["drop"]}, "metrics: 'drop' is not known"),
    (TypeError, {"metrics": 3}, "metrics must be"),
    (TypeError, {"protocol": "pixels"}, r"must be a jaxcam.Protocol"),
    (TypeError, {"batch_size": 2.5}, "batch_size must be an int"),
    (ValueError, {"batch_size": 0}, "batch_size must be at least 1"),
    (ValueError, {"num_resamples": -1}, "num_resamples"),
    (TypeError, {"mesh": "all"}, "mesh must be a jax.sharding.Mesh"),
    (ValueError, {"results": "/no/such/folder/rows.jsonl"}, "results must be a file in an existing folder"),
    (ValueError, {"layer": "layer9"}, "layer9"),
    (ValueError, {"seed": 2**40}, "seed must be at least 0 and at most 4294967295"),
    (ValueError, {"results": ""}, "results is an empty path"),
    (ValueError, {"methods": {"x": {"method": "grad_cam", "class_idx": 3}}}, "class_idx"),
    (ValueError, {"annotations": "boxes.json"}, "annotations are about image files"),
]


@pytest.mark.parametrize(("error", "options", "message"), BAD)
def test_wrong_arguments_are_named(model, unchecked, error, options, message):
    with pytest.raises(error, match=message):
        evaluate(model, scenes.Dataset(2), **{"methods": ["grad_cam"], **options})


def test_what_cannot_be_evaluated(model, unchecked):
    with pytest.raises(ValueError, match="empty"):
        evaluate(model, [])
    with pytest.raises(ValueError, match="there is no picture in it"):
        evaluate(model, iter(()), methods=["grad_cam"])
    with pytest.raises(ValueError, match="empty path"):
        evaluate(model, "")
    with pytest.raises(ValueError, match=r"none of its 2 images can be used; image 0: .*uint8"):
        evaluate(model, [np.zeros((9, 9, 3), np.uint8)] * 2)
    with pytest.raises(ValueError, match="no box or mask is known"):
        evaluate(model, [np.zeros((64, 64, 3), np.float32)], metrics=["localisation"])
    with pytest.raises(ValueError, match="global average pooling"):
        evaluate(jaxcam.models.mini_vgg(), scenes.Dataset(2), methods=["cam"])
    head = relu_head((4, 4), 3, 2)
    for pictures in ("photos", scenes.Dataset(2)):
        with pytest.raises(TypeError, match=r"preprocessing of .* must be known"):
            evaluate(lambda x: jax.vmap(head)(x[:, :4, :4]), pictures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "images"}, "mask must be one of 'pixels', 'input'"),
        ({"mask": "input"}, 'baseline="black" belongs to mask="pixels"'),
        ({"deltas": (0.0, 1.0)}, "deltas must be from 0 to below 1"),
        ({"deltas": (0.5, 0.5)}, "deltas must differ"),
        ({"tolerance": -1}, "tolerance must be from 0"),
        ({"box_fraction": 0}, "box_fraction must be above 0"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
    ],
)
def test_protocols_that_mean_nothing(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(jaxcam.Protocol)(**options)


def test_protocols_are_values(unchecked):
    assert jaxcam.Protocol(deltas=[0, 0.5]) == jaxcam.Protocol(deltas=(0.0, 0.5))
    assert hash(jaxcam.Protocol()) == hash(jaxcam.Protocol())
    assert jaxcam.Protocol(**json.loads(json.dumps(jaxcam.Protocol().to_dict()))) == jaxcam.Protocol()


@pytest.mark.thorough
def test_an_empty_map_counts_for_no_metric_and_wins_none():
    """Grad-CAM, a method whose maps are all empty, and one whose maps are empty on dark pictures."""
    random = np.random.default_rng(0)
    kernel, head = random.random((3, 4)) / 2, random.normal(size=(4, 3)) / 4

    def network(x):
        return jax.nn.relu(x @ kernel.astype(x.dtype)).mean((1, 2)) @ head.astype(x.dtype)

    def empty(activations):
        return jnp.zeros_like(activations[..., 0])

    def of_bright_ones(activations):
        return jnp.where(activations.mean() > 0.35, activations.sum(-1), 0)

    box, mask = np.array([[2.0, 2, 6, 6]]), np.zeros((1, 8, 8), bool)
    mask[0, 2:6, 2:6] = True
    light = np.array([0.3, 0.9, 0.3, 0.9, 0.3])[:, None, None, None]
    pictures = (light * random.uniform(0.9, 1, (5, 8, 8, 3))).astype(np.float32)
    known = {"boxes": box, "masks": mask}
    data = [jaxcam.Example(p, label=c, box_classes=np.array([c]), **known) for c in (0, 1, 2) for p in pictures]
    net = jaxcam.adapt(network, preprocessing=Preprocessing(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1)))
    methods = {"empty": empty, "of bright ones": of_bright_ones, "eigen_cam": "eigen_cam"}
    groups = ("localisation", "shape", "deletion", "coherency", "curves")
    protocol = jaxcam.Protocol(num_steps=2, class_idx="true")
    found = evaluate(net, data, methods=methods, metrics=groups, protocol=protocol)
    for i, row in enumerate(found.rows()):
        for metric in (*found.metrics, "o"):
            assert np.isnan(row[f"empty/{metric}"])
            assert np.isnan(row[f"of bright ones/{metric}"]) == np.isnan(row[f"eigen_cam/{metric}"]) or i % 5 % 2 == 0
        assert np.isfinite(row["eigen_cam/complexity"])
        assert np.isfinite(row["of bright ones/complexity"]) == (i % 5 % 2 == 1)
    assert not found.table.best[:2].any()
    assert "empty 15" in found.table.text()


class Grey(nnx.Module):
    """A network of one channel."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.convolution = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        self.classifier = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images):
        return self.classifier(nnx.relu(self.convolution(images)).mean((1, 2)))


@pytest.mark.thorough
def test_grey_pictures_are_those_of_three_equal_channels():
    grey = [np.random.default_rng(i).random((18, 20, 1)).astype(np.float32) for i in range(3)]
    coloured = [np.repeat(image, 3, axis=-1) for image in grey]
    one, three = (jaxcam.images.Preprocessing(resize=16, crop=16, mean=(0.13,) * n, std=(0.3,) * n) for n in (1, 3))
    options = {"methods": ["grad_cam"], "show_progress": False, "num_resamples": 0}
    found = jaxcam.evaluate(jaxcam.adapt(Grey(), preprocessing=one), grey, **options)
    first = jaxcam.adapt(Grey(), apply=lambda model, images: model(images[..., :1]), preprocessing=three)
    expected = jaxcam.evaluate(first, coloured, **options)
    for a, b in zip(found.rows(), expected.rows(), strict=True):
        assert a["error"] is None
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-5)
        np.testing.assert_allclose(a["grad_cam/average_drop"], b["grad_cam/average_drop"], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"preprocessing must have .* one number for Grey, which takes grey"):
        jaxcam.evaluate(jaxcam.adapt(Grey(), preprocessing=three), coloured, **options)

"""Targets: anything that a model returns is explained, and is what `jax.grad` of it by hand says."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal

import jaxcam
from jaxcam import targets

COMPILED = sys.modules["jaxcam.explanation.explain"]._compiled
INPUTS = np.abs(normal(0, 3, 6, 5, 2))
FIRST, SECOND, LAST = normal(1, 3, 3, 2, 4) / 3, normal(2, 3, 3, 4, 4) / 4, normal(3, 4, 5)
MASK = np.zeros((6, 5))
MASK[1:3, 2:5] = 1


def conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", None, None, ("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def backbone(x):
    return jax.nn.relu(conv(x, FIRST))


def neck(a):
    return jnp.tanh(conv(a, SECOND)) @ LAST


def classify(x):
    return neck(backbone(x)).mean((1, 2))


def segment(x):
    return neck(backbone(x))


def grad_cam(score):
    """By hand, for each input, of a score of the activations `[1, i, j, k]`; and the score."""

    def one(x):
        a = backbone(x[None])
        value, gradient = jax.value_and_grad(lambda a: score(a, x))(a)
        return jnp.maximum(a[0] @ gradient.mean((0, 1, 2)), 0), value

    return jax.jit(jax.vmap(one))(jnp.asarray(INPUTS))


def check(found, score):
    cam_map, value = grad_cam(score)
    assert np.asarray(cam_map).max() > 1e-3
    np.testing.assert_allclose(found.cam_map, cam_map, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)


def test_a_class_is_class_idx_bit_for_bit():
    for method in ("grad_cam", "grad_cam_pp", "guided_grad_cam"):
        by_target = jaxcam.explain(classify, INPUTS, target=targets.logit(3), method=method)
        by_class = jaxcam.explain(classify, INPUTS, class_idx=3, method=method)
        for name in ("heatmap", "cam_map", "value", "status"):
            np.testing.assert_array_equal(getattr(by_target, name), getattr(by_class, name))
    assert np.isnan(by_target.confidence).all()


def test_a_function_of_outputs_and_inputs():
    # Outputs of any structure, and the input itself in the target: what does not pass the layer goes beside it.
    model = lambda x: {"dense": segment(x), "sum": x.sum((1, 2, 3))}
    found = jaxcam.explain(
        model, INPUTS, target=lambda o, x: (o["dense"][..., 1] * x[..., 0]).sum() * o["sum"], layer=0
    )
    assert found.status.tolist() == 3 * [jaxcam.Status.BYPASSED]
    check(found, lambda a, x: (neck(a)[0, ..., 1] * x[..., 0]).sum() * x.sum())


def test_dense_predictions_are_cut_before_the_last_layer_that_looks_at_neighbours():
    found = jaxcam.explain(segment, INPUTS, target=targets.region(2, MASK > 0))
    check(found, lambda a, x: (neck(a)[0, ..., 2] * MASK).sum())
    other = jaxcam.explain(segment, INPUTS, target=targets.region(2, MASK == 0))
    assert np.abs(found.heatmap - other.heatmap).max() > 0.05
    (default,) = [row for row in jaxcam.layers(segment, INPUTS) if row.default]
    assert default.shape == (3, 6, 5, 4)
    check(
        jaxcam.explain(segment, INPUTS, target=targets.pixel(0, (4, 1))),
        lambda a, x: neck(a)[0, 4, 1, 0],
    )


def test_a_convolution_of_one_position_looks_at_no_neighbours():
    kernel = LAST[None, None]
    model = lambda x: conv(jnp.tanh(conv(backbone(x), SECOND)), kernel)
    found = jaxcam.explain(model, INPUTS, target=targets.region(2, MASK > 0))
    check(found, lambda a, x: (neck(a)[0, ..., 2] * MASK).sum())


def test_contrast_and_negation():
    contrast = targets.contrast(1, 4)
    check(
        jaxcam.explain(classify, INPUTS, target=contrast, layer=0),
        lambda a, x: (m := neck(a).mean((1, 2))[0])[1] - m[4],
    )
    check(
        jaxcam.explain(classify, INPUTS, target=targets.negated(contrast), layer=0),
        lambda a, x: (m := neck(a).mean((1, 2))[0])[4] - m[1],
    )


def test_similarity():
    reference = normal(5, 5)
    found = jaxcam.explain(classify, INPUTS, target=targets.similarity(reference), layer=0)

    def cosine(a, x):
        e = neck(a).mean((1, 2))[0]
        return e @ reference / jnp.sqrt((e @ e) * (reference @ reference))

    check(found, cosine)


def test_the_best_box():
    # Two boxes; the better score is the one that lies elsewhere.
    boxes = np.array([[0.0, 0, 2, 2], [2.0, 2, 4, 4]])
    offset = np.array([3.0, 0.0])
    scores = lambda a: jax.nn.sigmoid(neck(a)[0, 0, :2, 1] + offset)
    model = lambda x: (jnp.tile(boxes, (x.shape[0], 1, 1)), jax.vmap(lambda a: scores(a[None]))(backbone(x))[..., None])
    overlap = 2.25 / (4 + 2.25 - 2.25)  # the reference (2, 2, 3.5, 3.5) lies inside of the second box
    found = jaxcam.explain(model, INPUTS, target=targets.best_box(0, (2, 2, 3.5, 3.5)), layer=0)
    check(found, lambda a, x: scores(a)[1] * overlap)
    check(jaxcam.explain(model, INPUTS, target=targets.best_box(0), layer=0), lambda a, x: scores(a)[0])


def test_the_numbers_of_a_regression():
    model = jaxcam.adapt(lambda x: classify(x)[:, :1], probability=None)
    plain = jaxcam.explain(model, INPUTS, layer=0)
    check(plain, lambda a, x: neck(a).mean((1, 2))[0, 0])
    assert np.isnan(plain.confidence).all()
    np.testing.assert_array_equal(
        jaxcam.explain(model, INPUTS, target=targets.output(), layer=0).cam_map, plain.cam_map
    )
    two = jaxcam.explain(segment, INPUTS, target=targets.output(3, 2, 4))
    check(two, lambda a, x: neck(a)[0, 3, 2, 4])


@pytest.mark.thorough
def test_tokens_all_at_once_and_one_by_one():
    steps = lambda x: neck(backbone(x)).mean(1)  # [n, 5 steps, 5 tokens]
    ids = [2, 0, -1, 4, 1]
    found = jaxcam.explain(steps, INPUTS, target=targets.tokens(ids), layer=0)
    assert found.heatmap.shape == (3, 5, 6, 5)
    assert found.status.tolist() == [[0, 0, jaxcam.Status.ZERO_GRADIENT, 0, 0]] * 3
    for step, token in enumerate(ids):
        if token >= 0:
            one = lambda o, _, step=step, token=token: jax.nn.log_softmax(o[step])[token]
            alone = jaxcam.explain(steps, INPUTS, target=one, layer=0)
            np.testing.assert_allclose(found.cam_map[:, step], alone.cam_map, rtol=1e-9, atol=1e-13)
            np.testing.assert_allclose(found.value[:, step], alone.value, rtol=1e-9)


def test_tokens_that_are_ignored_have_the_score_zero():
    logits = np.asarray(normal(4, 5, 4))
    found = targets.tokens([2, 0, 3, 3, 1], ignore=3)(jnp.asarray(logits), None)
    chosen = [logits[t, token] - np.log(np.exp(logits[t]).sum()) for t, token in ((0, 2), (1, 0), (4, 1))]
    np.testing.assert_allclose(found, [*chosen[:2], 0, 0, chosen[2]], rtol=1e-12)
    with pytest.raises(ValueError, match="ids must be from 0 to 3, or 3, but one is -1"):
        targets.tokens([2, 0, -1, 3, 1], ignore=3)(jnp.asarray(logits), None)


def cosine_to(embedding, reference):
    return embedding @ reference / jnp.sqrt((embedding @ embedding) * (reference @ reference))


BOXES = np.array([[0.0, 0, 2, 2], [2.0, 2, 4, 4]])
OWN = {  # a target of what the example itself brings, and the same by hand from the dense outputs m [6, 5, 5]
    "logit": (lambda x: targets.logit(x["c"]), lambda m, x: m.mean((0, 1))[x["c"]]),
    "contrast": (lambda x: targets.contrast(x["c"], 4), lambda m, x: m.mean((0, 1))[x["c"]] - m.mean((0, 1))[4]),
    "region": (lambda x: targets.region(x["c"], x["mask"]), lambda m, x: jnp.where(x["mask"], m[..., x["c"]], 0).sum()),
    "pixel": (lambda x: targets.pixel(x["c"], (x["c"], 1)), lambda m, x: m[x["c"], 1, x["c"]]),
    "output": (lambda x: targets.output(2, x["c"], 0), lambda m, x: m[2, x["c"], 0]),
    "similarity": (
        lambda x: targets.similarity(x["reference"]),
        lambda m, x: cosine_to(m.mean((0, 1)), x["reference"]),
    ),
    "tokens": (
        lambda x: targets.tokens(x["ids"]),
        lambda m, x: jnp.take_along_axis(jax.nn.log_softmax(m.mean(0)), x["ids"][:, None], 1)[:, 0].sum(),
    ),
    "best box": (  # 2.25 of the 4 of one box: the first one's, but for the first example
        lambda x: targets.best_box(0, x["box"], of=lambda o: (jnp.asarray(BOXES), jax.nn.sigmoid(o[0, :2]))),
        lambda m, x: jax.nn.sigmoid(m[0, :2, 0])[x["which"]] * 2.25 / 4,
    ),
}
# What a target takes of the dense outputs.
PARTS = dict.fromkeys(("logit", "contrast", "similarity"), lambda m: m.mean((0, 1))) | {"tokens": lambda m: m.mean(0)}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.sample(2)
def test_each_example_has_its_own_class_and_place(name):
    ready, by_hand = OWN[name]
    boxes = np.array([[2.0, 2, 3.5, 3.5], [0.0, 0, 1.5, 1.5], [0.0, 0, 1.5, 1.5]])
    own = {"c": np.array([3, 0, 2]), "mask": normal(7, 3, 6, 5) > 0, "reference": normal(8, 3, 5), "box": boxes}
    own |= {"ids": np.random.default_rng(9).integers(0, 5, (3, 5)), "which": np.array([1, 0, 0])}
    part = PARTS.get(name, lambda m: m)
    found = jaxcam.explain(
        jaxcam.adapt(lambda x: segment(x["x"]), input="x"),
        {"x": INPUTS, **own},
        target=lambda m, x: ready(x)(part(m), x).sum(),
        layer=0,
    )

    @jax.jit
    @jax.vmap
    def expected(x, own):
        a = backbone(x[None])
        value, gradient = jax.value_and_grad(lambda a: by_hand(neck(a)[0], own))(a)
        return jnp.maximum(a[0] @ gradient.mean((0, 1, 2)), 0), value

    cam_map, value = expected(jnp.asarray(INPUTS), jax.tree.map(jnp.asarray, own))
    assert np.asarray(cam_map).max((1, 2)).min() > 1e-4
    np.testing.assert_allclose(found.cam_map, cam_map, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)


def test_an_own_class_out_of_range_is_no_map():
    inputs = {"x": INPUTS, "c": np.array([1, 5, -1])}
    model = jaxcam.adapt(lambda x: classify(x["x"]), input="x")
    found = jaxcam.explain(model, inputs, target=lambda o, x: targets.logit(x["c"])(o, x), layer=0)
    assert found.status.tolist() == [0, jaxcam.Status.NOT_FINITE, jaxcam.Status.NOT_FINITE]
    assert np.isnan(found.value[1:]).all()


def test_scores_of_any_shape():
    found = jaxcam.explain(classify, INPUTS, target=lambda o, _: jnp.stack([o[:4].reshape(2, 2), -o[:4].reshape(2, 2)]))
    assert found.heatmap.shape == (3, 2, 2, 2, 6, 5)
    assert found.class_idx.tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]] * 3
    for c in range(4):
        alone = jaxcam.explain(classify, INPUTS, class_idx=c)
        np.testing.assert_allclose(found.cam_map[:, 0, c // 2, c % 2], alone.cam_map, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(found.value[:, 1, c // 2, c % 2], -alone.value, rtol=1e-9)


def test_new_lambdas_and_new_captured_arrays_are_compiled_once():
    def explained(weights):
        return jaxcam.explain(classify, INPUTS, target=lambda o, _: o @ weights, layer=0)

    explained(normal(6, 5))
    before = COMPILED._cache_size()
    weights = normal(7, 5)
    check(explained(weights), lambda a, x: neck(a).mean((1, 2))[0] @ weights)
    assert COMPILED._cache_size() == before


@pytest.mark.thorough
def test_exact_alphas_of_a_target():
    squared = lambda o, _: jnp.sum(o**2)
    found = jaxcam.explain(classify, INPUTS, target=squared, method="grad_cam_pp", score="logit", layer=0)
    activations = backbone(INPUTS)
    head = lambda a: jnp.sum(neck(a[None]).mean((1, 2)) ** 2)[None]
    expected = jaxcam.grad_cam_pp(head, activations[1], 0, score=lambda s, _: s[0], alphas="exact")
    np.testing.assert_allclose(found.cam_map[1], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (3, {}, TypeError, r"target must be a function \(outputs, inputs\)"),
        (targets.logit(1), {"class_idx": 1}, ValueError, "target excludes class_idx and top"),
        (targets.logit(1), {"score": "softmax"}, ValueError, "of classes: with a target use"),
        (targets.logit(5), {}, ValueError, r"class_idx must be from 0 to \[4\] but is \[5\]"),
        (lambda o, x: o.argmax(), {}, TypeError, "target must return a floating-point scalar or array"),
        (lambda o, x: None, {}, TypeError, "target must return a floating-point scalar"),
        (lambda o, x: "two", {}, TypeError, "target must return a floating-point .* but returned str: compute it"),
        (lambda o, x: (o[0], o[1]), {}, TypeError, "but returned tuple: compute it from outputs"),
        (lambda o, x: 1.0, {}, TypeError, "but returned float: compute it from outputs"),
        (lambda o, x: jnp.asarray(1.0), {}, ValueError, "target must be computed from the outputs .* reads none of"),
        (lambda o, x: x.sum(), {}, ValueError, "target must be computed from the outputs .* reads none of"),
        (lambda o, x: o[:0], {}, ValueError, r"one score or more but returned \[0\]"),
        (targets.region(0, MASK), {}, ValueError, r"mask must be \[\*spatial\] as the predictions \[5\]"),
        (targets.pixel(0, (1, 2)), {}, ValueError, r"must be \[\*spatial, c\]"),
        (targets.similarity(np.ones(4)), {}, ValueError, r"reference must be \[d\] as the embedding \[5\]"),
        (targets.tokens([1, 2]), {}, ValueError, r"outputs of one example must be \[t, v\]"),
        (targets.best_box(1), {}, ValueError, r"outputs must be boxes .* but are \[5\]: pick them with of="),
    ],
)
def test_documented_errors(target, options, error, message):
    with pytest.raises(error, match=message):
        jaxcam.explain(classify, INPUTS, target=target, **options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "target",
    [
        targets.best_box(1),
        targets.region(0, MASK),
        targets.pixel(0, (1, 2)),
        targets.output(1),
        targets.output(),
        targets.logit(1),
        targets.similarity(np.ones(5)),
    ],
)
def test_of_a_dictionary_of_outputs_the_keys_are_told(target):
    with pytest.raises(ValueError, match=r"are dict with 'boxes', 'scores': pick .*of="):
        jaxcam.explain(lambda x: {"boxes": classify(x), "scores": classify(x)}, INPUTS, target=target)


@pytest.mark.usefixtures("unchecked")
def test_documented_errors_of_the_arguments():
    for make, error, message in (
        (lambda: targets.logit(1.0), TypeError, "class_idx must be an integer"),
        (lambda: targets.region(0, np.zeros((2, 2))), ValueError, "zero everywhere"),
        (lambda: targets.best_box(0, (2, 2, 1, 3)), ValueError, "x0 < x1"),
        (lambda: targets.similarity(np.zeros(3)), ValueError, "other than zero"),
        (lambda: targets.tokens(np.ones(3)), TypeError, "ids must be integers"),
        (lambda: targets.tokens([1], ignore=None), TypeError, "ignore must be an integer but is None"),
        (lambda: targets.negated(2), TypeError, "must be a function"),
    ):
        with pytest.raises(error, match=message):
            make()


@pytest.mark.usefixtures("unchecked")
def test_a_layer_that_does_not_reach_the_target_is_said_to():
    model = lambda x: (jax.ad_checkpoint.checkpoint_name(segment(x), "other"), classify(x))
    with pytest.raises(ValueError, match="layer='other' does not reach what is explained"):
        jaxcam.explain(model, INPUTS, target=lambda o, _: o[1][0], layer="other")


@pytest.mark.parametrize("index", [5, -6, np.int32(7), jnp.asarray(9)])
def test_an_index_beyond_the_outputs_is_refused(index):
    """JAX clamps it: the map would be that of the last class."""
    with pytest.raises(ValueError, match="from 0 to 4 of an axis of length 5"):
        jaxcam.explain(classify, INPUTS, target=lambda outputs, inputs: outputs[index])


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda outputs: outputs[np.array([1, 7])], "indices from 0 to 4 of an axis of length 5 but reads 7"),
        (lambda outputs: outputs[jnp.array([[0], [-6]])].ravel(), "0 to 4 of an axis of length 5 but reads -6"),
        (lambda o: jnp.outer(o, o[:4])[np.array([4, 2]), np.array([3, 4])].mean(), "axis of length 4 but reads 4"),
        (lambda outputs: outputs[0] - outputs[np.array([3, 5])].sum(), "reads 5"),
    ],
)
def test_several_indices_of_which_one_is_beyond_are_refused(read, told):
    with pytest.raises(ValueError, match=f"target must read .*{told}"):
        jaxcam.explain(classify, INPUTS, target=lambda outputs, inputs: read(outputs))


def test_several_indices_are_the_classes_there_and_beyond_what_was_said():
    """Those that there are, from either end; and where it was said that the nearest is meant."""
    expected = [jaxcam.explain(classify, INPUTS, class_idx=c).cam_map for c in (1, 4)]
    for read in (
        lambda outputs: outputs[np.array([1, 4])],
        lambda outputs: outputs[jnp.array([-4, -1])],
        lambda outputs: jnp.take(outputs, np.array([1, 7]), mode="clip"),
        lambda outputs: jnp.where(np.arange(3) < 2, outputs[np.array([1, 4, 5])], 0)[:2],  # padded, and masked
        # Of the last it reads the next one too, which is not there, with the weight 0.
        lambda outputs: jax.scipy.ndimage.map_coordinates(outputs, [np.array([1.0, 4.0])], order=1),
        lambda outputs: outputs[jnp.nonzero(np.array([0, 1, 0, 0, 1]), size=3, fill_value=5)[0]][:2],
    ):
        found = jaxcam.explain(classify, INPUTS, target=lambda outputs, inputs, read=read: read(outputs))
        np.testing.assert_allclose(np.moveaxis(found.cam_map, 1, 0), expected, rtol=1e-12)


def test_an_index_from_the_end_is_the_class_there():
    by_class = jaxcam.explain(classify, INPUTS, class_idx=1)
    for index in (-4, jnp.asarray(-4)):
        found = jaxcam.explain(classify, INPUTS, target=lambda outputs, inputs, index=index: outputs[index])
        np.testing.assert_allclose(found.cam_map, by_class.cam_map, rtol=1e-12)

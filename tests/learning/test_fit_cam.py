"""CAM's classifier: the optimum and its errors against other arithmetic, every framework, runs that were ended."""

import json
import os
import re

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import network

import jaxcam
from jaxcam import learning
from jaxcam.models.vit import VisionTransformer

RANDOM = np.random.default_rng(0)
KERNEL, HEAD = RANDOM.normal(size=(3, 5)), RANDOM.normal(size=(5, 2))
N, T, C, DECAY = 48, 7, 3, 1e-3
SERIES = RANDOM.normal(size=(N, T, 3)) + RANDOM.normal(size=(N, 1, 3))
LABELS = (np.maximum(SERIES @ KERNEL, 0).mean(1) @ RANDOM.normal(size=(5, C)) + RANDOM.normal(size=(N, C))).argmax(1)
FEATURES = np.maximum(SERIES @ KERNEL, 0).mean(1)  # pooled
QUIET = {"show_progress": False, "decay": DECAY}


class Series(nnx.Module):
    """[n, t, 3] -> two logits, neither of which has to do with the new classes."""

    def __init__(self, kernel=KERNEL):
        self.kernel = nnx.Param(jnp.asarray(kernel))

    def __call__(self, x):
        return jax.nn.relu(x @ self.kernel[...]).mean(1) @ HEAD


def examples(labels=LABELS):
    return list(zip(SERIES, labels.tolist(), strict=True))


def newton(x, labels, decay, c, *, tried=slice(None)):
    """W, b, and the Hessian of n f over all (k + 1) c coefficients: in NumPy, by what the definition says."""
    x, labels = x[tried], labels[tried]
    n, k = x.shape
    wide, truth = np.concatenate([x, np.ones((n, 1))], 1), np.eye(c)[labels]
    decays = np.repeat(np.r_[np.full(k, decay), 0], c)
    theta = np.zeros((k + 1, c))
    for _ in range(40):
        p = np.exp(wide @ theta)
        p /= p.sum(1, keepdims=True)
        slope = (wide.T @ (p - truth)).reshape(-1) / n + decays * theta.reshape(-1)
        inner = p[:, :, None] * np.eye(c) - p[:, :, None] * p[:, None]
        hessian = np.einsum("ij,iab,ik->jakb", wide, inner, wide).reshape(decays.size, -1) / n + np.diag(decays)
        step = np.linalg.pinv(hessian, rcond=1e-12) @ slope
        theta = theta - min(1, 3 / np.abs(step).max()) * step.reshape(theta.shape)
    assert np.abs(slope).max() < 1e-12
    theta[-1] -= theta[-1].mean()
    return theta[:-1], theta[-1], n * hessian


@pytest.fixture(scope="module")
def fitted():
    return learning.fit_cam(Series(), examples(), num_folds=3, **QUIET)


def test_optimum_and_standard_errors_are_those_of_newtons_method(fitted):
    kernel, bias, hessian = newton(FEATURES, LABELS, DECAY, C)
    np.testing.assert_allclose(fitted.kernel, kernel, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, bias, atol=1e-6)
    # The biases have a direction without any slope: what adds up to zero is inverted, in the gauge.
    centred = np.kron(np.eye(6), np.eye(C) - 1 / C)
    variance = np.diag(centred @ np.linalg.pinv(hessian, rcond=1e-12) @ centred).reshape(6, C)
    np.testing.assert_allclose(fitted.fit.kernel_error, np.sqrt(variance[:-1]), rtol=1e-5)
    np.testing.assert_allclose(fitted.fit.bias_error, np.sqrt(variance[-1]), rtol=1e-5)
    logits = FEATURES @ kernel + bias
    assert fitted.fit.accuracy == (logits.argmax(1) == LABELS).mean()
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), LABELS]
    np.testing.assert_allclose(fitted.fit.loss, losses.mean(), rtol=1e-8)


def test_held_out_examples_are_told_by_the_others(fitted):
    rank = np.empty(N, int)
    rank[np.argsort(LABELS, kind="stable")] = np.arange(N)
    right = []
    for fold in range(3):
        kernel, bias, _ = newton(FEATURES, LABELS, DECAY, C, tried=rank % 3 != fold)
        left_out = rank % 3 == fold
        right += list((FEATURES[left_out] @ kernel + bias).argmax(1) == LABELS[left_out])
    assert fitted.fit.held_out == np.mean(right)
    assert fitted.fit.held_out < fitted.fit.accuracy


@pytest.mark.parity
@pytest.mark.parametrize(("num_classes", "decay"), [(C, 1e-3), (C, 1e-1), (2, 1e-2)])
def test_optimum_is_that_of_scikit_learn(num_classes, decay):
    linear_model = pytest.importorskip("sklearn.linear_model")
    labels = LABELS % num_classes
    found = learning.fit_cam(Series(), examples(labels), show_progress=False, decay=decay, num_folds=0)
    # Two classes have one column there, W_1 - W_0, with half its square for the decay of both.
    c = (1 if num_classes > 2 else 2) / (N * decay)
    theirs = linear_model.LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(FEATURES, labels)
    kernel, bias = np.asarray(found.kernel), np.asarray(found.bias)
    if num_classes == 2:
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    np.testing.assert_allclose(kernel, theirs.coef_.T, atol=1e-5)
    np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-5)


@pytest.mark.thorough
def test_standard_errors_of_a_table_of_two_by_two():
    # x in {0, 1}, y in {0, 1}: the log odds ratio has the standard error sqrt(1/a + 1/b + 1/c + 1/d) (Woolf 1955).
    counts = {(0, 0): 9, (0, 1): 4, (1, 0): 5, (1, 1): 12}
    values = [(np.full((2, 1), float(x)), y) for (x, y), number in counts.items() for _ in range(number)]

    class Plain:
        def features(self, x):
            return 1.0 * x

        def head(self, a):
            return a.mean(1)

    found = learning.fit_cam(Plain(), values, decay=1e-9, show_progress=False, num_folds=0)
    odds = lambda x: np.log(counts[x, 1] / counts[x, 0])
    np.testing.assert_allclose(found.kernel[0, 1] - found.kernel[0, 0], odds(1) - odds(0), rtol=1e-5)
    np.testing.assert_allclose(found.bias[1] - found.bias[0], odds(0), rtol=1e-5)
    # W_1 = -W_0 in the gauge, so that the difference has twice the error of each.
    error = sum(1 / number for number in counts.values()) ** 0.5
    np.testing.assert_allclose(2 * found.fit.kernel_error, np.full((1, 2), error), rtol=1e-5)
    np.testing.assert_allclose(2 * found.fit.bias_error, [(1 / 9 + 1 / 4) ** 0.5] * 2, rtol=1e-5)


def test_cam_applies_and_grad_cam_is_its_positive_part_over_the_positions(fitted):
    found = jaxcam.explain(fitted, SERIES[:4], class_idx=[0, 1, 2, 0], method="cam")
    kernel = np.asarray(fitted.kernel)[:, [0, 1, 2, 0]]
    expected = np.einsum("ntk,kn->nt", np.maximum(SERIES[:4] @ KERNEL, 0), kernel)
    np.testing.assert_allclose(found.cam_map, expected, rtol=1e-9)
    grad_cam = jaxcam.explain(fitted, SERIES[:4], class_idx=[0, 1, 2, 0])
    np.testing.assert_allclose(grad_cam.cam_map, np.maximum(expected, 0) / T, rtol=1e-9, atol=1e-12)
    bias = np.asarray(fitted.bias)[[0, 1, 2, 0]]
    np.testing.assert_allclose(found.value, expected.mean(1) + bias, rtol=1e-9)
    assert (found.heatmap.max(1) > 0.5).all()
    assert found.class_names == ("class 0", "class 1", "class 2")


def test_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "classifier.safetensors")
    again = learning.load_cam(Series(), tmp_path / "classifier.safetensors")
    np.testing.assert_array_equal(again(SERIES[:4]), fitted(SERIES[:4]))
    np.testing.assert_array_equal(again.fit.kernel_error, fitted.fit.kernel_error)
    assert repr(again.fit) == repr(fitted.fit)
    assert again.class_names == fitted.class_names
    with pytest.raises(ValueError, match="the parameters that the classifier was fitted to"):
        learning.load_cam(Series(KERNEL + 1e-9), tmp_path / "classifier.safetensors")
    jaxcam.models.weights.save(jaxcam.models.mini_resnet(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="by their constructors"):
        learning.load_cam(Series(), tmp_path / "other.safetensors")
    # Other parameters have no report of this fit.
    other = jax.tree.map(lambda leaf: 2 * leaf, fitted)
    assert other.fit is None
    np.testing.assert_array_equal(other.kernel, 2 * fitted.kernel)


def test_parameters_are_differentiated_and_nothing_is_compiled_anew(fitted):
    loss = jax.jit(jax.grad(lambda net: net(SERIES[:4])[:, 1].sum()))
    found = loss(fitted)
    np.testing.assert_allclose(found.kernel[:, 1], FEATURES[:4].sum(0), rtol=1e-9)
    np.testing.assert_array_equal(found.bias, [0, 4, 0])
    assert np.abs(jax.tree.leaves(found.model)[0]).max() > 0


OTHERS = [pytest.param(name, marks=mark) for name, mark in (
    ("linen", pytest.mark.thorough), ("equinox", pytest.mark.parity), ("keras", pytest.mark.parity),
)]  # fmt: skip


@pytest.mark.parametrize("framework", OTHERS)
def test_every_other_framework(framework, monkeypatch):
    if framework in ("equinox", "keras"):
        monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
        pytest.importorskip(framework)
    p, images = foreign.parameters(), np.asarray(foreign.example(n=6))
    labels = [0, 1, 0, 1, 1, 0]
    pooled = np.asarray(foreign.by_hand(p, images)["second"]).mean((1, 2))
    dtype = np.float32 if framework == "keras" else np.float64
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if framework == "linen":
            module, variables = foreign.linen_model(p)
            model = jaxcam.adapt(variables, apply=module.apply)
        elif framework == "equinox":
            model = jaxcam.adapt(foreign.equinox_model(p), apply=lambda m, x: jax.vmap(m)(x))
            images = np.moveaxis(images, -1, 1)
        else:
            model = foreign.keras_model(p, "float32")
        given = images.astype(dtype)
        found = learning.fit_cam(model, list(zip(given, labels, strict=True)), batch_size=4, num_folds=0, **QUIET)
        kernel, bias, _ = newton(pooled, np.asarray(labels), DECAY, 2)
        tolerance = 1e-3 if framework == "keras" else 1e-5
        np.testing.assert_allclose(found(given), pooled @ kernel + bias, atol=tolerance)


@pytest.mark.thorough
def test_tokens_of_a_transformer_without_its_class_token():
    create = lambda _: VisionTransformer(12, 2, depth=2, patch=4, image=12, num_classes=3, rngs=nnx.Rngs(0))
    vit = network(create, dtype=np.float64)
    vit.eval()
    images = RANDOM.normal(size=(6, 12, 12, 3))
    labels = np.array([0, 1, 0, 1, 1, 0])
    given = list(zip(images, labels.tolist(), strict=True))
    found = learning.fit_cam(jaxcam.adapt(lambda x: vit(x)), given, layer="norm", num_folds=0, **QUIET)
    pooled = np.asarray(jax.jit(lambda x: vit.features(x, layer="norm"))(images))[:, 1:].mean(1)
    kernel, bias, _ = newton(pooled, labels, DECAY, 2)
    np.testing.assert_allclose(found(images), pooled @ kernel + bias, atol=1e-5)
    assert jaxcam.explain(found, images[:2], method="cam").cam_map.shape == (2, 3, 3)


class Stopping:
    """A data set that ends the run at an item, and counts what it was asked for."""

    def __init__(self, stop=None):
        self.stop, self.asked, self.description = stop, [], {"name": "series"}

    def __len__(self):
        return N

    def __getitem__(self, i):
        if i >= N:
            raise IndexError(i)
        self.asked.append(i)
        if i == self.stop:
            raise KeyboardInterrupt
        return SERIES[i], int(LABELS[i])


def test_a_run_that_was_ended_goes_on(tmp_path, fitted):
    whole, path, part = tmp_path / "whole.bin", tmp_path / "x.bin", tmp_path / "x.bin.part"
    options = {"batch_size": 8, "num_folds": 0, "num_workers": 0, **QUIET}
    uninterrupted = learning.fit_cam(Series(), Stopping(), features=whole, **options)
    with pytest.raises(KeyboardInterrupt):
        learning.fit_cam(Series(), Stopping(stop=37), features=path, **options)
    assert not path.exists()
    kept = part.read_bytes()
    assert whole.read_bytes().startswith(kept)
    assert 0 < len(kept) < len(whole.read_bytes())
    part.write_bytes(kept[:-11])  # killed while it wrote
    dataset = Stopping()
    resumed = learning.fit_cam(Series(), dataset, features=path, **options)
    assert path.read_bytes() == whole.read_bytes()
    assert not part.exists()
    assert min(dataset.asked[1:]) >= 8  # the first item is looked at for its shape
    for one, other in zip(jax.tree.leaves(resumed), jax.tree.leaves(uninterrupted), strict=True):
        np.testing.assert_array_equal(one, other)
    # The complete file is read, for another decay as well, and gives what the run without one does.
    dataset = Stopping()
    again = learning.fit_cam(Series(), dataset, features=path, **options | {"decay": 2 * DECAY})
    assert set(dataset.asked) == {0}
    assert np.abs(again.kernel - resumed.kernel).max() > 1e-3
    np.testing.assert_allclose(resumed.kernel, fitted.kernel, atol=1e-9)
    # Other features, a changed byte, another file.
    with pytest.raises(ValueError, match=r"must hold the same features but holds others.*parameters"):
        learning.fit_cam(Series(KERNEL + 1), Stopping(), features=path, **options)
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match=f"the checksum of example {N - 1}"):
        learning.fit_cam(Series(), Stopping(), features=path, **options)
    path.write_text(json.dumps({"other": 1}) + "\n")
    with pytest.raises(ValueError, match="must be a file that fit_cam has written"):
        learning.fit_cam(Series(), Stopping(), features=path, **options)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_devices_and_pipes_hold_no_features(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "x.bin.part")
    for path in ("/dev/full", tmp_path / "pipe", tmp_path / "x.bin"):
        with pytest.raises(ValueError, match="features must be a regular file but"):
            learning.fit_cam(Series(), Stopping(), features=path, **QUIET)


def test_what_cannot_be_used_is_left_out_and_counted():
    given = [*examples(), SERIES[0], (SERIES[1][:5], 1)]  # no true class; of another shape
    found = learning.fit_cam(Series(), given, num_folds=0, **QUIET)
    assert (found.fit.num_examples, found.fit.num_unlabelled, found.fit.num_unreadable) == (N, 1, 1)
    assert re.search(r"48 examples \(1 unlabelled and 1 unreadable left out\)", repr(found.fit))


def test_an_optimum_that_was_not_reached_is_told():
    with pytest.warns(RuntimeWarning, match="max_steps=3"):
        found = learning.fit_cam(Series(), examples(), max_steps=3, num_folds=0, **QUIET)
    assert not found.fit.converged


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"decay": 0}, ValueError, "decay must be above 0"),
        ({"num_classes": 4}, ValueError, r"an example of each of the 4 classes but has none of \[3\]"),
        ({"num_classes": 2}, ValueError, "above all labels but is 2"),
        ({"class_names": ["a", "b", "c"], "num_classes": 2}, ValueError, "must have num_classes=2 names but has 3"),
        ({"class_names": "abc"}, TypeError, "class_names must be a sequence of names"),
        ({"num_folds": 1}, ValueError, "num_folds must be 0"),
        ({"layer": "nowhere"}, ValueError, "nowhere"),
        ({"layer": 1.5}, TypeError, "layer must be"),
        ({"features": 3}, TypeError, "features must be a path"),
        ({"features": "/nowhere/at/all.bin"}, ValueError, "features must be a file in an existing folder"),
    ],
)
def test_bad_arguments(options, error, words, unchecked):
    with pytest.raises(error, match=words):
        learning.fit_cam(Series(), examples(), **{"show_progress": False, **options})


@pytest.mark.parametrize(
    ("dataset", "error", "words"),
    [
        (SERIES, ValueError, "dataset must have true classes but none is known"),
        ([(x, 0) for x in SERIES], ValueError, "two classes or more"),
        ([(x, i % 2 * 2) for i, x in enumerate(SERIES)], ValueError, r"none of \[1\]"),
        ("photos", TypeError, "preprocessing of Series must be known"),
        ([(np.full((T, 3), np.nan), 0), *examples()], ValueError, "features of example 0 must be finite"),
    ],
)
def test_bad_data_sets(dataset, error, words):
    with pytest.raises(error, match=words):
        learning.fit_cam(Series(), dataset, show_progress=False)


@pytest.mark.slow
def test_mini_vgg_which_has_no_pooling_is_given_it():
    vgg, unseen = jaxcam.models.mini_vgg(), jaxcam.scenes.batch(20000, 256)
    images, labels = vgg.preprocessing.normalise(unseen.image), np.asarray(unseen.class_idx)
    found = learning.fit_cam(vgg, jaxcam.scenes.Dataset(256), batch_size=64, num_folds=3, show_progress=False)
    both = jax.jit(lambda v, f, x: (v(x), f(x)))(vgg, found, images)
    before, after = ((np.asarray(logits).argmax(1) == labels).mean() for logits in both)
    assert before > 0.97
    assert after > 0.93
    assert abs(found.fit.held_out - after) < 0.05
    assert found.class_names == vgg.class_names


@pytest.mark.slow
def test_a_new_task_from_few_photographs(data):
    told = json.loads((data / "images" / "imagenet_val.json").read_text())
    is_dog = np.array([151 <= each["imagenet_index"] <= 268 for each in told])
    chosen = [*np.flatnonzero(is_dog), *np.flatnonzero(~is_dog)[: is_dog.sum()]]
    photos = [(data / "images" / told[i]["file"], int(is_dog[i])) for i in chosen]
    resnet = jaxcam.models.resnet18(data / "weights" / "resnet18_pqf_bnstats.fp16.safetensors")
    found = learning.fit_cam(resnet, photos, class_names=["no dog", "dog"], decay=1e-2, show_progress=False)
    assert found.fit.num_examples == 2 * is_dog.sum() == 74
    assert found.fit.held_out > 0.9
    # The map of "dog" is the hottest on the dogs.
    dogs = [jaxcam.Example(data / "images" / told[i]["file"], 1, told[i]["boxes"]) for i in np.flatnonzero(is_dog)[:16]]
    evaluation = jaxcam.evaluate(
        found, dogs, methods=["cam"], protocol=jaxcam.Protocol(class_idx="true"), num_resamples=0, show_progress=False
    )
    assert evaluation["cam", "pointing"].value > 70

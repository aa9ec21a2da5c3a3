"""What a method is: names, functions, partials and records, bound to their options; the head traced once."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import gap_head, normal, relu_head

import jaxcam
from jaxcam import methods
from jaxcam.methods.method import Method, bind
from jaxcam.programs import linearity

TO_CHANNELS = np.random.default_rng(1).normal(size=(3, 4))
A = np.abs(np.random.default_rng(0).normal(size=(3, 4, 5)))
F = relu_head((3, 4), 5, 4)
COMPILED = sys.modules["jaxcam.explanation.explain"]._compiled


def counted(function):
    """The function, and how often it was called."""

    def call(*args):
        call.count += 1
        return function(*args)

    call.count = 0
    return call


@pytest.mark.parametrize("name", [n for n in methods.METHODS if bind(n, {}, draws=True).needs == "head"])
@pytest.mark.parametrize("options", [{}, {"score": "softmax"}])
def test_the_head_is_traced_once(name, options):
    head = counted(F)
    jax.eval_shape(lambda a: methods.METHODS[name].function(head, a, 1, **options), A)
    assert head.count == 1


@pytest.mark.parametrize("alphas", ["auto", "exact", "closed_form"])
def test_the_head_of_grad_cam_pp_is_traced_once_and_proven_once(alphas, monkeypatch):
    proofs = counted(linearity.proves_piecewise_linear)
    monkeypatch.setattr("jaxcam.programs.traced.proves_piecewise_linear", proofs)
    head = counted(F)
    jax.eval_shape(lambda a: jaxcam.grad_cam_pp(head, a, 1, alphas=alphas), A)
    assert (head.count, proofs.count) == (1, 0 if alphas == "exact" else 1)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "guided_grad_cam", "score_cam", "layer_cam"])
@pytest.mark.parametrize("layer", [None, [0, -1]])
@pytest.mark.sample(3)
def test_explain_traces_the_model_once(method, layer):
    kernels = normal(0, 3, 3, 3, 4) / 3, normal(1, 3, 3, 4, 4) / 3, normal(2, 4, 5)

    def network(images):
        for kernel in kernels[:2]:
            dimensions = ("NHWC", "HWIO", "NHWC")
            images = jax.nn.relu(jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", None, None, dimensions))
        return images.mean((1, 2)) @ kernels[2]

    model = counted(network)
    jaxcam.explain(model, normal(3, 2, 6, 5, 3), method=method, layer=layer, class_idx=1)
    assert model.count == 1


def test_explain_calls_the_very_function():
    model = jax.vmap(gap_head(normal(1, 3, 5)))
    images = np.abs(normal(0, 2, 4, 3, 3))
    seen = []

    def mine(head, activations, class_idx, *, power=2):
        seen.append((activations.shape, power))
        return activations[..., 0] ** power

    net = jaxcam.adapt(lambda x: model(jax.ad_checkpoint.checkpoint_name(jnp.exp(x), "here")))
    for method, power in ((mine, 2), (functools.partial(mine, power=3), 3)):
        found = jaxcam.explain(net, images, layer="here", method=method, class_idx=0)
        np.testing.assert_allclose(found.cam_map, np.exp(images[..., 0]) ** power, rtol=1e-12)
        np.testing.assert_array_equal(found.status, jaxcam.Status.OK)
    np.testing.assert_allclose(
        jaxcam.explain(net, images, layer="here", method=mine, power=1, class_idx=0).cam_map, np.exp(images[..., 0])
    )
    # Each time once more, alone: to know it again.
    assert list(dict.fromkeys(seen)) == [((4, 3, 3), 2), ((4, 3, 3), 3), ((4, 3, 3), 1)]


def test_partials_and_lambdas_made_anew_are_compiled_once():
    images = np.abs(normal(0, 2, 4, 3, 3))
    net = lambda x: jax.nn.relu(x @ TO_CHANNELS).mean((1, 2))
    explain = lambda method: jaxcam.explain(net, images, method=method, class_idx=1).cam_map
    partial = lambda: functools.partial(jaxcam.grad_cam_pp, alphas="exact")
    by_name = jaxcam.explain(net, images, method="grad_cam_pp", alphas="exact", class_idx=1).cam_map
    count = COMPILED._cache_size()
    np.testing.assert_array_equal(explain(partial()), by_name)
    np.testing.assert_array_equal(explain(partial()), by_name)
    assert COMPILED._cache_size() == count
    made = lambda factor: lambda head, a, c: factor * a.sum(-1)
    first = explain(made(2.0))
    assert COMPILED._cache_size() == count + 1
    np.testing.assert_array_equal(explain(made(2.0)), first)
    assert COMPILED._cache_size() == count + 1
    np.testing.assert_allclose(explain(made(3.0)), 1.5 * first, rtol=1e-12)  # it captured something else


def test_what_a_method_notes_reaches_the_status_through_a_users_own():
    """A dead gradient is seen also where the user's method calls one of ours, and inner loops leak nothing."""
    model = jax.vmap(lambda x: jnp.stack([jax.nn.relu(x.sum() - 1000), x.sum()]))
    images = np.abs(normal(0, 1, 4, 3, 3)) + 1

    def mine(head, activations, class_idx):
        noisy = jax.vmap(lambda s: jaxcam.grad_cam(head, activations + s, class_idx))(jnp.array([0.0, 0.1]))
        return noisy.mean(0) + jaxcam.grad_cam(head, activations, class_idx) + 1

    net = jaxcam.adapt(lambda x: model(jax.ad_checkpoint.checkpoint_name(2 * x, "here")))
    status = [int(jaxcam.explain(net, images, method=mine, layer="here", class_idx=c).status[0]) for c in (0, 1)]
    assert status == [jaxcam.Status.ZERO_GRADIENT, jaxcam.Status.OK]


def test_a_record_of_ones_own_is_a_method_by_name(monkeypatch):
    record = Method("Mine", "nobody 2026", lambda head, a, c: a.sum(-1), is_cheap=False)
    monkeypatch.setitem(methods.METHODS, "mine", record)
    net, images = lambda x: jax.nn.relu(x @ TO_CHANNELS).mean((1, 2)), np.abs(normal(0, 2, 4, 3, 3))
    for method in ("mine", record):
        found = jaxcam.explain(net, images, method=method, class_idx=1)
        np.testing.assert_allclose(found.cam_map, np.maximum(images @ TO_CHANNELS, 0).sum(-1), rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("grad_cam_p", {}, ValueError, r"did you mean 'grad_cam_pp'\?"),
        ("GradCAM++", {}, ValueError, r"did you mean 'grad_cam_pp'\?"),
        (3, {}, TypeError, r"method must be a name or a function .* but is 3"),
        (lambda a: a, {}, TypeError, r"must be a function \(head, activations, class_idx.* has 1 positional"),
        (functools.partial(jaxcam.grad_cam, F), {}, TypeError, r"partial with keyword arguments only, but has 1"),
        (functools.partial(jaxcam.grad_cam, alphas="exact"), {}, ValueError, r"it belongs to 'grad_cam_pp'"),
        (lambda head, a, c, *, power=1: a, {"pover": 2}, TypeError, r"did you mean power\?"),
        (lambda head, a, c: a, {"score": "exp"}, ValueError, r"has no score: leave score out"),
        ("grad_cam_pp", {"alphas": ["exact"]}, TypeError, r"alphas must be hashable"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors_of_bind(method, options, error, message):
    score = options.pop("score", None)
    with pytest.raises(error, match=message):
        bind(method, options, score=score)


@pytest.mark.usefixtures("unchecked")
def test_a_map_of_another_shape_is_refused():
    net, images = lambda x: jax.nn.relu(x @ TO_CHANNELS).mean((1, 2)), np.abs(normal(0, 2, 4, 3, 3))
    with pytest.raises(ValueError, match=r"must return a map of shape \[4, 3\] but returned \[4, 3, 4\]"):
        jaxcam.explain(net, images, method=lambda head, a, c: a, class_idx=1)

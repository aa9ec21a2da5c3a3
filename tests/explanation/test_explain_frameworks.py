"""One network in every framework gives one map, and it is the one by hand."""

import os

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam

CLASS_IDX = 3


@pytest.fixture(scope="module")
def parameters():
    return foreign.parameters()


@pytest.fixture(scope="module")
def images():
    return foreign.example()


@pytest.fixture(scope="module")
def expected(parameters, images):
    """Grad-CAM after the second block, from zeros added to its output."""
    values = jax.jit(lambda moved: foreign.by_hand(parameters, images, moved))
    last = np.asarray(values({})["second"])
    logit = lambda moved: values({"second": moved})["logits"][:, CLASS_IDX].sum()
    weights = np.asarray(jax.grad(logit)(np.zeros_like(last))).mean((1, 2))
    found = np.maximum(np.einsum("nijk,nk->nij", last, weights), 0)
    assert found.max() > 0
    return found


def explained(framework, p, images):
    """As users of the framework would call it."""
    options = {"class_idx": CLASS_IDX, "method": "grad_cam"}
    if framework == "plain":
        return jaxcam.explain(jaxcam.adapt(p, apply=foreign.plain), images, **options)
    if framework == "nnx":
        return jaxcam.explain(foreign.nnx_model(p), images, **options)
    if framework == "linen":
        module, variables = foreign.linen_model(p)
        return jaxcam.explain(jaxcam.adapt(variables, apply=module.apply), images, **options)
    if framework == "equinox":
        model, first = foreign.equinox_model(p), jnp.moveaxis(images, -1, 1)
        return jaxcam.explain(jaxcam.adapt(model, apply=lambda m, x: jax.vmap(m)(x)), first, **options)
    if framework == "keras":
        return jaxcam.explain(foreign.keras_model(p, "float32"), images.astype(np.float32), **options)
    transformed, params, state = foreign.haiku_model(p)
    net = jaxcam.adapt((params, state), apply=lambda v, x: transformed.apply(*v, x)[0])
    return jaxcam.explain(net, images, **options)


PARITY = [pytest.param(name, marks=pytest.mark.parity) for name in ("equinox", "keras", "haiku")]


@pytest.mark.parametrize(
    "framework", ["linen", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("plain", "nnx")), *PARITY]
)
def test_the_same_map(framework, parameters, images, expected, monkeypatch):
    module = {"equinox": "equinox", "keras": "keras", "haiku": "haiku"}.get(framework)
    if module:
        monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
        pytest.importorskip(module)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = explained(framework, parameters, images)
    np.testing.assert_allclose(found.cam_map, expected, atol=1e-5 * expected.max())
    logits = jax.jit(lambda x: foreign.by_hand(parameters, x)["logits"])(images)
    np.testing.assert_allclose(found.confidence, jax.nn.softmax(logits)[:, CLASS_IDX], rtol=1e-5)
    np.testing.assert_array_equal(found.status, 0)

"""What costs very much more than the model itself is not begun in silence."""

import re

import jax
import numpy as np
import pytest

import jaxcam
from jaxcam.explanation import costs

RANDOM = np.random.default_rng(0)
KERNEL, MIX, LAST = RANDOM.normal(size=(3, 5)), RANDOM.normal(size=(60, 60)) / 8, RANDOM.normal(size=(60, 4))
IMAGES = RANDOM.normal(size=(1, 6, 8, 3))


def features(x):
    return jax.nn.relu(x[:, ::2, ::2] @ KERNEL)


def head(a):
    return jax.nn.gelu(jax.nn.gelu(a.reshape(-1, 60) @ MIX) @ MIX) @ LAST


def network(x):
    return head(features(x))


@pytest.fixture
def nothing_is_free(monkeypatch):
    monkeypatch.setattr(costs, "_FREE", 0)


def explained(**options):
    return jaxcam.explain(network, IMAGES, class_idx=1, **options)


def test_many_passes_are_refused_with_their_number_and_both_ways_on(nothing_is_free):
    with pytest.raises(ValueError, match=r"alphas='exact', in evaluate .* method='grad_cam' costs one") as error:
        explained(method="grad_cam_pp")
    (factor,) = re.findall(r"about ([\d,]+) times the operations of a forward pass", str(error.value))
    # One pass for each of the 60 elements, of three orders: equal tangents are counted as often as they stand there.
    assert 60 < int(factor.replace(",", "")) < 8 * 60
    assert explained(method="grad_cam").status[0] == jaxcam.Status.OK
    found = explained(method="grad_cam_pp", alphas="exact").cam_map[0]
    expected = jax.jit(lambda x: jaxcam.grad_cam_pp(lambda a: head(a)[0], features(x)[0], 1))(IMAGES)
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), rtol=1e-9)


def test_small_networks_are_not_refused():
    found, paid = (explained(method="grad_cam_pp", alphas=alphas) for alphas in ("auto", "exact"))
    np.testing.assert_allclose(found.heatmap, paid.heatmap, rtol=1e-12)

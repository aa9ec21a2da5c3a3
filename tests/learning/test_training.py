"""A training step with maps: `forward` against the parts it is made of, in half precision, divided among devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import normal

import jaxcam
from jaxcam import learning

X, CLASSES = normal(2, 4, 3, 5, 2), np.array([0, 1, 2, 1])
W1, W2 = normal(0, 2, 6), normal(1, 15 * 6, 3) / 4 + 0.1
TEACHER = np.abs(normal(3, 4, 3, 5))


class Student(nnx.Module):
    """[n, i, j, d] -> [n, c], with a head that is none of CAM's."""

    def __init__(self, w1=W1, w2=W2):
        self.w1, self.w2 = nnx.Param(w1), nnx.Param(w2)

    def __call__(self, x):
        a = jax.nn.softplus(x @ self.w1[...])
        return jax.nn.relu(a).reshape(len(x), -1) @ self.w2[...]


def parts(w1, w2, x, class_idx, method):
    """The same by the method itself, of one example."""
    a = jax.nn.softplus(x @ w1)
    head = lambda a: jax.nn.relu(a).reshape(-1) @ w2
    return head(a), method(head, a, class_idx)


@pytest.mark.parametrize(("name", "method"), [("grad_cam", jaxcam.grad_cam), ("grad_cam_pp", jaxcam.grad_cam_pp)])
@pytest.mark.sample(2)
def test_logits_maps_and_gradients_by_parameters(name, method):
    def loss(logits, maps):
        return jax.nn.logsumexp(logits, -1).sum() + jax.vmap(learning.distillation)(maps, jnp.asarray(TEACHER)).sum()

    def ours(student):
        found = learning.forward(student, X, CLASSES, method=name)
        return loss(*found), found

    def by_parts(w):
        found = jax.vmap(lambda x, c: parts(*w, x, c, method))(X, CLASSES)
        return loss(*found), found

    gradient, (logits, maps) = nnx.jit(nnx.grad(ours, has_aux=True))(Student())
    expected, (their_logits, their_maps) = jax.jit(jax.grad(by_parts, has_aux=True))((W1, W2))
    np.testing.assert_allclose(logits, their_logits, rtol=1e-12)
    np.testing.assert_allclose(maps, their_maps, rtol=1e-9, atol=1e-12)
    assert (np.asarray(maps).max((1, 2)) > 0).all()
    for one, other in zip(jax.tree.leaves(gradient), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.thorough
def test_in_half_precision_the_maps_are_those_of_float32():
    def loss(w, x):
        logits, maps = learning.forward(jax.tree_util.Partial(lambda w, x: parts_of_batch(w, x), w), x, CLASSES)
        return jax.vmap(learning.sparsity)(maps).mean() + jax.nn.logsumexp(logits.astype(np.float32), -1).mean()

    def parts_of_batch(w, x):
        return jax.nn.relu(jax.nn.softplus(x @ w[0])).reshape(len(x), -1) @ w[1]

    graded = jax.jit(jax.value_and_grad(loss))
    narrow = graded((W1.astype(jnp.bfloat16), W2.astype(jnp.bfloat16)), X.astype(jnp.bfloat16))
    wide = graded((W1.astype(np.float32), W2.astype(np.float32)), X.astype(np.float32))
    np.testing.assert_allclose(narrow[0].astype(np.float32), wide[0], rtol=2e-2)
    for one, other in zip(narrow[1], wide[1], strict=True):
        assert one.dtype == jnp.bfloat16
        assert np.abs(one.astype(np.float32) - other).max() < 0.05 * np.abs(other).max()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "cam"}, ValueError, "must take the head and the activations"),
        ({"method": "guided_backprop"}, ValueError, "must take the head and the activations"),
        ({"class_idx": [0, 1]}, ValueError, "one for each of the 4 examples"),
        ({"class_idx": 0.5}, TypeError, "class_idx must be an integer"),
        ({"layer": "nowhere"}, ValueError, "nowhere"),
    ],
)
def test_bad_input(options, error, words, unchecked):
    with pytest.raises(error, match=words):
        learning.forward(Student(), X, **{"class_idx": CLASSES, **options})


def test_a_network_in_training_mode_is_refused():
    model = nnx.Sequential(nnx.Conv(2, 3, (1, 1), rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        learning.forward(model, X.astype(np.float32), CLASSES)


@pytest.mark.slow
def test_divided_among_eight_devices_it_is_the_step_of_one():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "training_process.py")],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for method, found in json.loads(done.stdout).items():
        assert found["moved"] > 1e-3, method
        assert found["difference"] < 1e-12, method
        assert found["divided"], method
        # Gradients are added up; neither pictures nor activations go from one device to another.
        assert found["collectives"] == ["all-reduce"], method

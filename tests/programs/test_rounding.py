"""Rounding on the way of a value is seen; whole numbers beside it are not mistaken for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from support import normal

import jaxcam

KERNEL, LAST = normal(1, 3, 4), np.abs(normal(2, 4, 5))
IMAGES = np.abs(normal(0, 2, 6, 5, 3))
INTEGERS = np.round(20 * LAST).astype(np.int8)


def features(x):
    return checkpoint_name(jax.nn.relu(x @ KERNEL), "here")


def quantised(a):
    scale = jnp.abs(a).max() / 127
    return jnp.clip(jnp.round(a / scale), -127, 127).astype(jnp.int8), scale


def int8(a):
    """A layer for inference: whole numbers, and a scale."""
    q, scale = quantised(a.mean((1, 2)))
    return jax.lax.dot(q, jnp.asarray(INTEGERS), preferred_element_type=jnp.int32).astype(a.dtype) * scale / 20


def halves(a):
    return jnp.round(2 * a) + a


def fourths(a, _):
    return jnp.floor(4 * a) / 4 + a, None


def kept(a, _):
    return jnp.where(jnp.floor(a) > 0, a, 0), None


def turn(carry, _):
    first, second, *_ = carry
    return (first, jnp.round(4 * first) + first, second), None


@jax.custom_jvp
def straight(x):
    return jnp.round(x)


straight.defjvp(lambda primals, tangents: (straight(*primals), *tangents))

ROUNDED = {
    "int8": int8,
    "round": lambda a: jnp.round(8 * a).mean((1, 2)) @ LAST + a.mean((1, 2)) @ LAST,
    "cast": lambda a: (8 * a).astype(jnp.int32).astype(a.dtype).mean((1, 2)) @ LAST + a.mean((1, 2)) @ LAST,
    "before an activation": lambda a: jax.nn.relu(jnp.round(8 * a) - 1).mean((1, 2)) @ LAST + a.mean((1, 2)) @ LAST,
    "in a scan": lambda a: jax.lax.scan(fourths, a, None, 2)[0].mean((1, 2)) @ LAST + a.mean((1, 2)) @ LAST,
    "of the round before": lambda a: sum(jax.lax.scan(turn, (a, a, 0 * a), None, 3)[0]).mean((1, 2)) @ LAST,
    "two rounds before": lambda a: (jax.lax.scan(turn, (a, a, 0 * a), None, 3)[0][2] + a).mean((1, 2)) @ LAST,
    "in a branch": lambda a: jax.lax.cond(a[0, 0, 0, 0] > -1, halves, abs, a).mean((1, 2)) @ LAST,
    "floor in jit": lambda a: jax.jit(jnp.floor)(8 * a).mean((1, 2)) @ LAST + a.mean((1, 2)) @ LAST,
}
NOT_ROUNDED = {
    "plain": lambda a: a.mean((1, 2)) @ LAST,
    "custom_jvp": lambda a: straight(8 * a).mean((1, 2)) @ LAST,
    "stop_gradient": lambda a: (a + jax.lax.stop_gradient(jnp.round(a) - a)).mean((1, 2)) @ LAST,
    "a condition": lambda a: jnp.where(jnp.round(a) > 1, a, 2 * a).mean((1, 2)) @ LAST,
    "a cast condition": lambda a: jnp.where(jnp.round(a).astype(bool), a, 2 * a).mean((1, 2)) @ LAST,
    "an index": lambda a: (a.mean((1, 2)) @ LAST) * jnp.arange(1.0, 9)[a.astype(jnp.int32).max() % 8],
    "other precision": lambda a: a.astype(jnp.float32).astype(a.dtype).mean((1, 2)) @ LAST,
    "the likeliest": lambda a: (s := a.mean((1, 2)) @ LAST) + s * jax.nn.one_hot(s.argmax(1), 5, dtype=s.dtype),
    "a condition in a scan": lambda a: jax.lax.scan(kept, a, None, 2)[0].mean((1, 2)) @ LAST,
    "of the weights": lambda a: a.mean((1, 2)) @ jnp.round(8 * LAST),
}


@pytest.mark.parametrize("name", [*ROUNDED, *NOT_ROUNDED])
@pytest.mark.sample(4)
def test_steps_between_layer_and_score(name):
    head = (ROUNDED | NOT_ROUNDED)[name]
    # Not the default layer, which may lie behind the steps.
    found = jaxcam.explain(lambda x: head(features(x)), IMAGES, class_idx=1, layer="here")
    expected = jaxcam.Status.ROUNDED if name in ROUNDED else jaxcam.Status.OK
    assert found.status.tolist() == [expected] * 2


@pytest.mark.thorough
def test_a_straight_through_version_has_the_map_of_the_network_before():
    # The remedy that the status names: with it the map is that of the network in floats, but for the rounding itself.
    def remedied(a):
        mean = a.mean((1, 2))
        scale = jax.lax.stop_gradient(jnp.abs(mean).max() / 127)
        return straight(mean / scale) @ INTEGERS.astype(float) * scale / 20

    of = lambda head, method="grad_cam": jaxcam.explain(lambda x: head(features(x)), IMAGES, class_idx=0, method=method)
    whole = of(lambda a: a.mean((1, 2)) @ (INTEGERS.astype(float) / 20))
    np.testing.assert_allclose(of(remedied).cam_map, whole.cam_map, rtol=1e-9, atol=1e-12)
    # What takes no gradient is right as it is.
    assert of(int8, "ablation_cam").status.tolist() == [0, 0]
    assert of(int8, "eigen_cam").status.tolist() == [0, 0]


def test_a_gradient_by_the_image_looks_at_the_whole_network():
    model = lambda x: features(jnp.round(4 * x) / 4 + x).mean((1, 2)) @ LAST
    assert jaxcam.explain(model, IMAGES, class_idx=1).status.tolist() == [0, 0]
    guided = jaxcam.explain(model, IMAGES, class_idx=1, method="guided_backprop")
    assert guided.status.tolist() == [jaxcam.Status.ROUNDED] * 2

"""What a model's outputs mean: endings are cut off, one logit is binary, probabilities are said or read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal

import jaxcam
from jaxcam.cuts.logits import probability_of

KERNEL, LAST = normal(1, 3, 3, 2, 4) / 3, normal(2, 4, 5)
IMAGES = np.abs(normal(0, 3, 5, 4, 2))
BIG = 2000.0


def logits(x, last=LAST):
    a = jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", None, None, ("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(a).mean((1, 2)) @ last


def shifted(s):
    return s - jax.lax.stop_gradient(s.max(1, keepdims=True))


SOFTMAX = {
    "jax.nn": lambda s: jax.nn.softmax(s),
    "by hand": lambda s: jnp.exp(s) / jnp.exp(s).sum(1, keepdims=True),
    "shifted": lambda s: jnp.exp(shifted(s)) / jnp.exp(shifted(s)).sum(1, keepdims=True),
    "times the inverse": lambda s: (e := jnp.exp(shifted(s))) * (1 / e.sum(1, keepdims=True)),
    "clipped": lambda s: jnp.clip(jax.nn.softmax(s), 1e-7, 1 - 1e-7),
    "exp of log-softmax": lambda s: jnp.exp(jax.nn.log_softmax(s)),
    "jitted": jax.jit(lambda s: jax.nn.softmax(s, axis=-1)),
    "rematerialised": jax.checkpoint(lambda s: jax.nn.softmax(s)),
    "reshaped": lambda s: jax.nn.softmax(s).reshape(s.shape),
    "of a convolution's [n, 1, 1, c], as [n, c]": lambda s: jax.nn.softmax((2 * s[:, None, None] / 2).reshape(s.shape)),
    "of a convolution's [n, 1, 1, c]": lambda s: jax.nn.softmax(2 * s[:, None, None] / 2).reshape(s.shape),
}
LOG_SOFTMAX = {
    "jax.nn": lambda s: jax.nn.log_softmax(s),
    "less logsumexp": lambda s: s - jax.nn.logsumexp(s, axis=1, keepdims=True),
    "log of softmax": lambda s: jnp.log(jax.nn.softmax(s)),
    "log of a clipped one": lambda s: jnp.log(jnp.maximum(jax.nn.softmax(s), 1e-12)),
    "by hand": lambda s: s - jnp.log(jnp.exp(s).sum(1, keepdims=True)),
}
SIGMOID = {
    "jax.nn": lambda s: jax.nn.sigmoid(s),
    "by hand": lambda s: 1 / (1 + jnp.exp(-s)),
    "the other way": lambda s: 1.0 / (jnp.exp(-s) + 1.0),
    "clipped": lambda s: jnp.clip(jax.nn.sigmoid(s), 1e-7, 1 - 1e-7),
}
CASES = [
    (name, how, spelled)
    for name, spellings in (("softmax", SOFTMAX), ("log-softmax", LOG_SOFTMAX), ("sigmoid", SIGMOID))
    for how, spelled in spellings.items()
]


@pytest.mark.parametrize(("name", "how", "spelled"), CASES, ids=[f"{name}, {how}" for name, how, _ in CASES])
@pytest.mark.sample(4)
def test_the_ending_is_cut_off(name, how, spelled):
    # So large that every probability is 0 or 1, and a gradient through it zero.
    last = LAST * BIG
    model = lambda x: spelled(logits(x, last))
    assert jaxcam.layers(model, IMAGES).ending == name
    assert f"cut before the {name}" in str(jaxcam.layers(model, IMAGES))
    found = jaxcam.explain(model, IMAGES, class_idx=2)
    bare = jaxcam.explain(lambda x: logits(x, last), IMAGES, class_idx=2)
    np.testing.assert_array_equal(found.status, jaxcam.Status.OK)
    np.testing.assert_allclose(found.cam_map, bare.cam_map, rtol=1e-12)
    np.testing.assert_allclose(found.value, logits(IMAGES, last)[:, 2], rtol=1e-12)
    function = jax.nn.sigmoid if name == "sigmoid" else jax.nn.softmax
    np.testing.assert_allclose(found.confidence, function(logits(IMAGES, last))[:, 2], rtol=1e-12)


def test_what_is_no_ending_is_left():
    for model in (
        lambda x: jax.nn.relu(logits(x)),
        lambda x: 2 * jax.nn.softmax(logits(x)),
        lambda x: jax.nn.softmax(logits(x), axis=0),
        lambda x: jax.nn.softmax(logits(x).reshape(-1, 5), axis=1)[:, :3],
        lambda x: jax.nn.softmax(jnp.concatenate([logits(x), logits(x)[:, :1]], 1))[:, :5],
        lambda x: jnp.exp(logits(x)) / jnp.exp(2 * logits(x)).sum(1, keepdims=True),
    ):
        assert jaxcam.layers(model, IMAGES).ending is None
    split = jaxcam.split(lambda x: jax.nn.softmax(logits(x)), 0, IMAGES)
    features, head = split
    whole = lambda x: jax.nn.softmax(logits(x))
    np.testing.assert_allclose(head(whole, features(whole, IMAGES), IMAGES), whole(IMAGES), rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.sample(2)
def test_one_logit_is_class_1_and_its_negative_class_0(shape):
    one = lambda x: logits(x)[:, 3:4].reshape(-1, *shape)
    logit = np.asarray(logits(IMAGES)[:, 3])
    for spelled in (one, lambda x: jax.nn.sigmoid(one(x))):
        predicted = jaxcam.explain(spelled, IMAGES)
        np.testing.assert_array_equal(predicted.class_idx, logit > 0)
        np.testing.assert_allclose(predicted.value, np.abs(logit), rtol=1e-12)
        np.testing.assert_allclose(predicted.confidence, jax.nn.sigmoid(np.abs(logit)), rtol=1e-12)
        both = jaxcam.explain(spelled, IMAGES, class_idx="all")
        np.testing.assert_allclose(both.confidence[:, 1], jax.nn.sigmoid(logit), rtol=1e-12)
        np.testing.assert_allclose(both.confidence.sum(1), 1, rtol=1e-12)
        alone = jaxcam.explain(logits, IMAGES, class_idx=3)
        np.testing.assert_allclose(both.cam_map[:, 1], alone.cam_map, rtol=1e-12)
        against = jaxcam.explain(logits, IMAGES, class_idx=3, method="counterfactual")
        np.testing.assert_allclose(both.cam_map[:, 0], against.cam_map, rtol=1e-12)


def test_what_makes_the_confidence():
    of = lambda probability: jaxcam.explain(jaxcam.adapt(logits, probability=probability), IMAGES, class_idx=1)
    s = logits(IMAGES)
    np.testing.assert_allclose(of("softmax").confidence, jax.nn.softmax(s)[:, 1], rtol=1e-12)
    np.testing.assert_allclose(of("sigmoid").confidence, jax.nn.sigmoid(s)[:, 1], rtol=1e-12)
    np.testing.assert_allclose(of(lambda s: s**2 / (s @ s)).confidence, (s**2)[:, 1] / (s**2).sum(1), rtol=1e-12)
    assert np.isnan(of(None).confidence).all()
    assert of(None).status.tolist() == [0, 0, 0]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxcam.adapt(logits, probability="tanh"), 'probability must be "softmax", "sigmoid", None or'),
        (
            lambda: jaxcam.explain(jaxcam.adapt(lambda x: jax.nn.softmax(logits(x)), probability="sigmoid"), IMAGES),
            "probability of <lambda> must be what it ends in, a softmax",
        ),
        (
            lambda: jaxcam.explain(jaxcam.adapt(lambda x: logits(x)[:, :1], probability="softmax"), IMAGES),
            "must return more than one logit for a softmax",
        ),
        (
            lambda: jaxcam.explain(jaxcam.adapt(logits, probability="sigmoid"), IMAGES, score="softmax"),
            "is not what the outputs of logits mean",
        ),
        (
            lambda: jaxcam.explain(jaxcam.adapt(logits, probability=lambda s: s[:2]), IMAGES),
            r"probability must return \[c\], as the logits \[5\], but returned \[2\]",
        ),
        (
            lambda: jaxcam.explain(lambda x: x.mean((0, 1, 2, 3), keepdims=True)[0, 0, 0], IMAGES),
            "must keep the axis n of its inputs",
        ),
    ],
)
def test_documented_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scale", [1.0, 900.0])
def test_confidence_is_the_softmax_of_each_class_and_its_gradient(scale):
    """p_c and dp_c / ds = p_c (e_c - p), by NumPy in float64, however large the logits are."""
    s = (scale * np.array([0.3, -0.2, 1.0, 1.0, 0.9])).astype(np.float32)
    weights = np.exp(s.astype(float) - s.max())
    p = weights / weights.sum()
    found, slopes = jax.jit(
        jax.vmap(lambda c: jax.value_and_grad(probability_of, argnums=1)("softmax", jnp.asarray(s), c))
    )(np.arange(5))
    np.testing.assert_allclose(found, p, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(slopes, p[:, None] * (np.eye(5) - p), atol=1e-6)

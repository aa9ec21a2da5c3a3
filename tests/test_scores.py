import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import scores

LOGITS = np.array([0.5, -1.0, 2.0])
SUM_OF_EXPS = np.exp(0.5) + np.exp(-1.0) + np.exp(2.0)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (scores.logit, 2.0),
        (scores.exp, np.exp(2.0)),
        (scores.softmax, np.exp(2.0) / SUM_OF_EXPS),
        (scores.log_softmax, 2.0 - np.log(SUM_OF_EXPS)),
    ],
)
def test_value_static_and_traced(score, expected):
    found = jax.jit(lambda logits, traced: (score(logits, 2), score(logits, traced)))(LOGITS, np.int32(2))
    assert found == pytest.approx([expected] * 2, rel=1e-12)


@pytest.mark.parametrize("class_idx", [0, 2, -1, -3, 3, -7])
def test_unit_is_the_gradient_of_the_logit_wherever_a_traced_class_lies(class_idx):
    both = jax.jit(lambda logits, c: (jax.grad(scores.logit)(logits, c), scores.unit(logits, c)))
    gradient, unit = both(LOGITS, np.int32(class_idx))
    np.testing.assert_array_equal(unit, gradient)
    assert unit.dtype == gradient.dtype
    np.testing.assert_array_equal(np.flatnonzero(unit), [{0: 0, 2: 2, -1: 2, -3: 0, 3: 2, -7: 0}[class_idx]])


def test_softmax_of_large_logits_does_not_overflow():
    value, gradient = jax.jit(jax.value_and_grad(scores.softmax), static_argnums=1)(np.array([900.0, 900.0]), 0)
    assert value == pytest.approx(0.5)
    assert gradient == pytest.approx([0.25, -0.25])


@pytest.mark.usefixtures("unchecked")
def test_resolve_names_and_callables():
    own = lambda logits, class_idx: logits.sum()
    assert scores.resolve("exp") is scores.exp
    assert scores.resolve(own) is own
    assert scores.name_of("softmax") == scores.name_of(scores.softmax) == "softmax"
    assert scores.name_of(own) is None
    with pytest.raises(ValueError, match=r"score='logits' is not known: use one of 'logit', 'exp'"):
        scores.resolve("logits")
    with pytest.raises(TypeError, match="score must be a name or a callable"):
        scores.resolve(3)


@pytest.mark.parametrize("value", [3, -1, np.int64(7), np.int32(3), jnp.array(-4)])
def test_class_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=rf"class_idx={int(value)} is out of range: the head has 3 classes, 0 to 2"):
        scores.check_class_idx(value, 3)


@pytest.mark.parametrize("value", [1.0, True, "cat", None, jnp.array(1.0), np.float32(2)])
def test_class_that_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match="class_idx must be an integer"):
        scores.check_class_idx(value, 3)


def test_class_that_is_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"class_idx must be a scalar for one image, but its shape is \(2,\)"):
        scores.check_class_idx(np.array([0, 1]), 3)


def test_traced_class_is_not_checked():
    jax.jit(lambda c: scores.check_class_idx(c, 3))(jnp.int32(9))


def test_negated_scores_hit_the_compiled_program():
    traces = []

    def value(score, logits):
        traces.append(score)
        return scores.resolve(score)(logits, 2)

    compiled = jax.jit(value, static_argnums=0)
    for score in ("exp", scores.exp, "exp"):
        assert compiled(scores.negated(score), LOGITS) == pytest.approx(-np.exp(2.0), rel=1e-12)
    assert len(traces) == 1
    assert compiled(scores.negated("logit"), LOGITS) == pytest.approx(-2.0)
    assert len(traces) == 2
    assert jax.jit(scores.negated(scores.negated("logit")))(LOGITS, np.int32(1)) == pytest.approx(-1.0)


@pytest.mark.usefixtures("unchecked")
def test_negated_refuses_what_resolve_refuses():
    with pytest.raises(ValueError, match=r"score='logits' is not known: use one of 'logit', 'exp'"):
        scores.negated("logits")
    with pytest.raises(TypeError, match="score must be a name or a callable"):
        scores.negated(3)

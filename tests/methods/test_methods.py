import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import brute_force, gap_head, normal, positive, relu_head, smooth_head

from jaxcam import methods, scores

SHAPES = [(6, 3), (3, 2, 3), (2, 2, 2, 3)]


def relu(x):
    return np.maximum(x, 0)


def grad_cam_pp_by_hand(f, a):
    """Weights and map of Grad-CAM++ from brute-force derivatives: Eq. 5, 10 and 20."""
    d1, d2, d3 = brute_force(f)(a)
    positions = tuple(range(a.ndim - 1))
    a = np.asarray(a)
    alphas = d2 / (2 * d2 + a.sum(positions, keepdims=True) * d3)
    weights = (alphas * relu(d1)).sum(positions)
    return weights, relu((a * weights).sum(-1))


def test_cam_by_hand():
    a = jnp.array([[[1.0, 2.0], [3.0, 0.0]]])
    kernel = jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, -3.0]])
    np.testing.assert_array_equal(methods.cam(kernel, a, 2), [[-4.0, 6.0]])


def test_mean_of_cam_is_the_logit():
    a, kernel = normal(0, 4, 5, 3), normal(1, 3, 6)
    logit = np.asarray(a).mean((0, 1)) @ np.asarray(kernel)[:, 4]
    np.testing.assert_allclose(np.mean(methods.cam(kernel, a, 4)), logit, rtol=1e-12)


def test_grad_cam_by_hand():
    # S_0 = 2 a00 - 3 a10 + 5 a11 (position, channel): the means of the gradient are (2 - 3) / 2 and 5 / 2.
    head = lambda a: jnp.stack([2 * a[0, 0] - 3 * a[1, 0] + 5 * a[1, 1], a.sum()])
    a = jnp.array([[1.0, 2.0], [4.0, 0.5]])
    weights, cam_map = jax.jit(lambda a: (methods.grad_cam_weights(head, a, 0), methods.grad_cam(head, a, 0)))(a)
    np.testing.assert_allclose(weights, [-0.5, 2.5])
    np.testing.assert_allclose(cam_map, [4.5, 0.0])


def test_grad_cam_pp_by_hand():
    # One channel, two positions, S_0 = 2 a0 - a1 with A = (1, 3): S_k = 4, alpha_0 = 1 / (2 + 8) where g > 0; w = 0.2.
    head = lambda a: jnp.stack([2 * a[0, 0] - a[1, 0], a.sum()])
    a = jnp.array([[1.0], [3.0]])

    @jax.jit
    def both(a):
        normalised = methods.grad_cam_pp_weights(head, a, 0, normalize_alphas=True)
        return methods.grad_cam_pp_weights(head, a, 0), methods.grad_cam_pp(head, a, 0), normalised

    weights, cam_map, normalised = both(a)
    np.testing.assert_allclose(weights, [0.2])
    np.testing.assert_allclose(cam_map, [0.2, 0.6])
    # alpha_0 is the only alpha with a positive gradient, so normalised it becomes 1 and w = ReLU(g_0) = 2. Divided by
    # the sum over all positions (1/10 - 1/2 of alpha_1) it would be -0.5.
    np.testing.assert_allclose(normalised, [2.0])


@pytest.mark.parametrize("shape", SHAPES)
def test_cam_is_grad_cam_up_to_a_factor_on_gap_heads(shape):
    a, kernel = normal(0, *shape), normal(1, 3, 5)
    num_positions = float(np.prod(shape[:-1]))
    both = jax.jit(lambda a, c: (methods.cam(kernel, a, c), methods.grad_cam(gap_head(kernel), a, c)))
    for c in range(5):
        cam, grad_cam = (np.asarray(cam_map) for cam_map in both(a, c))
        np.testing.assert_allclose(num_positions * grad_cam, relu(cam), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", ["logit", "exp", "softmax", "log_softmax"])
@pytest.mark.sample(3)
def test_grad_cam_is_the_mean_gradient_of_the_score(shape, score):
    a, head = normal(0, *shape), smooth_head(shape[:-1], 3, 4)

    @jax.jit
    def three(a):
        gradient = jax.grad(lambda x: scores.resolve(score)(head(x), 2))(a)
        weights = methods.grad_cam_weights(head, a, 2, score=score)
        return gradient, head(a)[2], weights, methods.grad_cam(head, a, 2, score=score)

    gradient, logit, found, cam_map = (np.asarray(value) for value in three(a))
    weights = gradient.mean(tuple(range(a.ndim - 1)))
    if score == "exp":  # divided by exp(S_c), by the contract
        weights = weights / np.exp(logit)
    np.testing.assert_allclose(found, weights, rtol=1e-10)
    np.testing.assert_allclose(cam_map, relu(np.asarray(a) @ weights), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("score", ["exp", "softmax", "log_softmax"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sample(3)
def test_grad_cam_pp_equals_brute_force_on_a_relu_head(shape, score):
    a, head = positive(0, *shape), relu_head(shape[:-1], 3, 4)
    weights, cam_map = grad_cam_pp_by_hand(lambda x: scores.resolve(score)(head(x), 2), a)

    @jax.jit
    def of_each(a):
        functions = methods.grad_cam_pp_weights, methods.grad_cam_pp
        of = lambda alphas: [function(head, a, 2, score=score, alphas=alphas) for function in functions]
        return head(a)[2], [of(alphas) for alphas in ("auto", "exact", "closed_form")]

    logit, found = of_each(a)
    scale = np.exp(logit) if score == "exp" else 1.0
    for found_weights, found_map in found:
        np.testing.assert_allclose(found_weights, weights / scale, rtol=1e-8)
        np.testing.assert_allclose(found_map, cam_map / scale, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("score", ["exp", "softmax", "logit", lambda logits, c: logits[c] ** 3])
@pytest.mark.sample(2)
def test_grad_cam_pp_equals_brute_force_on_a_smooth_head(score):
    a, head = positive(0, 3, 2, 3), smooth_head((3, 2), 3, 4)
    weights, _ = grad_cam_pp_by_hand(lambda x: scores.resolve(score)(head(x), 1), a)
    found, logit = jax.jit(lambda a: (methods.grad_cam_pp_weights(head, a, 1, score=score), head(a)[1]))(a)
    scale = np.exp(logit) if score == "exp" else 1.0
    np.testing.assert_allclose(found, weights / scale, rtol=1e-8)


def test_closed_form_is_visibly_not_exact_on_a_smooth_head():
    a, head = positive(0, 3, 2, 3), smooth_head((3, 2), 3, 4)

    @jax.jit
    def both(a):
        gradient = jax.grad(lambda x: head(x)[1])(a)
        closed = (jax.nn.relu(gradient) / (2 + a.sum((0, 1), keepdims=True) * gradient)).sum((0, 1))
        return closed, methods.grad_cam_pp_weights(head, a, 1, alphas="exact")

    closed, exact = (np.asarray(weights) for weights in both(a))
    assert np.abs(closed / exact - 1).max() > 0.01


@pytest.mark.parametrize("alphas", ["closed_form", "exact"])
def test_logits_of_several_hundred_in_float32(alphas):
    # exp(700) overflows even float64; the weights must be those of a head whose logits are shifted to 0.
    a, base = positive(0, 3, 3, 4, dtype=np.float32), relu_head((3, 3), 4, 5)

    @jax.jit
    def weights(a, shift):
        head = lambda x: base(x) + shift
        return methods.grad_cam_pp_weights(head, a, 1, alphas=alphas), methods.grad_cam_weights(head, a, 1, score="exp")

    shifted, of_exp = weights(a, np.float32(700))
    expected, _ = weights(a, np.float32(0))
    np.testing.assert_allclose(shifted, expected, rtol=2e-4)
    np.testing.assert_allclose(of_exp, jax.jit(lambda a: methods.grad_cam_weights(base, a, 1))(a), rtol=2e-4)


@pytest.mark.parametrize("alphas", ["closed_form", "exact"])
def test_improbable_class_under_softmax_in_float32(alphas):
    # p_c = exp(-200) underflows float32. alpha does not depend on p_c, so it must stay right where d1 is zero.
    a, base = positive(0, 3, 3, 4, dtype=np.float32), relu_head((3, 3), 4, 5)
    offset = np.array([0, -200, 0, 0, 0], np.float32)
    of = lambda a: methods.grad_cam_pp_weights(lambda x: base(x) + offset, a, 1, score="softmax", alphas=alphas)
    assert np.isfinite(jax.jit(of)(a)).all()


@pytest.mark.parametrize("score", ["softmax", "log_softmax"])
@pytest.mark.sample(2)
def test_confident_class_in_float32_equals_float64(score):
    # 1 - p down to 1e-11: S_c - logsumexp(S) is 0 in float32, and s_c - sum p s keeps no digit.
    a, base = positive(0, 3, 3, 4), relu_head((3, 3), 4, 5)

    @functools.partial(jax.jit, static_argnames="alphas")
    def weights(a, lead, *, alphas):
        head = lambda x: base(x) + lead * np.array([0, 1, 0, 0, 0], x.dtype)
        return methods.grad_cam_pp_weights(head, a, 1, score=score, alphas=alphas)

    for lead in (10, 17, 26):
        expected = np.asarray(weights(a, np.float64(lead), alphas="exact"))
        scale = expected.max()
        assert scale > 0
        for alphas in ("closed_form", "exact"):
            found = np.asarray(weights(a.astype(np.float32), np.float32(lead), alphas=alphas))
            np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)


def single_image_functions():
    kernel = normal(9, 3, 4)
    relu4, tanh4 = relu_head((3, 2), 3, 4), smooth_head((3, 2), 3, 4)
    return {
        "cam": lambda a, c: methods.cam(kernel, a, c),
        "grad_cam": lambda a, c: methods.grad_cam(tanh4, a, c, score="softmax"),
        "grad_cam_weights": lambda a, c: methods.grad_cam_weights(relu4, a, c),
        "grad_cam_pp": lambda a, c: methods.grad_cam_pp(relu4, a, c),
        "grad_cam_pp_exact": lambda a, c: methods.grad_cam_pp(tanh4, a, c),
        "grad_cam_pp_softmax": lambda a, c: methods.grad_cam_pp(relu4, a, c, score="softmax"),
        "grad_cam_pp_weights": lambda a, c: methods.grad_cam_pp_weights(relu4, a, c, normalize_alphas=True),
    }


@pytest.mark.parametrize("name", single_image_functions())
@pytest.mark.thorough
def test_jit_equals_eager_and_vmap_equals_a_loop(name):
    function = single_image_functions()[name]
    batch, classes = np.abs(np.random.default_rng(0).normal(size=(4, 3, 2, 3))), np.array([0, 3, 1, 3])
    jitted = jax.jit(function)
    loop = np.stack([jitted(a, c) for a, c in zip(batch, classes, strict=True)])
    assert np.abs(loop).max() > 0
    np.testing.assert_allclose(function(jnp.asarray(batch[1]), int(classes[1])), loop[1], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(batch, classes), loop, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("score", ["exp", "softmax"])
@pytest.mark.parametrize("alphas", ["exact", "closed_form"])
@pytest.mark.sample(3)
def test_maps_are_differentiable_by_the_parameters(alphas, score):
    a, w1, w2 = positive(0, 4, 3), normal(1, 12, 5), normal(2, 5, 4)
    spread, direction, step = normal(3, 4), normal(4, 12, 5), 1e-6

    def total(w1):
        head = lambda x: jax.nn.relu(x.reshape(-1) @ w1) @ w2
        return methods.grad_cam_pp(head, a, 2, score=score, alphas=alphas) @ spread

    gradient, value = jax.jit(jax.grad(total))(w1), jax.jit(total)
    w1, direction = np.asarray(w1), np.asarray(direction)
    slope = (value(w1 + step * direction) - value(w1 - step * direction)) / (2 * step)
    assert np.abs(slope) > 1e-4
    np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), slope, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_documented_errors():
    a, head = positive(0, 3, 2, 3), relu_head((3, 2), 3, 4)
    smooth = smooth_head((3, 2), 3, 4)
    pp, gc, cam = methods.grad_cam_pp, methods.grad_cam, methods.cam
    with pytest.raises(ValueError, match=r'not proven to be: use alphas="exact"'):
        pp(smooth, a, 0, alphas="closed_form")
    with pytest.raises(ValueError, match=r'score=\'logit\' with a piecewise linear head.*Use score="exp"'):
        pp(head, a, 0, score="logit")
    with pytest.raises(ValueError, match="this score with a piecewise linear head"):
        pp(head, a, 0, score=lambda logits, c: 2 * logits[c])
    with pytest.raises(ValueError, match=r"score='logit' has no closed form: use alphas=\"exact\""):
        pp(smooth, a, 0, score="logit", alphas="closed_form")
    with pytest.raises(ValueError, match="alphas='fast' is not known: use one of 'auto', 'exact', 'closed_form'"):
        pp(head, a, 0, alphas="fast")
    with pytest.raises(ValueError, match="score='prob' is not known"):
        gc(head, a, 0, score="prob")
    with pytest.raises(ValueError, match="class_idx=4 is out of range: the head has 4 classes"):
        gc(head, a, 4)
    with pytest.raises(ValueError, match=r"head must return logits \[c\] for one image, but returned \(2, 4\)"):
        gc(lambda x: jnp.stack([head(x), head(x)]), a, 0)
    with pytest.raises(TypeError, match="activations must be floating point, but their dtype is int"):
        gc(head, jnp.ones((3, 2, 3), jnp.int32), 0)
    with pytest.raises(TypeError, match="head must be a callable"):
        gc(jnp.ones((3, 4)), a, 0)
    with pytest.raises(ValueError, match=r"at least one spatial axis, but their shape is \(3,\)"):
        gc(lambda x: x, jnp.ones(3), 0)
    with pytest.raises(ValueError, match=r"head_kernel must be \[k, c\] with the k = 3 channels"):
        cam(jnp.ones((4, 3)), a, 0)

"""The other methods: cases by hand, brute force, and what algebra says about how they are related."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import brute_force, cut_model, gap_head, normal, positive, relu_head, smooth_head

import jaxcam
from jaxcam import maps, methods, scores

# Two channels on a 1 x 2 grid. S_0 = 3 a - 2 b + c d with A = [[a, b], [c, d]], positions by channels.
A = jnp.array([[[1.0, 2.0], [4.0, 0.5]]])


def once(function, *args, **options):
    """The function of these arrays, as one program."""
    return jax.jit(functools.partial(function, **options))(*args)


def head(a):
    (p, q), (r, s) = a[0]
    return jnp.stack([3 * p - 2 * q + r * s, p + q + r + s])


# dS/dA = [[3, -2], [d, c]] = [[3, -2], [0.5, 4]] by position.
BY_HAND = {
    "grad_cam": [[1.75 * 1 + 1 * 2, 1.75 * 4 + 1 * 0.5]],  # means 1.75 and 1
    "hires_cam": [[0, 4]],  # ReLU(3 - 4), 0.5 * 4 + 4 * 0.5
    "layer_cam": [[3, 4]],
    "grad_cam_positive": [[1.75 * 1 + 2 * 2, 1.75 * 4 + 2 * 0.5]],  # means of [3, 0.5] and [0, 4]
    "xgrad_cam": [[1 * 1 - 0.8 * 2, 1 * 4 - 0.8 * 0.5]],  # (3 + 2) / 5 and (-4 + 2) / 2.5
    "counterfactual": [[0, 0]],
    "finer_cam": [[0.75, 3]],  # S_0 - S_1 has [[2, -3], [-0.5, 3]]: means 0.75 and 0
    "shapley_cam": [[1.625 * 1, 1.625 * 4]],  # H A = [[0, 0], [d, c]]: means of [3, 0.25] and [-2, 2]
    # S = 3 - 4 + 2 = 1; without channel 0: -4; without channel 1: 3.
    "ablation_cam": [[5 * 1 - 2 * 2, 5 * 4 - 2 * 0.5]],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    expected = np.maximum(BY_HAND[name], 0)
    function = methods.METHODS[name].function
    both = once(lambda a, c: (function(head, a, 0), function(head, a, c)), A, np.int32(0))
    np.testing.assert_allclose(both, [expected, expected], rtol=1e-12)


def test_counterfactual_is_grad_cam_of_what_speaks_against():
    against = lambda a: -head(a)
    for spread in (relu_head((3, 4), 5, 4), against):
        a = A if spread is against else positive(0, 3, 4, 5)
        both = lambda a, f=spread: (methods.counterfactual(f, a, 1), jaxcam.grad_cam(lambda a: -f(a), a, 1))
        found, expected = once(both, a)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert once(lambda a: methods.counterfactual(against, a, 0), A).max() > 1


def test_negated_scores_are_equal_for_equal_scores():
    assert scores.negated("exp") == scores.negated("exp") != scores.negated("softmax")
    assert hash(scores.negated("exp")) == hash(scores.negated("exp"))
    logits = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(scores.negated("exp")(logits, 1), -np.exp(2.0))
    np.testing.assert_allclose(scores.negated(lambda s, c: s[c] * 3)(logits, 0), -3.0)
    with pytest.raises(ValueError, match="score='sigmoid' is not known"):
        scores.negated("sigmoid")


def test_relations_on_a_pooled_linear_head():
    """The gradient is w / (i j) at every position: all of these are CAM up to the ReLU and a factor."""
    kernel, a = normal(0, 5, 4), positive(1, 3, 4, 5)
    pooled, above = gap_head(kernel), gap_head(positive(0, 5, 4))

    @jax.jit
    def maps_of(a):
        by_name = lambda head, *names: [getattr(methods, name)(head, a, 2) for name in names]
        return (
            methods.cam(kernel, a, 2),
            by_name(pooled, "hires_cam", "xgrad_cam", "grad_cam"),
            by_name(pooled, "ablation_cam"),
            by_name(above, "layer_cam", "hires_cam", "grad_cam_positive", "grad_cam"),
        )

    cam, linear, (ablation,), (layer, hires, positive_only, grad_cam) = maps_of(a)
    cam = np.maximum(cam, 0)
    assert cam.max() > 0
    for found in linear:
        np.testing.assert_allclose(found, cam / 12, rtol=1e-9, atol=1e-12)
    # Linear without bias: S - S_k = w_k mean(A_k), so that the weights are w_k mean(A_k) / S.
    x, kernel = np.asarray(a), np.asarray(kernel)
    logit = x.mean((0, 1)) @ kernel[:, 2]
    weights = kernel[:, 2] * x.mean((0, 1)) / abs(logit)
    np.testing.assert_allclose(ablation, np.maximum(x @ weights, 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer, hires, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(positive_only, grad_cam, rtol=1e-9, atol=1e-12)


def test_hires_cam_adds_up_to_the_logit_of_a_linear_head():
    weights, a = positive(0, 60), positive(1, 3, 4, 5)
    linear = lambda a: jnp.stack([a.reshape(-1) @ weights, a.sum()])
    found = once(lambda a: methods.hires_cam(linear, a, 0), a)
    np.testing.assert_allclose(np.sum(found), np.asarray(a).reshape(-1) @ np.asarray(weights), rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 3), (3, 4, 5), (2, 3, 2, 4)])
def test_brute_force_in_any_number_of_axes(shape):
    f, a = smooth_head(shape[:-1], shape[-1], 4), normal(1, *shape)
    n, x = np.prod(shape[:-1]), np.asarray(a)
    without = np.stack([np.where(np.arange(shape[-1]) == k, 0, x) for k in range(shape[-1])])

    @jax.jit
    def of(a, without):
        names = "xgrad_cam", "hires_cam", "layer_cam", "grad_cam_positive"
        found = [getattr(methods, name)(f, a, 2) for name in names]
        ablation = methods.ablation_cam(f, a, 2, chunk_size=2)
        return jax.jacobian(f)(a)[2], f(a), jax.vmap(f)(without), *found, ablation

    g, logits, ablated, xgrad, hires, layer_cam, positive_only, ablation = (np.asarray(v) for v in of(a, without))
    axes = tuple(range(len(shape) - 1))
    total = np.zeros(shape[:-1])
    for k in range(shape[-1]):
        total += (g[..., k] * x[..., k]).sum() / x[..., k].sum() * x[..., k]
    np.testing.assert_allclose(xgrad, np.maximum(total, 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(hires, np.maximum((g * x).sum(-1), 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer_cam, np.maximum((np.maximum(g, 0) * x).sum(-1), 0), rtol=1e-9, atol=1e-12)
    expected = np.maximum(x @ (np.maximum(g, 0).sum(axes) / n), 0)
    np.testing.assert_allclose(positive_only, expected, rtol=1e-9, atol=1e-12)
    drops = (logits - ablated)[:, 2] / abs(logits[2])
    np.testing.assert_allclose(ablation, np.maximum(x @ drops, 0), atol=1e-9)


def test_other_scores_are_differentiated():
    f, a = relu_head((3, 4), 5, 4), positive(1, 3, 4, 5)
    own = lambda logits, c: logits[c] - logits[0]

    @jax.jit
    def of(a):
        found = [methods.hires_cam(f, a, 1, score=score) for score in ("softmax", own)]
        values = lambda a: (jax.nn.softmax(f(a))[1], f(a)[1] - f(a)[0])
        return found, jax.jacobian(values)(a)

    for found, gradient in zip(*of(a), strict=True):
        np.testing.assert_allclose(found, np.maximum((gradient * np.asarray(a)).sum(-1), 0), rtol=1e-9, atol=1e-12)


def test_ablation_of_a_negative_score_keeps_what_speaks_for_the_class():
    # S = a - 3 b = 1 - 6 = -5 by channel means: removing channel 0 lowers it, removing channel 1 raises it.
    f = lambda a: jnp.stack([a[..., 0].mean() - 3 * a[..., 1].mean(), a.sum()])
    zero = lambda a: jnp.stack([a[..., 0].sum() - 2, a.sum()])
    a = jnp.array([[[2.0, 1.0], [0.0, 3.0]]])
    found, undivided = once(lambda a: [methods.ablation_cam(head, a, 0) for head in (f, zero)], a)
    # Weights (-5 + 6) / 5 = 0.2 and (-5 - 1) / 5 = -1.2.
    np.testing.assert_allclose(found, np.maximum([[0.4 - 1.2, 0 - 3.6]], 0), rtol=1e-12)
    np.testing.assert_allclose(undivided, [[4.0, 0.0]], rtol=1e-12)  # Y = 0: weight 2


@pytest.mark.parametrize("shape", [(5, 3), (3, 4, 5), (2, 2, 7)])
def test_eigen_cam_against_numpy(shape):
    a = normal(2, *shape)
    _, _, right = np.linalg.svd(np.asarray(a).reshape(-1, shape[-1]), full_matrices=False)
    expected = np.asarray(a) @ right[0]
    expected = np.maximum(expected * np.sign(expected.sum()), 0)
    found, negated = once(lambda a: (methods.eigen_cam(a), methods.eigen_cam(-a)), a)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(negated, found, rtol=1e-9, atol=1e-12)


def test_channels_that_sum_to_zero_give_no_nan():
    a = jnp.array([[[1.0, 1.0], [-1.0, 2.0]]])
    f = lambda a: jnp.stack([(a**2).sum(), a.sum()])
    found = once(lambda a: methods.xgrad_cam(f, a, 0), a)  # channel 1: (2 + 8) / 3
    np.testing.assert_allclose(found, [[10 / 3, 20 / 3]], rtol=1e-12)
    gradient = once(jax.grad(lambda s: methods.xgrad_cam(lambda a: s * f(a), a, 0).sum()), 2.0)
    np.testing.assert_allclose(gradient, 10, rtol=1e-12)


@pytest.mark.parametrize("name", ["hires_cam", "xgrad_cam", "layer_cam", "grad_cam_positive", "ablation_cam"])
@pytest.mark.sample(2)
def test_vmap_and_gradients_through_maps(name):
    f, a = relu_head((3, 4), 5, 4), positive(1, 2, 3, 4, 5)
    function = methods.METHODS[name].function
    tanh = lambda a, s: function(lambda a: jnp.tanh(s * f(a)), a, 1).sum()
    dead = lambda a, s: function(lambda a: s * jax.nn.relu(f(a) - 1e6), a, 1).sum()

    @jax.jit
    def of(a):
        together = jax.vmap(lambda a, c: function(f, a, c))(a, np.array([1, 3]))
        ends = [tanh(a[0], s) for s in (1 + 1e-6, 1 - 1e-6)]
        slopes = jax.grad(tanh, 1)(a[0], 1.0), (ends[0] - ends[1]) / 2e-6
        return together, [function(f, a[0], 1), function(f, a[1], 3)], slopes, jax.value_and_grad(dead, 1)(a[0], 1.0)

    together, apart, (gradient, slope), (value, of_dead) = of(a)
    np.testing.assert_allclose(together, apart, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)
    # A map that is zero everywhere has finite gradients.
    assert value == 0
    assert np.isfinite(of_dead)


class Model:
    """Features and head given as functions; the image is `[H, W, d]`."""

    def __init__(self, features, head):
        self.features, self.head = jax.vmap(features), jax.vmap(head)


def _of(parts):
    model = object.__new__(Model)
    model.features, model.head = parts
    return model


jax.tree_util.register_pytree_node(Model, lambda m: ((), (m.features, m.head)), lambda parts, _: _of(parts))


@pytest.fixture(scope="module")
def model():
    kernel = normal(0, 3, 5)
    return Model(lambda x: jax.nn.relu(x[::2, ::2] @ kernel), relu_head((3, 4), 5, 4))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).normal(size=(6, 8, 3))


@functools.partial(jax.jit, static_argnums=1)
def draws(key, num):
    """The noise of each sample on the image."""
    keys = jax.random.split(key, num)
    return jnp.stack([jax.random.normal(one, (6, 8, 3), jnp.float32) for one in keys]).astype(jnp.float64)


@jax.jit
def resized(channel):
    """A channel of 3 x 4 as large as the image."""
    return jax.image.resize(channel, (6, 8), "linear")


@pytest.mark.parametrize("score", ["logit", "softmax"])
@pytest.mark.sample(2)
def test_score_cam_against_a_loop(model, image, score):
    whole = jax.jit(lambda images: model.head(model.features(images)))
    a = np.asarray(jax.jit(model.features)(image[None])[0])
    changes = []
    for k in range(a.shape[-1]):
        h = np.asarray(resized(a[..., k]))
        h = (h - h.min()) / (h.max() - h.min())
        masked = image * h[..., None]
        logits, nothing = (np.asarray(whole(x[None])[0]) for x in (masked, np.zeros((6, 8, 3))))
        if score == "softmax":
            logits, nothing = (np.exp(s) / np.exp(s).sum() for s in (logits, nothing))
        changes.append(float(logits[2] - nothing[2]))
    weights = np.exp(changes) / np.exp(changes).sum()
    expected = np.maximum(a @ weights, 0)
    assert expected.max() > 0
    for chunk_size in (None, 1, 2):
        found = once(lambda x, n=chunk_size: methods.score_cam(model, x, 2, score=score, chunk_size=n), image)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_score_cam_of_a_constant_channel_masks_everything(image):
    features = lambda x: jnp.concatenate([x[::2, ::2, :1] ** 2, jnp.ones((3, 4, 1))], -1)
    logit = lambda a: jnp.stack([a[..., 0].sum(), a.sum()])
    found = once(lambda x: methods.score_cam(Model(features, logit), x, 0), image)
    by_hand = lambda x: np.concatenate([x[::2, ::2, :1] ** 2, np.ones((3, 4, 1))], -1)
    a = by_hand(image)
    h = np.asarray(resized(a[..., 0]))
    h = (h - h.min()) / (h.max() - h.min())
    y = np.array([by_hand(image * h[..., None])[..., 0].sum(), 0.0])
    np.testing.assert_allclose(found, a @ (np.exp(y) / np.exp(y).sum()), rtol=1e-9)


@pytest.mark.parametrize("score", ["exp", "softmax", "log_softmax"])
@pytest.mark.parametrize("smooth", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.sample(3)
def test_smooth_grad_cam_pp_against_a_loop_of_brute_force(image, score, smooth):
    f = smooth_head((3, 4), 2, 4) if smooth else relu_head((3, 4), 2, 4)
    features = lambda x: jax.nn.relu(x[::2, ::2, :2])
    model, key = Model(features, f), jax.random.key(7)
    of = lambda x: methods.smooth_grad_cam_pp(model, x, 3, key=key, num_samples=3, noise=0.3, score=score)
    y = brute_force(lambda a: getattr(scores, score)(f(a), 3))
    by_hand = lambda x: np.maximum(x[::2, ::2, :2], 0)
    found, noisy = np.asarray(once(of, image)), image + 0.3 * (image.max() - image.min()) * np.asarray(draws(key, 3))
    d1, d2, d3 = np.mean([y(by_hand(x)) for x in noisy], 0)
    a = by_hand(image)
    denominator = 2 * d2 + a.sum((0, 1)) * d3
    alphas = np.divide(d2, denominator, out=np.zeros_like(d2), where=denominator != 0)
    expected = np.maximum(a @ (alphas * np.maximum(d1, 0)).sum((0, 1)), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), rtol=1e-6, atol=1e-7)


def test_smooth_grad_cam_pp_without_noise_is_grad_cam_pp(model, image):
    @jax.jit
    def both(image):
        found = methods.smooth_grad_cam_pp(model, image, 2, key=jax.random.key(0), num_samples=2, noise=0.0)
        a = model.features(image[None])[0]
        return found, jaxcam.grad_cam_pp(lambda a: model.head(a[None])[0], a, 2)

    found, expected = both(image)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_smooth_grad_cam_pp_with_huge_logits_is_finite(image):
    f = relu_head((3, 4), 2, 4)
    steep = Model(lambda x: jax.nn.relu(x[::2, ::2, :2]), lambda a: 1e4 * f(a))
    found = once(lambda x: methods.smooth_grad_cam_pp(steep, x, 2, key=jax.random.key(0)), image)
    assert np.isfinite(found).all()


def test_memory_is_that_of_one_chunk():
    a = positive(0, 16, 16, 64)
    f = relu_head((16, 16), 64, 4)
    used = {
        chunk: jax.jit(lambda a, chunk=chunk: methods.ablation_cam(f, a, 1, chunk_size=chunk))
        .lower(a)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for chunk in (4, 64)
    }
    assert used[4] < used[64] / 4


def test_the_list_names_every_method_with_its_paper():
    public = {name for name, value in vars(methods).items() if inspect.isfunction(value)}
    helpers = {"grad_cam_weights", "grad_cam_pp_weights", "smoothed", "signed", "__dir__"}
    assert public - helpers == set(methods.METHODS)
    for name, method in methods.METHODS.items():
        assert method.function is getattr(methods, name)
        author, year = method.source.split()[0], method.source.split()[-1]
        assert author in inspect.getdoc(method.function)
        assert year in inspect.getdoc(method.function)
        assert f"    {name} " in methods.__doc__


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: methods.ablation_cam(head, A, 0, chunk_size=0), ValueError, "chunk_size must be at least 1"),
        (lambda m, x: methods.ablation_cam(head, A, 0, chunk_size=1.5), TypeError, "chunk_size must be an integer"),
        (lambda m, x: methods.ablation_cam(head, A, 2), ValueError, "class_idx=2 is out of range"),
        (lambda m, x: methods.hires_cam(head, A, 0, score="p"), ValueError, "score='p' is not known"),
        (lambda m, x: methods.layer_cam(head, A.astype(int), 0), TypeError, "activations must be floating point"),
        (lambda m, x: methods.eigen_cam(A[0, 0]), ValueError, r"activations must be \[\*spatial, k\]"),
        (lambda m, x: methods.eigen_cam(A.astype(int)), TypeError, "activations must be floating point"),
        (lambda m, x: methods.score_cam(m, x, 9), ValueError, "class_idx=9 is out of range"),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 1, key=jax.random.key(0), num_samples=0),
            ValueError,
            "num_samples must be at least 1",
        ),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 1, key=jax.random.key(0), noise=-1.0),
            ValueError,
            "noise must be at least 0 but is",
        ),
        (lambda m, x: methods.guided_backprop(Model, x, 1), TypeError, "but is the class Model itself"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors(model, image, call, error, message):
    with pytest.raises(error, match=message):
        call(model, image)


@pytest.mark.thorough
def test_guided_grad_cam_is_the_product():
    network = jaxcam.models.mini_vgg(None, seed=1)
    image = normal(0, 64, 64, 3, dtype=np.float32)

    @jax.jit
    def of(image):
        a = network.features(image[None])[0]
        heat = maps.heatmap(jaxcam.grad_cam(lambda a: network.head(a[None])[0], a, 3), (64, 64))
        return jaxcam.guided_backprop(network, image, 3) * heat[..., None], jaxcam.guided_grad_cam(network, image, 3)

    expected, found = (np.asarray(picture) for picture in of(image))
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# What follows holds for numbers that float32, dead channels and other images bring.


def image_identity(head):
    """The image itself is the activations: masks need no resizing, and what is expected can be written down."""
    return cut_model(lambda image: image, lambda a, image: head(a))


def test_eigen_cam_by_hand():
    # A'A = [[9, 0], [0, 16]]: the first right singular vector is the second channel, whose sum is positive.
    eigen_cam = jax.jit(methods.eigen_cam)
    found = eigen_cam(np.array([[[0.0, 4.0], [3.0, 0.0]]]))
    np.testing.assert_allclose(found, [[4, 0]], atol=1e-12)
    # A = s u v' with v = (3, 4) / 5 and u = (1, -3): projected on it 5 and -15; the sum is made positive.
    found = eigen_cam(np.array([[[3.0, 4.0], [-9.0, -12.0]]]))
    np.testing.assert_allclose(found, [[0, 15]], atol=1e-12)


def test_score_cam_by_hand():
    # Channels [[1, 3]] and [[4, 2]] become masks [[0, 1]] and [[1, 0]]. Y = p_1 + 2 q_0 of the masked image is 3 and 8.
    image = jnp.array([[[1.0, 4.0], [3.0, 2.0]]])
    model = image_identity(lambda a: jnp.stack([a[0, 1, 0] + 2 * a[0, 0, 1], a.sum()]))
    w = 1 / (1 + np.exp(5.0))
    found = once(lambda x: methods.score_cam(model, x, 0), image)
    np.testing.assert_allclose(found, [[w + 4 * (1 - w), 3 * w + 2 * (1 - w)]], rtol=1e-12)


def test_smooth_grad_cam_pp_by_hand():
    # Without noise Grad-CAM++'s: S_0 = 2 a - b with A = (1, 3), S_k = 4, alpha_0 = 1 / (2 + 4 * 2), w = 0.2.
    model = image_identity(lambda a: jnp.stack([2 * a[0, 0, 0] - a[0, 1, 0], a.sum()]))
    image = jnp.array([[[1.0], [3.0]]])
    of = lambda x: methods.smooth_grad_cam_pp(model, x, 0, key=jax.random.key(0), num_samples=3, noise=0.0)
    found = once(of, image)
    np.testing.assert_allclose(found, [[0.2, 0.6]], rtol=1e-12)


@pytest.mark.thorough
def test_heads_see_the_noisy_image_they_belong_to(image):
    """A skip connection: the head of each sample takes that sample's image, not the one that is explained."""
    f = relu_head((6, 8), 2, 4)
    features = lambda x: jax.nn.relu(x[..., :2])
    past = lambda a, x: jnp.tanh(f(a)) * (1 + x.mean() ** 2)
    key = jax.random.key(2)
    model = cut_model(features, past)
    found = once(
        lambda x: methods.smooth_grad_cam_pp(model, x, 1, key=key, num_samples=2, noise=0.5, score="logit"), image
    )
    by_hand, derivatives = lambda x: np.maximum(x[..., :2], 0), brute_force(lambda a, x: past(a, x)[1])
    samples = image + 0.5 * (image.max() - image.min()) * np.asarray(draws(key, 2))
    d1, d2, d3 = np.mean([derivatives(by_hand(x), x) for x in samples], 0)
    a = by_hand(image)
    alphas = d2 / (2 * d2 + a.sum((0, 1)) * d3)
    expected = np.maximum(a @ (alphas * np.maximum(d1, 0)).sum((0, 1)), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10 * expected.max())


@pytest.mark.thorough
def test_samples_weigh_as_in_the_mean_of_exp_whatever_the_logits(image):
    """exp(300) overflows float32: a constant added to all logits is a factor of the mean, and is divided out."""
    f, kernel, key = relu_head((3, 4), 5, 4), normal(0, 3, 5), jax.random.key(5)
    features = lambda x: jax.nn.relu(x[::2, ::2] @ kernel.astype(x.dtype))

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def of(image, shift, num_samples, noise):
        model = cut_model(features, lambda a, x: f(a) + shift)
        return methods.smooth_grad_cam_pp(model, image, 2, key=key, num_samples=num_samples, noise=noise)

    narrow = image.astype(np.float32)
    one = of(image, np.float64(0), 1, 0.0)
    # Several samples, whose noise depends on the precision: both in float32.
    expected = np.asarray(of(narrow, np.float32(0), 4, 0.3))
    assert expected.max() > 0
    for shift in np.float32([0, 300, -300]):
        np.testing.assert_allclose(of(narrow, shift, 1, 0.0), one, rtol=1e-3, atol=1e-5)
        found = np.asarray(of(narrow, shift, 4, 0.3))
        np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=1e-3)


@pytest.mark.thorough
def test_smooth_grad_cam_pp_in_half_precision():
    # The gradient is 1e-3 or less: its cube is 0 in float16, and alpha would be 1/2 instead of 1 / (2 + S_k g).
    random = np.random.default_rng(1)
    kernel, image = np.abs(random.normal(size=(2 * 3 * 40, 4))) * 2e-3, np.abs(random.normal(size=(2, 3, 40))) * 400
    head = lambda a: a.reshape(-1) @ kernel.astype(a.dtype)
    arguments = {"key": jax.random.key(0), "num_samples": 1, "noise": 0.0}
    of = jax.jit(lambda x: methods.smooth_grad_cam_pp(image_identity(head), x, 0, **arguments))
    expected, found = np.asarray(of(image)), of(image.astype(np.float16))
    halves_of_ones = image @ (kernel[:, 0].reshape(image.shape) / 2).sum((0, 1))
    assert found.dtype == np.float16
    assert np.abs(halves_of_ones / expected - 1).min() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_exp_of_large_logits_in_float32():
    # (Y - Y_k) / Y = 1 - exp(S_k - S) whatever is added to all logits, and exp(200) overflows.
    f, a = relu_head((3, 4), 5, 4), positive(1, 3, 4, 5, dtype=np.float32)
    plus = lambda a, sign: sign * f(a) + np.asarray(200, a.dtype)
    wide = np.asarray(a, float)
    without = np.stack([np.where(np.arange(5) == k, 0, wide) for k in range(5)])

    @jax.jit
    def in_float32(a):
        against = [methods.counterfactual(lambda a, s=s: plus(a, np.float32(s)), a, 1, score="exp") for s in (1, -1)]
        return methods.ablation_cam(lambda a: plus(a, np.float32(1)), a, 1, score="exp"), against

    drops, gradient = once(lambda a, w: (f(a)[1] - jax.vmap(f)(w)[:, 1], jax.grad(lambda a: f(a)[1])(a)), wide, without)
    ablation, against = in_float32(a)
    expected = np.maximum(wide @ (1 - np.exp(-np.asarray(drops))), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(ablation, expected, rtol=1e-3, atol=1e-3)
    weights = np.asarray(gradient).mean((0, 1))
    for sign, found in zip((1, -1), against, strict=True):
        np.testing.assert_allclose(found, np.maximum(-sign * (wide @ weights), 0), rtol=1e-3, atol=1e-5)
    assert np.abs(wide @ weights).max() > 0.01


@pytest.mark.parametrize("score", ["logit", "softmax", "log_softmax", scores.logit, "exp"])
@pytest.mark.sample(2)
def test_counterfactual_is_grad_cam_with_the_score_negated(score):
    f, a = relu_head((3, 4), 5, 4), positive(1, 3, 4, 5)
    negated = scores.negated(score)
    both = lambda a, c: (methods.counterfactual(f, a, c, score=score), methods.grad_cam(f, a, c, score=negated))
    found, expected = once(jax.vmap(both, (None, 0)), a, np.arange(4))
    assert np.max(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("score", ["exp", "softmax", "log_softmax"])
def test_negated_scores_lose_no_digits_where_the_others_do_not(score):
    """Logits of 120 apart: p_c and 1 - p_c are zero in float32, exp(S_c) is infinite. S is linear, of slopes s.

    The gradient of log p_0, whose others have the shares r of 1 - p_0, is (1 - p_0) (s_0 - sum r s).
    """
    W = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    a = np.random.default_rng(3).normal(size=(3, 4, 5)).astype(np.float32)
    head = lambda a: a.mean((0, 1)) @ W + np.array([120, 0, 0.5], np.float32)
    rest = np.exp(a.mean((0, 1)).astype(float) @ W[:, 1:] + [0, 0.5])
    slope = W[:, 0] - (0 if score == "exp" else W[:, 1:] @ (rest / rest.sum()))
    of = lambda sign: np.maximum(sign * (a @ slope), 0)

    def normalised(cam_map):
        return cam_map / cam_map.max()

    def both(a):
        grad_cam = methods.grad_cam(head, a, 0, score=scores.negated(score))
        twice = methods.grad_cam(head, a, 0, score=scores.negated(scores.negated(score)))
        return grad_cam, twice, methods.grad_cam_pp(head, a, 0, score=scores.negated(score))

    against, twice, plus_plus = map(np.asarray, once(both, a))
    assert np.isfinite(plus_plus).all()
    assert plus_plus.max() > 0
    for found, sign in ((against, -1), (twice, 1)):
        np.testing.assert_allclose(normalised(found), normalised(of(sign)), rtol=1e-4, atol=1e-5)


def slopes(total, x):
    """The slope of a scalar function in a direction: by the gradient, by its jvp, by finite differences."""
    direction = np.random.default_rng(6).normal(size=x.shape)

    @jax.jit
    def three(x, direction):
        ends = [total(x + step * direction) for step in (1e-6, -1e-6)]
        return (jax.grad(total)(x) * direction).sum(), jax.jvp(total, (x,), (direction,))[1], (ends[0] - ends[1]) / 2e-6

    return three(x, direction)


@pytest.mark.parametrize("shape", [(6, 3), (2, 2, 6), (3, 4, 5)])
@pytest.mark.parametrize("dead", [0, 2])
@pytest.mark.sample(3, first=1)
def test_gradient_through_eigen_cam(shape, dead):
    """Also where channels are zero, whose singular values are equal: there the derivative of a whole SVD is NaN."""
    a = np.random.default_rng(2).normal(size=shape) + 1
    a[..., :dead] = 0
    by_reverse, by_forward, slope = slopes(lambda x: (methods.eigen_cam(x) * normal(5, *shape[:-1])).sum(), a)
    assert np.abs(slope) > 1e-2
    np.testing.assert_allclose(by_reverse, slope, rtol=1e-5)
    np.testing.assert_allclose(by_forward, slope, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (2, 2, 6)])
@pytest.mark.parametrize("dead", [0, 2, 3])
@pytest.mark.sample(6)
def test_second_derivatives_through_eigen_cam(shape, dead):
    """Of a smooth function of the map, along a direction: finite differences of the first ones; with dead channels."""
    a = np.array(normal(2, *shape) + 1)
    a[..., :dead] = 0
    spread, direction = normal(5, *shape[:-1]), normal(6, *shape)
    total = lambda x: (jnp.sin(methods.eigen_cam(x)) * spread).sum()
    slope = lambda x: jax.jvp(total, (x,), (direction,))[1]

    @jax.jit
    def run(x):
        ahead, behind = slope(x + 1e-6 * direction), slope(x - 1e-6 * direction)
        backwards = (jax.grad(lambda x: (jax.grad(total)(x) * direction).sum())(x) * direction).sum()
        return (ahead - behind) / 2e-6, jax.jvp(slope, (x,), (direction,))[1], backwards

    expected, forwards, backwards = run(a)
    assert np.abs(expected) > 1e-2
    np.testing.assert_allclose([forwards, backwards], expected, rtol=1e-5)


def test_gradient_through_score_cam_with_a_constant_channel(image):
    """Its mask is 0/0 before it is zero; no ReLU stands behind it that would hide a NaN."""
    f, spread = relu_head((6, 8), 2, 4), positive(5, 6, 8)
    features = lambda x: jnp.concatenate([x[..., :1] ** 2, jnp.full((6, 8, 1), 1 + x[0, 0, 1] ** 2)], -1)
    # One channel is one pixel of the image everywhere, so that the program shows no grid.
    model = dataclasses.replace(cut_model(features, lambda a, x: f(a)), grid=lambda a: a)
    by_reverse, _, slope = slopes(lambda x: (methods.score_cam(model, x, 1) * spread).sum(), image)
    assert np.abs(slope) > 1e-2
    np.testing.assert_allclose(by_reverse, slope, rtol=1e-5)


def test_memory_of_score_cam_is_that_of_one_chunk():
    image = positive(0, 32, 32, 64)
    f = relu_head((32, 32), 64, 4)
    used = {
        chunk: jax.jit(lambda x, chunk=chunk: methods.score_cam(image_identity(f), x, 1, chunk_size=chunk))
        .lower(image)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for chunk in (4, 64)
    }
    assert used[4] < used[64] / 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # A model that casts for itself would take it, and a mask of integers is 0 nearly everywhere.
        (lambda m, x: methods.score_cam(m, (x * 9).astype(int), 0), TypeError, "image must be floating point"),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, (x * 9).astype(int), 0, key=jax.random.key(0)),
            TypeError,
            "image must be floating point but its dtype is int64: divide by 255 and normalise",
        ),
        (lambda m, x: methods.score_cam(m, x.tolist(), 0), TypeError, "image must be an array .* but is list"),
        (lambda m, x: methods.score_cam(m, x, 0, score="p"), ValueError, "score='p' is not known"),
        (lambda m, x: methods.score_cam(m, x, 0, chunk_size=True), TypeError, "chunk_size must be an integer"),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=jax.random.key(0), num_samples=2.0),
            TypeError,
            "num_samples must be an integer",
        ),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=jax.random.key(0), score="logit"),
            ValueError,
            'Use score="exp"',
        ),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=jax.random.key(0), noise=np.float32(-1)),
            ValueError,
            "noise must be at least 0 but is",
        ),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=jax.random.key(0), noise=float("nan")),
            ValueError,
            "noise must be at least 0 but is nan",
        ),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=jax.random.key(0), noise="much"),
            TypeError,
            "noise must be a number but is 'much'",
        ),
        (lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=0), TypeError, "key must be one random key.* but is 0"),
        (
            lambda m, x: methods.smooth_grad_cam_pp(m, x, 0, key=jax.random.split(jax.random.key(0), 2)),
            TypeError,
            "key must be one random key",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors_of_methods_on_images(model, image, call, error, message):
    with pytest.raises(error, match=message):
        call(model, image)


@pytest.mark.parametrize("score", ["exp", "softmax", "log_softmax"])
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.gelu])
@pytest.mark.sample(2)
def test_grad_cam_pp_of_a_negated_score_by_its_derivatives(score, activation):
    """What speaks against the class: closed form and exact, with alpha = d2 / (2 d2 + S_k d3) of -Y."""
    kernel, a = normal(3, 5, 4), positive(4, 3, 4, 5)
    head = lambda x: activation(x).mean((0, 1)) @ kernel
    negated = scores.negated(score)
    d1, d2, d3 = once(lambda a: jaxcam.elementwise_derivatives(lambda x: negated(head(x), 2), a), a)
    d1, d2, d3 = map(np.asarray, (d1, d2, d3))
    alpha = d2 / (2 * d2 + np.asarray(a).sum((0, 1)) * d3)
    expected = (alpha * np.maximum(d1, 0)).sum((0, 1))
    assert expected.max() > 0
    found = np.asarray(once(lambda a: methods.grad_cam_pp_weights(head, a, 2, score=negated), a))
    factor = np.exp(np.asarray(head(a))[2]) if score == "exp" else 1  # which is divided out
    np.testing.assert_allclose(factor * found, expected, rtol=1e-9, atol=1e-15)

"""The other methods: cases by hand, brute force, and what algebra says about how they are related."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import brute_force_derivatives, cut_model, gap_head, normal, relu_head, smooth_head

import jaxcam
from jaxcam import maps, methods, scores

# Two channels on a 1 x 2 grid. S_0 = 3 a - 2 b + c d with A = [[a, b], [c, d]], positions by channels.
A = jnp.array([[[1.0, 2.0], [4.0, 0.5]]])


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
    # S = 3 - 4 + 2 = 1; without channel 0: -4; without channel 1: 3.
    "ablation_cam": [[5 * 1 - 2 * 2, 5 * 4 - 2 * 0.5]],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    expected = np.maximum(BY_HAND[name], 0)
    function = methods.METHODS[name].function
    np.testing.assert_allclose(function(head, A, 0), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(function, static_argnums=0)(head, A, jnp.int32(0)), expected, rtol=1e-12)


def test_counterfactual_is_grad_cam_of_what_speaks_against():
    against = lambda a: -head(a)
    for spread in (relu_head((3, 4), 5, 4), against):
        a = A if spread is against else jnp.abs(normal(0, 3, 4, 5))
        found = jaxcam.methods.counterfactual(spread, a, 1)
        np.testing.assert_allclose(found, jaxcam.grad_cam(lambda a, f=spread: -f(a), a, 1), rtol=1e-12)
    assert jaxcam.methods.counterfactual(against, A, 0).max() > 1


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
    kernel, a = normal(0, 5, 4), jnp.abs(normal(1, 3, 4, 5))
    pooled = gap_head(kernel)
    cam = np.maximum(jaxcam.cam(kernel, a, 2), 0)
    assert cam.max() > 0
    np.testing.assert_allclose(methods.hires_cam(pooled, a, 2), cam / 12, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(methods.xgrad_cam(pooled, a, 2), cam / 12, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(methods.grad_cam(pooled, a, 2), cam / 12, rtol=1e-9, atol=1e-12)
    # Linear without bias: S - S_k = w_k mean(A_k), so that the weights are w_k mean(A_k) / S.
    logit = float(pooled(a)[2])
    weights = np.asarray(kernel[:, 2] * a.mean((0, 1))) / abs(logit)
    np.testing.assert_allclose(methods.ablation_cam(pooled, a, 2), np.maximum(a @ weights, 0), rtol=1e-9, atol=1e-12)
    positive = gap_head(jnp.abs(kernel))
    np.testing.assert_allclose(
        methods.layer_cam(positive, a, 2), methods.hires_cam(positive, a, 2), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        methods.grad_cam_positive(positive, a, 2), methods.grad_cam(positive, a, 2), rtol=1e-9, atol=1e-12
    )


def test_hires_cam_adds_up_to_the_logit_of_a_linear_head():
    weights, a = jnp.abs(normal(0, 60)), jnp.abs(normal(1, 3, 4, 5))
    linear = lambda a: jnp.stack([a.reshape(-1) @ weights, a.sum()])
    np.testing.assert_allclose(methods.hires_cam(linear, a, 0).sum(), linear(a)[0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 3), (3, 4, 5), (2, 3, 2, 4)])
def test_brute_force_in_any_number_of_axes(shape):
    f, a = smooth_head(shape[:-1], shape[-1], 4), normal(1, *shape)
    g = np.asarray(jax.jacobian(f)(a)[2])
    n, x = np.prod(shape[:-1]), np.asarray(a)
    axes = tuple(range(len(shape) - 1))
    total = np.zeros(shape[:-1])
    for k in range(shape[-1]):
        total += (g[..., k] * x[..., k]).sum() / x[..., k].sum() * x[..., k]
    np.testing.assert_allclose(methods.xgrad_cam(f, a, 2), np.maximum(total, 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(methods.hires_cam(f, a, 2), np.maximum((g * x).sum(-1), 0), rtol=1e-9, atol=1e-12)
    layer = np.maximum((np.maximum(g, 0) * x).sum(-1), 0)
    np.testing.assert_allclose(methods.layer_cam(f, a, 2), layer, rtol=1e-9, atol=1e-12)
    positive = np.maximum(x @ (np.maximum(g, 0).sum(axes) / n), 0)
    np.testing.assert_allclose(methods.grad_cam_positive(f, a, 2), positive, rtol=1e-9, atol=1e-12)
    ablated = np.zeros(shape[:-1])
    for k in range(shape[-1]):
        without = x.copy()
        without[..., k] = 0
        ablated += float((f(a) - f(jnp.asarray(without)))[2] / abs(f(a)[2])) * x[..., k]
    np.testing.assert_allclose(methods.ablation_cam(f, a, 2, chunk_size=2), np.maximum(ablated, 0), atol=1e-9)


def test_other_scores_are_differentiated():
    f, a = relu_head((3, 4), 5, 4), jnp.abs(normal(1, 3, 4, 5))
    p = lambda a: jax.nn.softmax(f(a))[1]
    expected = np.maximum((jax.grad(p)(a) * a).sum(-1), 0)
    np.testing.assert_allclose(methods.hires_cam(f, a, 1, score="softmax"), expected, rtol=1e-9, atol=1e-12)
    own = lambda logits, c: logits[c] - logits[0]
    expected = np.maximum((jax.grad(lambda a: f(a)[1] - f(a)[0])(a) * a).sum(-1), 0)
    np.testing.assert_allclose(methods.hires_cam(f, a, 1, score=own), expected, rtol=1e-9, atol=1e-12)


def test_ablation_of_a_negative_score_keeps_what_speaks_for_the_class():
    # S = a - 3 b = 1 - 6 = -5 by channel means: removing channel 0 lowers it, removing channel 1 raises it.
    f = lambda a: jnp.stack([a[..., 0].mean() - 3 * a[..., 1].mean(), a.sum()])
    a = jnp.array([[[2.0, 1.0], [0.0, 3.0]]])
    # Weights (-5 + 6) / 5 = 0.2 and (-5 - 1) / 5 = -1.2.
    np.testing.assert_allclose(methods.ablation_cam(f, a, 0), np.maximum([[0.4 - 1.2, 0 - 3.6]], 0), rtol=1e-12)
    found = methods.ablation_cam(lambda a: jnp.stack([a[..., 0].sum() - 2, a.sum()]), a, 0)
    np.testing.assert_allclose(found, [[4.0, 0.0]], rtol=1e-12)  # Y = 0: weight 2, undivided


@pytest.mark.parametrize("shape", [(5, 3), (3, 4, 5), (2, 2, 7)])
def test_eigen_cam_against_numpy(shape):
    a = normal(2, *shape)
    _, _, right = np.linalg.svd(np.asarray(a).reshape(-1, shape[-1]), full_matrices=False)
    expected = np.asarray(a) @ right[0]
    expected = np.maximum(expected * np.sign(expected.sum()), 0)
    np.testing.assert_allclose(methods.eigen_cam(a), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(methods.eigen_cam(-a), methods.eigen_cam(a), rtol=1e-9, atol=1e-12)


def test_channels_that_sum_to_zero_give_no_nan():
    a = jnp.array([[[1.0, 1.0], [-1.0, 2.0]]])
    f = lambda a: jnp.stack([(a**2).sum(), a.sum()])
    found = methods.xgrad_cam(f, a, 0)  # channel 1: (2 + 8) / 3
    np.testing.assert_allclose(found, [[10 / 3, 20 / 3]], rtol=1e-12)
    gradient = jax.grad(lambda s: methods.xgrad_cam(lambda a: s * f(a), a, 0).sum())(2.0)
    np.testing.assert_allclose(gradient, 10, rtol=1e-12)


@pytest.mark.parametrize("name", ["hires_cam", "xgrad_cam", "layer_cam", "grad_cam_positive", "ablation_cam"])
def test_vmap_and_gradients_through_maps(name):
    f, a = relu_head((3, 4), 5, 4), jnp.abs(normal(1, 2, 3, 4, 5))
    function = methods.METHODS[name].function
    together = jax.vmap(lambda a, c: function(f, a, c))(a, jnp.array([1, 3]))
    for i, c in enumerate((1, 3)):
        np.testing.assert_allclose(together[i], function(f, a[i], c), rtol=1e-9, atol=1e-12)
    total = lambda s: function(lambda a: jnp.tanh(s * f(a)), a[0], 1).sum()
    slope = (total(1 + 1e-6) - total(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(total)(1.0), slope, rtol=1e-5, atol=1e-8)
    # A map that is zero everywhere has finite gradients.
    dead = lambda s: function(lambda a: s * jax.nn.relu(f(a) - 1e6), a[0], 1).sum()
    assert dead(1.0) == 0
    assert np.isfinite(jax.grad(dead)(1.0))


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
    features = lambda x: jax.nn.relu(x[::2, ::2] @ normal(0, 3, 5))
    return Model(features, relu_head((3, 4), 5, 4))


@pytest.fixture(scope="module")
def image():
    return normal(3, 6, 8, 3)


@pytest.mark.parametrize("score", ["logit", "softmax"])
def test_score_cam_against_a_loop(model, image, score):
    a = np.asarray(model.features(image[None])[0])
    changes = []
    for k in range(a.shape[-1]):
        h = np.asarray(jax.image.resize(a[..., k], (6, 8), "linear"))
        h = (h - h.min()) / (h.max() - h.min())
        masked = model.features((image * h[..., None])[None])
        empty = model.features(jnp.zeros((1, 6, 8, 3)))
        logits, nothing = model.head(masked)[0], model.head(empty)[0]
        if score == "softmax":
            logits, nothing = jax.nn.softmax(logits), jax.nn.softmax(nothing)
        changes.append(float(logits[2] - nothing[2]))
    weights = np.exp(changes) / np.exp(changes).sum()
    expected = np.maximum(a @ weights, 0)
    assert expected.max() > 0
    for chunk_size in (None, 1, 2):
        found = methods.score_cam(model, image, 2, score=score, chunk_size=chunk_size)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_score_cam_of_a_constant_channel_masks_everything(image):
    features = lambda x: jnp.concatenate([x[::2, ::2, :1] ** 2, jnp.ones((3, 4, 1))], -1)
    logit = lambda a: jnp.stack([a[..., 0].sum(), a.sum()])
    found = methods.score_cam(Model(features, logit), image, 0)
    a = np.asarray(features(image))
    h = np.asarray(jax.image.resize(a[..., 0], (6, 8), "linear"))
    h = (h - h.min()) / (h.max() - h.min())
    y = np.array([float(logit(features(image * h[..., None]))[0]), 0.0])
    np.testing.assert_allclose(found, a @ (np.exp(y) / np.exp(y).sum()), rtol=1e-9)


@pytest.mark.parametrize("score", ["exp", "softmax", "log_softmax"])
@pytest.mark.parametrize("smooth", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_smooth_grad_cam_pp_against_a_loop_of_brute_force(image, score, smooth):
    f = smooth_head((3, 4), 2, 4) if smooth else relu_head((3, 4), 2, 4)
    features = lambda x: jax.nn.relu(x[::2, ::2, :2])
    model, key = Model(features, f), jax.random.key(7)
    found = methods.smooth_grad_cam_pp(model, image, 2, key=key, num_samples=3, noise=0.3, score=score)
    y = lambda a: getattr(scores, score)(f(a), 2)
    sums = [0.0, 0.0, 0.0]
    for one in jax.random.split(key, 3):
        noisy = image + 0.3 * (image.max() - image.min()) * jax.random.normal(one, image.shape)
        sums = [s + d for s, d in zip(sums, brute_force_derivatives(y, features(noisy)), strict=True)]
    d1, d2, d3 = (s / 3 for s in sums)
    a = np.asarray(features(image))
    denominator = 2 * d2 + a.sum((0, 1)) * d3
    alphas = np.divide(d2, denominator, out=np.zeros_like(d2), where=denominator != 0)
    expected = np.maximum(a @ (alphas * np.maximum(d1, 0)).sum((0, 1)), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), rtol=1e-6, atol=1e-7)


def test_smooth_grad_cam_pp_without_noise_is_grad_cam_pp(model, image):
    found = methods.smooth_grad_cam_pp(model, image, 2, key=jax.random.key(0), num_samples=2, noise=0.0)
    a = model.features(image[None])[0]
    expected = jaxcam.grad_cam_pp(lambda a: model.head(a[None])[0], a, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_smooth_grad_cam_pp_with_huge_logits_is_finite(image):
    steep = Model(lambda x: jax.nn.relu(x[::2, ::2, :2]), lambda a: 1e4 * relu_head((3, 4), 2, 4)(a))
    found = methods.smooth_grad_cam_pp(steep, image, 2, key=jax.random.key(0))
    assert np.isfinite(found).all()


def test_memory_is_that_of_one_chunk():
    a = jnp.abs(normal(0, 16, 16, 64))
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
    helpers = {"grad_cam_weights", "grad_cam_pp_weights", "__dir__"}
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


def test_guided_grad_cam_is_the_product():
    network = jaxcam.models.mini_vgg(None, seed=1)
    image = normal(0, 64, 64, 3, dtype=np.float32)
    a = network.features(image[None])[0]
    heat = maps.heatmap(jaxcam.grad_cam(lambda a: network.head(a[None])[0], a, 3), (64, 64))
    expected = np.asarray(jaxcam.guided_backprop(network, image, 3)) * np.asarray(heat)[..., None]
    found = jaxcam.guided_grad_cam(network, image, 3)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# What follows holds for numbers that float32, dead channels and other images bring.


def image_identity(head):
    """The image itself is the activations: masks need no resizing, and what is expected can be written down."""
    return cut_model(lambda image: image, lambda a, image: head(a))


def test_eigen_cam_by_hand():
    # A'A = [[9, 0], [0, 16]]: the first right singular vector is the second channel, whose sum is positive.
    found = methods.eigen_cam(jnp.array([[[0.0, 4.0], [3.0, 0.0]]]))
    np.testing.assert_allclose(found, [[4, 0]], atol=1e-12)
    # A = s u v' with v = (3, 4) / 5 and u = (1, -3): projected on it 5 and -15; the sum is made positive.
    found = methods.eigen_cam(jnp.array([[[3.0, 4.0], [-9.0, -12.0]]]))
    np.testing.assert_allclose(found, [[0, 15]], atol=1e-12)


def test_score_cam_by_hand():
    # Channels [[1, 3]] and [[4, 2]] become masks [[0, 1]] and [[1, 0]]. Y = p_1 + 2 q_0 of the masked image is 3 and 8.
    image = jnp.array([[[1.0, 4.0], [3.0, 2.0]]])
    model = image_identity(lambda a: jnp.stack([a[0, 1, 0] + 2 * a[0, 0, 1], a.sum()]))
    w = 1 / (1 + np.exp(5.0))
    np.testing.assert_allclose(methods.score_cam(model, image, 0), [[w + 4 * (1 - w), 3 * w + 2 * (1 - w)]], rtol=1e-12)


def test_smooth_grad_cam_pp_by_hand():
    # Without noise Grad-CAM++'s: S_0 = 2 a - b with A = (1, 3), S_k = 4, alpha_0 = 1 / (2 + 4 * 2), w = 0.2.
    model = image_identity(lambda a: jnp.stack([2 * a[0, 0, 0] - a[0, 1, 0], a.sum()]))
    image = jnp.array([[[1.0], [3.0]]])
    found = methods.smooth_grad_cam_pp(model, image, 0, key=jax.random.key(0), num_samples=3, noise=0.0)
    np.testing.assert_allclose(found, [[0.2, 0.6]], rtol=1e-12)


def test_heads_see_the_noisy_image_they_belong_to(image):
    """A skip connection: the head of each sample takes that sample's image, not the one that is explained."""
    f = relu_head((6, 8), 2, 4)
    features = lambda x: jax.nn.relu(x[..., :2])
    past = lambda a, x: jnp.tanh(f(a)) * (1 + x.mean() ** 2)
    key = jax.random.key(2)
    model = cut_model(features, past)
    found = methods.smooth_grad_cam_pp(model, image, 1, key=key, num_samples=2, noise=0.5, score="logit")
    spread = 0.5 * (image.max() - image.min())
    samples = [image + spread * jax.random.normal(one, image.shape) for one in jax.random.split(key, 2)]
    by_sample = [brute_force_derivatives(lambda a, x=x: past(a, x)[1], features(x)) for x in samples]
    d1, d2, d3 = (sum(d) / 2 for d in zip(*by_sample, strict=True))
    a = np.asarray(features(image))
    alphas = d2 / (2 * d2 + a.sum((0, 1)) * d3)
    expected = np.maximum(a @ (alphas * np.maximum(d1, 0)).sum((0, 1)), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10 * expected.max())


@pytest.mark.parametrize("shift", [0, 300, -300])
def test_samples_weigh_as_in_the_mean_of_exp_whatever_the_logits(image, shift):
    """exp(300) overflows float32: a constant added to all logits is a factor of the mean, and is divided out."""
    f = relu_head((3, 4), 5, 4)
    features = lambda x: jax.nn.relu(x[::2, ::2] @ normal(0, 3, 5).astype(x.dtype))
    shifted = cut_model(features, lambda a, x: f(a) + jnp.asarray(shift, a.dtype))
    plain = cut_model(features, lambda a, x: f(a))
    of = lambda model, x: methods.smooth_grad_cam_pp(model, x, 2, key=jax.random.key(5), num_samples=1, noise=0.0)
    np.testing.assert_allclose(of(shifted, image.astype(jnp.float32)), of(plain, image), rtol=1e-3, atol=1e-5)
    # Several samples, whose noise depends on the precision: both in float32.
    arguments = {"key": jax.random.key(5), "num_samples": 4, "noise": 0.3}
    narrow = image.astype(jnp.float32)
    found, expected = (methods.smooth_grad_cam_pp(m, narrow, 2, **arguments) for m in (shifted, plain))
    assert expected.max() > 0
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=1e-3)


def test_smooth_grad_cam_pp_in_half_precision():
    # The gradient is 1e-3 or less: its cube is 0 in float16, and alpha would be 1/2 instead of 1 / (2 + S_k g).
    kernel = jnp.abs(normal(1, 2 * 3 * 40, 4)) * 2e-3
    head = lambda a: a.reshape(-1) @ kernel.astype(a.dtype)
    image = jnp.abs(normal(0, 2, 3, 40)) * 400
    arguments = {"key": jax.random.key(0), "num_samples": 1, "noise": 0.0}
    expected = methods.smooth_grad_cam_pp(image_identity(head), image, 0, **arguments)
    found = methods.smooth_grad_cam_pp(image_identity(head), image.astype(jnp.float16), 0, **arguments)
    halves_of_ones = np.asarray(image @ (jax.grad(lambda a: head(a)[0])(image) / 2).sum((0, 1)))
    assert found.dtype == jnp.float16
    assert np.abs(halves_of_ones / expected - 1).min() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_exp_of_large_logits_in_float32():
    # (Y - Y_k) / Y = 1 - exp(S_k - S) whatever is added to all logits, and exp(200) overflows.
    f, a = relu_head((3, 4), 5, 4), jnp.abs(normal(1, 3, 4, 5, dtype=np.float32))
    large = lambda a: f(a) + np.float32(200)
    wide = a.astype(float)
    drops = jnp.stack([f(wide)[1] - f(wide.at[..., k].set(0))[1] for k in range(5)])
    expected = np.maximum(wide @ (1 - jnp.exp(-drops)), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(methods.ablation_cam(large, a, 1, score="exp"), expected, rtol=1e-3, atol=1e-3)
    weights = jax.grad(lambda a: f(a)[1])(wide).mean((0, 1))
    for sign in (1, -1):
        found = methods.counterfactual(lambda a, s=sign: s * f(a) + np.float32(200), a, 1, score="exp")
        np.testing.assert_allclose(found, np.maximum(-sign * (wide @ weights), 0), rtol=1e-3, atol=1e-5)
    assert np.abs(wide @ weights).max() > 0.01


@pytest.mark.parametrize("score", ["logit", "softmax", "log_softmax", scores.logit])
def test_counterfactual_is_grad_cam_with_the_score_negated(score):
    f, a = relu_head((3, 4), 5, 4), jnp.abs(normal(1, 3, 4, 5))
    found = [methods.counterfactual(f, a, c, score=score) for c in range(4)]
    expected = [methods.grad_cam(f, a, c, score=scores.negated(score)) for c in range(4)]
    assert np.max(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(6, 3), (2, 2, 6), (3, 4, 5)])
@pytest.mark.parametrize("dead", [0, 2])
def test_gradient_through_eigen_cam(shape, dead):
    """Also where channels are zero, whose singular values are equal: there the derivative of a whole SVD is NaN."""
    a = normal(2, *shape) + 1
    a = a.at[..., :dead].set(0)
    spread, direction = normal(5, *shape[:-1]), normal(6, *shape)
    total = lambda x: (methods.eigen_cam(x) * spread).sum()
    slope = (total(a + 1e-6 * direction) - total(a - 1e-6 * direction)) / 2e-6
    assert np.abs(slope) > 1e-2
    np.testing.assert_allclose((jax.grad(total)(a) * direction).sum(), slope, rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(total, (a,), (direction,))[1], slope, rtol=1e-5)


def test_gradient_through_score_cam_with_a_constant_channel(image):
    """Its mask is 0/0 before it is zero; no ReLU stands behind it that would hide a NaN."""
    f, spread, direction = relu_head((6, 8), 2, 4), jnp.abs(normal(5, 6, 8)), normal(4, 6, 8, 3)
    features = lambda x: jnp.concatenate([x[..., :1] ** 2, jnp.full((6, 8, 1), 1 + x[0, 0, 1] ** 2)], -1)
    model = cut_model(features, lambda a, x: f(a))
    total = lambda x: (methods.score_cam(model, x, 1) * spread).sum()
    slope = (total(image + 1e-6 * direction) - total(image - 1e-6 * direction)) / 2e-6
    assert np.abs(slope) > 1e-2
    np.testing.assert_allclose((jax.grad(total)(image) * direction).sum(), slope, rtol=1e-5)


def test_memory_of_score_cam_is_that_of_one_chunk():
    image = jnp.abs(normal(0, 32, 32, 64))
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
            "image must be floating point and normalised for the model but its dtype is int",
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

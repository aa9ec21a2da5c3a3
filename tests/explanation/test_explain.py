import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from support import drawn, gap_head, normal, positive, relu_head, smooth_head
from support import network as random_network

import jaxcam
from jaxcam import maps, methods, models
from jaxcam.explanation.explain import _compiled


class Own(NamedTuple):
    """Somebody's own model: a pytree of arrays with features and head; images are its activations."""

    kernel: jax.Array

    def features(self, images):
        return jax.nn.relu(images)

    def head(self, activations):
        return jnp.tanh(activations.reshape(activations.shape[0], -1) @ self.kernel)


class Halves:
    """features and head given as functions, without parameters."""

    def __init__(self, features, head):
        self.features, self.head = features, head


jax.tree_util.register_pytree_node(Halves, lambda h: ((), (h.features, h.head)), lambda halves, _: Halves(*halves))


class NotAPytree:
    """An object that JAX knows nothing of; its arrays are arguments of the compiled program all the same."""

    def __init__(self, kernel):
        self.kernel = kernel

    def features(self, images):
        return images * self.kernel[None, None, None]

    def head(self, activations):
        return activations.mean((1, 2))


def halves(head, features=lambda x: x):
    return Halves(features, jax.vmap(head))


@pytest.fixture(scope="module")
def network():
    return random_network(models.mini_vgg, seed=2)


@pytest.fixture(scope="module")
def images():
    return drawn(0, 3, 64, 64, 3).astype(np.float32)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp"])
@pytest.mark.sample(2)
def test_equals_the_method_on_one_image_at_a_time(network, images, method):
    found = jax.tree.map(np.asarray, jaxcam.explain(network, images, method=method))

    @jax.jit
    def alone(network, image, c):
        activations = network.features(image[None])[0]
        raw = getattr(methods, method)(lambda a: network.head(a[None])[0], activations, c)
        return raw, maps.heatmap(raw, (64, 64)), network(image[None])[0]

    for i, image in enumerate(np.asarray(images)):
        c = found.class_idx[i]
        raw, heatmap, logits = (np.asarray(value) for value in alone(network, image, c))
        assert c == logits.argmax()
        scale = raw.max()
        assert scale > 0
        np.testing.assert_allclose(found.cam_map[i] / scale, raw / scale, atol=1e-4)
        np.testing.assert_allclose(found.heatmap[i], heatmap, atol=1e-4)
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(found.confidence[i], probabilities[c], rtol=1e-4)
    np.testing.assert_array_equal(found.status, 0)


@pytest.mark.thorough
def test_cam_equals_grad_cam_on_the_residual_network(images):
    network = random_network(models.mini_resnet, seed=2)
    cam = jaxcam.explain(network, images, method="cam")
    grad_cam = jaxcam.explain(network, images, method="grad_cam")
    assert cam.heatmap.max() > 0.5
    np.testing.assert_allclose(cam.heatmap, grad_cam.heatmap, atol=1e-4)
    expected = 256 * np.asarray(grad_cam.cam_map)
    np.testing.assert_allclose(np.maximum(cam.cam_map, 0), expected, rtol=1e-3, atol=1e-4)


def test_layer_and_score_are_passed_on(network, images):
    found = jaxcam.explain(network, images[:1], method="grad_cam", layer="relu3", score="softmax", class_idx=4)

    @jax.jit
    def alone(network, images):
        activations = network.features(images[:1], layer="relu3")[0]
        head = lambda a: network.head(a[None], layer="relu3")[0]
        return methods.grad_cam(head, activations, 4, score="softmax")

    raw = np.asarray(alone(network, images))
    np.testing.assert_allclose(found.cam_map[0] / raw.max(), raw / raw.max(), atol=1e-4)


@pytest.mark.parametrize("options", [{"score": "softmax"}, {"alphas": "exact"}, {"normalize_alphas": True}])
@pytest.mark.sample(3)
def test_options_of_grad_cam_pp_are_passed_on(options):
    head, a = relu_head((3, 4), 2, 5), positive(1, 2, 3, 4, 2)
    found = jaxcam.explain(halves(head), a, class_idx=jnp.array([1, 3]), method="grad_cam_pp", **options)
    alone = jax.jit(lambda a, c: methods.grad_cam_pp(head, a, c, **options))
    for i, c in enumerate((1, 3)):
        raw = alone(a[i], c)
        np.testing.assert_allclose(found.cam_map[i], raw, rtol=1e-9, atol=1e-12)


def test_own_model_by_hand():
    # d S_0 / d A = sech^2 * kernel: weights are its means over the positions.
    kernel = normal(3, 2 * 2 * 3, 4)
    image = jnp.abs(normal(4, 1, 2, 2, 3))
    found = jaxcam.explain(Own(kernel), image, class_idx=0, method="grad_cam")
    score = np.tanh(np.asarray(image).reshape(-1) @ np.asarray(kernel)[:, 0])
    weights = ((1 - score**2) * np.asarray(kernel)[:, 0]).reshape(4, 3).mean(0)
    np.testing.assert_allclose(found.cam_map[0], np.maximum(np.asarray(image)[0] @ weights, 0), rtol=1e-10)


def test_an_object_that_is_no_pytree_is_not_frozen_into_the_program():
    model, images = NotAPytree(jnp.array([1.0, -2.0, 3.0])), jnp.abs(normal(4, 1, 2, 2, 3))
    explain = lambda: jaxcam.explain(model, images, class_idx=2, method="grad_cam").cam_map[0]
    before = explain()
    np.testing.assert_allclose(before, 3 * images[0, ..., 2] / 4, rtol=1e-12)
    count = _compiled._cache_size()
    model.kernel = jnp.array([1.0, -2.0, 5.0])
    np.testing.assert_allclose(explain(), 5 * images[0, ..., 2] / 4, rtol=1e-12)
    assert _compiled._cache_size() == count


def test_compiles_once_for_a_shape(network, images):
    jaxcam.explain(network, images, class_idx=1)
    before = _compiled._cache_size()
    other = random_network(models.mini_vgg, seed=9)
    found = [jaxcam.explain(n, x, class_idx=c) for n, x, c in ((network, images, 2), (other, images + 1, 3))]
    assert _compiled._cache_size() == before
    assert np.abs(found[0].cam_map - found[1].cam_map).max() > 0
    jaxcam.explain(network, images[:2], class_idx=1)
    assert _compiled._cache_size() == before + 1


def test_parameters_are_arguments_not_constants_and_the_forward_pass_runs_once(network, images, monkeypatch):
    taken = {}

    def compiled(static, arrays, *rest):
        taken.update(arrays=jax.tree.leaves(arrays))
        return _compiled(static, arrays, *rest)

    monkeypatch.setattr(sys.modules["jaxcam.explanation.explain"], "_compiled", compiled)
    jaxpr = jax.make_jaxpr(lambda network, x: jaxcam.explain(network, x))(network, images)
    biggest = max(array.size for array in taken["arrays"])
    assert biggest > 100_000
    assert all(np.size(constant) < biggest for constant in jaxpr.consts)
    lowered = jax.jit(lambda network, x: jaxcam.explain(network, x)).lower(network, images)
    program = lowered.compile().as_text()
    # Six convolutions, and none of them twice or transposed: the head alone is differentiated.
    assert program.count(" convolution(") == 6


def test_works_inside_jit_with_a_traced_class_and_is_differentiable():
    a = jnp.abs(normal(1, 2, 3, 4, 2))
    kernel = normal(3, 3 * 4 * 2, 4)
    explain = lambda k, a, c: jaxcam.explain(Own(k), a, class_idx=c, method="grad_cam_pp")
    eager = explain(kernel, a, jnp.array([1, 3]))
    jitted = jax.jit(explain)(kernel, a, jnp.array([1, 3]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), eager, jitted)

    def total(kernel):
        return (explain(kernel, a, 1).heatmap * spread).sum()

    spread, direction, step = normal(5, 2, 3, 4), normal(6, 24, 4), 1e-6
    gradient, value = jax.jit(jax.grad(total))(kernel), jax.jit(total)
    kernel, direction = np.asarray(kernel), np.asarray(direction)
    slope = (value(kernel + step * direction) - value(kernel - step * direction)) / (2 * step)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), slope, rtol=1e-5)


def test_status_zero_map():
    # S_0 = -sum(A): everything speaks against the class.
    model = halves(lambda a: jnp.stack([-a.sum(), a.sum()]))
    one = np.arange(1.0, 10).reshape(3, 3, 1)
    found = jaxcam.explain(model, np.stack([one, one]), class_idx=np.array([0, 1]), method="grad_cam")
    np.testing.assert_array_equal(found.status, [jaxcam.Status.ZERO_MAP, jaxcam.Status.OK])
    np.testing.assert_array_equal(found.heatmap[0], 0.0)
    np.testing.assert_allclose(found.heatmap[1], one[..., 0] / 9, rtol=1e-12)


def test_status_constant_map():
    # S_0 = 3 sum(A): the same everywhere. Rounding does not make a place of it; a difference of 1e-6 does.
    model = halves(lambda a: jnp.stack([3 * a.sum(), a.sum()]))
    flat = np.full((3, 3, 1), 0.1)
    uneven = flat + np.arange(9).reshape(3, 3, 1) * np.array([1e-17, 1e-6])[:, None, None, None]
    found = jaxcam.explain(model, np.stack([flat, *uneven]), class_idx=0, method="grad_cam")
    status = jaxcam.Status
    np.testing.assert_array_equal(found.status, [status.CONSTANT_MAP, status.CONSTANT_MAP, status.OK])
    np.testing.assert_allclose(found.heatmap[0], 1.0)


def test_status_bypassed():
    # A named layer that a skip connection goes around: half of the score is not seen there.
    kernel = normal(1, 5, 4)

    def model(x):
        first = checkpoint_name(x @ kernel, "first")
        return (checkpoint_name(jnp.tanh(first), "branch") + first).mean((1, 2))

    images = np.abs(normal(0, 2, 4, 3, 5))
    at = lambda **layer: jaxcam.explain(model, images, class_idx=1, **layer).status
    np.testing.assert_array_equal(at(layer="branch"), jaxcam.Status.BYPASSED)
    np.testing.assert_array_equal(at(layer=["first", "branch"]), jaxcam.Status.BYPASSED)  # one of them is
    np.testing.assert_array_equal(at(layer="first"), jaxcam.Status.OK)
    np.testing.assert_array_equal(at(), jaxcam.Status.OK)


def test_status_zero_gradient():
    model = halves(lambda a: jnp.stack([jax.nn.relu(a.sum() - 100), jnp.float64(1)]))
    for method in ("grad_cam", "grad_cam_pp"):
        found = jaxcam.explain(model, jnp.ones((1, 3, 3, 1)), class_idx=0, method=method)
        assert found.status[0] == jaxcam.Status.ZERO_GRADIENT
        np.testing.assert_array_equal(found.heatmap, 0.0)


def test_status_not_finite(network, images):
    broken = images.copy()
    broken[1, 5, 5, 0] = np.nan
    found = jaxcam.explain(network, broken, method="grad_cam")
    np.testing.assert_array_equal(found.status[jnp.array([0, 2])], 0)
    assert found.status[1] == jaxcam.Status.NOT_FINITE
    np.testing.assert_array_equal(found.heatmap[1], 0.0)
    assert found.heatmap[0].max() > 0.5


def test_large_numbers_are_finite_and_infinite_ones_are_reported():
    """In rows that the model does not look at. The sum of the large ones is infinite, and none of them is."""
    model = halves(relu_head((3, 4), 2, 5), features=lambda images: images[:, ::2])
    images = np.float32(np.abs(drawn(1, 4, 6, 4, 2)))
    images[:, 1::2] = 3e38
    images[1, 1, 2, 0], images[2, 3, 0, 1], images[3, 5, 3, 0] = np.inf, -np.inf, np.nan
    found = jaxcam.explain(model, images)
    assert (found.status == jaxcam.Status.NOT_FINITE).tolist() == [False, True, True, True]


def test_nan_pixel_that_never_reaches_the_logits_is_reported():
    model = halves(relu_head((3, 4), 2, 5), features=lambda images: images[:, ::2])
    image = jnp.abs(normal(1, 1, 6, 4, 2)).at[0, 1, 0, 0].set(jnp.nan)
    assert np.isfinite(model.head(model.features(image))).all()
    assert jaxcam.explain(model, image).status[0] == jaxcam.Status.NOT_FINITE


def test_nan_in_the_activations_gives_no_confidence():
    # The head forgets the channel with the NaN; the activations are not fine all the same.
    lose = lambda images: jnp.where(images > 100, jnp.nan, images)
    model = halves(lambda a: a[..., 1].reshape(-1)[:3], features=lose)
    found = jaxcam.explain(model, jnp.abs(normal(1, 2, 3, 4, 2)).at[0, 0, 0, 0].set(1000.0))
    np.testing.assert_array_equal(found.status, [jaxcam.Status.NOT_FINITE, jaxcam.Status.OK])
    np.testing.assert_array_equal(np.isnan(found.confidence), [True, False])


def test_traced_class_that_does_not_exist_is_reported():
    model, a = halves(relu_head((3, 4), 2, 5)), jnp.abs(normal(1, 3, 3, 4, 2))
    found = jax.jit(lambda c: jaxcam.explain(model, a, class_idx=c))(jnp.array([4, 5, -1]))
    no = jaxcam.Status.NO_SUCH_CLASS
    np.testing.assert_array_equal(found.status, [jaxcam.Status.OK, no, no])
    np.testing.assert_array_equal(found.heatmap[1:], 0.0)
    assert np.isnan(found.confidence[1:]).all()


def test_status_ill_conditioned():
    # One channel with g = 1 and S = -2 (1 - 5e-13): alpha = 1 / (2 + S) = 1e12. With S = 2 all is well.
    model = halves(lambda a: jnp.stack([a.sum(), a[0, 0, 0]]))
    images = jnp.array([[[-3.0 + 1e-12, 1.0]], [[0.5, 1.5]]])[..., None]
    found = jaxcam.explain(model, images, class_idx=0, method="grad_cam_pp")
    np.testing.assert_array_equal(found.status, [jaxcam.Status.ILL_CONDITIONED, jaxcam.Status.OK])
    np.testing.assert_allclose(found.cam_map[1], [[0.25, 0.75]])  # w = 2 * 1 / (2 + 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"images": np.zeros((64, 64, 3), np.float32)},
            ValueError,
            r"float32\[1, 64, 3\], (.|\n)*the batch axis inputs\[None\]",
        ),
        ({"images": np.zeros((1, 64, 64, 3), np.uint8)}, ValueError, r"dtype is uint8: use model.preprocessing"),
        (
            {
                "images": np.zeros((1, 3, 4, 2), np.uint8),
                "model": lambda x: x.reshape(1, 24).astype(float) @ np.ones((24, 5)),
            },
            TypeError,
            r"dtype is uint8, and <lambda> does not scale them: divide by 255",
        ),
        (
            {"images": np.zeros((0, 64, 64, 3), np.float32)},
            ValueError,
            r"inputs must have one example or more but came as",
        ),
        ({"images": [[1.0]]}, TypeError, r"inputs must be an array \[n, \*spatial, d\].* hold float"),
        ({"class_idx": 10}, ValueError, r"class_idx=10 is out of range: the model has 10 classes, 0 to 9"),
        ({"class_idx": -1}, ValueError, r"class_idx=-1 is out of range"),
        ({"class_idx": np.array([0, 1])}, ValueError, r"one for each of the 1 examples but its shape is \[2\]"),
        ({"class_idx": 1.0}, TypeError, r"class_idx must be an integer"),
        ({"class_idx": True}, TypeError, r"class_idx must be an integer"),
        (
            {"class_idx": "cat"},
            TypeError,
            r"class_idx must be an integer, an .*, \"all\" or None but is 'cat': .*\('cat'\)",
        ),
        (
            {"class_idx": [1, "cat"]},
            TypeError,
            r"but is \[1, 'cat'\]: the index of a name is model.class_names.index\('cat'\)",
        ),
        (
            {"images": "cat.jpg"},
            TypeError,
            r"hold str: np.stack a list of files: model.preprocessing\(jaxcam.read_image",
        ),
        (
            {"method": "gradcam"},
            ValueError,
            r"method='gradcam' is not known: did you mean 'grad_cam'\? use one of 'grad_cam_pp'",
        ),
        ({"layer": "conv9"}, ValueError, r"layer='conv9' is not in this model. Did you mean 'conv6'\? Its layers are:"),
        ({"score": "probability"}, ValueError, r"score='probability' is not known"),
        ({"method": "grad_cam_pp", "alphas": "quick"}, ValueError, r"alphas='quick' is not known"),
        ({"method": "grad_cam_pp", "score": "logit"}, ValueError, r"0/0. Use score=\"exp\""),
        ({"method": "grad_cam", "alphas": "exact"}, ValueError, r"it belongs to 'grad_cam_pp'"),
        ({"method": "cam"}, ValueError, r"MiniVGG has no cam_layer and cam_kernel: use method=\"grad_cam\""),
        ({"model": (1, 2)}, TypeError, r"model must be something that can be called, or that has features\(images\)"),
        ({"model": lambda x: x}, ValueError, r"must return logits \[n, c\] for inputs"),
        ({"model": Own}, TypeError, r"model must be an instance but is the class Own itself"),
        (
            {"model": halves(lambda a: a, lambda x: x.mean((1, 2)))},
            ValueError,
            r"no value with positions that everything flows through",
        ),
        ({"model": lambda x: x.sum(keepdims=True)[0, 0, 0]}, ValueError, r"must keep the axis n .* for two examples"),
        ({"model": halves(relu_head((64, 64), 3, 2)), "layer": "x"}, ValueError, r"layer='x' is not in this model"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors(network, change, error, message):
    arguments = {"model": network, "images": np.zeros((1, 64, 64, 3), np.float32)} | change
    with pytest.raises(error, match=message):
        jaxcam.explain(arguments.pop("model"), arguments.pop("images"), **arguments)


def test_cam_at_another_layer_is_refused(images):
    with pytest.raises(ValueError, match=r"applies at layer='layer3' of this model only, not at 'layer2'"):
        jaxcam.explain(random_network(models.mini_resnet), images, method="cam", layer="layer2")


def test_leaves_that_are_not_arrays_are_static():
    class WithFunction(NamedTuple):
        kernel: jax.Array
        activation: object

        def features(self, images):
            return images

        def head(self, activations):
            return self.activation(activations).mean((1, 2)) @ self.kernel

    kernel, a = normal(0, 3, 4), normal(1, 1, 2, 2, 3)
    found = jaxcam.explain(WithFunction(kernel, jnp.tanh), a, class_idx=2, method="grad_cam")
    expected = methods.grad_cam(lambda x: gap_head(kernel)(jnp.tanh(x)), a[0], 2)
    np.testing.assert_allclose(found.cam_map[0], expected, rtol=1e-10)
    with pytest.raises(TypeError, match="holds something that is neither an array nor hashable"):
        jaxcam.explain(WithFunction(kernel, {1, 2}), a, class_idx=2)


def test_exact_alphas_of_a_smooth_head_through_explain():
    a = positive(1, 2, 3, 2, 3)
    head = smooth_head((3, 2), 3, 4)
    found = jaxcam.explain(halves(head), a, class_idx=1, method="grad_cam_pp")
    alone = jax.jit(lambda a: methods.grad_cam_pp(head, a, 1, alphas="exact"))
    for i in range(2):
        expected = alone(a[i])
        np.testing.assert_allclose(found.cam_map[i], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.usefixtures("unchecked")
def test_training_mode_is_refused():
    model = models.mini_resnet()
    images = jnp.zeros((1, 64, 64, 3), jnp.float32)
    model.train()
    with pytest.raises(ValueError, match=r"model is in training mode.*call model.eval\(\) first"):
        jaxcam.explain(model, images)
    model.eval()
    jax.eval_shape(jaxcam.explain, model, images)


@pytest.mark.thorough
def test_two_names_of_one_layer_give_one_map():
    model = random_network(models.resnet20, seed=1)
    images = normal(0, 1, 32, 32, 3, dtype=np.float32)
    expected = jaxcam.explain(model, images, method="cam", class_idx=3).cam_map
    assert expected.max() > 0
    for layer in ("layer3", "layer3.2"):
        found = jaxcam.explain(model, images, method="cam", class_idx=[3], layer=layer)
        np.testing.assert_array_equal(found.cam_map, expected)


@pytest.mark.thorough
def test_cam_of_a_model_that_is_cut_at_one_place():
    class Own(nnx.Module):
        cam_layer = "features"

        def __init__(self):
            self.kernel = nnx.Param(normal(1, 4, 5, dtype=np.float32))

        @property
        def cam_kernel(self):
            return self.kernel[...]

        def features(self, images):
            return jnp.concatenate([images, images[..., :1]], -1)

        def head(self, activations):
            return activations.mean((1, 2)) @ self.kernel[...]

    images = normal(0, 2, 6, 5, 3, dtype=np.float32)
    model = Own()
    found = jaxcam.explain(model, images, method="cam", class_idx=2).cam_map
    expected = np.asarray(model.features(images) @ model.cam_kernel[:, 2])  # Eq. 25 has no ReLU
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

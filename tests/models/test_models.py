import json
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import network, normal

from jaxcam import models, scenes
from jaxcam.models import train


@pytest.fixture(
    scope="session", params=["mini_vgg", "mini_resnet", pytest.param("squeezenet1_1", marks=pytest.mark.thorough)]
)
def model(request):
    return network(models.MODELS[request.param], seed=3)


def test_head_of_features_is_the_model_at_every_layer(model):
    images = normal(0, 2, 64, 64, 3, dtype=np.float32)

    @jax.jit
    def both(model, images):
        at = lambda layer: model.head(model.features(images, layer=layer), layer=layer)
        return model(images), [at(layer) for layer in model.layers]

    expected, found = jax.tree.map(np.asarray, both(model, images))
    assert np.abs(expected).max() > 1e-6
    for layer, logits in zip(model.layers, found, strict=True):
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=layer)


@pytest.mark.parametrize("class_idx", [0, 7])
@pytest.mark.sample(2)
def test_class_logit_is_one_of_the_logits_with_its_gradient(model, class_idx):
    images = normal(0, 2, 64, 64, 3, dtype=np.float32)
    for layer in (model.default_layer, model.layers[1], model.layers[-1]):

        @jax.jit
        def both(model, images, layer=layer):
            a = model.features(images, layer=layer)
            of_all = jax.vjp(lambda a: model.head(a, layer=layer)[:, class_idx], a)
            of_one = jax.vjp(lambda a: model.class_logit(a, class_idx, layer=layer), a)
            return [(value, pullback(jnp.ones_like(value))[0]) for value, pullback in (of_all, of_one)]

        (expected, gradient), (found, own_gradient) = jax.tree.map(np.asarray, both(model, images))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(own_gradient, gradient, atol=1e-5 * np.abs(gradient).max() + 1e-30)


def test_the_name_of_several_layers_means_the_last_of_them():
    model = network(models.resnet20, seed=2)
    images = normal(0, 2, 32, 32, 3, dtype=np.float32)

    @jax.jit
    def outputs(model, images):
        last, group = (model.features(images, layer=layer) for layer in ("layer2.2", "layer2"))
        return last, group, model.head(group, layer="layer2"), model(images)

    last, group, found, expected = outputs(model, images)
    np.testing.assert_array_equal(group, last)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="layer='layer' is not in this CifarResNet"):
        model.features(images, layer="layer")


@pytest.fixture(scope="module")
def squeezenet():
    return network(models.squeezenet1_0, num_classes=10)


@pytest.mark.parametrize("name", ["resnet50", pytest.param("efficientnet_b0", marks=pytest.mark.thorough)])
def test_layers_are_those_that_users_of_torchvision_know(name):
    model = nnx.eval_shape(models.MODELS[name])
    if name == "resnet50":
        assert model.layers[-4:] == ("layer4.1", "layer4.2", "avgpool", "fc")
    else:
        assert model.layers[:3] == ("features.0", "features.1.0", "features.2.0")
        assert model.cam_layer == model.default_layer == "features.8"
    names = model.class_names
    assert (len(names), names[0], names[281], names[999]) == (1000, "tench", "tabby", "toilet tissue")


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet20", 64), pytest.param("efficientnet_b0", 1280, marks=pytest.mark.thorough)],
)
def test_cam_applies_at_the_default_layer(name, channels):
    model = network(models.MODELS[name], seed=1)
    a = normal(0, 2, 3, 2, channels, dtype=np.float32)
    kernel, bias = np.asarray(model.cam_kernel), np.asarray(model.stages[model.layers[-1]].bias[...])
    expected = np.asarray(a).mean((1, 2)) @ kernel + bias
    found = jax.jit(lambda model, a: model.head(a))(model, a)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_default_layer_has_spatial_axes(model):
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    sides = {"MiniVGG": 8, "MiniResNet": 16, "SqueezeNet": 3}[type(model).__name__]
    assert jax.eval_shape(lambda images: model.features(images), images).shape[1:3] == (sides, sides)


def test_cam_kernel_and_pooled_layer_give_the_logits(squeezenet):
    for model, last in ((network(models.mini_resnet), "fc"), (squeezenet, "classifier.1")):
        final = model.stages[last]
        final.bias[...] = jnp.zeros_like(final.bias[...])  # CAM has no bias
        images = normal(0, 1, 64, 64, 3, dtype=np.float32)
        both = jax.jit(lambda model, images: (model.features(images, layer=model.cam_layer), model(images)))
        activations, logits = map(np.asarray, both(model, images))
        pooled = activations.mean((1, 2))
        np.testing.assert_allclose(pooled @ np.asarray(model.cam_kernel), logits, rtol=1e-4, atol=1e-5)
    assert models.mini_vgg().cam_layer is None
    assert models.mini_vgg().cam_kernel is None


def test_parameters_are_arguments_and_equal_structures_share_a_program():
    logits = jax.jit(lambda model, images: model(images))
    images = normal(0, 1, 64, 64, 3, dtype=np.float32)
    first, second = (network(models.mini_vgg, seed=seed) for seed in (0, 1))
    assert np.abs(logits(first, images) - logits(second, images)).max() > 1e-3
    assert logits._cache_size() == 1


@pytest.mark.usefixtures("unchecked")
def test_bad_images_and_layers(squeezenet):
    model = models.mini_vgg()
    features = type(model).features
    with pytest.raises(ValueError, match=r"images must be \[n, H, W, 3\].*came as \[64, 64, 3\]; add the batch axis"):
        features(model, jnp.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match=r"came as \[1, 64, 64, 4\]"):
        features(model, jnp.zeros((1, 64, 64, 4)))
    with pytest.raises(TypeError, match=r"their dtype is uint8: use model.preprocessing"):
        features(model, jnp.zeros((1, 64, 64, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"layer='layer9' is not in this MiniVGG: it has conv1, "):
        features(model, jnp.zeros((1, 64, 64, 3)), layer="layer9")
    with pytest.raises(ValueError, match="images are too small"):
        jax.eval_shape(lambda x: squeezenet(x), jnp.zeros((1, 12, 12, 3), jnp.float32))
    resnet18 = nnx.eval_shape(models.resnet18)
    with pytest.raises(ValueError, match=r"images are too small: \[31, 64\] pixels, where this ResNet needs 32"):
        resnet18(jnp.zeros((1, 31, 64, 3), jnp.float32))
    with pytest.raises(
        ValueError, match=r"layer='layer5' is not in this ResNet: it has conv1, .*, layer4.1, avgpool, fc"
    ):
        resnet18.features(jnp.zeros((1, 64, 64, 3), jnp.float32), layer="layer5")
    with pytest.raises(ValueError, match=r"num_classes .* 1 .* 0"):
        models.squeezenet1_0(num_classes=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mini_vgg", 0.97), ("mini_resnet", 0.97), ("mini_vit", 0.95)])
def test_embedded_networks_know_unseen_scenes(name, least):
    record = json.loads((files("jaxcam") / "data" / "training.json").read_text())[name]
    top_1 = train.accuracy(models.MODELS[name]())
    assert top_1 >= least
    # The recorded figure, but for scenes on the edge that another machine's arithmetic may turn over.
    assert top_1 == pytest.approx(record["unseen_scenes"]["top_1"], abs=0.003)


def test_embedded_weights_are_small():
    size = {file.name: len(file.read_bytes()) for file in (files("jaxcam") / "data").iterdir()}
    assert {f"{name}.safetensors" for name in models.EMBEDDED_MODELS} <= size.keys()
    assert size["mini_vit.safetensors"] <= 1_000_000
    assert sum(size.values()) <= 6_000_000


def test_class_names():
    assert models.mini_vgg().class_names == scenes.CLASS_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini_vgg", "mini_resnet"])
def test_training_is_a_function_of_the_seed(name):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        first, second = (train.train(name, seed=5, num_steps=6) for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_training_learns():
    with jax.numpy_dtype_promotion("standard"):
        model = train.train("mini_resnet", seed=5, num_steps=300)
    assert train.accuracy(model, num=500) > 0.3  # chance is 0.1


def test_train_refuses_unknown_names_and_no_steps():
    with pytest.raises(ValueError, match="name='vgg' is not one of 'mini_vgg', 'mini_resnet', 'mini_vit'"):
        train.train("vgg")
    with pytest.raises(ValueError, match=r"num_steps .* 1 .* 0"):
        train.train("mini_vgg", num_steps=0)

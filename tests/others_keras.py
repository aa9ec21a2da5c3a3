"""Models of Keras and KerasHub."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import contextlib
import importlib

import numpy as np
from others_common import CLASSES, Case, after_one, images


@contextlib.contextmanager
def tapped_call(layer, tap):
    """Keras: `tap` on what one layer returns."""
    inside = type(layer).call
    type(layer).call = lambda self, *a, **k: tap(inside(self, *a, **k)) if self is layer else inside(self, *a, **k)
    try:
        yield
    finally:
        type(layer).call = inside


def keras_application(name, tapped, size=64, **options):
    """As it comes, with a softmax at its end; filled by NumPy, since its own weights make small maps of zeros."""

    def make():
        keras = importlib.import_module("keras")
        model = getattr(keras.applications, name)(input_shape=(size, size, 3), weights=None, classes=CLASSES, **options)
        random, x = np.random.default_rng(0), images(size, size, 3)
        for variable in model.variables:
            fan = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 1
            fan = np.prod(variable.shape[:2]) if "depthwise" in variable.path else fan
            value = random.normal(size=variable.shape) * (2 / fan) ** 0.5 * (1 if fan > 1 else 0.3)
            is_scale = variable.name in ("gamma", "moving_variance")
            variable.assign(1 + 0.3 * np.tanh(value) if is_scale else value)

        def by_hand(tap):
            last, given = model.layers[-1], model.layers[-1].activation
            last.activation = lambda logits: logits
            try:
                with tapped_call(tapped(model), tap):
                    return model(x, training=False)[0]
            finally:
                last.activation = given

        return model, x, by_hand

    return make


def keras_hub(name, sizes, tapped):
    def make():
        models = importlib.import_module("keras_hub").models
        backbone = getattr(models, f"{name}Backbone")(image_shape=(32, 32, 3), **sizes)
        model, x = getattr(models, f"{name}ImageClassifier")(backbone=backbone, num_classes=CLASSES), images(32, 32, 3)

        def by_hand(tap):
            with tapped_call(tapped(backbone), tap):
                return model(x, training=False)[0]

        return model, x, by_hand

    return make


VIT = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
CASES = {
    "MobileNet": Case(
        "keras",
        "keras",
        keras_application("MobileNet", lambda model: model.get_layer("conv_pw_13_relu"), alpha=0.25),
        "2x2",
        lambda a: a[0],
        1,
    ),
    "MobileNetV3Small": Case(
        "keras",
        "keras",
        keras_application("MobileNetV3Small", lambda model: model.layers[-8], alpha=0.75, minimalistic=True),
        "2x2",
        lambda a: a[0],
        1,
    ),
    "ViTImageClassifier": Case(
        "keras-hub",
        "keras_hub",
        keras_hub("ViT", {**VIT, "mlp_dim": 32}, lambda model: model.get_layer("vit_encoder").encoder_layers[0]),
        "4x4 (1 before)",
        after_one,
        1,
    ),
    "DeiTImageClassifier": Case(
        "keras-hub",
        "keras_hub",
        keras_hub(
            "DeiT",
            {**VIT, "intermediate_dim": 32},
            lambda model: model.get_layer("deit_encoder").encoder_layers[0].output_layer,
        ),
        "4x4 (2 before)",
        lambda t: t[0, 2:].reshape(4, 4, -1),
        1,
    ),
}

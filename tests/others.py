"""Models of other people's packages, tiny and with random weights, each with its last part written by hand.

A case is made by a function that returns the model as `explain` takes it, an input `[1, ...]`, and `by_hand`: a
function of `tap` that computes the logits `[c]`, and calls `tap` on the value that should be the layer.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import importlib
import importlib.metadata
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

CLASSES = 5


class Case(NamedTuple):
    """One of somebody's models."""

    package: str
    """As it is installed; for a checkout the name of its package."""
    module: str
    """What is imported."""
    make: object
    grid: str
    """What `jaxcam.layers` says of the default layer."""
    place: object
    """Takes the tapped value to `[i, j, k]`."""
    lines: int
    """How many lines it takes from the model to a map."""


def filled(spec, seed=0):
    """Random numbers where a model has parameters."""
    random = np.random.default_rng(seed)

    def leaf(like):
        if not jnp.issubdtype(like.dtype, jnp.floating):
            return jnp.zeros(like.shape, like.dtype)
        scale = 0.3 if len(like.shape) < 2 else np.prod(like.shape[1:]) ** -0.5
        return jnp.asarray(random.normal(size=like.shape) * scale, like.dtype)

    return jax.tree.map(lambda x: leaf(x) if isinstance(x, jax.ShapeDtypeStruct) else x, spec)


def images(*shape):
    return np.random.default_rng(7).normal(size=(1, *shape)).astype(np.float32)


def equimo(build, by_hand, size=32):
    """Equinox: one image, channels first, and a key that evaluation does not need."""

    def make():
        import equinox

        models = importlib.import_module("equimo.models")
        spec = equinox.filter_eval_shape(lambda key: build(models, key), jax.random.key(0))
        model, x = equinox.nn.inference_mode(filled(spec)), images(3, size, size)
        net = jaxcam.adapt(model, apply=lambda model, x: jax.vmap(lambda x: model(x, jax.random.key(0)))(x))
        return net, x, lambda tap: by_hand(model, x[0], tap)

    return make


def _equimo_vit(pool):
    sizes = {"img_size": 32, "in_channels": 3, "dim": 16, "patch_size": 8, "num_heads": 2, "depths": [2]}

    def by_hand(model, x, tap):
        if pool == "avg":
            tokens = jax.vmap(model.norm)(model.features(x, jax.random.key(0)))
            return model.head(tap(tokens[5:]).mean(0))
        first, last = model.blocks[0].blocks
        around = {"cls_token": model.cls_token, "reg_tokens": model.reg_tokens, "dynamic_img_size": False}
        tokens = model.global_pos_embed(model.patch_embed(x), **around)
        tokens = last(tap(first(tokens, key=jax.random.key(0))), key=jax.random.key(0))
        return model.head(jax.vmap(model.norm)(tokens)[0])

    build = lambda models, key: models.VisionTransformer(**sizes, num_classes=CLASSES, global_pool=pool, key=key)
    return equimo(build, by_hand)


def _equimo_convnext():
    build = lambda models, key: models.ConvNeXt(depths=[1, 1, 1, 1], dims=[4, 6, 8, 10], num_classes=CLASSES, key=key)
    by_hand = lambda model, x, tap: model.head(model.norm(tap(model.features(x, jax.random.key(0))).mean((1, 2))))
    return equimo(build, by_hand, 64)


def haiku(build, tapped, size=32):
    def make():
        hk = importlib.import_module("haiku")
        transformed = hk.transform_with_state(lambda x, is_training: build(hk)(x, is_training))
        x = images(size, size, 3)
        both = filled(jax.eval_shape(lambda key, x: transformed.init(key, x, True), jax.random.key(0), x))
        both = both[0], jax.tree.map(abs, both[1])  # variances
        net = jaxcam.adapt(both, apply=lambda both, x: transformed.apply(*both, None, x, False)[0])

        def by_hand(tap):
            def here(call, args, kwargs, context):
                out = call(*args, **kwargs)
                is_here = context.module.module_name == tapped and context.method_name == "__call__"
                return tap(out) if is_here else out

            with hk.intercept_methods(here):
                return transformed.apply(*both, None, x, False)[0][0]

        return net, x, by_hand

    return make


def _haiku_resnet():
    sizes = {"blocks_per_group": [1, 1, 1, 1], "bottleneck": False, "channels_per_group": (8, 8, 12, 16)}
    return haiku(lambda hk: hk.nets.ResNet(num_classes=CLASSES, **sizes), "res_net/~/block_group_3", 64)


def keras_hub(name, sizes, tapped):
    def make():
        models = importlib.import_module("keras_hub").models
        backbone = getattr(models, f"{name}Backbone")(image_shape=(32, 32, 3), **sizes)
        model, x = getattr(models, f"{name}ImageClassifier")(backbone=backbone, num_classes=CLASSES), images(32, 32, 3)

        def by_hand(tap):
            layer = tapped(backbone)
            inside = type(layer).call
            type(layer).call = lambda self, *a, **k: (
                tap(inside(self, *a, **k)) if self is layer else inside(self, *a, **k)
            )
            try:
                return model(x, training=False)[0]
            finally:
                type(layer).call = inside

        return model, x, by_hand

    return make


def transformers(name, config, sizes, tapped):
    """Linen: channels first, and outputs of which the logits are one."""

    def make():
        package = importlib.import_module("transformers")
        from flax import linen

        given = getattr(package, config)(**sizes, image_size=32, num_labels=CLASSES)
        model, x = getattr(package, name)(given, _do_init=False), images(3, 32, 32)
        weights = filled(jax.eval_shape(lambda: model.init_weights(jax.random.key(0), (1, 32, 32, 3))))
        net = jaxcam.adapt(weights, apply=lambda weights, x: model(x, params=weights).logits)

        def by_hand(tap):
            def here(call, args, kwargs, context):
                out = call(*args, **kwargs)
                return tap(out) if context.module.path == tapped and context.method_name == "__call__" else out

            with linen.intercept_methods(here):
                return model(x, params=weights).logits[0]

        return net, x, by_hand

    return make


def bonsai(name, config, by_hand):
    """NNX; some of these models want a generator of random numbers in evaluation, too."""

    def make():
        from flax import nnx

        module = importlib.import_module(f"bonsai.models.{name}.modeling")
        kind, given = config(module)
        structure, state = nnx.split(nnx.eval_shape(lambda: kind(given, rngs=nnx.Rngs(0))))
        model, x = nnx.merge(structure, filled(state)), images(64, 64, 3)
        model.eval()
        net = jaxcam.adapt(model, apply=lambda model, x: model(x, rngs=None))
        return net, x, lambda tap: by_hand(model, x, tap)

    return make


def _bonsai_vit(model, x, tap):
    first, last = model.layers
    x = last(tap(first(model.pos_embeddings(x, rngs=None), rngs=None)), rngs=None)
    return model.classifier(model.ln(x)[:, 0])[0]


VIT = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
TOKENS = {"patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CASES = {
    "VisionTransformer, class token": Case(
        "equimo", "equimo", _equimo_vit("token"), "4x4 (5 before)", lambda t: t[5:].reshape(4, 4, -1), 2
    ),
    "VisionTransformer, average": Case("equimo", "equimo", _equimo_vit("avg"), "4x4", lambda t: t.reshape(4, 4, -1), 2),
    "ConvNeXt": Case("equimo", "equimo", _equimo_convnext(), "2x2", lambda a: a.transpose(1, 2, 0), 2),
    "ResNet": Case("dm-haiku", "haiku", _haiku_resnet(), "2x2", lambda a: a[0], 2),
    "ViTImageClassifier": Case(
        "keras-hub",
        "keras_hub",
        keras_hub("ViT", {**VIT, "mlp_dim": 32}, lambda model: model.get_layer("vit_encoder").encoder_layers[0]),
        "4x4 (1 before)",
        lambda t: t[0, 1:].reshape(4, 4, -1),
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
    "FlaxViTForImageClassification": Case(
        "transformers",
        "transformers",
        transformers(
            "FlaxViTForImageClassification",
            "ViTConfig",
            TOKENS | {"intermediate_size": 32},
            ("vit", "encoder", "layer", "0", "output"),
        ),
        "4x4 (1 before)",
        lambda t: t[0, 1:].reshape(4, 4, -1),
        2,
    ),
    "FlaxDinov2ForImageClassification": Case(
        "transformers",
        "transformers",
        transformers("FlaxDinov2ForImageClassification", "Dinov2Config", TOKENS, ("dinov2", "layernorm")),
        "4x4 (1 before)",
        lambda t: t[0, 1:].reshape(4, 4, -1),
        2,
    ),
    "ViTClassificationModel": Case(
        "bonsai",
        "bonsai",
        bonsai(
            "vit",
            lambda m: (m.ViTClassificationModel, m.ModelConfig((64, 64), (16, 16), 3, 16, 0.0, 0.0, 2, 32, 1e-6, 2, 5)),
            _bonsai_vit,
        ),
        "4x4 (1 before)",
        lambda t: t[0, 1:].reshape(4, 4, -1),
        2,
    ),
}


def map_by_hand(by_hand, place, class_idx):
    """Grad-CAM of a class, and the logits."""
    taken = []

    def tapped(moved):
        taken.clear()
        logits = by_hand(lambda value: taken.append(value) or (value if moved is None else value + moved))
        (value,) = taken
        return logits[class_idx], (value, logits)

    like = jax.eval_shape(lambda: tapped(None)[1][0])
    zeros = np.zeros(like.shape, like.dtype)
    gradient, (value, logits) = jax.jit(jax.grad(tapped, has_aux=True))(zeros)
    a, g = np.asarray(place(value)), np.asarray(place(gradient))
    return np.maximum((a * g.mean((0, 1))).sum(-1), 0), logits

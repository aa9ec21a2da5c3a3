"""Models of packages whose parameters stand beside them: haiku, transformers and big_vision (Flax Linen)."""

import importlib
import sys
import types

import jax
from others_common import CLASSES, Case, after_one, filled, images, statistics_positive, tokens

import jaxcam


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


def linen_tapped(path, tap):
    """Linen: `tap` on what one module returns."""
    from flax import linen

    def here(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.module.path != path or context.method_name != "__call__":
            return out
        return (tap(out[0]), *out[1:]) if isinstance(out, tuple) else tap(out)

    return linen.intercept_methods(here)


def transformers(name, config, sizes, path, size=32):
    """Linen: channels first, and outputs of which the logits are one."""

    def make():
        package = importlib.import_module("transformers")
        given = getattr(package, config)(**sizes, num_labels=CLASSES)
        model, x = getattr(package, name)(given, _do_init=False), images(3, size, size)
        weights = jax.eval_shape(lambda: model.init_weights(jax.random.key(0), (1, size, size, 3)))
        weights = statistics_positive(filled(weights))
        net = jaxcam.adapt(weights, apply=lambda weights, x: model(x, params=weights).logits)

        def by_hand(tap):
            with linen_tapped(path, tap):
                return model(x, params=weights).logits[0]

        return net, x, by_hand

    return make


def big_vision(name, sizes, path):
    """Linen, with the logits and everything else that it computed."""

    def make():
        # Its utilities read files by TensorFlow; the models do not use them.
        utils = sys.modules.setdefault("big_vision.utils", types.ModuleType("big_vision.utils"))
        importlib.import_module("big_vision").utils = utils
        model = importlib.import_module(f"big_vision.models.{name}").Model(CLASSES, **sizes)
        x = images(32, 32, 3)
        weights = filled(jax.eval_shape(model.init, jax.random.key(0), x))
        net = jaxcam.adapt(weights, apply=lambda weights, x: model.apply(weights, x)[0])

        def by_hand(tap):
            with linen_tapped(path, tap):
                return model.apply(weights, x)[0][0]

        return net, x, by_hand

    return make


TOKENS = {
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
}
BIG = {"patch_size": (8, 8), "width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2, "head_zeroinit": False}
MIXER = {"patch_size": (8, 8), "num_blocks": 2, "hidden_dim": 16, "tokens_mlp_dim": 12, "channels_mlp_dim": 32}
CASES = {
    "ResNet": Case("dm-haiku", "haiku", _haiku_resnet(), "2x2", lambda a: a[0], 2),
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
        after_one,
        2,
    ),
    "FlaxDinov2ForImageClassification": Case(
        "transformers",
        "transformers",
        transformers("FlaxDinov2ForImageClassification", "Dinov2Config", TOKENS, ("dinov2", "layernorm")),
        "4x4 (1 before)",
        after_one,
        2,
    ),
    "FlaxBeitForImageClassification": Case(
        "transformers",
        "transformers",
        transformers(
            "FlaxBeitForImageClassification",
            "BeitConfig",
            TOKENS | {"intermediate_size": 32},
            ("beit", "encoder", "layer", "1"),
        ),
        "4x4",
        after_one,
        2,
    ),
    "FlaxResNetForImageClassification": Case(
        "transformers",
        "transformers",
        transformers(
            "FlaxResNetForImageClassification",
            "ResNetConfig",
            {"embedding_size": 8, "hidden_sizes": [8, 12, 16], "depths": [1, 1, 1], "layer_type": "basic"},
            ("resnet", "encoder", "stages", "2"),
        ),
        "2x2",
        lambda a: a[0],
        2,
    ),
    "ViT, class token": Case(
        "big_vision",
        "big_vision",
        big_vision("vit", BIG | {"pool_type": "tok"}, ("Transformer", "encoderblock_0")),
        "4x4 (1 before)",
        after_one,
        2,
    ),
    "ViT, attention pooling": Case(
        "big_vision",
        "big_vision",
        big_vision("vit", BIG | {"pool_type": "map"}, ("Transformer", "encoder_norm")),
        "4x4",
        tokens,
        2,
    ),
    "ViT, average, blocks in a scan": Case(
        "big_vision",
        "big_vision",
        big_vision("vit", BIG | {"pool_type": "gap", "scan": True}, ("Transformer",)),
        "4x4",
        tokens,
        2,
    ),
    "MlpMixer": Case(
        "big_vision",
        "big_vision",
        big_vision("mlp_mixer", MIXER, ("pre_head_layer_norm",)),
        "4x4",
        tokens,
        2,
    ),
    "BiT": Case(
        "big_vision",
        "big_vision",
        big_vision("bit", {"depth": [1, 1], "width": 0.5}, ("block2",)),
        "4x4",
        lambda a: a[0],
        2,
    ),
}

"""Models of packages whose modules are pytrees: equimo (Equinox), jimm and bonsai (Flax NNX)."""

import importlib

import jax
import jax.numpy as jnp
from others_common import CLASSES, Case, after_one, filled, images, statistics_positive, tokens

import jaxcam


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


def nnx_filled(build):
    """In evaluation mode."""
    from flax import nnx

    structure, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    model = nnx.merge(structure, statistics_positive(filled(state)))
    model.eval()
    return model


def jimm(build, by_hand):
    """NNX, with its blocks in one scan, inside of a mesh of devices."""

    def make():
        model, x = nnx_filled(lambda rngs: build(importlib.import_module("jimm"), rngs)), images(32, 32, 3)
        return model, x, lambda tap: by_hand(model, x, tap)

    return make


def mesh():
    explicit = (jax.sharding.AxisType.Explicit,) * 2
    return jax.set_mesh(jax.make_mesh((1, 1), ("data", "fsdp"), axis_types=explicit, devices=jax.devices()[:1]))


def _jimm_blocks(base):
    from flax import nnx

    structure, state = nnx.split(base.layers)
    return [nnx.merge(structure, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in (0, 1)]


def _jimm_vit(model, x, tap):
    base = model.encoder
    first, last = _jimm_blocks(base)
    tokens = base.patch_embeddings(x).reshape(1, 16, -1)
    tokens = jnp.concatenate([base.cls_token[...], tokens], 1) + base.position_embeddings[...]
    return model.classifier(base.ln_post(last(tap(first(tokens))))[:, 0])[0]


def _jimm_siglip(model, x, tap):
    base = model.encoder
    first, last = _jimm_blocks(base)
    tokens = base.patch_embeddings(x).reshape(1, 16, -1) + base.position_embeddings[...]
    return base.map_head(tap(base.ln_post(last(first(tokens)))))[0]


def bonsai(name, config, by_hand, apply=lambda model, x: model(x), channels_first=False):
    """NNX; some of these models want a generator of random numbers in evaluation, too."""

    def make():
        module = importlib.import_module(f"bonsai.models.{name}.modeling")
        kind, given = config(module)
        model = nnx_filled(lambda rngs: kind(given, rngs=rngs))
        x = images(3, 64, 64) if channels_first else images(64, 64, 3)
        net = jaxcam.adapt(model, apply=apply)
        return net, x, lambda tap: by_hand(model, x, tap)

    return make


def _without_rngs(model, x):
    return model(x, rngs=None)


def _bonsai_vit(model, x, tap):
    first, last = model.layers
    x = last(tap(first(model.pos_embeddings(x, rngs=None), rngs=None)), rngs=None)
    return model.classifier(model.ln(x)[:, 0])[0]


def _bonsai_dinov3(model, x, tap):
    first, last = model.layer
    positions = model.rope_embeddings(x)
    return model.norm(last(tap(first(model.embeddings(x), positions)), positions))[0, 0]


def _bonsai_convnext(model, x, tap):
    x = model.embedding_layer(x)
    for stage in model.stages:
        x = stage(x, rngs=None, train=False)
    return model.head(model.norm(tap(x).mean((1, 2))))[0]


def _bonsai_densenet(model, x, tap):
    x = model.final_bn(model.blocks(model.init_pool(model.init_bn(model.init_conv(x)))))
    return model.linear(tap(jax.nn.relu(x)).mean((1, 2)))[0]


def _bonsai_vgg(model, x, tap):
    for i in range(5):
        x = getattr(model, f"conv_block{i}")(x)
    wide, narrow, _, dense = model.classifier.layers
    return dense(tap(narrow(wide(x))).mean((1, 2)))[0]


CASES = {
    "VisionTransformer, class token": Case(
        "equimo", "equimo", _equimo_vit("token"), "4x4 (5 before)", lambda t: t[5:].reshape(4, 4, -1), 2
    ),
    "VisionTransformer, average": Case("equimo", "equimo", _equimo_vit("avg"), "4x4", lambda t: t.reshape(4, 4, -1), 2),
    "ConvNeXt": Case("equimo", "equimo", _equimo_convnext(), "2x2", lambda a: a.transpose(1, 2, 0), 2),
    "VisionTransformer of jimm": Case(
        "jax-image-models",
        "jimm",
        jimm(
            lambda package, rngs: package.VisionTransformer(
                CLASSES, 3, 32, num_layers=2, num_heads=2, patch_size=8, mlp_dim=32, hidden_size=16, rngs=rngs
            ),
            _jimm_vit,
        ),
        "4x4 (1 before)",
        after_one,
        1,
        mesh,
    ),
    "SigLIPVisionModel": Case(
        "jax-image-models",
        "jimm",
        jimm(lambda package, rngs: package.SigLIPVisionModel(32, 2, 64, 8, rngs=rngs), _jimm_siglip),
        "4x4",
        tokens,
        1,
        mesh,
    ),
    "ViTClassificationModel": Case(
        "bonsai",
        "bonsai",
        bonsai(
            "vit",
            lambda m: (m.ViTClassificationModel, m.ModelConfig((64, 64), (16, 16), 3, 16, 0.0, 0.0, 2, 32, 1e-6, 2, 5)),
            _bonsai_vit,
            _without_rngs,
        ),
        "4x4 (1 before)",
        after_one,
        2,
    ),
    "Dinov3ViTModel": Case(
        "bonsai",
        "bonsai",
        bonsai(
            "dinov3",
            lambda m: (m.Dinov3ViTModel, m.ModelConfig((16, 16), 16, 32, 2, 2, image_size=64)),
            _bonsai_dinov3,
            lambda model, x: model(x)["pooler_output"],
            channels_first=True,
        ),
        "4x4 (5 before)",
        lambda t: t[0, 5:].reshape(4, 4, -1),
        2,
    ),
    "ConvNeXt of bonsai": Case(
        "bonsai",
        "bonsai",
        bonsai(
            "convnext",
            lambda m: (
                m.ConvNeXt,
                m.ModelConfig((1, 1, 1, 1), (4, 6, 8, 10), 0.0, CLASSES, layer_scale_init_value=1.0),
            ),
            _bonsai_convnext,
            _without_rngs,
        ),
        "2x2",
        lambda a: a[0],
        2,
    ),
    "DenseNet": Case(
        "bonsai",
        "bonsai",
        bonsai("densenet121", lambda m: (m.DenseNet, m.ModelConfig(CLASSES, [2, 2, 2], 4)), _bonsai_densenet),
        "4x4",
        lambda a: a[0],
        1,
    ),
    "VGG": Case(
        "bonsai",
        "bonsai",
        bonsai("vgg19", lambda m: (m.VGG, m.ModelConfig(CLASSES, [1, 1, 1, 1, 1], [4, 4, 6, 8, 8, 12])), _bonsai_vgg),
        "2x2",
        lambda a: a[0],
        1,
    ),
}

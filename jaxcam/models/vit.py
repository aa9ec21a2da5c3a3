"""Vision transformers, with timm's names: ViT, DINOv2 (with registers and without), SigLIP.

**Source**: Dosovitskiy et al. 2021 (ViT); Oquab et al. 2024 (DINOv2); Darcet et al. 2024 (registers); Zhai et al. 2023
(SigLIP).

Patches of a picture become tokens `[n, t, k]`: a class token first if there is one, then registers, then the patches,
row by row. ViT and DINOv2 take the class token at the end, so that only attention brings the patches to the score: the
last layer at which they matter is the block before the last, where explanations are made by default. SigLIP pools all
tokens by attention after the last norm. Where a picture has another size than the positions were trained for, their
embeddings are resized as a picture is (bicubic), as timm's `dynamic_img_size` does.

Random parameters and checkpoints without a classifier: DINOv2 and SigLIP return the embedding `[n, k]`, unless
`num_classes` asks for a linear layer.
"""

from dataclasses import replace
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam.images.preprocessing import IMAGENET, Preprocessing
from jaxcam.models.architecture import Architecture, Options, Weights, family
from jaxcam.models.attention import AttentionPool, Block
from jaxcam.models.build import build
from jaxcam.models.class_names import class_names
from jaxcam.models.modules import LayerNorm
from jaxcam.models.network import Network

_HALF = (0.5, 0.5, 0.5)
_VIT = Preprocessing(resize=248, crop=224, mean=_HALF, std=_HALF, interpolation="bicubic")
_DINO = replace(IMAGENET, resize=518, crop=518, interpolation="bicubic")
_init = nnx.initializers.normal(0.02)


class PatchEmbedding(nnx.Module):
    """Every patch of `size` x `size` pixels becomes a vector, by one linear map: `[n, H, W, 3]` -> `[n, h, w, k]`."""

    def __init__(self, size: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.size = size
        self.proj = nnx.Conv(3, width, (size, size), size, padding="VALID", rngs=rngs)

    def __call__(self, x: Float[Array, "n H W d"]) -> Float[Array, "n h w k"]:
        """The grid of patches."""
        if x.shape[1] % self.size or x.shape[2] % self.size:
            raise ValueError(
                f"images must have sides that {self.size}, the size of the patches, divides but are "
                f"{list(x.shape[1:3])}: crop or resize them, or use model.preprocessing(image)"
            )
        return self.proj(x)


class Tokens(nnx.Module):
    """The grid as a list of tokens, with class token and registers before it and embeddings of the positions added."""

    def __init__(
        self, width: int, grid: int, *, has_class: bool = True, registers: int = 0, embeds_class: bool, rngs: nnx.Rngs
    ) -> None:
        self.grid, self.embeds_class = grid, embeds_class
        self.cls_token = nnx.Param(_init(rngs.params(), (1, 1, width))) if has_class else None
        self.reg_token = nnx.Param(_init(rngs.params(), (1, registers, width))) if registers else None
        self.pos_embed = nnx.Param(_init(rngs.params(), (1, grid * grid + embeds_class, width)))

    def __call__(self, x: Float[Array, "n h w k"]) -> Float[Array, "n t k"]:
        """All tokens."""
        num, height, width, channels = x.shape
        own = self.pos_embed[...]
        first, places = own[:, : int(self.embeds_class)], own[:, int(self.embeds_class) :]
        if (height, width) != (self.grid, self.grid):
            square = places.reshape(1, self.grid, self.grid, channels)
            places = jax.image.resize(square, (1, height, width, channels), "cubic").reshape(1, -1, channels)
        tokens = [token[...] for token in (self.cls_token, self.reg_token) if token is not None]
        if self.embeds_class:
            tokens[0] = tokens[0] + first
        repeated = [jnp.broadcast_to(token, (num, *token.shape[1:])) for token in tokens]
        return jnp.concatenate([*repeated, x.reshape(num, -1, channels) + places], axis=1)


class ClassToken(nnx.Module):
    """The first token: pooling by leaving out the others."""

    def __call__(self, x: Float[Array, "n t k"]) -> Float[Array, "n k"]:
        """The layer, applied."""
        return x[:, 0]


class VisionTransformer(Network):
    """`patch_embed`, `tokens`, `blocks.0` ..., `norm`, `pool` or `attn_pool`, and `head` if there are classes."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        depth: int = 12,
        patch: int = 16,
        image: int = 224,
        pool: str = "token",
        registers: int = 0,
        has_scale: bool = False,
        preprocessing: Preprocessing = _VIT,
        num_classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        """Makes the chain.

        Args:
            width: channels of a token.
            heads: of the attention.
            depth: blocks.
            patch: pixels of a patch's side.
            image: pixels of a side that the embeddings of the positions are for.
            pool: "token" for the class token, "map" for attention over all and no class token.
            registers: further tokens, which no patch belongs to; the class token then has no position.
            has_scale: whether the branches of the blocks are scaled.
            preprocessing: of pictures.
            num_classes: of the linear layer at the end; none if 0.
            rngs: for random parameters.
        """
        has_class = pool == "token"
        stages: dict[str, nnx.Module] = {
            "patch_embed": PatchEmbedding(patch, width, rngs=rngs),
            "tokens": Tokens(
                width, image // patch, has_class=has_class, registers=registers,
                embeds_class=has_class and not registers, rngs=rngs,
            ),
            **{f"blocks.{i}": Block(width, heads, has_scale=has_scale, rngs=rngs) for i in range(depth)},
            "norm": LayerNorm(width, epsilon=1e-6),
        }  # fmt: skip
        stages |= {"pool": ClassToken()} if has_class else {"attn_pool": AttentionPool(width, heads, rngs=rngs)}
        stages |= {"head": nnx.Linear(width, num_classes, rngs=rngs)} if num_classes else {}
        super().__init__(stages, class_names=class_names(num_classes), preprocessing=preprocessing)
        self.smallest_image = patch
        self.default_layer = f"blocks.{max(depth - 2, 0)}" if has_class else "norm"


_SMALL = partial(VisionTransformer, 384, 6)
_DINOV2 = partial(_SMALL, patch=14, image=518, has_scale=True, preprocessing=_DINO)

ARCHITECTURES = family(
    "blocks.0.attn.qkv.weight",
    Architecture(
        "vit_tiny_patch16_224",
        partial(VisionTransformer, 192, 3),
        classifier="head",
        repo="timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    ),
    Architecture(
        "vit_small_patch16_224", _SMALL, classifier="head", repo="timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
    ),
    Architecture(
        "vit_base_patch16_224",
        partial(VisionTransformer, 768, 12),
        classifier="head",
        repo="timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
    ),
    Architecture(
        "vit_small_patch14_dinov2",
        _DINOV2,
        classifier="head",
        num_classes=0,
        repo="timm/vit_small_patch14_dinov2.lvd142m",
    ),
    Architecture(
        "vit_small_patch14_reg4_dinov2",
        partial(_DINOV2, registers=4),
        classifier="head",
        num_classes=0,
        repo="timm/vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    Architecture(
        "vit_base_patch16_siglip_224",
        partial(VisionTransformer, 768, 12, pool="map"),
        classifier="head",
        num_classes=0,
        repo="timm/vit_base_patch16_siglip_224.v2_webli",
    ),
)
"""By name."""


def vit_tiny_patch16_224(weights: Weights = None, **options: Unpack[Options]) -> VisionTransformer:
    """ViT-Ti/16: 5.7 million parameters, 14 x 14 patches at 224 pixels."""
    return build(ARCHITECTURES["vit_tiny_patch16_224"], weights, options)


def vit_small_patch16_224(weights: Weights = None, **options: Unpack[Options]) -> VisionTransformer:
    """ViT-S/16: 22.1 million parameters."""
    return build(ARCHITECTURES["vit_small_patch16_224"], weights, options)


def vit_base_patch16_224(weights: Weights = None, **options: Unpack[Options]) -> VisionTransformer:
    """ViT-B/16: 86.6 million parameters."""
    return build(ARCHITECTURES["vit_base_patch16_224"], weights, options)


def vit_small_patch14_dinov2(weights: Weights = None, **options: Unpack[Options]) -> VisionTransformer:
    """DINOv2's ViT-S/14: 22.1 million parameters, the embedding `[n, 384]`; 37 x 37 patches at 518 pixels."""
    return build(ARCHITECTURES["vit_small_patch14_dinov2"], weights, options)


def vit_small_patch14_reg4_dinov2(weights: Weights = None, **options: Unpack[Options]) -> VisionTransformer:
    """DINOv2's ViT-S/14 with four registers, which take the artefacts off the patches."""
    return build(ARCHITECTURES["vit_small_patch14_reg4_dinov2"], weights, options)


def vit_base_patch16_siglip_224(weights: Weights = None, **options: Unpack[Options]) -> VisionTransformer:
    """SigLIP's picture tower, ViT-B/16 with attention pooling: 92.9 million parameters, the embedding `[n, 768]`."""
    return build(ARCHITECTURES["vit_base_patch16_siglip_224"], weights, options)

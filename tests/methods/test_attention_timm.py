"""Rollout and relevance of timm's vision transformer in torch, with the same weights (parity)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from torch_networks import randomised

import jaxcam
from jaxcam.models.vit import VisionTransformer

OPTIONS = {"img_size": 64, "depth": 3, "num_classes": 7}


def in_torch(network, x, class_idx):
    """Both maps by whole matrices, from weights that a hook keeps and torch's own gradients by them."""
    import torch

    weights = []
    for block in network.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, given, out: weights.append(out))
    logits = network(x)
    gradients = torch.autograd.grad(logits[0, class_idx], weights)
    rollout = relevance = identity = torch.eye(17, dtype=x.dtype)
    for a, g in zip(weights, gradients, strict=True):
        mixed = a[0].mean(0) + identity
        rollout = mixed / mixed.sum(-1, keepdim=True) @ rollout
        relevance = relevance + (a[0] * g[0]).clamp(min=0).mean(0) @ relevance
    return [found[0, 1:].reshape(4, 4).detach().numpy() for found in (rollout, relevance)], logits.detach().numpy()


def ported(network):
    """The same network in this package."""
    tensors = {name: jnp.asarray(value.detach().numpy()) for name, value in network.state_dict().items()}
    vit = VisionTransformer(192, 3, depth=3, image=64, num_classes=7, rngs=nnx.Rngs(0))
    stages = vit.stages
    embed, tokens = stages["patch_embed"].proj, stages["tokens"]
    embed.kernel.set_value(tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0))
    embed.bias.set_value(tensors["patch_embed.proj.bias"])
    tokens.cls_token.set_value(tensors["cls_token"])
    tokens.pos_embed.set_value(tensors["pos_embed"])
    layers = {"norm": stages["norm"], "head": stages["head"]}
    for i in range(3):
        b, at = stages[f"blocks.{i}"], f"blocks.{i}"
        layers |= {
            f"{at}.norm1": b.norm1,
            f"{at}.norm2": b.norm2,
            f"{at}.mlp.fc1": b.mlp.fc1,
            f"{at}.mlp.fc2": b.mlp.fc2,
        }
        layers |= {f"{at}.attn.qkv": b.attn.qkv, f"{at}.attn.proj": b.attn.proj}
    for name, layer in layers.items():
        layer.bias.set_value(tensors[f"{name}.bias"])
        if hasattr(layer, "kernel"):
            layer.kernel.set_value(tensors[f"{name}.weight"].T)
        else:
            layer.scale.set_value(tensors[f"{name}.weight"])
    return vit


@pytest.mark.parity
def test_maps_agree_with_torch(torchvision):
    import torch

    timm = pytest.importorskip("timm")
    network = randomised(lambda: timm.create_model("vit_tiny_patch16_224", **OPTIONS)).double().eval()
    picture = np.random.default_rng(0).normal(size=(1, 3, 64, 64))
    (rollout, relevance), logits = in_torch(network, torch.tensor(picture), 3)
    vit, image = ported(network), jnp.asarray(picture[0].transpose(1, 2, 0))
    run = jax.jit(
        lambda vit, x: (vit(x[None]), jaxcam.attention_rollout(vit, x), jaxcam.attention_relevance(vit, x, 3))
    )
    found = run(vit, image)
    np.testing.assert_allclose(found[0], logits, rtol=1e-9)
    np.testing.assert_allclose(found[1], rollout, rtol=1e-9)
    np.testing.assert_allclose(found[2], relevance, rtol=1e-9)
    assert relevance.max() > 1e-6

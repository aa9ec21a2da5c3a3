"""Every port against torchvision's network with the same random parameters and batch-norm statistics (parity)."""

import functools

import jax
import numpy as np
import pytest
from torch_networks import assert_close, randomised, saved

from jaxcam import models

TORCHVISION = [
    *("squeezenet1_0", "squeezenet1_1"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"),
    *(f"efficientnet_b{i}" for i in range(8)),
    *("convnext_tiny", "densenet121", "mobilenet_v3_small", "swin_tiny"),
]
THEIRS = {"swin_tiny": "swin_t"}
CHANNELS_LAST = ["swin_tiny"]
VITS = {
    "vit_tiny_patch16_224": ((64, 96), (224, 224)),
    "vit_small_patch14_dinov2": ((70, 98),),
    "vit_small_patch14_reg4_dinov2": ((70, 98),),
    "vit_base_patch16_siglip_224": ((64, 64),),
}
CIFAR = [f"resnet{depth}" for depth in (20, 32, 44, 56, 110)]
SIZES = [(64, 64), (96, 71)]
ONCE = [
    *(f"vgg{depth}{norm}" for depth in (13, 16, 19) for norm in ("", "_bn")),
    *("resnet34", "resnet101", "resnet152", "wide_resnet50_2", "densenet121"),
    *(f"efficientnet_b{i}" for i in range(1, 8)),
]
"""At one size: DenseNet, and what has the layers of a smaller sibling that is tried at both."""
FLOAT32 = ["squeezenet1_1", "resnet18", "mobilenet_v3_small", "swin_tiny"]
"""In float32 too, each another program to compile; `test_logits_at_224_pixels_agree_with_torchvision` has four more."""


@pytest.fixture(autouse=True)
def forget_programs():
    """The compiled networks of this file would need 20 GiB together."""
    yield
    jax.clear_caches()


def torch_outputs(network, images, dtype, names, *, last):
    """The logits, and what the modules of these names return, channels last (`last`: as they are there)."""
    import torch

    outputs = {}

    def keep(name):
        # A ReLU in place would change what was kept: a copy.
        return lambda _module, _inputs, out: outputs.update({name: out.detach().clone()})

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name in names]
    network = network.to(dtype)
    with torch.no_grad():
        logits = network(torch.from_numpy(np.moveaxis(images, -1, 1)).to(dtype)).numpy()
    for hook in hooks:
        hook.remove()
    return logits, {name: out.numpy() if last else np.moveaxis(out.numpy(), 1, -1) for name, out in outputs.items()}


def own_outputs(model, images, prefixes):
    """What every stage returns, what `features` does at these prefixes, and the logits: from one program.

    The optimiser of XLA is off: it would take minutes for what runs once.
    """

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def outputs(model, images):
        found, x = {}, images
        for name in model.layers:
            x = model._applied((name,), x)
            found[name] = x
        return found | {prefix: model.features(images, layer=prefix) for prefix in prefixes}

    found = outputs(model, images)
    return found[model.layers[-1]], found


def compare(theirs, ours, names, sizes, *, last=False, exact=1e-9, float32=True):
    """In float64 at these sizes, to `exact`, and in float32 at the last of them."""
    import torch

    cases = [(size, np.float64, torch.float64, exact) for size in sizes]
    cases += [(sizes[-1], np.float32, torch.float32, 1e-4)] * float32
    for size, dtype, torch_dtype, tolerance in cases:
        images = np.random.default_rng(0).normal(size=(1, *size, 3))
        logits, layers = torch_outputs(theirs, images, torch_dtype, names, last=last)
        model = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), ours)  # noqa: B023
        prefixes = names - set(model.layers)  # "layer4" is the last of "layer4.0", "layer4.1" ...
        own_logits, own_layers = own_outputs(model, images.astype(dtype), prefixes)
        assert_close(own_logits, logits, tolerance)
        assert layers.keys() == names
        assert names <= own_layers.keys()
        for name in names:
            assert_close(own_layers[name], layers[name], tolerance)


@pytest.mark.parity
@pytest.mark.parametrize("name", TORCHVISION)
def test_every_layer_agrees_with_torchvision(name, torchvision, tmp_path):
    theirs = randomised(getattr(torchvision.models, THEIRS.get(name, name)))
    ours = models.MODELS[name](saved(theirs, tmp_path / "w.safetensors"))
    names = {child for child, _ in theirs.named_modules() if child in ours.layers or child in ("layer2", "features.3")}
    # Of the stages only "flatten" has no module in torchvision, and in DenseNet "relu" and "avgpool"; its ReLUs between
    # the blocks' parts are ours.
    assert len(names) >= len(ours.layers) - (2 if name == "densenet121" else 1)
    sizes = SIZES[1:] if name in ONCE else SIZES
    compare(theirs, ours, names, sizes, last=name in CHANNELS_LAST, float32=name in FLOAT32)


@pytest.mark.parity
@pytest.mark.parametrize("name", VITS)
def test_every_layer_of_the_vits_agrees_with_timm(name, torchvision, tmp_path):
    """At other sizes than the positions are for, too, which resizes their embeddings."""
    timm = pytest.importorskip("timm")
    theirs = randomised(lambda: timm.create_model(name, dynamic_img_size=True))
    ours = models.MODELS[name](saved(theirs, tmp_path / "w.safetensors"))
    names = {child for child, _ in theirs.named_modules() if child in ours.layers}
    assert set(ours.layers) - names <= {"tokens", "pool"}
    for size in VITS[name]:
        # timm resizes the embeddings in float32 whatever they are.
        compare(theirs, ours, names, [size], last=True, exact=1e-9 if size == (224, 224) else 1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet50", "vgg16", "efficientnet_b0", "squeezenet1_0"])
def test_logits_at_224_pixels_agree_with_torchvision(name, torchvision, tmp_path):
    theirs = randomised(getattr(torchvision.models, name))
    compare(theirs, models.MODELS[name](saved(theirs, tmp_path / "w.safetensors")), set(), [(224, 224)])


@pytest.mark.parity
@pytest.mark.parametrize("name", CIFAR)
def test_every_layer_of_the_cifar_networks_agrees_with_the_papers(name, tmp_path):
    pytest.importorskip("torch")
    theirs = randomised(lambda: cifar_resnet(int(name.removeprefix("resnet"))))
    ours = models.MODELS[name](saved(theirs, tmp_path / "w.safetensors"))
    names = {child for child, _ in theirs.named_modules() if child in ours.layers}
    assert len(names) == len(ours.layers) - 2  # but for "relu" and "avgpool", which have no module there
    is_first = name == CIFAR[0]  # the others are longer
    compare(theirs, ours, names, [(32, 32), (20, 45)] if is_first else [(20, 45)], float32=is_first)


def cifar_resnet(depth):
    """He et al. 2016, Section 4.2, in torch: 6n + 2 layers; shortcuts of type A, identities padded with zeros."""
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)

        def forward(self, x):
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            added = y.shape[1] - x.shape[1]
            if added:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added // 2, added // 2))
            return functional.relu(x + y)

    def group(inputs, outputs, stride):
        blocks = [Block(outputs if i else inputs, outputs, 1 if i else stride) for i in range((depth - 2) // 6)]
        return nn.Sequential(*blocks)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            self.layer1, self.layer2, self.layer3 = group(16, 16, 1), group(16, 32, 2), group(32, 64, 2)
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
            return self.linear(x.mean((2, 3)))

    return Network()

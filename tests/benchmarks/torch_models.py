"""Models of PyTorch, by torchax in JAX, against torch and the grad-cam package: Grad-CAM of the predicted class.

    pip install -r tests/parity-requirements.txt && pip install --no-deps -r tests/parity-requirements-no-deps.txt
    python tests/benchmarks/torch_models.py [--runs 15] [--size 224] [--batch 8] [NAME ...]

All run in turns in one process, on the same weights and images; the ratios are medians of the ratios run by run.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from networks import interleaved, ratio

import jaxcam

# By name in torchvision or timm: the module that the package's users name, and where its values have the channels.
MODELS = {
    "resnet18": ("layer4", "first"),
    "resnet50": ("layer4", "first"),
    "mobilenet_v3_small": ("features", "first"),
    "convnext_atto": ("stages", "first"),
    "vit_tiny_patch16_224": ("blocks.10", "tokens"),
}


def tokens(values):
    """Without the class token, as a grid, channels first."""
    side = round((values.shape[1] - 1) ** 0.5)
    return values[:, 1:].reshape(len(values), side, side, -1).permute(0, 3, 1, 2)


def measure(name, arguments):
    import support

    torchvision = support.imported_torchvision()
    import timm
    import torch
    from pytorch_grad_cam import GradCAM

    torch.manual_seed(0)
    of = getattr(torchvision.models, name, None)
    network = (timm.create_model(name) if of is None else of(weights=None)).eval()
    layer, kind = MODELS[name]
    images = np.random.default_rng(0).normal(size=(arguments.batch, 3, arguments.size, arguments.size))
    x, own = torch.from_numpy(images).float(), jax.device_put(images.astype(np.float32))
    start = time.perf_counter()
    net = jaxcam.adapt(network)
    jaxcam.layers(net, own)
    traced = time.perf_counter() - start
    forward = jax.jit(lambda net, images: net(images))

    def torch_forward():
        with torch.no_grad():
            return network(x).numpy()

    package = GradCAM(network, [network.get_submodule(layer)], reshape_transform=tokens if kind == "tokens" else None)
    with package:
        times = interleaved(
            {
                "torch": torch_forward,
                "forward": lambda: forward(net, own),
                "explain": lambda: jaxcam.explain(net, own, layer=layer),
                "package": lambda: package(input_tensor=x, targets=None),
            },
            arguments.runs,
        )
    each = ", ".join(f"{key} {arguments.batch / statistics.median(value):.1f}" for key, value in times.items())
    print(
        f"{name:<22} traced in {traced:.1f} s; images a second: {each}; "
        f"explain / forward {ratio(times['explain'], times['forward']):.2f}, "
        f"forward / torch {ratio(times['forward'], times['torch']):.2f}, "
        f"package / explain {ratio(times['package'], times['explain']):.2f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in arguments.names:
        measure(name, arguments)
        jax.clear_caches()


if __name__ == "__main__":
    main()

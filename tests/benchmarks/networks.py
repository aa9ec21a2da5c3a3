"""Grad-CAM++ of ResNet-50 and VGG-16, batch 8, 224 x 224: `explain` against the forward pass and the grad-cam package.

    pip install -r tests/parity-requirements.txt && pip install --no-deps -r tests/parity-requirements-no-deps.txt
    python tests/benchmarks/networks.py [--runs 15]

The three run in turns in one process, on the same weights and images; the ratios are medians of the ratios run by run.
Then, in fresh processes: compile time and time to the first map, without and with JAX's persistent compilation cache.
Then: the forward pass with batch norm folded into the convolutions against the one without.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import safetensors.numpy

import jaxcam
from jaxcam import models

LAYERS = {"resnet50": lambda network: network.layer4[-1], "vgg16": lambda network: network.features[29]}
FOLDED = ("mini_resnet", "resnet20", "resnet18", "resnet50", "vgg16_bn", "efficientnet_b0")
BATCH = 8


def seconds(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def interleaved(functions, runs):
    """Seconds of each by run; the order turns, so that nobody always finds the caches that another left."""
    names = list(functions)
    for function in functions.values():
        jax.block_until_ready(function())
    times = {name: [] for name in names}
    for run in range(runs):
        for name in names[run % len(names) :] + names[: run % len(names)]:
            times[name].append(seconds(functions[name]))
    return times


def ratio(times, other):
    return statistics.median(a / b for a, b in zip(times, other, strict=True))


def against_the_package(name, runs):
    import support

    torchvision = support.imported_torchvision()
    import torch
    from pytorch_grad_cam import GradCAMPlusPlus

    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        safetensors.numpy.save_file({key: value.numpy() for key, value in theirs.state_dict().items()}, path)
        model = models.MODELS[name](path)
    images = np.random.default_rng(0).normal(size=(BATCH, 224, 224, 3)).astype(np.float32)
    x, own = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), jax.device_put(images)
    forward = jax.jit(lambda model, images: model(images))
    with GradCAMPlusPlus(model=theirs, target_layers=[LAYERS[name](theirs)]) as package:
        times = interleaved(
            {
                "forward": lambda: forward(model, own),
                "explain": lambda: jaxcam.explain(model, own),
                "package": lambda: package(input_tensor=x, targets=None),
            },
            runs,
        )
    a_second = {key: BATCH / statistics.median(value) for key, value in times.items()}
    print(
        f"{name:<10} images a second: forward {a_second['forward']:.1f}, explain {a_second['explain']:.1f}, "
        f"package {a_second['package']:.1f}; explain / forward {ratio(times['explain'], times['forward']):.3f}, "
        f"package / explain {ratio(times['package'], times['explain']):.2f}",
        flush=True,
    )


FIRST_MAP = """
import time
start = time.perf_counter()
import sys, jax, numpy as np, jaxcam
imported = time.perf_counter()
model = jaxcam.models.MODELS[sys.argv[1]]()
images = np.zeros((8, 224, 224, 3), np.float32)
jax.block_until_ready(model)
made = time.perf_counter()
jax.block_until_ready(jaxcam.explain(model, images))
first = time.perf_counter()
jax.block_until_ready(jaxcam.explain(model, images))
again = time.perf_counter() - first
print(imported - start, first - made - again, first - made, again)
"""


def to_the_first_map(name):
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for label, environment in (("no cache", {}), ("cache, empty", cache), ("cache, filled", cache)):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_MAP, name],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                check=True,
            )
            importing, compiling, first, again = map(float, done.stdout.split())
            print(
                f"{name:<10} {label:<14} import {importing:.2f} s, compile {compiling:.2f} s, first map {first:.2f} s, "
                f"next {again:.2f} s",
                flush=True,
            )


def folding(name, batch, runs):
    model = models.MODELS[name](None)
    folded = models.fold_batch_norm(model)
    side = model.preprocessing.crop
    images = jax.device_put(np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32))
    forward = jax.jit(lambda model, images: model(images))
    times = interleaved({"plain": lambda: forward(model, images), "folded": lambda: forward(folded, images)}, runs)
    plain = 1e3 * statistics.median(times["plain"])
    print(
        f"{name:<16} batch {batch}: {plain:.1f} ms, folded {ratio(times['plain'], times['folded']):.3f} times as fast"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    warnings.simplefilter("ignore")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {BATCH}, {runs} interleaved runs")
    for name in FOLDED:
        for batch in (1, BATCH):
            folding(name, batch, 3 * runs)
    for name in LAYERS:
        to_the_first_map(name)
    for name in LAYERS:
        against_the_package(name, runs)


if __name__ == "__main__":
    main()

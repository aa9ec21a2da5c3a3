"""`explain` with Grad-CAM++ against the bare jitted forward pass of the same model, in one run, interleaved.

    python tests/benchmarks/explain.py [--runs 30] [--models NAME ...] [--batches 8] [--size 224]
    python tests/benchmarks/explain.py --models convnext_tiny --alphas exact --batches 1 4 --runs 15

Prints, for every model and batch: medians of both, the median of the ratios pair by pair, the time to compile, and the
load of the machine at the end. `--alphas exact` asks for the derivatives of the whole head, whatever is proven of it.
"""

import argparse
import os
import statistics
import time
from functools import partial

import jax
import numpy as np

import jaxcam
from jaxcam import models


def seconds(function, *arguments):
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def measure(name, batch, size, explain, runs):
    model = models.MODELS[name](None)
    side = size or model.preprocessing.crop
    images = jax.device_put(np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32))
    forward = jax.jit(lambda model, images: model(images))
    seconds(forward, model, images)
    compiling = seconds(explain, model, images)
    pairs = []
    for run in range(runs):
        # Which of the two goes first changes from run to run: what the first leaves in the caches favours neither.
        order = (forward, explain) if run % 2 else (explain, forward)
        times = {function: seconds(function, model, images) for function in order}
        pairs.append((times[forward], times[explain]))
    ratio = statistics.median(explained / plain for plain, explained in pairs)
    plain, explained = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    times = f"{plain:>11.1f} {explained:>11.1f} {ratio:>6.3f} {compiling:>10.1f}"
    print(f"{name:<14} {batch:>5} {side:>4} {times} {os.getloadavg()[0]:>5.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--models", nargs="*", default=["mini_vgg", "mini_resnet", "squeezenet1_0", "squeezenet1_1"])
    parser.add_argument("--batches", nargs="*", type=int, default=[8])
    parser.add_argument("--size", type=int, help="the images' side, where it is not the network's own")
    parser.add_argument("--alphas", default="auto", help="of Grad-CAM++, as explain takes it")
    given = parser.parse_args()
    explain = partial(jaxcam.explain, method="grad_cam_pp", alphas=given.alphas)
    runs, alphas = given.runs, given.alphas
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, alphas {alphas}, {runs} interleaved runs")
    titles = f"{'forward ms':>11} {'explain ms':>11} {'ratio':>6} {'compile s':>10}"
    print(f"{'model':<14} {'batch':>5} {'side':>4} {titles} {'load':>5}")
    for name in given.models:
        for batch in given.batches:
            measure(name, batch, given.size, explain, runs)


if __name__ == "__main__":
    main()

"""`explain` with Grad-CAM++ against the bare jitted forward pass of the same model, in one run, interleaved.

    python tests/benchmarks/explain.py [--runs 30]

Prints, for every model at batch 8: medians of both, the median of the ratios pair by pair, and the time to compile.
"""

import argparse
import statistics
import time

import jax
import numpy as np

import jaxcam
from jaxcam import models


def seconds(function, *arguments):
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--models", nargs="*", default=["mini_vgg", "mini_resnet", "squeezenet1_0", "squeezenet1_1"])
    runs, names = vars(parser.parse_args()).values()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch 8, {runs} interleaved runs")
    print(f"{'model':<14} {'forward ms':>11} {'explain ms':>11} {'ratio':>6} {'compile s':>10}")
    for name in names:
        model = models.MODELS[name](None)
        side = model.preprocessing.crop
        images = np.random.default_rng(0).normal(size=(8, side, side, 3)).astype(np.float32)
        images = jax.device_put(images)
        forward = jax.jit(lambda model, images: model(images))
        seconds(forward, model, images)
        compiling = seconds(jaxcam.explain, model, images)
        pairs = []
        for run in range(runs):
            # Which of the two goes first changes from run to run: what the first leaves in the caches favours neither.
            order = (forward, jaxcam.explain) if run % 2 else (jaxcam.explain, forward)
            times = {function: seconds(function, model, images) for function in order}
            pairs.append((times[forward], times[jaxcam.explain]))
        ratio = statistics.median(explained / plain for plain, explained in pairs)
        plain, explained = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:<14} {plain:>11.1f} {explained:>11.1f} {ratio:>6.3f} {compiling:>10.1f}")


if __name__ == "__main__":
    main()

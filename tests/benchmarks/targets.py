"""What targets cost: one target against `class_idx`, and all 1,000 logits of ResNet-50 against the forward pass alone.

    python tests/benchmarks/targets.py [--runs 10] [--model resnet50]

Both in one run, interleaved, batch 1, Grad-CAM, float32, random weights. Prints medians and the medians of the ratios
pair by pair.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam
from jaxcam import models


def seconds(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def compared(title, first, second, runs):
    """The times of two functions in turns, and of the second the ratio to the first."""
    compiling = [seconds(first), seconds(second)]
    pairs = []
    for run in range(runs):
        # Which of the two goes first changes from run to run: what the first leaves in the caches favours neither.
        order = (first, second) if run % 2 else (second, first)
        times = {function: seconds(function) for function in order}
        pairs.append((times[first], times[second]))
    ratio = statistics.median(after / before for before, after in pairs)
    before, after = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    first_calls = ", ".join(f"{time:.1f} s" for time in compiling)
    print(f"{title:<44} {before:>9.1f} {after:>9.1f} {ratio:>6.3f}   first calls {first_calls}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--model", default="resnet50")
    options = parser.parse_args()
    model = models.MODELS[options.model](None)
    side = model.preprocessing.crop
    image = jax.device_put(np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32))
    forward = jax.jit(lambda model, image: model(image))
    bare = lambda: forward(model, image)
    logit = jaxcam.targets.logit(5)
    by_class = lambda: jaxcam.explain(model, image, class_idx=5).heatmap
    by_target = lambda: jaxcam.explain(model, image, target=logit).heatmap
    by_lambda = lambda: jaxcam.explain(model, image, target=lambda outputs, inputs: outputs[5]).heatmap
    whole = lambda: jaxcam.explain(model, image, target=lambda outputs, inputs: outputs).cam_map
    classes = lambda: jaxcam.explain(model, image, class_idx="all").cam_map
    print(
        f"{options.model}, {side} x {side}, {jax.devices()[0].device_kind}, jax {jax.__version__}, {options.runs} runs"
    )
    print(f"{'':<44} {'first ms':>9} {'second ms':>9} {'ratio':>6}")
    compared("class_idx=5, targets.logit(5)", by_class, by_target, options.runs)
    compared("class_idx=5, a new lambda", by_class, by_lambda, options.runs)
    compared("forward pass, class_idx=5", bare, by_class, options.runs)
    compared("forward pass, all logits by a target", bare, whole, options.runs)
    compared("forward pass, class_idx='all'", bare, classes, options.runs)
    # Heatmaps of the picture's size are not made where nobody asks for them: here they are 200 MB.
    maps_alone = jax.jit(lambda model, image: jaxcam.explain(model, image, class_idx="all").cam_map)
    compared("forward pass, class_idx='all', no heatmaps", bare, lambda: maps_alone(model, image), options.runs)
    # What no method can save: an array of their size, filled with a number that is not known beforehand.
    written = jax.jit(lambda image: jnp.broadcast_to(image[0, 0, 0, 0], (1, 1000, side, side)) + 0.0)
    compared("forward pass, an array of 1,000 heatmaps filled", bare, lambda: written(image), options.runs)


if __name__ == "__main__":
    main()

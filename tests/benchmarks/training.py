"""A training step with maps against the plain step of the same network, in one run, in turns; and its memory.

    python tests/benchmarks/training.py [--runs 20] [--models mini_vgg resnet18] [--batch 2] [--steps 1000]

The plain step is the cross-entropy's gradient by all parameters and an update of SGD; the others add to the loss the
energy of the map of the true class outside a mask, from `learning.forward`. Prints for every network the median of the
plain step, the medians of the ratios pair by pair, and the time to compile; then, over so many steps of the first
network with Grad-CAM and an observer, how many arrays are alive and how much memory the process has.
"""

import argparse
import resource
import statistics
import tempfile
import time

import jax
import numpy as np
import optax
from flax import nnx

import jaxcam
from jaxcam import learning, models

BATCHES = {"mini_vgg": 32, "mini_resnet": 32}
METHODS = (None, "grad_cam", "grad_cam_pp")
OPTIMIZER = optax.sgd(1e-4)


def step_with(method):
    """The compiled step; without a method the plain one."""

    @jax.jit
    def step(structure, parameters, rest, state, pictures, labels, masks):
        def loss(parameters):
            model = nnx.merge(structure, parameters, rest)
            if method is None:
                outside, logits = 0.0, model(pictures)
            else:
                logits, cam_maps = learning.forward(model, pictures, labels, method=method)
                outside = 0.1 * jax.vmap(learning.inside)(cam_maps, masks)
            return (optax.softmax_cross_entropy_with_integer_labels(logits, labels) + outside).mean()

        value, gradient = jax.value_and_grad(loss)(parameters)
        moves, state = OPTIMIZER.update(gradient, state)
        return optax.apply_updates(parameters, moves), state, value

    return step


def timed(name, runs, batch_size):
    model = models.mini_vgg() if name == "mini_vgg" else models.MODELS[name](None)
    num, side = batch_size or BATCHES.get(name, 4), model.preprocessing.crop
    random = np.random.default_rng(0)
    grid = jax.eval_shape(model.features, jax.ShapeDtypeStruct((1, side, side, 3), np.float32)).shape[1:3]
    pictures = jax.device_put(random.normal(size=(num, side, side, 3)).astype(np.float32))
    batch = pictures, random.integers(10, size=num), random.uniform(size=(num, *grid)).astype(np.float32)
    structure, parameters, rest = nnx.split(model, nnx.Param, ...)
    operands = structure, parameters, rest, OPTIMIZER.init(parameters), *batch
    steps = {method: step_with(method) for method in METHODS}

    def seconds(method):
        start = time.perf_counter()
        jax.block_until_ready(steps[method](*operands))
        return time.perf_counter() - start

    compiling = {method: seconds(method) for method in METHODS}
    rounds = [{method: seconds(method) for method in np.roll(METHODS, run)} for run in range(runs)]
    plain = statistics.median(each[None] for each in rounds)
    ratios = [statistics.median(each[method] / each[None] for each in rounds) for method in METHODS[1:]]
    shown = " ".join(f"{ratio:>12.2f}" for ratio in ratios)
    told = " / ".join(f"{compiling[method]:.1f}" for method in METHODS)
    print(f"{name:<12} {num:>5} {1e3 * plain:>9.1f} {shown}   {told}", flush=True)
    return model, operands, steps["grad_cam"]


def remembered(model, operands, step, num):
    """Arrays alive and the process's peak memory, as the steps go by."""
    structure, parameters, rest, state, *batch = operands
    with tempfile.TemporaryDirectory() as folder:
        observer = learning.Observer(folder, batch[0][:2], every=max(1, num // 20))
        for i in range(num + 1):
            parameters, state, _ = step(structure, parameters, rest, state, *batch)
            observer(i, nnx.merge(structure, parameters, rest))
            if i % max(1, num // 5) == 0:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"step {i:>6}: {len(jax.live_arrays())} arrays alive, peak memory {peak:.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--models", nargs="*", default=["mini_vgg", "resnet18"])
    parser.add_argument("--batch", type=int, help="the network's own unless given: 32, or 4 for large ones")
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, jaxcam {jaxcam.__version__}, {given.runs} runs")
    print(f"{'model':<12} {'batch':>5} {'plain ms':>9} {'Grad-CAM':>12} {'Grad-CAM++':>12}   compile s")
    measured = [timed(name, given.runs, given.batch) for name in given.models]
    if given.steps:
        remembered(*measured[0], given.steps)


if __name__ == "__main__":
    main()

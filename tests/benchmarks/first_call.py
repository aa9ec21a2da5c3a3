"""The first call of `explain` against tracing and compiling the bare forward pass, each in a fresh process.

    python tests/benchmarks/first_call.py [--runs 3] [--networks resnet50 convnext]

Batch 1 of 224 x 224 pixels, random weights, no persistent cache. resnet50 is the one of `jaxcam.models`; convnext is a
ConvNeXt-tiny in Flax Linen, a program that jaxcam has never seen and has to cut by itself. `traced` counts how often
the model's Python function ran in one call of `explain`. Runs on versions that know `model_fn` and not yet `adapt`,
too: PYTHONPATH says which. Where other programs run beside it, the processor's seconds say more than the clock's.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

METHODS = ("grad_cam", "grad_cam_pp")
TRACED = []
"""An entry for every run of the model's Python function. Not in its closure, which tells one function from another."""


def resnet50():
    """The network and a function of it and images; what `explain` gets for it, and the arguments."""
    import jaxcam

    class Counted(jaxcam.models.ResNet):
        def _applied(self, names, x, **options):
            TRACED.extend([None] * (self.layers[0] in names))  # its features have the first stage, its head has not
            return super()._applied(names, x, **options)

    model = jaxcam.models.resnet50()
    model.__class__ = Counted
    return model, lambda model, images: model(images), model, {}


def convnext():
    """ConvNeXt-tiny in Linen: variables and a function of them."""
    import jax.numpy as jnp
    from flax import linen

    import jaxcam

    class Block(linen.Module):
        width: int

        @linen.compact
        def __call__(self, x):
            y = linen.Conv(self.width, (7, 7), feature_group_count=self.width)(x)
            y = linen.Dense(4 * self.width)(linen.LayerNorm(1e-6)(y))
            y = linen.Dense(self.width)(linen.gelu(y, approximate=False))
            return x + y * self.param("scale", linen.initializers.constant(1e-1), (self.width,))

    class ConvNeXt(linen.Module):
        @linen.compact
        def __call__(self, images):
            x = linen.LayerNorm(1e-6)(linen.Conv(96, (4, 4), (4, 4))(images))
            for stage, (width, depth) in enumerate(zip((96, 192, 384, 768), (3, 3, 9, 3), strict=True)):
                if stage:
                    x = linen.Conv(width, (2, 2), (2, 2))(linen.LayerNorm(1e-6)(x))
                for _ in range(depth):
                    x = Block(width)(x)
            return linen.Dense(1000)(linen.LayerNorm(1e-6)(x.mean((1, 2))))

    network = ConvNeXt()
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))

    def apply(variables, images):
        TRACED.append(None)
        return network.apply(variables, images)

    if hasattr(jaxcam, "adapt"):
        return variables, apply, jaxcam.adapt(variables, apply=apply), {}
    return variables, apply, variables, {"model_fn": apply}


NETWORKS = {"resnet50": resnet50, "convnext": convnext}


def measure(network, what):
    """One figure in this process, as JSON: what the first call took longer than others, and how often it traced."""
    import jaxcam

    plain, apply, subject, options = NETWORKS[network]()
    bare = jax.jit(apply)

    def run():
        if what == "forward":
            return bare(plain, images)
        return jaxcam.explain(subject, images, method=what, **options)

    images = jax.device_put(np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32))
    jax.block_until_ready((jax.tree.leaves(plain), images))
    TRACED.clear()
    gc.collect()  # what importing and building a network have left is not collected on either one's account
    found = []
    for _ in range(3):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        found.append((time.perf_counter() - start[0], time.process_time() - start[1], len(TRACED)))
    # The quickest of the later calls is the time that running takes.
    seconds, cpu = (
        first - min(later) for first, *later in zip(*((clock, busy) for clock, busy, _ in found), strict=True)
    )
    print(json.dumps({"seconds": seconds, "cpu": cpu, "traced": found[0][2]}))


def fresh(network, what):
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--measure", network, what]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch 1, medians of {options.runs} fresh processes\n"
    )
    print("| | forward, s | explain, s | ratio | CPU ratio | traced |\n|---|---|---|---|---|---|")
    for network in options.networks:
        runs = [{what: fresh(network, what) for what in ("forward", *METHODS)} for _ in range(options.runs)]

        def median(what, of="seconds", runs=runs):
            return statistics.median(run[what][of] for run in runs)

        for method in METHODS:
            ratios = (median(method, of) / median("forward", of) for of in ("seconds", "cpu"))
            cells = [f"{x:.2f}" for x in (median("forward"), median(method), *ratios)]
            print(f"| {network}, {method} | {' | '.join(cells)} | {runs[0][method]['traced']} |", flush=True)


if __name__ == "__main__":
    main()

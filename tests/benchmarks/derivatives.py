"""Exact first to third derivatives at VGG-16's last convolution: their time and memory.

    python tests/benchmarks/derivatives.py [--runs 5] [--skip growth brute ...]

The head is VGG-16's from block5_conv3 on: activations [14, 14, 512], 2x2 max-pooling, 25088-4096-4096-1000 with
ReLUs, random weights of the right scale, float32. Everything that is compared runs in one process, interleaved, and
medians are printed. Memory is the peak of a fresh process that does one thing once. Takes about two minutes.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.jet import jet

from jaxcam import scores
from jaxcam.derivatives import elementwise_derivatives

CLASS = 3


def head(parameters, a):
    z = lax.reduce_window(a, -jnp.inf, lax.max, (2, 2, 1), (2, 2, 1), "VALID").reshape(-1)
    *hidden, last = parameters
    for kernel in hidden:
        z = jax.nn.relu(z @ kernel)
    return z @ last


def score(name, logits):
    return scores.resolve(name)(logits, CLASS)


@partial(jax.jit, static_argnums=0)
def noise(shape):
    """Numbers from -1 to 1 without a pattern, made in place: peak memory is measured, too."""
    mixed = sum(
        lax.broadcasted_iota(jnp.float32, shape, i) * w for i, w in enumerate((12.9898, 78.233, 37.719)[: len(shape)])
    )
    return 2 * ((jnp.sin(mixed) * 43758.5453) % 1) - 1


def setup(channels=512, classes=1000):
    """Kernels of the variance 2/n that keeps activations in scale, and activations as after a ReLU."""
    widths = [49 * channels, 4096, 4096, classes]
    scaled = jax.jit(lambda shape: noise(shape) * (6 / shape[0]) ** 0.5, static_argnums=0)
    return [scaled(shape) for shape in pairwise(widths)], jax.nn.relu(noise((14, 14, channels)))


def exact(name):
    return lambda parameters, a: elementwise_derivatives(lambda a: score(name, head(parameters, a)), a)


def products(parameters, rows):
    """What the Jacobian of the logits cannot do without: 1000x4096x4096 and 1000x4096x25088."""
    first, second, _ = parameters
    return (rows @ second.T) @ first.T


def forward_and_backward(parameters, a):
    return jax.value_and_grad(lambda a: head(parameters, a)[CLASS])(a)


def brute_force(sample):
    """The general path along `sample` of the elements, which a caller extrapolates to all."""

    def derivatives(parameters, a):
        flat, places = a.reshape(-1), jnp.arange(sample) * (a.size // sample)
        f = lambda part: score("softmax", head(parameters, flat.at[places].set(part).reshape(a.shape)))
        return elementwise_derivatives(f, flat[places], method="jvp", chunk_size=sample)

    return derivatives


def medians(functions, parameters, a, runs):
    """Median seconds of each function of (parameters, a), run in turns."""
    compiled = {name: jax.jit(function).lower(parameters, a).compile() for name, function in functions.items()}
    times = {name: [] for name in functions}
    for run in range(runs + 1):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(parameters, a))
            times[name] += [time.perf_counter() - start] if run else []  # the first one warms up
    return {name: statistics.median(found) for name, found in times.items()}


def against_the_products(runs):
    parameters, a = setup()
    rows = jnp.ones((1000, 4096), jnp.float32)
    functions = {name: exact(name) for name in ("softmax", "log_softmax")}
    found = medians({"products": lambda p, a: products(p, rows + a[0, 0, 0])} | functions, parameters, a, runs)
    print(f"\nJacobian's matrix products alone      {found['products']:8.2f} s")
    for name in ("softmax", "log_softmax"):
        print(f"exact d1-d3, {name:<24} {found[name]:8.2f} s   {found[name] / found['products']:.2f} x the products")


def against_one_pass(runs):
    parameters, a = setup()
    found = medians({"pass": forward_and_backward, "exp": exact("exp")}, parameters, a, 5 * runs)
    print(f"\none forward and one backward pass     {1e3 * found['pass']:8.1f} ms")
    print(
        f"exact d1-d3, exp                      {1e3 * found['exp']:8.1f} ms  {found['exp'] / found['pass']:.2f} x that"
    )


def against_brute_force(runs, sample=64):
    parameters, a = setup()
    (seconds,) = medians({"brute": brute_force(sample)}, parameters, a, 3).values()
    print(
        f"\nbrute force, {sample} of {a.size} elements     {seconds:8.2f} s   {seconds * a.size / sample:.0f} s for all"
    )


def against_taylor(runs):
    """Three orders of a smooth head along all of its 512 elements at a time: nested jvp, as it is used, and jet."""
    parameters = [jax.random.normal(jax.random.key(n), (512, 2048, 2048, 100)[n : n + 2]) * 0.03 for n in range(3)]

    def f(parameters, a):
        first, second, last = parameters
        return jnp.exp((jnp.tanh(jnp.tanh(a @ first) @ second) @ last)[CLASS])

    def taylor(parameters, a):
        direction = lambda e: [e, jnp.zeros_like(e), jnp.zeros_like(e)]
        return jax.vmap(lambda e: jet(lambda a: f(parameters, a), (a,), (direction(e),))[1])(jnp.eye(a.size))

    nested = lambda parameters, a: elementwise_derivatives(lambda a: f(parameters, a), a, method="jvp", chunk_size=512)
    found = medians({"nested jvp": nested, "jet": taylor}, parameters, noise((512,)), 3 * runs)
    print(
        f"\nsmooth head, 512 elements: nested jvp {1e3 * found['nested jvp']:.0f} ms, jet {1e3 * found['jet']:.0f} ms"
    )


def growth(runs):
    print("\nexact d1-d3 by elements and classes, s")
    print(f"{'elements':>10} {'classes':>8} {'exp':>8} {'softmax':>8}")
    for channels, classes in [(128, 1000), (256, 1000), (512, 1000), (512, 100), (512, 10), (512, 2)]:
        parameters, a = setup(channels, classes)
        found = medians({"exp": exact("exp"), "softmax": exact("softmax")}, parameters, a, max(1, runs // 2))
        print(f"{a.size:>10} {classes:>8} {found['exp']:>8.3f} {found['softmax']:>8.3f}")


def peaks(runs):
    print("\npeak memory of a process")
    for name in ("weights", "softmax", "log_softmax", "exp"):
        out = subprocess.run([sys.executable, __file__, "--peak", name], check=True, capture_output=True, text=True)
        print(f"{name:<37} {float(out.stdout):8.2f} GiB")


def peak(name):
    arguments = setup()
    if name != "weights":
        jax.block_until_ready(jax.jit(exact(name))(*arguments))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


PARTS = {"products": against_the_products, "pass": against_one_pass, "brute": against_brute_force}
PARTS |= {"taylor": against_taylor, "growth": growth, "peaks": peaks}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.peak)
        return
    device = jax.devices()[0]
    print(f"{device.device_kind}, jax {jax.__version__}, float32, {options.runs} interleaved runs, medians")
    for name, part in PARTS.items():
        if name not in options.skip:
            part(options.runs)


if __name__ == "__main__":
    main()

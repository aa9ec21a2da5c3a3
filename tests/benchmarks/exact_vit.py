"""Exact derivatives of vision transformers: time beside the forward pass, memory, and agreement with nested `jax.jvp`.

    python tests/benchmarks/exact_vit.py [vit_tiny_patch16_224 vit_small_patch16_224 ...]

d1, d2, d3 of one logit by every element of the default layer (the input of the last block), 224 x 224 pixels, float32,
random weights; the sample is of 24 elements, in float64 where `--check` is given. "two_blocks" is a small one: 64 x 64
pixels, 17 tokens of 192 channels.
"""

import argparse
import resource
import time

import jax
import numpy as np
from flax import nnx

import jaxcam
from jaxcam.cuts.cut import cut
from jaxcam.derivatives import elementwise_derivatives

CLASS = 3


def two_blocks(*, seed, dtype):
    """17 tokens of 192 channels, two blocks."""
    made = jaxcam.models.VisionTransformer(192, 3, depth=2, patch=16, image=64, num_classes=1000, rngs=nnx.Rngs(seed))
    made.eval()
    return jax.tree.map(lambda leaf: leaf.astype(dtype), made)


NETWORKS = {"two_blocks": (two_blocks, 64)}
"""Those that are no network of the package, and their pixels."""


def seconds(function, *args):
    """The best of three, after a first call."""
    jax.block_until_ready(function(*args))
    found = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        found.append(time.perf_counter() - start)
    return min(found)


def flops(compiled):
    """Operations of a compiled program, as XLA counts them."""
    return compiled.cost_analysis()["flops"]


def nested(f, a, elements):
    """d1, d2, d3 by these elements, by nesting `jax.jvp` through the whole of f."""

    def of(element):
        unit = (jax.numpy.arange(a.size) == element).astype(a.dtype).reshape(a.shape)
        slope = lambda g: lambda t: jax.jvp(g, (t,), (jax.numpy.ones_like(t),))[1]
        g = lambda t: f(a + t * unit)
        first, second = slope(g), slope(slope(g))
        zero = jax.numpy.zeros((), a.dtype)
        return first(zero), second(zero), slope(second)(zero)

    return jax.lax.map(of, elements)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["vit_tiny_patch16_224", "vit_small_patch16_224"])
    parser.add_argument("--check", action="store_true", help="compare a sample with nested derivatives in float64")
    given = parser.parse_args()
    if given.check:
        jax.config.update("jax_enable_x64", True)
    dtype = np.float64 if given.check else np.float32
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {np.dtype(dtype).name}")
    for name in given.networks:
        create, size = NETWORKS.get(name) or (jaxcam.models.MODELS[name], 224)
        model = create(seed=0, dtype=dtype)
        image = np.random.default_rng(0).normal(size=(size, size, 3)).astype(dtype)
        at = cut(model, image)
        activations, beside = jax.jit(at.features)(image)

        def logit(a, at=at, beside=beside):
            return at.head(beside)(a)[CLASS]

        whole = jax.jit(model).lower(image[None]).compile()
        forward = seconds(whole, image[None])
        start = time.perf_counter()
        exact = jax.jit(lambda a, f=logit: elementwise_derivatives(f, a)).lower(activations).compile()
        compiled = time.perf_counter() - start
        took = seconds(exact, activations)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(
            f"{name}: {activations.size:,} elements; forward {1e3 * forward:.1f} ms, exact {took:.2f} s, "
            f"{took / forward:.0f} times, operations {flops(exact) / flops(whole):.0f} times; "
            f"compiled in {compiled:.0f} s; {peak:,.0f} MiB at most"
        )
        if given.check:
            elements = np.sort(np.random.default_rng(1).choice(activations.size, 24, replace=False))
            expected = jax.jit(lambda a, e, f=logit: nested(f, a, e))(activations, elements)
            worst = [
                float(np.abs(np.ravel(found)[elements] - other).max() / np.abs(other).max())
                for found, other in zip(exact(activations), expected, strict=True)
            ]
            print(f"  against nested derivatives, 24 elements, relative to the largest: {worst}")


if __name__ == "__main__":
    main()

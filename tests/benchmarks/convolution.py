"""Ways to write a convolution that `jaxcam.models` chooses from, against `lax.conv_general_dilated`; batch 8, float32.

python tests/benchmarks/convolution.py [--runs 15]
"""

import argparse
import statistics
import time

import jax
import numpy as np

from jaxcam.models.convolution import convolution

# positions, input channels, outputs, kernel, strides, groups: layers of ResNet-50 and EfficientNet-B0
LAYERS = [
    (56, 256, 64, 1, 1, 1),
    (56, 64, 256, 1, 1, 1),
    (28, 512, 128, 1, 1, 1),
    (14, 1024, 256, 1, 1, 1),
    (7, 512, 2048, 1, 1, 1),
    (112, 32, 32, 3, 1, 32),
    (112, 96, 96, 3, 2, 96),
    (56, 144, 144, 5, 2, 144),
    (28, 240, 240, 5, 1, 240),
    (14, 672, 672, 5, 1, 672),
    (7, 1152, 1152, 3, 1, 1152),
]


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments).block_until_ready()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch 8, {runs} interleaved runs")
    rng = np.random.default_rng(0)
    for side, inputs, outputs, size, strides, groups in LAYERS:
        x = jax.device_put(rng.normal(size=(8, side, side, inputs)).astype(np.float32))
        w = jax.device_put(rng.normal(size=(size, size, inputs // groups, outputs)).astype(np.float32))
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
        pads = [(size // 2, size // 2)] * 2

        def way(convolve, strides=strides, pads=pads, options=options):
            return jax.jit(lambda image, kernel: convolve(image, kernel, (strides, strides), pads, **options))

        plain, ours = way(jax.lax.conv_general_dilated), way(convolution)
        seconds(plain, x, w), seconds(ours, x, w)
        pairs = [(seconds(plain, x, w), seconds(ours, x, w)) for _ in range(runs)]
        ratio = statistics.median(a / b for a, b in pairs)
        kind = "depthwise" if groups > 1 else "dense"
        print(
            f"{size}x{size} {kind:<9} {side:>3} x {side:<3} {inputs:>4} -> {outputs:<4} strides {strides}: "
            f"{1e3 * statistics.median(a for a, _ in pairs):6.1f} ms, ours {ratio:5.1f} times as fast"
        )


if __name__ == "__main__":
    main()

"""Ways to write a convolution that `jaxcam.models` chooses from, against `lax.conv_general_dilated`; batch 8, float32.

python tests/benchmarks/convolution.py [--runs 15]
"""

import argparse
import statistics
import time

import jax
import numpy as np

from jaxcam.programs.convolution import convolution, convolution_3d, convolution_of_patches

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
# positions, input channels, outputs, kernel, strides: layers of mini_net3d and mini_c3d
VOLUMES = [
    ((24, 24, 24), 1, 12, (5, 5, 5), (2, 2, 2)),
    ((12, 12, 12), 12, 16, (3, 3, 3), (1, 1, 1)),
    ((12, 12, 12), 16, 32, (3, 3, 3), (2, 2, 2)),
    ((12, 16, 16), 16, 24, (3, 3, 3), (2, 1, 1)),
]
# positions, input channels, outputs, kernel, rounds of the loop: the ConvLSTM of mini_convlstm
LOOPS = [(8, 32, 128, 3, 8)]


def seconds(function, *arguments):
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def compared(plain, ours, arguments, runs):
    """Milliseconds of the first, and how many times as fast the second is: medians of runs in turns."""
    seconds(plain, *arguments), seconds(ours, *arguments)
    pairs = [(seconds(plain, *arguments), seconds(ours, *arguments)) for _ in range(runs)]
    return 1e3 * statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)


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
        ms, ratio = compared(plain, ours, (x, w), runs)
        kind = "depthwise" if groups > 1 else "dense"
        print(
            f"{size}x{size} {kind:<9} {side:>3} x {side:<3} {inputs:>4} -> {outputs:<4} strides {strides}: "
            f"{ms:6.1f} ms, ours {ratio:5.1f} times as fast"
        )
    for size, inputs, outputs, kernel, strides in VOLUMES:
        shapes = (8, *size, inputs), (*kernel, inputs, outputs)
        arrays = [jax.device_put(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
        told = f"{'x'.join(map(str, kernel))} {'x'.join(map(str, size))} {inputs:>2} -> {outputs:<2} strides {strides}"

        def volume(convolve, strides=strides):
            return lambda a, b: convolve(a, b, strides, "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))

        functions = [volume(jax.lax.conv_general_dilated), volume(convolution_3d)]
        slopes = [jax.grad(lambda x, w, f=f: (f(x, w) ** 2).sum(), (0, 1)) for f in functions]
        for what, ways in (("forward", functions), ("gradients", slopes)):
            ms, ratio = compared(*map(jax.jit, ways), arrays, runs)
            print(f"{told}, {what:<9}: {ms:8.1f} ms, ours {ratio:6.1f} times as fast", flush=True)
    for side, inputs, outputs, size, rounds in LOOPS:
        shapes = (8, side, side, inputs), (size, size, inputs, outputs)
        arrays = [jax.device_put(rng.normal(size=shape).astype(np.float32) / 10) for shape in shapes]

        def loop(convolve, inputs=inputs, rounds=rounds):
            def step(state, kernel):
                made = convolve(state, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
                return jax.numpy.tanh(made[..., :inputs])

            return lambda x, w: jax.lax.scan(lambda state, _: (step(state, w), None), x, None, length=rounds)[0]

        functions = [loop(jax.lax.conv_general_dilated), loop(convolution_of_patches)]
        slopes = [jax.grad(lambda x, w, f=f: (f(x, w) ** 2).sum(), (0, 1)) for f in functions]
        for what, ways in (("forward", functions), ("gradients", slopes)):
            ms, ratio = compared(*map(jax.jit, ways), arrays, runs)
            told = f"{size}x{size} {side} x {side} {inputs} -> {outputs}, {rounds} rounds of a scan"
            print(f"{told}, {what:<9}: {ms:8.1f} ms, ours {ratio:6.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()

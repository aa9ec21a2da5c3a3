"""How fast `evaluate` is against the forward passes that it has to do, how work divides, and how memory grows.

    python tests/benchmarks/evaluation.py speed --model resnet50 --num 96
    python tests/benchmarks/evaluation.py devices
    python tests/benchmarks/evaluation.py memory

speed: JPEG files are decoded by threads, three methods are evaluated. That takes 1 + 3 forward passes for a
picture: of itself, and of three explanation maps. They are timed alone in the same process, in turns, in the batches
that `evaluate` runs. `share` is the time of the forward passes / the time of `evaluate`; both without compiling.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import jaxcam

METHODS = ["grad_cam", "grad_cam_pp", "grad_cam_positive"]


def photographs(folder: Path, num: int) -> None:
    """JPEG files of 500 x 375 pixels, as large as those of ImageNet usually are."""
    for i, example in enumerate(jaxcam.scenes.Dataset(num, size=384)):
        noise = np.random.default_rng(i).normal(0, 8, (375, 500, 3))
        pixels = np.asarray(Image.fromarray(np.uint8(255 * np.asarray(example.image))).resize((500, 375)))
        Image.fromarray(np.uint8(np.clip(pixels + noise, 0, 255))).save(folder / f"{i:05d}.jpg", quality=90)


def speed(options: argparse.Namespace) -> None:
    """The table's line for one network."""
    model = jaxcam.models.MODELS[options.model]()
    forward = jax.jit(lambda model, images: model(images).sum())
    c, num = options.batch_size, options.num
    size = model.preprocessing.crop
    images = np.random.default_rng(0).random((3 * c, size, size, 3), np.float32)

    def passes(num: int) -> float:
        start = time.perf_counter()
        for _ in range(num // c):
            forward(model, images[:c])
            forward(model, images).block_until_ready()
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), num)
        paths = sorted(Path(folder).iterdir())

        def evaluated(paths: list[Path], workers: int | None) -> float:
            start = time.perf_counter()
            jaxcam.evaluate(
                model, paths, methods=METHODS, batch_size=c, num_workers=workers, num_resamples=0, show_progress=False
            )
            return time.perf_counter() - start

        passes(c)
        evaluated(paths[:c], 0)
        runs = [(passes(num), evaluated(paths, options.workers), evaluated(paths[: num // 2], options.workers))
                for _ in range(options.runs)]  # fmt: skip
    bare, whole, half = (float(np.median(each)) for each in zip(*runs, strict=True))
    steady = float(np.median([b / 2 / (w - h) for b, w, h in runs]))
    print(
        f"| {options.model} | {num / whole:.1f} | {4 * num / bare:.1f} | {bare / whole:.2f} | {steady:.2f} |"
        f"  ({whole:.1f} s; half of them {half:.1f} s)"
    )


def devices(_: argparse.Namespace) -> None:
    """Work per device for 1, 2, 4, 8 virtual devices, counted in the compiled program."""
    code = """
import jax, jax.numpy as jnp, numpy as np, jaxcam
from jaxcam.evaluation import hosts
from jaxcam.evaluation.plan import Plan
from jaxcam.evaluation.block import explained_blocks
from jaxcam.evaluation.requests import requests_of
from jaxcam.cuts.model import adapted
model = jaxcam.models.mini_resnet()
plan = Plan(tuple(requests_of(["grad_cam", "grad_cam_pp", "grad_cam_positive"], None).values()), jaxcam.Protocol(),
            model.preprocessing, ("confidence", "shape"), -1)
mesh = hosts.mesh_of(None)
n = jax.device_count()
inputs = [hosts.sharded(mesh, x) for x in (np.zeros((8 * n, 64, 64, 3), np.float32), np.zeros(8 * n, np.int32))]
lowered = jax.jit(explained_blocks, static_argnums=(0, 1)).lower(mesh, plan, adapted(model), *inputs, np.uint32(0))
program = lowered.compile()
text = program.as_text()
moved = sum(text.count(f" {name}(") for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
steps = -(-1000 // (8 * n))
flops = program.cost_analysis()["flops"]
print(f"| {n} | {8 * n} | {steps} | {flops / 1e9:.3f} | {steps * flops / 1e9:.1f} | {moved} |")
"""
    print("| devices | pictures a step | steps for 1,000 | GFLOP a device and step | GFLOP a device | exchanges |")
    for number in (1, 2, 4, 8):
        flag = f"--xla_force_host_platform_device_count={number}"
        environment = {**os.environ, "XLA_FLAGS": flag}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def memory(options: argparse.Namespace) -> None:
    """Resident memory every 500 of 5,000 scenes."""

    class Watched:
        def __init__(self, data: jaxcam.scenes.Dataset) -> None:
            self.data, self.description = data, data.description

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, i: int) -> jaxcam.Example:
            if i and i % 500 == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(f"| {i} | {pages * 4 / 1024:.0f} |", flush=True)
            return self.data[i]

    print("| pictures | MiB |")
    data = Watched(jaxcam.scenes.Dataset(options.num))
    jaxcam.evaluate(jaxcam.models.mini_resnet(), data, methods=METHODS, show_progress=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "devices", "memory"))
    parser.add_argument("--model", default="resnet50", choices=jaxcam.models.MODELS)
    parser.add_argument("--num", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    given.num = given.num or (5000 if given.what == "memory" else 96)
    {"speed": speed, "devices": devices, "memory": memory}[given.what](given)

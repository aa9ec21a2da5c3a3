"""What an accelerator makes of jaxcam, in at most five minutes on one GPU; a Markdown table with the device's name.

    python tests/benchmarks/accelerator.py [--small] [--skip tests networks ...] [--json figures.json]

tests        a part of the tests, on the device (float64)
networks     `explain` (Grad-CAM++ of the predicted class) against the forward pass of ResNet-50 and VGG-16, batch 64,
             in float32 and bfloat16, and against the grad-cam package on torch's GPU, if these are installed
derivatives  exact d1 to d3 of VGG-16's softmax at `features.29` against the matrix products of its Jacobian
classes      all classes' maps from one forward pass, against that forward pass
evaluate     pictures a second: JPEG files, three methods

What is compared runs in turns in one process, and ratios are of medians. Weights are random: no figure here depends on
them. `--small` takes networks, batches and pictures that two CPU cores get through in a minute. A part that fails has
its error in the table, and the others run all the same; the exit code is then 1.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# Memory is taken as it is needed: the tests are another process on the same device, and torch wants some as well.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import jax
import numpy as np
from evaluation import METHODS, photographs
from networks import LAYERS, interleaved

import jaxcam
from jaxcam import models, scores

METHOD = "grad_cam_pp"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    tests: tuple[str, ...] = (
        "test_alphas.py",
        "test_maps.py",
        "test_scores.py",
        "derivatives/test_derivatives.py",
        "methods/test_methods.py",
    )
    workers: int = 4
    networks: tuple[str, ...] = ("resnet50", "vgg16")
    batch: int = 64
    runs: int = 10
    head: str = "vgg16"
    side: int = 224
    num_classes: int = 1000
    all_classes: str = "resnet50"
    all_batch: int = 8
    pictures: int = 512


SMALL = Sizes(
    tests=("test_maps.py", "test_scores.py"),
    workers=0,
    networks=("mini_resnet", "mini_vgg"),
    batch=4,
    runs=3,
    head="vgg11",
    side=32,
    num_classes=10,
    all_classes="mini_resnet",
    all_batch=4,
    pictures=16,
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    part: str
    what: str
    milliseconds: float | None = None
    a_second: float | None = None
    ratio: float | None = None
    """How many times what `to` says."""
    to: str = ""
    note: str = ""
    failed: bool = False


def medians(functions, runs):
    """Seconds of each, taken in turns."""
    return {name: statistics.median(times) for name, times in interleaved(functions, runs).items()}


def random_images(batch, side, dtype=np.float32):
    return jax.device_put(np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(dtype))


forward = jax.jit(lambda model, images: model(images))


def run_tests(sizes):
    """In a process of its own: tests want 64-bit types, and this one has the device already."""
    platform = jax.default_backend().replace("gpu", "cuda")
    environment = os.environ | {"JAX_PLATFORMS": platform, "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
    command = [sys.executable, "-m", "pytest", "-q", f"-n{sizes.workers}", "-p", "no:cacheprovider", "--tb=line"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *(str(TESTS / file) for file in sizes.tests)],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    seconds = time.perf_counter() - start
    (*_, last) = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
    counts = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?|skipped)", last)) or last
    files = ", ".join(sizes.tests)
    yield Row("tests", f"tests on {platform}: {files}", 1e3 * seconds, note=counts, failed=done.returncode != 0)


def explain_and_forward(sizes):
    for name in sizes.networks:
        for dtype in ("float32", "bfloat16"):
            yield from attempted("networks", f"{name}, {dtype}", lambda n=name, d=dtype: one_network(n, d, sizes))


def one_network(name, dtype, sizes):
    model = models.MODELS[name](None, dtype=dtype)
    images = random_images(sizes.batch, model.preprocessing.crop, dtype)
    functions = {
        "forward": lambda: forward(model, images),
        "explain": lambda: jaxcam.explain(model, images, method=METHOD),
    }
    # The package turns its maps into NumPy, which has no bfloat16.
    package, note = the_package(name, sizes.batch) if dtype == "float32" else (None, "")
    if package:
        functions["grad-cam package"] = package
    found = medians(functions, sizes.runs)
    for key, seconds in found.items():
        to = {"explain": "forward", "grad-cam package": "explain"}.get(key, "")
        yield Row(
            "networks",
            f"{key}, {name}, batch {sizes.batch}, {dtype}",
            1e3 * seconds,
            sizes.batch / seconds,
            seconds / found[to] if to else None,
            to,
        )
    if note:
        yield Row("networks", f"grad-cam package, {name}", note=note)


def the_package(name, batch):
    """A call of the grad-cam package on torch's GPU; or None, and why not."""
    try:
        import torch
        from support import imported_torchvision

        torchvision = imported_torchvision()  # the package imports it too, and cannot before operators are declared
        from pytorch_grad_cam import GradCAMPlusPlus
    except ImportError as error:
        return None, f"not compared: {error}"
    if not torch.cuda.is_available():
        return None, "not compared: torch has no CUDA"
    if name not in LAYERS:
        return None, "not compared: the package has no such network"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as XLA does by default
    theirs = getattr(torchvision.models, name)(weights=None).eval().cuda()
    package = GradCAMPlusPlus(model=theirs, target_layers=[LAYERS[name](theirs)])
    x = torch.randn(batch, 3, 224, 224, device="cuda")
    return lambda: package(input_tensor=x, targets=None), ""


def exact_derivatives(sizes):
    model = models.MODELS[sizes.head](None, num_classes=sizes.num_classes)
    activations = jax.block_until_ready(model.features(random_images(1, sizes.side))[0])
    score = lambda model, a: scores.softmax(model.head(a[None])[0], 3)
    exact = jax.jit(lambda model, a: jaxcam.elementwise_derivatives(lambda a: score(model, a), a))

    @jax.jit
    def products(model):
        """What the Jacobian of the logits cannot do without."""
        first, second, last = (model.stages[f"classifier.{i}"].kernel[...] for i in (0, 3, 6))
        return (last.T @ second.T) @ first.T

    functions = {"matrix products": lambda: products(model), "exact d1-d3": lambda: exact(model, activations)}
    found = medians(functions, sizes.runs)
    what = f"{sizes.head} at {model.default_layer}, {activations.size:,} elements, {sizes.num_classes} classes"
    base = found["matrix products"]
    yield Row("derivatives", f"matrix products of the Jacobian, {what}", 1e3 * base)
    exact_seconds = found["exact d1-d3"]
    yield Row(
        "derivatives", f"exact d1-d3 of softmax, {what}", 1e3 * exact_seconds, None, exact_seconds / base, "products"
    )


def every_class(sizes):
    model = models.MODELS[sizes.all_classes](None)
    images = random_images(sizes.all_batch, model.preprocessing.crop)
    functions = {
        "forward": lambda: forward(model, images),
        "all": lambda: jaxcam.explain(model, images, class_idx="all", method="grad_cam"),
    }
    found = medians(functions, sizes.runs)
    what = f"{sizes.all_classes}, batch {sizes.all_batch}"
    yield Row("classes", f"forward, {what}", 1e3 * found["forward"], sizes.all_batch / found["forward"])
    yield Row(
        "classes",
        f"maps of all {len(model.class_names):,} classes, {what}",
        1e3 * found["all"],
        sizes.all_batch / found["all"],
        found["all"] / found["forward"],
        "forward",
    )


def evaluate(sizes):
    model = models.MODELS[sizes.networks[0]](None)
    options = {"methods": METHODS, "batch_size": sizes.batch, "num_resamples": 0, "show_progress": False}
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), sizes.pictures)
        paths = sorted(Path(folder).iterdir())
        jaxcam.evaluate(model, paths[: sizes.batch], **options)  # compiles
        start = time.perf_counter()
        jaxcam.evaluate(model, paths, **options)
        seconds = time.perf_counter() - start
    what = f"{sizes.networks[0]}, {len(METHODS)} methods, {sizes.pictures} JPEG files of 500 x 375"
    yield Row("evaluate", f"evaluate, {what}", 1e3 * seconds, sizes.pictures / seconds)


PARTS = {
    "tests": run_tests,
    "networks": explain_and_forward,
    "derivatives": exact_derivatives,
    "classes": every_class,
    "evaluate": evaluate,
}


def attempted(part, what, rows):
    """The rows of a part; what stopped it is the last one."""
    try:
        yield from rows()
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        yield Row(part, what, note=f"{type(error).__name__}: {first[:200]}", failed=True)


def line(row):
    cells = [
        row.what,
        "" if row.milliseconds is None else f"{row.milliseconds:,.1f}",
        "" if row.a_second is None else f"{row.a_second:,.1f}",
        "" if row.ratio is None else f"{row.ratio:.2f} x {row.to}",
        f"**failed** {row.note}" if row.failed else row.note,
    ]
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS, help="parts to leave out")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file as well")
    options = parser.parse_args()
    sizes = SMALL if options.small else Sizes()
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}, medians of {sizes.runs} runs in turns\n")
    print("| | ms | a second | ratio | |\n|---|---|---|---|---|", flush=True)
    rows, seconds = [], {}
    for part, function in PARTS.items():
        if part in options.skip:
            continue
        start = time.perf_counter()
        for row in attempted(part, part, lambda function=function: function(sizes)):
            rows.append(row)
            print(line(row), flush=True)
        seconds[part] = time.perf_counter() - start
    print("\nseconds: " + ", ".join(f"{part} {s:.0f}" for part, s in seconds.items()))
    if options.json:
        found = {"device": device.device_kind, "platform": device.platform, "small": options.small}
        found |= {"seconds": seconds, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""The table of other people's models: python tests/benchmarks/other_models.py [MODEL ...], with what is installed."""

import importlib.util
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from others import CASES, map_by_hand

import jaxcam

RUNS = 200


def ratio(first, second, *operands):
    """How many times as long the first takes: run in turns, the quickest of each, since other work comes between."""
    quickest = [np.inf, np.inf]
    for turn in range(RUNS + 1):
        for i, run in enumerate((first, second)):
            start = time.perf_counter()
            jax.block_until_ready(run(*operands))
            if turn:  # the first compiles
                quickest[i] = min(quickest[i], time.perf_counter() - start)
    return quickest[0] / quickest[1]


def forward(again, arrays, x):
    return again(arrays)(x)


def explained(again, arrays, x):
    return jaxcam.explain(again(arrays), x, class_idx=1).heatmap


def version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "a checkout"


print("| model | package | default layer | its grid | lines | map, against one cut by hand | explain / forward |")
print("|---|---|---|---|---|---|---|")


def line(name, case):
    net, x, by_hand = case.make()
    default = next(row for row in jaxcam.layers(net, x) if row.default)  # several names may mean one value
    largest = 0.0
    for class_idx in range(3):
        expected, _ = map_by_hand(by_hand, case.place, class_idx)
        found = np.asarray(jaxcam.explain(net, x, class_idx=class_idx).cam_map[0])
        largest = max(largest, float(np.abs(found - expected).max() / max(expected.max(), 1e-12)))
    arrays, structure = jax.tree.flatten(jaxcam.adapt(net).hoist(x))
    again = partial(jax.tree.unflatten, structure)
    times = ratio(jax.jit(partial(explained, again)), jax.jit(partial(forward, again)), arrays, x)
    shown = "a value without a name" if default.layer is None else f"`{default.layer}`"
    return (
        f"| {name} | {case.package} {version(case.package)} | {shown} | {default.grid} | {case.lines} | "
        f"{largest:.0e} | {times:.1f} |"
    )


for name in sys.argv[1:] or CASES:
    case = CASES[name]
    if importlib.util.find_spec(case.module) is None:
        print(f"| {name} | {case.package} is not installed |")
        continue
    with case.around():
        print(line(name, case), flush=True)

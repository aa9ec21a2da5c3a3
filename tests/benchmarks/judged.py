"""The metrics themselves judged: which of them put the truth first and a shuffled one last, on generated scenes.

    python tests/benchmarks/judged.py ROWS.csv [--num 500] [--networks mini_resnet,mini_vgg] [--data ../shared/data]

Every metric is given the same maps: the truth's mask; that mask blurred (a Gaussian of 4 pixels); shifted by a third of
the picture to the right and downwards, around the edges; its pixels shuffled; ones everywhere; zero everywhere; and
those of Grad-CAM and Grad-CAM++ for the true class. The score behind the metrics is the true class's probability, masks
show black, and all is of the pixels in [0, 1]. Rows go to the file as they come, and a run goes on from it; the tables
are made from the file, shares with Wilson's 95 % intervals.

A metric puts a map first where it is better than with each other map, and last where it is worse: equals are neither.
The empty map counts for no metric, and the rest is ranked without it.

Below stand MaxBoxAccV2 and PxAP, of all scenes together, and what becomes of the methods' maps with shuffled weights.
With --data the centre's MaxBoxAcc on the photographs there, in the paper's first version and the second.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import jaxcam
from jaxcam import metrics, scenes
from jaxcam.metrics.faithful import infidelity_of
from jaxcam.models import MODELS, Network

MAPS = ("truth", "blurred", "shifted", "shuffled", "ones", "empty", "Grad-CAM", "Grad-CAM++")
GIVEN = ("truth", "blurred", "shifted", "shuffled", "ones")
"""What is ranked: the truth and what was made of it."""
SIGN = {
    "average drop": -1, "drop in deletion": 1, "insertion": 1, "deletion": -1, "ROAD": 1, "infidelity": -1,
    "complexity": -1, "Loc(0.5)": 1, "pointing game": 1, "energy in box": 1, "mask IoU": 1, "box IoU": 1,
}  # fmt: skip
"""1 where higher is better."""
POOLED = ("MaxBoxAccV2", "PxAP")


def maps_of(model: Network, example: Any, number: int) -> np.ndarray:
    """`[maps, H, W]`."""
    own = np.asarray(example.box_classes) == example.label
    truth = np.asarray(example.masks)[own].any(0).astype(np.float32)
    blurred = np.asarray(metrics.blurred(truth[..., None], 4.0))[..., 0]
    shifted = np.roll(truth, (truth.shape[0] // 3, truth.shape[1] // 3), (0, 1))
    shuffled = np.random.default_rng(number).permutation(truth.reshape(-1)).reshape(truth.shape)
    shown = model.preprocessing.normalise(jnp.asarray(example.image)[None])
    explain = partial(jaxcam.explain, model, shown, class_idx=int(example.label))
    found = [np.asarray(explain(method=method).heatmap[0]) for method in ("grad_cam", "grad_cam_pp")]
    return np.stack([truth, blurred / blurred.max(), shifted, shuffled, np.ones_like(truth), 0 * truth, *found])


@jax.jit
def judged(model: Network, image: Any, heatmaps: Any, truth: Any, box: Any, boxes: Any, class_idx: Any) -> Any:
    """By metric its value for each map."""

    def f(picture: Any) -> Any:
        return jax.nn.softmax(model(model.preprocessing.normalise(picture[None]))[0])[class_idx]

    black, size = jnp.zeros_like(image), image.shape[:2]
    y = f(image)
    gone = jnp.asarray(metrics.squares(size, 32))
    happened = y - jax.vmap(f)(jnp.where(gone[..., None], 0, image[None]))  # for all maps the same

    def one(heatmap: Any) -> Any:
        def curve(which: Any) -> Any:
            return metrics.area_under_curve(which(f, image, heatmap, baseline=black, num_steps=16, batch_size=17))

        def drop(mask: Any) -> Any:
            return metrics.relative_drop(y[None], f(metrics.blended(image, mask, black))[None])[0]

        road = partial(metrics.road, percentiles=(20, 40, 60, 80), key=jax.random.key(0), batch_size=8)
        said = jnp.where(gone, heatmap[None], 0).sum((1, 2))
        return {
            "average drop": drop(heatmap),
            "drop in deletion": drop(1 - heatmap),
            "insertion": curve(metrics.insertion_curve),
            "deletion": curve(metrics.deletion_curve),
            "ROAD": road(f, image, heatmap),
            "infidelity": infidelity_of(said, happened, is_relative=True),
            "complexity": metrics.complexity(heatmap),
            "Loc(0.5)": metrics.localisation(heatmap, box, delta=0.5),
            "pointing game": metrics.pointing_game(heatmap, box, tolerance=15 / 224 * 64),
            "energy in box": metrics.energy_pointing_game(heatmap, box),
            "mask IoU": metrics.iou(heatmap, truth),
            "box IoU": jnp.nanmax(metrics.box_iou(metrics.heatmap_box(heatmap), boxes)),
        }

    found = jax.lax.map(one, heatmaps)
    is_map = heatmaps.any((1, 2))
    return {name: jnp.where(is_map, values, jnp.nan) for name, values in found.items()}


def rows(name: str, num: int, done: int) -> Iterator[list[Any]]:
    """Network, scene, metric and the value for each map, scene by scene."""
    model = MODELS[name]()
    for number, example in enumerate(scenes.Dataset(num, seed=17)):
        if number < done:
            continue
        heatmaps = maps_of(model, example, number)
        own = np.asarray(example.box_classes) == example.label
        boxes = np.zeros((scenes.MAX_INSTANCES, 4), np.float32)  # one shape for all; those without area count for none
        boxes[: own.sum()] = np.asarray(example.boxes)[own]
        box = metrics.box_mask(boxes, heatmaps.shape[1:])
        image, class_idx = jnp.asarray(example.image), jnp.int32(example.label)
        values = judged(model, image, heatmaps, heatmaps[0] > 0, box, jnp.asarray(boxes), class_idx)
        yield from ([name, number, metric, *(f"{x:.6g}" for x in np.asarray(values[metric]))] for metric in SIGN)


def pooled(name: str, num: int) -> dict[str, list[float]]:
    """The metrics of the whole data set, for each map and for the centre."""
    model, found, boxes = MODELS[name](), [], []
    for number, example in enumerate(scenes.Dataset(num, seed=17)):
        own = np.asarray(example.box_classes) == example.label
        found.append(maps_of(model, example, number))
        boxes.append(np.asarray(example.boxes)[own])
    heatmaps = np.stack(found, 1)
    truth = heatmaps[0] > 0
    centre = np.broadcast_to(np.asarray(metrics.centre_map(truth.shape[1:]), np.float32), truth.shape)
    each = [*heatmaps, centre]
    return {
        "MaxBoxAccV2": [float(metrics.max_box_acc(maps, boxes).mean()) for maps in each],
        "PxAP": [metrics.pxap(maps, truth) for maps in each],
    }


def randomised(name: str, num: int) -> str:
    """What stays of the maps with the weights behind the layer shuffled, before it, and all of them."""
    methods: dict[str, Any] = {
        "Grad-CAM": "grad_cam",
        "grad_cam_positive": "grad_cam_positive",
        "Grad-CAM++": "grad_cam_pp",
    }
    methods["sum of activations"] = sum_of_activations
    found = jaxcam.evaluate(
        MODELS[name](), scenes.Dataset(num, seed=17), methods=methods, metrics=["sanity", "randomised"],
        protocol=jaxcam.Protocol(class_idx="true"),
    )  # fmt: skip
    lines = [f"| {name} | behind shuffled | before shuffled | eMPRT |", "|---|---:|---:|---:|"]
    for method in methods:
        figures = (found[method, key] for key in ("sanity", "bottom_up", "emprt"))
        cells = [f"{x.value:.3f} [{x.low:.3f}, {x.high:.3f}] (n = {x.images})" for x in figures]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sum_of_activations(activations: Any) -> Any:
    """A map that no class has a say in."""
    return activations.sum(-1)


def centre_on_photographs(data: Path) -> str:
    """The baseline on pictures that are resized to 224 x 224, as the public evaluation code takes them."""
    known = json.loads((data / "images" / "imagenet_val.json").read_text())
    boxes = [224 * np.asarray(each["boxes"]) / (2 * [each["width"], each["height"]]) for each in known]
    maps = np.broadcast_to(np.asarray(metrics.centre_map((224, 224)), np.float32), (len(boxes), 224, 224))
    (first,) = metrics.max_box_acc(maps, boxes, deltas=(0.5,), largest=True)
    low, high = stats.binomtest(round(first * len(boxes) / 100), len(boxes)).proportion_ci(method="wilson")
    second = metrics.max_box_acc(maps, boxes)
    return (
        f"centre on {len(boxes)} photographs: MaxBoxAcc {first:.1f} [{100 * low:.1f}, {100 * high:.1f}], MaxBoxAccV2 "
        f"{second.mean():.1f} ({', '.join(f'{x:.1f}' for x in second)})"
    )


def share(yes: Any) -> str:
    """In percent, with its interval."""
    low, high = stats.binomtest(int(np.sum(yes)), len(yes)).proportion_ci(method="wilson")
    return f"{100 * np.mean(yes):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(name: str, values: dict[str, np.ndarray]) -> str:
    """`values` by metric `[n, maps]`, with the sign that makes higher better."""
    pairs = (("truth", "shifted"), ("truth", "shuffled"), ("Grad-CAM++", "shuffled"), ("Grad-CAM++", "Grad-CAM"))
    heads = ["truth first %", "it or its blur first %", "shuffled last %", *(f"{a} above {b} %" for a, b in pairs)]
    lines = [f"| {name} | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for metric, figures in values.items():
        at = {m: figures[:, MAPS.index(m)] for m in MAPS}
        known = np.isfinite(np.stack([at[m] for m in GIVEN])).all(0)
        ahead = [np.all([each > at[m] for m in GIVEN[2:]], 0) for each in (at["truth"], at["blurred"])]
        first = ahead[0] & (at["truth"] > at["blurred"])
        last = np.all([at["shuffled"] < at[m] for m in GIVEN if m != "shuffled"], 0)
        cells = [share(each[known]) for each in (first, ahead[0] | ahead[1], last)]
        for a, b in pairs:
            both = np.isfinite(at[a]) & np.isfinite(at[b])
            cells.append(share((at[a] > at[b])[both]))
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Works out the rows that are missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--num", type=int, default=500, help="scenes (500)")
    parser.add_argument("--networks", default="mini_resnet,mini_vgg")
    parser.add_argument("--data", type=Path, help="a folder with images/imagenet_val.json")
    options = parser.parse_args()
    options.rows.touch()
    for name in options.networks.split(","):
        with options.rows.open(newline="") as file:
            mine = [line for line in csv.reader(file) if line[0] == name]
        with options.rows.open("a", newline="") as file:
            for row in rows(name, options.num, len(mine) // len(SIGN)):
                csv.writer(file).writerow(row)
                file.flush()
        with options.rows.open(newline="") as file:
            mine = [line for line in csv.reader(file) if line[0] == name]
        values = {m: SIGN[m] * np.asarray([line[3:] for line in mine if line[2] == m], float) for m in SIGN}
        print(f"{table(f'{name}, {options.num} scenes', values)}\n")
        heads = [*MAPS, "centre"]
        print(f"| {name}, % | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
        for metric, figures in pooled(name, options.num).items():
            print(f"| {metric} | {' | '.join(f'{x:.1f}' for x in figures)} |")
        print(f"\n{randomised(name, options.num)}\n", flush=True)
    if options.data is not None:
        print(centre_on_photographs(options.data))


if __name__ == "__main__":
    main()

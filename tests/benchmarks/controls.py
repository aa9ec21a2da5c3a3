"""What is left of Grad-CAM++ where maps have the same area, and whether it finds more of several objects: controls.md.

    python tests/benchmarks/controls.py --out tests/benchmarks/controls.md [--num 2000]

The embedded convolutional networks on --num generated scenes that none was trained on, for instance recall on as many
with each number of objects; and, where JAXCAM_DATA names weights and photographs, three networks on 300 of the ILSVRC
validation set. The predicted class everywhere. What was measured is kept in the folder OUT.rows, from which an
interrupted run resumes; above the mark of the page is what was written by hand.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tables import PHOTOGRAPHS, signed

import jaxcam
from jaxcam import Evaluation, maps, metrics
from jaxcam.evaluation.statistics import Interval, Rows, Statistics, statistics
from jaxcam.models import MODELS
from jaxcam.progress import progress
from jaxcam.scenes import MAX_INSTANCES, Dataset
from jaxcam.tables import markdown

SEED, BATCH = 50_000, 50
THRESHOLDS = np.arange(1, 10) / 10
MARK = "<!-- from here on written by controls.py -->"


def with_area_of(method: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    """A method's map to the power for which its mean is that of another method's map."""

    def function(head: Any, activations: Any, class_idx: Any) -> Any:
        mean = maps.normalised(other(head, activations, class_idx)).mean()
        return maps.with_mean(method(head, activations, class_idx), mean)

    return function


GRAD_CAM, POSITIVE, PP = "Grad-CAM", "grad_cam_positive", "Grad-CAM++"
WIDENED, POSITIVE_WIDENED = f"{GRAD_CAM}, area of {PP}", f"{POSITIVE}, area of {PP}"
NARROWED = f"{PP}, area of {GRAD_CAM}"
METHODS: dict[str, Any] = {
    GRAD_CAM: "grad_cam",
    POSITIVE: "grad_cam_positive",
    PP: "grad_cam_pp",
    WIDENED: with_area_of(jaxcam.grad_cam, jaxcam.grad_cam_pp),
    POSITIVE_WIDENED: with_area_of(jaxcam.methods.grad_cam_positive, jaxcam.grad_cam_pp),
    NARROWED: with_area_of(jaxcam.grad_cam_pp, jaxcam.grad_cam),
}
PAIRS = ((PP, GRAD_CAM), (PP, WIDENED), (NARROWED, GRAD_CAM), (PP, POSITIVE), (PP, POSITIVE_WIDENED))
KEYS = {"average_drop": "average drop %", "increase": "increase %", "pointing": "pointing game %", "energy": "energy %",
        "complexity": "mean of the map %"}  # fmt: skip
OCCLUDED = ("mini_resnet", "mini_vgg", "resnet18")
"""Networks, for the paper's own control: it takes many passes."""
PUBLISHED = ["VGG-16, published", "0.096", "", "0.105", "+0.009", ""]
"""Chattopadhay et al. 2018, figure 10."""


class Seen(NamedTuple):
    """One picture."""

    view: np.ndarray
    label: int
    boxes: np.ndarray
    """`[MAX_INSTANCES, 4]`; without area where there is no object."""


def scenes(num: int, num_instances: int | None = None) -> Dataset:
    """Those that no network was trained on, with any or with so many objects."""
    return Dataset(num, seed=SEED + (num_instances or 0), num_instances=num_instances)


def seen_of_scenes(drawn: Dataset) -> Iterator[Seen]:
    for example in drawn:
        boxes = np.zeros((MAX_INSTANCES, 4), np.float32)
        boxes[: len(example.boxes)] = example.boxes
        yield Seen(np.asarray(example.image), int(example.label), boxes)


def seen_of_photographs(model: Any, folder: Path) -> Iterator[Seen]:
    for path in sorted(folder.iterdir()):
        yield Seen(model.preprocessing.view(jaxcam.read_image(path)), -1, np.zeros((MAX_INSTANCES, 4), np.float32))


def over(
    path: Path, model: Any, stream: Iterator[Seen], num: int, methods: tuple[str, ...], measure: Callable[..., Any]
) -> np.ndarray:
    """What is measured of every picture's heatmaps, `[n, m, k]`; read where it is there already."""
    if not path.exists():
        parts = []
        for _ in progress(range(0, num, BATCH), total=-(-num // BATCH), label=path.stem):
            views, labels, boxes = (np.stack(each) for each in zip(*islice(stream, BATCH), strict=True))
            inputs = model.preprocessing.normalise(views)
            found = [jaxcam.explain(model, inputs, method=METHODS[name]) for name in methods]
            heatmaps = jnp.stack([each.heatmap for each in found], 1)
            parts.append(measure(model, views, heatmaps, found[0].class_idx, labels, boxes))
        np.save(path, np.concatenate(parts))
    return np.load(path)


@partial(jax.jit, static_argnames="num_steps")
def occlusion(model: Any, view: Any, heatmaps: Any, class_idx: Any, *, num_steps: int) -> Any:
    """Of each method's heatmap the area under O / Y, and at every step the occluded share and O / Y, `[m, k]`."""

    def confidence(picture: Any) -> Any:
        return jax.nn.softmax(model(model.preprocessing.normalise(picture)[None])[0])[class_idx]

    def of_one(heatmap: Any) -> Any:
        share, relative = metrics.occlusion_curve(
            confidence, view, heatmap, baseline=jnp.zeros_like(view), num_steps=num_steps, batch_size=num_steps + 1
        )
        return jnp.concatenate([metrics.area_under_curve(relative, at=share)[None], share, relative])

    return jax.vmap(of_one)(heatmaps)


def occlusions(num_steps: int, model: Any, views: Any, heatmaps: Any, classes: Any, *_: Any) -> np.ndarray:
    # One picture after the other: inside of a loop of XLA convolutions run on one thread.
    each = zip(views, heatmaps, classes, strict=True)
    return np.stack([occlusion(model, *one, num_steps=num_steps) for one in each])


@jax.jit
def recalls(_: Any, views: Any, heatmaps: Any, classes: Any, labels: Any, boxes: Any) -> Any:
    """`[n, m, t]`: instance recall at each threshold; of pictures whose class is recognised."""
    del views
    curve = partial(metrics.instance_recall_curve, thresholds=jnp.asarray(THRESHOLDS, heatmaps.dtype))
    found = jax.vmap(jax.vmap(curve, (0, None)))(heatmaps, boxes)
    return jnp.where((classes == labels)[:, None, None], found, jnp.nan)


def compared(values: np.ndarray, *, shares: bool = False) -> Statistics:
    """Means and paired differences of `[n, m, k]` with the intervals of `evaluate`.

    Of `shares`, values between 0 and 1, a difference that is 0 for every picture has the interval of such shares: that
    of the bootstrap has no width there.
    """
    n, m, k = values.shape
    rows = Rows(np.ones(n), np.ones((n, m)), values.astype(np.float64), np.zeros((n, m), int))
    found, wide = (statistics([rows], m, k, shares=[each] * k, num_resamples=1000) for each in (False, shares))
    has_width = found.differences.high > found.differences.low
    ends = (np.where(has_width, *each) for each in zip(found.differences, wide.differences, strict=True))
    return found._replace(differences=Interval(*ends))


def told(found: Statistics, i: int, j: int, at: int) -> str:
    """The difference of two methods in one figure."""
    return signed(*(float(part[i, j, at]) for part in found.differences), "")


def wins(found: Evaluation, a: str, b: str) -> str:
    i, j = found.methods.index(a), found.methods.index(b)
    share, low, high = (part[i, j] for part in found.table.wins)
    return f"{share:.1f} [{low:.1f}, {high:.1f}], {found.table.wins.value[j, i]:.1f}"


def areas(found: dict[str, Evaluation]) -> str:
    """The section of what is left at the same area."""
    means, apart, notes = [], [], []
    for name, each in found.items():
        means += [[name, m, *(f"{each[m, key].value:.2f}" for key in KEYS)] for m in METHODS]
        for a, b in PAIRS:
            d = each.difference(a, b)
            cells = [signed(d[key].value, d[key].low, d[key].high, "%") for key in KEYS]
            apart.append([name, f"{a} minus {b}", *cells, wins(each, a, b)])
        rows = list(each.rows())
        differ = [np.array([r[f"{a}/complexity"] - r[f"{b}/complexity"] for r in rows]) for a, b in PAIRS[1:3]]
        missed, empty = [int((np.abs(d) > 0.01).sum()) for d in differ], int(np.isnan(differ).any(0).sum())
        notes.append(
            f"- {name}: {len(rows)} pictures, of which a method has no map on {empty}; the means still differ by more "
            f"than 1 point on {missed[0]} ({WIDENED}) and on {missed[1]} ({NARROWED})."
        )
    num = len(found) * len(PAIRS) * (len(KEYS) - 1 + 1)  # wins, and all but the mean of the map, which is matched
    return "\n\n".join([
        "## At the same area", "\n".join(notes), markdown(["", "map", *KEYS.values()], means, left=(0, 1)),
        f"Differences, paired, with 95 % intervals, bold where these exclude zero: {num} comparisons without the mean "
        f"of the map, of which some {round(num / 20)} would be bold if there were no difference at all.",
        markdown(["", "", *KEYS.values(), "wins %, loses"], apart, left=(0, 1)),
    ])  # fmt: skip


def occlusion_section(found: dict[str, np.ndarray]) -> str:
    """That of the paper's own control."""
    lines, points = [PUBLISHED], []
    for name, values in found.items():
        s = compared(values)
        means = [f"{s.means.value[i, 0]:.3f}" for i in range(3)]
        lines.append([name, *means, told(s, 2, 0, 0), told(s, 2, 1, 0)])
        steps = (values.shape[2] - 1) // 2
        for quantile in (0.25, 0.5, 0.75):
            at = round(quantile * (steps - 1))
            shares, relative = ([s.means.value[i, 1 + first + at] for i in range(3)] for first in (0, steps))
            cells = [f"{100 * r:.1f} ({100 * x:.0f})" for r, x in zip(relative, shares, strict=True)]
            points.append([name, f"{quantile:g}", *cells, *(told(s, 2, j, 1 + steps + at) for j in (0, 1))])
    head = [GRAD_CAM, POSITIVE, PP, f"{PP} minus {GRAD_CAM}", f"minus {POSITIVE}"]
    return "\n\n".join([
        "## Occluded by quantiles", f"Areas under O / Y: {2 * len(found)} comparisons.", markdown(["", *head], lines),
        f"100 O / Y where the pixels below a quantile are black, and what part of the picture that is; differences of "
        f"O / Y: {2 * len(points)} comparisons.", markdown(["", "quantile", *head], points),
    ])  # fmt: skip


RECALLED = (GRAD_CAM, POSITIVE, PP, WIDENED, NARROWED)


def recall_section(found: dict[str, list[np.ndarray]]) -> str:
    """That of instance recall."""
    lines, curves = [], []
    half = int(np.argmin(np.abs(THRESHOLDS - 0.5)))
    pairs = [(2, 0), (1, 0), (2, 1), (2, 3), (4, 0)]
    for name, by_number in found.items():
        for number, values in enumerate(by_number, 1):
            s = compared(values, shares=True)
            means = [f"{s.means.value[i, half]:.3f}" for i in range(len(RECALLED))]
            lines.append([f"{name}, {number}", *means, *(told(s, *pair, half) for pair in pairs)])
        curves += [
            [f"{name}, {RECALLED[i]}", *(f"{value:.3f}" for value in s.means.value[i])] for i in range(len(RECALLED))
        ]
    head = [*RECALLED, *(f"{RECALLED[i]} minus {RECALLED[j]}" for i, j in pairs)]
    return "\n\n".join([
        "## Instance recall",
        f"The share of the objects on whose box the map reaches half of its maximum, by their number, on the pictures "
        f"whose class is recognised: {len(lines) * len(pairs)} comparisons.", markdown(["", *head], lines),
        f"With {MAX_INSTANCES} objects, by the threshold:",
        markdown(["", *(f"{t:g}" for t in THRESHOLDS)], curves),
    ])  # fmt: skip


def main() -> None:
    """Measures what is not there yet, and writes the tables below the mark of the page."""
    has_data, names = "JAXCAM_DATA" in os.environ, ["mini_resnet", "mini_vgg"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--networks", nargs="+", default=[*names, *(PHOTOGRAPHS if has_data else ())])
    options = parser.parse_args()
    rows = options.out.with_suffix(".rows")
    rows.mkdir(exist_ok=True)
    data, three = Path(os.environ.get("JAXCAM_DATA", "")), (GRAD_CAM, POSITIVE, PP)
    kinds = {"methods": METHODS, "metrics": ["confidence", "localisation", "shape"]}
    evaluated, occluded, recalled = dict[str, Evaluation](), dict[str, np.ndarray](), dict[str, list[np.ndarray]]()
    for name in options.networks:
        results = rows / f"{name}.jsonl"
        if name in PHOTOGRAPHS:
            model = MODELS[name](str(data / "weights" / PHOTOGRAPHS[name]))
            folder, known = data / "images" / "imagenet_val", data / "images" / "imagenet_val.json"
            evaluated[name] = jaxcam.evaluate(model, folder, annotations=known, results=results, **kinds)
            stream, num, num_steps = seen_of_photographs(model, folder), len(list(folder.iterdir())), 4
        else:
            model, drawn = MODELS[name](), scenes(options.num)
            evaluated[name] = jaxcam.evaluate(model, drawn, batch_size=BATCH, results=results, **kinds)
            stream, num, num_steps = seen_of_scenes(drawn), options.num, 20
            recalled[name] = [
                over(rows / f"{name}-recall-{n}.npy", model, seen_of_scenes(scenes(num, n)), num, RECALLED, recalls)
                for n in range(1, MAX_INSTANCES + 1)
            ]
        if name in OCCLUDED:
            path, measure = rows / f"{name}-occlusion.npy", partial(occlusions, num_steps)
            occluded[name] = over(path, model, stream, num, three, measure)
    before = options.out.read_text().split(MARK)[0] if options.out.exists() else ""
    blocks = [before + MARK, areas(evaluated), occlusion_section(occluded)]
    blocks += [recall_section(recalled)] if recalled else []
    options.out.write_text("\n\n".join(blocks) + "\n")


if __name__ == "__main__":
    main()

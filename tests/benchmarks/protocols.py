"""The same photographs under every published protocol, and which choice turns which ranking: protocols.md.

    JAXCAM_DATA=... python tests/benchmarks/protocols.py tests/benchmarks/protocols.md [--num 300]

ResNet-18 on photographs of the ILSVRC validation set, of which JAXCAM_DATA has 300; --num takes the first ones. The
published protocols with the formulas that go by the names of Grad-CAM and Grad-CAM++ there, and one change at a time
from the paper's protocol. Rows of every run are kept in the folder OUT.rows, from which an interrupted run resumes.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam
from jaxcam import Protocol, maps, scores
from jaxcam.evaluation.ledger import PUBLISHED
from jaxcam.evaluation.ledger import rows as ledger_rows
from jaxcam.models import MODELS
from jaxcam.tables import markdown

WEIGHTS = "resnet18_pqf_bnstats.fp16.safetensors"


def rest(logits: Any, class_idx: Any) -> Any:
    """S_c + log p_c: what ShapleyCAM's authors differentiate, "ReST"."""
    return scores.logit(logits, class_idx) + scores.log_softmax(logits, class_idx)


def gradient_of(head: Any, activations: Any, class_idx: Any, score: Any) -> Any:
    return jax.grad(lambda a: score(head(a), class_idx))(activations)


def torch_cam(head: Any, activations: Any, class_idx: Any) -> Any:
    """torch-cam's Grad-CAM: the softmax is differentiated, and the map is as faint as its gradient."""
    return maps.weighted_map(gradient_of(head, activations, class_idx, scores.softmax).mean((0, 1)), activations)


def torch_cam_pp(head: Any, activations: Any, class_idx: Any) -> Any:
    """torch-cam's Grad-CAM++, as it computes: g = d softmax / dA, and weights sum g^2 ReLU(g).

    Its alphas are never divided: the division is done in place on what indexing by a mask has copied.
    """
    g = gradient_of(head, activations, class_idx, scores.softmax)
    return maps.weighted_map((g**2 * jax.nn.relu(g)).sum((0, 1)), activations)


def package_pp(head: Any, activations: Any, class_idx: Any, score: Any = scores.logit) -> Any:
    """The grad-cam package's: Eq. 19 with 1e-6 in the denominator, where g^2 is about as small behind a mean."""
    g = gradient_of(head, activations, class_idx, score)
    alphas = jnp.where(g != 0, g**2 / (2 * g**2 + activations.sum((0, 1)) * g**3 + 1e-6), 0)
    return maps.weighted_map((alphas * jax.nn.relu(g)).sum((0, 1)), activations)


def shapley_authors_pp(head: Any, activations: Any, class_idx: Any) -> Any:
    """The same with their score."""
    return package_pp(head, activations, class_idx, rest)


GRAD_CAM, GRAD_CAM_PP = "Grad-CAM", "Grad-CAM++"
OURS = {GRAD_CAM: "grad_cam", GRAD_CAM_PP: "grad_cam_pp"}
METHODS: dict[str, dict[str, Any]] = {
    "paper": {**OURS, GRAD_CAM_PP: "grad_cam_pp:normalize_alphas=true"},
    "torch_cam": {GRAD_CAM: torch_cam, GRAD_CAM_PP: torch_cam_pp},
    "grad_cam_package": {GRAD_CAM: "grad_cam", GRAD_CAM_PP: package_pp},
    "shapley_cam": {GRAD_CAM: {"method": "grad_cam", "score": rest}, GRAD_CAM_PP: shapley_authors_pp},
}
# What torch-cam adds to the maximum that a map is divided by, left out.
NOTHING_ADDED = dataclasses.replace(Protocol.torch_cam(), epsilon=0.0)
ON_INPUT = {"mask": "input", "baseline": "mean"}
CHANGES: dict[str, dict[str, Any]] = {
    "none: the paper's protocol": {},
    "the mean colour where the map is 0": ON_INPUT,
    "a blur where the map is 0": {"baseline": "blur"},
    "maps from minimum to maximum": {"normalisation": "min_max"},
    "the same, again after resizing": {"normalisation": "min_max_twice"},
    "maps resized without interpolation": {"resize": "nearest"},
    "the true class": {"class_idx": "true"},
    "the logit for the confidence": {"confidence": "logit"},
}


MARK = "<!-- from here on written by protocols.py -->"
HEAD = ["drop % ↓: Grad-CAM", "Grad-CAM++", "difference", "increase % ↑: Grad-CAM", "Grad-CAM++", "difference",
        "Grad-CAM++ wins %", "loses %"]  # fmt: skip


class Rows(NamedTuple):
    """What `evaluate` wrote for every photograph, by method."""

    y: np.ndarray
    o: dict[str, np.ndarray]
    is_label: np.ndarray


def read(path: Path) -> Rows:
    """The rows of a complete results file."""
    head, *lines = (json.loads(line) for line in path.read_text().splitlines())
    lines.sort(key=lambda row: row["index"])
    values = np.array([[np.nan if o is None else o for o in row["o"]] for row in lines], float)
    is_label = np.array([row["class_idx"] == row["label"] for row in lines])
    return Rows(np.array([row["y"] for row in lines]), dict(zip(head["methods"], values.T, strict=True)), is_label)


def figures(rows: Rows, method: str, drop: str) -> np.ndarray:
    """Drop and increase in percent, `[2, n]`; NaN where they do not count: see `jaxcam.metrics.confidence`."""
    y, o = rows.y, rows.o[method]
    fall = np.maximum(0, y - o) / (y if drop == "average_drop" else 1)
    rise = np.where(np.isfinite(o), o > y, np.nan)
    return 100 * np.array([np.where(y > 0, fall, np.nan), rise])


def interval(values: np.ndarray) -> str:
    """The mean of paired differences with the 95 % interval of 1,000 bootstrap resamples; bold where it excludes 0."""
    values = values[np.isfinite(values)]
    drawn = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    told = f"{values.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{told}**" if low > 0 or high < 0 else told


def line(rows: Rows, first: str = GRAD_CAM, second: str = GRAD_CAM_PP, drop: str = "average_drop") -> list[str]:
    """Drop, increase and win of the second method against the first."""
    cells = []
    for a, b in zip(figures(rows, first, drop), figures(rows, second, drop), strict=True):
        cells += [f"{np.nanmean(a):.1f}", f"{np.nanmean(b):.1f}", interval(b - a)]
    a, b, counts = rows.o[first], rows.o[second], rows.y > 0
    return [*cells, f"{100 * (b > a)[counts].mean():.1f}", f"{100 * (a > b)[counts].mean():.1f}"]


def kept(rows: Rows, counts: np.ndarray) -> Rows:
    """Those of some photographs."""
    return Rows(rows.y[counts], {name: o[counts] for name, o in rows.o.items()}, rows.is_label[counts])


def by_confidence(runs: dict[str, Rows]) -> str:
    """The average drop of the photographs of which the network is more or less sure."""
    ends = [0, 0.5, 0.9, 0.98, 1]
    lines = []
    for title, rows in runs.items():
        groups = [kept(rows, (low < rows.y) & (rows.y <= high)) for low, high in itertools.pairwise(ends)]
        cells = [[f"{np.nanmean(figures(g, m, 'average_drop')[0]):.1f}" for g in groups] for m in rows.o]
        lines += [[f"{title}, {method}", *each] for method, each in zip(rows.o, cells, strict=True)]
    numbers = ["photographs", *(str(len(group.y)) for group in groups)]
    return markdown(["average drop %", *(f"to {high:g}" for high in ends[1:])], [numbers, *lines])


def main() -> None:
    """Measures what is not there yet, and writes the tables below the mark of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--no-runs", action="store_true", help="only the tables of the runs that are there")
    options = parser.parse_args()
    data = Path(os.environ["JAXCAM_DATA"])
    folder = options.out.with_suffix(".rows")
    folder.mkdir(exist_ok=True)
    entries = json.loads((data / "images" / "imagenet_val.json").read_text())[: options.num]
    photographs = [(data / "images" / entry["file"], entry["imagenet_index"]) for entry in entries]
    network = functools.cache(lambda: MODELS["resnet18"](str(data / "weights" / WEIGHTS)))

    def measured(name: str, methods: dict[str, Any], protocol: Protocol) -> Rows | None:
        path = folder / f"{name}.jsonl"
        if not path.exists():
            if options.no_runs:
                return None
            found = jaxcam.evaluate(
                network(), photographs, methods=methods, metrics=["confidence"], protocol=protocol, results=path
            )
            assert not found.bad_images, found.bad_images
        rows = read(path)
        assert len(rows.y) == len(photographs), f"remove {path}: it has other photographs"
        return rows

    published = {entry.name: measured(entry.name, METHODS[entry.name], entry.protocol) for entry in PUBLISHED}
    assert published["paper"] is not None, "the paper's protocol has to be measured first"
    correct = 100 * published["paper"].is_label.mean()
    blocks = [f"{MARK}\n", f"{len(photographs)} photographs, {correct:.1f} % of them recognised.\n"]
    titles = ["", *(entry.title for entry in PUBLISHED)]
    blocks.append("## In what they differ\n\n" + markdown(titles, ledger_rows(), left=range(len(titles))) + "\n")

    lines, faint = [], dict[str, Rows]()
    for entry in PUBLISHED:
        for told in entry.figures:
            pairs = [text for a, b in told[1:3] for text in (f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}")]
            wins = ["", ""] if told.win is None else [f"{told.win[1]:.1f}", f"{told.win[0]:.1f}"]
            lines.append([f"{entry.title}, published: {told.network}", *pairs, *wins])
        if rows := published[entry.name]:
            lines.append([f"{entry.title}, here: ResNet-18", *line(rows, drop=entry.drop)])
        if entry.name == "torch_cam" and (rows := measured("torch_cam-0", METHODS["torch_cam"], NOTHING_ADDED)):
            lines.append([f"{entry.title}, here, with epsilon 0", *line(rows, drop=entry.drop)])
            faint = {"as it is": published["torch_cam"], "epsilon 0": rows}
    title = "## Published, and the same protocol and formulas on these photographs"
    blocks.append(f"{title}\n\n" + markdown(["", *HEAD], lines) + "\n")

    changes = []
    for i, (what, change) in enumerate(CHANGES.items()):
        if rows := measured(f"change-{i}", OURS, Protocol(**change)):
            changes.append([what, *line(rows)])
    if len(changes) == len(CHANGES):
        fall = np.nan_to_num(figures(rows, GRAD_CAM, "average_drop")[0])
        changes.append(["the same without one photograph", *line(kept(rows, np.arange(len(fall)) != fall.argmax()))])
    if faint:
        blocks.append("## torch-cam, by the probability\n\n" + by_confidence(faint) + "\n")
    blocks.append("## One change at a time\n\n" + markdown(["change", *HEAD], changes) + "\n")
    before = options.out.read_text().split(MARK)[0] if options.out.exists() else ""
    options.out.write_text(before + "\n".join(blocks))


if __name__ == "__main__":
    main()

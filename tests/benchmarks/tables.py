"""The tables of README.md and tests/benchmarks/tables.md: what maps are worth, on scenes and on photographs.

    python tests/benchmarks/tables.py scenes OUT.md [--num 2000]
    JAXCAM_DATA=... python tests/benchmarks/tables.py photographs OUT.md

Rows of every run are kept in the folder OUT.rows, from which an interrupted run goes on. OUT.csv has all figures with
their 95 % intervals; OUT.md the means, and the differences between Grad-CAM++ and Grad-CAM with theirs.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import jaxcam
from jaxcam import Evaluation, Protocol
from jaxcam.models import MODELS, Network

METHODS = {
    "CAM": "cam",
    "Grad-CAM": "grad_cam",
    "grad_cam_positive": "grad_cam_positive",
    "Grad-CAM++, closed form": "grad_cam_pp:alphas=closed_form",
    "Grad-CAM++, exact": "grad_cam_pp:alphas=exact",
    "Grad-CAM++, authors' normalisation": "grad_cam_pp:normalize_alphas=true",
}
AGAINST = (
    ("Grad-CAM++, closed form", "Grad-CAM"),
    ("Grad-CAM++, closed form", "grad_cam_positive"),
    ("Grad-CAM++, exact", "Grad-CAM++, closed form"),
)
GROUPS = ("localisation", "instances", "shape", "deletion", "coherency", "curves", "sanity")
PHOTOGRAPHS = {
    "squeezenet1_0": "squeezenet1_0.safetensors",
    "resnet18": "resnet18_pqf_bnstats.fp16.safetensors",
    "resnet50": "resnet50_pqf_large_bnstats.fp16.safetensors",
}
PROTOCOLS = {
    "mask on the raw pixels": Protocol(),
    "mask on the normalised input": Protocol(mask="input", baseline="mean"),
}


def methods_of(model: Network) -> dict[str, str]:
    """CAM applies to networks that end in global average pooling only."""
    return {name: method for name, method in METHODS.items() if method != "cam" or model.cam_layer is not None}


def signed(value: float, low: float, high: float, unit: str) -> str:
    """A difference with its interval; bold where that excludes zero by more than rounding."""
    digits = 2 if unit == "%" else 3
    if all(round(each, digits) == 0 for each in (value, low, high)):
        return "the same"  # an interval without a width says nothing
    text = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    is_apart = (low > 0 or high < 0) and round(value, digits) != 0
    return f"**{text}**" if is_apart else text


def shown(mean: Any, digits: int, num: int) -> str:
    """A mean, with the number of pictures that count where that is not all of them."""
    if not mean.images:
        return "-"
    return f"{mean.value:.{digits}f}" + (f" (n = {mean.images})" if mean.images < num else "")


def markdown(title: str, found: Evaluation) -> str:
    """A table with the metrics as lines, which fits a page."""
    names, columns = found.methods, found.table.columns
    located_by = {c.key for c in columns if c.key.startswith("loc")}
    located_by |= {"pointing", "energy", "box_iou", "iou", "recall", "instance_heat", "instances"}
    differences = [(pair, found.difference(*pair)) for pair in AGAINST if set(pair) <= set(names)]
    heads = ["", *names, *(f"{a} minus {b}" for (a, b), _ in differences)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for column in columns:
        digits = 2 if column.unit == "%" else 3
        means = [found[name, column.key] for name in names]
        better = f" ({column.better} is better)" if column.better else ""
        cells = [f"{column.title}{' %' if column.unit == '%' else ''}{better}"]
        cells += [shown(mean, digits, found.num_images if column.key not in located_by else 0) for mean in means]
        for _, difference in differences:
            each = difference[column.key]
            cells.append("-" if not each.images else signed(each.value, each.low, each.high, column.unit))
        lines.append(f"| {' | '.join(cells)} |")
    i, j = (names.index(name) for name in AGAINST[0])
    win = [part[i, j] for part in found.table.wins]
    back = found.table.wins.value[j, i]
    notes = (
        f"{found.num_images} pictures. Win %: {AGAINST[0][0]} keeps more of the confidence than {AGAINST[0][1]} on "
        f"{win[0]:.1f} [{win[1]:.1f}, {win[2]:.1f}] % of them, less on {back:.1f} %."
    )
    located = [found[names[0], column.key].images for column in columns if column.key == "pointing"]
    if located and located[0] < found.num_images:
        notes += f" Localisation: on the {located[0]} where the explained class is that of the boxes."
    return f"### {title}\n\n{notes}\n\n" + "\n".join(lines) + "\n"


def scenes(options: argparse.Namespace, rows: Path) -> list[tuple[str, Evaluation]]:
    """The embedded convolutional networks on scenes with one to four instances."""
    found = []
    for name in ("mini_resnet", "mini_vgg"):
        model = MODELS[name]()
        for instances in range(1, jaxcam.scenes.MAX_INSTANCES + 1):
            title = f"{name}, scenes with {instances} instance{'s' if instances > 1 else ''}"
            result = jaxcam.evaluate(
                model,
                jaxcam.scenes.Dataset(options.num, seed=instances, num_instances=instances),
                methods=methods_of(model),
                metrics=GROUPS,
                protocol=Protocol(num_steps=8),
                results=rows / f"{name}-{instances}.jsonl",
            )
            found.append((title, result))
    return found


def photographs(options: argparse.Namespace, rows: Path) -> list[tuple[str, Evaluation]]:
    """Three networks on 300 photographs of the ILSVRC validation set, under two protocols."""
    del options
    data = Path(os.environ["JAXCAM_DATA"])
    found = []
    for name, file in PHOTOGRAPHS.items():
        model = MODELS[name](str(data / "weights" / file))
        for title, protocol in PROTOCOLS.items():
            result = jaxcam.evaluate(
                model,
                data / "images" / "imagenet_val",
                annotations=data / "images" / "imagenet_val.json",
                methods=methods_of(model),
                protocol=protocol,
                results=rows / f"{name}-{protocol.mask}.jsonl",
            )
            assert not result.bad_images, result.bad_images
            found.append((f"{name}, {title}", result))
    return found


def main() -> None:
    """Writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scenes", "photographs"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=2000)
    options = parser.parse_args()
    rows = options.out.with_suffix(".rows")
    rows.mkdir(exist_ok=True)
    found = (scenes if options.what == "scenes" else photographs)(options, rows)
    options.out.write_text("\n".join(markdown(title, each) for title, each in found))
    lines = []
    for title, each in found:
        head, *rest = each.csv().splitlines()
        lines += [f"table,{head}"] if not lines else []
        lines += [f'"{title}",{line}' for line in rest]
    options.out.with_suffix(".csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Instance recall by the number of objects of the class in the scene: what Grad-CAM++ was made for.

    python tests/benchmarks/recall.py OUT.md [--num 1000]

For scenes with one to four objects the share of them whose box has heat of at least half of the map's maximum, the mean
heat of the boxes (the area under recall against the threshold), and paired differences with 95 % intervals. Recall
rises with any map that is larger, whose mean stands below it.
"""

import argparse
from pathlib import Path

import jaxcam
from jaxcam.models import MODELS

METHODS = {"Grad-CAM": "grad_cam", "positive gradients": "grad_cam_positive", "Grad-CAM++": "grad_cam_pp"}
KEYS = {"recall": "recall at 0.5, %", "instance_heat": "heat of instances, %", "complexity": "mean of L, %"}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=1000)
    options = parser.parse_args()
    differences = [("Grad-CAM++", "Grad-CAM"), ("positive gradients", "Grad-CAM"), ("Grad-CAM++", "positive gradients")]
    heads = ["network, objects", "", *METHODS, *(f"{a} minus {b}" for a, b in differences)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in ("mini_resnet", "mini_vgg"):
        model = MODELS[name]()
        for number in range(1, jaxcam.scenes.MAX_INSTANCES + 1):
            found = jaxcam.evaluate(
                model,
                jaxcam.scenes.Dataset(options.num, seed=number, num_instances=number),
                methods=METHODS,
                metrics=("instances", "shape"),
                show_progress=False,
            )
            for key, title in KEYS.items():
                means = [f"{found[method, key].value:.1f}" for method in METHODS]
                apart = [found.difference(a, b)[key] for a, b in differences]
                told = [f"{d.value:+.1f} [{d.low:+.1f}, {d.high:+.1f}]" for d in apart]
                lines.append(f"| {name}, {number} | {title} | {' | '.join([*means, *told])} |")
            options.out.write_text("\n".join(lines) + f"\n\n{options.num} scenes for each number.\n")


if __name__ == "__main__":
    main()

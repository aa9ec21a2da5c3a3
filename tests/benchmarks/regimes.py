"""Which of its two limits Grad-CAM++ works in, on the networks at hand and at several of their layers.

    python tests/benchmarks/regimes.py --data ../shared/data --num 16

A row for every network and layer, over the first pictures of `images/imagenet_val` (of `images/cifar10` for the CIFAR
networks, of the generated scenes for the embedded ones): quantiles of u = S_k g over the elements with a positive
gradient, shares of the weights by u, and how far Grad-CAM++'s maps are from those of grad_cam_positive (medians over
the pictures). For the predicted class, in float64.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import jaxcam
from jaxcam.verification import Regime, regime

NETWORKS = {
    "mini_vgg": ("", ["relu4", None], "scenes"),
    "mini_resnet": ("", ["layer2", None], "scenes"),
    "resnet20": ("resnet20_cifar10.safetensors", ["layer2", None], "cifar10"),
    "resnet56": ("resnet56_cifar10.safetensors", [None], "cifar10"),
    "squeezenet1_0": ("squeezenet1_0.safetensors", [None], "imagenet"),
    "squeezenet1_1": ("squeezenet1_1.safetensors", [None], "imagenet"),
    "resnet18": ("resnet18_pqf_bnstats.fp16.safetensors", [None], "imagenet"),
    "resnet50": ("resnet50_pqf_large_bnstats.fp16.safetensors", [None], "imagenet"),
}


def pictures(kind: str, data: Path | None, num: int) -> Iterator[Any]:
    """The first pictures of a kind."""
    if kind == "scenes":
        yield from (jaxcam.scenes.scene(i).image for i in range(num))
    elif data is None:
        return
    elif kind == "cifar10":
        with np.load(data / "images/cifar10/cifar10_test_200.npz") as file:
            stored = next(file[name] for name in file.files if file[name].ndim == 4)
        yield from (each.astype(np.float32) / 255 for each in stored[:num])
    else:
        for path in sorted((data / "images/imagenet_val").iterdir())[:num]:
            yield jaxcam.read_image(path)


def regimes(model: Any, layer: str | None, shown: Iterable[Any]) -> list[Regime]:
    """The regime at a layer, of each picture's predicted class."""
    found = []
    for picture in shown:
        a = model.features(model.preprocessing(picture)[None], layer=layer)
        class_idx = int(model.head(a, layer=layer)[0].argmax())
        found.append(regime(lambda x: model.head(x[None], layer=layer)[0], a[0], class_idx))
    return found


def row(name: str, layer: str, found: list[Regime]) -> str:
    """A line of the table."""
    known = [each for each in found if each.quantiles]
    low, middle, high = (np.median([each.quantiles[i] for each in known]) for i in (0, 2, 4))
    largest = np.median([each.extremes[1] for each in known])
    names = ("positive_gradients", "between", "counting", "beyond")
    shares = [100 * np.mean([getattr(each, kind) for each in known]) for kind in names]
    maps = [each.from_grad_cam_positive for each in known]
    differ = np.median([m.map_difference for m in maps])
    correlation = np.median([m.map_correlation for m in maps if m.map_correlation is not None])
    cells = [f"{q:.2g}" for q in (low, middle, high, largest)] + [f"{share:.0f}" for share in shares]
    return f"| {name}, {layer} | " + " | ".join(cells) + f" | {correlation:.3f} | {differ:.2f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with weights/ and images/")
    parser.add_argument("--num", type=int, default=16, help="pictures for each network (16)")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="comma-separated")
    options = parser.parse_args()
    print("| network, layer | u: 5 % | median | 95 % | largest | weights with u < 0.2, % | to 20 | above | below 0 "
          "| correlation with the map of `grad_cam_positive` | largest difference |")  # fmt: skip
    print("|---|" + "---:|" * 10)
    for name in options.networks.split(","):
        file, layers, kind = NETWORKS[name]
        if file and options.data is None:
            continue
        model = jaxcam.models.MODELS[name](*([options.data / "weights" / file] if file else []))
        for layer in layers:
            found = regimes(model, layer, pictures(kind, options.data, options.num))
            print(row(name, layer or model.default_layer, found), flush=True)


if __name__ == "__main__":
    main()

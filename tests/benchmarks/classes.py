"""Does a map tell classes apart? All classes' maps of one picture against the predicted class's map.

    python tests/benchmarks/classes.py --data ../shared/data --num 20

On the first photographs of `images/imagenet_val`, at the default layer, float32: for each method the correlation
(Pearson, over the cells of the grid) of every other class's map with that of the predicted class, and in how many of
them the highest cell is the same; maps that are zero everywhere are left out, and counted. Means over the photographs,
and their standard deviation.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import jaxcam

NETWORKS = {
    "squeezenet1_0": "squeezenet1_0.safetensors",
    "resnet18": "resnet18_pqf_bnstats.fp16.safetensors",
    "resnet50": "resnet50_pqf_large_bnstats.fp16.safetensors",
}
METHODS = ("grad_cam", "grad_cam_pp", "grad_cam_positive", "hires_cam", "layer_cam")


def told_apart(cam_maps: np.ndarray, predicted: int) -> tuple[float, float, float]:
    """Of maps `[c, *grid]`: the mean correlation, the share of the same highest cell, the share of empty maps."""
    flat = cam_maps.reshape(len(cam_maps), -1).astype(np.float64)
    others = np.delete(flat, predicted, 0)
    shown = others[np.ptp(others, axis=1) > 0]
    own = flat[predicted]
    centred, mine = shown - shown.mean(1, keepdims=True), own - own.mean()
    r = centred @ mine / np.sqrt((centred**2).sum(1) * (mine**2).sum())
    return r.mean(), (shown.argmax(1) == own.argmax()).mean(), 1 - len(shown) / len(others)


def main() -> None:
    """Prints a row for each network and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--num", type=int, default=20)
    options = parser.parse_args()
    paths = sorted(path for path in (options.data / "images/imagenet_val").iterdir() if path.suffix != ".json")
    print(f"{options.num} photographs, jax {jax.__version__}")
    print("| network | method | correlation | same highest cell, % | empty maps, % |\n|---|---|---:|---:|---:|")
    for name, file in NETWORKS.items():
        model = jaxcam.models.MODELS[name](options.data / "weights" / file)
        images = [model.preprocessing(jaxcam.read_image(path))[None] for path in paths[: options.num]]
        logits = jax.jit(lambda model, image: model(image)[0])
        predicted = [int(logits(model, image).argmax()) for image in images]
        for method in METHODS:
            maps = jax.jit(lambda m, x, method=method: jaxcam.explain(m, x, class_idx="all", method=method).cam_map[0])
            found = [told_apart(np.asarray(maps(model, x)), c) for x, c in zip(images, predicted, strict=True)]
            (r, same, empty), spread = np.mean(found, 0), np.std(found, 0)
            figures = f"{r:.2f} ± {spread[0]:.2f} | {100 * same:.0f} | {100 * empty:.0f}"
            print(f"| {name} | `{method}` | {figures} |", flush=True)


if __name__ == "__main__":
    main()

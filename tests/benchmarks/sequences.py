"""What maps of series, volumes and clips are worth, against the truth: `evaluate`, and the moving figure by itself.

    python tests/benchmarks/sequences.py [mini_tcn mini_net3d mini_c3d mini_convlstm] [--num 2000]

Inputs that no network was trained on, as drawn by `jaxcam.scenes` from a seed of its own; the true class is explained.
Prints for every network evaluate's table (with a shuffled head as its check: "same when shuffled"), and for clips where
the map goes: the share of its energy on the moving figure, on all places that it passes, and on the two standing ones,
the mean share of the frames that each of them covers, how often its maximum lies on which, and how often the moving
figure has more energy, or more energy for its area, than each of the standing ones. Intervals are of the bootstrap.
"""

import argparse

import jax
import numpy as np

import jaxcam
from jaxcam import models, scenes, tables

SEED = 40_000
METHODS = ("grad_cam", "grad_cam_pp", "grad_cam_positive")
PROTOCOL = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true")
INPUTS = {
    "mini_tcn": (scenes.series, "values"),
    "mini_net3d": (scenes.volume, "density"),
    "mini_c3d": (scenes.clip, "frames"),
    "mini_convlstm": (scenes.clip, "frames"),
}


def examples(name, drawn):
    values, labels, masks = getattr(drawn, INPUTS[name][1]), drawn.class_idx, drawn.masks
    for i in range(len(values)):
        own = masks[i]
        if name in ("mini_c3d", "mini_convlstm"):
            own = own[:, drawn.moving[i]][None]  # [t, m, h, w] -> the one that travels
        yield jaxcam.Example(values[i], label=int(labels[i]), masks=own[own.reshape(len(own), -1).any(1)])


def interval(values, random):
    values = values[np.isfinite(values)]
    rows = random.integers(0, len(values), (1000, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return f"{100 * values.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def figures(model, drawn, method, batch=40):
    """For each clip: energy on the moving figure and the two standing ones, areas, the maximum, and its path."""
    energies, areas, tops, paths = [], [], [], []
    for start in range(0, len(drawn.frames), batch):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + batch], drawn)
        found = jaxcam.explain(model, part.frames, class_idx=part.class_idx, method=method)
        heat, masks = np.asarray(found.heatmap), np.moveaxis(part.masks, 2, 1)
        order = (part.moving[:, None] + np.arange(3)) % 3  # the moving one first
        masks = np.take_along_axis(masks, order[:, :, None, None, None], 1)
        axes = (2, 3, 4)
        total = heat.sum((1, 2, 3))[:, None]
        with np.errstate(invalid="ignore"):  # an empty map
            energies.append((heat[:, None] * masks).sum(axes) / total)
        is_top = heat == heat.max((1, 2, 3), keepdims=True)
        tops.append((is_top[:, None] & masks).sum(axes) / is_top.sum((1, 2, 3))[:, None])
        areas.append(masks.mean(axes))
        path = masks[:, 0].any(1, keepdims=True)  # where the moving figure is in any of the frames
        with np.errstate(invalid="ignore"):
            shares = (heat * path).sum((1, 2, 3)) / total[:, 0], (is_top & path).sum((1, 2, 3)) / is_top.sum((1, 2, 3))
        paths.append(np.stack(shares, -1))
    energies, areas, tops, paths = map(np.concatenate, (energies, areas, tops, paths))
    tops[~np.isfinite(energies[:, 0])] = np.nan
    paths[~np.isfinite(energies[:, 0])] = np.nan
    return energies, areas, tops, paths


def report(name, num):
    draw, _ = INPUTS[name]
    model, random = models.SEQUENCE_MODELS[name](), np.random.default_rng(0)
    drawn = jax.device_get(scenes.many(draw, SEED, num))
    print(f"## {name}, {num} inputs\n", flush=True)
    evaluation = jaxcam.evaluate(
        model,
        list(examples(name, drawn)),
        methods=list(METHODS),
        metrics=["confidence", "localisation", "sanity"],
        protocol=PROTOCOL,
        batch_size=32,
    )
    print(evaluation.markdown(), flush=True)
    print("mean share of the input inside the masks:", end=" ")
    if not name.startswith(("mini_c3d", "mini_conv")):
        print(f"{100 * drawn.masks.any(1).mean():.1f} %\n", flush=True)
        return
    names = ("moving", "standing", "standing")
    rows = {}
    for method in METHODS:
        energies, areas, tops, paths = figures(model, drawn, method)
        density = energies / areas
        rows[method] = [
            interval(energies[:, 0], random),
            interval(paths[:, 0], random),
            interval(energies[:, 1:].sum(1), random),
            interval(tops[:, 0], random),
            interval(paths[:, 1], random),
            interval(tops[:, 1:].sum(1), random),
            interval(np.where(np.isfinite(energies[:, :1]), energies[:, :1] > energies[:, 1:], np.nan).mean(1), random),
            interval(np.where(np.isfinite(energies[:, :1]), density[:, :1] > density[:, 1:], np.nan).mean(1), random),
        ]
    print(", ".join(f"{who} {100 * share:.1f} %" for who, share in zip(names, areas.mean(0), strict=True)), end="\n\n")
    header = ["", "energy on the moving figure, %", "where it passes in any frame", "on the two standing"]
    header += ["maximum on the moving, %", "where it passes in any frame", "on a standing"]
    header += ["moving has more energy than each standing, %", "more for its area, %"]
    print(tables.markdown(header, [[method, *row] for method, row in rows.items()]), flush=True)
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(INPUTS))
    parser.add_argument("--num", type=int, default=2000)
    given = parser.parse_args()
    print(f"jax {jax.__version__}, jaxcam {jaxcam.__version__}, seed {SEED}\n")
    for name in given.names:
        report(name, given.num)


if __name__ == "__main__":
    main()

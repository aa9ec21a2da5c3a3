"""How much of a photograph is still seen under its heatmap, for each way to draw it.

    python tests/benchmarks/detail.py PICTURE [PICTURE ...]

Detail is local contrast: by how much the lightness L* (CIE 1976) differs from its mean over 15 by 15 pixels, where the
picture has 448. Kept is the slope of the drawn picture's contrast on that of the photograph,

    Σ (L - mean L)(L' - mean L') / Σ (L - mean L)²,

over what is hot (heat of 0.5 and more), cool (below 0.2) or cold (below 0.1) and does not lie under a contour: 1 is the
photograph, and 0 hides it. What the colours of the heat add is no detail of the photograph: it does not follow it. The
maps are Grad-CAM's of EfficientNet-Lite0 for the class that it predicts.

What to expect of "grey": at the heat h 0.92 (1 - 0.5 min(1, h / 0.2)) of the photograph's luma is left, which is 0.46
from 0.2 on, and where every heat is as frequent 0.69 on average below 0.2, 0.81 below 0.1; lightness is nearly luma.
"""

import sys

import numpy as np
from scipy.ndimage import uniform_filter

import jaxcam
from jaxcam.images.preprocessing import larger_view
from jaxcam.images.reading import read_picture
from jaxcam.pictures.contours import LEVELS, line
from jaxcam.pictures.overlays import STYLES, overlay

SIZE, WINDOW = 448, 15


def lightness(picture):
    """L* of an sRGB picture `[H, W, 3]` in [0, 1]."""
    linear = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def kept(before, after, where):
    """The slope of the drawn picture's local contrast on that of the photograph."""
    share = uniform_filter(where.astype(float), WINDOW) + 1e-9
    mean = lambda values: uniform_filter(np.where(where, values, 0), WINDOW) / share
    own, drawn = before - mean(before), after - mean(after)
    return (own * drawn)[where].sum() / (own**2)[where].sum()


def figures(model, path):
    """By style, what is kept where it is hot, cool and cold; NaN where there is no such place."""
    picture = read_picture(path)
    images = model.preprocessing(jaxcam.read_image(path))[None]
    heat = np.clip(jaxcam.maps.heatmap(jaxcam.explain(model, images).cam_map[0], (SIZE, SIZE)), 0, 1)
    view = larger_view(picture, model.preprocessing, SIZE)
    free = np.max([line(heat, level, width + 4) for level, width in LEVELS], axis=0) == 0
    before = lightness(view.astype(float))
    found = {}
    for style in STYLES:
        after = lightness(np.asarray(overlay(view, heat, style=style)) / 255)
        places = [free & (heat >= 0.5), free & (heat < 0.2), free & (heat < 0.1)]
        found[style] = [kept(before, after, place) if place.mean() > 0.01 else np.nan for place in places]
    return found


def main(paths):
    """Prints the medians over the photographs."""
    model = jaxcam.models.efficientnet_lite0("imagenet")
    found = [figures(model, path) for path in paths]
    print(f"{len(paths)} photographs; detail kept, median: heat of 0.5 and more, below 0.2, below 0.1")
    for style in STYLES:
        print(
            f"  {style:8}"
            + "  ".join(f"{share:.2f}" for share in np.nanmedian([each[style] for each in found], axis=0))
        )


if __name__ == "__main__":
    main(sys.argv[1:])

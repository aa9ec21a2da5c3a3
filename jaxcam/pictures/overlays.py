"""Heatmap and picture -> a picture to look at: the heat as colour over it, and as contours.

Contract: arrays come in (a picture `[H, W, 3]`, a heatmap `[H, W]`, both in [0, 1]), Pillow images of mode
RGB go out. Colours are mixed as sRGB values, as picture editors do by default. Nothing here is traceable: it
is the end of the way.
"""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image

from jaxcam.checks import check_number
from jaxcam.images.picture import checked_heat, checked_picture, to_pillow
from jaxcam.pictures.colours import colour_map
from jaxcam.pictures.contours import LEVELS, USUAL, line

STYLES = ("grey", "colour", "plain")
"""The ways to draw heat over a picture, the usual one first."""
ALPHA = 0.5
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LIFT = np.float32(0.08)
_FULL = np.float32(0.2)
"""From this heat on the colours have their whole opacity."""
_CASING, _CASING_WIDTH = np.float32(22 / 255), 1.2
"""The dark rim of a white line, and how much wider than the line it is in all: it is seen on white fur as well."""
_LEAST = 0.5
"""Lines are at least so many times their usual width: in a thumbnail they would vanish."""


def overlay(
    image: Float[np.ndarray, "H W 3"] | Float[Array, "H W 3"],
    heatmap: Float[np.ndarray, "h w"] | Float[Array, "h w"],
    *,
    style: str = "grey",
    alpha: int | float = ALPHA,
    colormap: str = "inferno",
) -> Image.Image:
    """The picture under its heatmap.

    With the colours C = `colour_map(h)` of the heat h, and P the image or, in grey, 0.08 + 0.92 Y of its luma Y
    (ITU-R 601-2), at every pixel

        overlay = (1 - a) · P + a · C,   a = alpha · min(1, h / 0.2),   "plain": a = alpha,

    and white contours with a dark rim where h is 0.25, 0.5 and 0.75, in a picture with a longer side of 448 pixels 1,
    1.8 and 1 pixel wide. What is cold stays as it is, and the contours show how far the heat reaches without any
    colour: in print, and to readers who do not tell colours apart.

    Args:
        image: `[H, W, 3]`, floating point, in [0, 1]: for a network's input, the part it saw
            (`Preprocessing.view`).
        heatmap: `[h, w]`, floating point, in [0, 1]; resized bilinearly if its size is not the image's, whose
            proportions it must have.
        style: "grey"; "colour", the same over the picture in its colours; or "plain", one opacity for hot and cold
            over the picture in its colours, and no contours.
        alpha: the opacity of what is hot, from 0 (only the image and the contours) to 1 (only the heatmap).
        colormap: a name that `colour_map` knows.

    Returns:
        A Pillow image, RGB, W by H pixels.

    Raises:
        TypeError: image or heatmap is not an array of a floating dtype; alpha is not a number.
        ValueError: a wrong shape, other proportions, an empty array, values that are not finite or not in
            [0, 1]; no such style or colour map.
    """
    check_style(style)
    picture = checked_picture(image)
    heat = _resized(checked_heat(heatmap, name="heatmap"), picture.shape[0], picture.shape[1])
    (height, width), (h, w) = picture.shape[:2], np.shape(heatmap)
    if abs(h * width - w * height) > max(height, width):  # more than the rounding of a row or a column
        raise ValueError(
            f"heatmap must have the proportions of the image {[height, width]}, but came as {[h, w]}: lay it over "
            "what the network saw, model.preprocessing.view(image)"
        )
    opacity = check_number("alpha", alpha, low=0, high=1)
    return to_pillow(blend(picture, heat, style=style, alpha=opacity, colormap=colormap, size=max(height, width)))


def blend(
    picture: Float[np.ndarray, "H W 3"],
    heat: Float[np.ndarray, "H W"],
    *,
    style: str,
    alpha: int | float,
    colormap: str,
    size: int,
) -> Float[np.ndarray, "H W 3"]:
    """`overlay` as an array, of a picture and its heat of the same size, with the contours of one of `size` pixels."""
    colours = colour_map(heat, name=colormap)
    if style == "plain":
        return (1 - np.float32(alpha)) * picture + np.float32(alpha) * colours
    ground = _LIFT + (1 - _LIFT) * (picture @ _LUMA)[:, :, np.newaxis] if style == "grey" else picture
    opacity = np.float32(alpha) * np.minimum(1, heat / _FULL)[:, :, np.newaxis]
    drawn = (1 - opacity) * ground + opacity * colours
    unit = max(size / USUAL, _LEAST)
    for extra, colour in ((_CASING_WIDTH, _CASING), (0, np.float32(1))):
        for level, width in LEVELS:
            covered = line(heat, level, (width + extra) * unit)[:, :, np.newaxis]
            drawn = (1 - covered) * drawn + covered * colour
    return drawn


def check_style(style: Any) -> None:
    """ValueError if there is no such way to draw."""
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)} but is {style!r}")


def _resized(heat: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    if heat.shape == (height, width):
        return heat
    # In floating point (Pillow's mode F), with pixel centres at half-integers, as jax.image.resize has them.
    smooth = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(smooth), 0, 1)

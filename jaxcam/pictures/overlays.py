"""Heatmap and picture -> a picture to look at: colour maps, overlays, panels, and files.

Contract: arrays come in (a picture `[H, W, 3]`, a heatmap `[H, W]`, both in [0, 1]), Pillow images of mode
RGB go out. Colours are mixed as sRGB values, as picture editors do by default. Nothing here is traceable: it
is the end of the way.
"""

import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image

from jaxcam.checks import check_number
from jaxcam.images.picture import checked_heat, checked_picture, to_pillow
from jaxcam.pictures.colours import colour_map


def overlay(
    image: Float[np.ndarray, "H W 3"] | Float[Array, "H W 3"],
    heatmap: Float[np.ndarray, "h w"] | Float[Array, "h w"],
    *,
    alpha: int | float = 0.5,
    colormap: str = "inferno",
    weighted: bool = False,
) -> Image.Image:
    """The picture under its heatmap.

    With the colours C = `colour_map(heatmap)`, at every pixel

        overlay = (1 - a) · image + a · C,   a = alpha, or a = alpha · heatmap if weighted.

    A constant a shows the whole scale, cold places too, so that the colours can be read off a colour bar;
    weighted leaves cold places as they are in the picture.

    Args:
        image: `[H, W, 3]`, floating point, in [0, 1]: for a network's input, the part it saw
            (`Preprocessing.view`).
        heatmap: `[h, w]`, floating point, in [0, 1]; resized bilinearly if its size is not the image's, whose
            proportions it must have.
        alpha: the heatmap's opacity, from 0 (only the image) to 1 (only the heatmap).
        colormap: a name that `colour_map` knows.
        weighted: whether the opacity is proportional to the heat.

    Returns:
        A Pillow image, RGB, W by H pixels.

    Raises:
        TypeError: image or heatmap is not an array of a floating dtype; alpha is not a number.
        ValueError: a wrong shape, other proportions, an empty array, values that are not finite or not in
            [0, 1]; no such colour map.
    """
    picture = checked_picture(image)
    heat = _resized(checked_heat(heatmap, name="heatmap"), picture.shape[0], picture.shape[1])
    (height, width), (h, w) = picture.shape[:2], np.shape(heatmap)
    if abs(h * width - w * height) > max(height, width):  # more than the rounding of a row or a column
        raise ValueError(
            f"heatmap must have the proportions of the image {[height, width]}, but came as {[h, w]}: lay it over "
            "what the network saw, model.preprocessing.view(image)"
        )
    opacity = np.float32(check_number("alpha", alpha, low=0, high=1)) * (
        heat[:, :, np.newaxis] if weighted else np.float32(1)
    )
    return to_pillow((1 - opacity) * picture + opacity * colour_map(heat, name=colormap))


def _resized(heat: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    if heat.shape == (height, width):
        return heat
    # In floating point (Pillow's mode F), with pixel centres at half-integers, as jax.image.resize has them.
    smooth = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(smooth), 0, 1)

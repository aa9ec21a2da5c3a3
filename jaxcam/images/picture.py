"""What a picture is: the check, and the way to Pillow and back, which reading, resizing and drawing share.

Contract: a picture is a NumPy or JAX array `[H, W, 3]` of a floating dtype with finite values in [0, 1], sRGB
as stored in files (no linear light). Values may leave [0, 1] by `SLACK`, the rounding of low precision; they
are clipped.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax import Array
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Float
from PIL import Image

_STRIP = 2**17
SLACK = 1e-3
"""How far outside [0, 1] a value still counts as rounding: half precision resolves 1e-3 just above 1."""

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def checked_picture(image: Any, *, name: str = "image", channels: int = 3) -> Float[np.ndarray, "H W d"]:
    """The picture as float32 `[H, W, 3]` in [0, 1], or of another number of channels.

    Raises:
        TypeError: it is not an array of a floating dtype.
        ValueError: the shape is not `[H, W, 3]`, it is empty, or a value is not finite or not in [0, 1].
    """
    remedy = "; read a file with jaxcam.read_image, or convert a Pillow image with np.asarray(picture) / 255"
    if not isinstance(image, np.ndarray | Array):
        raise TypeError(f"{name} must be a floating-point array [H, W, 3] in [0, 1], got {_kind(image)}{remedy}")
    if image.dtype == np.uint8:
        raise TypeError(f"{name} must be floating point in [0, 1], got uint8 (0 to 255); pass {name} / 255 instead")
    _require_floating(image, name)
    if image.ndim != 3 or image.shape[-1] != channels:
        remedy = _shape_remedy(image.shape, name, channels)
        raise ValueError(f"{name} must have shape [H, W, {channels}], got {list(image.shape)}{remedy}")
    return _checked_unit_range(
        image, name, remedy="; divide by 255 if it is 0 to 255, denormalise it if it is normalised"
    )


def checked_heat(values: Any, *, name: str, axes: str = "H, W") -> Float[np.ndarray, "..."]:
    """A map of values in [0, 1] as float32 `[H, W]`, or with other axes.

    Raises:
        TypeError: it is not an array of a floating dtype.
        ValueError: the shape is not `[H, W]`, it is empty, or a value is not finite or not in [0, 1].
    """
    if not isinstance(values, np.ndarray | Array):
        raise TypeError(f"{name} must be a floating-point array [{axes}] in [0, 1], got {_kind(values)}")
    _require_floating(values, name)
    num_axes = len(axes.split(","))
    if values.ndim != num_axes:
        hint = f"; pass one map of the batch: {name}[0]" if values.ndim == num_axes + 1 else ""
        raise ValueError(f"{name} must have shape [{axes}], got {list(values.shape)}{hint}")
    return _checked_unit_range(values, name, remedy="; divide a non-negative map by its maximum (where that is not 0)")


def to_pillow(picture: Float[np.ndarray, "H W 3"]) -> Image.Image:
    """The picture in 8 bits, rounded to nearest: exact for what was read from an 8-bit file."""
    return Image.fromarray(np.rint(picture * np.float32(255)).astype(np.uint8))


def from_pillow(picture: Image.Image) -> Float[np.ndarray, "H W 3"]:
    """An 8-bit Pillow image of mode RGB as float32 in [0, 1]."""
    return np.divide(np.asarray(picture), np.float32(255), dtype=np.float32)


def over_white(picture: Image.Image) -> Float[np.ndarray, "H W 3"]:
    """A Pillow image with transparency, in [0, 1]: a·c + (1 - a) for colours c with opacity a."""
    rgba = np.divide(np.asarray(picture.convert("RGBA")), np.float32(255), dtype=np.float32)
    colours, opacity = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3:]
    if opacity.min(initial=1) < 1:
        colours *= opacity
        colours += 1 - opacity
    return colours


def floats(picture: Image.Image) -> Float[np.ndarray, "H W 3"]:
    """What a file had, in [0, 1]: grey in up to 16 bits, transparency over white, everything else in 8 bits."""
    if picture.mode.startswith("I"):
        return _from_16_bit_grey(picture)
    return over_white(picture) if picture.has_transparency_data else from_pillow(picture.convert("RGB"))


def opaque(picture: Image.Image) -> Image.Image:
    """The same in 8 bits, mode RGB: `to_pillow(floats(picture))`, in the memory of 8 bits."""
    if not picture.mode.startswith("I") and not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    found = Image.new("RGB", picture.size)
    top = 0
    for strip in strips(picture):
        found.paste(to_pillow(floats(strip)), (0, top))
        top += strip.height
    return found


def strips(picture: Image.Image) -> Iterator[Image.Image]:
    """The picture cut into rows of about `_STRIP` pixels, which fit into a processor's cache."""
    step = max(1, _STRIP // picture.width)
    edges = [*range(0, picture.height, step), picture.height]
    return (picture.crop((0, a, picture.width, b)) for a, b in itertools.pairwise(edges))


def floats_of(picture: Image.Image) -> Float[np.ndarray, "H W 3"]:
    """`floats` of a picture that is closed then, in the memory of these alone.

    It is cut into strips, and each is let go when it has become floats.
    """
    parts = [*strips(picture)]
    found = np.empty((picture.height, picture.width, 3), np.float32)
    picture.close()
    del picture
    bottom = len(found)
    while parts:
        part = parts.pop()
        found[bottom - part.height : bottom] = floats(part)
        bottom -= part.height
    return found


def _from_16_bit_grey(image: Image.Image) -> Float[np.ndarray, "H W 3"]:
    # Pillow's convert("RGB") would clip these at 255: nearly all of them to white.
    stored = np.asarray(image)
    grey = np.divide(stored, np.float32(65535), dtype=np.float32)
    transparent = image.info.get("transparency")  # PNG: one grey value that stands for "nothing here"
    if transparent is not None:
        grey[stored == transparent] = 1
    return np.repeat(grey[:, :, np.newaxis], 3, axis=-1)


def interpolation_filter(interpolation: str) -> Image.Resampling:
    """Pillow's filter of that name; ValueError if there is none."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
    return INTERPOLATIONS[interpolation]


def _require_floating(array: np.ndarray | Array, name: str) -> None:
    # Not np.issubdtype: bfloat16 is floating for JAX but not for NumPy.
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point in [0, 1], got {array.dtype}; scale it to [0, 1] as float32")


def _checked_unit_range(array: np.ndarray | Array, name: str, *, remedy: str) -> np.ndarray:
    if array.size == 0:
        raise ValueError(f"{name} is empty: shape {list(array.shape)}; every side must be at least 1")
    if isinstance(array, Tracer):
        raise TypeError(f"{name} must be a concrete array, got a traced one; draw and resize outside of jit")
    values = np.asarray(array).astype(np.float32)
    low, high = float(values.min()), float(values.max())  # a NaN anywhere makes both NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise ValueError(f"{name} must be finite, got {count} values that are NaN or infinite")
    if low < -SLACK or high > 1 + SLACK:
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}{remedy}")
    return np.clip(values, 0, 1, out=values)


def _shape_remedy(shape: tuple[int, ...], name: str, channels: int) -> str:
    if len(shape) == 4:
        return f"; pass one picture of the batch: {name}[0]"
    if channels == 1 and len(shape) == 2:
        return f"; add the axis of the one channel: {name}[..., None]"
    if channels == 1 and shape[-1:] == (3,):
        return f"; make a grey picture of it: {name}.mean(-1, keepdims=True)"
    if channels != 3:
        return ""
    if len(shape) == 3 and shape[0] == 3:
        return "; move the channels last with np.moveaxis(array, 0, -1)"
    if len(shape) == 2 or shape[-1:] == (1,):
        return "; repeat a grey picture three times along a last axis"
    if shape[-1:] == (4,):
        return "; drop the alpha channel or composite it first (jaxcam.read_image does)"
    return ""


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")

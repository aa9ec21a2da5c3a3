"""Picture -> the input a network was trained on: resize, centre crop, normalise.

Contract: the arithmetic of torchvision's transforms on Pillow images, Resize(int), CenterCrop(int), ToTensor,
Normalize, so that torchvision checkpoints see exactly what they were trained on. Resizing works on 8-bit
pixels, as there; a picture that was read from an 8-bit file loses nothing. Everything is channels-last.
"""

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jax import Array
from jax import numpy as jnp
from jaxtyping import Float
from PIL import Image

from jaxcam.checks import check_integer
from jaxcam.images.picture import checked_picture, floats_of, from_pillow, interpolation_filter, opaque, to_pillow
from jaxcam.images.reading import Reduced, read_reduced

AnyArray = TypeVar("AnyArray", np.ndarray, Array)
Channels = tuple[int | float, ...]
"""One number for a network of grey pictures `[H, W, 1]`, three for R, G and B."""


def resize_and_crop(
    image: Float[np.ndarray, "H W 3"] | Float[Array, "H W 3"],
    *,
    resize: int | None,
    crop: int | None,
    interpolation: str = "bilinear",
) -> Float[np.ndarray, "h w 3"]:
    """The part of the picture that the network sees, still in [0, 1].

    The shorter side becomes `resize` and the longer one int(resize · long / short). The crop of `crop` by
    `crop` pixels begins at round((H - crop) / 2) and round((W - crop) / 2), halves rounded to even.

    Args:
        image: `[H, W, 3]`, floating point, in [0, 1].
        resize: the shorter side in pixels; None leaves the size (and the exact values) alone.
        crop: the sides of the centre crop in pixels; None keeps everything.
        interpolation: "nearest", "box", "bilinear", "bicubic" or "lanczos"; all but "nearest" average over
            the source pixels when they shrink.

    Raises:
        TypeError: image is not floating point (uint8: divide by 255), or a size is not an int.
        ValueError: image is not `[H, W, 3]`, empty, not finite or not in [0, 1]; a size is below 1; the crop
            is larger than the resized picture (torchvision would add a black border, which the maps would
            then explain); the resized picture would have more than `PIL.Image.MAX_IMAGE_PIXELS` pixels; the
            interpolation is unknown.

    **Source**: torchvision.transforms.functional, `resize` and `center_crop`.
    """
    _check_sizes(resize, crop)
    method = interpolation_filter(interpolation)
    return _seen_part(checked_picture(image), resize, crop, method)


def read_view(path: str | os.PathLike[str], preprocessing: "Preprocessing") -> tuple[np.ndarray, tuple[int, int]]:
    """`preprocessing.view(read_image(path))` to the last bit, and the height and width of the whole picture.

    For a network of grey pictures a coloured one becomes grey as Pillow does it (ITU-R 601-2).

    It stays in 8 bits until it has its size, which takes less than half the time. A JPEG file of more than 6 times the
    network's size is not decoded whole (`reading.read_reduced`): there the view may differ by 2 of 255.

    Raises:
        Exception: what `read_image` and `resize_and_crop` raise.
    """
    found = read_reduced(path, preprocessing.resize)
    if preprocessing.is_grey and found.picture.mode not in ("L", "I;16", "I"):
        found = found._replace(picture=opaque(found.picture).convert("L"))
    return view_of_picture(found, preprocessing), (found.height, found.width)


def view_of_picture(picture: Image.Image | Reduced, preprocessing: "Preprocessing") -> Float[np.ndarray, "h w d"]:
    """The view of a picture that `read_picture` or `read_reduced` has read."""
    method = interpolation_filter(preprocessing.interpolation)
    seen = _seen_part(picture, preprocessing.resize, preprocessing.crop, method)
    return seen[..., :1] if preprocessing.is_grey else seen


def larger_view(
    picture: Image.Image | Reduced, preprocessing: "Preprocessing", size: int
) -> Float[np.ndarray, "h w d"]:
    """The same part of the picture with `size` pixels a side, where the network sees it in one size, else as it is.

    A network may see 64 pixels; a person would rather see the picture.
    """
    return view_of_picture(picture, _enlarged(preprocessing, size))


def read_for_views(path: str | os.PathLike[str], preprocessing: "Preprocessing", size: int) -> Reduced:
    """A picture read for its view and its larger view: no more of it than the larger one of the two needs."""
    wanted = (preprocessing.resize, _enlarged(preprocessing, size).resize)
    return read_reduced(path, None if preprocessing.resize is None else max(side for side in wanted if side))


def _enlarged(preprocessing: "Preprocessing", size: int) -> "Preprocessing":
    resize, crop = preprocessing.resize, preprocessing.crop
    if resize is None or crop is None:
        return preprocessing
    return replace(preprocessing, resize=max(size, round(resize * size / crop)), crop=size)


class Frame(NamedTuple):
    """How a whole picture becomes what the network sees: its new size, and the part of that which is kept."""

    new_height: int
    new_width: int
    top: int
    left: int
    bottom: int
    right: int


def frame_of(height: int, width: int, resize: int | None, crop: int | None) -> Frame:
    """The frame for a picture of that size; Raises as `resize_and_crop`."""
    new_height, new_width = (height, width) if resize is None else _resized_shape(height, width, resize)
    if crop is None:
        return Frame(new_height, new_width, 0, 0, new_height, new_width)
    if crop > min(new_height, new_width):
        raise ValueError(
            f"crop must fit into the picture, got crop={crop} for a picture [{new_height}, {new_width}]"
            f"{'' if resize is None else f' (after resize={resize})'}; use resize={crop} or more, "
            f"or a crop of at most {min(new_height, new_width)}"
        )
    top, left = round((new_height - crop) / 2), round((new_width - crop) / 2)
    return Frame(new_height, new_width, top, left, top + crop, left + crop)


def normalise(
    image: Float[AnyArray, "*batch H W d"], *, mean: Channels, std: Channels
) -> Float[AnyArray, "*batch H W d"]:
    """(image - mean) / std for each channel, in image's dtype; traceable, for one picture or a batch.

    Args:
        image: `[..., H, W, d]` of d = 3 or 1 channels, floating point, in [0, 1] (the range is not checked: it may be
            traced).
        mean: the channel means, in the same units.
        std: the standard deviations.

    Raises:
        TypeError: image is not floating point.
        ValueError: image has not as many channels; mean or std are not three finite numbers, or one; std is not
            positive.
    """
    means, deviations = _checked_colours(mean, std)
    _check_batch(image, len(means))
    return (image - _per_channel(means, image)) / _per_channel(deviations, image)


def preprocess(
    image: Float[np.ndarray, "H W 3"] | Float[Array, "H W 3"],
    *,
    resize: int | None,
    crop: int | None,
    mean: Channels,
    std: Channels,
    interpolation: str = "bilinear",
) -> Float[np.ndarray, "h w 3"]:
    """The network input: `resize_and_crop`, then `normalise`; float32 `[h, w, 3]`.

    Args and Raises are those of the two functions.

    **Source**: torchvision.transforms, Resize, CenterCrop, ToTensor and Normalize on Pillow images.
    """
    return Preprocessing(resize=resize, crop=crop, mean=mean, std=std, interpolation=interpolation)(image)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network expects of its input: a hashable value, callable on a picture `[H, W, 3]` in [0, 1].

    `preprocessing(image)` = `preprocessing.normalise(preprocessing.view(image))`. By default
    nothing changes.

    Attributes:
        resize: the shorter side after resizing in pixels, or None.
        crop: the sides of the centre crop in pixels, or None.
        mean: the channel means that are subtracted; a single one for a network of grey pictures `[H, W, 1]`.
        std: the channel standard deviations that are divided by.
        interpolation: see `resize_and_crop`.
    """

    resize: int | None = None
    crop: int | None = None
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _check_sizes(self.resize, self.crop)
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise ValueError(
                f"crop must be at most resize, got crop={self.crop} and resize={self.resize}; "
                "raise resize or lower crop"
            )
        interpolation_filter(self.interpolation)
        mean, std = _checked_colours(self.mean, self.std)
        # A list or an array of three would make the value unhashable.
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    @property
    def is_grey(self) -> bool:
        """Whether pictures have one channel."""
        return len(self.mean) == 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def __call__(self, image: Float[np.ndarray, "H W d"] | Float[Array, "H W d"]) -> Float[np.ndarray, "h w d"]:
        """The network input, float32 `[h, w, 3]`; `[h, w, 1]` for grey pictures."""
        return self.normalise(self.view(image))

    def view(self, image: Float[np.ndarray, "H W d"] | Float[Array, "H W d"]) -> Float[np.ndarray, "h w d"]:
        """The part of the picture that the network sees, float32 in [0, 1]: what to lay a heatmap over."""
        options = {"resize": self.resize, "crop": self.crop}
        if not self.is_grey:
            return resize_and_crop(image, **options, interpolation=self.interpolation)
        # All three channels of a grey picture are resized alike.
        coloured = np.repeat(checked_picture(image, channels=1), 3, axis=-1)
        return resize_and_crop(coloured, **options, interpolation=self.interpolation)[..., :1]

    def normalise(self, image: Float[AnyArray, "*batch H W d"]) -> Float[AnyArray, "*batch H W d"]:
        """(image - mean) / std, traceable; for pictures that have their size already."""
        return normalise(image, mean=self.mean, std=self.std)

    def denormalise(self, inputs: Float[AnyArray, "*batch H W d"]) -> Float[AnyArray, "*batch H W d"]:
        """Inputs · std + mean: the inverse of `normalise`, traceable."""
        _check_batch(inputs, len(self.mean))
        return inputs * _per_channel(self.std, inputs) + _per_channel(self.mean, inputs)


def _seen_part(
    picture: np.ndarray | Image.Image | Reduced, resize: int | None, crop: int | None, method: Image.Resampling
) -> Float[np.ndarray, "h w 3"]:
    found = Reduced.whole(picture) if isinstance(picture, Image.Image) else picture
    frame = frame_of(*_height_and_width(found), resize, crop)
    corners = (frame.left, frame.top, frame.right, frame.bottom)
    if resize is not None:
        whole, box = (opaque(found.picture), found.box) if isinstance(found, Reduced) else (to_pillow(found), None)
        return from_pillow(whole.resize((frame.new_width, frame.new_height), method, box=box).crop(corners))
    if isinstance(found, Reduced):
        return floats_of(found.picture.crop(corners))
    return found if crop is None else found[frame.top : frame.bottom, frame.left : frame.right].copy()


def _height_and_width(picture: np.ndarray | Reduced) -> tuple[int, int]:
    return (picture.height, picture.width) if isinstance(picture, Reduced) else picture.shape[:2]


def _resized_shape(height: int, width: int, resize: int) -> tuple[int, int]:
    short, long = min(height, width), max(height, width)
    new_long = int(resize * long / short)  # truncated, as torchvision does
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and resize * new_long > limit:
        raise ValueError(
            f"resize={resize} would turn the picture [{height}, {width}] into {resize * new_long:,} pixels "
            f"(limit {limit:,}); crop it to a less extreme shape first"
        )
    return (resize, new_long) if height <= width else (new_long, resize)


def _check_sizes(resize: object, crop: object) -> None:
    for name, size in (("resize", resize), ("crop", crop)):
        if size is not None:
            check_integer(name, size, low=1, hint=": give pixels, or None to leave the picture as it is")


def _checked_colours(mean: Any, std: Any) -> tuple[Channels, Channels]:
    means, deviations = _checked_channels(mean, "mean"), _checked_channels(std, "std")
    if min(deviations) <= 0:
        raise ValueError(f"std must be positive in every channel, got {deviations}; use 1.0 to leave a channel alone")
    if len(means) != len(deviations):
        raise ValueError(
            f"mean and std must be of as many channels but are {means} and {deviations}: give both for a grey picture, "
            "or for R, G and B"
        )
    return means, deviations


def _checked_channels(values: Any, name: str) -> Channels:
    try:
        numbers = tuple(float(value) for value in values)
    except TypeError as error:
        raise TypeError(f"{name} must be three numbers, one for each channel, got {values!r}") from error
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f"{name} must be three finite numbers, one for each of R, G, B, or one for grey pictures, got {numbers}"
        )
    return numbers


def _check_batch(image: Any, channels: int) -> None:
    if not isinstance(image, np.ndarray | Array) or not jnp.issubdtype(image.dtype, jnp.floating):
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"image must be a floating-point array [..., H, W, 3], got {kind}; divide uint8 by 255")
    if image.ndim < 3 or image.shape[-1] != channels:
        raise ValueError(f"image must have shape [..., H, W, {channels}], channels last, got {list(image.shape)}")


def _per_channel(values: Channels, image: np.ndarray | Array) -> np.ndarray:
    # Explicit dtype and rank: nothing is promoted, for JAX arrays under strict promotion too.
    return np.asarray(values, image.dtype).reshape((1,) * (image.ndim - 1) + (len(values),))


IMAGENET = Preprocessing(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What torchvision's ImageNet classifiers were trained on."""

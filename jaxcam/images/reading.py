"""Image file -> float picture `[H, W, 3]` in [0, 1] -> normalised network input.

Contract: `read_image` decodes in 8 bits (grey in up to 16), turns the picture upright by its EXIF
orientation, lays transparency over white and returns RGB as stored: colour profiles are not applied. What is
wrong with an argument or with a file's contents is a ValueError (TypeError for the wrong kind of argument);
what the operating system refuses is a FileNotFoundError or PermissionError. Every message is one line that
names the file. No warning leaves this module. Several threads may read at once.

Whatever the file, the process takes at most 1.5 GiB and about 5 seconds of the processor's time, or there is a
ValueError that says so: a picture of the most pixels allowed is 1 GiB of floats, and stays in 8 bits as long as it can.

Not checked: flipped bits inside a file of full length, which most decoders show as wrong pixels without
an error.
"""

import math
import os
import stat
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from jaxcam.images.exif import orientation
from jaxcam.images.limits import STEP, LimitError, Timed, check_metadata, check_size, check_webp
from jaxcam.images.picture import floats_of

# Only these decoders are tried: Pillow knows dozens more, among them some that start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_FORMAT_NAMES = "JPEG, PNG, WebP, BMP or GIF"

# EXIF orientation -> what makes the picture upright (1 is upright already).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS, _RIGHT_FIRST, _BOTTOM_FIRST = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


_SPARE = 3
"""A photograph of so many times the wanted size is not decoded whole: what is left is averaged by the resizing."""


class Reduced(NamedTuple):
    """A picture that may have been decoded smaller than it is, and how large it is."""

    picture: Image.Image
    height: int
    width: int
    box: tuple[float, float, float, float]
    """Where the whole picture lies in it, left, upper, right and lower: of its last pixels a part may lie beyond."""

    @classmethod
    def whole(cls, picture: Image.Image) -> "Reduced":
        """One that has its size."""
        return cls(picture, picture.height, picture.width, (0, 0, picture.width, picture.height))


class _Silence(threading.local):
    """Stands where a warning filter has the pattern of a text: fits every text in a thread that is reading a file.

    `warnings.catch_warnings` is not for threads: it exchanges the filters of all of them, and when two threads leave
    it in another order than they came, the filters of the first stay for good.
    """

    is_on = False

    def match(self, _: str) -> bool:
        return self.is_on


_SILENCE = _Silence()
_FILTER = ("ignore", _SILENCE, Warning, None, 0)


def read_image(path: str | os.PathLike[str]) -> Float[np.ndarray, "H W 3"]:
    """The picture in an image file.

    JPEG, PNG, WebP, BMP and GIF (the first frame), recognised by their contents, not by their names. Grey
    becomes three equal channels, 16-bit grey is divided by 65535, CMYK is converted by Pillow, and colours c
    with opacity a become a·c + (1 - a) (white behind).

    Args:
        path: the file.

    Returns:
        float32 `[H, W, 3]` in [0, 1], the right way up.

    Raises:
        TypeError: path is not a path.
        FileNotFoundError: there is no such file.
        PermissionError: the file may not be read.
        ValueError: path is a folder or a device; the file is empty, truncated, damaged, of another format, has
            more than `PIL.Image.MAX_IMAGE_PIXELS` pixels (found out before any pixel is decoded), or takes more
            than 5 seconds to decode.
    """
    return floats_of(read_picture(path))


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """The picture upright, as Pillow holds it: `picture.floats` and `picture.opaque` know all that this can be.

    Raises as `read_image`.
    """
    return read_reduced(path, None).picture


def read_reduced(path: str | os.PathLike[str], shortest: int | None) -> Reduced:
    """The same for somebody who wants a shorter side of so many pixels.

    A JPEG file of more than 6 times that is decoded at 1/2, 1/4 or 1/8 of its size, by the lowest frequencies of its
    blocks, with at least 3 times what is wanted left. Of 8000 by 6000 pixels that is half of the time, and 13 MiB in
    the place of 192 (tests/benchmarks/large_photographs.py).

    Raises as `read_image`.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or a pathlib.Path, got {type(path).__name__}")
    name = f"image file {os.fspath(path)!r}"
    if "\0" in str(path):
        raise ValueError(f"{name} is not a path: it contains a null character; check how it was put together")
    with _opened(Path(path), name) as stream:
        try:
            return _decoded(stream, shortest)
        except Image.DecompressionBombError as error:
            raise ValueError(
                f"{name} has too many pixels to be decoded safely (limit {Image.MAX_IMAGE_PIXELS:,}); "
                "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from error
        except LimitError as error:
            raise ValueError(f"{name} {error} and is not read: save it anew, as PNG or JPEG") from error
        except UnidentifiedImageError as error:
            raise ValueError(
                f"{name} is not a {_FORMAT_NAMES} file, or its first bytes are damaged; "
                "convert it to PNG or get a new copy"
            ) from error
        except MemoryError:
            raise
        # Decoders raise nearly anything on damaged bytes: OSError, SyntaxError, struct.error, IndexError ..
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name} is truncated or damaged ({reason}); get a new copy of it") from error


def _opened(path: Path, name: str) -> BinaryIO:
    try:
        _check_regular(path.stat(), name)
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{name} does not exist; check the path") from error
    except PermissionError as error:
        raise PermissionError(f"{name} may not be read; change its permissions") from error
    except OSError as error:
        raise ValueError(f"{name} could not be opened ({error.strerror}); check the path") from error


def _check_regular(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{name} is a folder; name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is a pipe or a device; save the picture to a file first")
    if not status.st_size:
        raise ValueError(f"{name} is empty (0 bytes); get a new copy of it")


def _decoded(stream: BinaryIO, shortest: int | None) -> Reduced:
    check_size(os.fstat(stream.fileno()).st_size)
    timed = Timed(stream)
    check_metadata(timed)
    with _no_warnings():
        image = Image.open(timed, formats=_FORMATS)  # type: ignore[arg-type]
    # Pillow only warns between its limit and twice its limit, and refuses above; here the limit is the limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError
    height, width = image.height, image.width
    if image.format == "JPEG":
        image.decodermaxblock = STEP
        if shortest is not None:
            image.draft(None, (_SPARE * shortest, _SPARE * shortest))
    if image.format == "WEBP":
        check_webp(image.width * image.height)
    image.load()
    # What Pillow keeps beside the pixels, of WebP 12 bytes for each of them.
    for name in ("fp", "_decoder"):
        if hasattr(image, name):
            setattr(image, name, None)
    scale = 2 ** round(math.log2(width / image.width))
    turned = orientation(image.info)
    if turned in _UPRIGHT:
        stored, image = image, image.transpose(_UPRIGHT[turned])
        stored.close()
    if turned in _SIDEWAYS:
        height, width = width, height
    left = image.width - width / scale if turned in _RIGHT_FIRST else 0
    upper = image.height - height / scale if turned in _BOTTOM_FIRST else 0
    return Reduced(image, height, width, (left, upper, left + width / scale, upper + height / scale))


@contextmanager
def _no_warnings() -> Generator[None]:
    filters: list[object] = warnings.filters  # type: ignore[assignment]  # the list itself, of all threads
    # It stays there, and does nothing in a thread that reads no file: taking it out while another thread goes through
    # the list could make that skip one.
    if filters[:1] != [_FILTER]:
        filters.insert(0, _FILTER)
    _SILENCE.is_on = True
    try:
        yield
    finally:
        _SILENCE.is_on = False

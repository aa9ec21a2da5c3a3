"""Writing a picture, or several that move, to a file, whole or not at all.

Contract: at every moment the path holds either what it held before or the complete new file. A wrong argument
is a TypeError or ValueError; what the operating system refuses is an OSError (FileNotFoundError,
PermissionError). Every message is one line that names the file.

Not promised: that the new name survives a power cut right after the call (the folder is not flushed, the
bytes are).
"""

import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jaxcam.checks import check_number
from jaxcam.files import replace_file
from jaxcam.images.picture import over_white, to_pillow

# Suffix -> Pillow's format and options. JPEG keeps colour at full resolution: panels have small coloured
# text.
_JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 92, "subsampling": 0})
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ("WEBP", {"quality": 92}),
}


def save(picture: Image.Image | Sequence[Image.Image], path: str | os.PathLike[str], *, fps: int | float = 8) -> None:
    """Write the picture; the format follows from the suffix: .png, .jpg, .jpeg or .webp, in either case.

    Several pictures of one size, such as `jaxcam.pictures.frames` makes, move: an animated .webp that starts over and
    over again. (A viewer cannot tell a frame from one before it that is the same: WebP stores one that stays longer.)

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take the path's
    place in one step. If anything fails, KeyboardInterrupt included, the temporary file is removed and the
    path is left as it was. A new file gets the permissions that the umask leaves it, an existing one keeps
    its own; a symbolic link stays one, and the file it points to is replaced. JPEG has no transparency: it is
    laid over white.

    Args:
        picture: a Pillow image, or a sequence of them.
        path: the file to write; its folder must exist.
        fps: frames a second of pictures that move, above 0, at most 1000.

    Raises:
        TypeError: picture is not a Pillow image, or path is not a path.
        ValueError: the suffix is none of those, or not .webp for several pictures; path is a folder or a device; the
            format cannot hold the picture (JPEG: more than 65,535 pixels on a side; WebP: 16,383); several pictures are
            none, or of different sizes; fps is out of range.
        FileNotFoundError: the folder does not exist.
        PermissionError: the folder or the existing file may not be written.
        OSError: writing failed, for example because the disk is full.
    """
    pictures = (
        [picture] if isinstance(picture, Image.Image) else [*picture] if isinstance(picture, Sequence) else [picture]
    )
    for each in pictures:
        if not isinstance(each, Image.Image):
            raise TypeError(
                f"picture must be a PIL.Image.Image, got {type(each).__name__}; draw a heatmap with jaxcam.overlay, a "
                "gradient with jaxcam.gradient_picture, and see PIL.Image.fromarray"
            )
    sizes = sorted({each.size for each in pictures})
    if len(sizes) != 1:
        raise ValueError(f"pictures that move must be one or more of one size but are {len(pictures)} of sizes {sizes}")
    check_number("fps", fps, above=0, high=1000)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or a pathlib.Path, got {type(path).__name__}")
    name = f"{os.fspath(path)!r}"
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS or "\0" in str(path):
        raise ValueError(f"cannot tell the format of {name} by its suffix; end the name in {', '.join(_FORMATS)}")
    if len(pictures) > 1 and suffix != ".webp":
        raise ValueError(f"cannot write {len(pictures)} pictures that move to {name}: end the name in .webp")
    data = _encoded(pictures, suffix, name, fps)
    target = Path(os.path.realpath(path))
    try:
        _check_target(target, name)
        replace_file(target, data)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"cannot write {name}: its folder does not exist; make it first") from error
    except PermissionError as error:
        raise PermissionError(f"cannot write {name}: permission denied; choose another folder") from error
    except OSError as error:
        raise OSError(f"cannot write {name}: {error.strerror or error}; choose another place") from error


def _encoded(pictures: Sequence[Image.Image], suffix: str, name: str, fps: int | float) -> bytes:
    file_format, options = _FORMATS[suffix]
    buffer, picture = io.BytesIO(), pictures[0]
    if len(pictures) > 1:
        # When each frame ends, in whole milliseconds: the rounding of single ones would add up.
        ends = [round(1000 * i / fps) for i in range(len(pictures) + 1)]
        durations = [end - start for start, end in itertools.pairwise(ends)]
        options = {**options, "save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    try:
        flat = _without_transparency(picture) if file_format == "JPEG" else picture
        flat.save(buffer, format=file_format, **options)
    # In memory no operating system is involved: whatever an encoder raises is about the picture.
    except Exception as error:
        raise ValueError(
            f"cannot write {name}: {file_format} cannot hold a picture of mode {picture.mode} and "
            f"{picture.width} by {picture.height} pixels ({error}); use PNG, or convert or shrink the picture"
        ) from error
    return buffer.getvalue()


def _without_transparency(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        return to_pillow(over_white(picture))
    return picture.convert("RGB") if picture.mode == "P" else picture


def _check_target(target: Path, name: str) -> None:
    if target.exists():
        if not target.is_file():
            raise ValueError(f"cannot write {name}: it is a folder or a device; add a file name")
        if not os.access(target, os.W_OK):
            # A writable folder would allow the replacement, but the file itself says no.
            raise PermissionError

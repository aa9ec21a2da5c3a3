"""What a file may make a decoder do: seconds, bytes, and how much there may be beside the picture.

Decoders ask a file for more again and again, and here is where they are stopped: a JPEG of 80 kB can hold thousands of
scans of a large picture, or be looked through byte by byte by Python.
"""

import re
import time
from typing import Any, BinaryIO

from PIL import Image

from jaxcam.images.exif import claimed_bytes

SECONDS = 5.0
"""Of the processor's time for one file: a hundred times what a photograph takes."""
STEP = 1024
"""Bytes that the decoder of JPEG is given at a time, as the clock is looked at in between."""
_MOST_METADATA = 2**24
_MOST_WEBP = 2**26
_SPARE = 2**20
# JPEG: anything, 0xFF at least once, and what tells which marker it is.
_MARKER = re.compile(rb"[^\xff]*\xff+([^\xff])", re.DOTALL)
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_ALONE = {0x00, 0x01, *range(0xD0, 0xDA)}
"""Markers without a length."""


class LimitError(Exception):
    """A file asks for too much; its text says of what."""


class Timed:
    """A file that can be read until `SECONDS` of this thread's time have gone."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = time.thread_time() + SECONDS

    def read(self, size: int = -1) -> bytes:
        """Bytes of the file.

        Raises:
            LimitError: the time is over.
        """
        if time.thread_time() > self._end:
            raise LimitError(f"takes more than {SECONDS:g} seconds to decode")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_size(size: int) -> None:
    """Of a file: more than 16 bits for each of three channels of the largest picture is too much."""
    pixels = Image.MAX_IMAGE_PIXELS
    if pixels is not None and size > 6 * pixels + _SPARE:
        raise LimitError(f"has {size:,} bytes, more than a picture of {pixels:,} pixels needs,")


def check_webp(pixels: int) -> None:
    """Of a picture: the decoder has two canvases of it, a copy of one, and Pillow's own pixels at the same time."""
    if pixels > _MOST_WEBP:
        raise LimitError(f"has {pixels:,} pixels, of which WebP allows {_MOST_WEBP:,} in 1.5 GiB,")


def check_metadata(stream: Timed) -> None:
    """What a JPEG file has before its picture, which Pillow keeps in memory, and the EXIF block in it, which it reads.

    Raises:
        LimitError: there is more than any camera writes.
    """
    exif, is_whole = b"", True
    # All of it in one piece only where it has to be: after a large piece of memory malloc keeps what is freed.
    for size in (2**20, _MOST_METADATA):
        data = stream.read(size)
        stream.seek(0)
        if data[:2] != b"\xff\xd8":
            return
        exif, is_whole = _exif(data)
        if is_whole or len(data) < size:
            break
    else:
        raise LimitError(f"has more than {_MOST_METADATA:,} bytes of metadata")
    if claimed_bytes(exif) > _MOST_METADATA:
        raise LimitError("has an EXIF block of more bytes than it has")


def _exif(data: bytes) -> tuple[bytes, bool]:
    """The EXIF block in the beginning of a JPEG file, and whether its picture begins there too."""
    exif = bytearray()
    at = 2
    while found := _MARKER.match(data, at):
        marker, at = found[1][0], found.end()
        if marker == _START_OF_SCAN:
            return bytes(exif), True
        if marker in _ALONE:
            continue
        end = at + int.from_bytes(data[at : at + 2])
        if marker == _APP1 and data.startswith(b"Exif\0\0", at + 2):
            exif += data[at + 8 : end]
        at = max(end, at + 2)
    return bytes(exif), False

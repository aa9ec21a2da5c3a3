"""The orientation that a file gives its picture, read with bounds of its own.

Pillow reads all fields of an EXIF block, each of which may claim the whole block: of 16 MiB it would make a terabyte.

**Source**: Exif 2.32, 4.5 and 4.6.2 (TIFF 6.0, section 2); Adobe XMP, "tiff:Orientation".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_ORIENTATION = 0x0112
_ORDERS = {b"II*\0": "little", b"MM\0*": "big"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of a value by its type."""
_XMP = re.compile(r'tiff:Orientation(?:="|>)([0-9])')


class _Entry(NamedTuple):
    """A field of an EXIF block."""

    tag: int
    size: int
    """In bytes, as it claims."""
    value: int
    """Of a whole number that stands alone."""


def orientation(info: Mapping[Any, Any]) -> int:
    """How a picture lies in its file, 1 to 8, from what Pillow found beside it; 1 if nothing that can be read says so.

    Args:
        info: of the Pillow image.
    """
    found = [entry.value for entry in _entries(_block(info)) if entry.tag == _ORIENTATION]
    if found:
        return found[-1]
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or ""
    match = _XMP.search(xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp))
    return 1 if match is None else int(match[1])


def claimed_bytes(block: bytes) -> int:
    """How much memory its fields would take."""
    return sum(entry.size for entry in _entries(block))


def _block(info: Mapping[Any, Any]) -> bytes:
    block, text = info.get("exif"), info.get("Raw profile type exif")
    if block is None and text is not None:  # as ImageMagick writes it into PNG: three lines, and digits
        try:
            block = bytes.fromhex("".join(str(text).split("\n")[3:]))
        except ValueError:
            block = None
    return block if isinstance(block, bytes) else b""


def _entries(block: bytes) -> Iterator[_Entry]:
    block = block.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(block[:4])

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], order)  # type: ignore[arg-type]

    if order is None:
        return
    start = number(4, 4) + 2
    for at in range(start, min(start + 12 * number(start - 2, 2), len(block) - 11), 12):
        kind = number(at + 2, 2)
        yield _Entry(number(at, 2), _SIZES.get(kind, 0) * number(at + 4, 4), number(at + 8, _SIZES.get(kind, 0)))

"""PASCAL VOC annotations: a folder with an XML file for each image, as ImageNet's localisation task has them too.

Contract: a bndbox is in pixels counted from 1, both corners inclusive: x0 = xmin - 1 and x1 = xmax. The class of an
image is that of its largest box by area. "difficult" and "truncated" objects count; parts of objects do not. Files
with a document type or entity declarations are refused: they can make a small file expand without bounds.

**Source**: The PASCAL Visual Object Classes Challenge 2012 development kit, section 5.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from jaxcam.datasets.entries import Entry, entry_boxes, entry_file, entry_size
from jaxcam.tables import shown


def voc_entries(folder: Path, source: str) -> list[Entry]:
    """An entry for each XML file in the folder and its subfolders, sorted by path.

    Raises:
        ValueError: there is none, or something is wrong in one; the message names it.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml" and path.is_file())
    if not paths:
        raise ValueError(f"annotations {source!r} are a folder without any .xml file; for JSON name the file itself")
    return [_entry(path, repr(str(path))) for path in paths]


def _entry(path: Path, where: str) -> Entry:
    root = _parsed(path.read_bytes(), where)
    if root.tag != "annotation":
        raise ValueError(f"{where}: the outermost element must be <annotation>, got <{shown(root.tag)}>")
    objects = root.findall("object")
    names = [_text(element, "name", f"{where}, object {i}") for i, element in enumerate(objects)]
    boxes = [_box(element, f"{where}, object {i} ({shown(names[i])})") for i, element in enumerate(objects)]
    has_size = root.find("size") is not None
    height, width = (_number(root, f"size/{name}", where) if has_size else None for name in ("height", "width"))
    return Entry(
        entry_file(root.findtext("filename") or path.stem, where),
        where,
        entry_size(height, width, where),
        label=None,
        imagenet_index=None,
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        box_labels=tuple(names),
        label_is_largest_box=True,
    )


def _parsed(data: bytes, where: str) -> ElementTree.Element:
    # In UTF-16 or UTF-32 the declarations could not be found by their letters.
    if b"\0" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{where}: the file must be in UTF-8 or another encoding that contains ASCII")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError(f"{where}: document types and entity declarations are refused; remove them from the file")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{where} is not valid XML ({shown(str(error), 200)})") from error


def _box(element: ElementTree.Element, where: str) -> np.ndarray:
    corners = [_number(element, f"bndbox/{name}", where) for name in ("xmin", "ymin", "xmax", "ymax")]
    return entry_boxes([[corners[0] - 1, corners[1] - 1, corners[2], corners[3]]], where)


def _number(element: ElementTree.Element, path: str, where: str) -> float:
    text = _text(element, path, where)
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: {path} must be a number, got {text!r:.60}") from error


def _text(element: ElementTree.Element, path: str, where: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"{where}: <{path}> is missing or empty")
    return text

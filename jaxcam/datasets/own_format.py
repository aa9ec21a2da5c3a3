"""Annotations of our own: a JSON list of images.

    [{"file": "cats/one.jpg", "label": "tabby", "boxes": [[x0, y0, x1, y1], ..], "width": 500, "height": 375}, ..]

Contract: "file" is relative to the folder of images. "label" is a class index or a name; "imagenet_index" (or the
first of "imagenet_indices") is an ImageNet class that models with 1,000 classes use instead of the name. Boxes are in
pixels, half-open; "box_labels" gives each its own class, an index or a name, or null for the image's. All keys but
"file" may be missing; other keys are ignored, but for those that look like a slip. Entries with the same file and class
are one image with the boxes of all; a file with several classes is an image for each.
"""

from typing import Any

import numpy as np

from jaxcam.checks import is_integer
from jaxcam.datasets.entries import Entry, entry_boxes, entry_file, entry_size, malformed
from jaxcam.tables import shown

_SLIPS = {
    "box": "boxes", "bbox": "boxes", "bboxes": "boxes", "bounding_boxes": "boxes", "class": "label", "lable": "label",
    "labels": "label", "category": "label", "filename": "file", "file_name": "file", "image": "file", "path": "file",
}  # fmt: skip


def own_entries(content: list[Any], source: str) -> list[Entry]:
    """The entries of the list.

    Raises:
        ValueError: something is wrong in an entry; the message names it.
    """
    found: dict[Any, Entry] = {}
    for i, item in enumerate(content):
        entry = _entry(item, f"{source!r}, entry {i}")
        key = (entry.file, entry.label, entry.imagenet_index, entry.size)
        found[key] = _merged(found[key], entry) if key in found else entry
    return list(found.values())


def _entry(item: Any, where: str) -> Entry:
    if not isinstance(item, dict):
        raise malformed(f"{where} must be an object with the keys file, label, boxes; got {item!r:.60}")
    for slip, meant in _SLIPS.items():
        if slip in item and meant not in item:
            raise malformed(f"{where} has the key {slip!r}: call it {meant!r}")
    file = entry_file(item.get("file"), where)
    where = f"{where} ({shown(repr(file))})"
    indices = item.get("imagenet_indices")
    if indices is not None and not isinstance(indices, list):
        raise malformed(f"{where}: imagenet_indices must be a list of indices, got {indices!r:.60}")
    imagenet_index = item.get("imagenet_index", indices[0] if indices else None)
    if imagenet_index is not None and not is_integer(imagenet_index):
        raise ValueError(f"{where}: the ImageNet index must be an integer, got {imagenet_index!r:.60}")
    label = _label(item.get("label"), f"{where}: label")
    boxes = entry_boxes(item.get("boxes") or [], where)
    size = entry_size(item.get("height"), item.get("width"), where)
    return Entry(file, where, size, label, imagenet_index, boxes, _box_labels(item, len(boxes), where))


def _merged(a: Entry, b: Entry) -> Entry:
    """Two entries about one image, as of tools that write one for each object."""
    labels = None
    if a.box_labels is not None or b.box_labels is not None:
        labels = tuple(label for e in (a, b) for label in e.box_labels or (None,) * len(e.boxes))
    return a._replace(boxes=np.concatenate([a.boxes, b.boxes]), box_labels=labels)


def _box_labels(item: dict[str, Any], num: int, where: str) -> tuple[str | int | None, ...] | None:
    given = item.get("box_labels")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != num:
        raise malformed(f"{where}: box_labels must be a list of {num}, one a box, got {given!r:.60}")
    return tuple(_label(name, f"{where}: box_labels") for name in given)


def _label(label: Any, name: str) -> str | int | None:
    if not (label is None or isinstance(label, str) or is_integer(label)):
        raise malformed(f"{name} must be a class index or a name, got {label!r:.60}")
    return label

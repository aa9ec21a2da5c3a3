"""Annotation files -> what they say about each image, checked.

Contract: `read_annotations` recognises a list of our own (`own_format`), COCO instances (`coco`) and a folder of PASCAL
VOC files (`voc`). Everything in the files is checked when they are read: a ValueError
names the file and the entry. Class names become indices in `resolved`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcam.datasets.class_index import ClassIndex
from jaxcam.datasets.coco import coco_entries
from jaxcam.datasets.entries import Entry
from jaxcam.datasets.examples import UNKNOWN, Truth
from jaxcam.datasets.own_format import own_entries
from jaxcam.datasets.voc import voc_entries
from jaxcam.files import read_regular
from jaxcam.tables import shown


class Annotations(NamedTuple):
    """What an annotation file or folder says.

    Attributes:
        source: the path as given.
        kind: "own", "coco" or "voc".
        entries: one for each image that anything is known about, in the order of the file.
        num_empty: images that are listed without any label or box, and left out.
        num_without_masks: entries some of whose instances have no mask that can be read, and which so have none.
    """

    source: str
    kind: str
    entries: tuple[Entry, ...]
    num_empty: int
    num_without_masks: int


def read_annotations(path: str | os.PathLike[str]) -> Annotations:
    """The annotations in a JSON file or in a folder of PASCAL VOC files.

    Raises:
        TypeError: path is not a path.
        FileNotFoundError: there is no such file or folder.
        ValueError: what is there is not in one of the formats, or an entry is wrong.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"annotations must be a path, got {type(path).__name__}")
    place, source = Path(path), os.fspath(path)
    if not source:
        raise ValueError("annotations is an empty path: give the name of a file or a folder, or leave it out")
    if not place.exists():
        raise FileNotFoundError(f"annotations {source!r} do not exist; check the path")
    if place.is_dir():
        kind, entries = "voc", voc_entries(place, source)
    else:
        content = _json(place, source)
        if isinstance(content, list):
            kind, entries = "own", own_entries(content, source)
        elif isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
            kind, entries = "coco", coco_entries(content, source)
        else:
            raise ValueError(
                f"{source!r} is neither a list of entries (each with file, label, boxes) nor a COCO object (with "
                "images, annotations and categories)"
            )
    saying = tuple(entry for entry in entries if entry.says_something)
    return Annotations(
        source=source,
        kind=kind,
        entries=saying,
        num_empty=len(entries) - len(saying),
        num_without_masks=sum(entry.regions is None and len(entry.boxes) > 0 for entry in saying),
    )


def resolved(annotations: Annotations, classes: ClassIndex) -> list[Truth]:
    """The truth of every entry, with class indices instead of names.

    Raises:
        ValueError: an index is out of range, or none of the names is a class of the model.
    """
    truths = [_truth(entry, classes) for entry in annotations.entries]
    classes.require_some(repr(annotations.source))
    return truths


def _truth(entry: Entry, classes: ClassIndex) -> Truth:
    try:
        label = classes.index(entry.label, imagenet_index=entry.imagenet_index)
        if entry.box_labels is None:
            box_classes: Sequence[int] = [label] * len(entry.boxes)
        else:
            box_classes = [label if name is None else classes.index(name) for name in entry.box_labels]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{entry.where}: {error}") from error
    if entry.label_is_largest_box:
        areas = np.prod(entry.boxes[:, 2:] - entry.boxes[:, :2], axis=1)
        label = box_classes[int(np.argmax(areas))] if len(areas) else UNKNOWN
    return Truth(label, entry.boxes, np.array(box_classes, np.int32), entry.regions, entry.size)


def _json(path: Path, source: str) -> Any:
    try:
        return json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        hint = "; for PASCAL VOC name the folder of the XML files" if path.suffix.lower() == ".xml" else ""
        raise ValueError(f"annotations {source!r} are not valid JSON ({shown(str(error), 200)}){hint}") from error

"""COCO instance annotations: one JSON object with images, annotations and categories.

Contract: a bbox is x, y, width, height. The class of an image is that of its largest box by area. Crowds (iscrowd) are
left out, as in COCO's own evaluation. Masks are drawn from polygons and uncompressed runs; an image with an instance of
compressed runs or without segmentation has boxes only. Images without annotations have nothing to say.

**Source**: cocodataset.org, "Data format", object detection.
"""

from typing import Any

import numpy as np

from jaxcam.checks import is_integer
from jaxcam.datasets.entries import Entry, entry_boxes, entry_file, entry_size, is_number, malformed
from jaxcam.datasets.regions import Polygons, Region, Runs
from jaxcam.tables import shown

_LIMITS = (-1e15, 1e15)  # of coordinates


def coco_entries(content: dict[str, Any], source: str) -> list[Entry]:
    """An entry for each image.

    Raises:
        ValueError: something is wrong; the message names the list and the place in it.
    """
    images = _by_id(content, "images", source)
    categories = _by_id(content, "categories", source)
    of_image: dict[Any, list[tuple[str, dict[str, Any]]]] = {key: [] for key in images}
    for where, annotation in _objects(content, "annotations", source):
        if "segments_info" in annotation:
            raise malformed(f"{where}: these are COCO panoptic annotations; instance annotations are needed")
        for key in ("image_id", "category_id"):
            _require_id(annotation.get(key), f"{where}: {key}")
        if annotation.get("image_id") not in images:
            raise malformed(f"{where}: there is no image with the id {annotation.get('image_id')!r:.60}")
        if annotation.get("category_id") not in categories:
            raise malformed(f"{where}: there is no category with the id {annotation.get('category_id')!r:.60}")
        if not annotation.get("iscrowd"):
            of_image[annotation["image_id"]].append((where, annotation))
    names = {key: _category_name(*category) for key, category in categories.items()}
    return [_entry(*images[key], of_image[key], names) for key in images]


def _entry(
    where: str, image: dict[str, Any], annotations: list[tuple[str, dict[str, Any]]], names: dict[Any, str]
) -> Entry:
    file = entry_file(image.get("file_name"), where)
    size = entry_size(image.get("height"), image.get("width"), where)
    boxes = [_box(annotation.get("bbox"), place) for place, annotation in annotations]
    regions = [_region(annotation.get("segmentation"), size, place) for place, annotation in annotations]
    drawable = tuple(region for region in regions if region is not None)
    return Entry(
        file,
        f"{where} ({shown(repr(file))})",
        size,
        label=None,
        imagenet_index=None,
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        box_labels=tuple(names[annotation["category_id"]] for _, annotation in annotations),
        label_is_largest_box=True,
        regions=drawable if drawable and len(drawable) == len(regions) else None,
    )


def _box(bbox: Any, where: str) -> np.ndarray:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value, *_LIMITS) for value in bbox):
        raise malformed(f"{where}: bbox must be four numbers: x, y, width, height; got {bbox!r:.60}")
    x, y, width, height = bbox
    return entry_boxes([[x, y, x + width, y + height]], where)


def _region(segmentation: Any, size: tuple[int, int] | None, where: str) -> Region | None:
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        return Polygons(tuple(_outline(outline, where) for outline in segmentation))
    if not isinstance(segmentation, dict):
        raise malformed(f"{where}: segmentation must be a list of polygons, or an object with size and counts")
    return _runs(segmentation.get("counts"), segmentation.get("size"), size, where)


def _runs(counts: Any, shape: Any, size: tuple[int, int] | None, where: str) -> Runs | None:
    if isinstance(counts, str):
        return None  # compressed
    if not isinstance(counts, list) or not all(isinstance(n, int) and 0 <= n < 2**31 for n in counts):
        raise malformed(f"{where}: the counts of the segmentation must be a list of lengths, got {counts!r:.60}")
    if not isinstance(shape, list) or len(shape) != 2:
        raise malformed(f"{where}: the size of the segmentation must be height, width; got {shape!r:.60}")
    if size is None or tuple(shape) != size:
        raise malformed(f"{where}: the segmentation is of the size {shape!r:.60}, the image of {list(size or ())}")
    if sum(counts) != size[0] * size[1]:
        raise malformed(f"{where}: the runs of the segmentation make {sum(counts)} pixels, not {size[0] * size[1]}")
    return Runs(np.array(counts, np.int64))


def _outline(outline: Any, where: str) -> np.ndarray:
    numbers = isinstance(outline, list) and all(is_number(value, *_LIMITS) for value in outline)
    if not numbers or len(outline) < 6 or len(outline) % 2:
        raise malformed(
            f"{where}: a polygon must be a list x, y, x, y, .. of three corners or more; got {outline!r:.60}"
        )
    return np.array(outline, np.float64).reshape(-1, 2)


def _category_name(where: str, category: dict[str, Any]) -> str:
    name = category.get("name")
    if not isinstance(name, str):
        raise malformed(f"{where}: the category's name is missing, got {name!r:.60}")
    return name


def _by_id(content: dict[str, Any], kind: str, source: str) -> dict[Any, tuple[str, dict[str, Any]]]:
    found: dict[Any, tuple[str, dict[str, Any]]] = {}
    for where, item in _objects(content, kind, source):
        key = item.get("id")
        _require_id(key, f"{where}: id")
        if key in found:
            raise malformed(f"{where}: the id {key!r:.60} occurs twice")
        found[key] = (where, item)
    return found


def _objects(content: dict[str, Any], kind: str, source: str) -> list[tuple[str, dict[str, Any]]]:
    items = content[kind]
    if not isinstance(items, list):
        raise malformed(f"{source!r}: {kind} must be a list, got {type(items).__name__}")
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise malformed(f"{source!r}, {kind}[{i}] must be an object, got {item!r:.60}")
    return [(f"{source!r}, {kind}[{i}]", item) for i, item in enumerate(items)]


def _require_id(key: Any, name: str) -> None:
    if not (isinstance(key, str) or is_integer(key)):
        raise malformed(f"{name} must be a number, got {key!r:.60}")

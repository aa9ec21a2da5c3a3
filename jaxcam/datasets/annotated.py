"""Image files and annotations about them, brought together."""

import os
from typing import Any

from jaxcam.datasets.annotations import read_annotations, resolved
from jaxcam.datasets.class_index import ClassIndex
from jaxcam.datasets.examples import printable
from jaxcam.datasets.image_files import ImageFile, matched
from jaxcam.datasets.items import Item
from jaxcam.tables import shown


def annotated_items(
    files: list[ImageFile], path: str | os.PathLike[str], classes: ClassIndex, *, is_folder: bool
) -> tuple[list[Item], dict[str, Any]]:
    """The images that the annotations say something about, in their order, and figures for the description.

    A file that occurs several times is an item each time. What is annotated and not in a folder is a bad item; what is
    not in a list of files was not asked for.

    Raises:
        ValueError: the annotations are wrong, or do not fit the files or the model.
    """
    annotations = read_annotations(path)
    if not annotations.entries:
        raise ValueError(f"annotations {annotations.source!r} name no image with a class or a box")
    truths = resolved(annotations, classes)
    meant = matched([entry.file for entry in annotations.entries], files)
    if not any(meant):
        raise ValueError(
            f"none of the files that {annotations.source!r} names is in the data set: "
            f"{', '.join(shown(repr(entry.file)) for entry in annotations.entries[:3])} ..; is it the right folder?"
        )
    items: list[Item] = []
    times: dict[str, int] = {}
    for entry, truth, file in zip(annotations.entries, truths, meant, strict=True):
        if file is None and not is_folder:
            continue
        name = printable(entry.file if file is None else file.name)
        times[name] = times.get(name, 0) + 1
        name = name if times[name] == 1 else f"{name} #{times[name]}"
        if file is None:
            annotated = f"{shown(repr(entry.file))} is annotated ({entry.where})"
            error = f"{annotated}, but there is no such image file in the data set"
            items.append(Item(len(items), name, None, truth, error))
        else:
            items.append(Item(len(items), name, file.path, truth))
    used = {file.name for file in meant if file is not None}
    return items, {
        "annotations": printable(annotations.source),
        "annotation_format": annotations.kind,
        "num_files_without_annotation": sum(file.name not in used for file in files),
        "num_annotations_without_content": annotations.num_empty,
        "num_files_missing": sum(file is None for file in meant) if is_folder else 0,
        "num_images_with_boxes_but_no_masks": annotations.num_without_masks,
        "unknown_class_names": {shown(name): number for name, number in classes.unknown.most_common(20)},
        "num_unknown_class_names": len(classes.unknown),
    }

"""What `evaluate` is given as a data set -> views by number.

Contract: a `Source` says what it is (`description`, for the protocol and for resuming), how many items it has, and
makes the views of any of them, in the order asked for. Image files are decoded ahead by threads; pictures in memory
and generated ones are seen to by the caller's. What is wrong with one item becomes a bad view; what is wrong with the
whole, an annotation file included, is an exception before the first view.

What is in the pictures is part of the description as far as it can be had at once: the pixels of pictures in a list or
an array, the sizes of files. Not checked: the pictures of an iterable, of which only `description`, if it has one, is
known.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from jaxcam.checks import check_integer
from jaxcam.datasets.annotated import annotated_items
from jaxcam.datasets.class_index import ClassIndex
from jaxcam.datasets.decoding import checked_num_workers, views_of
from jaxcam.datasets.examples import UNKNOWN, Example, View, is_path, one_line, printable
from jaxcam.datasets.fingerprint import checked_description, content, fingerprint
from jaxcam.datasets.image_files import files_in, files_of
from jaxcam.datasets.items import Item, item_of
from jaxcam.datasets.prepared import Prepared
from jaxcam.images.preprocessing import Preprocessing


class Source(ABC):
    """A data set that can be read by number.

    Attributes:
        description: JSON-able: kind, number of items, and what else tells it from others.
        length: the number of items; None if that is not known before the end.
    """

    description: dict[str, Any]
    length: int | None

    @property
    def knows(self) -> frozenset[str]:
        """Of "boxes", "frames" (boxes in each frame) and "masks" which there are.

        Of items that would have to be drawn or read first, as of the first.
        """
        truths = [item.truth for item in self._looked_at()]
        boxes = {("boxes", "frames")[truth.boxes.ndim - 2] for truth in truths if len(truth.boxes)}
        return frozenset(boxes) | {"masks" for truth in truths if truth.masks is not None and len(truth.box_classes)}

    @property
    def may_have_labels(self) -> bool:
        """Whether a true class is known, or may be, of items that would have to be drawn or read first."""
        return True

    def first(self) -> Item:
        """The first item that is not bad.

        Raises:
            ValueError: there is none.
        """
        assert self.length is not None
        return _first(self._items(iter(range(self.length))))

    def _looked_at(self) -> Iterable[Item]:
        return self._items(iter([0]))

    def views(
        self,
        indices: Iterable[int],
        *,
        preprocessing: Preprocessing | Prepared,
        num_workers: int | None = None,
        prefetch: int | None = None,
    ) -> Generator[View]:
        """The views of some of the items, in the order of the indices.

        Close the generator, or go to its end, to end the threads (`contextlib.closing`).

        Args:
            indices: from 0 to below the length; increasing if the length is None.
            preprocessing: of the network; or what inputs are like that are prepared for it.
            num_workers: threads that decode image files; 0: the caller's; by default one a core, at most 4.
            prefetch: how many images to decode ahead; by default 4 for each thread.

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: num_workers or prefetch is out of range; an index is (when its turn comes).
            Exception: what an iterable data set raises itself, after which it has no more items.
        """
        if not isinstance(preprocessing, Preprocessing | Prepared):
            raise TypeError(f"preprocessing must be a jaxcam.images.Preprocessing but is {preprocessing!r}")
        if prefetch is not None:
            check_integer("prefetch", prefetch, low=1)
        workers = checked_num_workers(num_workers)
        items = self._items(self._checked(indices))
        return views_of(items, preprocessing=preprocessing, num_workers=workers, prefetch=prefetch)

    @abstractmethod
    def _items(self, indices: Iterator[int]) -> Iterator[Item]:
        """The items at the indices, pictures not yet looked at."""

    def _checked(self, indices: Iterable[int]) -> Iterator[int]:
        for index in indices:
            if index < 0 or (self.length is not None and index >= self.length):
                last = "" if self.length is None else f" to {self.length - 1}"
                raise ValueError(f"the data set has items from 0{last}, there is no item {index}")
            yield int(index)


def source_of(
    dataset: Any,
    *,
    annotations: str | os.PathLike[str] | None = None,
    classes: Mapping[Any, Any] | None = None,
    class_names: Sequence[str] = (),
    is_prepared: bool = False,
) -> Source:
    """The source for what the user gives.

    Args:
        dataset: a folder of images; a sequence of paths, pictures, pairs (picture or path, label) or Examples; any
            other object with `__len__` and `__getitem__` that gives such items; or any other iterable of them.
        annotations: a JSON file (our own, COCO) or a folder of PASCAL VOC files about the images of a folder or of a
            sequence of paths. Only images that it says something about are evaluated.
        classes: names in the annotations -> class indices or names of the model.
        class_names: of the model; empty: not known.
        is_prepared: whether the items are inputs that are prepared for the model, and no pictures.

    Raises:
        TypeError: dataset or another argument is of the wrong kind.
        FileNotFoundError: there is no such folder or annotation.
        ValueError: there are no images; or the annotations are wrong, or do not fit the images or the model.
    """
    names = tuple(class_names)
    if classes is not None and annotations is None:
        raise ValueError("classes says what the names in annotations mean; without annotations leave it out")
    if is_path(dataset):
        described: dict[str, Any] = {"kind": "folder", "path": printable(os.fspath(dataset))}
        files = files_in(_folder(dataset))
        if annotations is None:
            return Listed([Item(i, printable(file.name), file.path) for i, file in enumerate(files)], described)
    elif annotations is not None:
        described, files = {"kind": "files"}, files_of(_paths(dataset))
    else:
        return _source_of_items(dataset, len(names) or None, is_prepared)
    is_folder = described["kind"] == "folder"
    items, about = annotated_items(files, annotations, ClassIndex(classes, names), is_folder=is_folder)
    return Listed(items, described | about)


_ItemOf = Callable[[int, Any], Item]


def _source_of_items(dataset: Any, num_classes: int | None, is_prepared: bool) -> Source:
    _check_kind(dataset, is_prepared)
    item: _ItemOf = partial(item_of, num_classes=num_classes, is_prepared=is_prepared)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        return Iterated(dataset, item)
    if not len(dataset):
        raise ValueError("the data set must have one example or more but is empty")
    if type(dataset) is np.ndarray or isinstance(dataset, Array):  # what is mapped into memory is not read here
        dataset = list(np.asarray(dataset))
    if not isinstance(dataset, list | tuple):
        return Indexed(dataset, item)
    items = [item(i, given) for i, given in enumerate(dataset)]
    return Listed(items, {"kind": "sequence", **checked_description(dataset)})


class Listed(Source):
    """Items that are all there before the first is looked at: files, or what stands in a list."""

    def __init__(self, items: list[Item], described: dict[str, Any]) -> None:
        self._all = items
        self.length = len(items)
        self.description = {
            **described,
            "number": self.length,
            "fingerprint": fingerprint(items),
            "content": content(item.image for item in items),
        }

    @property
    def may_have_labels(self) -> bool:
        """Whether a true class is known."""
        return any(item.truth.label != UNKNOWN for item in self._all)

    def _looked_at(self) -> Iterable[Item]:
        return self._all

    def _items(self, indices: Iterator[int]) -> Iterator[Item]:
        return (self._all[index] for index in indices)


class Indexed(Source):
    """Anything with a length whose items can be had by number, which may mean to draw or decode them."""

    def __init__(self, dataset: Any, item: _ItemOf) -> None:
        self._dataset = dataset
        self._item = item
        self.length = len(dataset)
        described = {"kind": "sequence", **checked_description(dataset), "number": self.length}
        self.description = {**described, "fingerprint": fingerprint([Item(0, repr(sorted(described.items())))])}

    def _items(self, indices: Iterator[int]) -> Iterator[Item]:
        for index in indices:
            try:
                given = self._dataset[index]
            except Exception as error:
                yield Item(index, f"image {index}", error=f"the data set gives no item: {one_line(error)}")
            else:
                yield self._item(index, given)


class Iterated(Source):
    """Anything else that can be iterated over, once or again and again."""

    def __init__(self, dataset: Iterable[Any], item: _ItemOf) -> None:
        self._dataset = dataset
        self._item = item
        self.length = None
        # An iterator can be gone through once: a second call to `views` goes on where the first one stopped.
        self._once: Iterator[tuple[int, Any]] | None = enumerate(dataset) if isinstance(dataset, Iterator) else None
        self._next = 0
        self.description = {"kind": "iterable", **checked_description(dataset), "number": None, "fingerprint": None}

    @property
    def knows(self) -> frozenset[str]:
        """Unknown before the end, so there may be."""
        return frozenset({"boxes", "masks"})

    def first(self) -> Item:
        """The first that is not bad; what was looked at of an iterator is put back."""
        given, looked = enumerate(self._dataset) if self._once is None else self._once, list[tuple[int, Any]]()

        def items() -> Iterator[Item]:
            for pair in given:
                looked.append(pair)
                yield self._item(*pair)

        try:
            return _first(items())
        finally:
            if self._once is not None:
                self._once = chain(looked, given)

    def _items(self, indices: Iterator[int]) -> Iterator[Item]:
        given = enumerate(self._dataset) if self._once is None else self._once
        position = 0 if self._once is None else self._next
        for index in indices:
            if index < position:
                raise ValueError(
                    f"item {index} of the data set has gone by: it is read from the front to the end, and is at item "
                    f"{position}; ask for increasing numbers, or give a list, which can be read in any order"
                )
            position = self._next = index + 1
            found = next((pair for pair in given if pair[0] == index), None)
            if found is None:
                return
            yield self._item(*found)


def _first(items: Iterator[Item]) -> Item:
    bad: list[Item] = []
    for item in items:
        if item.error is None:
            return item
        bad = [*bad[:1], item]
    if not bad:
        raise ValueError("dataset: there is no example in it")
    raise ValueError(f"dataset: none of its examples can be used; {bad[0].name}: {bad[0].error}")


def _folder(path: str | os.PathLike[str]) -> Path:
    if not os.fspath(path):
        raise ValueError("the data set is an empty path: give the name of a folder")
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"the data set {str(path)!r} does not exist; check the path")
    if not folder.is_dir():
        raise ValueError(f"the data set {str(path)!r} is a file; give its folder, or a list of image files")
    return folder


def _paths(dataset: Any) -> list[Any]:
    paths: list[Any] = list(dataset) if isinstance(dataset, Sequence) else []
    if not paths or not all(is_path(path) for path in paths):
        raise ValueError(
            "annotations are about image files: the data set must be a folder or a list of paths; put the truth "
            "about pictures in memory into jaxcam.Example(image, label=.., boxes=..)"
        )
    return paths


def _check_kind(dataset: Any, is_prepared: bool) -> None:
    if isinstance(dataset, Mapping) and is_prepared:
        raise TypeError(
            f"the data set must be a sequence of examples but is a {type(dataset).__name__}: of arrays that share n "
            "make n dictionaries, [jax.tree.map(lambda array: array[i], arrays) for i in range(n)]"
        )
    if isinstance(dataset, Mapping | AbstractSet | bytes | bytearray):
        raise TypeError(f"the data set must be a sequence, got a {type(dataset).__name__}, which has no order of items")
    if isinstance(dataset, Example):
        raise TypeError("the data set is one Example; give a list of them: [example]")
    shape = getattr(dataset, "shape", None)
    if is_prepared and shape is not None and len(shape) < 3:
        raise ValueError(
            f"an array as a data set must be [n, *spatial, d], got {list(shape)}; put one input into a list, [series], "
            "and add the channels' axis to inputs with one value a position: array[..., None]"
        )
    if not is_prepared and shape is not None and len(shape) != 4:
        raise ValueError(
            f"an array as a data set must be [n, H, W, 3], or [n, H, W, 1] of grey pictures, got {list(shape)}; put "
            "one picture into a list, [picture], and give grey ones their axis with array[..., None]"
        )
    if not isinstance(dataset, Iterable) and not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            "the data set must be a folder, a sequence or an iterable of paths, pictures, pairs (picture, label) or "
            f"jaxcam.Example, got {type(dataset).__name__}"
        )

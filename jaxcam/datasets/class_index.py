"""The class names of an annotation file as indices of the model's classes.

Contract: a name is looked up in the mapping that the user gave and then among the model's names: as it is, then
without regard to case, then by the parts of comma-separated lists of synonyms on either side. A step counts only if
exactly one class answers; a name that nobody knows, or that several classes share, is -1 and is counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcam.datasets.examples import UNKNOWN, checked_label
from jaxcam.tables import shown

_IMAGENET_CLASSES = 1000


class ClassIndex:
    """Looks up classes, and remembers what was not found.

    Attributes:
        num_known: how many look-ups gave a class.
        unknown: the names that gave none, with how often they occurred.
        num_classes: of the model; None if its names are not known.
    """

    def __init__(self, classes: Mapping[Any, Any] | None, class_names: Sequence[str]) -> None:
        """Takes the user's mapping (annotation name -> class index or name of the model) and the model's names.

        Raises:
            TypeError: classes is not a mapping, or a value is of the wrong kind.
            ValueError: a value of the mapping is not a class of the model.
        """
        self.num_known = 0
        self.unknown: Counter[str] = Counter()
        self.num_classes = len(class_names) or None
        self._model = (
            _table((name, i) for i, name in enumerate(class_names)),
            _table((name.casefold(), i) for i, name in enumerate(class_names)),
            _table((part, i) for i, name in enumerate(class_names) for part in _parts(name)),
        )
        if classes is not None and not isinstance(classes, Mapping):
            raise TypeError(
                "classes must be a mapping from names in the annotations to class indices or names of the model, "
                f"got {type(classes).__name__}"
            )
        self._given: dict[Any, int] = {key: self._value(key, value) for key, value in (classes or {}).items()}
        self._folded = _table((k.casefold(), v) for k, v in self._given.items() if isinstance(k, str))

    def index(self, label: str | int | None, *, imagenet_index: int | None = None) -> int:
        """The class of a label: an index is itself unless the mapping says otherwise.

        Args:
            label: a name, an index, or None.
            imagenet_index: an ImageNet class that the annotation gives beside the name; it is used for models of
                1,000 classes and where the model's names are not known.

        Raises:
            ValueError: an index is out of range.
        """
        found = self._found(label, imagenet_index)
        if found != UNKNOWN:
            self.num_known += 1
        elif isinstance(label, str):
            self.unknown[label] += 1
        return found

    def _found(self, label: str | int | None, imagenet_index: int | None) -> int:
        if label in self._given:
            return self._given[label]
        if isinstance(label, str) and len(given := self._folded.get(label.casefold(), set())) == 1:
            return next(iter(given))
        if imagenet_index is not None and self.num_classes in (None, _IMAGENET_CLASSES):
            return checked_label(imagenet_index, "the ImageNet index", _IMAGENET_CLASSES)
        if label is None:
            return UNKNOWN
        if isinstance(label, int):
            return checked_label(label, "label", self.num_classes)
        return self._of_model(label)

    def require_some(self, source: str) -> None:
        """Refuses annotations of which no class is known.

        Raises:
            ValueError: there were names, and nothing was a class of the model.
        """
        if not self.unknown or self.num_known:
            return
        names = ", ".join(shown(repr(name)) for name, _ in self.unknown.most_common(5))
        more = f" and {len(self.unknown) - 5} more" if len(self.unknown) > 5 else ""
        raise ValueError(
            f"none of the class names in {source} is a class of the model: {names}{more}; say which class each one is "
            f"with classes={{{shown(repr(next(iter(self.unknown))))}: class index or name of the model, ..}}"
        )

    def _of_model(self, name: str) -> int:
        exact, folded, parts = self._model
        for table, keys in ((exact, {name}), (folded, {name.casefold()}), (parts, _parts(name))):
            found = set[int]().union(*(table.get(key, ()) for key in keys))
            if found:
                return next(iter(found)) if len(found) == 1 else UNKNOWN
        return UNKNOWN

    def _value(self, key: object, value: Any) -> int:
        if not isinstance(value, str):
            return checked_label(value, f"classes[{key!r}]", self.num_classes)
        found = self._of_model(value)
        if found == UNKNOWN:
            raise ValueError(
                f"classes[{key!r}] is {value!r}, which is not the name of exactly one class of the model; "
                "give the index instead"
            )
        return found


def _table(pairs: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    table: dict[str, set[int]] = {}
    for name, index in pairs:
        table.setdefault(name, set()).add(index)
    return table


def _parts(name: str) -> set[str]:
    return {part.strip().casefold() for part in name.split(",") if part.strip()}

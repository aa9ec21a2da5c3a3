"""Generated scenes as a data set: any number of pictures with their truth, drawn when they are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np

from jaxcam.checks import check_integer
from jaxcam.datasets.examples import Example
from jaxcam.scenes.accepted import MAX_SIZE, MIN_SIZE, checked_int, checked_key
from jaxcam.scenes.drawing import CHUNK, contents_at, draw_chunks, pair_contents, scene_contents
from jaxcam.scenes.parts import MAX_INSTANCES
from jaxcam.version import __version__


@dataclass(frozen=True)
class Dataset:
    """An immutable sequence of generated pictures with their truth, an `Example` each.

    Item i shows the scene of the key fold_in(key(seed), i), bit for bit that of `scenes.batch(seed, n)` at i, whatever
    else is asked for and in whatever order. Scenes are drawn in chunks of a fixed size, of which the last few are
    kept: memory does not grow with `num`. A slice is a Dataset of the same scenes, with the names that they had.

    Attributes:
        num: how many scenes.
        seed: from 0 to 2**32 - 1.
        num_instances: in all of them, from 1 to `MAX_INSTANCES`; random by default. Of kind "scene" only.
        kind: "scene" (instances of one class) or "pair" (two classes; the label is the first one's).
        size: the side of the pictures in pixels.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """

    num: int
    seed: int = field(default=0, kw_only=True)
    num_instances: int | None = field(default=None, kw_only=True)
    kind: Literal["scene", "pair"] = field(default="scene", kw_only=True)
    size: int = field(default=64, kw_only=True)
    _numbers: range | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        check_integer("num", self.num, low=1)
        check_integer("size", self.size, low=MIN_SIZE, high=MAX_SIZE)
        # No key: the seed is stored with the results.
        object.__setattr__(self, "seed", check_integer("seed", self.seed, low=0, high=2**32 - 1))
        if self.kind not in ("scene", "pair"):
            raise ValueError(f'kind must be "scene" or "pair"; got {self.kind!r}')
        if self.kind == "pair" and self.num_instances is not None:
            raise ValueError('num_instances belongs to kind="scene"; pairs have one or two of each class')
        checked_int(self.num_instances, "num_instances", 1, MAX_INSTANCES)
        if self._numbers is None:
            object.__setattr__(self, "_numbers", range(self.num))

    @property
    def description(self) -> dict[str, Any]:
        """What the results depend on, as JSON can hold it."""
        numbers = self._scenes
        whole = numbers == range(self.num)
        return {
            "kind": f"scenes.Dataset of kind {self.kind}",
            "num": self.num,
            "seed": self.seed,
            "num_instances": self.num_instances,
            "size": self.size,
            "jaxcam": __version__,
            **({} if whole else {"slice": [numbers.start, numbers.stop, numbers.step]}),
        }

    @property
    def _scenes(self) -> range:
        return range(self.num) if self._numbers is None else self._numbers

    def __len__(self) -> int:
        return len(self._scenes)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: Any) -> "Example | Dataset":
        if isinstance(index, slice):
            return Dataset(
                self.num,
                seed=self.seed,
                num_instances=self.num_instances,
                kind=self.kind,
                size=self.size,
                _numbers=self._scenes[index],
            )
        check_integer("the index of a Dataset", index, hint=": index it by an integer or a slice")
        if not -len(self) <= index < len(self):
            raise IndexError(f"the Dataset has {len(self)} scenes, there is no scene {index}")
        return self._example(self._scenes[int(index)])

    def __iter__(self) -> Iterator[Example]:
        return (self._example(number) for number in self._scenes)

    def _example(self, number: int) -> Example:
        length = chunk_length(self.size)
        chunk = _chunk(self.kind, self.seed, self.num_instances, self.size, number // length)
        image, label, classes, boxes, masks = (np.asarray(leaf[number % length]) for leaf in chunk)
        present = classes >= 0
        # Copies: a view would keep its whole chunk in memory.
        return Example(
            image=image.copy(),
            label=int(label),
            boxes=boxes[present].astype(np.float32),
            box_classes=classes[present],
            masks=masks[present],
            name=f"{self.kind} {number}",
        )


def chunk_length(size: int) -> int:
    """How many scenes are drawn at once: as `scenes.batch` does, since another number would round differently."""
    return max(1, CHUNK * 64 * 64 // size**2)


@lru_cache(maxsize=4)
def _chunk(kind: str, seed: int, num_instances: int | None, size: int, chunk: int) -> tuple[np.ndarray, ...]:
    length = chunk_length(size)
    index = np.arange(chunk * length, (chunk + 1) * length, dtype=np.uint32)
    given = None if num_instances is None else jnp.asarray(num_instances, jnp.int32)
    one, asked = (pair_contents, (None,)) if kind == "pair" else (scene_contents, (None, given))
    contents = contents_at(jnp.asarray(index), checked_key(seed), asked, one=one)
    return tuple(np.asarray(leaf) for leaf in draw_chunks(contents, size, length))

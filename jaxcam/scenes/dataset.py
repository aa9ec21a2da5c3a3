"""Generated scenes as a data set: any number of pictures with their truth, drawn when they are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.datasets.examples import Example
from jaxcam.scenes.accepted import checked_int, checked_key, checked_num, checked_size
from jaxcam.scenes.drawing import CHUNK, draw_chunks, pair_contents, scene_contents
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
        checked_num(self.num)
        checked_size(self.size)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an int, to be stored with the results; got {type(self.seed).__name__}")
        checked_key(self.seed, "seed")
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
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            raise TypeError(f"a Dataset is indexed by an int or a slice, got {type(index).__name__}")
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
    given = None if num_instances is None else jnp.asarray(num_instances, jnp.int32)
    first = jnp.asarray(chunk * length, jnp.uint32)
    contents = _contents(checked_key(seed), first, given, kind=kind, length=length)
    return tuple(np.asarray(leaf) for leaf in draw_chunks(contents, size, length))


@partial(jax.jit, static_argnames=("kind", "length"))
def _contents(key: Array, first: Array, num_instances: Array | None, *, kind: str, length: int) -> Any:
    def one(index: Array) -> Any:
        own = jax.random.fold_in(key, index)
        if kind == "pair":
            return pair_contents(own, None)
        return scene_contents(own, None, num_instances)

    return jax.vmap(one)(first + jnp.arange(length, dtype=jnp.uint32))

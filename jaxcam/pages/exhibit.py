"""What a page shows, as arrays: a picture or a clip, what is explained in it, and the maps. Pure: no model in it.

Contract: everything is checked here, so that a page that is written can be drawn. Maps are signed, as they are on the
feature grid; what is not finite is refused unless its status says so, and is then drawn as nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxcam.checks import check_integer
from jaxcam.explanation.explanation import Status
from jaxcam.pictures.values import colours

__all__ = ["Exhibit", "Maps"]

_UNKNOWN = (Status.NOT_FINITE, Status.NO_SUCH_CLASS)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """One method's maps at one layer, one for each thing that is explained.

    Attributes:
        values: `[m, *grid]`, signed, on the feature grid: `[m, i, j]`, or `[m, t, i, j]` of clips and volumes.
        title: the method's.
        layer: where they were made; empty for methods without one.
        status: `[m]` of `jaxcam.Status`; None: all of them OK.
        on_e: what is left of the confidence (or of the value) on the explanation map, by the number of the map; of
            those that it is known for.
        share: how much of the value a cell is, where it is known to be a share of it:

                share · sum of the cells + bias = value

            so that it is 1 where they add up, 1 / their number where the mean does. None: nothing is said of that.
        bias: `[m]`, with a share.
    """

    values: Any
    title: str
    layer: str = ""
    status: Any = None
    on_e: Mapping[int, float] = field(default_factory=dict[int, float])
    share: float | None = None
    bias: Any = None


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One picture or clip and all that is known about it.

    Attributes:
        picture: `[H, W]` or `[H, W, d]`; frames `[t, H, W, d]` where the maps have three axes.
            Numbers outside [0, 1] are drawn from the lowest to the highest. Its size is that of the drawing.
        names: of the m things that are explained: classes, or words in their order.
        maps: at least one; all of m maps.
        value: `[m]`: logits, or a target's scores.
        confidence: `[m]`, probabilities; None where there are none.
        label: what the picture is called.
        start: the number of the class that is shown first; None: the likeliest, or the first word.
        in_order: whether the names are words of a sentence, which is shown, and gone through in its order.
        num_classes: of how many classes these are the likeliest; None: they are all.
        value_name: what the value is: "logit", "score".
        frame_name: what the slider counts where there are several: "Frame", "Slice".

    Raises:
        TypeError: an array is none, or traced; a name is no string.
        ValueError: sizes do not fit each other; values are not finite; maps stand twice.
    """

    picture: Any
    names: Sequence[str]
    maps: Sequence[Maps]
    value: Any
    confidence: Any = None
    label: str = "picture"
    start: int | None = None
    in_order: bool = False
    num_classes: int | None = None
    value_name: str = "logit"
    frame_name: str = "Frame"

    def __post_init__(self) -> None:
        names = _strings("names", self.names)
        put = partial(object.__setattr__, self)
        put("names", names)
        put("value", _numbers("value", self.value, (len(names),)))
        put("confidence", None if self.confidence is None else _numbers("confidence", self.confidence, (len(names),)))
        given: Any = self.maps
        if not isinstance(given, Sequence) or not given or not all(isinstance(each, Maps) for each in given):
            raise TypeError(f"maps must be a list of jaxcam.pages.Maps(...), at least one, but is {_kind(given)}")
        put("maps", tuple(_checked(each, len(names)) for each in given))
        keys = [(each.title, each.layer) for each in self.maps]
        if len(set(keys)) < len(keys):
            raise ValueError(f"maps must differ in title or layer but are {keys}: give each a title of its own")
        axes = {each.values.ndim - 1 for each in self.maps}
        if len(axes) > 1:
            raise ValueError(f"maps must have as many axes as each other but have {sorted(axes)}")
        if axes == {3} and np.ndim(self.picture) != 4:
            raise ValueError(
                "picture must be frames [t, H, W, d], as the maps have three axes, but its shape is "
                f"{list(np.shape(self.picture))}"
            )
        frames = colours(self.picture, "H, W" if axes == {2} else "t, H, W", name="picture")
        put("picture", frames if frames.ndim == 4 else frames[np.newaxis])
        first = 0 if self.in_order else int(np.nanargmax(_ranked(self)))
        put("start", first if self.start is None else check_integer("start", self.start, low=0, high=len(names) - 1))
        total = len(names) if self.num_classes is None else self.num_classes
        put("num_classes", check_integer("num_classes", total, low=len(names)))


def _ranked(exhibit: Exhibit) -> np.ndarray:
    values = np.asarray(exhibit.value if exhibit.confidence is None else exhibit.confidence)
    return np.where(np.isfinite(values), values, -np.inf)


def _checked(maps: Maps, num: int) -> Maps:
    """The same as NumPy arrays; maps that are not known are zero."""
    name = f"maps of {maps.title!r}"
    values = _array(f"values of the {name}", maps.values)
    if values.ndim not in (3, 4) or len(values) != num or 0 in values.shape:
        raise ValueError(
            f"values of the {name} must be [{num}, i, j] or [{num}, t, i, j], one map for each name, but are "
            f"{list(values.shape)}"
        )
    status = np.zeros(num) if maps.status is None else _array(f"status of the {name}", maps.status)
    if status.shape != (num,) or not np.isin(status, [int(each) for each in Status]).all():
        raise ValueError(f"status of the {name} must be {num} of jaxcam.Status but is {list(status.shape)}")
    status = status.astype(np.uint8)
    known = ~np.isin(status, [int(each) for each in _UNKNOWN])
    if not np.isfinite(values[known]).all():
        raise ValueError(f"values of the {name} must be finite, or their status NOT_FINITE, but hold NaN or infinity")
    values = np.where(known.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)
    bias = None if maps.share is None else _numbers(f"bias of the {name}", maps.bias, (num,))
    wrong = [item for item in maps.on_e if not 0 <= item < num]
    if wrong:
        raise ValueError(f"on_e of the {name} must be of maps 0 to {num - 1} but has {wrong[0]}")
    return Maps(
        values=values,
        title=maps.title,
        layer=maps.layer,
        status=status,
        on_e={int(item): float(each) for item, each in sorted(maps.on_e.items())},
        share=None if maps.share is None else float(maps.share),
        bias=bias,
    )


def _strings(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"{name} must be a sequence of names, at least one, but is {_kind(values)}")
    for each in values:
        if not isinstance(each, str):
            raise TypeError(f"{name} must be strings but one is {each!r}")
    return tuple(values)


def _array(name: str, values: Any) -> np.ndarray:
    if isinstance(values, Tracer):
        raise TypeError(f"{name} must be concrete but is traced: make pages outside of jit")
    found = np.asarray(values)
    if found.dtype.kind not in "iuf":
        # bfloat16 and its kind are numbers of JAX's own.
        found = found.astype(np.float32) if found.dtype.kind == "V" else found
    if found.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers but is {_kind(values)}")
    return found


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """NaN is what is not known."""
    found = _array(name, values)
    if found.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, one for each name, but is {list(found.shape)}")
    return found


def _kind(value: Any) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, Sequence) and not value else type(value).__name__

"""timm's config.json: the preprocessing and class names that belong to a checkpoint. **Source**: timm.data.config.

Contract: a config comes from whoever made the file. Every field that is used is checked when it is asked for: what it
must be, what it is, and what to do about it, in a ValueError of one line; fields that are not used may hold anything.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from jaxcam.checks import is_integer
from jaxcam.images.picture import INTERPOLATIONS
from jaxcam.images.preprocessing import IMAGENET, Preprocessing
from jaxcam.tables import printable, shown

DIALECTS = ("torchvision", "timm", "tf")
_TIMM = replace(IMAGENET, interpolation="bicubic")
"""What fields that are missing mean."""
_MOST_PIXELS = 2**14  # on a side
_MOST_LETTERS = 1000  # of a class name; the longest of ImageNet has 131


def preprocessing(config: Mapping[str, Any], *, of: str) -> Preprocessing | None:
    """What `timm.data.resolve_data_config` and `create_transform` make of it; None if the config has nothing to say.

    The shorter side becomes floor(size / crop_pct), of which the centre `size` x `size` is taken.

    Args:
        config: the whole config.json.
        of: where it stands, for the message.

    Raises:
        ValueError: the picture is to be squashed to a square or framed instead of cropped, or an entry makes no sense.
    """
    own = _part(config, "pretrained_cfg", of)
    own = config if own is None else own
    if not ("input_size" in own or "preprocessing" in config):
        return None
    mode = own.get("crop_mode", "center")
    if mode not in (None, "center"):
        raise ValueError(
            f"weights: {of} wants pictures prepared with crop_mode={_value(mode)}, where jaxcam crops the "
            "centre: give preprocessing=jaxcam.images.Preprocessing(resize=..., crop=..., mean=..., std=...)"
        )
    saved = _part(config, "preprocessing", of)
    if saved is not None:  # of a file that jaxcam saved
        resize, crop = (_checked(saved, name, of, _is_side, _SIDE, default=None) for name in ("resize", "crop"))
        return _made(saved, of, resize=resize, crop=crop, default=Preprocessing())
    size = _checked(own, "input_size", of, _is_input_size, f"[3, size, size] with a size of at most {_MOST_PIXELS}")[-1]
    share = _checked(own, "crop_pct", of, lambda v: _is_number(v, 0.01, 1), "a number from 0.01 to 1", default=0.875)
    return _made(own, of, resize=math.floor(size / share), crop=size, default=_TIMM)


def class_names(config: Mapping[str, Any], num_classes: int, *, of: str) -> tuple[str, ...] | None:
    """Its `label_names`, one for each class, made printable; None if there are none.

    Raises:
        ValueError: they are no names, or not as many as there are classes.
    """
    own = _part(config, "pretrained_cfg", of) or {}
    fields = config if config.get("label_names") is not None else own
    expected = f"names for {num_classes} classes, of at most {_MOST_LETTERS} letters each"

    def fits(value: object) -> bool:
        return isinstance(value, list) and len(value) == num_classes and all(map(_is_name, value))

    names = _checked(fields, "label_names", of, fits, expected, default=None, remedy="give class_names=...")
    return None if names is None else tuple(map(printable, names))


def dialect(config: Mapping[str, Any], *, of: str) -> str | None:
    """Whose arithmetic the checkpoint is made for; see `Network.dialect`. None if the config does not say.

    Raises:
        ValueError: it names no such dialect.
    """
    remedy = "correct it"
    names = f"one of {', '.join(DIALECTS)}"
    named = _checked(config, "dialect", of, lambda v: v in DIALECTS, names, default=None, remedy=remedy)
    of_timm = _checked(config, "architecture", of, _is_name, "a name", default="", remedy=remedy)
    return named or ("tf" if of_timm.startswith("tf_") else None)


def _made(fields: Mapping[str, Any], of: str, *, default: Preprocessing, **sizes: int | None) -> Preprocessing:
    mean = _checked(fields, "mean", of, lambda v: _are_numbers(v, -1e30), "three numbers", default=default.mean)
    positive = "three numbers, positive in every channel,"
    std = _checked(fields, "std", of, lambda v: _are_numbers(v, 1e-30), positive, default=default.std)
    known, usual = f"one of {', '.join(INTERPOLATIONS)}", default.interpolation
    method = _checked(fields, "interpolation", of, lambda v: v in [*INTERPOLATIONS], known, default=usual)
    try:
        return Preprocessing(mean=tuple(mean), std=tuple(std), interpolation=method, **sizes)
    except ValueError as error:  # fields that are right each, but not together
        raise ValueError(f"weights: the config.json of {of} cannot be used ({error}): give preprocessing=...") from None


_REQUIRED: Any = object()


def _checked(
    fields: Mapping[str, Any],
    name: str,
    of: str,
    is_right: Callable[[Any], bool],
    expected: str,
    *,
    default: Any = _REQUIRED,
    remedy: str = "give preprocessing=...",
) -> Any:
    """A field's value, `default` where it is missing or null."""
    value = fields.get(name)
    if value is None and default is not _REQUIRED:
        return default
    if not is_right(value):
        raise ValueError(
            f"weights: the config.json of {of} cannot be used ({name} must be {expected} but is {_value(value)}): "
            + remedy
        )
    return value


_SIDE = f"a whole number of pixels, at most {_MOST_PIXELS}"


def _part(config: Mapping[str, Any], name: str, of: str) -> Mapping[str, Any] | None:
    return _checked(config, name, of, lambda v: isinstance(v, dict), "an object", default=None)


def _is_side(value: Any) -> bool:
    return is_integer(value) and 1 <= value <= _MOST_PIXELS


def _is_input_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and value[0] == 3 and _is_side(value[1]) and value[1] == value[2]


def _is_number(value: Any, low: int | float, high: int | float) -> bool:
    """NaN, infinity, true and integers that no float can hold are none."""
    return (is_integer(value) or isinstance(value, float)) and low <= value <= high


def _are_numbers(value: Any, low: float) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_number(number, low, 1e30) for number in value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_LETTERS


def _value(value: Any) -> str:
    """What a field is, for a message: of long lists only how long they are."""
    if isinstance(value, list | dict) and len(value) > 8:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return shown(repr(value))

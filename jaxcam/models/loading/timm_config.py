"""timm's config.json: the preprocessing and class names that belong to a checkpoint. **Source**: timm.data.config."""

import math
from collections.abc import Mapping
from typing import Any

from jaxcam.images.preprocessing import IMAGENET, Preprocessing


def preprocessing(config: Mapping[str, Any], *, of: str) -> Preprocessing | None:
    """What `timm.data.resolve_data_config` and `create_transform` make of it; None if the config has nothing to say.

    The shorter side becomes floor(size / crop_pct), of which the centre `size` x `size` is taken.

    Args:
        config: the whole config.json.
        of: where it stands, for the message.

    Raises:
        ValueError: the picture is to be squashed to a square or framed instead of cropped, or an entry makes no sense.
    """
    own = config.get("pretrained_cfg", config)
    if not isinstance(own, Mapping) or not ("input_size" in own or "preprocessing" in config):
        return None
    if own.get("crop_mode", "center") != "center":
        raise ValueError(
            f"weights: {of} wants pictures prepared with crop_mode={own['crop_mode']!r}, where jaxcam crops the "
            "centre: give preprocessing=jaxcam.images.Preprocessing(resize=..., crop=..., mean=..., std=...)"
        )
    try:
        if "preprocessing" in config:  # of a file that jaxcam saved
            saved: dict[str, Any] = dict(config["preprocessing"])
            saved.update({key: _channels(saved[key]) for key in ("mean", "std")})
            return Preprocessing(**saved)
        size = int(own["input_size"][-1])
        return Preprocessing(
            resize=math.floor(size / float(own.get("crop_pct") or 0.875)),
            crop=size,
            mean=_channels(own.get("mean")) or IMAGENET.mean,
            std=_channels(own.get("std")) or IMAGENET.std,
            interpolation=own.get("interpolation") or "bicubic",
        )
    except (TypeError, ValueError, LookupError, ZeroDivisionError) as error:
        raise ValueError(f"weights: the config.json of {of} cannot be used ({error}): give preprocessing=...") from None


def class_names(config: Mapping[str, Any], num_classes: int) -> tuple[str, ...] | None:
    """Its `label_names` if there is one for each class; None otherwise."""
    own = config.get("pretrained_cfg", config)
    names = config.get("label_names") or (own.get("label_names") if isinstance(own, Mapping) else None)
    if not isinstance(names, list) or len(names) != num_classes:
        return None
    return tuple(map(str, names))


def _channels(values: Any) -> tuple[float, float, float] | None:
    if values is None:
        return None
    red, green, blue = map(float, values)
    return red, green, blue

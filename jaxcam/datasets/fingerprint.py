"""What tells two data sets apart: a hash of names and truth, and what a data set says of itself."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcam.datasets.examples import NO_TRUTH
from jaxcam.datasets.items import Item
from jaxcam.datasets.regions import Region, Runs


def fingerprint(items: Iterable[Item]) -> str:
    """SHA-256 over the names of the items and their truths, or what is wrong with them, in their order."""
    digest = hashlib.sha256()
    for item in items:
        name, truth = item.name, item.truth
        if truth is NO_TRUTH and item.error is not None:
            _add(digest, name, item.error)
            continue
        size = None if truth.size is None else list(truth.size)
        _add(digest, name, truth.label, truth.boxes.tolist(), truth.box_classes.tolist(), size)
        for mask in () if truth.masks is None else truth.masks:
            digest.update(_mask_bytes(mask))
    return digest.hexdigest()


def content(images: Iterable[Any]) -> str:
    """SHA-256 over the pixels of pictures and inputs in memory, and the sizes of files, another of which passes."""
    digest = hashlib.sha256()
    for image in images:
        parts, structure = jax.tree.flatten(image)
        if structure != jax.tree.structure(0):  # several inputs, or none
            _add(digest, str(structure))
        _add_parts(digest, parts)
    return digest.hexdigest()


def _add_parts(digest: Any, images: Iterable[Any]) -> None:
    for image in images:
        if isinstance(image, str | os.PathLike):
            try:
                _add(digest, Path(image).stat().st_size)
            except OSError:
                _add(digest, None)
        elif hasattr(image, "shape") and hasattr(image, "dtype"):
            pixels = np.ascontiguousarray(np.asarray(image))
            _add(digest, str(pixels.dtype), list(pixels.shape))
            digest.update(pixels.tobytes())
        else:
            _add(digest, type(image).__name__)


def checked_description(dataset: Any) -> dict[str, Any]:
    """The data set's own `description`, if it has one.

    Raises:
        TypeError: it is not a mapping that JSON can hold.
    """
    own = getattr(dataset, "description", None)
    if not isinstance(own, Mapping):
        return {}
    try:
        return json.loads(json.dumps(dict(own), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the data set's description must hold only what JSON can hold ({error}); results are stored with it"
        ) from error


def _add(digest: Any, *values: Any) -> None:
    digest.update(json.dumps(values).encode() + b"\n")


def _mask_bytes(mask: np.ndarray | Region) -> bytes:
    if isinstance(mask, np.ndarray):
        return np.packbits(mask).tobytes()
    if isinstance(mask, Runs):
        return mask.lengths.tobytes()
    return b"".join(outline.tobytes() for outline in mask.outlines)

"""Which architecture a checkpoint is of, told by the names and shapes of its tensors."""

from collections.abc import Mapping

from jaxcam.models.architecture import BUFFERS, FAMILIES, MOST_CLASSES, Architecture
from jaxcam.models.weights import fits, shapes_of

_ENOUGH, _CERTAIN = 0.8, 0.95
"""Shares of tensors that agree: a ResNet with another head is still recognised, an unknown network is not."""


def look_alike(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The name of the architecture that most of the tensors fit, or None if there is none.

    Args:
        shapes: of the tensors, by torchvision's or timm's keys.
    """
    likeliest, best = None, _ENOUGH
    # By the marker first: to trace every network would take half a minute.
    for marker, family in FAMILIES.items():
        for architecture in family.values():
            given = {architecture.torchvision_key(key): tuple(shape) for key, shape in shapes.items()}
            if marker in given and (agreement := _agreement(architecture, given)) >= best:
                likeliest, best = architecture.name, agreement
                if best > _CERTAIN:
                    return likeliest
    return likeliest


def _agreement(architecture: Architecture, given: Mapping[str, tuple[int, ...]]) -> float:
    """How many tensors have the right name and shape, of those that either side has."""
    rows = given.get(f"{architecture.classifier}.weight", ())
    known = rows and 1 <= rows[0] <= MOST_CLASSES
    wanted = shapes_of(lambda: architecture.create(num_classes=rows[0] if known else architecture.num_classes))
    right = sum(key in given and fits(given[key], shape) for key, shape in wanted.items())
    own = {key for key in given if not key.endswith(BUFFERS)}
    return right / len(wanted.keys() | own)

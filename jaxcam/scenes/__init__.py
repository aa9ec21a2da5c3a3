"""Scenes: generated pictures with known truth: what is in them, where, and which pixels of it can be seen.

`scene` and `pair` draw one, `batch` many, `Dataset` as many as are asked for; `CLASS_NAMES` are the ten figures.
"""

from jaxcam.scenes.dataset import Dataset as Dataset
from jaxcam.scenes.drawing import Scene as Scene
from jaxcam.scenes.drawing import batch as batch
from jaxcam.scenes.drawing import pair as pair
from jaxcam.scenes.drawing import scene as scene
from jaxcam.scenes.figures import CLASS_NAMES as CLASS_NAMES
from jaxcam.scenes.parts import MAX_INSTANCES as MAX_INSTANCES

__all__ = ["CLASS_NAMES", "MAX_INSTANCES", "Dataset", "Scene", "batch", "pair", "scene"]


def __dir__() -> list[str]:
    return __all__

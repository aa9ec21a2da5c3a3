"""Scenes: generated inputs with known truth: what is in them, where, and which pixels of it can be seen.

Pictures: `scene` and `pair` draw one, `batch` many, `Dataset` any number; `CLASS_NAMES` are the ten figures.
The rest: `clip`, `series`, `volume`, `caption` and `question` draw one, `many` many of any of them.
"""

from jaxcam.scenes.dataset import Dataset as Dataset
from jaxcam.scenes.drawing import Scene as Scene
from jaxcam.scenes.drawing import batch as batch
from jaxcam.scenes.drawing import pair as pair
from jaxcam.scenes.drawing import scene as scene
from jaxcam.scenes.figures import CLASS_NAMES as CLASS_NAMES
from jaxcam.scenes.many import many as many
from jaxcam.scenes.motion import Clip as Clip
from jaxcam.scenes.motion import clip as clip
from jaxcam.scenes.parts import MAX_INSTANCES as MAX_INSTANCES
from jaxcam.scenes.questions import QUESTION_KINDS as QUESTION_KINDS
from jaxcam.scenes.questions import Question as Question
from jaxcam.scenes.questions import question as question
from jaxcam.scenes.sentences import Caption as Caption
from jaxcam.scenes.sentences import caption as caption
from jaxcam.scenes.signals import PATTERN_NAMES as PATTERN_NAMES
from jaxcam.scenes.signals import Series as Series
from jaxcam.scenes.signals import series as series
from jaxcam.scenes.solids import SOLID_NAMES as SOLID_NAMES
from jaxcam.scenes.solids import Volume as Volume
from jaxcam.scenes.solids import volume as volume
from jaxcam.scenes.staging import COLOUR_NAMES as COLOUR_NAMES
from jaxcam.scenes.words import ANSWERS as ANSWERS
from jaxcam.scenes.words import END as END
from jaxcam.scenes.words import PAD as PAD
from jaxcam.scenes.words import START as START
from jaxcam.scenes.words import VOCABULARY as VOCABULARY
from jaxcam.scenes.words import decode as decode
from jaxcam.scenes.words import encode as encode

__all__ = [
    "ANSWERS",
    "CLASS_NAMES",
    "COLOUR_NAMES",
    "END",
    "MAX_INSTANCES",
    "PAD",
    "PATTERN_NAMES",
    "QUESTION_KINDS",
    "SOLID_NAMES",
    "START",
    "VOCABULARY",
    "Caption",
    "Clip",
    "Dataset",
    "Question",
    "Scene",
    "Series",
    "Volume",
    "batch",
    "caption",
    "clip",
    "decode",
    "encode",
    "many",
    "pair",
    "question",
    "scene",
    "series",
    "volume",
]


def __dir__() -> list[str]:
    return __all__

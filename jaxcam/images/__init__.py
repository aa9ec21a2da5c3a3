"""Images: file -> float picture `[H, W, 3]` in [0, 1] -> normalised network input.

`read_image` decodes, `Preprocessing` resizes, crops and normalises. What is wrong with a file is a one-line ValueError
that names it.
"""

from jaxcam.images.preprocessing import IMAGENET as IMAGENET
from jaxcam.images.preprocessing import Preprocessing as Preprocessing
from jaxcam.images.preprocessing import normalise as normalise
from jaxcam.images.preprocessing import preprocess as preprocess
from jaxcam.images.preprocessing import resize_and_crop as resize_and_crop
from jaxcam.images.reading import read_image as read_image

__all__ = ["IMAGENET", "Preprocessing", "normalise", "preprocess", "read_image", "resize_and_crop"]


def __dir__() -> list[str]:
    return __all__

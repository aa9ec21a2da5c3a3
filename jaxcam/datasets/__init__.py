"""Data sets: what a user has (folders, lists, arrays, annotation files) -> examples, as the network sees them.

Image files are decoded ahead of when they are needed; one that is broken is one bad example. `Example` is a picture
with what is known about it; annotations are JSON of our own (`own_format`), COCO (`coco`) or PASCAL VOC (`voc`).
"""

from jaxcam.datasets.examples import Example as Example

__all__ = ["Example"]

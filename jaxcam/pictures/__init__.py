"""Pictures: heatmaps and gradients -> something to look at, and files.

Overlays of pictures; series with the curve before its heat; volumes as three slices or a montage; clips as a strip or
in motion; captions word by word; panels with captions and a colour scale, pictures of signed gradients. Files are
written whole or not at all.
"""

from jaxcam.pictures.captions import caption as caption
from jaxcam.pictures.charts import series as series
from jaxcam.pictures.colours import colour_map as colour_map
from jaxcam.pictures.gradients import gradient_picture as gradient_picture
from jaxcam.pictures.overlays import overlay as overlay
from jaxcam.pictures.panels import Cell as Cell
from jaxcam.pictures.panels import Row as Row
from jaxcam.pictures.panels import panel as panel
from jaxcam.pictures.saving import save as save
from jaxcam.pictures.slices import clip as clip
from jaxcam.pictures.slices import frames as frames
from jaxcam.pictures.slices import montage as montage
from jaxcam.pictures.slices import volume as volume

__all__ = [
    "Cell",
    "Row",
    "caption",
    "clip",
    "colour_map",
    "frames",
    "gradient_picture",
    "montage",
    "overlay",
    "panel",
    "save",
    "series",
    "volume",
]


def __dir__() -> list[str]:
    return __all__

"""Pictures: heatmaps and gradients -> something to look at, and files.

Overlays, panels with captions and a colour scale, pictures of signed gradients; written whole or not at all.
"""

from jaxcam.pictures.colours import colour_map as colour_map
from jaxcam.pictures.gradients import gradient_picture as gradient_picture
from jaxcam.pictures.overlays import overlay as overlay
from jaxcam.pictures.panels import Cell as Cell
from jaxcam.pictures.panels import Row as Row
from jaxcam.pictures.panels import panel as panel
from jaxcam.pictures.saving import save as save

__all__ = ["Cell", "Row", "colour_map", "gradient_picture", "overlay", "panel", "save"]

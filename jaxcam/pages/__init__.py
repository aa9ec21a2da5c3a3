"""Pages: one HTML file to look at and play with, which needs no network, no server and no other file.

A model and pictures go in at `page`. Without a model: maps, names and figures are an `Exhibit`, and `document` makes a
`Page` of one or several. What runs in the browser is drawing.js (numbers to pixels) and page.js (the controls).
"""

from jaxcam.pages.contents import page as page
from jaxcam.pages.document import Page as Page
from jaxcam.pages.document import document as document
from jaxcam.pages.exhibit import Exhibit as Exhibit
from jaxcam.pages.exhibit import Maps as Maps

__all__ = ["Exhibit", "Maps", "Page", "document", "page"]


def __dir__() -> list[str]:
    return __all__

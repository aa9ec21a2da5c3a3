"""Exhibits -> one HTML file that needs nothing else: no network, no server, no other file.

Contract: the same exhibits give the same bytes. Whatever names and labels hold, they are shown as text. The page asks
browsers to run the one script in it and nothing else (a Content-Security-Policy with the hashes of script and style),
so that it works where inline code is forbidden, and to load nothing from anywhere.
"""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from jaxcam.explanation.explanation import Status
from jaxcam.files import replace_file
from jaxcam.images.picture import to_pillow
from jaxcam.pages.exhibit import Exhibit, Maps
from jaxcam.pages.packing import floats, octets, quantised
from jaxcam.pictures.address import address
from jaxcam.pictures.colours import anchor_colours
from jaxcam.tables import printable
from jaxcam.version import __version__

__all__ = ["Page", "document"]

_STATUSES = {
    Status.OK: "The map can be used.",
    Status.ZERO_MAP: "Nothing speaks for the class: the weighted sum is zero or negative at every place.",
    Status.ZERO_GRADIENT: "The score does not depend on the activations of this layer, as behind a dead ReLU.",
    Status.NOT_FINITE: "There are NaN or infinite numbers in the input, the network or the map: nothing is drawn.",
    Status.ILL_CONDITIONED: "The alphas of Grad-CAM++ cannot be trusted here: look at Grad-CAM.",
    Status.NO_SUCH_CLASS: "There is no such class: nothing is drawn.",
    Status.BYPASSED: "A part of the score flows past this layer, and the map says nothing of that.",
    Status.CONSTANT_MAP: "The map is the same everywhere: it says nothing of where.",
    Status.ROUNDED: "Values are rounded behind this layer, so that the gradient is not that of the network.",
}
_ABOUT = {
    "Evidence": "The map where it is positive: what speaks for the class. Lines are drawn at a quarter, a half and "
    "three quarters of the scale. A map that is empty says that nothing speaks for the class.",
    "For and against": "The signed map before its ReLU: orange speaks for the class, blue against it. Some methods "
    "have no negative part.",
    "Explanation map": "E = L ∘ I, the picture dimmed wherever the map is low. “On E” is what the network says of the "
    "class when it sees only that; it was computed for the first few classes.",
    "Scale": "With one scale for all classes a weak map looks weak. With its own, every map reaches the top. Peaks are "
    "the maps' raw values and can be compared within a method and layer, not between methods.",
    "Places": "Click on the picture, or go there with the arrow keys: the list then has the classes with evidence in "
    "that cell of the grid, the strongest first.",
    "Precision": "Maps are stored on the feature grid in steps of 1/127 of their largest magnitude, and enlarged "
    "linearly here. Peaks and confidences are stored in full.",
}
_NUM_FIGURES = 25


class Page:
    """A page: `save` writes it, a notebook shows it, `html` is its text.

    Attributes:
        html: the whole file, with nothing outside of it.
        title: as at its top.
        exhibits: what it shows, as numbers.
    """

    def __init__(self, text: str, title: str, exhibits: Sequence[Exhibit]) -> None:
        """Holds the text; see `document`."""
        self.html = text
        self.title = title
        self.exhibits = tuple(exhibits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all; an existing file is replaced in one step.

        Args:
            path: ends in .html or .htm; the folder must exist.

        Raises:
            TypeError: path is not a path.
            ValueError: it ends in something else, or is a folder.
            OSError: it cannot be written; the error names it.
        """
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"path must be a str or a pathlib.Path but is {type(path).__name__}")
        target = Path(os.path.realpath(path))
        if Path(path).suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"path must end in .html but is {os.fspath(path)!r}: pictures are jaxcam.save's")
        if target.is_dir():
            raise ValueError(f"path must be a file but {os.fspath(path)!r} is a folder: add a file name")
        replace_file(target, self.html.encode())

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.html.encode()) / 1000:.0f} kB): .save('page.html')"

    def _repr_html_(self) -> str:
        # In a frame of its own, which may run the page's script and reach nothing of the notebook.
        inside = html.escape(self.html, quote=True)
        look = "width:100%;height:860px;border:0"
        return (
            f'<iframe sandbox="allow-scripts" title="{_escaped(self.title)}" style="{look}" srcdoc="{inside}"></iframe>'
        )


def document(exhibits: Exhibit | Sequence[Exhibit], *, title: str, facts: Sequence[str] = ()) -> Page:
    """The page of one or several exhibits.

    Args:
        exhibits: what it shows; of several one is chosen on the page.
        title: at its top.
        facts: what stands below: network, layer, protocol.

    Raises:
        TypeError: an exhibit is none, or title no string.
        ValueError: there are none.
    """
    listed: list[Any] = [exhibits] if isinstance(exhibits, Exhibit) else list(exhibits)
    if not listed:
        raise ValueError("exhibits must be one or more but are none")
    for each in listed:
        if not isinstance(each, Exhibit):
            raise TypeError(f"exhibits must be jaxcam.pages.Exhibit(...)s but one is {type(each).__name__}")
    if not isinstance(title, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"title must be a string but is {title!r}")
    room = files("jaxcam") / "pages"
    style, template = ((room / name).read_text(encoding="utf-8") for name in ("page.css", "page.html"))
    script = "".join((room / name).read_text(encoding="utf-8") for name in ("drawing.js", "page.js"))
    policy = {
        "default-src": "'none'",
        "script-src": _source(script),
        "style-src": _source(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    parts = {
        "policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "version": __version__,
        "title": _escaped(title),
        "facts": _escaped(" · ".join(facts)),
        "style": style,
        "figures": "".join(map(_figures, listed)),
        "book": _json(_book(listed)),
        "script": script,
    }
    # In one pass: what is put in is not looked through for more to put in.
    return Page(re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template), printable(title), listed)


def _book(exhibits: Sequence[Exhibit]) -> dict[str, Any]:
    """What the script reads."""
    names = list(dict.fromkeys(tuple(map(printable, each.names)) for each in exhibits))
    colour_bytes = np.rint(255 * anchor_colours("inferno")).astype(np.uint8)
    return {
        "colours": colour_bytes.tobytes().hex(),
        "statuses": [[status.words, _STATUSES[status]] for status in Status],
        "about": list(_ABOUT.items()),
        "names": names,
        "exhibits": [_stored(each, names) for each in exhibits],
    }


def _stored(exhibit: Exhibit, names: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    frames = [address(to_pillow(frame)) for frame in exhibit.picture]
    return {
        "label": printable(exhibit.label),
        "frames": frames,
        "height": exhibit.picture.shape[1],
        "width": exhibit.picture.shape[2],
        "names": names.index(tuple(map(printable, exhibit.names))),
        "value": floats(exhibit.value),
        "confidence": None if exhibit.confidence is None else floats(exhibit.confidence),
        "start": exhibit.start,
        "in_order": exhibit.in_order,
        "num_classes": exhibit.num_classes,
        "value_name": exhibit.value_name,
        "frame_name": exhibit.frame_name,
        "maps": [_packed(each) for each in exhibit.maps],
    }


def _packed(maps: Maps) -> dict[str, Any]:
    packed = quantised(maps.values)
    return {
        "method": printable(maps.title),
        "layer": printable(maps.layer),
        "grid": list(maps.values.shape[1:]),
        "q": octets(packed.q),
        "extent": floats(packed.extent),
        "peak": floats(maps.values.reshape(len(maps.values), -1).max(1)),
        "status": octets(maps.status),
        "on_e": [[item, each if np.isfinite(each) else None] for item, each in maps.on_e.items()],
        "bias": None if maps.bias is None else floats(maps.bias),
        "share": maps.share,
    }


def _figures(exhibit: Exhibit) -> str:
    """The first figures as a table, for readers without the script."""
    ranking = np.asarray(exhibit.value if exhibit.confidence is None else exhibit.confidence, np.float64)
    order = range(len(ranking)) if exhibit.in_order else np.argsort(-np.nan_to_num(ranking, nan=-np.inf), stable=True)
    header = ["", exhibit.value_name, *([] if exhibit.confidence is None else ["confidence"])]
    header += [f"peak, {each.title} {each.layer}".strip() for each in exhibit.maps]
    rows = [header]
    for item in list(order)[:_NUM_FIGURES]:
        cells = [exhibit.names[item], f"{exhibit.value[item]:.4g}"]
        cells += [] if exhibit.confidence is None else [f"{100 * exhibit.confidence[item]:.1f} %"]
        rows.append([*cells, *(f"{each.values[item].max():.4g}" for each in exhibit.maps)])
    lines = ["".join(f"<td>{_escaped(cell)}</td>" for cell in row) for row in rows]
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{_escaped(exhibit.label)}</caption>{table}</table>"


def _json(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the element that it stands in: no `<`, and nothing but ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(text: str) -> str:
    """How a policy names a script or a style: by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _escaped(words: str) -> str:
    return html.escape(printable(words), quote=True)

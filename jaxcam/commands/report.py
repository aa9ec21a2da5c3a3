"""One picture explained for the command line: predictions, maps, explanation maps -> a panel and a table."""

import math
from textwrap import indent
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from jaxcam import maps, tables
from jaxcam.explanation.explain import explain
from jaxcam.explanation.explanation import Status
from jaxcam.images.preprocessing import larger_view, view_of_picture
from jaxcam.methods.method import METHODS, bind
from jaxcam.models import Network
from jaxcam.pages import Page
from jaxcam.pictures import Cell, Row, gradient_picture, overlay, panel
from jaxcam.tables import printable

_ROWS = 3
_SHOWN_E = ("grad_cam_pp", "grad_cam", "cam")


class Map(NamedTuple):
    """One method's map for one class."""

    heatmap: Float[np.ndarray, "s s"]
    """At the panel's size."""
    confidence_on_e: float
    status: Status
    gradient: Float[np.ndarray, "H W 3"] | None
    """Of methods that make one: drawn instead of the heatmap."""


class Explained(NamedTuple):
    """A class and its maps by method; a method that does not apply to the model has no entry."""

    name: str
    confidence: float
    maps: dict[str, Map]


class Report(NamedTuple):
    """What is known about one picture."""

    view: Float[np.ndarray, "s s 3"]
    """The part of the picture that the network saw, at the panel's size."""
    predictions: list[tuple[str, float]]
    classes: list[Explained]
    methods: tuple[str, ...]


def explained(
    model: Network,
    picture: Image.Image,
    *,
    class_idx: int | None,
    methods: tuple[str, ...],
    top: int,
    size: int,
) -> Report:
    """Explains the `top` likeliest classes, or the one given, by every method that applies to the model.

    The confidence on E is that of the network on what is seen in the picture of E: the mask lies on the pixels, before
    they are normalised, so that what is masked is black.
    """
    seen = view_of_picture(picture, model.preprocessing)
    probabilities = np.asarray(_probabilities(model, seen[None]))[0]
    ranking = np.argsort(-probabilities, stable=True)
    images = model.preprocessing.normalise(seen[None])
    # All classes from one forward pass; one that was asked for is explained alone.
    which: dict[str, Any] = {"top": min(top, len(ranking))} if class_idx is None else {"class_idx": class_idx}
    chosen = ranking[:top] if class_idx is None else np.array([class_idx])
    classes = [Explained(model.class_names[c], float(probabilities[c]), {}) for c in chosen]
    for method in methods:
        if method == "cam" and model.cam_layer is None:
            continue
        key = jax.random.key(0) if bind(method, {}, draws=True).takes_key else None
        found = explain(model, images, method=method, key=key, **which)
        found = jax.tree.map(lambda value: value[0] if class_idx is None else value, found)
        on_e = _probabilities(model, maps.explanation_map(jnp.stack([jnp.asarray(seen)] * len(chosen)), found.heatmap))
        for i, c in enumerate(found.class_idx):
            own_size = maps.heatmap(found.cam_map[i], (size, size)) if found.gradient is None else found.heatmap[i]
            classes[i].maps[method] = Map(
                np.asarray(np.clip(own_size, 0, 1)),
                float(on_e[i, c]),
                Status(int(found.status[i])),
                None if found.gradient is None else np.asarray(found.gradient[i]),
            )
    return Report(
        _view(model, picture, size),
        [(model.class_names[c], float(probabilities[c])) for c in ranking[:3]],
        classes,
        methods,
    )


def panel_of(report: Report, *, title: str) -> Image.Image:
    """The input with its predictions, and a row of overlays and E for each class."""
    masking = _masking(report)
    rows = [
        Row(
            f"{printable(entry.name)}\n{_percent(entry.confidence)}",
            [
                *(_overlay_cell(report, entry, method) for method in report.methods),
                *([_e_cell(report, entry.maps[masking])] if masking else []),
            ],
        )
        for entry in report.classes
    ]
    lead = Cell(report.view, "\n".join(f"{printable(name)}\t{_percent(p)}" for name, p in report.predictions))
    headings = [METHODS[m].title.replace("Guided ", "Guided\n") for m in report.methods]
    headings += [f"E, dimmed by\n{METHODS[masking].title}"] if masking else []
    size = report.view.shape[0]
    return panel(rows, headings=headings, title=title, lead=lead, cell_size=size / 2, scale=2)


def table_of(report: Report, *, title: str) -> str:
    """The figures of the panel as text."""
    gradients = {m for entry in report.classes for m, found in entry.maps.items() if found.gradient is not None}
    methods = [m for m in report.methods if m not in gradients]
    header = ["class", "confidence", *(f"on E, {METHODS[m].title}" for m in methods), "status"]
    lines = [
        [
            entry.name,
            _percent(entry.confidence),
            *(_percent(entry.maps[m].confidence_on_e) if m in entry.maps else "-" for m in methods),
            ", ".join(f"{METHODS[m].title}: {f.status.words}" for m, f in entry.maps.items() if f.status) or "ok",
        ]
        for entry in report.classes
    ]
    return title + "\n" + indent(tables.text(header, lines, left=(0, len(header) - 1)), "  ")


def table_of_page(page: Page, *, title: str) -> str:
    """The figures of a page's likeliest classes as text."""
    (exhibit,) = page.exhibits
    confidence = exhibit.value if exhibit.confidence is None else exhibit.confidence
    header = ["class", "confidence", *(f"on E, {each.title}" for each in exhibit.maps), "status"]
    lines: list[list[str]] = []
    for item in sorted(exhibit.maps[0].on_e, key=lambda item: -confidence[item])[:_ROWS]:
        status = {each.title: Status(int(each.status[item])) for each in exhibit.maps}
        lines.append(
            [
                exhibit.names[item],
                _percent(float(confidence[item])),
                *(_percent(each.on_e[item]) for each in exhibit.maps),
                ", ".join(f"{name}: {one.words}" for name, one in status.items() if one) or "ok",
            ]
        )
    return title + "\n" + indent(tables.text(header, lines, left=(0, len(header) - 1)), "  ")


def _masking(report: Report) -> str | None:
    """The method whose E is shown: a map of regions, which guided gradients are not."""
    regions = [m for m, found in report.classes[0].maps.items() if found.gradient is None]
    return next((m for m in (*_SHOWN_E, *regions) if m in regions), None)


def _overlay_cell(report: Report, entry: Explained, method: str) -> Cell:
    found = entry.maps.get(method)
    if found is None:
        return Cell(None, "does not apply:\nno global average pooling")
    status = found.status.words if found.status else ""
    if found.gradient is not None:
        drawn = np.nan_to_num(found.gradient, posinf=0, neginf=0)
        return Cell(gradient_picture(drawn), status)
    caption = f"on E: {_percent(found.confidence_on_e)}\n{status}".strip()
    return Cell(overlay(report.view, found.heatmap), caption)


def _e_cell(report: Report, found: Map) -> Cell:
    picture = np.asarray(maps.explanation_map(report.view, found.heatmap))
    return Cell(picture, f"confidence: {_percent(found.confidence_on_e)}")


def _view(model: Network, picture: Image.Image, size: int) -> Float[np.ndarray, "s s 3"]:
    if model.preprocessing.crop is None or model.preprocessing.resize is None:
        raise ValueError(f"{type(model).__name__} has no fixed input size")
    return larger_view(picture, model.preprocessing, size)


@jax.jit
def _probabilities(model: Network, pictures: Float[Array, "n H W 3"]) -> Float[Array, "n c"]:
    return jax.nn.softmax(model(model.preprocessing.normalise(pictures)))


def _percent(share: float) -> str:
    if math.isnan(share):
        return "-"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"

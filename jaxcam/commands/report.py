"""One picture explained for the command line: predictions, maps, explanation maps -> a panel and a table."""

import math
from collections.abc import Callable, Sequence
from textwrap import indent
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from PIL import Image

from jaxcam import maps, tables
from jaxcam.commands.choices import Choice
from jaxcam.explanation.explain import explain
from jaxcam.explanation.explanation import Explanation, Status
from jaxcam.images.preprocessing import larger_view, view_of_picture
from jaxcam.images.reading import Reduced
from jaxcam.methods.method import bind
from jaxcam.models import Network
from jaxcam.pages import Page
from jaxcam.pictures import Cell, Row, gradient_picture, overlay, panel
from jaxcam.tables import printable

_ROWS = 3
_CANDIDATES = 10
_ALIKE = 0.75
"""Maps that correlate by more are about the same thing: tabby and tiger cat by 0.9 and more, a dog and a cat by 0."""
_LEAST_HEAT, _LEAST_CONFIDENCE = 0.4, 0.001
"""What a class needs besides to have a row of its own: so much of the highest heat, and of the confidence."""
_SAME = 1 / 510
"""Heatmaps that differ by less are one picture in 8 bits."""


class Map(NamedTuple):
    """One method's map for one class."""

    heatmap: Float[np.ndarray, "s s"]
    """At the panel's size, 1 where it is highest."""
    peak: float
    """Of the map before that, as a share of the highest of all classes of the picture: the maps share one scale."""
    confidence_on_e: float
    status: Status
    gradient: Float[np.ndarray, "H W 3"] | None
    """Of methods that make one: drawn instead of the heatmap."""


class Explained(NamedTuple):
    """A class and its maps by method; a method that does not apply to the model has no entry."""

    name: str
    like: tuple[str, ...]
    """Less likely classes with much the same map, which have no row of their own."""
    confidence: float
    maps: dict[str, Map]


class Report(NamedTuple):
    """What is known about one picture."""

    view: Float[np.ndarray, "s s 3"]
    """The part of the picture that the network saw, at the panel's size."""
    predictions: list[tuple[str, float]]
    classes: list[Explained]
    columns: list[list[Choice]]
    """The methods, those that make the same maps together."""
    facts: tuple[str, ...]
    """The layer and its grid."""


def explained(
    model: Network,
    picture: Image.Image | Reduced,
    *,
    class_idx: int | None,
    choices: Sequence[Choice],
    layer: str | int | None,
    top: int | None,
    size: int,
    told: Callable[[], None],
) -> Report:
    """Explains the `top` likeliest classes, or the one given, by every method that applies to the model.

    Without either up to three of the likeliest that look at different things: of several with much the same map the
    likeliest stands for all.

    The confidence on E is that of the network on what is seen in the picture of E: the mask lies on the pixels, before
    they are normalised, so that what is masked is black. `told` is called when a method is done.
    """
    seen = view_of_picture(picture, model.preprocessing)
    probabilities = np.asarray(_probabilities(model, seen[None]))[0]
    ranking = np.argsort(-probabilities, stable=True)
    images = model.preprocessing.normalise(seen[None])
    like: dict[int, list[int]] = {}
    likeliest: Explanation | None = None
    if class_idx is not None:
        chosen = np.array([class_idx])
    elif top is not None:
        chosen = ranking[:top]
    else:
        likeliest = explain(model, images, method="grad_cam", layer=layer, top=min(_CANDIDATES, len(ranking)))
        like = _grouped(np.asarray(likeliest.cam_map[0]), np.asarray(likeliest.class_idx[0]), probabilities)
        chosen = np.array([*like][:_ROWS])
    names = model.class_names
    classes = [
        Explained(names[c], tuple(names[other] for other in like.get(c, ())), float(probabilities[c]), {})
        for c in chosen.tolist()
    ]
    # The likeliest come from one forward pass; of others each is explained by its own.
    is_top = class_idx is None and np.array_equal(chosen, ranking[: len(chosen)])
    which: dict[str, Any] = {"top": len(chosen)} if is_top else {"class_idx": jnp.asarray(chosen)}
    inputs = images if is_top else np.repeat(images, len(chosen), axis=0)
    grid: tuple[int, ...] = ()
    for choice in choices:
        if choice.method == "cam" and model.cam_layer is None:
            continue
        bound = bind(choice.method, choice.options, draws=True)
        key = jax.random.key(0) if bound.takes_key else None
        at = layer if bound.takes_layer else None
        if likeliest is not None and (choice.method, choice.options) == ("grad_cam", {}):  # it is there already
            places = np.array([int(np.flatnonzero(ranking == c)[0]) for c in chosen])
            found = jax.tree.map(lambda value, places=places: np.asarray(value)[0, places], likeliest)
        else:
            found = explain(model, inputs, method=choice.method, key=key, layer=at, **choice.options, **which)
            found = jax.tree.map(lambda value: np.asarray(value)[0] if is_top else np.asarray(value), found)
        on_e = np.asarray(_on_e(model, np.repeat(seen[None], len(chosen), axis=0), found.heatmap))
        gradients = None if found.gradient is None else np.asarray(found.gradient)
        raw = np.maximum(found.cam_map, 0) if gradients is None else np.abs(gradients)
        peaks = _peaks(np.asarray(raw), 100 if gradients is None else 99.5)
        grid = grid or (np.shape(raw)[1:] if gradients is None else ())
        for i in range(len(chosen)):
            own_size = _heatmap(found.cam_map[i], (size, size)) if gradients is None else found.heatmap[i]
            classes[i].maps[choice.row] = Map(
                np.clip(np.asarray(own_size), 0, 1),
                float(peaks[i]),
                float(on_e[i, chosen[i]]),
                Status(int(found.status[i])),
                None if gradients is None else gradients[i],
            )
        told()
    return Report(
        _view(model, picture, size),
        [(names[c], float(probabilities[c])) for c in ranking[: top or 5]],
        classes,
        _columns(choices, classes),
        (
            f"layer {model.default_layer if layer is None else layer}",
            *(["grid " + " x ".join(map(str, grid))] if grid else []),
        ),
    )


def panel_of(report: Report, *, title: str, style: str, dark: bool) -> Image.Image:
    """The input with its predictions, and a row of overlays and E for each class."""
    masking = _masking(report)
    rows = [
        Row(
            "\n".join([printable(entry.name), *_alike(entry), _percent(entry.confidence)]),
            [
                *(_overlay_cell(report, entry, column[0].row, style) for column in report.columns),
                *([_e_cell(report, entry.maps[masking.row])] if masking else []),
            ],
        )
        for entry in report.classes
    ]
    lead = Cell(report.view, "\n".join(f"{printable(name)}\t{_percent(p)}" for name, p in report.predictions))
    headings = [_heading(column) for column in report.columns]
    headings += [f"Rest dimmed (E),\nby {masking.title}"] if masking else []
    size = report.view.shape[0]
    bar_label = "heat, on one scale for each method" if len(rows) > 1 else "relative heat"
    whole = "\n".join([title, ", ".join(report.facts)])
    return panel(
        rows,
        headings=headings,
        title=whole,
        lead=lead,
        style=style,
        bar_label=bar_label,
        cell_size=size / 2,
        scale=2,
        dark=dark,
    )


def table_of(report: Report, *, title: str) -> str:
    """The figures of the panel as text."""
    rows = [column for column in report.columns if not _is_gradient(report, column[0].row)]
    header = ["class", "confidence", *(f"on E, {' = '.join(c.title for c in column)}" for column in rows), "status"]
    titles = {choice.row: choice.title for column in report.columns for choice in column}
    lines = [
        [
            entry.name + (f" (and {', '.join(entry.like)})" if entry.like else ""),
            _percent(entry.confidence),
            *(_percent(entry.maps[c[0].row].confidence_on_e) if c[0].row in entry.maps else "-" for c in rows),
            ", ".join(f"{titles[m]}: {f.status.words}" for m, f in entry.maps.items() if f.status) or "ok",
        ]
        for entry in report.classes
    ]
    return f"{title}, {', '.join(report.facts)}\n" + indent(tables.text(header, lines, left=(0, len(header) - 1)), "  ")


def table_of_page(page: Page, *, title: str, top: int) -> str:
    """The figures of a page's likeliest classes as text."""
    (exhibit,) = page.exhibits
    confidence = exhibit.value if exhibit.confidence is None else exhibit.confidence
    header = ["class", "confidence", *(f"on E, {each.title}" for each in exhibit.maps), "status"]
    lines: list[list[str]] = []
    for item in sorted(exhibit.maps[0].on_e, key=lambda item: -confidence[item])[:top]:
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


def _grouped(
    cam_maps: Float[np.ndarray, "m *grid"], likeliest: Int[np.ndarray, " m"], probabilities: Float[np.ndarray, " c"]
) -> dict[int, list[int]]:
    """The classes that look at something of their own, the likeliest first, each with those that look at the same.

    Their Grad-CAM maps tell: the breeds of one dog have much the same, whatever their names, and the cat beside it
    another one.
    """
    flat = cam_maps.astype(np.float64).reshape(len(likeliest), -1)
    peaks = flat.max(1)
    centred = flat - flat.mean(1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(1))
    unit = centred / np.where(lengths > 0, lengths, 1)[:, np.newaxis]
    groups: dict[int, list[int]] = {}
    places: list[int] = []
    for i, (c, peak) in enumerate(zip(likeliest.tolist(), peaks, strict=True)):
        nearest = max(places, key=lambda j, i=i: unit[i] @ unit[j], default=None)
        if nearest is not None and unit[i] @ unit[nearest] > _ALIKE:
            if probabilities[c] >= 10 * _LEAST_CONFIDENCE:
                groups[int(likeliest[nearest])].append(c)
        elif nearest is None or (peak >= _LEAST_HEAT * peaks.max() and probabilities[c] >= _LEAST_CONFIDENCE):
            groups[c] = []
            places.append(i)
    return groups


def _peaks(raw: Float[np.ndarray, "m ..."], percentile: int | float) -> Float[np.ndarray, " m"]:
    """How high each map goes, as a share of the highest; 1 where all are zero."""
    found = np.percentile(np.nan_to_num(raw, posinf=0, neginf=0).reshape(len(raw), -1), percentile, axis=1)
    return found / found.max() if found.max() > 0 else np.ones(len(raw))


def _columns(choices: Sequence[Choice], classes: Sequence[Explained]) -> list[list[Choice]]:
    """The methods, those together whose maps cannot be told apart, as Grad-CAM and CAM behind global pooling."""
    columns: list[list[Choice]] = []
    for choice in choices:
        same = (column for column in columns if all(_look_alike(one, column[0].row, choice.row) for one in classes))
        column = next(same, None)
        columns.append([choice]) if column is None else column.append(choice)
    return columns


def _look_alike(entry: Explained, first: str, second: str) -> bool:
    a, b = entry.maps.get(first), entry.maps.get(second)
    if a is None or b is None or a.gradient is not None or b.gradient is not None:
        return False
    return bool(np.abs(a.heatmap - b.heatmap).max() < _SAME and abs(a.peak - b.peak) < _SAME)


def _heading(column: Sequence[Choice]) -> str:
    first, *same = (choice.title for choice in column)
    return "\n".join([first.replace("Guided ", "Guided\n"), *([f"the same: {', '.join(same)}"] if same else [])])


def _alike(entry: Explained) -> list[str]:
    return [printable(f"and {', '.join(entry.like)}")] if entry.like else []


def _masking(report: Report) -> Choice | None:
    """The method whose E is shown: the first that was asked for and makes a map of regions, as guided ones do not."""
    asked = (choice for column in report.columns for choice in column if choice.row in report.classes[0].maps)
    return next((choice for choice in asked if not _is_gradient(report, choice.row)), None)


def _is_gradient(report: Report, row: str) -> bool:
    return row in report.classes[0].maps and report.classes[0].maps[row].gradient is not None


def _overlay_cell(report: Report, entry: Explained, row: str, style: str) -> Cell:
    found = entry.maps.get(row)
    if found is None:
        return Cell(None, "does not apply:\nno global average pooling")
    status = found.status.words if found.status else ""
    peak = f"highest heat {found.peak:.2f}" if len(report.classes) > 1 else ""
    if found.gradient is not None:
        drawn = gradient_picture(np.nan_to_num(found.gradient, posinf=0, neginf=0))
        # Nearer to the grey of zero, as far as it is weaker than that of another class.
        faded = Image.blend(Image.new("RGB", drawn.size, (128, 128, 128)), drawn, found.peak)
        return Cell(faded, "\n".join(filter(None, [peak.replace("heat", "value"), status])))
    caption = [peak, f"rest dimmed: {_percent(found.confidence_on_e)}", status]
    return Cell(
        overlay(report.view, found.heatmap * np.float32(found.peak), style=style), "\n".join(filter(None, caption))
    )


def _e_cell(report: Report, found: Map) -> Cell:
    picture = np.asarray(maps.explanation_map(report.view, found.heatmap))
    return Cell(picture, f"confidence {_percent(found.confidence_on_e)}")


def _view(model: Network, picture: Image.Image | Reduced, size: int) -> Float[np.ndarray, "s s 3"]:
    if model.preprocessing.crop is None or model.preprocessing.resize is None:
        raise ValueError(f"{type(model).__name__} has no fixed input size")
    return larger_view(picture, model.preprocessing, size)


@jax.jit
def _probabilities(model: Network, pictures: Float[Array, "n H W 3"]) -> Float[Array, "n c"]:
    return jax.nn.softmax(model(model.preprocessing.normalise(pictures)))


@jax.jit
def _on_e(model: Network, pictures: Float[Array, "n H W 3"], heatmap: Float[Array, "n H W"]) -> Float[Array, "n c"]:
    return _probabilities(model, maps.explanation_map(pictures, heatmap))


_heatmap = jax.jit(maps.heatmap, static_argnums=1)


def _percent(share: float) -> str:
    if math.isnan(share):
        return "-"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"

"""What an explanation shows of itself: a few lines, a table of small heatmaps, and its heatmaps over the inputs.

Contract: `plain` and `table` never raise, whatever the fields hold (traced arrays, NaN, what a tree was mapped to):
where there are no numbers to be had they tell kinds and shapes. Of many examples and maps the first are shown, and how
many more there are. `over` is a drawing like those of `jaxcam.pictures`, and refuses what they refuse.
"""

import functools
import html
import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from PIL import Image

from jaxcam.checks import check_integer
from jaxcam.explanation.facts import AXES, Fact, concrete, facts_of, heatmaps_of, left_out, told_of
from jaxcam.images.picture import to_pillow
from jaxcam.pictures.address import address
from jaxcam.pictures.charts import series
from jaxcam.pictures.colours import colour_map
from jaxcam.pictures.overlays import STYLES, overlay
from jaxcam.pictures.page import redrawn, stacked
from jaxcam.pictures.panels import Cell, Row, panel
from jaxcam.pictures.slices import clip_cells, volume_cells
from jaxcam.pictures.values import colours

__all__ = ["KINDS", "over", "plain", "table"]

KINDS = ("series", "picture", "volume", "clip")
_SIDE, _BAND = 96, 24
"""Pixels: the longer side of a small heatmap, and the height of a series'."""
_NUM_COLOURS = 64
"""Of a small heatmap: half as many bytes in a notebook as 256."""
_CELL, _FRAME = 160, 100
"""Points: the longer side of a picture, and of a frame of a clip."""
_STYLE, _COLORMAP = STYLES[0], "inferno"
_ALARM = "#e03c3c"
"""The contrast of its letters is 4.3 : 1 on white, and as much on the #111111 of dark notebooks."""


def plain(explanation: Any, status_of: Callable[[int], str]) -> str:
    """The fields with their kinds and shapes, and a line for each of the first maps."""
    told = [
        f"{field.name} {told_of(getattr(explanation, field.name))}"
        for field in fields(explanation)
        if field.name != "class_names" and getattr(explanation, field.name) is not None
    ]
    lines = [f"{type(explanation).__name__}: {', '.join(told)}"]
    for i, facts in enumerate(facts_of(explanation, status_of) or ()):
        lines += [f"  {i}: {fact.words}" for fact in facts]
    return "\n".join([*lines, *(f"  {note}" for note in left_out(explanation))])


def table(explanation: Any, status_of: Callable[[int], str], inputs: Any = None) -> str:
    """The same as HTML, with a small picture of every map: over its input where the inputs are there, else alone."""
    facts = facts_of(explanation, status_of)
    heatmaps = None if facts is None else heatmaps_of(explanation, facts)
    if facts is None or heatmaps is None:
        return f"<pre>{html.escape(plain(explanation, status_of))}</pre>"
    notes = [told_of(explanation.heatmap), *left_out(explanation)]
    lines = _lines_over(explanation, inputs, heatmaps, facts)
    if not lines:
        notes.append("over the inputs: .over(inputs)")
        lines = [
            _Line(str(i), None, [(_alone(heat[fact.place]), fact) for fact in example for _, heat in heatmaps])
            for i, example in enumerate(facts)
        ]
    rows = "".join(f"<tr>{_heading(line)}{''.join(_cell(line, *each) for each in line.cells)}</tr>" for line in lines)
    return f"<table>{rows}</table><small>{html.escape('; '.join(notes))}</small>"


def over(
    explanation: Any,
    inputs: Any,
    status_of: Callable[[int], str],
    *,
    kind: str | None,
    num: int,
    style: str,
    colormap: str,
) -> Image.Image:
    """The heatmaps over the inputs, one below the other; several inputs each in a panel of its own."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)} but is {kind!r}")
    check_integer("num", num, low=1)
    for leaf in jax.tree.leaves(inputs):
        if isinstance(leaf, Tracer) or not isinstance(leaf, np.ndarray | jax.Array):
            raise TypeError(f"inputs must be concrete arrays but hold a {type(leaf).__name__}: draw outside of jit")
    facts = facts_of(explanation, status_of, num)
    heatmaps = None if facts is None else heatmaps_of(explanation, facts)
    if facts is None or heatmaps is None:
        raise TypeError("an explanation must hold concrete arrays to be drawn: draw outside of jit")
    missing = left_out(explanation, num)
    note = "\n" + "; ".join(missing) if missing else ""
    pages = [
        _page(values, heat, facts, kind, style, colormap, key + note)
        for key, values, heat in _laid(explanation, inputs, heatmaps, facts)
    ]
    return stacked(pages)


def _lines_over(
    explanation: Any, inputs: Any, heatmaps: list[tuple[str, np.ndarray]], facts: list[list[Fact]]
) -> list["_Line"]:
    """The maps over their inputs; none where these cannot be laid under them."""
    if any(concrete(leaf, len(facts)) is None for leaf in jax.tree.leaves(inputs)):
        return []
    try:
        laid = _laid(explanation, inputs, heatmaps, facts)
        drawn = [_lines(values, heat, facts, _kind(values, heat, facts), label=key) for key, values, heat in laid]
    except (ValueError, TypeError):
        return []
    return [*itertools.chain(*drawn)]


def _laid(
    explanation: Any, inputs: Any, heatmaps: list[tuple[str, np.ndarray]], facts: list[list[Fact]]
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each input that has heatmaps its key, its first examples with the channels last, and the heatmaps."""
    given = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(inputs)}
    if len(heatmaps) == 1 and len(given) > 1:  # only one of the inputs has a grid: the one of the heatmap's size
        heat, depth = heatmaps[0][1], len(facts[0][0].place)
        heatmaps = [(key, heat) for key, leaf in given.items() if _channels(leaf, heat.shape[depth:]) is not None][:1]
    found: list[tuple[str, np.ndarray, np.ndarray]] = []
    for key, heat in heatmaps:
        if key not in given:
            raise ValueError(f"inputs must be those that were explained, with {key!r}, but hold {[*given]}")
        # Keys are written as for people: "series", not ["series"].
        found.append((key.strip("[]'."), _as_laid(given[key], heat, explanation.class_idx.shape), heat))
    if not found:
        raise ValueError(f"inputs must be those that were explained, but none of {[*given]} has the heatmap's size")
    return found


class _Line(NamedTuple):
    """What is side by side of one example."""

    label: str
    fact: Fact | None
    """Of the map that the whole line shows, where it is one."""
    cells: Sequence[tuple[Any, Fact | str]]
    """Pillow's pictures, or None, and what stands below each."""


def _kind(inputs: np.ndarray, heat: np.ndarray, facts: list[list[Fact]]) -> str:
    axes = heat.ndim - len(facts[0][0].place)
    return {1: "series", 2: "picture"}.get(axes, "clip" if inputs.shape[axes + 1 :] == (3,) else "volume")


def _lines(
    inputs: np.ndarray,
    heat: np.ndarray,
    facts: list[list[Fact]],
    kind: str,
    *,
    style: str = _STYLE,
    colormap: str = _COLORMAP,
    label: str = "",
    density: int = 1,
) -> list[_Line]:
    """Of pictures a line with all maps of an example, of everything else a line for each map.

    Pictures are drawn with `density` pixels a point.
    """
    lines: list[_Line] = []
    for i, example in enumerate(facts):
        name = f"{label} {i}".strip()
        if not np.isfinite(inputs[i].astype(np.float64)).all():
            lines += [_Line(name, fact, [(None, "the input is not finite")]) for fact in example[:1]]
            continue
        if kind == "picture":
            view = redrawn(colours(inputs[i], "H, W", name="inputs"), density * _CELL)
            drawn = [
                (overlay(view, _clean(heat[fact.place]), style=style, colormap=colormap), fact) for fact in example
            ]
            lines.append(_Line(name, None, [(to_pillow(view), "input"), *drawn]))
            continue
        for fact in example:
            own = _clean(heat[fact.place])
            if kind == "series":
                cells = [Cell(series(inputs[i], own, colormap=colormap, width=3 * _CELL, scale=density))]
            elif kind == "volume":
                cells = volume_cells(inputs[i], own, longest=density * _CELL, style=style, colormap=colormap)
            else:
                cells = clip_cells(inputs[i], own, num=6, longest=density * _FRAME, style=style, colormap=colormap)
            lines.append(_Line(name, fact, [(cell.image, cell.caption) for cell in cells]))
    return lines


def _page(
    inputs: np.ndarray,
    heat: np.ndarray,
    facts: list[list[Fact]],
    kind: str | None,
    style: str,
    colormap: str,
    title: str,
) -> Image.Image:
    """A panel of the lines."""
    axes = heat.ndim - len(facts[0][0].place)
    kind = kind or _kind(inputs, heat, facts)
    if axes != {"series": 1, "picture": 2}.get(kind, 3):
        raise ValueError(f"kind must fit heatmaps with {axes} axes of positions ([n, {AXES[axes]}]) but is {kind!r}")
    rows: list[Row] = []
    for line in _lines(inputs, heat, facts, kind, density=2, style=style, colormap=colormap):
        words = "" if line.fact is None else _caption(line.fact)
        cells = [Cell(image, under if isinstance(under, str) else _caption(under)) for image, under in line.cells]
        named = line.fact is not None and line.fact.name
        rows.append(Row(line.label + (": " if named else "\n" if words else "") + words, cells))
    columns = max(len(row.cells) for row in rows)
    blank = Cell(Image.new("RGB", (8, 8), "white"))
    rows = [Row(row.label, [*row.cells, *[blank] * (columns - len(row.cells))]) for row in rows]
    size = {"series": 3 * _CELL, "clip": _FRAME}.get(kind, _CELL)
    # Behind the curve of a series the colours are pure.
    bar = "plain" if kind == "series" else style
    return panel(rows, headings=[""] * columns, title=title, style=bar, colormap=colormap, cell_size=size)


def _as_laid(leaf: Any, heat: np.ndarray, maps: tuple[int, ...]) -> np.ndarray:
    """The first examples of an input with its channels last; the explanation has maps `[n, *m]`."""
    spatial = heat.shape[len(maps) :]
    at = _channels(leaf, spatial)
    # A picture may come larger than the network saw it, as model.preprocessing.view has it.
    if at is None and len(spatial) == 2 and leaf.ndim == 4:
        at = 3
    if at is None or len(leaf) != maps[0]:
        raise ValueError(
            f"inputs must be those that were explained, {[maps[0], *spatial]} and channels, but are {list(leaf.shape)}"
        )
    values = np.asarray(leaf[: len(heat)])
    return values[..., np.newaxis] if at == values.ndim else np.moveaxis(values, at, -1)


def _channels(leaf: Any, spatial: tuple[int, ...]) -> int | None:
    """The axis of an input's channels, its number of axes if it has none; None if it is of another size."""
    shape = np.shape(leaf)
    fitting = (at for at in (len(shape), *range(len(shape) - 1, 0, -1)) if shape[1:at] + shape[at + 1 :] == spatial)
    return next(fitting, None)


def _caption(fact: Fact) -> str:
    return "\n".join(part for part in (fact.name, fact.figure, fact.status) if part)


def _clean(heat: np.ndarray) -> np.ndarray:
    """What `explain` makes is in [0, 1] and finite; what was made of it afterwards may be anything."""
    return np.clip(np.nan_to_num(heat.astype(np.float32), posinf=1), 0, 1)


def _alone(heat: np.ndarray) -> Image.Image | None:
    """A small picture of a heatmap: a band of a series, of a volume the slice with its maximum."""
    heat = _clean(heat)
    if heat.size == 0:
        return None
    if heat.ndim == 3:
        heat = heat[np.unravel_index(heat.argmax(), heat.shape)[0]]
    size = (_SIDE, _BAND) if heat.ndim == 1 else (heat.shape[1], heat.shape[0])
    shrink = _SIDE / max(size)
    small = Image.fromarray(np.atleast_2d(heat)).resize(
        (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))),
        Image.Resampling.NEAREST if heat.ndim == 1 and heat.size < _SIDE else Image.Resampling.BILINEAR,
    )
    drawn = Image.fromarray(np.rint((_NUM_COLOURS - 1) * np.clip(np.asarray(small), 0, 1)).astype(np.uint8))
    drawn.putpalette(_palette())
    return drawn


def _heading(line: _Line) -> str:
    """The cell before the others of a line."""
    words = "" if line.fact is None else f"<br>{_words(line.fact)}"
    return f"<th>{html.escape(line.label)}{words}</th>"


def _cell(line: _Line, image: Any, under: Fact | str) -> str:
    """A picture in a table, with words in its place for who does not see it, and what stands below it."""
    fact = line.fact if isinstance(under, str) else under
    said = [under] if isinstance(under, str) else []
    what = " ".join(filter(None, said if fact is None else ["heatmap", fact.words, *said]))
    shown = ""
    if image is not None:
        # Drawn over its input, a map has thousands of colours; alone it has a palette.
        source = address(image, lossless=image.mode == "P")
        shown = f'<img alt="{html.escape(what)}" width="{image.width}" height="{image.height}" src="{source}"><br>'
    words = html.escape(under).replace("\n", "<br>") if isinstance(under, str) else _words(under)
    return f'<td style="text-align:center;vertical-align:top">{shown}{words}</td>'


def _words(fact: Fact) -> str:
    """What is said of a map, in a colour that is read on white and on black."""
    status = f'<b style="color:{_ALARM}">{html.escape(fact.status)}</b>' if fact.status else "ok"
    return "<br>".join(part for part in (html.escape(fact.name), html.escape(fact.figure), status) if part)


@functools.cache
def _palette() -> bytes:
    """Their red, green and blue: a picture in one byte a pixel is a third as long."""
    entries = colour_map(np.linspace(0, 1, _NUM_COLOURS, dtype=np.float32)[np.newaxis])[0]
    return np.rint(255 * entries).astype(np.uint8).tobytes()

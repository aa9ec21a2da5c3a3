"""The layers of a model as a user sees them: a table, and which of them a name means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.typing import DTypeLike

from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.program import shape

__all__ = ["Grid", "Layer", "Layers", "chosen", "listed"]

Grid = Callable[[Any], bool]
"""Whether a value of this shape and dtype is a grid of positions with channels, from which a map can be made."""


class Layer(NamedTuple):
    """A value in a model that can be a layer."""

    layer: str | int | None
    """What to pass as `layer=`: a name, the position of a convolution, or None for the default."""
    kind: str
    """"tag" (`checkpoint_name`), "scope" (`named_scope`), "convolution" (with bias, batch norm in evaluation, and the
    activation that follows directly), or "value" for a default that has no name."""
    shape: tuple[int, ...]
    """Of the activations, with the batch."""
    dtype: DTypeLike
    complete: bool
    """Whether all information from the images to the logits flows through it."""
    default: bool
    """Whether this is where explanations are made when no layer is given."""


class Layers(tuple[Layer, ...]):
    """The layers of a model in its order; printed, a table."""

    def __str__(self) -> str:
        """The table."""
        header = ("layer", "kind", "shape", "dtype", "everything flows through")
        rows = [
            (
                repr(row.layer) + ("  (default)" if row.default else ""),
                row.kind,
                "x".join(map(str, row.shape)),
                str(row.dtype),
                "yes" if row.complete else "no",
            )
            for row in self
        ]
        if not rows:
            return "no layers: no value with positions depends on the images"
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        )


def listed(analysis: Analysis, grid: Grid) -> Layers:
    """All sites, and the default where there is one."""
    default = _default(analysis, grid)
    rows: list[Layer] = []
    named = False
    for site in analysis.sites:
        is_default = default is not None and site.var is default.var
        named = named or is_default
        rows.append(_row(site, default=is_default))
    if default is not None and not named:
        order = {var: i for i, eqn in enumerate(analysis.program.equations) for var in eqn.outvars}
        before = sum(order[site.var] < order[default.var] for site in analysis.sites)
        rows.insert(before, _row(default, default=True))
    return Layers(rows)


def chosen(analysis: Analysis, layer: str | int | None, grid: Grid) -> Site:
    """The site that `layer` means.

    Raises:
        ValueError: there is none; the message has the table. Or it is inside a loop or a branch.
    """
    if layer is None:
        default = _default(analysis, grid)
        if default is None:
            raise ValueError(
                "layer: this model has no value with positions through which everything flows, so there is no default: "
                f"name one of its layers, or say what they mean with channel_axis or reshape:\n{_table(analysis, grid)}"
            )
        return default
    found = _by_position(analysis, layer) if isinstance(layer, int) else _by_name(analysis.sites, layer)
    if found is not None:
        return found
    if isinstance(layer, str):
        for name, holder in analysis.hidden.items():
            if layer in (name, name.rpartition("/")[2]):
                raise ValueError(
                    f"layer={layer!r} is inside a {holder}, where it takes a new value in each round or in one branch "
                    f"only: name a layer before or after it:\n{_table(analysis, grid)}"
                )
    raise ValueError(f"layer={layer!r} is not in this model. Its layers are:\n{_table(analysis, grid)}")


def _default(analysis: Analysis, grid: Grid) -> Site | None:
    images = analysis.program.arguments[-1]
    # The picture itself, normalised, has a grid as well, and is no layer.
    fitting = [s for s in analysis.values if grid(s.var.aval) and shape(s.var) != shape(images)]
    return fitting[-1] if fitting else None


def _by_position(analysis: Analysis, position: int) -> Site | None:
    convolutions = [site for site in analysis.sites if site.kind == "convolution"]
    count = len(convolutions)
    return convolutions[position] if -count <= position < count else None


def _by_name(sites: Sequence[Site], layer: str) -> Site | None:
    """The site of that name; else the one whose name ends with it; else the last of those that begin with it."""
    part = re.escape(layer)
    for pattern in (part, rf"{part}:\d+", rf".*[/.]{part}(:\d+)?", rf"(.*[/.])?{part}[/.].*"):
        matching = [site for site in sites if site.name is not None and re.fullmatch(pattern, site.name)]
        names = list(dict.fromkeys(re.sub(r":\d+$", "", str(site.name)) for site in matching))
        if pattern.startswith(".*") and len(names) > 1:
            raise ValueError(f"layer={layer!r} may be any of {', '.join(map(repr, names))}: give more of the name")
        if matching:
            tags = [site for site in matching if site.kind == "tag"]
            return (tags or matching)[-1]
    return None


def _row(site: Site, *, default: bool) -> Layer:
    aval: Any = site.var.aval
    layer = site.name if site.position is None else site.position
    return Layer(layer, site.kind, tuple(aval.shape), aval.dtype, site.complete, default)


def _table(analysis: Analysis, grid: Grid) -> str:
    return str(listed(analysis, grid))

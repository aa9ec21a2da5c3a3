"""The layers of a model as a user sees them: a table, and which of them a name means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike

from jaxcam import tables
from jaxcam.cuts.grid import is_grid
from jaxcam.cuts.model import Adapted, adapted, program_of
from jaxcam.cuts.sites import Analysis, Site, analysed
from jaxcam.programs.program import shape

__all__ = ["Layer", "LayerName", "Layers", "layers", "site_of"]

LayerName = str | int | None


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
        return tables.text(header, rows, left=range(len(header)))


def layers(model: Any, images: Any) -> Layers:
    """The layers at which a model can be cut: name, kind, shape, dtype, and whether everything flows through.

    Names are those that JAX recorded: `checkpoint_name` tags and `named_scope` paths; the convolutions have positions.
    Where a name occurs several times, `:0`, `:1` ... tell the occurrences apart, and the name alone means the last.
    Layers inside scan, while and cond are not listed: they are not one value.

    Args:
        model: as for `split`.
        images: `[n, ...]`, for their shape and dtype only.

    Returns:
        A tuple of `Layer`s in the order of the program, which prints as a table.

    Raises:
        ValueError, TypeError: as `split`, but for the layer.
    """
    spec = check_images(images)
    known = adapted(model).hoist(spec)
    return _listed(analysed(program_of(known, spec)), known)


def site_of(analysis: Analysis, layer: LayerName, model: Adapted) -> Site:
    """The site that `layer` means in a model.

    Raises:
        ValueError: there is none; the message has the table. Or it is inside a loop or a branch.
    """
    if layer is None:
        default = _default(analysis, model)
        if default is None:
            raise ValueError(
                "layer: this model has no value with positions through which everything flows, so there is no default: "
                "name one of its layers, or say what they mean with jaxcam.adapt(model, grid=...):\n"
                f"{_listed(analysis, model)}"
            )
        return default
    found = _by_position(analysis, layer) if isinstance(layer, int) else _by_name(analysis.sites, layer)
    if found is not None:
        return found
    for name, holder in analysis.hidden.items():
        if layer in (name, name.rpartition("/")[2]):
            raise ValueError(
                f"layer={layer!r} is inside a {holder}, where it takes a new value in each round or in one branch "
                f"only: name a layer before or after it:\n{_listed(analysis, model)}"
            )
    raise ValueError(f"layer={layer!r} is not in this model. Its layers are:\n{_listed(analysis, model)}")


def check_images(images: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a batch.

    Raises:
        TypeError: it is no array.
        ValueError: it has too few axes, or is empty.
    """
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        raise TypeError(f"images must be an array [n, ...] but is {type(images).__name__}")
    if len(images.shape) < 3 or 0 in images.shape:
        raise ValueError(
            f"images must be [n, *spatial, d] with at least one image, but came as {list(images.shape)}: add the batch "
            "axis with images[None]"
        )
    return jax.ShapeDtypeStruct(images.shape, jax.dtypes.canonicalize_dtype(images.dtype))


def _listed(analysis: Analysis, model: Adapted) -> Layers:
    """All sites, and the default where there is one."""
    default = _default(analysis, model)
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


def _default(analysis: Analysis, model: Adapted) -> Site | None:
    """Where the model says that it is cut; else the last value with a grid through which everything flows."""
    if model.default_layer is not None and (site := _by_name(analysis.sites, model.default_layer)) is not None:
        return site
    images = shape(analysis.program.arguments[-1])
    # The picture itself, normalised, has a grid as well, and is no layer.
    fitting = [s for s in analysis.values if shape(s.var) != images and is_grid(analysis, s, model.grid)]
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

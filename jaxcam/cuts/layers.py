"""The layers of a model as a user sees them: a table, and which of them a name means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core.primitives import name_p
from jax.typing import DTypeLike

from jaxcam import tables
from jaxcam.cuts.default import default_site
from jaxcam.cuts.grid import centres, told
from jaxcam.cuts.inputs import grids_of
from jaxcam.cuts.logits import logits_of
from jaxcam.cuts.model import Adapted, adapted, outputs_of, program_of
from jaxcam.cuts.refusals import check_not_exported
from jaxcam.cuts.sites import Analysis, Opening, Site, analysed
from jaxcam.cuts.steps import at_steps, steps_of
from jaxcam.cuts.torch_modules import without_torch
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Program, shape, straight_line
from jaxcam.programs.scopes import scope_results
from jaxcam.programs.specs import batch_of_one, specs_of
from jaxcam.types import Target

__all__ = ["Layer", "LayerName", "Layers", "layers", "located"]

LayerName = str | int | None
_HEADER = ("layer", "kind", "shape", "dtype", "grid", "centres", "everything flows through")


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
    grid: str
    """The grid that the program shows in it, such as "14x14 (1 before)"; else what is known of its axes."""
    centres: str
    """The pixels in the middle of what the grid's positions look at, "every 16 from 7.5", see `jaxcam.cuts.fields`; ""
    where that is not known."""
    complete: bool
    """Whether all information from the images to the logits flows through it."""
    default: bool
    """Whether this is where explanations are made when no layer is given."""


class Layers(tuple[Layer, ...]):
    """The layers of a model in its order; printed, a table."""

    ending: str | None = None
    """What the model ends in, such as "softmax": it is cut before that, and what is explained are the logits."""

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                repr(row.layer) + ("  (default)" if row.default else ""),
                row.kind,
                "x".join(map(str, row.shape)),
                str(row.dtype),
                row.grid,
                row.centres,
                "yes" if row.complete else "no",
            )
            for row in self
        ]

    def __str__(self) -> str:
        """The table."""
        if not self:
            return "no layers: no value with positions depends on the inputs"
        table = tables.text(_HEADER, self._rows, left=range(len(_HEADER)))
        return table if self.ending is None else f"{table}\n{self._end}"

    def _repr_html_(self) -> str:
        if not self:
            return tables.preformatted(str(self))
        table = tables.html(_HEADER, self._rows, left=range(len(_HEADER)))
        return table if self.ending is None else f"{table}<small>{self._end}</small>"

    @property
    def _end(self) -> str:
        return f"cut before the {self.ending} at its end"


def layers(model: Any, inputs: Any, *, target: Target | None = None) -> Layers:
    """The layers at which a model can be cut: name, kind, shape, dtype, grid, and whether everything flows through.

    Names are those that JAX recorded: `checkpoint_name` tags and `named_scope` paths; the convolutions have positions.
    Where a name occurs several times, `:0`, `:1` ... tell the occurrences apart, and the name alone means the last.
    Layers inside a scan have the round in their name, `blocks[11]/norm1` (of over 64 rounds the last is listed, and
    each can be named). `rnn[:]/h` are all rounds of a scan over an axis of the inputs, `[n, t, ...]`, with the total
    derivative; see `jaxcam.cuts.steps`. Those inside while and cond are not listed: they are not one value.

    Args:
        model: as for `jaxcam.explain`.
        inputs: `[n, ...]`, or several, for their shape and dtype only.
        target: as for `jaxcam.explain`: only layers on the way to it are listed.

    Returns:
        A tuple of `Layer`s in the order of the program, which prints as a table. Of several inputs with a grid those
        of the first, unless `jaxcam.adapt(model, input=...)` says which.

    Raises:
        ValueError, TypeError: as `split`, but for the layer.
    """
    known = adapted(model)
    spec = check_inputs(inputs)
    known = known.hoist(spec)
    if target is not None:
        spec = batch_of_one(spec)
        known, _ = known.aim(target, spec)
    leaves = jax.tree.leaves(spec)
    outputs = jax.tree.leaves(outputs_of(known, spec))
    is_one = len(outputs) == 1 and len(outputs[0].shape) in (1, 2)
    ending, closed = None, program_of(known, spec)
    if is_one:
        closed, _, ending = logits_of(known, spec)
    check_not_exported(known.name, closed, len(leaves))
    main = grids_of(known, spec, leaves)[0]
    found = _listed(analysed(closed, num_inputs=len(leaves), main=main), known)
    found.ending = ending
    return found


def located(analysis: Analysis, layer: LayerName, model: Adapted) -> tuple[Analysis, Site]:
    """The site that `layer` means in a model, and the analysis that it is in: another one for a round of a long scan.

    Raises:
        ValueError: there is none; the message has the table. Or it is inside a loop or a branch.
    """
    if layer is None:
        default = _default(analysis, model)
        if default is None and analysis.num_inputs > 1 and not analysis.sites:
            raise ValueError(
                f"inputs: of several one, {list(shape(analysis.image))}, goes into no layer of this model, so there is "
                "no heatmap on it: name the one that the heatmap lies on with jaxcam.adapt(model, input=...)"
            )
        if default is None:
            parts = any(about(eqn).runs is Runs.PARTS for eqn in analysis.program.equations)
            hint = "explain the function that shard_map or pmap runs, or inside of them; or " if parts else ""
            raise ValueError(
                "layer: this model has no value with positions that everything flows through, so there is no default: "
                f"{hint}name one of its layers, or say what they mean with jaxcam.adapt(model, grid=...):\n"
                f"{_listed(analysis, model)}"
            )
        return analysis, default
    if isinstance(layer, str) and "[:]" in layer:
        steps = steps_of(analysis)
        if (site := _by_name([one.site for one in steps], layer)) is not None:
            return at_steps(analysis, next(one for one in steps if one.site is site))
    if isinstance(layer, str) and (rounds := tuple(map(int, re.findall(r"\[(\d+)\]", layer)))):
        analysis = analysis.at(rounds)
    found = _by_position(analysis, layer) if isinstance(layer, int) else _by_name(analysis.sites, layer)
    if found is not None:
        return analysis, found
    if isinstance(layer, str) and _is_off_the_way(analysis, layer):
        raise ValueError(
            f"layer={layer!r} does not reach what is explained: name a layer on the way to it, or explain another "
            f"output with target=:\n{_listed(analysis, model)}"
        )
    for name, holder in analysis.hidden.items():
        if layer in (name, name.rpartition("/")[2]):
            raise ValueError(
                f"layer={layer!r} is inside a {holder}, where it takes a new value in each round or in one branch "
                f"only: name a layer before or after it:\n{_listed(analysis, model)}"
            )
    listed = _listed(analysis, model)
    hint = _hint(layer, listed, model) if isinstance(layer, str) else ""
    raise ValueError(f"layer={layer!r} is not in this model. {hint}Its layers are:\n{listed}")


def _hint(name: str, listed: Layers, model: Adapted) -> str:
    """What a name that no layer has may have meant: "blocks[0]" is "blocks.0" in `jaxcam.named`."""
    from flax import nnx

    if isinstance(model.state, nnx.Module) and not any(row.kind == "tag" for row in listed):
        return "Its submodules have names in jaxcam.named(model). "
    names = [row.layer for row in listed if isinstance(row.layer, str)]
    near = difflib.get_close_matches(re.sub(r"\[(\d+)\]", r".\1", name), names, 1)
    return f"Did you mean {near[0]!r}? " if near else ""


def check_inputs(inputs: Any) -> Any:
    """Shape and dtype of a batch: of an array, or of each of several.

    Raises:
        TypeError: it is no array, and holds none, or it is complex.
        ValueError: it has too few axes, is empty, or its arrays do not share the axis n.
    """
    inputs = without_torch(inputs)
    leaves = jax.tree.leaves(inputs)
    for leaf in leaves or [inputs]:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(f"inputs must be an array [n, ...], or several, but is {type(leaf).__name__}")
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(
                f"inputs must be real but their dtype is {leaf.dtype}: give jnp.concatenate([x.real, x.imag], -1) to "
                "jaxcam.adapt(model, apply=lambda model, x: model(jax.lax.complex(*jnp.split(x, 2, -1))))"
            )
        if 0 in leaf.shape or len(leaf.shape) < 1:
            raise ValueError(f"inputs must have one example or more but came as {list(leaf.shape)}")
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        raise ValueError(f"inputs must share their first axis n but came as {[list(leaf.shape) for leaf in leaves]}")
    if max(len(leaf.shape) for leaf in leaves) < 3:
        raise ValueError(
            f"inputs must be [n, *spatial, d] with at least one example, but came as "
            f"{', '.join(str(list(leaf.shape)) for leaf in leaves)}: add the batch axis to one example with "
            "inputs[None], the channels' axis to series with one value a step with inputs[..., None]"
        )
    return specs_of(inputs)


def _listed(analysis: Analysis, model: Adapted) -> Layers:
    """All sites, and the default where there is one."""
    default = _default(analysis, model)
    rows: list[Layer] = []
    named = False
    for site in analysis.sites:
        is_default = default is not None and site.var is default.var
        named = named or is_default
        rows.append(_row(analysis, site, default=is_default))
    if default is not None and not named:
        order = {var: i for i, eqn in enumerate(analysis.program.equations) for var in eqn.outvars}
        before = sum(order[site.var] < order[default.var] for site in analysis.sites)
        rows.insert(before, _row(analysis, default, default=True))
    for steps in steps_of(analysis):
        row = _row(replace(analysis, axes={steps.site.var: steps.where}), steps.site, default=False)
        # Before the rounds one by one.
        name = str(row.layer)
        first = f"{name[: name.index('[:]')]}["
        rounds = (
            i for i, other in enumerate(rows) if str(other.layer).startswith(first) and "[:]" not in str(other.layer)
        )
        rows.insert(next(rounds, len(rows)), row)
    return Layers(rows)


def _default(analysis: Analysis, model: Adapted) -> Site | None:
    """Where the model says that it is cut, or where the rule for all models says so."""
    if model.default_layer is not None and (site := _by_name(analysis.sites, model.default_layer)) is not None:
        return site
    return default_site(analysis, model)


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


def _is_off_the_way(analysis: Analysis, layer: str) -> bool:
    """Whether the model has a value of that name which what is explained does not need."""
    program = straight_line(analysis.closed, opened=Opening(analysis.rounds), pruned=False)

    def names(program: Program) -> set[str]:
        tags = {eqn.params["name"] for eqn in program.equations if eqn.primitive is name_p}
        return tags | {name for name, _ in scope_results(program)}

    off = names(program) - names(analysis.program)
    return any(re.fullmatch(rf"(.*[/.])?{re.escape(layer)}([/.].*)?", name) for name in off)


def _row(analysis: Analysis, site: Site, *, default: bool) -> Layer:
    aval: Any = site.var.aval
    layer = site.name if site.position is None else site.position
    return Layer(
        layer,
        site.kind,
        tuple(aval.shape),
        aval.dtype,
        told(analysis, site),
        centres(analysis, site),
        site.complete,
        default,
    )

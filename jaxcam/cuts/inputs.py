"""Which of a model's inputs has positions for a heatmap to lie on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Var

from jaxcam.cuts.channels import slides_along_all
from jaxcam.cuts.model import Adapted
from jaxcam.cuts.sites import Analysis
from jaxcam.programs.program import shape

__all__ = ["check_channels", "check_scales", "grids_of"]


def grids_of(model: Adapted, inputs: Any, leaves: Sequence[Any]) -> list[int]:
    """Which of the inputs `[n, ...]`, in the order of their leaves: the adapted one, or all that have a grid.

    That is `[n, *spatial, d]` with more than one position. Token ids `[n, t]` and vectors `[n, d]` have none.

    Raises:
        ValueError: there is none, or no single one by the adapted name.
    """
    paths = [_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(inputs)[0]]
    if model.input is not None:
        wanted = model.input if isinstance(model.input, tuple) else (model.input,)
        named = [i for i, path in enumerate(paths) if path == wanted]
        if len(named) != 1 or not _has_grid(leaves[named[0]]):
            raise ValueError(
                f"input={model.input!r} must be one of the inputs, with positions, but they are {_table(paths, leaves)}"
            )
        return named
    found = [i for i, leaf in enumerate(leaves) if _has_grid(leaf)]
    if not found:
        hint = "add the channels' axis with inputs[..., None] to pictures of one channel, and to a series with one "
        hint += "value a step"
        if any(leaf.dtype == bool and len(leaf.shape) >= 3 for leaf in leaves):
            hint = "bool is for masks, inputs.astype(float) for pictures"
        raise ValueError(
            f"inputs must have positions for a heatmap, [n, *spatial, d], but are {_table(paths, leaves)}: {hint}"
        )
    return found


def check_scales(analysis: Analysis, name: str) -> None:
    """Refuses integers that go into the first convolution or product as they are: they were to be normalised.

    Networks compute with pixels from 0 to 255 as well, and what they say of them means nothing.
    """
    if jnp.issubdtype(analysis.image.aval.dtype, jnp.floating):  # type: ignore[attr-defined]
        return
    raw: set[Var] = {analysis.image}
    for eqn in analysis.program.equations:
        if raw.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            continue
        if eqn.primitive in (lax.conv_general_dilated_p, lax.dot_general_p):
            raise TypeError(
                f"inputs must be floating point and normalised for the model but their dtype is "
                f"{analysis.image.aval.dtype}, and {name} does not scale them: "  # type: ignore[attr-defined]
                "divide by 255 and normalise as in training (model.preprocessing(picture) for jaxcam.models)"
            )
        if not _scales(eqn):
            raw.update(eqn.outvars)


def check_channels(analysis: Analysis, name: str) -> None:
    """Refuses inputs without an axis of channels: their last axis would be taken for it, and the map have none of it.

    A grey picture `[n, H, W]` that the model makes `[n, H, W, 1]` itself would have a heatmap `[H]`.
    """
    if slides_along_all(analysis.program, analysis.image):
        other = ", or name another input for the heatmap with adapt(input=)" if analysis.num_inputs > 1 else ""
        raise ValueError(
            f"inputs must have an axis of channels, but {name} takes {list(shape(analysis.image))} and looks at "
            "neighbours along each of its axes: give inputs[..., None] to jaxcam.adapt(model, apply=lambda model, x: "
            f"model(x[..., 0])){other}"
        )


def _scales(eqn: JaxprEqn) -> bool:
    return eqn.primitive in (lax.mul_p, lax.div_p, lax.sub_p, lax.add_p, lax.gather_p)


def _has_grid(leaf: Any) -> bool:
    # Masks and indices have positions, too, but no values that a network looks at.
    is_number = jnp.issubdtype(leaf.dtype, jnp.floating) or jnp.issubdtype(leaf.dtype, jnp.integer)
    return is_number and len(leaf.shape) >= 3 and max(leaf.shape[1:-1]) > 1


def _path(path: Sequence[Any]) -> tuple[str | int, ...]:
    return tuple(next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name)) for key in path)


def _table(paths: Sequence[tuple[str | int, ...]], leaves: Sequence[Any]) -> str:
    shown = (
        f"{'/'.join(map(str, path)) + ': ' if path else ''}{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in zip(paths, leaves, strict=True)
    )
    return ", ".join(shown)

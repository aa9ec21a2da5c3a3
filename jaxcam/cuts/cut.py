"""Any JAX callable cut in two at a layer: the program is read, found the layer in, and cut into two programs.

No hooks and no rewriting by hand: `features` computes what comes before the layer, `head` what comes after. What the
head needs besides (a skip connection past the layer) it computes from the images again; where everything flows through
the layer there is nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Var
from jaxtyping import Array, Float

from jaxcam.cuts.layers import Grid, Layers, chosen, listed
from jaxcam.cuts.model import Form, ModelFn, formed, program_of
from jaxcam.cuts.sites import analysed, is_open, place_of_result
from jaxcam.programs.program import Program, Stage, needed, straight_line

__all__ = ["Cut", "cut", "grid_of", "layers", "split"]

LayerName = str | int | None
Images = Float[Array, "n ..."] | Float[np.ndarray, "n ..."]


def split(
    model: Any, layer: LayerName, images: Images, *, model_fn: ModelFn | None = None
) -> tuple[Callable[[Any, Images], Array], Callable[[Any, Array, Images], Array]]:
    """A model in two halves, before and after a layer: head(model, features(model, images), images) = model(images).

    Both are compiled, compose with jit, vmap and grad (by the model's arrays as well), and take models of the same
    structure with other parameters, and other images; the program is cut anew for each shape of these. A custom
    derivative (custom_jvp, custom_vjp) with the layer inside is given up: there is no rule for a part of it.

    Args:
        model: any JAX callable from images to logits `[n, c]`: an nnx.Module, an equinox.Module,
            `jax.tree_util.Partial(linen_model.apply, variables)`, a Keras model, a function. Or anything, with
            `model_fn`.
        layer: a name from `layers(model, images)`, the end of only one of them ("Block_1/Conv_0" for
            "Net/Block_1/Conv_0"), or what several begin with, which means the last of these ("layer4" for "layer4.2");
            the position of a convolution (-1 for the last); or None for the default: the last value with spatial axes
            through which everything flows.
        images: `[n, ...]`, for their shape and dtype only.
        model_fn: `(model, images) -> logits`, where the model itself is not called like that: other inputs, several
            outputs, channels in another place.

    Returns:
        features: `(model, images)` -> the layer's activations, as the model computes them.
        head: `(model, activations, images)` -> logits. The images only serve for what does not flow through the layer.

    Raises:
        ValueError: there is no such layer (the message has the table), it is inside a loop or branch, or the model does
            not return logits `[n, c]`.
        TypeError: the model cannot be called, or holds what is neither array nor hashable; or the layer is neither name
            nor position.
    """
    layer = _checked_layer(layer)
    _halves_of(model, layer, images, model_fn)
    return _Features(layer, model_fn), _Head(layer, model_fn)


def layers(model: Any, images: Images, *, model_fn: ModelFn | None = None, channel_axis: int = -1) -> Layers:
    """The layers at which a model can be cut: name, kind, shape, dtype, and whether everything flows through.

    Names are those that JAX recorded: `checkpoint_name` tags and `named_scope` paths; the convolutions have positions.
    Where a name occurs several times, `:0`, `:1` ... tell the occurrences apart, and the name alone means the last.
    Layers inside scan, while and cond are not listed: they are not one value.

    Args:
        model: as for `split`.
        images: `[n, ...]`, for their shape and dtype only.
        model_fn: as for `split`.
        channel_axis: where the channels are; decides which value is the default.

    Returns:
        A tuple of `Layer`s in the order of the program, which prints as a table.

    Raises:
        ValueError, TypeError: as `split`, but for the layer.
    """
    spec = _spec(images)
    form, arrays = formed(model, model_fn, spec)
    return listed(analysed(program_of(form, arrays, spec)), grid_of(spec, channel_axis))


@dataclass(frozen=True)
class Cut:
    """A program cut at one of its values."""

    program: Program
    layer: Var
    before: Stage
    """Arrays and images -> the layer, and what else the stage after it needs that comes from the images."""
    after: Stage
    """The layer -> logits, where arrays and that are known."""

    @property
    def beside(self) -> tuple[Var, ...]:
        """What reaches the logits past the layer."""
        return tuple(out for out in self.before.outputs[1:] if isinstance(out, Var))

    def features(self, arrays: list[Any], images: Any) -> tuple[Any, tuple[Any, ...]]:
        """The layer's activations, and what flows beside them."""
        known = {**self.program.constants, **dict(zip(self.program.arguments, [*arrays, images], strict=True))}
        (a, *beside), _ = self.before(known)
        return a, tuple(beside)

    def head(self, arrays: list[Any], a: Any, beside: tuple[Any, ...]) -> Any:
        """The logits."""
        known = {**self.program.constants, **dict(zip(self.program.arguments, arrays, strict=False))}
        return self.after.scalar({**known, **dict(zip(self.beside, beside, strict=True))}, a)


def cut(model: ClosedJaxpr, layer: LayerName, grid: Grid) -> Cut:
    """The program from `(*arrays, images)` to logits, cut at a layer."""
    site = chosen(analysed(model), layer, grid)
    # Written out once more, with remat and custom derivatives kept but where the layer is inside.
    layer_place = place_of_result(model.jaxpr, site.place)
    program = straight_line(model, opened=lambda eqn, place: is_open(eqn, place, layer_place))
    (at,) = [var for eqn in program.equations for var in eqn.outvars if program.places[var] == layer_place]
    arrays = {*program.arguments[:-1], *program.constants}
    to_logits = needed(program.equations, program.outputs, {*arrays, at})
    from_images = _moved(to_logits, program.arguments[-1])
    from_layer = _moved(to_logits, at)
    # What depends on the images alone is computed before; what depends on neither, after, with the arrays.
    after = [
        eqn
        for eqn in to_logits
        if from_images.isdisjoint(eqn.outvars) or any(isinstance(a, Var) and a in from_layer for a in eqn.invars)
    ]
    wanted = {atom for eqn in after for atom in eqn.invars if isinstance(atom, Var)} | {
        out for out in program.outputs if isinstance(out, Var)
    }
    made = {var for eqn in after for var in eqn.outvars}
    beside = [
        var
        for var in (program.arguments[-1], *(var for eqn in to_logits for var in eqn.outvars))
        if var in wanted and var in from_images and var not in made
    ]
    before = program.stage((), (at, *beside), {*program.arguments, *program.constants})
    return Cut(program, at, before, Stage((at,), program.outputs, after))


def grid_of(images: jax.ShapeDtypeStruct, channel_axis: int, reshape: Callable[[Array], Array] | None = None) -> Grid:
    """Values with as many axes as the images, and more than one position, after `reshape`."""

    def is_grid(aval: Any) -> bool:
        try:
            out = aval if reshape is None else jax.eval_shape(reshape, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        except (TypeError, ValueError, ZeroDivisionError, IndexError):
            return False
        sizes = list(getattr(out, "shape", ()))
        if len(sizes) != len(images.shape) or sizes[0] != images.shape[0]:
            return False
        del sizes[channel_axis]
        return max(sizes[1:], default=1) > 1

    return is_grid


def _moved(equations: list[Any], start: Var) -> set[Var]:
    moved = {start}
    for eqn in equations:
        if not moved.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            moved.update(eqn.outvars)
    return moved


@dataclass(frozen=True)
class _Features:
    layer: LayerName
    model_fn: ModelFn | None

    def __call__(self, model: Any, images: Images) -> Array:
        """The layer's activations."""
        form, arrays = _halves_of(model, self.layer, images, self.model_fn)
        return _features(form, self.layer, arrays, jnp.asarray(images))


@dataclass(frozen=True)
class _Head:
    layer: LayerName
    model_fn: ModelFn | None

    def __call__(self, model: Any, activations: Array, images: Images) -> Array:
        """The logits from the layer's activations."""
        if not isinstance(activations, jax.Array | np.ndarray):
            raise TypeError(f"activations must be an array, as features returns it, not {type(activations).__name__}")
        form, arrays = _halves_of(model, self.layer, images, self.model_fn)
        return _head(form, self.layer, arrays, activations, jnp.asarray(images))


def _halves_of(model: Any, layer: LayerName, images: Images, model_fn: ModelFn | None) -> tuple[Form, list[Any]]:
    spec = _spec(images)
    form, arrays = formed(model, model_fn, spec)
    jax.eval_shape(partial(_features, form, layer), arrays, spec)
    return form, arrays


@partial(jax.jit, static_argnums=(0, 1))
def _features(form: Form, layer: LayerName, arrays: list[Any], images: Array) -> Array:
    return _cut(form, layer, arrays, images).features(arrays, images)[0]


@partial(jax.jit, static_argnums=(0, 1))
def _head(form: Form, layer: LayerName, arrays: list[Any], activations: Array, images: Array) -> Array:
    found = _cut(form, layer, arrays, images)
    _check_activations(activations, found.layer.aval)
    _, beside = found.features(arrays, images)
    return found.head(arrays, activations, beside)


def _cut(form: Form, layer: LayerName, arrays: list[Any], images: Array) -> Cut:
    spec = jax.ShapeDtypeStruct(images.shape, images.dtype)
    return cut(program_of(form, arrays, spec), layer, grid_of(spec, -1))


def _checked_layer(layer: Any) -> LayerName:
    if isinstance(layer, np.integer):
        return int(layer)
    if isinstance(layer, bool) or not isinstance(layer, str | int | None):
        raise TypeError(f"layer must be a name, the position of a convolution, or None for the default, not {layer!r}")
    return layer


def _check_activations(activations: Any, expected: Any) -> None:
    if jnp.shape(activations) != expected.shape:
        raise ValueError(
            f"activations must be {list(expected.shape)} at this layer for these images, but came as "
            f"{list(jnp.shape(activations))}: pass the images that they were computed from, or as many"
        )


def _spec(images: Any) -> jax.ShapeDtypeStruct:
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        raise TypeError(f"images must be an array [n, ...], not {type(images).__name__}")
    if len(images.shape) < 3 or 0 in images.shape:
        raise ValueError(
            f"images must be [n, *spatial, d] with at least one image, but came as {list(images.shape)}: add the batch "
            "axis with images[None]"
        )
    return jax.ShapeDtypeStruct(images.shape, jax.dtypes.canonicalize_dtype(images.dtype))

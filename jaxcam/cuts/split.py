"""`split`: a model in two halves, as functions of the model's own arrays, for anything else."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.checks import is_integer
from jaxcam.cuts.halves import Halves, halve
from jaxcam.cuts.inputs import grids_of
from jaxcam.cuts.layers import LayerName, check_inputs, located
from jaxcam.cuts.model import Adapted, adapted, outputs_of, program_of
from jaxcam.cuts.refusals import check_outputs
from jaxcam.cuts.sites import analysed
from jaxcam.cuts.torch_modules import without_torch
from jaxcam.programs.specs import specs_of

__all__ = ["check_layer", "split"]


def split(
    model: Any, layer: LayerName, inputs: Any
) -> tuple[Callable[[Any, Any], Array], Callable[[Any, Array, Any], Any]]:
    """A model in two halves, before and after a layer: head(model, features(model, inputs), inputs) = model(inputs).

    Both are compiled, compose with jit, vmap and grad (by the model's arrays as well), and take models of the same
    structure with other parameters, and other inputs; the program is cut anew for each shape of these. A custom
    derivative (custom_jvp, custom_vjp) with the layer inside is given up: there is no rule for a part of it.

    Args:
        model: any JAX callable of inputs `[n, ...]` to outputs of any structure: an nnx.Module, an equinox.Module,
            `jax.tree_util.Partial(linen_model.apply, variables)`, a Keras model, a function; or `jaxcam.adapt(...)` of
            anything that is called in another way.
        layer: a name from `layers(model, images)`, the end of only one of them ("Block_1/Conv_0" for
            "Net/Block_1/Conv_0"), or what several begin with, which means the last of these ("layer4" for "layer4.2");
            the position of a convolution (-1 for the last); or None for the default: the last value with the whole
            grid of positions that everything flows through (see `jaxcam.layers`).
        inputs: `[n, ...]`, or several, for their shape and dtype only.

    Returns:
        features: `(model, inputs)` -> the layer's activations, as the model computes them.
        head: `(model, activations, inputs)` -> outputs. The inputs only serve for what does not flow through the layer.

    Raises:
        ValueError: there is no such layer (the message has the table), it is inside a loop or branch, or the outputs
            have no axis n.
        TypeError: the model cannot be called, returns no floating-point numbers, or holds what is neither array nor
            hashable; or the layer is neither name nor position.
    """
    layer = check_layer(layer)
    known, spec = _known(model, inputs)
    check_outputs(known.name, outputs_of(known, spec), spec)
    jax.eval_shape(partial(_features, layer), known, spec)
    return _Features(layer), _Head(layer)


def check_layer(layer: Any) -> LayerName:
    """A name, the position of a convolution, or None for the default."""
    if layer is None or isinstance(layer, str):
        return layer
    if not is_integer(layer):
        raise TypeError(f"layer must be a name, the position of a convolution, or None for the default, not {layer!r}")
    return int(layer)


@dataclass(frozen=True)
class _Features:
    layer: LayerName

    def __call__(self, model: Any, inputs: Any) -> Array:
        """The layer's activations."""
        known, _ = _known(model, inputs)
        return _features(self.layer, known, _arrays(inputs))


@dataclass(frozen=True)
class _Head:
    layer: LayerName

    def __call__(self, model: Any, activations: Array, inputs: Any) -> Any:
        """The outputs from the layer's activations."""
        if not isinstance(activations, jax.Array | np.ndarray):
            raise TypeError(f"activations must be an array, as features returns it, not {type(activations).__name__}")
        known, _ = _known(model, inputs)
        return _head(self.layer, known, activations, _arrays(inputs))


def _known(model: Any, inputs: Any) -> tuple[Adapted, Any]:
    spec = check_inputs(inputs)
    return replace(adapted(model).hoist(spec), grid=None, probability=None), spec  # the halves have none


def _arrays(inputs: Any) -> Any:
    return jax.tree.map(jnp.asarray, without_torch(inputs))


@partial(jax.jit, static_argnums=0)
def _features(layer: LayerName, model: Adapted, inputs: Any) -> Array:
    return _halves(layer, model, inputs).features(jax.tree.leaves(model), jax.tree.leaves(inputs))[0]


@partial(jax.jit, static_argnums=0)
def _head(layer: LayerName, model: Adapted, activations: Array, inputs: Any) -> Any:
    halves, arrays = _halves(layer, model, inputs), jax.tree.leaves(model)
    expected: Any = halves.layer.aval
    if jnp.shape(activations) != expected.shape:
        raise ValueError(
            f"activations must be {list(expected.shape)} at this layer for these inputs, but came as "
            f"{list(jnp.shape(activations))}: pass the inputs that they were computed from, or as many"
        )
    _, beside = halves.features(arrays, jax.tree.leaves(inputs))
    outputs = jax.tree.structure(outputs_of(model, inputs))
    return jax.tree.unflatten(outputs, halves.head(arrays, activations, beside))


def _halves(layer: LayerName, model: Adapted, inputs: Any) -> Halves:
    spec = specs_of(inputs)
    leaves = jax.tree.leaves(spec)
    main = grids_of(model, spec, leaves)[0]
    analysis = analysed(program_of(model, spec), num_inputs=len(leaves), main=main)
    return halve(*located(analysis, layer, model))

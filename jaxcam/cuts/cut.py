"""A model cut at a layer, for one example: inputs -> activations A, and A -> logits.

Any model is cut by its program; see `halves`. The program is traced for one example, `[1, H, W, 3]`, and `vmap` makes
batches of it, so that no example can depend on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array

from jaxcam.cuts.grid import Grid, grid_of
from jaxcam.cuts.halves import Halves, halve
from jaxcam.cuts.layers import LayerName, site_of
from jaxcam.cuts.model import Adapted, adapted, program_of
from jaxcam.cuts.refusals import check_example, check_is_logits
from jaxcam.cuts.sites import Analysis, analysed
from jaxcam.programs.traced import Traced

__all__ = ["Cut", "cut", "cuts", "network"]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Cut:
    """network(x) = head(beside)(A) with (A, beside) = features(x), for one example x `[H, W, d]`.

    A pytree of the model's arrays; everything else in it is static. Methods that take a model take a cut one as well.
    """

    model: Adapted
    closed: ClosedJaxpr
    """The program of the model, from `(*arrays, inputs [1, H, W, d])`."""
    halves: Halves
    grid: Grid
    layer: LayerName
    channel_axis: int
    """Of one example: -1, or 0 for channels first."""
    activations: jax.ShapeDtypeStruct
    """Shape and dtype of A."""

    def tree_flatten(self) -> tuple[tuple[Adapted], tuple[Any, ...]]:
        """The model; and everything else, which is hashable."""
        return (self.model,), (
            self.closed, self.halves, self.grid, self.layer, self.channel_axis, self.activations
        )  # fmt: skip

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Adapted]) -> Cut:
        """The same with other arrays."""
        return cls(children[0], *static)

    def network(self, example: Array) -> Array:
        """The logits `[c]` of an example."""
        return jaxpr_as_fun(self.closed)(*jax.tree.leaves(self.model), example[None])[0][0]

    def features(self, example: Array) -> tuple[Array, Any]:
        """The activations A `[*spatial, k]` of an example, and what the head needs besides: skip connections."""
        value, beside = self.halves.features(jax.tree.leaves(self.model), example[None])
        return self.grid.activations(value)[0], (value if self.grid.keeps_value else (), beside)

    def head(self, beside: Any) -> Traced:
        """A -> logits `[c]`, traced."""
        value, passing = beside
        arrays = jax.tree.leaves(self.model)

        def whole(a: Array) -> Array:
            return self.grid.value(a[None], value if self.grid.keeps_value else None)

        def head(a: Array) -> Array:
            return self.halves.head(arrays, whole(a), passing)[0]

        class_logit = None if isinstance(self.layer, int) else self.model.told("class_logit")
        if class_logit is not None:
            # One class costs less than all of them: see `jaxcam.models.Network.class_logit`.
            head.logit = lambda a, class_idx: class_logit(whole(a), class_idx, layer=self.layer)[0]  # type: ignore[attr-defined]
        return Traced(head, self.activations, is_piecewise_linear=self.halves.is_piecewise_linear)

    def size(self, example: Array) -> tuple[int, ...]:
        """The spatial size of an example."""
        return example.shape[1:] if self.channel_axis == 0 else example.shape[:-1]


def cut(model: Any, example: Any, *, layer: LayerName = None) -> Cut:
    """The model cut at a layer, for examples like this one; one that is cut already is returned as it is."""
    if isinstance(model, Cut):
        return model
    check_example(example)
    return cuts(adapted(model), jax.ShapeDtypeStruct(example.shape, example.dtype), (layer,))[0]


def cuts(model: Adapted, example: jax.ShapeDtypeStruct, layers: Sequence[LayerName]) -> list[Cut]:
    """The model cut at each of several layers, from one trace of it."""
    inputs = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
    model = model.hoist(inputs)
    closed = program_of(model, inputs)
    analysis = analysed(closed)
    check_is_logits(analysis.program, model.name)
    channel_axis = _channel_axis(analysis)

    def cut_at(layer: LayerName) -> Cut:
        site = site_of(analysis, layer, model)
        grid = grid_of(analysis, site, model.grid)
        aval: Any = site.var.aval
        value = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        _check_batch(value, model.name)
        activations = jax.eval_shape(grid.activations, value)
        _check_grid(activations, inputs, model.name)
        one = jax.ShapeDtypeStruct(activations.shape[1:], activations.dtype)
        return Cut(model, closed, halve(analysis, site), grid, layer, channel_axis, one)

    return [cut_at(layer) for layer in layers]


def network(model: Any, example: Any) -> tuple[Callable[[Array], Array], int]:
    """One example -> logits `[c]`, of a model or of one that is cut, and the channels' axis of the example."""
    if isinstance(model, Cut):
        return model.network, model.channel_axis
    check_example(example)
    inputs = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
    known = adapted(model).hoist(inputs)
    closed = program_of(known, inputs)
    run, arrays = jaxpr_as_fun(closed), jax.tree.leaves(known)
    return lambda example: run(*arrays, example[None])[0][0], _channel_axis(analysed(closed))


def _channel_axis(analysis: Analysis) -> int:
    return 0 if analysis.image_axis == 1 else -1


def _check_batch(value: jax.ShapeDtypeStruct, name: str) -> None:
    if value.ndim < 2 or value.shape[0] != 1:
        raise ValueError(
            f"the layer of {name} must have activations [n, i, j, k] for 1 image, but its shape is "
            f"{list(value.shape)}: keep the batch axis first"
        )


def _check_grid(a: jax.ShapeDtypeStruct, inputs: jax.ShapeDtypeStruct, name: str) -> None:
    if a.ndim != inputs.ndim or a.shape[0] != 1 or not jnp.issubdtype(a.dtype, jnp.floating):
        raise ValueError(
            f"the layer of {name} must have activations [n, i, j, k], but they are {a.dtype}{list(a.shape)}: choose "
            "another layer, such as what comes before the pooling; for tokens use jaxcam.adapt(model, grid=...), which "
            "makes them a grid; for other numbers of spatial axes use jaxcam.grad_cam and jaxcam.grad_cam_pp on one "
            "example"
        )

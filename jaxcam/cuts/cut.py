"""A model cut at a layer, for one example: inputs -> activations A, and A -> logits.

Any model is cut by its program; see `halves`. The program is traced for one example, `[1, *spatial, d]`, and `vmap`
makes batches of it, so that no example can depend on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array

from jaxcam.cuts.grid import Grid, grid_of
from jaxcam.cuts.halves import Halves, halve
from jaxcam.cuts.inputs import check_channels, check_scales
from jaxcam.cuts.layers import LayerName, located
from jaxcam.cuts.logits import logits_of
from jaxcam.cuts.model import Adapted, Probability, adapted
from jaxcam.cuts.refusals import check_example, check_not_exported
from jaxcam.cuts.sites import Analysis, analysed
from jaxcam.programs.program import straight_line
from jaxcam.programs.rounding import rounds
from jaxcam.programs.specs import spec_of, without_batch
from jaxcam.programs.traced import Traced

__all__ = ["Cut", "Network", "cut", "cuts", "network"]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Network:
    """One example x `[*spatial, d]` -> logits `[c]`, or a target's scores `[m]`.

    Of several inputs x is one, and the others of the same example are known. A pytree of arrays; the rest is static.
    """

    model: Adapted
    others: tuple[Array, ...]
    """The other inputs of the example, without the axis n."""
    main: int
    """The place of x among all inputs."""
    closed: ClosedJaxpr
    """From the model's arrays and all inputs `[1, ...]`."""
    channel_axis: int
    """Of x: -1, or 0 for channels first."""
    probability: Probability
    """What makes probabilities of the logits."""

    def tree_flatten(self) -> tuple[tuple[Adapted, tuple[Array, ...]], tuple[Any, ...]]:
        """The model and the other inputs; and everything else, which is hashable."""
        return (self.model, self.others), (self.main, self.closed, self.channel_axis, self.probability)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Adapted, tuple[Array, ...]]) -> Network:
        """The same with other arrays."""
        return cls(*children, *static)

    def __call__(self, example: Array) -> Array:
        """The logits of an example."""
        return jaxpr_as_fun(self.closed)(*jax.tree.leaves(self.model), *self.inputs(example))[0][0]

    def inputs(self, example: Array) -> list[Array]:
        """All inputs, `[1, ...]`."""
        return [x[None] for x in (*self.others[: self.main], example, *self.others[self.main :])]

    @property
    def rounds(self) -> bool:
        """Whether values are rounded between the example and the logits."""
        program = straight_line(self.closed)
        image = program.arguments[len(program.arguments) - len(self.others) - 1 + self.main]
        return rounds(program.equations, [image], program.outputs)

    def size(self, example: Array) -> tuple[int, ...]:
        """The spatial size of an example."""
        return example.shape[1:] if self.channel_axis == 0 else example.shape[:-1]

    def given(self, inputs: Sequence[Array]) -> Network:
        """The same with the other inputs out of all those of an example."""
        return replace(self, others=tuple(x for i, x in enumerate(inputs) if i != self.main))


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Cut:
    """network(x) = head(beside)(A) with (A, beside) = features(x), for one example x `[*spatial, d]`.

    A pytree of arrays; everything else in it is static. Methods that take a model take a cut one as well.
    """

    network: Network
    halves: Halves
    grid: Grid
    layer: LayerName
    activations: jax.ShapeDtypeStruct
    """Shape and dtype of A."""
    complete: bool
    """Whether everything flows through the layer."""

    def tree_flatten(self) -> tuple[tuple[Network], tuple[Any, ...]]:
        """The network; and everything else, which is hashable."""
        return (self.network,), (self.halves, self.grid, self.layer, self.activations, self.complete)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Network]) -> Cut:
        """The same with other arrays."""
        return cls(children[0], *static)

    def features(self, example: Array) -> tuple[Array, Any]:
        """The activations A `[*spatial, k]` of an example, and what the head needs besides: skip connections."""
        arrays = jax.tree.leaves(self.network.model)
        value, beside = self.halves.features(arrays, self.network.inputs(example))
        return self.grid.activations(value)[0], (value if self.grid.keeps_value else (), beside)

    def head(self, beside: Any) -> Traced:
        """A -> logits `[c]`, traced."""
        value, passing = beside
        model = self.network.model
        arrays = jax.tree.leaves(model)

        def whole(a: Array) -> Array:
            return self.grid.value(a[None], value if self.grid.keeps_value else None)

        def head(a: Array) -> Array:
            return self.halves.head(arrays, whole(a), passing)[0][0]

        # Not of a layer that the program has and the model does not know: a step of its scan.
        class_logit, has_layer = model.told("class_logit"), model.told("has_layer")
        is_known = callable(class_logit) and callable(has_layer) and not isinstance(self.layer, int)
        if is_known and has_layer(self.layer):
            # One class costs less than all of them: see `jaxcam.models.Network.class_logit`.
            head.logit = lambda a, class_idx: class_logit(whole(a), class_idx, layer=self.layer)[0]  # type: ignore[attr-defined]
        return Traced(head, self.activations, is_piecewise_linear=self.halves.is_piecewise_linear)

    def given(self, inputs: Sequence[Array]) -> Cut:
        """The same with the other inputs out of all those of an example."""
        return replace(self, network=self.network.given(inputs))


def cut(model: Any, example: Any, *, layer: LayerName = None) -> Cut:
    """The model cut at a layer, for examples like this one; one that is cut already is returned as it is."""
    if isinstance(model, Cut):
        return model
    check_example(example)
    return cuts(adapted(model), spec_of(example), (layer,))[0]


def cuts(model: Adapted, example: Any, layers: Sequence[LayerName], *, main: int = 0) -> list[Cut]:
    """The model cut at each of several layers, from one trace of it, on the way from one of its inputs.

    Args:
        model: an adapted model, hoisted or not.
        example: what one example's inputs are like.
        layers: where.
        main: which of the inputs' leaves.
    """
    whole, analysis = _analysed(model, example, main)
    known, name = whole.model, whole.model.name
    image = jax.tree.leaves(example)[main]

    def cut_at(layer: LayerName) -> Cut:
        found, site = located(analysis, layer, known)
        grid = grid_of(found, site, known.grid)
        aval: Any = site.var.aval
        value = spec_of(aval)
        if known.grid is None:
            _check_batch(value, name)
        activations = jax.eval_shape(grid.activations, value)
        _check_grid(activations, len(image.shape) + 1, name)
        one = without_batch(activations)
        return Cut(whole, halve(found, site), grid, layer, one, site.complete)

    return [cut_at(layer) for layer in layers]


def network(model: Any, example: Any, *, main: int = 0) -> Network:
    """One example -> logits `[c]`, of a model or of one that is cut."""
    if isinstance(model, Cut):
        return model.network
    if isinstance(model, Network):
        return model
    if isinstance(example, jax.Array):  # a method was called with it; what `explain` passes on is checked there
        check_example(example)
    return _analysed(adapted(model), example, main)[0]


def _analysed(model: Adapted, example: Any, main: int) -> tuple[Network, Analysis]:
    inputs = jax.tree.map(lambda x: spec_of(x, (1, *x.shape)), example)
    known = model.hoist(inputs)
    logits = logits_of(known, inputs)
    num_inputs = len(jax.tree.leaves(inputs))
    check_not_exported(known.name, logits.closed, num_inputs)
    analysis = analysed(logits.closed, num_inputs=num_inputs, main=main)
    check_channels(analysis, known.name)
    check_scales(analysis, known.name)
    channel_axis = 0 if analysis.image_axis == 1 else -1
    return Network(known, (), main, logits.closed, channel_axis, logits.probability), analysis


def _check_batch(value: jax.ShapeDtypeStruct, name: str) -> None:
    if value.ndim < 2 or value.shape[0] != 1:
        raise ValueError(
            f"the layer of {name} must have activations [n, *spatial, k] for 1 example, but its shape is "
            f"{list(value.shape)}: name another layer of jaxcam.layers(model, inputs), or keep the batch axis first in "
            "the model, with swapaxes(0, 1) where tokens come first and jax.vmap in the place of jax.lax.map; a model "
            "that wants [t, n, k] gets it of one example at a time: "
            "jaxcam.adapt(model, apply=lambda model, inputs: jax.vmap(lambda x: model(x[:, None])[0])(inputs))"
        )


def _check_grid(a: jax.ShapeDtypeStruct, num_axes: int, name: str) -> None:
    if a.ndim != num_axes or a.shape[0] != 1 or not jnp.issubdtype(a.dtype, jnp.floating):
        raise ValueError(
            f"the layer of {name} must have activations [n, *spatial, k] with the {num_axes - 2} spatial axes of the "
            f"input, but they are {a.dtype}{list(a.shape)}: choose another layer, such as what comes before the "
            "pooling; for tokens use jaxcam.adapt(model, grid=...), which makes them a grid"
        )

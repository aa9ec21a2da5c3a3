"""A model with how it is called: any JAX callable as a pytree of its arrays.

`adapt` is the one place where it is said how a model is called; every function of jaxcam takes what it returns where
it takes a model, and adapts a bare model by itself. It holds a state, a pytree, and a function of state and inputs:

    nnx.Module, equinox.Module, Partial(...)    the model itself          model(inputs)
    a Keras model                               its variables' values     model.stateless_call(values, inputs)
    a function                                  nothing                   function(inputs)
    anything, with apply=                       the model                 apply(model, inputs)

The arrays of the state are arguments of compiled functions, everything else is static. A function, and `apply`, may be
new on every call, and capture arrays that change without their knowledge: `hoist` traces them, which makes the captured
arrays a part of the state; see `jaxcam.programs.closures`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import isroutine
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array

from jaxcam.images.preprocessing import Preprocessing
from jaxcam.programs.closures import Hoisted, Same, hoist
from jaxcam.programs.partition import Static, merged, partitioned

__all__ = ["Adapted", "adapt", "adapted", "name_of", "program_of"]

Apply = Callable[[Any, Any], Any]
"""`(model, inputs) -> outputs`, of a batch."""


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Adapted:
    """A model with how it is called; see `jaxcam.adapt`. A pytree of the model's arrays, and callable.

    Attributes:
        state: what holds the arrays: the model itself, where it is a pytree.
        call: `(state, inputs) -> outputs`.
        name: of the model's type, for messages.
        grid: takes a layer's value to a grid, or None where the program shows it.
        preprocessing: what turns a picture into the model's input, or None.
        class_names: of the logits; may be empty.
        default_layer: where the model itself says that it is cut, or None.
    """

    state: Any
    call: Callable[[Any, Any], Any]
    name: str
    grid: Callable[[Array], Array] | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    default_layer: str | None = None

    def __call__(self, inputs: Any) -> Any:
        """The outputs for a batch."""
        return self.call(self.state, inputs)

    def tree_flatten(self) -> tuple[tuple[list[Any]], Any]:
        """The arrays; and everything else, which is hashable."""
        static, arrays = partitioned((self.state,))
        rest = (self.call, self.name, self.grid, self.preprocessing, self.class_names, self.default_layer)
        return (arrays,), (static, *rest)

    @classmethod
    def tree_unflatten(cls, static: Any, children: tuple[list[Any]]) -> Adapted:
        """The model with these arrays."""
        state, *rest = static
        return cls(merged(state, list(children[0]))[0], *rest)

    def told(self, name: str) -> Any:
        """What the model says of itself, or None: `cam_layer`, `cam_kernel`, `class_logit`."""
        return getattr(self.state, name, None) if self.call in (_called, _halves) else None

    def hoist(self, inputs: jax.ShapeDtypeStruct) -> Adapted:
        """The same with nothing captured and nothing new in it: equal for every call that does the same."""
        grid = None if self.grid is None else Same(self.grid)
        if not isinstance(self.call, _Own):
            return replace(self, grid=grid)
        static, arrays = partitioned((self.state,))
        run = partial(_run, self.call.function, static)
        call, captured = hoist(run, [*map(_spec, arrays), inputs], code_of=self.call.function, beside=static)
        return replace(self, state=[*captured, *arrays], call=_Hoisted(call), grid=grid)


def adapt(
    model: Any,
    *,
    apply: Apply | None = None,
    grid: Callable[[Array], Array] | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> Adapted:
    """A model with how it is called, for every function that takes a model.

    It may be made anew on every call: what does the same is compiled once. Whether channels come first or last is read
    off the program.

    Args:
        model: any JAX model in evaluation mode: an nnx.Module, an equinox.Module, a Keras model, a function, Linen's
            or Haiku's parameters with `apply`; an `Adapted`, of which what is given here is changed.
        apply: `(model, inputs) -> outputs` of a batch, where the model is not called as `model(inputs)`, as
            `linen_model.apply`, or picks one of several outputs. The arrays that it captures are arguments of compiled
            programs. It is called with one example at a time, `[1, H, W, 3]`.
        grid: takes the value of a layer to a grid `[n, i, j, k]` where the program does not show it, for transformers:
            `lambda t: t[:, 1:].reshape(-1, 14, 14, t.shape[-1])` drops the class token. It may only select and move.
            Where the head looks at the class token alone, name a layer before the last attention: behind it no
            gradient reaches the other tokens.
        preprocessing: what turns a picture into the model's input, for `jaxcam.evaluate`; the model's own, if it has
            one, unless given.
        class_names: of the logits; the model's own, if it has them, unless given.

    Raises:
        TypeError: the model cannot be called, apply or grid is not callable, preprocessing is of another kind, or the
            model holds values that are neither arrays nor hashable.

    Example:
        >>> net = jaxcam.adapt(variables, apply=linen_model.apply)
        >>> net = jaxcam.adapt(equinox_model, apply=lambda model, images: jax.vmap(model)(images))
        >>> found = jaxcam.explain(net, images)
    """
    for name, function in (("apply", apply), ("grid", grid)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function but is {type(function).__name__}")
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"preprocessing must be a jaxcam.images.Preprocessing but is {type(preprocessing).__name__}")
    if isinstance(class_names, str):
        raise TypeError(f"class_names must be a sequence of names but is one string, {class_names!r}")
    if isinstance(model, Adapted):
        if apply is not None:
            raise TypeError("model is adapted already: pass apply where it is adapted for the first time")
        known = model
    else:
        known = _adapted(model) if apply is None else Adapted(model, _Own(apply), "apply")
        known = replace(
            known,
            preprocessing=_attribute(model, "preprocessing", Preprocessing),
            class_names=tuple(_attribute(model, "class_names", list | tuple) or ()),
        )
    changed: dict[str, Any] = {"grid": grid, "preprocessing": preprocessing}
    if class_names is not None:
        changed["class_names"] = tuple(map(str, class_names))
    found = replace(known, **{name: value for name, value in changed.items() if value is not None})
    jax.tree.leaves(found)  # says what in it is neither an array nor hashable
    return found


def adapted(model: Any) -> Adapted:
    """The model as it is, if it is adapted, or adapted with nothing said about it."""
    return model if isinstance(model, Adapted) else adapt(model)


def program_of(model: Adapted, inputs: jax.ShapeDtypeStruct) -> ClosedJaxpr:
    """The program from `(*arrays, inputs)` to the logits, the model traced once.

    Raises:
        TypeError: the model does not return one floating-point array.
        ValueError: that is not `[n, c]`.
    """
    if isinstance(model.call, _Hoisted):
        closed = model.call.hoisted.closed
    else:
        arrays, structure = jax.tree.flatten(model)

        def call(arrays: list[Any], inputs: Any) -> Any:
            return jax.tree.unflatten(structure, arrays)(inputs)

        closed = jax.make_jaxpr(call)(list(map(_spec, arrays)), inputs)
    _check_logits(model.name, closed.out_avals, inputs)
    return closed


def name_of(model: Any) -> str:
    """What to call the model in a message."""
    return getattr(model, "__name__", type(model).__name__)


@dataclass(frozen=True)
class _Own:
    """A user's function of state and inputs, which is traced on every call."""

    function: Apply

    def __call__(self, state: Any, inputs: Any) -> Any:
        return self.function(state, inputs)


@dataclass(frozen=True)
class _Hoisted:
    """Its program, of which the arrays are the state."""

    hoisted: Hoisted

    def __call__(self, state: Any, inputs: Any) -> Any:
        return self.hoisted(*state, inputs)


@dataclass(frozen=True, eq=False)
class _Keras:
    """A Keras model as a function of its variables, as for inference. Equal to itself only."""

    model: Any

    def __call__(self, values: Any, inputs: Any) -> Any:
        return self.model.stateless_call(*values, inputs, training=False)[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keras) and self.model is other.model

    def __hash__(self) -> int:
        return id(self.model)


def _called(model: Any, inputs: Any) -> Any:
    return model(inputs)


def _halves(model: Any, inputs: Any) -> Any:
    # The tag makes a layer of the place where the model cuts itself.
    return model.head(checkpoint_name(model.features(inputs), "features"))


def _run(function: Apply, static: Static, *flat: Any) -> Any:
    *arrays, inputs = flat
    return function(merged(static, arrays)[0], inputs)


def _adapted(model: Any) -> Adapted:
    name = type(model).__name__
    if isinstance(model, type):
        raise TypeError(f"model must be an instance but is the class {name_of(model)} itself")
    if callable(getattr(model, "stateless_call", None)):  # Keras: the weights are held outside the pytree
        values = [[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)]
        return Adapted(values, _Keras(model), name)
    halves = _cuts_itself(model)
    call, layer = (_halves, "features") if halves else (_called, _attribute(model, "default_layer", str))
    if call is _called and not callable(model):
        raise TypeError(
            f"model must be something that can be called, or that has features(images) -> activations and "
            f"head(activations) -> logits, but is {name}: use jaxcam.adapt(model, apply=...), with apply a function "
            "(model, images) -> logits, such as linen_model.apply"
        )
    leaves = jax.tree.leaves(model)
    if len(leaves) == 1 and leaves[0] is model:  # a function, or an object that JAX knows nothing of
        return Adapted((), _Own(lambda _, inputs: call(model, inputs)), name_of(model), default_layer=layer)
    return Adapted(model, call, name, default_layer=layer)


def _cuts_itself(model: Any) -> bool:
    """Whether the model has two halves of its own, between which it is cut by default."""
    parts = [getattr(model, name, None) for name in ("features", "head")]
    # Many networks keep submodules of these names, between which they pool and flatten: those are no halves.
    are_halves = all(map(callable, parts)) and (all(map(isroutine, parts)) or not callable(model))
    return are_halves and not isinstance(getattr(model, "default_layer", None), str)


def _attribute(model: Any, name: str, kind: Any) -> Any:
    found = getattr(model, name, None)
    return found if isinstance(found, kind) else None


def _spec(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array))


def _check_logits(name: str, outputs: Sequence[Any], inputs: jax.ShapeDtypeStruct) -> None:
    kinds = [f"{out.dtype}{list(out.shape)}" for out in outputs]
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        raise TypeError(
            f"{name} must return one array of logits [n, c], but returned {', '.join(kinds) or 'nothing'}: pick it "
            "with jaxcam.adapt(model, apply=lambda model, images: model(images)[0]), or as fits"
        )
    shape = outputs[0].shape
    if len(shape) != 2 or shape[0] != inputs.shape[0]:
        raise ValueError(
            f"{name} must return logits [n, c] for images {list(inputs.shape)}, but returned {list(shape)}: keep the "
            "batch axis, also of a single image (jax.vmap(model) for a model of one image), and pick or pool with "
            "jaxcam.adapt(model, apply=...) where there are other axes"
        )

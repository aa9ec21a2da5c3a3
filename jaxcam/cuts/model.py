"""A model with how it is called: any JAX callable as a pytree of its arrays.

`adapt` is the one place where it is said how a model is called; every function of jaxcam takes what it returns where
it takes a model, and adapts a bare model by itself. It holds a state, a pytree, and a function of state and inputs:

    nnx.Module, equinox.Module, Partial(...)    the model itself          model(inputs)
    a Keras model                               its variables' values     model.stateless_call(values, inputs)
    a torch.nn.Module                           its tensors' values       what torchax makes of it
    a function                                  nothing                   function(inputs)
    anything, with apply=                       the model                 apply(model, inputs)

The arrays of the state are arguments of compiled functions, everything else is static. A function, and `apply`, may be
new on every call, and read what changes without their knowledge, and so may a Keras model: `hoist` traces them on every
call, which makes the captured arrays a part of the state; see `jaxcam.programs.closures`.

What is explained of a model's outputs are scores `[m]`, one row for each example: a classifier's logits, or what a
target makes of the outputs (`aimed`), which is then a part of the model's program like any layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import isroutine
from typing import Any

import jax
import jax.export
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array

from jaxcam.cuts.calls import Aimed, Apply, Own, Written, by_halves, flat, itself, scored, stateless
from jaxcam.cuts.refusals import (
    calls_told,
    check_indices,
    check_outputs,
    check_reads_outputs,
    check_reads_statistics,
    check_returns_no_statistics,
    check_scores,
    check_two,
    exported_told,
    shapes,
)
from jaxcam.cuts.torch_modules import from_torch, is_torch
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.programs.closures import hoist
from jaxcam.programs.compiled import key_of
from jaxcam.programs.partition import merged, partitioned
from jaxcam.programs.specs import spec_of, without_batch
from jaxcam.programs.watched import watched

__all__ = ["Adapted", "Probability", "adapt", "adapted", "name_of", "outputs_of", "program_of"]

Probability = str | Callable[..., Any] | None
"""What makes probabilities of the logits `[c]`: "softmax", "sigmoid", a function, None, or "auto"."""

InputName = str | int | tuple[str | int, ...] | None
"""Which of several inputs: a key or position, or several from the outside in."""


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
        probability: what makes probabilities of the logits.
        input: which of several inputs the heatmap lies on, or None for each that has a grid.
    """

    state: Any
    call: Callable[[Any, Any], Any]
    name: str
    grid: Callable[[Array], Array] | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    default_layer: str | None = None
    probability: Probability = "auto"
    input: InputName = None

    def __call__(self, inputs: Any) -> Any:
        """The outputs for a batch."""
        return self.call(self.state, inputs)

    def tree_flatten(self) -> tuple[tuple[list[Any]], Any]:
        """The arrays; and everything else, which is hashable."""
        static, arrays = partitioned((self.state,))
        rest = (self.call, self.name, self.grid, self.preprocessing, self.class_names, self.default_layer)
        return (arrays,), (static, *rest, self.probability, self.input)

    @classmethod
    def tree_unflatten(cls, static: Any, children: tuple[list[Any]]) -> Adapted:
        """The model with these arrays."""
        state, *rest = static
        return cls(merged(state, list(children[0]))[0], *rest)

    def told(self, name: str) -> Any:
        """What the model says of itself, or None: `cam_layer`, `cam_kernel`, `class_logit`, `has_layer`."""
        return getattr(self.state, name, None) if self.call in (itself, by_halves) else None

    @property
    def is_aimed(self) -> bool:
        """Whether its outputs are a target's scores."""
        return isinstance(self.call, Aimed)

    def hoist(self, inputs: Any) -> Adapted:
        """The same with nothing captured and nothing new in it: equal for every call that does the same."""
        grid, probability = watched(self.grid), watched(self.probability)
        if not isinstance(self.call, Own):
            return replace(self, grid=grid, probability=probability)
        static, arrays = partitioned((self.state,))
        leaves, structure = jax.tree.flatten(inputs)
        known, key = self.call.known, (static, structure, *map(spec_of, arrays), *map(spec_of, leaves))
        if known is None or (found := known.get(key)) is None:
            run = partial(flat, self.call.function, static, structure)
            with calls_told(self.name, inputs):
                found = call, captured = hoist(run, [*map(spec_of, arrays), *leaves])
            check_reads_statistics(self.name, self.state, call.closed, len(captured))
            check_two(self.name, run, call.closed, arrays, inputs)
            if known is not None and not any(isinstance(array, Tracer) for array in captured):
                known[key] = found
        call, captured = found
        return replace(self, state=[*captured, *arrays], call=Written(call), grid=grid, probability=probability)

    def aim(self, target: Callable[[Any, Any], Array], inputs: Any) -> tuple[Adapted, tuple[int, ...]]:
        """The model whose outputs are the scores `[1, m]` that a target makes of its outputs; and the target's shape.

        Args:
            target: of one example; traced, what it captured becomes a part of the state.
            inputs: what a batch of one example is like.

        Raises:
            TypeError, ValueError: the target does not return floating-point scores, reads none of the outputs, or an
                index that they do not have; or they have no axis n.
        """
        known = self.hoist(inputs)
        outputs = outputs_of(known, inputs)
        check_returns_no_statistics(self.name, outputs)
        check_outputs(self.name, outputs, inputs)
        one = [without_batch(outputs), without_batch(inputs)]
        leaves, structure = jax.tree.flatten(one)
        made = partial(scored, target, structure)
        try:
            scores = jax.eval_shape(made, *leaves)
        except Exception as error:
            outs, ins = map(shapes, one)
            error.add_note(f"while target was called with the outputs {outs} and inputs {ins} of one example")
            raise
        check_scores(scores)
        program, captured = hoist(made, leaves)
        check_reads_outputs(program.closed, len(captured), len(jax.tree.leaves(outputs)))
        check_indices(program.closed, captured)
        aimed = Aimed(known.call, program)
        return replace(known, state=(known.state, captured), call=aimed, probability=None), scores.shape


def adapt(
    model: Any,
    *,
    apply: Apply | None = None,
    grid: Callable[[Array], Array] | None = None,
    probability: Probability = "auto",
    input: InputName = None,  # noqa: A002
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> Adapted:
    """A model with how it is called, for every function that takes a model.

    It may be made anew on every call: what does the same is compiled once. Whether channels come first or last is read
    off the program, and so is a softmax or sigmoid at its end: what is explained are the logits before it.

    Args:
        model: any JAX model in evaluation mode: an nnx.Module, an equinox.Module, a Keras model, a function, Linen's
            or Haiku's parameters with `apply`; an `Adapted`, of which what is given here is changed.
        apply: `(model, inputs) -> outputs` of a batch, where the model is not called as `model(inputs)`, as
            `linen_model.apply`, or picks one of several outputs. The arrays that it captures are arguments of compiled
            programs. It is called with one example at a time, `[1, *spatial, d]`.
        probability: what makes the confidence of a classifier's logits `[c]`: "softmax", "sigmoid" (each class by
            itself: multi-label), a function of the logits, or None for outputs that are no classes, as of a
            regression: no confidence then, and one output is not taken for a binary classifier's logit. "auto" is what
            the program ends in, else the softmax; and the sigmoid for one logit, which is that of class 1, and negated
            that of class 0.
        input: which of several inputs the heatmap lies on, by its key or position; unless given, there is a heatmap for
            each that has a grid.
        grid: takes the value of a layer to a grid `[n, i, j, k]` where the program does not show it (`jaxcam.layers`
            says "mixed"): `lambda t: t[:, 1:].reshape(-1, 14, 14, t.shape[-1])`. It may only select and move, and it
            overrides what the program shows.
        preprocessing: what turns a picture into the model's input, for `jaxcam.evaluate`; the model's own, if it has
            one, unless given.
        class_names: of the logits, one for each class (two of a binary classifier, also if it has one logit), which is
            checked where the model is explained; the model's own, if it has them, unless given; [] for none.

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
    if not (probability in ("auto", "softmax", "sigmoid", None) or callable(probability)):
        raise ValueError(
            f'probability must be "softmax", "sigmoid", None or a function of the logits but is {probability!r}'
        )
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"preprocessing must be a jaxcam.images.Preprocessing but is {type(preprocessing).__name__}")
    if isinstance(class_names, str | set | frozenset):
        raise TypeError(f"class_names must be a sequence of names, in the order of the classes, but is {class_names!r}")
    if not all(isinstance(part, str | int) for part in (input if isinstance(input, tuple) else (input or 0,))):
        raise TypeError(f"input must be a key or a position, or several in a tuple, but is {input!r}")
    if isinstance(model, Adapted):
        if apply is not None:
            raise TypeError("model is adapted already: pass apply where it is adapted for the first time")
        known = model
    else:
        known = _adapted(model, apply)
        known = replace(
            known,
            preprocessing=_attribute(model, "preprocessing", Preprocessing),
            class_names=tuple(_attribute(model, "class_names", list | tuple) or ()),
        )
    changed: dict[str, Any] = {"grid": grid, "preprocessing": preprocessing, "input": input}
    if class_names is not None:
        changed["class_names"] = tuple(map(str, class_names))
    if probability != "auto":
        known = replace(known, probability=probability)
    found = replace(known, **{name: value for name, value in changed.items() if value is not None})
    jax.tree.leaves(found)  # says what in it is neither an array nor hashable
    return found


def adapted(model: Any) -> Adapted:
    """The model as it is, if it is adapted, or adapted with nothing said about it."""
    return model if isinstance(model, Adapted) else adapt(model)


def program_of(model: Adapted, inputs: Any) -> ClosedJaxpr:
    """The program from the model's arrays and the inputs' to all that it returns, the model traced once.

    Raises:
        ValueError: the model cannot be called with such inputs.
    """
    if isinstance(model.call, Written):
        return model.call.hoisted.closed
    return _read(model, inputs)[0]


def outputs_of(model: Adapted, inputs: Any) -> Any:
    """What the outputs are like; found again without tracing the model."""
    if isinstance(model.call, Written):
        return model.call.hoisted.results
    leaves, structure = jax.tree.flatten(inputs)
    arrays, static = jax.tree.flatten(model)[0], model.tree_flatten()[1]
    key = (key_of(static), structure, *map(spec_of, arrays), *map(spec_of, leaves))
    if (found := _OUTPUTS.get(key)) is None:
        found = _read(model, inputs)[1]
        if len(_OUTPUTS) >= _MANY:
            _OUTPUTS.clear()
        _OUTPUTS[key] = found
    return found


_OUTPUTS: dict[Hashable, Any] = {}
"""Shapes by what a model is; no model is kept alive by it."""
_MANY = 64


def _read(model: Adapted, inputs: Any) -> tuple[ClosedJaxpr, Any]:
    """The program of a model, and what its outputs are like."""
    arrays, structure = jax.tree.flatten(model)
    leaves, inside = jax.tree.flatten(inputs)

    def call(*flat: Any) -> Any:
        own, given = flat[: len(arrays)], flat[len(arrays) :]
        return jax.tree.unflatten(structure, list(own))(jax.tree.unflatten(inside, list(given)))

    with calls_told(model.name, inputs):
        read, results = jax.make_jaxpr(call, return_shape=True)(*map(spec_of, arrays), *map(spec_of, leaves))
    if not model.is_aimed:  # a target is of one example, and the model before it has been looked at
        check_two(model.name, call, read, arrays, inputs)
    return read, results


def name_of(model: Any) -> str:
    """What to call the model in a message."""
    return getattr(model, "__name__", type(model).__name__)


def _adapted(model: Any, apply: Apply | None) -> Adapted:
    name = type(model).__name__
    if is_torch(model):
        arrays, function = from_torch(model, apply)
        return Adapted(arrays, Own(function, known={}), name)
    if apply is not None:
        return Adapted(model, Own(apply), "apply")
    if isinstance(model, type):
        raise TypeError(f"model must be an instance but is the class {name_of(model)} itself")
    if callable(getattr(model, "stateless_call", None)):  # Keras: the weights are held outside the pytree
        values = [[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)]
        return Adapted(values, Own(partial(stateless, model)), name)
    if isinstance(model, jax.export.Exported):
        raise exported_told(name)
    halves = _cuts_itself(model)
    call, layer = (by_halves, "features") if halves else (itself, _attribute(model, "default_layer", str))
    if call is itself and not callable(model):
        raise TypeError(
            f"model must be something that can be called, or that has features(images) -> activations and "
            f"head(activations) -> logits, but is {name}: use jaxcam.adapt(model, apply=...), with apply a function "
            "(model, images) -> logits, such as linen_model.apply"
        )
    leaves = jax.tree.leaves(model)
    if len(leaves) == 1 and leaves[0] is model:  # a function, or an object that JAX knows nothing of
        return Adapted((), Own(lambda _, inputs: call(model, inputs)), name_of(model), default_layer=layer)
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

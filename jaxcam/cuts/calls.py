"""How a model is called: the functions `(state, inputs) -> outputs` that an adapted model holds.

All are equal where they call in the same way, so that a program that was compiled for one is found again for another:
`itself`, `by_halves` and `stateless` are there once; `Own` is a user's function, and `Written` its program, which is
known by what it computes; `Aimed` has a target behind the model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from jaxcam.cuts.refusals import no_scores
from jaxcam.cuts.sites import OUTPUTS
from jaxcam.programs.closures import Hoisted
from jaxcam.programs.partition import Static, merged

__all__ = ["Aimed", "Apply", "Own", "Written", "by_halves", "flat", "itself", "scored", "stateless"]

Apply = Callable[[Any, Any], Any]
"""`(model, inputs) -> outputs`, of a batch."""


@dataclass(frozen=True)
class Own:
    """A user's function of state and inputs, traced on every call, or once for inputs of each shape (`known`)."""

    function: Apply
    known: dict[Hashable, tuple[Hoisted, list[Any]]] | None = field(default=None, compare=False)
    """Of one that reads nothing that changes: its programs and what they captured, once for inputs of each shape."""

    def __call__(self, state: Any, inputs: Any) -> Any:
        """The outputs."""
        return self.function(state, inputs)


@dataclass(frozen=True)
class Written:
    """A function's program, of which the arrays are the state."""

    hoisted: Hoisted

    def __call__(self, state: Any, inputs: Any) -> Any:
        """The outputs."""
        return self.hoisted(*state, *jax.tree.leaves(inputs))


@dataclass(frozen=True)
class Aimed:
    """A model and a target after it: the scores `[1, m]` of a batch of one."""

    call: Callable[[Any, Any], Any]
    target: Hoisted

    def __call__(self, state: Any, inputs: Any) -> Any:
        """The scores."""
        arrays, captured = state
        outputs = jax.tree.map(lambda value: checkpoint_name(value, OUTPUTS), self.call(arrays, inputs))
        one = [value.reshape(value.shape[1:]) for value in jax.tree.leaves((outputs, inputs))]
        return self.target(*captured, *one).reshape(1, -1)


def stateless(model: Any, values: Any, inputs: Any) -> Any:
    """A Keras model as a function of its variables, as for inference."""
    return model.stateless_call(*values, inputs, training=False)[0]


def itself(model: Any, inputs: Any) -> Any:
    """A model that is called as `model(inputs)`."""
    return model(inputs)


def by_halves(model: Any, inputs: Any) -> Any:
    """A model with features and head."""
    # The tag makes a layer of the place where the model cuts itself.
    return model.head(checkpoint_name(model.features(inputs), "features"))


def flat(function: Apply, static: Static, structure: Any, *arrays: Any) -> Any:
    """A user's function of the arrays of the state, followed by those of the inputs."""
    split = len(arrays) - structure.num_leaves
    return function(merged(static, list(arrays[:split]))[0], jax.tree.unflatten(structure, arrays[split:]))


def scored(target: Callable[[Any, Any], Any], structure: Any, *arrays: Any) -> Any:
    """What a target makes of the arrays of the outputs, followed by those of the inputs."""
    outputs, inputs = jax.tree.unflatten(structure, arrays)
    scores = target(outputs, inputs)
    if not isinstance(scores, Array):  # a Python or NumPy number as well: that is a constant, computed from nothing
        raise no_scores(type(scores).__name__)
    return scores

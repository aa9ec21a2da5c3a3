"""Any model as a program of its arrays and images: what is an argument of compiled functions, and what is static.

A pytree that can be called (an nnx.Module, an equinox.Module, `Partial(linen_model.apply, variables)`) and a Keras
model are traced inside the compiled function, which is found again by the structure of the model. A plain function, and
`model_fn`, may close over arrays that change without their knowledge: these are traced on every call, and what they
captured becomes an argument too, so that no stale value is ever compiled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import Array

from jaxcam.programs.partition import Static, merged, partitioned
from jaxcam.programs.program import called, inner_programs, kept_constants, straight_line

ModelFn = Callable[[Any, Array], Array]
"""`(model, images) -> logits`."""


class Form(NamedTuple):
    """How a model is called, without its arrays: hashable, a static argument of compiled functions."""

    name: str
    """Of its type, for messages."""
    static: Static
    call: Callable[[Any, Array], Any]
    traced: Traced | None
    """The program, where it must not be traced again."""


class Traced:
    """The program of a function, equal to another trace of the same code that came out the same.

    A program does not show everything: custom derivatives are rules outside of it. So what the function captured must
    be the same as well, but for arrays, which are arguments.
    """

    def __init__(self, function: Callable[..., Any], program: Jaxpr) -> None:
        """The program of `function`, its constants left open."""
        self.program = program
        inside = [_Same(value) for value in kept_constants(program)]
        text = program.pretty_print(name_stack=True, use_color=False)  # the scopes are names of layers
        self._key = (_key(function, ()), text, *inside)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Traced) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def formed(model: Any, model_fn: ModelFn | None, images: jax.ShapeDtypeStruct) -> tuple[Form, list[Any]]:
    """The form of a model that is called on such images, and its arrays.

    Raises:
        TypeError: the model cannot be called, `model_fn` is not callable, or the model holds values that are neither
            arrays nor hashable.
    """
    name = type(model).__name__
    if model_fn is not None:
        if not callable(model_fn):
            raise TypeError(f"model_fn must be a function (model, images) -> logits, not {type(model_fn).__name__}")
        name = "model_fn"
        static, arrays = partitioned((model,))  # in a tuple anything goes, also an object that is no pytree
        return _traced(name, model_fn, static, arrays, images)
    if isinstance(model, type):
        raise TypeError(f"model must be an instance, but is the class {name_of(model)} itself")
    if callable(getattr(model, "stateless_call", None)):  # Keras: the weights are held outside the pytree
        values = [[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)]
        static, arrays = partitioned(values)
        return Form(name, static, _Keras(model), None), arrays
    if not callable(model):
        raise TypeError(
            f"model of type {name} can neither be called nor has it features and head: pass model_fn=, a function "
            "(model, images) -> logits, such as linen_model.apply"
        )
    if _is_leaf(model):
        static, arrays = partitioned((None,))
        return _traced(name_of(model), lambda _, images: model(images), static, arrays, images, code_of=model)
    static, arrays = partitioned(model)
    return Form(name, static, _called, None), arrays


def program_of(form: Form, arrays: list[Any], images: jax.ShapeDtypeStruct) -> ClosedJaxpr:
    """The program from `(*arrays, images)` to the logits.

    Raises:
        TypeError: the model does not return one floating-point array.
        ValueError: that is not `[n, c]`.
    """
    if form.traced is not None:
        closed = ClosedJaxpr(form.traced.program, [])
    else:
        call = partial(_merged_form_call, form)
        closed = jax.make_jaxpr(call)([_aval(a) for a in arrays], images)
    _check_logits(form.name, closed.out_avals, images)
    return closed


def name_of(model: Any) -> str:
    """What to call the model in a message."""
    return getattr(model, "__name__", type(model).__name__)


def _merged_form_call(form: Form, arrays: list[Any], images: Array) -> Any:
    return form.call(merged(form.static, arrays), images)


def _called(model: Any, images: Array) -> Any:
    return model(images)


@dataclass(frozen=True, eq=False)
class _Keras:
    """A Keras model as a function of its variables, as for inference. Equal to itself only."""

    model: Any

    def __call__(self, values: Any, images: Array) -> Any:
        return self.model.stateless_call(*values, images, training=False)[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keras) and self.model is other.model

    def __hash__(self) -> int:
        return id(self.model)


def _traced(
    name: str,
    function: Callable[[Any, Array], Any],
    static: Static,
    arrays: list[Any],
    images: jax.ShapeDtypeStruct,
    *,
    code_of: Any = None,
) -> tuple[Form, list[Any]]:
    call = partial(_merged_call, function, static)
    closed = jax.make_jaxpr(call)([_aval(a) for a in arrays], images)
    # What the function captured comes first among the arguments. A jitted function inside keeps its own.
    opened = straight_line(closed, opened=lambda eqn, place: called(eqn) if _keeps_constants(eqn) else None)
    captured = list(opened.constants)
    program = closed.jaxpr.replace(
        constvars=[], invars=[*captured, *opened.arguments], eqns=opened.equations, outvars=list(opened.outputs)
    )
    traced = Traced(function if code_of is None else code_of, program)
    return Form(name, static, _called, traced), [*opened.constants.values(), *arrays]


def _merged_call(function: Callable[[Any, Array], Any], static: Static, arrays: list[Any], images: Array) -> Any:
    return function(merged(static, arrays)[0], images)


def _keeps_constants(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in ("jit", "pjit", "closed_call") and any(
        inner.consts or any(_keeps_constants(e) for e in inner.jaxpr.eqns) for inner in inner_programs(eqn)
    )


class _Same:
    """Equal to the same object only; the object lives as long."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _key(value: Any, around: tuple[Any, ...]) -> Any:
    """What is equal for two functions of the same code that captured the same, but for arrays."""
    if any(value is outer for outer in around):  # a function that captures itself
        return None
    around = (*around, value)
    if isinstance(value, MethodType):
        return _key(value.__func__, around), _key(value.__self__, around)
    if isinstance(value, partial):
        return _key((value.func, value.args, value.keywords), around)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        return value.__code__, _key((cells, value.__defaults__, value.__kwdefaults__), around)
    leaves, structure = jax.tree.flatten(value)
    if len(leaves) != 1 or leaves[0] is not value:
        return _hashable(structure), tuple(_key(leaf, around) for leaf in leaves)
    return jax.Array if isinstance(value, jax.Array | np.ndarray | np.generic) else _hashable(value)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value


def _is_empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _is_leaf(model: Any) -> bool:
    leaves = jax.tree.leaves(model)
    return len(leaves) == 1 and leaves[0] is model


def _aval(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(array), jnp.result_type(array))


def _check_logits(name: str, outputs: list[Any], images: jax.ShapeDtypeStruct) -> None:
    kinds = [f"{out.dtype}{list(out.shape)}" for out in outputs]
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        raise TypeError(
            f"{name} must return one array of logits [n, c], but returned {', '.join(kinds) or 'nothing'}: pick it "
            "with model_fn=lambda model, images: model(images)[0], or as fits"
        )
    shape = outputs[0].shape
    if len(shape) != 2 or shape[0] != images.shape[0]:
        raise ValueError(
            f"{name} must return logits [n, c] for images {list(images.shape)}, but returned {list(shape)}: keep the "
            "batch axis, also of a single image (jax.vmap(model) for a model of one image), and pick or pool with "
            "model_fn= where there are other axes"
        )

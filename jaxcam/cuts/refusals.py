"""What is refused, and why, before anything is computed: models in training, images and outputs of another kind."""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from jaxcam.checks import check_floating
from jaxcam.programs.moves import Constants
from jaxcam.programs.primitives import about
from jaxcam.programs.program import Program, inner_programs, shape, straight_line
from jaxcam.programs.specs import spec_of

__all__ = [
    "RefusedError",
    "calls_told",
    "check_evaluates",
    "check_example",
    "check_indices",
    "check_not_exported",
    "check_outputs",
    "check_reads_outputs",
    "check_reads_statistics",
    "check_returns_no_statistics",
    "check_scores",
    "check_two",
    "exported_told",
    "in_training",
    "no_scores",
    "shapes",
]


class RefusedError(ValueError):
    """A model that cannot be explained in this way, with the reason."""


def check_evaluates(model: Any) -> None:
    """Refuses a model in training mode, where batch norm and dropout make examples depend on each other."""
    # Where `training` is a property, as in our own networks, it says what `in_training` has found already.
    is_said = not isinstance(getattr(type(model), "training", None), property)
    if in_training(model) or (is_said and getattr(model, "training", None) is True):
        raise ValueError("model is in training mode, where images depend on each other: call model.eval() first")
    if any(map(_drops_or_normalises, jax.tree.leaves(model, is_leaf=_drops_or_normalises))):
        raise ValueError(
            "model is in training mode (inference=False), where images depend on each other: use "
            "equinox.nn.inference_mode(model) first"
        )


def in_training(model: Any) -> bool:
    """Whether batch norm uses the batch's statistics or dropout drops in any part of an nnx.Module."""
    nnx = sys.modules.get("flax.nnx")  # where nobody has imported it nothing is made of it, and importing takes long
    if nnx is None or not isinstance(model, nnx.Module):
        return False
    return any(
        (isinstance(m, nnx.BatchNorm) and not m.use_running_average)
        or (isinstance(m, nnx.Dropout) and not m.deterministic and m.rate > 0)
        for _, m in nnx.iter_modules(model)
    )


def check_returns_no_statistics(name: str, outputs: Any) -> None:
    """Refuses what Linen returns in training: outputs, and beside them the collections that it changed."""
    is_pair = isinstance(outputs, tuple) and len(outputs) == 2 and isinstance(outputs[1], Mapping)
    if is_pair and "batch_stats" in outputs[1]:
        raise ValueError(
            f"{name} is in training mode: it returns changed batch_stats beside its outputs, so that images depend on "
            "each other: call it for evaluation, as apply=lambda variables, x: model.apply(variables, x, train=False)"
        )


def check_reads_outputs(closed: ClosedJaxpr, num_before: int, num_outputs: int) -> None:
    """Refuses a target whose scores need none of a model's outputs: a number of its own, or one of the inputs alone.

    Args:
        closed: the target's program, from `num_before` other arrays, the outputs, and the inputs.
        num_before: how many come before.
        num_outputs: how many arrays the outputs are.
    """
    program = straight_line(closed)
    read = {atom for eqn in program.equations for atom in eqn.invars if isinstance(atom, Var)}
    read |= {atom for atom in program.outputs if isinstance(atom, Var)}
    if read.isdisjoint(program.arguments[num_before : num_before + num_outputs]):
        raise ValueError(
            "target must be computed from the outputs of the model but reads none of them: use outputs, as lambda "
            "outputs, inputs: outputs[2]"
        )


def check_indices(closed: ClosedJaxpr, captured: Sequence[Any]) -> None:
    """Refuses a target that picks `outputs[7]` of 5, or `outputs[[1, 7]]`: JAX would take the last, another class.

    Args:
        closed: the target's program, from what it captured, the outputs, and the inputs.
        captured: what it captured. Indices that depend on the outputs or the inputs are not checked.

    Nor are several indices of which a choice or a weight may leave out what they read.
    """
    program = straight_line(closed)
    num = len(captured)
    known = {**program.constants, **dict(zip(program.arguments, captured, strict=False))}
    constants = Constants(replace(program, arguments=program.arguments[num:], constants=known))
    for eqn in program.equations:
        if eqn.primitive is lax.gather_p and _may_be_left_out(program, eqn):
            continue
        for length, taken, starts in _reads(eqn, constants):
            for start in starts[(starts < 0) | (starts > length - taken)][:1].tolist():
                raise ValueError(
                    f"target must read indices from 0 to {length - taken} of an axis of length {length} but reads "
                    f"{start if start >= 0 else start - length}: JAX would take the nearest that there is"
                )


_KEPT = {
    lax.reshape_p, lax.squeeze_p, lax.broadcast_in_dim_p, lax.transpose_p, lax.concatenate_p, lax.copy_p,
    lax.convert_element_type_p, lax.reduce_sum_p, lax.add_p, lax.sub_p, lax.neg_p, lax.div_p, lax.exp_p, lax.log_p,
}  # fmt: skip
"""What leaves nothing out that it is given: no choice, and no weight that may be zero."""


def _may_be_left_out(program: Program, eqn: JaxprEqn) -> bool:
    """Whether what is read may count for nothing: what `map_coordinates` reads beyond the edge, padding, a mask."""
    reached = set(eqn.outvars)
    for later in program.equations:
        if any(isinstance(atom, Var) and atom in reached for atom in later.invars):
            if later.primitive not in _KEPT:
                return True
            reached.update(later.outvars)
    return False


def _reads(eqn: JaxprEqn, constants: Constants) -> list[tuple[int, int, np.ndarray]]:
    """Of each axis that is read from known indices: its length, how much is read from each, and the indices.

    Those that were told what to do beyond the ends (`mode="clip"`, or "fill") are not among them.
    """
    found: list[tuple[int, int, np.ndarray]] = []
    if eqn.primitive is lax.dynamic_slice_p:
        operand, *starts = eqn.invars
        for length, taken, atom in zip(shape(operand), shape(eqn.outvars[0]), starts, strict=True):
            if (start := constants[atom]) is not None:
                found.append((length, taken, np.ravel(start)))
    elif eqn.primitive is lax.gather_p and eqn.params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        operand, atom = eqn.invars
        if (start := constants[atom]) is not None:
            for axis, index in zip(
                eqn.params["dimension_numbers"].start_index_map, np.moveaxis(np.asarray(start), -1, 0), strict=True
            ):
                found.append((shape(operand)[axis], eqn.params["slice_sizes"][axis], np.ravel(index)))
    return found


def check_reads_statistics(name: str, variables: Any, closed: ClosedJaxpr, num_before: int) -> None:
    """Refuses Linen's variables where the outputs need none of the running statistics: those of the batch were taken.

    Args:
        name: of the model.
        variables: its state.
        closed: its program, from `num_before` other arrays and those of the state.
        num_before: how many come before.
    """
    if not (isinstance(variables, Mapping) and "batch_stats" in variables):
        return
    program = straight_line(closed)
    used = {atom for eqn in program.equations for atom in eqn.invars if isinstance(atom, Var)}
    paths = [str(path[0].key) for path, _ in jax.tree_util.tree_flatten_with_path(dict(variables))[0]]  # type: ignore[attr-defined]
    statistics = [program.arguments[num_before + i] for i, first in enumerate(paths) if first == "batch_stats"]
    if statistics and used.isdisjoint(statistics):
        raise ValueError(
            f"{name} is in training mode: its outputs do not depend on the running batch_stats, and images on "
            "each other: call it for evaluation, as apply=lambda v, x: model.apply(v, x, train=False)"
        )


def _drops_or_normalises(part: Any) -> bool:
    """Whether it is an Equinox layer that works otherwise in training, and is in training."""
    return getattr(part, "inference", None) is False and getattr(part, "p", None) != 0 and not callable(part.inference)


def check_example(example: Any) -> None:
    """Refuses what is not one example as the model takes it."""
    if not (hasattr(example, "shape") and hasattr(example, "dtype")):
        raise TypeError(
            f"image must be an array [*spatial, d] but is {type(example).__name__}: jaxcam.explain takes several inputs"
        )
    if len(example.shape) < 2:
        raise ValueError(f"image must be one example [*spatial, d] but came as {list(example.shape)}")
    # A mask or noise would be rounded to 0 and 1, and the map be wrong.
    check_floating("image", example, ": divide by 255 and normalise as in training (model.preprocessing(picture))")


def check_not_exported(name: str, closed: ClosedJaxpr, num_inputs: int) -> None:
    """Refuses a model whose inputs go into an exported program: nothing is known of what is in it.

    Args:
        name: of the model.
        closed: its program.
        num_inputs: how many of its arguments, the last ones, are inputs.
    """
    if not any(map(_calls_exported, closed.jaxpr.eqns)):
        return
    # `Exported.call` has a derivative of its own, and the exported program inside of it.
    program = straight_line(closed)
    moving = {*program.arguments[len(program.arguments) - num_inputs :]}
    for eqn in program.equations:
        if not moving.isdisjoint(atom for atom in eqn.invars if isinstance(atom, Var)):
            if _calls_exported(eqn):
                raise exported_told(name)
            moving.update(eqn.outvars)


def _calls_exported(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name == "call_exported":
        return True
    return any(_calls_exported(inside) for inner in inner_programs(eqn) for inside in inner.jaxpr.eqns)


def exported_told(name: str) -> RefusedError:
    """What to do with an exported program."""
    return RefusedError(
        f"{name} must be a program that can be read but is, or calls, one that was exported (jax.export), which can be "
        "neither cut nor batched: export its features and its head separately, the head for one example and with "
        "serialize(vjp_order=1), and explain the head: jaxcam.grad_cam(lambda a: head.call(a[None])[0], "
        "features.call(inputs)[0], class_idx); or export jaxcam.explain itself, as the guide shows"
    )


@contextmanager
def calls_told(name: str, inputs: Any) -> Generator[None]:
    """Says which inputs a model failed on, and what they may lack."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        hint = "see jaxcam.adapt(model, apply=...) for how a model is called"
        arrays = jax.tree.leaves(inputs)
        if any(jnp.issubdtype(array.dtype, jnp.integer) for array in arrays):
            hint += "; integers come to it as they are: pixels are to be divided by 255 and normalised as in training"
        elif len(arrays) == 1 and inputs is arrays[0] and len(inputs.shape) == 3:
            hint += "; one example needs the batch axis inputs[None], pictures of one channel an axis for it: "
            hint += "inputs[..., None]"
        elif len(arrays) == 1 and inputs is arrays[0]:
            hint += ", as apply=lambda model, x: jax.vmap(model)(x) for a model of one example"
        else:
            stars = "**" if isinstance(inputs, dict) else "*"
            hint += f": several inputs are one argument of it, as for apply=lambda model, x: model({stars}x)"
        said = f"no {error}" if isinstance(error, KeyError) else error
        raise RefusedError(
            f"{name} cannot be called with inputs {shapes(inputs)}, one example with the axis n before it: {said}\n"
            f"({hint})"
        ) from error


def check_two(name: str, call: Callable[..., Any], closed: ClosedJaxpr, arrays: Sequence[Any], inputs: Any) -> None:
    """That each of two examples has a result, where the program of one does not say it.

    One number may be `[n]`, or come from a model that takes its examples for the frames of a clip, as may what is
    reduced over an axis of length 1: mean(axis=0, keepdims=True) of one frame's `[1, c]` are logits `[1, c]` again.

    Args:
        name: of the model.
        call: the model as a function of `arrays`, and then the leaves of the inputs.
        closed: its program for one example.
        arrays: what they are like.
        inputs: those of one example.
    """
    if any(aval.shape[:1] != (1,) for aval in closed.out_avals):
        return  # Refused as such where it is known what is explained.
    if not (any(aval.shape == (1,) for aval in closed.out_avals) or _num_reduced(closed.jaxpr)):
        return
    two = [spec_of(leaf, (2, *leaf.shape[1:])) for leaf in jax.tree.leaves(inputs)]
    try:
        of_two, outputs = jax.make_jaxpr(call, return_shape=True)(*map(spec_of, arrays), *two)
    except Exception:
        return  # It takes one example at a time, as `jaxcam.adapt` says that it is called.
    if any(value.shape[:1] != (2,) for value in jax.tree.leaves(outputs)):
        raise RefusedError(
            f"{name} must keep the axis n of its inputs, but returns {shapes(outputs)} for two examples like "
            f"{shapes(inputs)}: add the batch axis with inputs[None] if that is one example"
        )
    # Standardised weights [2, 2, d, k] are reduced over a first axis of length 2 as well, but for one example, too.
    before, after = (_num_reduced(program, 2, to_channels=True) for program in (closed.jaxpr, of_two.jaxpr))
    if _num_reduced(closed.jaxpr, to_channels=True) and after > before:
        raise RefusedError(
            f"{name} is in training mode: it takes means over the batch for each channel, as batch norm does there, so "
            "that images depend on each other: call it for evaluation (train=False, model.eval(), "
            "equinox.nn.inference_mode(model))"
        )


def _num_reduced(program: Jaxpr, n: int = 1, *, to_channels: bool = False) -> int:
    """How much is reduced over a first axis of length n, which is that of the examples more often than not.

    With `to_channels` sums over all axes but one, as for the statistics of a batch.
    """

    def reduces(eqn: JaxprEqn) -> bool:
        axes, lengths = eqn.params.get("axes", ()), shape(eqn.invars[0]) if eqn.invars else ()
        fits = about(eqn).reduces == "sum" and 2 <= len(lengths) == len(axes) + 1
        return bool(about(eqn).reduces) and 0 in axes and lengths[:1] == (n,) and (fits or not to_channels)

    def inside(eqn: JaxprEqn) -> int:
        return sum(_num_reduced(inner.jaxpr, n, to_channels=to_channels) for inner in inner_programs(eqn))

    return sum(reduces(eqn) + inside(eqn) for eqn in program.eqns)


def shapes(tree: Any) -> str:
    """What arrays are like, for a message."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = ((f"{jax.tree_util.keystr(path)}: " if path else "", value) for path, value in leaves)
    return ", ".join(f"{name}{value.dtype}{list(value.shape)}" for name, value in named) or "nothing"


def check_outputs(name: str, outputs: Any, inputs: Any) -> None:
    """That a model returns floating-point numbers, among others, and keeps the axis n.

    Raises:
        TypeError, ValueError: it does not.
    """
    leaves = jax.tree.leaves(outputs)
    if not any(jnp.issubdtype(value.dtype, jnp.floating) for value in leaves):
        raise TypeError(f"{name} must return floating-point numbers but returned {shapes(outputs)}")
    n = {x.shape[0] for x in jax.tree.leaves(inputs)}
    if any({*value.shape[:1]} != n for value in leaves):
        raise ValueError(
            f"{name} must keep the axis n of its inputs, but returned {shapes(outputs)} for "
            f"{shapes(inputs)}: add the batch axis with inputs[None] if that is one example, or use "
            "jaxcam.adapt(model, apply=lambda model, inputs: jax.vmap(model)(inputs)) for a model of one example"
        )


def check_scores(scores: jax.ShapeDtypeStruct) -> None:
    """What a target returns are floating-point scores, one or more."""
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise no_scores(scores.dtype)
    if 0 in scores.shape:
        raise ValueError(f"target must return one score or more but returned {list(scores.shape)}")


def no_scores(came: Any) -> TypeError:
    """The error of a target that returns something else."""
    return TypeError(
        f"target must return a floating-point scalar or array of scores but returned {came}: compute it from outputs "
        "with jax.numpy, as lambda outputs, inputs: outputs[2]"
    )

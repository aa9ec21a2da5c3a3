"""From a model to the program of what is explained: a classifier's logits `[n, c]`, or a target's scores `[1, m]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, Float

from jaxcam import scores
from jaxcam.cuts.model import Adapted, Probability, outputs_of, program_of
from jaxcam.cuts.outputs import ending, without
from jaxcam.cuts.refusals import check_returns_no_statistics
from jaxcam.programs.specs import spec_of

__all__ = ["Logits", "logits_of", "probabilities", "probability_of"]


class Logits(NamedTuple):
    """The program of what is explained, and what it means."""

    closed: ClosedJaxpr
    """From the model's arrays and those of the inputs `[n, ...]` to `[n, c]`."""
    probability: Probability
    """What makes probabilities of `[c]`: "softmax", "sigmoid", a function, or None."""
    ending: str | None = None
    """What the model ends in, before which it was cut."""


def logits_of(model: Adapted, inputs: Any) -> Logits:
    """The program to the logits of a model, of which the meaning is known; or to the scores of one that is aimed.

    Raises:
        TypeError: the model does not return one floating-point array.
        ValueError: that is not `[n, c]`; it ends in something else than its `probability`; or its `class_names` are
            more or fewer than the classes.
    """
    found = _logits_of(model, inputs)
    num_names, num_classes = len(model.class_names), found.closed.out_avals[0].shape[-1]
    # As of a network whose head was replaced: class 3 would be called what was class 3 before.
    if num_names not in (0, num_classes) and not model.is_aimed:
        raise ValueError(
            f"class_names of {model.name} must be one for each of its {num_classes} classes but are {num_names}: give "
            "theirs with jaxcam.adapt(model, class_names=[...]), or none, class_names=[]"
        )
    return found


def _logits_of(model: Adapted, inputs: Any) -> Logits:
    closed = program_of(model, inputs)
    if model.is_aimed:
        return Logits(closed, None)
    if len(closed.out_avals) > 1:
        check_returns_no_statistics(model.name, outputs_of(model, inputs))
    _check_logits(model.name, closed.out_avals, inputs)
    known = model.probability
    found = ending(closed) if known in ("auto", "softmax", "sigmoid") else None
    if found is not None:
        if known not in ("auto", found.probability):
            raise ValueError(
                f"probability of {model.name} must be what it ends in, a {found.name}, but is {known!r}: leave it out"
            )
        closed = without(closed, found)
        known = found.probability
    (logits,) = closed.out_avals
    if logits.shape[1:] in ((), (1,)):
        if known == "softmax":
            raise ValueError(
                f"{model.name} must return more than one logit for a softmax but returns {list(logits.shape)}: "
                'use jaxcam.adapt(model, probability="sigmoid") for a binary classifier, or probability=None'
            )
        is_binary = known in ("auto", "sigmoid")
        return Logits(_one_logit(closed, both=is_binary), "sigmoid" if is_binary else known, found and found.name)
    return Logits(closed, "softmax" if known == "auto" else known, found and found.name)


def probabilities(probability: Probability, logits: Float[Array, " c"]) -> Float[Array, " c"]:
    """Of each class; NaN where the outputs are no classes.

    Raises:
        ValueError: a function of the user's own does not return `[c]`.
    """
    if probability is None:
        return jnp.full_like(logits, jnp.nan)
    if isinstance(probability, str):
        return {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[probability](logits)
    found = probability(logits)
    if getattr(found, "shape", None) != logits.shape:
        raise ValueError(
            f"probability must return [c], as the logits {list(logits.shape)}, but returned "
            f"{list(getattr(found, 'shape', [type(found).__name__]))}"
        )
    return found.astype(logits.dtype)


def probability_of(
    probability: Probability, logits: Float[Array, " c"], class_idx: scores.ClassIdx
) -> Float[Array, ""]:
    """The probability of one class: `probabilities(...)[class_idx]`, of a softmax in the fewest kernels to compile.

    For its first derivative at most: `scores.softmax`, of four more, keeps the digits of small ones and of higher ones.
    """
    if probability != "softmax":
        return scores.logit(probabilities(probability, logits), class_idx)
    # The likeliest class's logit and not the maximum: where that class is explained, its index and logit are there.
    behind = logits - jax.lax.stop_gradient(scores.logit(logits, logits.argmax()))
    return jnp.exp(scores.logit(behind, class_idx)) / jnp.exp(behind).sum()


def _one_logit(closed: ClosedJaxpr, *, both: bool) -> ClosedJaxpr:
    """`[n, 2]` of a binary classifier: what speaks for class 0 is what speaks against class 1. Else `[n, 1]`."""
    run = jaxpr_as_fun(closed)

    def scores(*arrays: Any) -> Array:
        logit = run(*arrays)[0].reshape(-1, 1)
        return jnp.concatenate([-logit, logit], 1) if both else logit

    return jax.make_jaxpr(scores)(*map(spec_of, closed.in_avals))


def _check_logits(name: str, outputs: Sequence[Any], inputs: Any) -> None:
    shown = ", ".join(f"{out.dtype}{list(out.shape)}" for out in outputs) or "nothing"
    given = ", ".join(str(list(x.shape)) for x in jax.tree.leaves(inputs))
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        raise TypeError(
            f"{name} must return one array of logits [n, c], but returned {shown}: say what is explained with target=, "
            "as target=lambda outputs, inputs: outputs[0][3] for a class of the first of several outputs, or pick one "
            "with jaxcam.adapt(model, apply=lambda model, inputs: model(inputs)[0])"
        )
    shape = outputs[0].shape
    if not 1 <= len(shape) <= 2 or any(shape[0] != x.shape[0] for x in jax.tree.leaves(inputs)):
        raise ValueError(
            f"{name} must return logits [n, c] for inputs {given}, but returned {list(shape)}: for other outputs say "
            "what is explained with target=, as jaxcam.targets.region(class_idx, mask) for dense predictions; keep the "
            "batch axis, also of a single example (jaxcam.adapt(model, apply=lambda model, inputs: "
            "jax.vmap(model)(inputs)) for a model of one example, jax.vmap(lambda x: model(x[:, None])[0])(inputs) "
            "for inputs [n, t, k] and a model that wants [t, n, k])"
        )

"""What is refused, and why, before anything is computed: models in training, images and outputs of another kind."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Var
from jax.extend.core.primitives import name_p

from jaxcam.programs.program import Program

__all__ = ["check_evaluates", "check_example", "check_is_logits", "in_training"]


def check_evaluates(model: Any) -> None:
    """Refuses a model in training mode, where batch norm and dropout make examples depend on each other."""
    # Where `training` is a property, as in our own networks, it says what `in_training` has found already.
    is_said = not isinstance(getattr(type(model), "training", None), property)
    if in_training(model) or (is_said and getattr(model, "training", None) is True):
        raise ValueError("model is in training mode, where images depend on each other: call model.eval() first")


def in_training(model: Any) -> bool:
    """Whether batch norm uses the batch's statistics or dropout drops in any part of an nnx.Module."""
    from flax import nnx

    if not isinstance(model, nnx.Module):
        return False
    modules = [module for _, module in nnx.iter_modules(model)]
    return any(isinstance(m, nnx.BatchNorm) and not m.use_running_average for m in modules) or any(
        isinstance(m, nnx.Dropout) and not m.deterministic and m.rate > 0 for m in modules
    )


def check_example(example: Any) -> None:
    """Refuses what is not one image as the model takes it."""
    if not (hasattr(example, "shape") and hasattr(example, "dtype")):
        raise TypeError(f"image must be an array [H, W, 3] but is {type(example).__name__}")
    if len(example.shape) != 3:
        raise ValueError(
            f"image must be one image [H, W, 3] but came as {list(example.shape)}: use images[0], and jaxcam.explain "
            "for a batch"
        )
    # A mask or noise would be rounded to 0 and 1, and the map be wrong.
    if not jnp.issubdtype(example.dtype, jnp.floating):
        raise TypeError(
            f"image must be floating point and normalised for the model but its dtype is {example.dtype}: "
            "divide by 255 and normalise as in training (model.preprocessing(picture) for jaxcam.models)"
        )


def check_is_logits(program: Program, name: str) -> None:
    """Refuses a model that ends in a softmax: its probabilities are no logits."""
    makers: dict[Var, JaxprEqn] = {var: eqn for eqn in program.equations for var in eqn.outvars}

    passed = (lax.broadcast_in_dim_p, lax.reshape_p, lax.convert_element_type_p, name_p)

    def behind(var: object) -> JaxprEqn | None:
        eqn = makers.get(var) if isinstance(var, Var) else None
        while eqn is not None and eqn.primitive in passed:
            operand = eqn.invars[0]
            eqn = makers.get(operand) if isinstance(operand, Var) else None
        return eqn

    last = behind(program.outputs[0])
    if last is None or last.primitive is not lax.div_p:
        return
    over, under = (behind(atom) for atom in last.invars)
    if over is None or under is None or over.primitive is not lax.exp_p or under.primitive is not lax.reduce_sum_p:
        return
    if behind(under.invars[0]) is over:
        raise ValueError(
            f"{name} must return logits, but ends in a softmax: leave that out (classifier_activation=None in "
            "keras.applications), or explain the logarithm, jaxcam.adapt(model, apply=lambda model, images: "
            "jnp.log(model(images))), "
            "whose softmax is the same"
        )

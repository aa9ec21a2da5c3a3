"""What is refused, and why, before anything is computed: models in training, images and outputs of another kind."""

from typing import Any

from jaxcam.checks import check_floating

__all__ = ["check_evaluates", "check_example", "in_training"]


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
    """Refuses what is not one example as the model takes it."""
    if not (hasattr(example, "shape") and hasattr(example, "dtype")):
        raise TypeError(
            f"image must be an array [*spatial, d] but is {type(example).__name__}: jaxcam.explain takes several inputs"
        )
    if len(example.shape) < 2:
        raise ValueError(f"image must be one example [*spatial, d] but came as {list(example.shape)}")
    # A mask or noise would be rounded to 0 and 1, and the map be wrong.
    check_floating("image", example, ": divide by 255 and normalise as in training (model.preprocessing(picture))")

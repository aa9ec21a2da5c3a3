"""Whether an NNX model is in training mode, where batch norm and dropout make images depend on each other."""

from typing import Any

from flax import nnx


def in_training(model: Any) -> bool:
    """Whether batch norm uses the batch's statistics or dropout drops in any part of an nnx.Module."""
    if not isinstance(model, nnx.Module):
        return False
    modules = [module for _, module in nnx.iter_modules(model)]
    return any(isinstance(m, nnx.BatchNorm) and not m.use_running_average for m in modules) or any(
        isinstance(m, nnx.Dropout) and not m.deterministic and m.rate > 0 for m in modules
    )

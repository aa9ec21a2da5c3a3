"""The types that the rooms share."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

Head = Callable[[Array], Array]
"""Activations A `[*spatial, k]` of one example -> logits S `[c]`."""

Target = Callable[[Any, Any], Array]
"""`(outputs, inputs)` of one example -> what is explained: a scalar, or scores `[*m]` that are all explained."""

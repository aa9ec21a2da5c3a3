"""The types that the rooms share."""

from collections.abc import Callable

from jaxtyping import Array

Head = Callable[[Array], Array]
"""Activations A `[*spatial, k]` of one example -> logits S `[c]`."""

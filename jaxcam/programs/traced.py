"""Traced functions: the program of a function, made once, run and looked at as often as is wanted.

A method asks its head many things: what it returns, whether it is piecewise linear, its gradient, its logits. Asked of
the function, each of these traces it anew; asked of its program, none does.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

from jaxcam.programs.linearity import proves_piecewise_linear
from jaxcam.programs.specs import spec_of

__all__ = ["Traced", "trace"]


class Traced:
    """A function of one array as its program at one shape; called like the function."""

    def __init__(
        self, function: Callable[[Any], Any], argument: Any, *, is_piecewise_linear: bool | None = None
    ) -> None:
        """Traces the function.

        Args:
            function: may close over arrays and tracers.
            argument: an array or a `jax.ShapeDtypeStruct`.
            is_piecewise_linear: where it is known already, so that it is not proven again.
        """
        self.function = function
        self.argument = spec_of(argument)
        self.program, self.output = jax.make_jaxpr(lambda a: function(a), return_shape=True)(self.argument)
        self._run = jaxpr_as_fun(self.program)
        self._known = is_piecewise_linear

    def __call__(self, argument: Any) -> Any:
        """What the function returns."""
        return jax.tree.unflatten(jax.tree.structure(self.output), self._run(argument))

    @cached_property
    def is_piecewise_linear(self) -> bool:
        """Whether that is proven; see `jaxcam.is_piecewise_linear`."""
        return proves_piecewise_linear(self.program.jaxpr) if self._known is None else self._known


def trace(function: Callable[[Any], Any], argument: Any) -> Traced:
    """The function traced for such an argument; one that is traced for it already is returned as it is."""
    if isinstance(function, Traced) and function.argument == spec_of(argument):
        return function
    return Traced(function, argument)

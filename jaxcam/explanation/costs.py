"""What costs very much more than the model itself is not begun in silence."""

import jax

from jaxcam.cuts.cut import Cut
from jaxcam.methods.method import Bound
from jaxcam.programs.notes import watch
from jaxcam.programs.operations import num_operations, seconds_of
from jaxcam.programs.traced import Traced

__all__ = ["CostError", "check_cost"]

_MOST_PASSES = 50
"""So many forward passes a map may cost without anybody saying so,"""
_FREE = 2 * 10**10
"""or so many operations: half a second, more or less."""


class CostError(ValueError):
    """A map that costs very much more than the model, which nobody has asked for in so many words."""


def check_cost(method: Bound, cut: Cut, head: Traced) -> None:
    """Looks at what the exact derivatives of a head cost, for methods that take them of their own accord.

    Raises:
        CostError: more than 50 forward passes and half a second, and nobody has said `alphas="exact"`.
    """
    alphas = dict(method.options).get("alphas", "auto")
    if method.needs != "head" or "alphas" not in method.parameters or alphas != "auto" or method.is_cheap(cut.halves):
        return
    with watch():
        program = jax.make_jaxpr(lambda a: method(head, a, 0))(head.argument)
    operations, forward = num_operations(program.jaxpr), num_operations(cut.network.closed.jaxpr)
    if operations <= max(_MOST_PASSES * forward, _FREE):
        return
    seconds = seconds_of(operations, cut.activations.dtype)
    layer = "the default layer" if cut.layer is None else f"layer={cut.layer!r}"
    raise CostError(
        f"method={method.name!r} needs exact derivatives at {layer}, because what follows it is not proven piecewise "
        f"linear: about {operations / forward:,.0f} times the operations of a forward pass, some {seconds:,.2g} s an "
        "example on this device. alphas='exact', in evaluate methods=['grad_cam_pp:alphas=exact'], says that you want "
        "to pay for that; method='grad_cam' costs one backward pass; and behind a later layer there is less to "
        "differentiate (see jaxcam.layers)"
    )

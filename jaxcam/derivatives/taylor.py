"""Derivatives of any order along a curve through a program, equation by equation.

A value that moves is known by itself and its derivatives at t = 0: x, x', x'', x''' of x(t). An equation makes of them:

    dense layer, sum, reshape ...   y⁽ⁿ⁾ = W x⁽ⁿ⁾       the equation itself, of every derivative: it is linear
    exp, tanh, product ...          y⁽ⁿ⁾ = dⁿ/dtⁿ f(x + x' t + x'' t²/2 + x''' t³/6)     by nesting `jax.jvp`

Nesting `jax.jvp` through the whole program gives the same numbers, and goes through every dense layer 2ⁿ times, not n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Var
from jax.extend.core import primitives as core

from jaxcam.derivatives.directions import along, forward
from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Atom, Stage, dtype, moves
from jaxcam.programs.specs import varied

__all__ = ["Curve", "curve_of", "follow", "followed"]

Curve: TypeAlias = "tuple[Any, ...]"
"""A value, and its derivatives by t: the first, the second ... None for a derivative that is zero."""


def followed(equations: Sequence[JaxprEqn], known: Mapping[Var, Any], curves: Mapping[Var, Curve]) -> dict[Var, Curve]:
    """What all values that move do while these do; `known` are the values of those that do not."""
    fixed, found = dict(known), dict(curves)
    for eqn in equations:
        follow(eqn, fixed, found)
    return found


def follow(eqn: JaxprEqn, fixed: dict[Var, Any], curves: dict[Var, Curve]) -> None:
    """Enters what the results of an equation do, or what they are where they stand still."""
    operands = [curves.get(atom) if isinstance(atom, Var) else None for atom in eqn.invars]
    values = _values(eqn, fixed, operands)
    if not any(operands) or eqn.primitive is core.stop_gradient_p:
        fixed.update(zip(eqn.outvars, _run(eqn, values), strict=True))
        return
    if _is_linear(eqn, operands):
        results = _of_linear(eqn, values, operands)
    else:
        places = [place for place, curve in enumerate(operands) if curve is not None]

        def function(*moving: Any) -> tuple[Any, ...]:
            return _run(eqn, [*(dict(enumerate(values)) | dict(zip(places, moving, strict=True))).values()])

        results = curve_of(function, [curve for curve in operands if curve is not None])
    for var, curve in zip(eqn.outvars, results, strict=True):
        if moves(var):
            curves[var] = curve
        else:
            fixed[var] = curve[0]


def curve_of(function: Callable[..., tuple[Any, ...]], operands: Sequence[Curve]) -> list[Curve]:
    """What the results of a function do while its operands move along curves, by nesting `jax.jvp`."""
    order = len(operands[0]) - 1
    zero, one, _ = varied((*jnp.arange(2, dtype=operands[0][0].dtype), [curve[0] for curve in operands]))

    def at(t: Any) -> tuple[Any, ...]:
        moved = []
        for start, *derivatives in operands:
            for n, each in enumerate(derivatives, start=1):
                if each is not None:
                    start = start + each * (t**n / math.factorial(n)).astype(each.dtype)
            moved.append(start)
        return function(*moved)

    rows = along(at, (zero,), (one,), order=order, slope=forward)
    start = function(*(curve[0] for curve in operands))
    return [tuple(each) for each in zip(start, *rows, strict=True)]


def _is_linear(eqn: JaxprEqn, operands: Sequence[Curve | None]) -> bool:
    """Whether the results are linear in the operands that move together, while the others stand still."""
    num_moving = sum(curve is not None for curve in operands)
    if len(operands) > 1 and operands[0] is None and eqn.primitive in (lax.div_p, *_PICKS):
        return False
    if eqn.primitive is lax.select_n_p:
        return operands[0] is None
    if about(eqn).linear is Linear.EACH:
        return num_moving == 1
    return eqn.primitive in _LINEAR and (eqn.primitive is not lax.div_p or num_moving == 1)


def _of_linear(eqn: JaxprEqn, values: Sequence[Any], operands: Sequence[Curve | None]) -> list[Curve]:
    """The equation of the operands, and of each derivative of theirs."""
    start = _run(eqn, values)
    keeps = about(eqn).linear in (Linear.EACH, Linear.FIRST) or eqn.primitive in _PICKS
    rows: list[Sequence[Any]] = []
    order = len(next(curve for curve in operands if curve is not None)) - 1
    for n in range(1, order + 1):
        if all(curve is None or curve[n] is None for curve in operands):
            rows.append([None] * len(eqn.outvars))
            continue
        # A summand that stands still has no derivative; a factor or an index that does stays as it is.
        along_n = [
            (value if keeps or not moves(atom) else jnp.zeros_like(value))
            if curve is None
            else (jnp.zeros_like(value) if curve[n] is None else curve[n])
            for atom, value, curve in zip(eqn.invars, values, operands, strict=True)
        ]
        rows.append(_run(eqn, along_n))
    return [tuple(each) for each in zip(start, *rows, strict=True)]


def _values(eqn: JaxprEqn, fixed: Mapping[Var, Any], operands: Sequence[Curve | None]) -> list[Any]:
    def value(atom: Atom, curve: Curve | None) -> Any:
        if curve is not None:
            return curve[0]
        return fixed[atom] if isinstance(atom, Var) else jnp.asarray(atom.val, dtype(atom))

    return [value(atom, curve) for atom, curve in zip(eqn.invars, operands, strict=True)]


def _run(eqn: JaxprEqn, values: Sequence[Any]) -> tuple[Any, ...]:
    """The results of the equation for these operands."""
    inputs = tuple(Var(atom.aval) for atom in eqn.invars)
    return Stage(inputs, tuple(eqn.outvars), [eqn.replace(invars=[*inputs])])({}, *values)[0]


_PICKS = (lax.gather_p, lax.dynamic_slice_p)
_LINEAR = frozenset(
    {
        *(lax.add_p, lax.sub_p, lax.neg_p, lax.div_p, core.add_jaxvals_p, lax.copy_p, lax.convert_element_type_p),
        *(lax.broadcast_in_dim_p, lax.reshape_p, lax.squeeze_p, lax.transpose_p, lax.slice_p, lax.split_p),
        *(lax.concatenate_p, lax.pad_p, lax.rev_p, lax.reduce_sum_p, lax.cumsum_p, lax.scatter_p, *_PICKS),
    }
)
"""Those that are linear themselves, and not only piece by piece."""

"""Rectifiers: the places in a program that act as a ReLU or one of its relatives, found by what they compute.

An equation ends a rectifier φ where it is reached from one value x by elementwise operations and constants alone, and
where that function of x, tried at a few numbers, passes what is positive and holds back what is negative. So names do
not matter: `jax.nn.relu`, `maximum(x, zeros)`, `where(x > 0, x, 0)`, `x * (x > 0)`, (x + |x|) / 2, `clip(x, 0, 6)`,
leaky ReLU, ELU, SELU, SiLU, GELU, Mish, hard swish, and PReLU, whose slope is a parameter, are found however they are
written. Of functions around one another the outermost that is a rectifier counts: in x clip(x + 3, 0, 6) / 6 the whole.

Left alone are clamps that are no activations: those of

- a variance, E[x²] - E[x]², which is kept from falling below zero (`jaxcam.programs.moments`);
- a gate, which goes from 0 to its bound and is half of that in the middle, as hard sigmoid does, or a hat, which is
  zero on both sides: what is clipped is a position, not an activation;
- a smooth function written stably: max(x, 0) + log(1 + exp(-|x|)) bends nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import JaxprEqn, Literal, Var

from jaxcam.programs.moments import is_variance
from jaxcam.programs.primitives import Moves, Runs, about
from jaxcam.programs.program import Atom, Stage, called, holds, is_elementwise, shape, size

__all__ = ["Clamp", "Values", "clamps"]

_LONGEST = 24
_NEAR = 0.01
_POINTS = np.array([0.0, 0.5, 1.0, 10.0, -0.5, -10.0, -1.0, _NEAR, -_NEAR])
_PARAMETER = 0.25
"""What a parameter is tried at: the slope that PReLU begins with."""
_LARGEST = 2**16


class Clamp(NamedTuple):
    """A place in a program where something is held back: `phi` computes the output of equation number `end` from x."""

    end: int
    x: Var
    phi: Stage
    left_alone: str | None
    """Why it is no rectifier; None if it is one."""


@dataclass
class Values:
    """What is known of a program's values without its arguments: which are constant, and which of them one number."""

    numbers: dict[Var, float | None]
    """Of each constant the number that all its elements are, or None."""
    raw: set[Var] = field(default_factory=set)
    """Arguments, as they are or moved: they may be parameters."""

    @staticmethod
    def of_constant(value: Any) -> float | None:
        """The number that all elements of an array are, or None."""
        if isinstance(value, Tracer) or not 0 < np.size(value) <= _LARGEST:
            return None
        dtype = getattr(value, "dtype", np.dtype(type(value)) if isinstance(value, bool | int | float) else None)
        if dtype is None or not (jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.number)):
            return None  # a key of random numbers
        array = np.asarray(value).reshape(-1)
        return None if np.iscomplexobj(array) or (array != array[0]).any() else float(array[0])

    def is_constant(self, atom: Atom) -> bool:
        """Whether it does not depend on the arguments."""
        return isinstance(atom, Literal) or atom in self.numbers

    def number(self, atom: Atom) -> float | None:
        """The number that all elements of a constant are, if that is known."""
        return self.of_constant(atom.val) if isinstance(atom, Literal) else self.numbers.get(atom)

    def follow(self, eqn: JaxprEqn) -> None:
        """Takes in what is known of the results of an equation."""
        facts = about(eqn)
        moved = facts.moves in (Moves.AXES, Moves.PICKS) or eqn.primitive is lax.convert_element_type_p
        if all(map(self.is_constant, eqn.invars)) and not eqn.effects:
            operands = [self.number(atom) for atom in eqn.invars]
            number = None
            if moved and operands and isinstance(operands[0], float):
                number = operands[0]
            elif operands and None not in operands and len(eqn.outvars) == 1 and is_elementwise(eqn):
                number = _folded(eqn, operands)
            self.numbers.update(dict.fromkeys(eqn.outvars, number))
        elif moved and eqn.invars[0] in self.raw:
            self.raw.update(eqn.outvars)


def clamps(
    equations: Sequence[JaxprEqn], outputs: Sequence[Atom], values: Values, closed: set[int] | None = None
) -> list[Clamp]:
    """The rectifiers of a program, and the clamps that are none, in order.

    Those inside the programs in it belong to these; `closed` collects the numbers of the equations with a program that
    is to be left as it is. `values` knows the arguments and constants, and gets to know the rest.
    """
    makers: dict[Atom, int] = {}
    users: dict[Atom, set[int]] = {out: {len(equations)} for out in outputs if isinstance(out, Var)}
    for i, eqn in enumerate(equations):
        values.follow(eqn)
        makers.update(dict.fromkeys(eqn.outvars, i))
        for atom in eqn.invars:
            if isinstance(atom, Var):
                users.setdefault(atom, set()).add(i)
    found: dict[int, Clamp] = {}
    sharp: set[int] = set()
    for end, eqn in enumerate(equations):
        if len(eqn.outvars) != 1 or not holds(eqn.outvars[0], jnp.floating) or not is_elementwise(eqn):
            continue
        is_call = about(eqn).runs is not None
        rectified = {equations[i].outvars[0] for i, clamp in found.items() if clamp.left_alone is None}
        verdict, beyond = None, False
        for x, cone in _cones(end, equations, makers, values):
            beyond = beyond or x in rectified
            phi = [equations[i] for i in cone]
            if not is_call and not any(map(_bends, phi)):
                continue
            tried = _tried_at_points(phi, x, eqn.outvars[0], values)
            if tried is None:
                continue
            clamp = Clamp(end, x, Stage((x,), (eqn.outvars[0],), phi), None)
            covered = [i for i in sorted(found) if i in cone and users[equations[i].outvars[0]] <= {*cone}]
            if _is_gate(tried) and (is_call or _holds_back(phi) or covered):
                verdict = clamp._replace(left_alone="a gate: its argument is a position between two bounds"), cone
                break
            if verdict is None:
                if _rectifies(tried) and (not beyond or _is_kept(cone, covered, equations)):
                    verdict = clamp, cone
                    sharp |= set() if _is_smooth(tried) else {end}
                elif not beyond and _is_smooth(tried) and (is_call or not sharp.isdisjoint(covered)):
                    verdict = clamp._replace(left_alone="a smooth function, written with it"), cone
        if verdict is None:
            continue
        clamp, cone = verdict
        if clamp.left_alone is None and is_variance(clamp.x, equations, makers, values.is_constant):
            clamp = clamp._replace(left_alone="a variance, kept from falling below zero")
        # What is inside of it, and nowhere used but there, is a part of it.
        for i in [i for i in found if i in cone and i != end and users[equations[i].outvars[0]] <= {*cone}]:
            del found[i]
        if clamp.left_alone is not None and closed is not None:
            closed.update(i for i in cone if about(equations[i]).runs is Runs.CUSTOM)
        if clamp.left_alone is None or any(map(_holds_back, ([equations[i]] for i in cone))):
            found[end] = clamp
    return [found[end] for end in sorted(found)]


def _cones(
    end: int, equations: Sequence[JaxprEqn], makers: Mapping[Atom, int], values: Values
) -> Iterator[tuple[Var, list[int]]]:
    """The values that alone, with constants, determine a result element by element; with the equations between.

    The nearest one first. What is still open is made by the latest equation or before: that one is written out next,
    and wherever only one value is open, everything goes through it. Small arguments may be parameters, as of PReLU.
    """
    out, cone, open_ = equations[end].outvars[0], [end], [*equations[end].invars]
    while len(cone) <= _LONGEST:
        variables = {atom for atom in open_ if isinstance(atom, Var) and not values.is_constant(atom)}
        wanted = {v for v in variables if not (v in values.raw and size(v) < size(out))} or variables
        if not wanted:
            return
        if len(wanted) == 1:
            (x,) = wanted
            if holds(x, jnp.floating) and shape(x) == shape(out):
                yield x, sorted(cone)
        latest = max(makers.get(var, -1) for var in wanted)
        if latest < 0 or not is_elementwise(equations[latest]):
            return
        cone.append(latest)
        open_ = [atom for atom in variables if atom not in equations[latest].outvars] + [*equations[latest].invars]


_STRAIGHT = (lax.add_p, lax.sub_p, lax.mul_p, lax.div_p, lax.neg_p, lax.convert_element_type_p, lax.broadcast_in_dim_p)


def _bends(eqn: JaxprEqn) -> bool:
    return eqn.primitive not in (*_STRAIGHT, lax.copy_p)


def _is_kept(cone: Sequence[int], covered: Sequence[int], equations: Sequence[JaxprEqn]) -> bool:
    """Whether what follows a rectifier is a part of it: the bound of ReLU6, the factor of SELU."""
    return bool(covered) and all(about(equations[i]).linear is not None for i in cone if i > covered[-1])


def _holds_back(equations: Sequence[JaxprEqn]) -> bool:
    """Whether there is a clamp in it, of any kind."""
    return any(
        eqn.primitive in (lax.max_p, lax.clamp_p, lax.select_n_p)
        or ((inner := called(eqn, custom=True)) is not None and _holds_back(inner.jaxpr.eqns))
        for eqn in equations
    )


def _rectifies(tried: np.ndarray) -> bool:
    """Whether φ(0) = 0, φ bends there, grows like x above (to a bound, as in ReLU6), and is smaller below.

    SELU's slope of 1.0507 is the steepest: x + max(x, 0) is a skip connection around a rectifier and none itself.
    """
    zero, half, one, ten, minus_half, minus_ten, *_ = tried
    grows = 0.5 <= one <= 1.06 and one <= ten <= 10.6
    bends = abs(half + minus_half) > 0.01  # clip(x, -1, 1) does not, around zero
    return bool(zero == 0 and grows and bends and minus_half <= 0 and -0.9 * ten <= minus_ten <= 0)


def _is_gate(tried: np.ndarray) -> bool:
    """Whether φ goes from 0 to a bound and is half of it at 0, or is zero on both sides and not between."""
    zero, _, _, ten, _, minus_ten, *_ = tried
    return bool(minus_ten == 0 and zero > 0 and (ten == 0 or np.isclose(zero, ten / 2, rtol=1e-5)))


def _is_smooth(tried: np.ndarray) -> bool:
    """Whether φ is curved, on both sides alike or not (a sigmoid is its own opposite), and has no kink at 0."""
    zero, half, one, _, _, _, minus_one, near, minus_near = tried
    is_curved = abs(one + minus_one - 2 * zero) > 0.01 or abs(one + zero - 2 * half) > 0.01
    return bool(abs(near + minus_near - 2 * zero) < 0.05 * _NEAR and is_curved)


def _tried_at_points(equations: Sequence[JaxprEqn], x: Var, y: Var, values: Values) -> np.ndarray | None:
    """φ at the points; None where it cannot be tried, or is not finite."""
    dtype = _wide(x.aval)
    with jax.ensure_compile_time_eval():
        known: dict[Any, Any] = {x: jnp.asarray(_POINTS, dtype)}
        made = {var for eqn in equations for var in eqn.outvars}
        for atom in {a for eqn in equations for a in eqn.invars if isinstance(a, Var) and a is not x and a not in made}:
            number = values.number(atom)
            known[atom] = jnp.asarray(_PARAMETER if number is None else number, _wide(atom.aval))
        try:
            found = np.asarray(_tried(equations, known)[y], np.float64)
        except (NotImplementedError, TypeError, ValueError, KeyError):
            return None
    return found if found.shape == _POINTS.shape and np.isfinite(found).all() else None


def _folded(eqn: JaxprEqn, operands: Sequence[Any]) -> float | None:
    """The number that an elementwise equation makes of numbers."""
    with jax.ensure_compile_time_eval():
        known = {
            a: jnp.asarray(v, _wide(a.aval)) for a, v in zip(eqn.invars, operands, strict=True) if isinstance(a, Var)
        }
        try:
            return float(np.ravel(np.asarray(_tried([eqn], known)[eqn.outvars[0]], np.float64))[0])
        except (NotImplementedError, TypeError, ValueError, KeyError):
            return None


def _wide(aval: Any) -> Any:
    """The format in which something is tried: half precision would round what is looked for."""
    return jnp.float32 if jnp.issubdtype(aval.dtype, jnp.floating) and aval.dtype.itemsize < 4 else aval.dtype


def _tried(equations: Sequence[JaxprEqn], values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The values of all variables at a few points, whatever the shapes in the program are."""
    known = dict(values)
    for eqn in equations:
        operands = [jnp.asarray(a.val, _wide(a.aval)) if isinstance(a, Literal) else known[a] for a in eqn.invars]
        if (inner := called(eqn, custom=True)) is not None:
            own = {v: Values.of_constant(c) for v, c in zip(inner.jaxpr.constvars, inner.consts, strict=True)}
            if None in own.values():
                raise ValueError
            constants = {v: jnp.asarray(number, _wide(v.aval)) for v, number in own.items()}
            found = _tried(inner.jaxpr.eqns, dict(zip(inner.jaxpr.invars, operands, strict=True)) | constants)
            results = [found[v] if isinstance(v, Var) else jnp.asarray(v.val) for v in inner.jaxpr.outvars]
        elif eqn.primitive is lax.broadcast_in_dim_p or eqn.primitive.name == "pvary":
            results = operands[:1]
        else:
            spread = [jnp.broadcast_to(jnp.reshape(o, -1), _POINTS.shape) for o in operands]
            params = dict(eqn.params)
            if eqn.primitive is lax.convert_element_type_p:
                params["new_dtype"] = _wide(eqn.outvars[0].aval)
            results = [eqn.primitive.bind(*spread, **params)]
        known.update(zip(eqn.outvars, results, strict=True))
    return known

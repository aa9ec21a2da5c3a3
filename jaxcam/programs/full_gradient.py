"""The full gradient of a function: what its value is made of, the input and every bias on the way.

A network that is piecewise linear is, around an input, f(x) = <∂f/∂x, x> + what its biases add. Which those are nobody
has to say: every equation of the program is looked at for what it adds to the linear part of what goes in,

    rest = y - y' v,    of y = h(v) with the slope y' = ∂h/∂v: zero for products with weights, pooling and ReLU,
                        b for v + b, 6 for ReLU6 where it is saturated,

and the value is a sum that holds for any function whatever, because each slope is that by which derivatives go back:

    f(x) = <∂f/∂x, x> + sum over the equations of <∂f/∂y, rest>.

Of smooth functions the rest is the intercept of their tangent, σ(v) - σ'(v) v, the "implicit bias" of Srinivas and
Fleuret. Constants that follow each other element by element are one bias: of batch norm (v - m) s + b it is b - m s.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var
from jax.extend.core import primitives as core
from jaxtyping import Array, Float

from jaxcam.checks import check_floating
from jaxcam.precision import widened
from jaxcam.programs.linearity import (
    PIECEWISE_CONSTANT,
    PIECEWISE_LINEAR,
    Dependence,
    dependence,
    dependences,
)
from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Atom, Program, Stage, called, closed, dtype, moves, shape, straight_line
from jaxcam.programs.specs import spec_of, varied

__all__ = ["FullGradient", "Parts", "full_gradient", "parts_of"]


_AFFINE = (
    lax.add_p,
    lax.sub_p,
    lax.concatenate_p,
    lax.dynamic_update_slice_p,
    lax.pad_p,
    lax.scatter_p,
    lax.scatter_add_p,
    lax.select_n_p,
)
"""Of which the rest is what they make of zeros in the place of all that depends on x."""


class FullGradient(NamedTuple):
    """f(x) = input.sum() + sum of the biases' sums, up to rounding."""

    value: Float[Array, ""]
    """f(x)."""
    input: Float[Array, "..."]
    """x ∘ ∂f/∂x, like x."""
    biases: tuple[Float[Array, "..."], ...]
    """Of every bias, in the order of the program: the bias times ∂f by what it was added to, in the shape of that."""


def full_gradient(f: Callable[[Array], Array], x: Float[Array, "..."] | Float[np.ndarray, "..."]) -> FullGradient:
    """Decomposes the value of a function at x into what comes from x and what comes from each of its biases.

        f(x) = <∂f/∂x, x> + sum_b <∂f/∂b, b>

    Nothing is said about biases: they are read off the program of any JAX function, whatever it is written in. A bias
    is all that does not depend on x and is added to what does: that of a layer, the shift of a batch norm, the bounds
    of a clip where it saturates, a class token, other inputs. The sum holds for every differentiable function. Where f
    is not piecewise linear (`jaxcam.is_piecewise_linear`) smooth functions add biases of their own, σ(v) - σ'(v) v,
    which depend on x, and products of two values that depend on x add minus their value; so does what
    `stop_gradient` hides. Biases inside of a loop (`scan`) or a branch are one, added to its results.

    It costs a forward and a backward pass. Composes with jit, vmap and grad.

    Args:
        f: x -> a scalar. It may close over arrays and tracers, which count as constants.
        x: where, floating point.

    Returns:
        The value and its parts.

    Raises:
        TypeError: f is not callable, or x or f's value is not floating point.
        ValueError: f does not return a scalar.

    **Source**: Srinivas and Fleuret 2019 (Full-Gradient Representation): full gradients, and the implicit biases of
    batch norm and nonlinearities.
    """
    if not callable(f):
        raise TypeError(f"f must be a function of an array, but is {type(f).__name__}: pass the function itself")
    check_floating("x", x)
    x = jnp.asarray(x)
    return parts_of(f, x)(x)


@dataclass(frozen=True, eq=False)
class Parts:
    """A function as its program, with the values at which something is added to it; called like the function."""

    program: Program
    ends: tuple[Var, ...]
    """For every bias the value that it has been added to when it is complete; empty where the value is a constant."""
    chains: Mapping[Var, int]
    """Which bias an equation adds to, by its result; of those that add something."""
    equations: list[tuple[JaxprEqn, tuple[Var, ...], tuple[Var, ...]]]
    """Those, with the operands and the results that depend on x."""
    depends: bool
    """Whether the value depends on x at all."""

    def __call__(self, x: Float[Array, "..."]) -> FullGradient:
        """The decomposition at x."""
        output, added = self.program.outputs[0], [var for _, _, results in self.equations for var in results]
        wanted = dict.fromkeys(a for e, _, _ in self.equations for a in e.invars if isinstance(a, Var))

        def run(x: Array, rests: Sequence[Array]) -> tuple[Array, tuple[Array, list[Any]]]:
            known = {**self.program.constants, self.program.arguments[0]: x}
            more = dict(zip(added, rests, strict=True))
            for eqn in self.program.equations:
                results, _ = Stage((), tuple(eqn.outvars), [eqn])(known)
                known.update((v, r + more[v] if v in more else r) for v, r in zip(eqn.outvars, results, strict=True))
            value = jnp.asarray(output.val) if isinstance(output, Literal) else known[output]
            return value, (value, [known[var] for var in wanted])

        nothing = [jnp.zeros(shape(var), dtype(var)) for var in added]
        x, *nothing = varied((x, *nothing))
        (by_x, by_rest), (value, seen) = jax.grad(run, (0, 1), has_aux=True)(x, nothing)
        if not self.ends:
            return FullGradient(value, x * by_x, () if self.depends else (value,))
        known = dict(zip(wanted, seen, strict=True))
        rests: list[Array] = []
        for eqn, operands, results in self.equations:
            stage = Stage(operands, results, [eqn])
            at = [known[var] for var in operands]
            if eqn.primitive in _AFFINE:
                # Of v + b it is b to the last digit, and (v + b) - v is not.
                rests += stage(known, *map(jnp.zeros_like, at))[0]
                continue
            made, linear = jax.jvp(lambda *v, stage=stage: stage(known, *v)[0], at, at)
            rests += [y - part for y, part in zip(made, linear, strict=True)]
        sums: list[Any] = [0.0] * len(self.ends)
        for var, gradient, rest in zip(added, widened(*by_rest), widened(*rests), strict=True):
            # What is padded with minus infinity before a maximum has no slope, and adds nothing.
            rest = jnp.where(jnp.isfinite(rest) | (gradient != 0), rest, 0)
            sums[self.chains[var]] += gradient * rest
        return FullGradient(value, x * by_x, tuple(sums))


def parts_of(f: Callable[[Array], Array], argument: Any) -> Parts:
    """Looks for what is added to what depends on the argument; nothing is computed.

    Raises:
        TypeError, ValueError: as `full_gradient` for f's value.
    """
    traced, out = jax.make_jaxpr(lambda x: f(x), return_shape=True)(spec_of(argument))
    if not hasattr(out, "shape") or out.shape != ():
        raise ValueError(f"f must return a scalar, but returned {getattr(out, 'shape', type(out).__name__)}")
    check_floating("f(x)", out)
    # A function with a derivative rule of its own that has no forward direction is what it computes.
    program = straight_line(
        traced, opened=lambda eqn, place: called(eqn, custom=eqn.primitive is core.custom_vjp_call_p)
    )
    known = dependences(program.equations, {program.arguments[0]: PIECEWISE_LINEAR})
    uses = Counter(atom for eqn in program.equations for atom in eqn.invars if isinstance(atom, Var))
    adding = {id(eqn) for eqn in _adding(program.equations, known, set())}
    chain: dict[Var, int] = {}
    last: list[Var] = []
    found: list[tuple[JaxprEqn, tuple[Var, ...], tuple[Var, ...]]] = []
    for eqn in program.equations:
        operands = tuple(dict.fromkeys(a for a in eqn.invars if isinstance(a, Var) and _is_moving(a, known)))
        results = tuple(var for var in eqn.outvars if _is_moving(var, known))
        if not operands or not results:
            continue
        follows = _follows(eqn, operands, results) and uses[operands[0]] == 1 and operands[0] in chain
        for var in results:
            if follows:
                chain[var] = chain[operands[0]]
                last[chain[var]] = var
            else:
                chain[var] = len(last)
                last.append(var)
        if id(eqn) in adding:
            found.append((eqn, operands, results))
    (output,) = program.outputs
    if isinstance(output, Literal) or not _is_moving(output, known):
        return Parts(program, (), {}, [], depends=False)
    kept = sorted({chain[var] for _, _, results in found for var in results})
    numbers = {number: i for i, number in enumerate(kept)}
    chains = {var: numbers[chain[var]] for _, _, results in found for var in results}
    return Parts(program, tuple(last[number] for number in kept), chains, found, depends=True)


def _is_moving(atom: Atom, known: Mapping[Var, Dependence]) -> bool:
    return dependence(known, atom) > PIECEWISE_CONSTANT and moves(atom)


def _follows(eqn: JaxprEqn, operands: Sequence[Var], results: Sequence[Var]) -> bool:
    """Whether it is c x + b, element by element, of what was made before: the same bias goes on."""
    facts = about(eqn)
    same = len(operands) == len(results) == 1 and shape(operands[0]) == shape(results[0])
    return facts.affine and facts.elementwise and same


def _adding(equations: Sequence[JaxprEqn], known: Mapping[Var, Dependence], zeros: set[Atom]) -> list[JaxprEqn]:
    """The equations that may add something, in a program with such dependences on the input."""
    found: list[JaxprEqn] = []
    zeros = {*zeros}

    def is_zero(atom: Atom) -> bool:
        return not np.any(atom.val) if isinstance(atom, Literal) else atom in zeros

    for eqn in equations:
        if not any(_is_moving(out, known) for out in eqn.outvars):
            keeps = about(eqn).linear is Linear.JOINTLY or eqn.primitive is lax.convert_element_type_p
            if keeps and all(map(is_zero, eqn.invars)):
                zeros.update(eqn.outvars)
            continue
        values = [atom for atom in eqn.invars if moves(atom)]
        moving = [atom for atom in values if _is_moving(atom, known)]
        still = [atom for atom in values if not _is_moving(atom, known)]
        if not _is_without_rest(eqn, moving, still, is_zero):
            found.append(eqn)
    return found


def _is_without_rest(
    eqn: JaxprEqn,
    moving: Sequence[Atom],
    still: Sequence[Atom],
    is_zero: Callable[[Atom], bool],
) -> bool:
    """Whether its results are certainly the linear part alone of what goes in, y = y' v."""
    if eqn.effects or eqn.primitive is core.stop_gradient_p:
        return False
    match about(eqn).linear:
        case Linear.JOINTLY:
            return all(map(is_zero, still))
        case Linear.EACH:
            return len(moving) == 1
        case Linear.FIRST:
            return len(moving) == 1 and moving[0] is eqn.invars[0]
        case _:
            pass
    if eqn.primitive is lax.convert_element_type_p:
        return True
    if eqn.primitive in (lax.sort_p, lax.top_k_p):
        return not still
    inner = called(eqn, custom=True)
    alone = dependences([eqn], {atom: PIECEWISE_LINEAR for atom in moving if isinstance(atom, Var)})
    if inner is None or any(dependence(alone, out) > PIECEWISE_LINEAR for out in eqn.outvars):
        return False  # of a custom derivative it is proven then that it is the slope of what it computes
    program = closed(inner)
    outside = [*zip(program.jaxpr.invars, eqn.invars, strict=True)]
    inside = dependences(program.jaxpr.eqns, {var: PIECEWISE_LINEAR for var, atom in outside if atom in moving})
    zeros = {var for var, atom in outside if is_zero(atom)}
    # Results that are constants, and only claimed to have a slope, are no linear part.
    return all(_is_moving(out, inside) for out in program.jaxpr.outvars) and not _adding(
        program.jaxpr.eqns, inside, zeros
    )

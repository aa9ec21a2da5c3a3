"""Guided backpropagation as a transformation of any JAX function: its ReLUs get another derivative.

The program of the function is rewritten: each rectifier becomes a call of a function with a backward rule of its own,
also inside jit, remat, scan, while and cond. Everything else stays as it is. Of x ↦ jit(y ↦ 2 max(y, 0))(x w),

    a = dot_general x w                        a = dot_general x w
    b = jit[jaxpr={ y ->           becomes     b = jit[jaxpr={ y ->
            c = max y 0.0                              c = custom_vjp_call[φ, guided rule] y
            d = mul c 2.0                              d = mul c 2.0
            return d }] a                              return d }] a

Where φ takes several equations, as x * sigmoid(x) does, only its last one is replaced: the call computes φ from x
again, and XLA drops those before it if nobody else wants their results.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from jaxcam.programs.partition import merged, partitioned
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Atom, Stage, called, closed
from jaxcam.programs.rectifiers import is_gate, rectifiers
from jaxcam.programs.specs import spec_of

__all__ = ["guided"]

R = TypeVar("R")


def guided(f: Callable[..., R], *, deconvnet: bool = False) -> Callable[..., R]:
    """The function f with the same values, whose rectifiers pass back only what is positive.

    For every rectifier y = φ(x), with the gradient ȳ that comes from above, what is passed on is

        x̄ = φ'(x) · ȳ · 1[ȳ > 0] · 1[x > 0].

    That is guided backpropagation for ReLU, where φ' = 1; ReLU6, leaky ReLU, ELU, SELU, SiLU, GELU, Mish and hard swish
    keep their own slope and the two conditions. Recognised is what computes such a function elementwise from one value
    and constants and ends in max, where, clip, a product or a call (see `jaxcam.programs.rectifiers`): those of
    jax.nn, and what is written by hand in these ways, such as x * sigmoid(x). Also clip(x, 0, 1), wherever it stands.
    Not (x + |x|) / 2 or -min(-x, 0), softplus, which is no zero at zero, slopes that are learned (PReLU), and what
    keeps a variance above zero in normalisation layers: these keep their ordinary gradient.

    Composes with jit, vmap and grad, in any order, also by the parameters, but not with forward derivatives: the rule
    is not linear in ȳ, so that there is no jvp. Where rectifiers are inside functions with a derivative rule of their
    own (`jax.custom_vjp`), that rule is given up for them. The program is traced and rewritten on every call: call it
    inside `jax.jit`.

    Args:
        f: any JAX function. Leaves of its arguments that are not arrays are static.
        deconvnet: Zeiler and Fergus's rule instead: x̄ = ȳ · 1[ȳ > 0], whatever x was.

    Returns:
        A function with the signature of f.

    Raises:
        TypeError: f is not callable.

    Warns:
        UserWarning: there is no rectifier in f; its gradient is then the ordinary one.

    **Source**: Springenberg et al. 2015 (Striving for Simplicity), section 3.4; Zeiler and Fergus 2014 for `deconvnet`.
    """
    if not callable(f):
        raise TypeError(f"f must be a function, not {type(f).__name__}; pass the function itself")

    @functools.wraps(f, updated=())
    def with_guidance(*args: Any, **kwargs: Any) -> R:
        static, arrays = partitioned((args, kwargs))

        def on_arrays(arrays: list[Any]) -> R:
            args, kwargs = merged(static, arrays)
            return f(*args, **kwargs)

        program, out = jax.make_jaxpr(on_arrays, return_shape=True)(arrays)
        rewritten, count = _rewritten(program.jaxpr, deconvnet)
        if not count:
            warnings.warn(
                "guided: no ReLU or relative of it was found in this function, so that its gradient is the ordinary "
                "one; write the activations with jax.nn, or as functions of one value and constants",
                stacklevel=2,
            )
        leaves = jaxpr_as_fun(ClosedJaxpr(rewritten, program.consts))(*arrays)
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return with_guidance


def _rewritten(jaxpr: Jaxpr, deconvnet: bool) -> tuple[Jaxpr, int]:
    """The program with guided rectifiers, and how many there are."""
    ends = {found.end: found for found in rectifiers(jaxpr)}
    count = len(ends)
    equations: list[JaxprEqn] = []
    # Results of calls that were written out (below) have other variables from there on.
    names: dict[Var, Atom] = {}

    def renamed(atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else names.get(atom, atom)

    for i, eqn in enumerate(jaxpr.eqns):
        if i in ends:
            rule, x = _with_rule(ends[i].phi, ends[i].x, deconvnet), renamed(ends[i].x)
            equations.append(rule.replace(invars=[x], outvars=eqn.outvars, source_info=eqn.source_info))
            continue
        eqn = eqn.replace(invars=[renamed(atom) for atom in eqn.invars])
        if about(eqn).under and not is_gate(eqn):
            params, inside = _rewritten_inside(eqn, deconvnet)
            count += inside
            eqn = eqn.replace(params=params) if inside else eqn
            if inside and about(eqn).runs is Runs.CUSTOM:
                # Its own derivative rule would hide what the rectifiers in it do: what it computes takes its place.
                body, results = _written_out(eqn)
                equations.extend(body)
                names.update(zip(eqn.outvars, results, strict=True))
                continue
        equations.append(eqn)
    return jaxpr.replace(eqns=equations, outvars=[renamed(atom) for atom in jaxpr.outvars]), count


def _rewritten_inside(eqn: JaxprEqn, deconvnet: bool) -> tuple[dict[str, Any], int]:
    """The parameters of an equation with the programs in them rewritten, and how many rectifiers these have."""
    total = 0

    def rewritten(held: Any) -> Any:
        nonlocal total
        if isinstance(held, tuple):  # of branches
            return tuple(map(rewritten, held))
        inner, count = _rewritten(closed(held).jaxpr, deconvnet)
        total += count
        return ClosedJaxpr(inner, held.consts) if isinstance(held, ClosedJaxpr) else inner

    changed = {name: rewritten(eqn.params[name]) for name in about(eqn).under}
    return {**eqn.params, **changed}, total


def _written_out(eqn: JaxprEqn) -> tuple[list[JaxprEqn], list[Atom]]:
    """The equations of a call with its operands for their arguments; each call gets variables of its own.

    b = call[{ y -> c = f y; return c }] a    becomes    c' = f a, with c' for b from there on.
    """
    program = called(eqn, custom=True)
    assert program is not None
    if program.consts:
        raise NotImplementedError(f"guided: {eqn.primitive.name} with constants of its own")
    names: dict[Var, Atom] = dict(zip(program.jaxpr.invars, eqn.invars, strict=True))
    body: list[JaxprEqn] = []
    for inner in program.jaxpr.eqns:
        outvars = [Var(var.aval) for var in inner.outvars]
        invars = [atom if isinstance(atom, Literal) else names[atom] for atom in inner.invars]
        body.append(inner.replace(invars=invars, outvars=outvars))
        names.update(zip(inner.outvars, outvars, strict=True))
    return body, [atom if isinstance(atom, Literal) else names[atom] for atom in program.jaxpr.outvars]


def _with_rule(phi: Stage, x: Var, deconvnet: bool) -> JaxprEqn:
    """An equation that computes φ and has the guided rule; its operand and result are put in by who asks for it."""
    function = partial(phi.scalar, {})

    @jax.custom_vjp
    def rectifier(x: Any) -> Any:
        return function(x)

    def forward(x: Any) -> tuple[Any, Any]:
        y, pull = jax.vjp(function, x)
        return y, (pull, x)

    def backward(residuals: Any, gradient: Any) -> tuple[Any]:
        pull, x = residuals
        positive = jnp.where(gradient > 0, gradient, jnp.zeros((), gradient.dtype))
        if deconvnet:
            return (positive.astype(x.dtype),)
        (passed,) = pull(positive)
        return (jnp.where(x > 0, passed, jnp.zeros((), passed.dtype)),)

    rectifier.defvjp(forward, backward)
    aval: Any = x.aval
    (eqn,) = jax.make_jaxpr(rectifier)(spec_of(aval)).jaxpr.eqns
    return eqn

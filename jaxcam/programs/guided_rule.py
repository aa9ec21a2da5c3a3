"""Guided backpropagation as a transformation of any JAX function: its ReLUs get another derivative.

The program of the function is rewritten: each rectifier becomes a call of a function with a backward rule of its own,
also inside jit, remat, scan, while and cond. Everything else stays as it is. Of x ↦ jit(y ↦ 2 max(y, 0))(x w),

    a = dot_general x w                        a = dot_general x w
    b = jit[jaxpr={ y ->           becomes     b = jit[jaxpr={ y ->
            c = max y 0.0                              c = custom_vjp_call[φ, guided rule] y
            d = mul c 2.0                              d = mul c 2.0
            return d }] a                              return d }] a

Where φ takes several equations, as x * sigmoid(x) does, only its last one is replaced: the call computes φ from x
again, and XLA drops those before it if nobody else wants their results. Calls that only group equations are written out
first, so that it does not matter where an activation is cut into functions.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from jaxcam import tables
from jaxcam.programs.partition import merged, partitioned
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Atom, Stage, called, closed
from jaxcam.programs.rectifiers import Clamp, Values, clamps
from jaxcam.programs.scopes import scopes
from jaxcam.programs.specs import spec_of

__all__ = ["Guided", "guided"]

P = ParamSpec("P")
R = TypeVar("R")


def guided(f: Callable[P, R], *, deconvnet: bool = False) -> Guided[P, R]:
    """The function f with the same values, whose rectifiers pass back only what is positive.

    For every rectifier y = φ(x), with the gradient ȳ that comes from above, what is passed on is

        x̄ = φ'(x) · ȳ · 1[ȳ > 0] · 1[x > 0].

    That is guided backpropagation for ReLU, where φ' = 1; ReLU6, leaky ReLU, PReLU, ELU, SELU, SiLU, GELU, Mish and
    hard swish keep their own slope and the two conditions. Recognised is, however it is written, what computes such a
    function elementwise from one value, constants and parameters: those of jax.nn, x * sigmoid(x), (x + |x|) / 2,
    maximum(x, zeros). Also clip(x, 0, 1), wherever it stands.

    Not what keeps a variance above zero in normalisation layers, gates such as hard sigmoid, and softplus, which is not
    zero at 0: these keep their ordinary gradient. What was found, `report` tells:

        >>> print(jaxcam.guided(model).report(images))
        place                  function             rule
        Block_0  net.py:12     max                  guided
        Block_0  norm.py:30    max                  left alone: a variance, kept from falling below zero

    Composes with jit, vmap and grad, in any order, also by the parameters, but not with forward derivatives: the rule
    is not linear in ȳ, so that there is no jvp. Where rectifiers are inside functions with a derivative rule of their
    own (`jax.custom_vjp`), that rule is given up for them. The program is traced and rewritten on every call: call it
    inside `jax.jit`.

    Args:
        f: any JAX function. Leaves of its arguments that are not arrays are static.
        deconvnet: Zeiler and Fergus's rule instead: x̄ = ȳ · 1[ȳ > 0], whatever x was.

    Returns:
        A function with the signature of f, and `report`, which takes the same arguments.

    Raises:
        TypeError: f is not callable.

    Warns:
        UserWarning: there is no rectifier in f; its gradient is then the ordinary one.

    **Source**: Springenberg et al. 2015 (Striving for Simplicity), section 3.4; Zeiler and Fergus 2014 for `deconvnet`.
    """
    if not callable(f):
        raise TypeError(f"f must be a function, not {type(f).__name__}; pass the function itself")
    return Guided(f, deconvnet)


class Guided(Generic[P, R]):
    """A function by the guided rule; see `jaxcam.guided`."""

    def __init__(self, f: Callable[P, R], deconvnet: bool) -> None:
        """Of f, with Zeiler and Fergus's rule or without."""
        functools.update_wrapper(self, f, updated=())
        self._function, self._deconvnet = f, deconvnet

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What f returns."""
        program, arrays, structure = self._traced(args, kwargs)
        found = _Rewriting(self._deconvnet)
        rewritten = found.of(program.jaxpr, _known(program))
        if not found.guided:
            warnings.warn(
                "guided: no ReLU or relative of it was found in this function, so that its gradient is the ordinary "
                "one; write the activations with jax.nn, or as functions of one value and constants, and look at "
                "jaxcam.guided(f).report(...)",
                stacklevel=2,
            )
        return jax.tree.unflatten(structure, jaxpr_as_fun(ClosedJaxpr(rewritten, program.consts))(*arrays))

    def report(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """A table of every rectifier with its place, and of every clamp that is left alone, and why.

        A place is the path of scopes and layers, and the line of the user's code. Nothing is computed.
        """
        program, _, _ = self._traced(args, kwargs)
        found = _Rewriting(self._deconvnet)
        found.of(program.jaxpr, _known(program))
        if not found.rows:
            return "no rectifier and no clamp"
        return tables.text(("place", "function", "rule"), found.rows, left=(0, 1, 2))

    def _traced(self, args: Any, kwargs: Any) -> tuple[ClosedJaxpr, list[Any], Any]:
        static, arrays = partitioned((args, kwargs))

        function: Any = self._function

        def on_arrays(arrays: list[Any]) -> R:
            args, kwargs = merged(static, arrays)
            return function(*args, **kwargs)

        program, out = jax.make_jaxpr(on_arrays, return_shape=True)(arrays)
        return program, arrays, jax.tree.structure(out)


def _known(program: ClosedJaxpr) -> Values:
    """What is known of the values of a program before it runs."""
    constants = zip(program.jaxpr.constvars, program.consts, strict=True)
    return Values({var: Values.of_constant(value) for var, value in constants}, {*program.jaxpr.invars})


class _Rewriting:
    """Programs with guided rectifiers, and what was found in them."""

    def __init__(self, deconvnet: bool) -> None:
        self.deconvnet = deconvnet
        self.guided = 0
        self.rows: list[tuple[str, str, str]] = []

    def of(self, jaxpr: Jaxpr, values: Values) -> Jaxpr:
        """The program with its rectifiers by the guided rule."""
        jaxpr = _without_calls(jaxpr)
        left: set[int] = set()
        ends = {clamp.end: clamp for clamp in clamps(jaxpr.eqns, jaxpr.outvars, values, left)}
        equations: list[JaxprEqn] = []
        # Results of calls that were written out (below) have other variables from there on.
        names: dict[Var, Atom] = {}

        def renamed(atom: Atom) -> Atom:
            return atom if isinstance(atom, Literal) else names.get(atom, atom)

        for i, eqn in enumerate(jaxpr.eqns):
            clamp = ends.get(i)
            if clamp is not None:
                self.rows.append((_place(eqn), _name(eqn, clamp), f"left alone: {clamp.left_alone}"))
                if clamp.left_alone is None:
                    self.guided += 1
                    self.rows[-1] = (*self.rows[-1][:2], "guided")
                    rule, operands = _with_rule(clamp, self.deconvnet)
                    operands = [renamed(atom) for atom in operands]
                    equations.append(rule.replace(invars=operands, outvars=eqn.outvars, source_info=eqn.source_info))
                    continue
            inner = eqn.replace(invars=[renamed(atom) for atom in eqn.invars])
            if about(eqn).under and i not in left:
                before = self.guided
                params = self._inside(eqn, values)
                if self.guided > before:
                    inner = inner.replace(params=params)
                    if about(eqn).runs is Runs.CUSTOM:
                        # Its own rule would hide what the rectifiers in it do: what it computes takes its place.
                        body, results = _written_out(inner)
                        equations.extend(body)
                        names.update(zip(eqn.outvars, results, strict=True))
                        continue
            equations.append(inner)
        return jaxpr.replace(eqns=equations, outvars=[renamed(atom) for atom in jaxpr.outvars])

    def _inside(self, eqn: JaxprEqn, values: Values) -> dict[str, Any]:
        """The parameters of an equation with the programs in them rewritten."""

        def rewritten(name: str, held: Any) -> Any:
            if isinstance(held, tuple):  # of branches
                return tuple(rewritten(name, branch) for branch in held)
            program = closed(held)
            known = _known(program)
            for var, atom in zip(program.jaxpr.invars, _operands(eqn, name), strict=True):
                if atom is not None and values.is_constant(atom):
                    known.numbers[var] = values.number(atom)
                    known.raw.discard(var)
            inner = self.of(program.jaxpr, known)
            return ClosedJaxpr(inner, held.consts) if isinstance(held, ClosedJaxpr) else inner

        return {**eqn.params, **{name: rewritten(name, eqn.params[name]) for name in about(eqn).under}}


def _operands(eqn: JaxprEqn, name: str) -> Sequence[Atom | None]:
    """What the program `name` of an equation is run on, where that is the same each time."""
    params, operands = eqn.params, [*eqn.invars]
    if eqn.primitive is lax.cond_p:
        return operands[1:]
    if eqn.primitive is lax.while_p:
        before, own = params["cond_nconsts"], params["body_nconsts"]
        constants = operands[:before] if name == "cond_jaxpr" else operands[before : before + own]
        return [*constants, *[None] * (len(operands) - before - own)]
    if eqn.primitive is lax.scan_p:
        start, stop = params["num_consts"], params["num_consts"] + params["num_carry"]
        return [*operands[:start], *[None] * (stop - start), *operands[stop:]]
    return operands


def _place(eqn: JaxprEqn) -> str:
    """The scopes of an equation, and the line of code that it comes from."""
    path, line = "/".join(scopes(eqn)), ""
    traceback = eqn.source_info.traceback
    for frame in () if traceback is None else traceback.frames:
        if not frame.file_name.startswith((*_OTHERS, "<frozen")):
            line = f"{Path(frame.file_name).name}:{frame.line_num}"
            break
    return "  ".join(filter(None, (path, line)))


_OTHERS = (str(Path(__file__).parents[1]), str(Path(jax.__file__).parent), sys.prefix, sys.base_prefix)
"""Where code is installed that is not the user's."""


def _name(eqn: JaxprEqn, clamp: Clamp) -> str:
    """What the function is called, or is made of."""
    names = [
        str(each.params["call_jaxpr"].jaxpr.debug_info.func_name)
        if about(each).runs is Runs.CUSTOM
        else each.primitive.name
        for each in clamp.phi.equations
    ]
    return ", ".join(dict.fromkeys(names))


def _without_calls(jaxpr: Jaxpr) -> Jaxpr:
    """The same program with calls written out that only group equations."""
    equations: list[JaxprEqn] = []
    names: dict[Var, Atom] = {}
    waiting = [*reversed(jaxpr.eqns)]

    def renamed(atom: Atom) -> Atom:
        while isinstance(atom, Var) and atom in names:
            atom = names[atom]
        return atom

    while waiting:
        eqn = waiting.pop()
        eqn = eqn.replace(invars=[renamed(atom) for atom in eqn.invars])
        inner = called(eqn) if about(eqn).runs is Runs.CALL else None
        if inner is None or inner.consts:
            equations.append(eqn)
            continue
        body, results = _written_out(eqn)
        names.update(zip(eqn.outvars, results, strict=True))
        waiting.extend(reversed(body))
    return jaxpr.replace(eqns=equations, outvars=[renamed(atom) for atom in jaxpr.outvars])


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
        source = inner.source_info.replace(name_stack=eqn.source_info.name_stack + inner.source_info.name_stack)
        body.append(inner.replace(invars=invars, outvars=outvars, source_info=source))
        names.update(zip(inner.outvars, outvars, strict=True))
    return body, [atom if isinstance(atom, Literal) else names[atom] for atom in program.jaxpr.outvars]


def _with_rule(clamp: Clamp, deconvnet: bool) -> tuple[JaxprEqn, list[Var]]:
    """An equation that computes φ and has the guided rule, and its operands: x, and the parameters and constants."""
    phi, x = clamp.phi, clamp.x
    others = [*dict.fromkeys(a for e in phi.equations for a in e.invars if isinstance(a, Var) and a in phi.used)]
    others = [var for var in others if var is not x]
    stage = Stage((x, *others), phi.outputs, phi.equations)
    function = functools.partial(stage.scalar, {})

    @jax.custom_vjp
    def rectifier(*operands: Any) -> Any:
        return function(*operands)

    def forward(*operands: Any) -> tuple[Any, Any]:
        y, pull = jax.vjp(function, *operands)
        return y, (pull, operands[0])

    def backward(residuals: Any, gradient: Any) -> tuple[Any, ...]:
        pull, x = residuals
        positive = jnp.where(gradient > 0, gradient, jnp.zeros((), gradient.dtype))
        _, *of_others = pull(gradient)  # a learned slope has its ordinary gradient
        if deconvnet:
            return (positive.astype(x.dtype), *of_others)
        passed, *_ = pull(positive)
        return (jnp.where(x > 0, passed, jnp.zeros((), passed.dtype)), *of_others)

    rectifier.defvjp(forward, backward)
    operands = [x, *others]
    (eqn,) = jax.make_jaxpr(rectifier)(*(spec_of(var.aval) for var in operands)).jaxpr.eqns
    return eqn, operands

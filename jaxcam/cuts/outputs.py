"""What a model's outputs mean, read off its program: logits, or probabilities that were made of them at the end.

A classifier that ends in a softmax or a sigmoid hides what explanations are made of: where it is sure, the gradient of
a probability is zero in every digit. The logits are right there in the program, before the ending:

    images -> ... -> logits [n, c] -> softmax -> clip -> outputs        explained are the logits

Recognised are softmax, log-softmax and sigmoid as JAX and hand-written code spell them, a logarithm of these, and a
clip around any of them. What is not recognised is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, DebugInfo, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.extend.core.primitives import name_p, stop_gradient_p

from jaxcam.cuts.sites import Opening, place_of_result
from jaxcam.programs.program import Atom, called, needed, shape, straight_line
from jaxcam.programs.specs import spec_of

__all__ = ["Ending", "Reader", "ending", "without"]

# What changes neither the order of the values nor, within a clip's limits, the values.
_PASSED = {
    lax.broadcast_in_dim_p, lax.reshape_p, lax.squeeze_p, lax.convert_element_type_p, lax.copy_p, name_p,
    stop_gradient_p,
}  # fmt: skip
_DEPTH = 8
"""How far back two ways of computing a value are compared."""
_CLIPS = {lax.clamp_p, lax.max_p, lax.min_p}


class Ending(NamedTuple):
    """What a model ends in."""

    name: str
    """"softmax", "log-softmax" or "sigmoid"."""
    probability: str
    """What makes probabilities of the logits: "softmax" or "sigmoid"."""
    place: tuple[int, ...]
    """Of the logits in the program; see `programs.program.Program`."""


def ending(closed: ClosedJaxpr) -> Ending | None:
    """The ending of a program to one array `[n, c]`, if it has one and its logits are a value of that shape."""
    program = straight_line(closed, opened=lambda eqn, place: called(eqn, custom=True))
    makers = {var: eqn for eqn in program.equations for var in eqn.outvars}
    found, output = Reader(makers).ending(program.outputs[0]), shape(program.outputs[0])
    if found is None:
        return None
    name, logits = found
    if not isinstance(logits, Var) or logits not in makers:
        return None
    # A dense layer written as a convolution makes [n, 1, 1, c], which is [n, c] before the softmax or behind it.
    lengths = shape(logits)
    if prod(lengths) != prod(output) or lengths[:1] != output[:1] or (name != "sigmoid" and lengths[-1] != output[-1]):
        return None
    return Ending(name, "sigmoid" if name == "sigmoid" else "softmax", program.places[logits])


def without(closed: ClosedJaxpr, found: Ending) -> ClosedJaxpr:
    """The program to the logits, in the shape of what it returned."""
    place = place_of_result(closed.jaxpr, found.place, Opening())

    def opened(eqn: JaxprEqn, here: tuple[int, ...]) -> ClosedJaxpr | None:
        on_the_way = place[: len(here)] == here and len(place) > len(here) + 1
        return called(eqn, custom=True) if on_the_way else None

    program = straight_line(closed, opened=opened, pruned=False)
    (logits,) = [var for var, where in program.places.items() if where == place]
    equations = needed(program.equations, (logits,), {*program.arguments, *program.constants})
    constants = list(program.constants)
    jaxpr = Jaxpr(constants, program.arguments, [logits], equations, debug_info=DebugInfo("logits", "", None, None))
    to_logits, (like,) = ClosedJaxpr(jaxpr, list(program.constants.values())), closed.out_avals
    if shape(logits) == like.shape:
        return to_logits
    run = jaxpr_as_fun(to_logits)
    return jax.make_jaxpr(lambda *arrays: run(*arrays)[0].reshape(like.shape))(*map(spec_of, closed.in_avals))


class Reader:
    """Reads a program backwards from its output."""

    def __init__(self, makers: Mapping[Var, JaxprEqn]) -> None:
        self.makers = makers

    def ending(self, atom: Atom) -> tuple[str, Atom] | None:
        """The ending that a value is the result of, and what goes into it."""
        at = self.clipped(atom)
        eqn = self.maker(at)
        if eqn is None:
            return None
        if eqn.primitive is lax.logistic_p:
            return "sigmoid", eqn.invars[0]
        if eqn.primitive is lax.log_p:  # of probabilities
            inner = self.ending(eqn.invars[0])
            return inner if inner is None or inner[0] == "sigmoid" else ("log-softmax", inner[1])
        if eqn.primitive is lax.div_p:
            over, under = map(self.passed, eqn.invars)
            return self.softmax(over, under) or self.sigmoid(over, under)
        if eqn.primitive is lax.mul_p:  # exp(x) * (1 / sum)
            for over, inverse in (eqn.invars, eqn.invars[::-1]):
                if (under := self.inverted(inverse)) is not None and (found := self.softmax(self.passed(over), under)):
                    return found
        if eqn.primitive is lax.exp_p:  # of log-softmax
            inner = self.ending(eqn.invars[0])
            return ("softmax", inner[1]) if inner is not None and inner[0] == "log-softmax" else None
        if eqn.primitive is lax.sub_p:
            return self.log_softmax(*map(self.passed, eqn.invars))
        return None

    def softmax(self, over: Atom, under: Atom) -> tuple[str, Atom] | None:
        """exp(x - m) / sum(exp(x - m))."""
        exp, total = self.maker(over), self.maker(self.passed(under))
        if exp is None or exp.primitive is not lax.exp_p or not self.sums_classes(total, over):
            return None
        return "softmax", self.unshifted(exp.invars[0])

    def shares(self, eqn: JaxprEqn) -> tuple[int, ...] | None:
        """The axes along which the results of an equation are shares of a whole: e / sum(e), as of every softmax."""
        if eqn.primitive is lax.div_p:
            pairs = [(eqn.invars[0], self.passed(eqn.invars[1]))]
        elif eqn.primitive is lax.mul_p:  # e * (1 / sum(e))
            inverses = [(over, self.inverted(inverse)) for over, inverse in (eqn.invars, eqn.invars[::-1])]
            pairs = [(over, under) for over, under in inverses if under is not None]
        else:
            return None
        for over, under in pairs:
            total = self.maker(under)
            if total is not None and total.primitive in (lax.max_p, lax.add_p):  # kept from being zero
                sums = [self.maker(self.passed(atom)) for atom in total.invars]
                total = next((s for s in sums if s is not None and s.primitive is lax.reduce_sum_p), None)
            if total is None or total.primitive is not lax.reduce_sum_p or shape(total.invars[0]) != shape(over):
                continue
            if self.same(self.unmasked(total.invars[0]), self.unmasked(over)):
                return tuple(map(int, total.params["axes"]))
        return None

    def unmasked(self, atom: Atom) -> Atom:
        """X of where(mask, x, 0); else the value itself."""
        at = self.passed(atom)
        eqn = self.maker(at)
        if eqn is None or eqn.primitive is not lax.select_n_p:
            return at
        kept = [case for case in eqn.invars[1:] if not self.is_zero(case)]
        return self.passed(kept[0]) if len(kept) == 1 else at

    def is_zero(self, atom: Atom) -> bool:
        """Whether it is the number 0, in any shape."""
        at = self.passed(atom)
        return isinstance(at, Literal) and bool(np.all(at.val == 0))

    def sigmoid(self, over: Atom, under: Atom) -> tuple[str, Atom] | None:
        """1 / (1 + exp(-x))."""
        total = self.maker(under)
        if not _is_one(over) or total is None or total.primitive is not lax.add_p:
            return None
        for one, exp in (total.invars, total.invars[::-1]):
            exponential = self.maker(self.passed(exp))
            if _is_one(one) and exponential is not None and exponential.primitive is lax.exp_p:
                negated = self.maker(self.passed(exponential.invars[0]))
                if negated is not None and negated.primitive is lax.neg_p:
                    return "sigmoid", negated.invars[0]
        return None

    def log_softmax(self, x: Atom, subtracted: Atom) -> tuple[str, Atom] | None:
        """S - log(sum(exp(s))) with s = x - m, or x - (log(sum(exp(x - m))) + m)."""
        for part in self.summands(subtracted):
            log = self.maker(part)
            if log is None or log.primitive is not lax.log_p:
                continue
            total = self.maker(self.passed(log.invars[0]))
            if total is not None and total.primitive is lax.abs_p:  # of a positive sum, in logsumexp
                total = self.maker(self.passed(total.invars[0]))
            if total is None or total.primitive is not lax.reduce_sum_p:
                continue
            over = self.passed(total.invars[0])
            exp = self.maker(over)
            if exp is None or exp.primitive is not lax.exp_p or not self.sums_classes(total, over):
                continue
            logits = self.unshifted(exp.invars[0])
            if self.same(self.unshifted(x), logits):
                return "log-softmax", logits
        return None

    def sums_classes(self, total: JaxprEqn | None, over: Atom) -> bool:
        """Whether it is the sum of these values over their last axis."""
        return (
            total is not None
            and total.primitive is lax.reduce_sum_p
            and self.same(total.invars[0], over)
            and tuple(total.params["axes"]) == (len(shape(over)) - 1,)
        )

    def unshifted(self, atom: Atom) -> Atom:
        """X of x - max(x), which is the same to a softmax; else the value itself."""
        at = self.passed(atom)
        eqn = self.maker(at)
        if eqn is None or eqn.primitive is not lax.sub_p:
            return at
        x, shift = self.passed(eqn.invars[0]), self.shift(eqn.invars[1])
        return x if shift is not None and self.same(shift, x) else at

    def shift(self, atom: Atom) -> Atom | None:
        """The values whose maximum this is; max(-inf, it), and what replaces an infinite one, count as well."""
        eqn = self.maker(self.passed(atom))
        if eqn is None:
            return None
        if eqn.primitive is lax.reduce_max_p:
            return eqn.invars[0]
        inner = eqn.invars if eqn.primitive in (lax.max_p, lax.select_n_p) else ()
        return next((found for part in inner if (found := self.shift(part)) is not None), None)

    def same(self, one: Atom, other: Atom, depth: int = _DEPTH) -> bool:
        """Whether two values are computed in the same way from the same: exp(x) may have been written twice."""
        one, other = self.passed(one), self.passed(other)
        if isinstance(one, Literal) or isinstance(other, Literal):
            return isinstance(one, Literal) and isinstance(other, Literal) and bool(np.all(one.val == other.val))
        first, second = self.maker(one), self.maker(other)
        if one is other or first is None or second is None:
            return one is other
        return (
            depth > 0
            and first.primitive is second.primitive
            and str(first.params) == str(second.params)
            and all(self.same(a, b, depth - 1) for a, b in zip(first.invars, second.invars, strict=True))
        )

    def summands(self, atom: Atom) -> Iterator[Atom]:
        """A value, and if it is a sum its two parts."""
        yield atom
        eqn = self.maker(atom)
        if eqn is not None and eqn.primitive is lax.add_p:
            yield from map(self.passed, eqn.invars)

    def inverted(self, atom: Atom) -> Atom | None:
        """X of 1 / x."""
        eqn = self.maker(self.passed(atom))
        if eqn is not None and eqn.primitive is lax.div_p and _is_one(eqn.invars[0]):
            return self.passed(eqn.invars[1])
        return None

    def maker(self, atom: Atom) -> JaxprEqn | None:
        """The equation that makes a value."""
        return self.makers.get(atom) if isinstance(atom, Var) else None

    def passed(self, atom: Atom) -> Atom:
        """What a value was before it was only moved or named."""
        while (eqn := self.maker(atom)) is not None and eqn.primitive in _PASSED:
            atom = eqn.invars[0]
        return atom

    def clipped(self, atom: Atom) -> Atom:
        """What a value was before it was clipped to fixed limits."""
        while True:
            atom = self.passed(atom)
            eqn = self.maker(atom)
            if eqn is None or eqn.primitive not in _CLIPS:
                return atom
            moving = [a for a in eqn.invars if isinstance(self.passed(a), Var) and self.maker(self.passed(a))]
            if len(moving) != 1:
                return atom
            (atom,) = moving


def _is_one(atom: Atom) -> bool:
    return isinstance(atom, Literal) and bool(np.all(atom.val == 1))

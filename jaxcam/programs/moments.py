"""Moments: whether a value is a variance, a difference of moments of the same values, however it is written.

Normalisation layers compute E[x²] - E[x]² and clamp it at zero, where rounding would make it negative. For values u
each step is followed with what it makes of them, from u to the difference:

    u        the values themselves, shifted, scaled or masked        uu   their products
    mean     a weighted sum of u                                     sum  a weighted sum of products
    product  a product of two means                                  variance  of sum and product
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jax import lax
from jax.extend.core import JaxprEqn, Literal, Var

from jaxcam.programs.primitives import Linear, about
from jaxcam.programs.program import Atom, shape

__all__ = ["is_variance"]

_LONGEST = 64
_SUMS = {"u": "mean", "uu": "sum", "u mean": "product"}
_PRODUCTS = {("u", "u"): "uu", ("mean", "u"): "u mean", ("mean", "mean"): "product"}
Kinds = frozenset[str]


def is_variance(
    x: Var, equations: Sequence[JaxprEqn], makers: Mapping[Atom, int], is_constant: Callable[[Atom], bool]
) -> bool:
    """Whether x is a variance of some value u in the program that it is made from."""
    # What x is made from, the latest first, as far as something is known about how.
    between: list[int] = []
    start, open_ = set[Var](), {x}
    while open_ and len(between) < _LONGEST:
        latest = max(open_, key=lambda var: makers.get(var, -1))
        open_.remove(latest)
        start.add(latest)
        if latest in makers and _is_followed(equations[makers[latest]]) and makers[latest] not in between:
            between.append(makers[latest])
            operands = equations[makers[latest]].invars
            open_ |= {a for a in operands if isinstance(a, Var) and not is_constant(a)} - start
    if not any(_sums(equations[i]) for i in between):
        return False
    order = sorted(between)
    return any("variance" in _kinds(x, u, [equations[i] for i in order], is_constant) for u in start - {x})


def _kinds(x: Var, u: Var, equations: Sequence[JaxprEqn], is_constant: Callable[[Atom], bool]) -> Kinds:
    """What x may be of u: several where values lie side by side in one array; nothing where it is none of these."""
    known: dict[Atom, Kinds] = {u: frozenset(("u",))}
    for eqn in equations:
        if u not in eqn.outvars:
            moving = [atom for atom in eqn.invars if not is_constant(atom)]
            if moving and all(known.get(atom) for atom in moving):
                known.update(dict.fromkeys(eqn.outvars, _made(eqn, [known[atom] for atom in moving])))
    return known.get(x, frozenset())


def _made(eqn: JaxprEqn, kinds: Sequence[Kinds]) -> Kinds:
    facts = about(eqn)
    first = kinds[0]
    factors = _factors(eqn)
    if factors == 2 or (len(kinds) == 2 and facts.linear is Linear.EACH):
        pairs = {(min(a, b), max(a, b)) for a in first for b in kinds[-1]}
        made = frozenset(_PRODUCTS[pair] for pair in pairs if pair in _PRODUCTS)
        return frozenset(map(_summed, made)) if _sums(eqn) and factors != 2 else made
    if eqn.primitive in (lax.add_p, lax.sub_p) and len(kinds) == 2:
        return frozenset(filter(None, (_added(a, b) for a in first for b in kinds[1])))
    if _sums(eqn):
        return frozenset(map(_summed, first))
    return frozenset().union(*kinds) if factors == 1 else frozenset()


def _summed(kind: str) -> str:
    return _SUMS.get(kind, kind)


def _added(a: str, b: str) -> str | None:
    if {a, b} == {"u", "mean"}:
        return "u"
    of_second_degree = {"sum", "product", "variance"}
    if {a, b} <= of_second_degree:
        return a if a == b else "variance"
    return a if a == b else None


def _factors(eqn: JaxprEqn) -> int | None:
    """How many of its operand's elements are multiplied in each of the results; None where it is no product."""
    match eqn.primitive:
        case lax.square_p:
            return 2
        case lax.integer_pow_p:
            return eqn.params["y"]
        case lax.pow_p:
            power = eqn.invars[1]
            return int(power.val) if isinstance(power, Literal) and power.val in (1, 2) else None
        case lax.reduce_prod_p:
            length = 1
            for axis in eqn.params["axes"]:
                length *= shape(eqn.invars[0])[axis]
            return length
        case _:
            return 1 if _is_followed(eqn) else None


def _is_followed(eqn: JaxprEqn) -> bool:
    facts = about(eqn)
    if eqn.primitive in (lax.square_p, lax.integer_pow_p, lax.pow_p, lax.reduce_prod_p, lax.convert_element_type_p):
        return True
    return facts.reduces == "sum" or (
        facts.linear not in (None, Linear.STEP) and eqn.primitive not in (lax.max_p, lax.min_p)
    )


def _sums(eqn: JaxprEqn) -> bool:
    """Whether it adds up elements."""
    return about(eqn).reduces == "sum" or eqn.primitive in (lax.dot_general_p, lax.conv_general_dilated_p, lax.cumsum_p)

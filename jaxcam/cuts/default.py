"""The default layer, one rule for every model.

It is the last value that has a whole grid of positions, that every path from the input to the output passes through,
and of which positions, and not one alone, reach what is explained:

    convolutions, pooling, dense     what goes into the pooling or the dense layer
    a generalised mean               what goes into it: of (mean x^p)^(1/p) and log(mean e^x) x, and no power of it
    transformer with a class token   the input of the last block: behind its attention one token alone is read
    one of the tokens is read        the same
    tokens that are averaged         what is averaged
    tokens that are attended to      what the keys and values of the pooling attention are made of
    dense prediction                 what goes into the last layer that looks at neighbours
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Literal, Primitive, Var
from jax.extend.core.primitives import name_p

from jaxcam.cuts.grid import is_grid, whole
from jaxcam.cuts.mixing import last_mixing
from jaxcam.cuts.model import Adapted
from jaxcam.cuts.reaching import reaches
from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.primitives import Moves, about
from jaxcam.programs.program import called, is_elementwise, shape, size

__all__ = ["default_site"]


def default_site(analysis: Analysis, model: Adapted) -> Site | None:
    """Where a model is cut when no layer is named, unless it says that itself; None where it has no such value."""
    raw = _raw(analysis)
    fitting = [site for site in analysis.values if site.var not in raw and is_grid(analysis, site, model.grid)]
    if model.grid is None:  # a clip whose frames are pooled has times, and is the whole grid no more
        lengths = [_num_pooled(analysis, site) for site in fitting]
        fitting = [site for site, length in zip(fitting, lengths, strict=True) if length == min(lengths)]
    order = analysis.order
    if any(is_grid(analysis, output, None) for output in analysis.outputs) and (end := last_mixing(analysis)):
        # The output has the grid itself: as the layer every region's map would be its own scores.
        fitting = [site for site in fitting if order[site.var] < end] or fitting
        return fitting[-1] if fitting else None
    while fitting and not reaches(analysis, fitting[-1]):
        fitting.pop()
    if not fitting:
        return None
    return _batch_first(analysis, fitting, _before_powers(analysis, fitting, _before_pooling(analysis, fitting)))


def _batch_first(analysis: Analysis, fitting: Sequence[Site], last: Site) -> Site:
    """The same value before its axes were moved, as time before the batch for a scan, where the batch came first."""
    before = {site.var: site for site in fitting}
    makers = {var: eqn for eqn in analysis.program.equations for var in eqn.outvars}
    found = last
    while shape(found.var)[0] != 1:
        eqn = makers.get(found.var)
        if eqn is None or about(eqn).moves is not Moves.AXES or eqn.invars[0] not in before:
            return last
        found = before[eqn.invars[0]]  # type: ignore[index]
    return found


def _num_pooled(analysis: Analysis, site: Site) -> int:
    """The number of the input's axes of which a value knows nothing any more."""
    positions = whole(analysis, site)
    assert positions is not None
    return positions.sizes.count(1)


def _raw(analysis: Analysis) -> set[Var]:
    """The picture itself, normalised and moved: it has a grid as well, and is no layer."""
    raw = {analysis.image}
    for eqn in analysis.program.equations:
        facts = about(eqn)
        moving = _moving(eqn, analysis)
        if moving and all(atom in raw for atom in moving) and (facts.affine or facts.moves or facts.keeps_axes):
            raw.update(eqn.outvars)
    return raw


def _before_pooling(analysis: Analysis, fitting: Sequence[Site]) -> Site:
    """What is pooled, where the last value of all was pooled or projected for the pooling already."""
    order, equations = analysis.order, analysis.program.equations
    attends = len(fitting) > 1 and _is_weighted(analysis, fitting[-1].var)
    if attends:
        fitting = fitting[:-1]
    last = fitting[-1]
    here = order[last.var]
    products = [i for i, eqn in enumerate(equations) if _multiplies(eqn, analysis)]
    # Pooling by windows that no convolution follows, before this value or making it.
    pooled = [
        i
        for i, eqn in enumerate(equations[: here + 1])
        if about(eqn).windowed
        and eqn.invars[0] in analysis.axes
        and not any(i < product <= here for product in products)
    ]
    if pooled and not any(equations[i].primitive is lax.conv_general_dilated_p for i in products if i > pooled[0]):
        before = [site for site in fitting if order[site.var] < pooled[0]]
        return before[-1] if before else last
    # Keys and values in one projection, of which the attention that pools takes its parts.
    attends = attends or any(
        equations[i].primitive is lax.dot_general_p and all(atom in analysis.axes for atom in equations[i].invars)
        for i in products
        if i > here
    )
    mine = [i for i in products if i <= here]
    before = [site for site in fitting if mine and order[site.var] < mine[-1]]
    if attends and before and _is_projection(analysis, before[-1].var, mine[-1], last.var):
        return before[-1]
    return last


def _before_powers(analysis: Analysis, fitting: Sequence[Site], last: Site) -> Site:
    """What goes into a generalised mean g(mean f(x)), with g the inverse of f, where the last value is f(x).

    GeM and L2 pooling take a power, the mean and a root, log-sum-exp the exponential, a sum and the logarithm. The
    power says how the mean is taken and not what the network has found: it belongs to the pooling, and so do the steps
    that only prepare for it, as a clamp to what is positive does. A rectifier that stands alone before a pooling has no
    inverse behind it and stays with the layers, before a power as well.
    """
    equations = analysis.program.equations
    makers = {var: eqn for eqn in equations for var in eqn.outvars}

    def after(var: Var) -> list[JaxprEqn]:
        return [eqn for eqn in equations if any(atom is var for atom in eqn.invars)]

    power = last.var
    while power in makers and about(makers[power]).moves is Moves.AXES:
        (power,) = _moving(makers[power], analysis)
    undone = _UNDOES.keys() & (_kinds(makers[power]) if power in makers else set())
    here, is_pooled = last.var, False
    shifted = [eqn for eqn in after(here) if eqn.primitive is lax.sub_p]
    if len(shifted) == 1:  # log-sum-exp as it is written, with the maximum taken off before and added again
        exponentials = after(shifted[0].outvars[0])
        undone = {lax.exp_p} if [eqn.primitive for eqn in exponentials] == [lax.exp_p] else set()
        here = exponentials[0].outvars[0] if undone else here
    while undone:  # forwards, through the mean, to what undoes it
        if len(users := after(here)) != 1:
            return last
        (eqn,) = users
        if is_pooled and any(kind in _UNDOES[each] for each in undone for kind in _kinds(eqn)):
            break
        passes = about(eqn).moves is Moves.AXES or eqn.primitive is lax.abs_p  # of a sum of what is positive
        if not (passes or _pools(eqn) or _scales(eqn, analysis)):
            return last
        is_pooled |= _pools(eqn)
        here = eqn.outvars[0]
    before = {site.var: site for site in fitting}
    found, here = last, power
    while undone and here in makers:
        eqn = makers[here]
        moving = {*_moving(eqn, analysis)}
        prepares = all(kind in _PREPARING for kind in _kinds(eqn)) and not _rectifies(eqn)
        if len(moving) != 1 or not (prepares or _scales(eqn, analysis)):
            break
        (here,) = moving
        found = before.get(here, found)
    return found


_POWERS = {lax.pow_p, lax.integer_pow_p, lax.square_p, lax.sqrt_p, lax.cbrt_p, lax.rsqrt_p}
_UNDOES = {lax.exp_p: {lax.log_p}, lax.pow_p: _POWERS, lax.integer_pow_p: _POWERS, lax.square_p: _POWERS}
_PREPARING = {*_POWERS, lax.exp_p, lax.log_p, lax.max_p, lax.min_p, lax.clamp_p, lax.convert_element_type_p}


def _kinds(eqn: JaxprEqn) -> set[Primitive]:
    """What an equation does, or each of those in an elementwise call."""
    if eqn.primitive is lax.mul_p and eqn.invars[0] is eqn.invars[1]:
        return {lax.square_p}
    inner = called(eqn, custom=True)
    return {eqn.primitive} if inner is None else {kind for inside in inner.jaxpr.eqns for kind in _kinds(inside)}


def _rectifies(eqn: JaxprEqn) -> bool:
    """Whether it compares with zero."""
    inner = called(eqn, custom=True)
    if inner is not None and any(_rectifies(inside) for inside in inner.jaxpr.eqns):
        return True
    compares = not {lax.max_p, lax.min_p, lax.clamp_p}.isdisjoint(_kinds(eqn))
    return compares and any(isinstance(atom, Literal) and not np.any(atom.val) for atom in eqn.invars)


def _pools(eqn: JaxprEqn) -> bool:
    return eqn.primitive is lax.reduce_sum_p or eqn.primitive is lax.reduce_window_sum_p


def _scales(eqn: JaxprEqn, analysis: Analysis) -> bool:
    """Whether it multiplies everything by one number, or adds one."""
    moving = _moving(eqn, analysis)
    others = [atom for atom in eqn.invars if isinstance(atom, Literal) or atom not in moving]
    is_named = eqn.primitive is name_p
    return about(eqn).affine and not is_named and len(moving) == 1 and all(size(atom) == 1 for atom in others)


def _is_weighted(analysis: Analysis, value: Var) -> bool:
    """Whether it is a value times the softmax of another over the positions: what is pooled are the two."""
    makers = {var: eqn for eqn in analysis.program.equations for var in eqn.outvars}
    product = makers[value]
    if product.primitive is not lax.mul_p or not all(analysis.axes.get(atom) for atom in _moving(product, analysis)):
        return False

    def is_softmax(atom: Var, steps: int) -> bool:
        eqn = makers.get(atom)
        if eqn is None or steps == 0:
            return False
        if eqn.primitive is lax.reduce_sum_p:
            where = analysis.axes.get(eqn.invars[0])  # type: ignore[arg-type]
            return any(axis in positions.axes for positions in where or () for axis in eqn.params["axes"])
        passes = is_elementwise(eqn) or about(eqn).moves is Moves.AXES
        return passes and any(is_softmax(operand, steps - 1) for operand in _moving(eqn, analysis))

    weights = [atom for atom in _moving(product, analysis) if is_softmax(atom, _LONGEST_SOFTMAX)]
    return len(_moving(product, analysis)) == 2 and len(weights) == 1


_LONGEST_SOFTMAX = 8
"""In equations, from its result back to its sum."""


def _moving(eqn: JaxprEqn, analysis: Analysis) -> list[Var]:
    return [atom for atom in eqn.invars if isinstance(atom, Var) and atom in analysis.axes]


def _multiplies(eqn: JaxprEqn, analysis: Analysis) -> bool:
    is_product = eqn.primitive in (lax.conv_general_dilated_p, lax.dot_general_p)
    return is_product and bool(_moving(eqn, analysis))


def _is_projection(analysis: Analysis, start: Var, product: int, end: Var) -> bool:
    """Whether one value is the other times a matrix, plus a bias, and nothing else."""
    inside = {start}
    for i, eqn in enumerate(analysis.program.equations):
        moving = {*_moving(eqn, analysis)}
        if not moving or moving.isdisjoint(inside) or i > analysis.order[end]:
            continue
        if not moving <= inside or not (i == product or about(eqn).affine or about(eqn).moves):
            return False
        inside.update(eqn.outvars)
    return end in inside

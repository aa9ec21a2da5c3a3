"""The default layer, one rule for every model.

It is the last value that has a whole grid of positions, through which everything flows, and of which a position reaches
what is explained:

    convolutions, pooling, dense     what goes into the pooling or the dense layer
    transformer with a class token   the input of the last block: behind its attention one token alone is read
    tokens that are averaged         what is averaged
    tokens that are attended to      what the keys and values of the pooling attention are made of
    dense prediction                 what goes into the last layer that looks at neighbours
"""

from __future__ import annotations

from collections.abc import Sequence

from jax import lax
from jax.extend.core import JaxprEqn, Var

from jaxcam.cuts.grid import is_grid, whole
from jaxcam.cuts.mixing import last_mixing
from jaxcam.cuts.model import Adapted
from jaxcam.cuts.reaching import reaches
from jaxcam.cuts.sites import Analysis, Site
from jaxcam.programs.primitives import Moves, about
from jaxcam.programs.program import is_elementwise

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
    return _before_pooling(analysis, fitting) if fitting else None


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

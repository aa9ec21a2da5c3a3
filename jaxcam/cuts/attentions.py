"""Attention in a network: the weights with which tokens become means of tokens, found in its program.

    scores [n, h, q, t] -> softmax over t -> weights A -> A times values [n, t, h, d], summed over t

Recognised is what computes this, however it is written: shares of a whole, e / sum(e), along axes that hold positions,
which multiply values along the same axes. Where axes come from (`cuts.axes`) tells queries from keys:

    queries and keys are the same tokens         self-attention
    the queries have no positions                pooling: a learnt query, or the class token alone, reads the tokens
    both lie on another axis as well             windows, rows or columns by themselves: refused
    the keys are other positions than the queries, or the tokens change between layers: refused

What is refused cannot be multiplied along the layers. Heads side by side in several products are one layer: those that
follow equally many others. A residual connection around each layer is what the methods assume, and is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, Var
from jax.extend.core import primitives as core
from jaxtyping import Array

from jaxcam.cuts.axes import Axes, axes_of
from jaxcam.cuts.cut import Network
from jaxcam.cuts.grid import cells_of, renumbered
from jaxcam.cuts.outputs import Reader
from jaxcam.cuts.positions import Positions
from jaxcam.cuts.products import placed
from jaxcam.cuts.reaching import UNKNOWN, reached
from jaxcam.programs.moves import Constants, moved
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Place, Program, Stage, called, dtype, inner_programs, shape, straight_line
from jaxcam.programs.rounds import is_scan, peeled, round_to_peel
from jaxcam.programs.scopes import scopes
from jaxcam.programs.specs import spec_of

__all__ = ["Attention", "attention_of", "written_out"]

_BITS = 30
"""How many tokens are followed at a time."""


class Weights(NamedTuple):
    """The weights of one product of attention, and how they hold heads, queries and keys."""

    product: JaxprEqn
    side: int
    """Which of the product's operands they are."""
    heads: tuple[int, ...]
    """Axes of the weights, and so are these:"""
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    tokens: tuple[np.ndarray, ...]
    """The position of each key along each axis of the grid; -1 for a class token."""
    sizes: tuple[int, ...]
    """Of that grid."""
    pools: bool
    """Whether the queries are no tokens of the grid."""

    @property
    def var(self) -> Var:
        """The weights in the program."""
        var = self.product.invars[self.side]
        assert isinstance(var, Var)
        return var

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Of heads, queries and keys."""
        lengths = shape(self.var)
        heads, queries, keys = (prod(lengths[a] for a in axes) for axes in (self.heads, self.queries, self.keys))
        return heads, queries, keys

    def by_heads(self, weights: Array) -> Array:
        """`[h, q, t]`."""
        return weights.transpose((*self.heads, *self.queries, *self.keys)).reshape(self.lengths)

    def back(self, by_heads: Array) -> Array:
        """As they are in the program."""
        order = (*self.heads, *self.queries, *self.keys)
        return by_heads.reshape([shape(self.var)[a] for a in order]).transpose(np.argsort(order))


@dataclass(frozen=True, eq=False)
class Attention:
    """A network's attention, layer by layer, and the program of one example in which it can be moved."""

    stage: Stage
    """What is added to the weights of each product -> logits `[1, c]`, and the weights."""
    program: Program
    layers: tuple[tuple[Weights, ...], ...]
    rows: tuple[int, ...]
    """Which queries of the last layer reach what is explained: the class token, or all tokens that are averaged."""
    sizes: tuple[int, ...]
    """Of the grid of patches."""
    places: tuple[int, ...]
    """Where among the tokens the patches are, in the order of the grid."""

    @property
    def pools(self) -> bool:
        """Whether the queries of the last layer are no tokens."""
        return self.layers[-1][0].pools

    @property
    def num_tokens(self) -> int:
        """Keys of every layer."""
        return self.layers[0][0].lengths[2]

    def zeros(self) -> list[Array]:
        """Nothing to add to the weights `[h, q, t]` of each layer."""
        found = []
        for layer in self.layers:
            (_, queries, keys), heads = layer[0].lengths, sum(each.lengths[0] for each in layer)
            found.append(jnp.zeros((heads, queries, keys), dtype(layer[0].var)))
        return found

    def __call__(self, operands: Sequence[Array], added: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Logits `[c]`, and the weights `[h, q, t]` of each layer, with something added to these.

        Args:
            operands: the arrays of the model and the inputs `[1, ...]`.
            added: `[h, q, t]` for each layer.
        """
        known = {**self.program.constants, **dict(zip(self.program.arguments, operands, strict=True))}
        values: list[Array] = []
        for layer, whole in zip(self.layers, added, strict=True):
            ends = np.cumsum([each.lengths[0] for each in layer])[:-1]
            parts = jnp.split(whole, ends)
            values += [each.back(part) for each, part in zip(layer, parts, strict=True)]
        (logits, *weights), _ = self.stage(known, *values)
        rest = iter(weights)
        return logits[0], [jnp.concatenate([each.by_heads(next(rest)) for each in layer]) for layer in self.layers]


def attention_of(network: Network) -> Attention:
    """The attention of a network.

    Raises:
        ValueError: it has none over the positions of the input, or one that cannot be multiplied along the layers:
            within windows, across to other tokens, or inside of a loop.
    """
    closed, name = network.closed, network.model.name
    program = straight_line(closed, opened=written_out)
    image = program.arguments[len(program.arguments) - len(network.others) - 1 + network.main]
    axes = axes_of(program, image, 1 if network.channel_axis == 0 else len(shape(image)) - 1)
    search = _Search(name, program, axes)
    layers = search.layers()
    sizes, places = search.grid(layers[0][0])
    rows = search.rows(layers[-1])
    # Written out once more, with remat, scans and custom derivatives kept where no attention is inside.
    found = [program.places[each.var] for layer in layers for each in layer]

    def opened(eqn: JaxprEqn, place: Place) -> ClosedJaxpr | None:
        is_inside = any(p[: len(place)] == place and len(p) > len(place) + 1 for p in found)
        return written_out(eqn, place) if is_inside else None

    whole = straight_line(closed, opened=opened)
    at = {place: var for var, place in whole.places.items()}
    return Attention(_with_added(whole, [at[place] for place in found]), whole, layers, rows, sizes, places)


def written_out(eqn: JaxprEqn, place: Place) -> ClosedJaxpr | None:
    """The program of a call of any kind, or of a scan with its last round written out: what `straight_line` opens."""
    if is_scan(eqn):
        index = round_to_peel(eqn, ())
        return None if index is None else peeled(eqn, index)
    return called(eqn, custom=True)


def _with_added(program: Program, weights: Sequence[Var]) -> Stage:
    """The program with an input z added to each of some values: w = f x becomes v = f x; w = v + z."""
    alone = {var: Var(var.aval) for var in weights}
    added = {var: Var(var.aval) for var in weights}
    equations: list[JaxprEqn] = []
    for eqn in program.equations:
        equations.append(eqn.replace(outvars=[alone.get(var, var) for var in eqn.outvars]))
        for var in eqn.outvars:
            if var in added:
                spec = spec_of(var.aval)
                (add,) = jax.make_jaxpr(lax.add)(spec, spec).jaxpr.eqns
                equations.append(add.replace(invars=[alone[var], added[var]], outvars=[var]))
    return Stage(tuple(added.values()), (*program.outputs, *weights), equations)


class _Search:
    """Looks for the products of attention in a program whose axes are known."""

    def __init__(self, name: str, program: Program, axes: Axes) -> None:
        self.name, self.program, self.axes = name, program, axes
        self.reader = Reader({var: eqn for eqn in program.equations for var in eqn.outvars})
        self.constants = Constants(program)

    def layers(self) -> tuple[tuple[Weights, ...], ...]:
        """The products by how many others come before them, all with the same tokens."""
        found = self.products()
        products = {id(each.product) for each in found}
        depths: dict[Any, int] = {}
        for eqn in self.program.equations:
            depth = max((depths.get(atom, 0) for atom in eqn.invars if isinstance(atom, Var)), default=0)
            depths.update(dict.fromkeys(eqn.outvars, depth + (id(eqn) in products)))
        layers: dict[int, list[Weights]] = {}
        for each in found:
            layers.setdefault(depths[each.var], []).append(each)
        ordered = [tuple(layers[depth]) for depth in sorted(layers)]
        first = ordered[0][0]
        for layer in ordered:
            for each in layer:
                is_last = layer is ordered[-1]
                if each.pools and not is_last:
                    self.refuse(each.product, "its queries are no tokens of the grid, and other attention follows")
                if each.pools != layer[0].pools or each.lengths[1] != layer[0].lengths[1]:
                    self.refuse(each.product, "beside it others attend with other queries")
                if each.sizes != first.sizes or not _same(each.tokens, first.tokens):
                    self.refuse(each.product, "its tokens are others than those of the first layer")
        return tuple(ordered)

    def products(self) -> list[Weights]:
        """All products of attention."""
        found: list[Weights] = []
        for eqn in self.program.equations:
            if not any(var in self.axes for var in eqn.outvars):
                continue
            self.check_open(eqn)
            shares = self.reader.shares(eqn)
            if shares is not None and (weights := self.weights(eqn.outvars[0], shares)) is not None:
                found.append(weights)
        if not found:
            raise ValueError(
                f"{self.name} must have attention over the positions of the input, softmax(Q K) V, but none was found "
                'in its program: use another method, such as method="grad_cam", for networks without attention'
            )
        return found

    def weights(self, start: Var, shares: Sequence[int]) -> Weights | None:
        """What the shares of a whole along some axes are weights of; None where it is no attention over positions."""
        where = self.axes[start]
        if where is not None and not any(axis in positions.axes for positions in where for axis in shares):
            return None  # of classes, channels, experts
        lengths = shape(start)
        numbers = np.arange(prod(lengths[axis] for axis in shares))
        marks = {start: numbers.reshape([lengths[axis] if axis in shares else 1 for axis in range(len(lengths))])}
        products: list[tuple[JaxprEqn, int]] = []
        astray: JaxprEqn | None = None
        for eqn in self.program.equations:
            sides = [i for i, atom in enumerate(eqn.invars) if isinstance(atom, Var) and atom in marks]
            if not sides:
                continue
            moving = [atom for atom in eqn.invars if isinstance(atom, Var) and atom in self.axes]
            if eqn.primitive is lax.dot_general_p and len(moving) == 2 and len(sides) == 1:
                products.append((eqn, sides[0]))
            elif len(moving) == 1 and (passed := self.passed(eqn, sides[0], marks[moving[0]])) is not None:
                marks.update(zip(eqn.outvars, passed, strict=True))
            else:
                astray = eqn
        if not products and where is None:
            return None
        if not products or astray is not None or len({id(eqn.invars[side]) for eqn, side in products}) > 1:
            self.refuse(
                astray or products[-1][0], "its softmax over positions does more than weigh values in a product"
            )
        product, side = products[0]
        if len(products) > 1:
            self.refuse(product, "its weights multiply several values")
        mark = marks[product.invars[side]]  # type: ignore[index]
        return self.described(product, side, {axis for axis, n in enumerate(mark.shape) if n > 1})

    def passed(self, eqn: JaxprEqn, side: int, mark: np.ndarray) -> Sequence[np.ndarray] | None:
        """Where the marks are after an equation that weights go through; None where it does more with them."""
        if about(eqn).moves is not None:
            operands = [mark if i == side else None for i in range(len(eqn.invars))]
            return moved(eqn, operands, self.constants, fill=-1)
        scales = eqn.primitive in _SCALES and len(shape(eqn.outvars[0])) == mark.ndim
        return [mark] if scales and not (eqn.primitive is lax.div_p and side == 1) else None

    def described(self, eqn: JaxprEqn, side: int, shared: set[int]) -> Weights:
        """The axes of the weights on one side of a product, which are shares along some of them."""
        contracted, batch = (pair[side] for pair in eqn.params["dimension_numbers"])
        beside = eqn.params["dimension_numbers"][0][1 - side]
        weights, values = eqn.invars[side], eqn.invars[1 - side]
        assert isinstance(weights, Var)
        assert isinstance(values, Var)
        lengths = shape(weights)
        free = [axis for axis in range(len(lengths)) if axis not in (*contracted, *batch)]
        if shared != {axis for axis in contracted if lengths[axis] > 1}:
            self.refuse(eqn, "its weights are not normalised over the keys")
        where, of_values = self.axes[weights], self.axes[values]
        if where is None or of_values is None:
            self.refuse(eqn, "the program does not show which positions its tokens are")
        known = [positions for positions in where if positions.axes]
        keys = [positions for positions in known if {*positions.axes} <= {*contracted}]
        queries = [positions for positions in known if {*positions.axes} <= {*free}]
        if len(keys) + len(queries) < len(known) or len(keys) != 1 or len(queries) > 1:
            self.refuse(eqn, "it is within windows or parts of the grid, and does not see all tokens at once")
        tokens, sizes = _lines(keys[0], contracted, lengths), keys[0].sizes
        lines = [_lines(positions, beside, shape(values)) for positions in of_values if {*positions.axes} <= {*beside}]
        if not any(_same(line, tokens) for line in lines):
            self.refuse(eqn, "its values are of other positions than its keys")
        rows = tuple(free) if not queries else tuple(sorted(queries[0].axes))
        if queries and not (queries[0].sizes == sizes and _same(_lines(queries[0], rows, lengths), tokens)):
            self.refuse(eqn, "its queries are other positions than its keys")
        heads = tuple(axis for axis in range(len(lengths)) if axis not in (*rows, *contracted))
        return Weights(eqn, side, heads, rows, tuple(contracted), tokens, sizes, not queries)

    def grid(self, weights: Weights) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sizes of the grid that the tokens make, and their places in its order."""
        length = weights.lengths[2]
        positions = renumbered(Positions(weights.sizes, weights.tokens, (None,) * len(weights.sizes)))
        cells = None if positions is None else cells_of(positions, (length,))
        if (
            positions is None
            or cells is None
            or not np.array_equal(np.sort(cells[cells >= 0]), np.arange(prod(positions.sizes)))
        ):
            self.refuse(weights.product, "its tokens are not each position of the grid once")
        places = np.argsort(cells, kind="stable")[np.count_nonzero(cells < 0) :]
        return positions.sizes, tuple(places.tolist())

    def rows(self, layer: Sequence[Weights]) -> tuple[int, ...]:
        """The queries of a layer that reach what is explained."""
        first = layer[0]
        num = first.lengths[1]
        found: list[int] = []
        for start in range(0, num, _BITS):
            bits = [1 << (i - start) if start <= i < start + _BITS else 0 for i in range(num)]
            marks = {}
            for each in layer:
                lengths = [n if axis in each.queries else 1 for axis, n in enumerate(shape(each.var))]
                marks[each.product.outvars[0]] = placed(
                    each.product, each.side, np.asarray(bits, np.int32).reshape(lengths)
                )
            there = reached(self.program, marks)
            if there & UNKNOWN:
                self.refuse(first.product, "the program does not show which of its tokens are read at the end")
            found += [i for i in range(start, min(start + _BITS, num)) if there >> (i - start) & 1]
        return tuple(found)

    def check_open(self, eqn: JaxprEqn) -> None:
        """Refuses attention inside of what cannot be written out."""
        if about(eqn).runs not in (Runs.LOOP, Runs.BRANCH, Runs.PARTS):
            return
        if {lax.exp_p, lax.reduce_sum_p, lax.dot_general_p} <= {*_primitives(eqn)}:
            self.refuse(eqn, f"there may be attention inside of a {eqn.primitive.name}, where no value can be read")

    def refuse(self, eqn: JaxprEqn, why: str) -> NoReturn:
        """The error, with what is known of the place."""
        place = "/".join(scopes(eqn))
        raise ValueError(
            f"the attention of {self.name} must be of all tokens to all tokens in every layer, but at "
            f"{place + ', ' if place else ''}{eqn.primitive.name} -> {list(shape(eqn.outvars[0]))} {why}: use a method "
            'that needs no attention, such as method="grad_cam"'
        )


_SCALES = {
    lax.mul_p, lax.div_p, lax.select_n_p, lax.convert_element_type_p, lax.copy_p, lax.reduce_precision_p,
    lax.optimization_barrier_p, lax.sharding_constraint_p, core.name_p, core.stop_gradient_p,
}  # fmt: skip
"""What weights go through on their way to the values: dropout, masks, other formats."""


def _primitives(eqn: JaxprEqn) -> Iterator[Primitive]:
    """All that is in an equation."""
    yield eqn.primitive
    for inner in inner_programs(eqn):
        for each in inner.jaxpr.eqns:
            yield from _primitives(each)


def _lines(positions: Positions, axes: Sequence[int], lengths: Sequence[int]) -> tuple[np.ndarray, ...]:
    """The coordinates of what lies along some axes, in their order."""
    others = [axis for axis in range(len(lengths)) if axis not in axes]
    to = [lengths[axis] if axis in axes else 1 for axis in range(len(lengths))]
    return tuple(np.broadcast_to(c, to).transpose([*axes, *others]).reshape(-1) for c in positions.coordinates)


def _same(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))

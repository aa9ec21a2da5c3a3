"""Where the axes of each value come from: rows, columns, depth or time of the input; read off the program.

Nobody has to say "channels first", or how 197 tokens make a grid:

    images [1, 3, 224, 224]         rows on axis 2, columns on axis 3
    convolution, 16 x 16, step 16   [1, 192, 14, 14]: a grid of 14 x 14
    reshape, transpose              [1, 196, 192]: both on axis 1
    class token before them         [1, 197, 192]: the same, and 1 before
    attention                       the queries' positions
    t[:, 0]                         no positions

For each value and each axis of the input there is one small array, the coordinates: the row that an element belongs
to, or -1 for what belongs to none. Primitives that move elements move the coordinates (`programs.moves`); a convolution
makes a new grid; what is summed over whole rows knows no rows any more. A product of queries and keys has positions
twice and is no grid; what is multiplied with it keeps the queries'. Where it is not known the answer is None, never a
guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var

from jaxcam.cuts.fields import Field
from jaxcam.cuts.positions import Positions, Where, repeated
from jaxcam.cuts.products import convolved, multiplied, reduced, windowed
from jaxcam.programs.moves import Constants, moved
from jaxcam.programs.primitives import Runs, about
from jaxcam.programs.program import Program, closed, is_elementwise, shape, straight_line

__all__ = ["Axes", "axes_of", "axes_of_steps"]

Axes = Mapping[Var, Where]
"""Of each value that depends on the image."""


def axes_of(program: Program, image: Var, channel_axis: int) -> Axes:
    """Where the axes of each value come from that depends on the image `[n, ...]`."""
    rank = len(shape(image))
    spatial = [axis for axis in range(1, rank) if axis != channel_axis]
    lengths = [[shape(image)[axis] if i == axis else 1 for i in range(rank)] for axis in spatial]
    sizes = tuple(shape(image)[axis] for axis in spatial)
    places = tuple(np.arange(n).reshape(to) for n, to in zip(sizes, lengths, strict=True))
    start = Positions(sizes, places, (Field(1, 0, 0),) * len(sizes))
    return _followed(program, {image: (start,)}, {*program.arguments} - {image})


def _followed(program: Program, start: Mapping[Var, Where], learned: set[Var]) -> dict[Var, Where]:
    """The positions of all values, given those of some arguments; `learned` are the arguments that are weights."""
    found, learned, constants = {**start}, {*learned, *program.constants}, Constants(program)
    for eqn in program.equations:
        operands = [None if isinstance(atom, Literal) else atom for atom in eqn.invars]
        if any(atom in found for atom in operands):
            wheres = [found.get(atom, _STILL) if atom is not None else _STILL for atom in operands]
            results = _results(eqn, wheres, learned, constants)
            known = zip(eqn.outvars, results, strict=True)
            found.update((var, _tidy(where)) for var, where in known if not isinstance(where, str))
        elif not learned.isdisjoint(atom for atom in operands if atom is not None):
            learned.update(eqn.outvars)
    return found


_STILL = "does not depend on the image"
_Operand = Where | str


def _tidy(where: Where) -> Where:
    """Without grids of one position, and without what another knows more closely; of many the first few."""
    if where is None:
        return None
    kept: list[Positions] = []
    for new in where:
        if max(new.sizes) == 1 or any((c < 0).all() for c in new.coordinates):
            continue
        for old in [old for old in kept if _one_place_apart(old, new)]:
            kept.remove(old)
            new = max(old, new, key=lambda one: sum(int(c.max()) for c in one.coordinates if c.size == 1))
        kept = [old.beside(new) if old == new else old for old in kept]
        if any(old.refines(new) for old in kept):
            continue
        kept = [old for old in kept if not new.refines(old)] + [new]
        if len(kept) == _MANY:
            break
    return tuple(kept)


def _one_place_apart(a: Positions, b: Positions) -> bool:
    """Whether each has a single place along one axis, another one, and all else is the same: a frame and one before.

    What a loop over time hands on, h_t = f(x_t, h_(t-1)), belongs to the frame that it has come to, the later one.
    """
    if a.sizes != b.sizes or a.coordinates[0].ndim != b.coordinates[0].ndim:
        return False
    other = [(x, y) for x, y in zip(a.coordinates, b.coordinates, strict=True) if not np.array_equal(x, y)]
    return len(other) == 1 and all(c.size == 1 for c in other[0]) and any(c.size > 1 for c in a.coordinates)


_MANY = 4
"""What has positions so many times, as a sum of shifted pictures, has no grid whatever comes to it: more need not be
known. Queries and keys are two."""


def _results(eqn: JaxprEqn, wheres: Sequence[_Operand], learned: set[Var], constants: Constants) -> Sequence[_Operand]:
    moving = [i for i, where in enumerate(wheres) if where is not _STILL]
    count = len(eqn.outvars)
    runs = about(eqn).runs
    if runs in (Runs.LOOP, Runs.BRANCH):
        return _run(eqn, wheres)
    if eqn.primitive is lax.concatenate_p:
        return [_concatenated(eqn, wheres, constants)]
    if about(eqn).moves is None and (is_elementwise(eqn) or about(eqn).elementwise):
        return [_elementwise(eqn, [wheres[i] for i in moving], moving)] * count
    if any(wheres[i] is None for i in moving):
        return [None] * count
    if eqn.primitive is lax.dot_general_p:
        return [multiplied(eqn, wheres, learned, constants)]
    first = wheres[0]
    if eqn.primitive.name == "stack" and isinstance(first, tuple) and all(_agree(first, where) for where in wheres):
        return [tuple(replace(p, coordinates=_expanded(p.coordinates, eqn.params["axis"])) for p in first)]
    if moving != [0]:
        return [None] * count
    (where,) = [w for w in wheres[:1] if isinstance(w, tuple)]
    if not where:
        return [()] * count
    if eqn.primitive is lax.conv_general_dilated_p:
        return [convolved(eqn, where)]
    if about(eqn).windowed or eqn.primitive is lax.reduce_window_p:
        return [windowed(eqn, where)]
    if about(eqn).reduces or eqn.primitive in (lax.argmax_p, lax.argmin_p, lax.reduce_and_p, lax.reduce_or_p):
        axes = eqn.params.get("axes")
        return [None if axes is None else reduced(where, [*map(int, axes)], keep=False)] * count
    if about(eqn).keeps_axes and about(eqn).moves is None:
        return [where] * count
    results: list[list[Positions]] = [[] for _ in eqn.outvars]
    for positions in where:
        arrays = [moved(eqn, [c, *[None] * (len(wheres) - 1)], constants, fill=-1) for c in positions.coordinates]
        known = [each for each in arrays if each is not None]
        if len(known) < len(arrays):
            return [None] * count
        for result, coordinates in zip(results, zip(*known, strict=True), strict=True):
            result.append(repeated(replace(positions, coordinates=coordinates)))
    return [tuple(result) for result in results]


def _elementwise(eqn: JaxprEqn, wheres: Sequence[_Operand], places: Sequence[int]) -> Where:
    """Of several operands: what each knows. A sum x + f(x) keeps x's positions where those of f(x) are unknown.

    So it does where f(x) was put together of parts of them, as even and odd tokens that an associative scan has parted.
    What one operand has of a single position, as a part of the keys that all queries look at, is the same for all
    positions of the others, as what was pooled is.
    """
    rank = len(shape(eqn.outvars[0]))
    known = [where for where in wheres if isinstance(where, tuple) and where]
    for place, where in zip(places, wheres, strict=True):
        if isinstance(where, tuple) and where and len(shape(eqn.invars[place])) != rank:
            return None
    if any(where is None for where in wheres):  # a part of the grid does not say what stands in all the other places
        known = [where for where in known if all(p.covers or p.fills for p in where)]
    if not known:
        return () if all(where == () for where in wheres) else None
    lying = [where for where in known if any(positions.axes for positions in where)]
    if len(lying) == 2 and len(skip := min(lying, key=len)) == 1 and skip[0].covers:
        parts = max(lying, key=len)
        if len(parts) > 1 and not any(part.covers or not {*part.axes} <= {*skip[0].axes} for part in parts):
            return skip
    return tuple(
        positions
        for where in known
        for positions in where
        if positions.axes or all(positions in other for other in lying)
    )


def _concatenated(eqn: JaxprEqn, wheres: Sequence[_Operand], constants: Constants) -> Where:
    """Side by side: positions of one grid, or with others around them (a class token), or more channels of the same."""
    axis = eqn.params["dimension"]
    if any(where is None or len(where) > 1 for where in wheres if where is not _STILL):
        return None
    parts = [where[0] if isinstance(where, tuple) and where else None for where in wheres]
    found: list[Positions] = []
    for sizes in dict.fromkeys(part.sizes for part in parts if part is not None):
        ours = [part if part is not None and part.sizes == sizes else None for part in parts]
        (first, *_) = (part for part in ours if part is not None)
        # A single position, as one query of many: what is put beside it may be another one, or a class token.
        along = any(part is not None and (axis in part.axes or not part.axes) for part in ours)
        coordinates: list[np.ndarray] = []
        for i, usual in enumerate(first.coordinates):
            arrays = [None if part is None else part.coordinates[i] for part in ours]
            if not along:  # along the channels what has no positions goes with those beside it
                arrays = [usual if array is None else array for array in arrays]
            joined = moved(eqn, arrays, constants, fill=-1)
            assert joined is not None
            coordinates += joined
        joined = [replace(part, sizes=sizes, coordinates=tuple(coordinates)) for part in ours if part is not None]
        found.append(reduce(Positions.beside, joined))
    return tuple(found)


def _expanded(coordinates: Iterable[np.ndarray], axis: int) -> tuple[np.ndarray, ...]:
    return tuple(np.expand_dims(c, axis) for c in coordinates)


def _run(eqn: JaxprEqn, wheres: Sequence[_Operand]) -> Sequence[_Operand]:
    """Of a loop or a branch: what stays the same from round to round, or whichever branch is taken."""
    p, name = eqn.params, eqn.primitive
    if name is lax.cond_p:
        if p.get("branches_platforms") is not None:  # one function in several ways: the first that shows it will do
            ways = (_inside(branch, wheres[1:]) for branch in reversed(p["branches"]))
            known = (way for way in ways if all(isinstance(w, str) or (w is not None and len(w) < 2) for w in way))
            return next(known, [None] * len(eqn.outvars))
        found = [_inside(branch, wheres[1:]) for branch in p["branches"]]
        return [
            reduce(_both, one) if all(_agree(one[0], other) for other in one) else None
            for one in zip(*found, strict=True)
        ]
    if name is lax.while_p:
        consts, state = (
            wheres[p["cond_nconsts"] :][: p["body_nconsts"]],
            wheres[p["cond_nconsts"] + p["body_nconsts"] :],
        )
        return _settled(p["body_jaxpr"], consts, state, [])[0]
    num_consts, num_carry = p["num_consts"], p["num_carry"]
    consts, state, each = wheres[:num_consts], wheres[num_consts:][:num_carry], wheres[num_consts + num_carry :]
    if (time := _time(eqn, each)) is not None:
        state, made = _settled(p["jaxpr"], consts, state, [*map(time.one, each)])
        return [*state, *(time.all(var, where, 0) for var, where in zip(eqn.outvars[num_carry:], made, strict=True))]
    one = [where if not isinstance(where, tuple) else _one_of(where) for where in each]
    state, stacked = _settled(p["jaxpr"], consts, state, one)
    return [*state, *map(_stacked, stacked)]


@dataclass(frozen=True)
class _Time:
    """The axis of the image that a scan's rounds are positions of."""

    axis: int
    sizes: tuple[int, ...]
    """Of the whole grid."""
    line: np.ndarray
    """The position of each round."""

    def one(self, where: _Operand) -> _Operand:
        """Of what a scan runs over, in one round: without time."""
        if not isinstance(where, tuple):
            return where
        return tuple(
            replace(
                p,
                sizes=tuple(1 if i == self.axis and 0 in p.axes else n for i, n in enumerate(p.sizes)),
                coordinates=tuple(
                    np.zeros_like(c[0]) if i == self.axis and 0 in p.axes else c[0] for i, c in enumerate(p.coordinates)
                ),
            )
            for p in where
        )

    def all(self, var: Var, where: _Operand, axis: int) -> _Operand:
        """Of a value in the rounds, all of them together: with the rounds on this axis of `var`."""
        if not isinstance(where, tuple):
            return where
        rank = where[0].coordinates[0].ndim if where else len(shape(var)) - 1
        nowhere = Positions(
            (1,) * len(self.sizes), (np.zeros((1,) * rank, int),) * len(self.sizes), (None,) * len(self.sizes)
        )
        found: list[Positions] = []
        for p in where or (nowhere,):
            if p.sizes[self.axis] != 1:
                return None
            coordinates = [np.expand_dims(c, axis) for c in p.coordinates]
            coordinates[self.axis] = self.line.reshape([-1 if i == axis else 1 for i in range(rank + 1)])
            sizes = [n if i == self.axis else m for i, (n, m) in enumerate(zip(self.sizes, p.sizes, strict=True))]
            found.append(replace(p, sizes=tuple(sizes), coordinates=tuple(coordinates)))
        return tuple(found)


def _time(scan: JaxprEqn, each: Sequence[_Operand]) -> _Time | None:
    """Which axis of the image the rounds of a scan are positions of; None if of none, or of several."""
    over = [p for where in each if isinstance(where, tuple) for p in where if 0 in p.axes]
    times = [_Time(i, p.sizes, c.reshape(-1)) for p in over for i, c in enumerate(p.coordinates) if c.shape[0] > 1]
    same = all(
        t.axis == times[0].axis and t.sizes == times[0].sizes and np.array_equal(t.line, times[0].line) for t in times
    )
    return times[0] if times and same and times[0].line.size == scan.params["length"] else None


def axes_of_steps(scan: JaxprEqn, body: Program, axes: Axes) -> Axes:
    """Of the values in a scan's rounds, where these are positions of the image: those of all rounds together.

    A scan over the frames of a clip makes in round t what belongs to time t. `[n, t, ...]` are the values with the
    rounds on the second axis, as inputs have them. None of them is given where the rounds are no positions: of a scan
    over the blocks of a network, or over more than one axis of the image.

    Args:
        scan: the equation.
        body: what it runs in each round.
        axes: of its operands.
    """
    num_consts, num_carry = scan.params["num_consts"], scan.params["num_carry"]
    wheres = [_STILL if isinstance(atom, Literal) else axes.get(atom, _STILL) for atom in scan.invars]
    if (time := _time(scan, wheres[num_consts + num_carry :])) is None:
        return {}
    consts, each = wheres[:num_consts], [*map(time.one, wheres[num_consts + num_carry :])]
    state, _ = _settled(scan.params["jaxpr"], consts, wheres[num_consts:][:num_carry], each)
    start = {var: w for var, w in zip(body.arguments, [*consts, *state, *each], strict=True) if w is not _STILL}
    known = _followed(body, start, {*body.arguments} - {*start})  # type: ignore[arg-type]
    whole = {var: Var(var.aval.update(shape=(1, *shape(var)))) for var in known if shape(var)}  # type: ignore[attr-defined]
    return {var: time.all(whole[var], known[var], 1) for var in whole}  # type: ignore[misc]


def _settled(
    body: ClosedJaxpr, consts: Sequence[_Operand], state: Sequence[_Operand], each: Sequence[_Operand]
) -> tuple[list[_Operand], list[_Operand]]:
    """What goes round in a loop once it is the same before and after a round, and what each round hands out."""
    state, num = [*state], len(state)
    for _ in range(_MOST_ROUNDS):
        after = _inside(body, [*consts, *state, *each])
        new = [_both(before, later) for before, later in zip(state, after[:num], strict=True)]
        if all(map(_agree, new, state)):
            return new, after[num:]
        state = new
    return [None] * num, [None] * (len(body.out_avals) - num)


_MOST_ROUNDS = 4


def _both(before: _Operand, after: _Operand) -> _Operand:
    if before is _STILL:
        return after
    if after is _STILL:
        return before
    if not _agree(before, after):
        return None
    if not (isinstance(before, tuple) and isinstance(after, tuple)):
        return before
    return tuple(one.again(other) for one, other in zip(before, after, strict=True))


def _agree(a: _Operand, b: _Operand) -> bool:
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        return a is b
    return len(a) == len(b) and all(x == y for x, y in zip(a, b, strict=True))


def _inside(body: ClosedJaxpr, wheres: Sequence[_Operand]) -> list[_Operand]:
    program = straight_line(closed(body))
    moving = [where is not _STILL for where in wheres]
    start = {var: w for var, w in zip(program.arguments, wheres, strict=True) if w is not _STILL}
    learned = {var for var, moves in zip(program.arguments, moving, strict=True) if not moves}
    found = _followed(program, start, learned)  # type: ignore[arg-type]
    return [_STILL if isinstance(out, Literal) or out not in found else found[out] for out in program.outputs]


def _one_of(where: tuple[Positions, ...]) -> Where:
    """Of what a scan runs over, in one round: not known where each round has other positions."""
    if any(0 in positions.axes for positions in where):
        return None
    return tuple(replace(p, coordinates=tuple(c[0] for c in p.coordinates)) for p in where)


def _stacked(where: _Operand) -> _Operand:
    if not isinstance(where, tuple):
        return where
    return tuple(replace(p, coordinates=tuple(c[None] for c in p.coordinates)) for p in where)

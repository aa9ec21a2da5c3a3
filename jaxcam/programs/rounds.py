"""One round of a scan written out: the rounds before it in a scan, the round itself, and those after it in a scan.

    scan 0 ... 11   ->   scan 0 ... 10,  round 11,  nothing

What is in the round is then a value like any other, though blocks are stacked (`nnx.scan`, `linen.scan`, `fori_loop`
with a known number of rounds). Nothing else changes: the same equations run on the same values in the same order.

What counts the rounds, as `fori_loop` does to take the weights of round i, is the number that it is by then: it depends
on nothing that the rounds before it made, so that everything can still flow through a value in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from jaxcam.programs.program import closed, holds, straight_line
from jaxcam.programs.specs import spec_of

__all__ = ["is_scan", "peeled", "round_to_peel"]

_MOST = 64
"""Of longer scans only the round that is asked for is written out, and of shorter ones every round."""


def is_scan(eqn: JaxprEqn) -> bool:
    """Whether it is a loop with a known number of rounds, at least one."""
    return eqn.primitive is lax.scan_p and eqn.params["length"] > 0


def round_to_peel(eqn: JaxprEqn, wanted: Sequence[int]) -> int | None:
    """Which round of a scan to write out: the last one, unless it is long and its place in `wanted` says another.

    The rounds before it are a scan, of which the last is written out in its turn.
    """
    names = [part.name for part in eqn.source_info.name_stack.stack if hasattr(part, "name")]
    around = [name for name in names if name.startswith("[")]
    last = eqn.params["length"] - 1
    if names and names[-1].startswith("[") and ":" in names[-1]:  # the rest of a scan that was opened
        return last if names[-1].startswith("[:") else None
    depth = sum(":" not in name for name in around)
    return min(wanted[depth], last) if last >= _MOST and depth < len(wanted) else last


def peeled(eqn: JaxprEqn, index: int) -> ClosedJaxpr:
    """The program of a scan with a round (from 0, in the order of time) written out, in a scope `[index]`.

    The rounds before it are in a scope `[:index]`, or `[0:index]` where they stay a scan, and those after it in
    `[index + 1:]`.
    """
    p: dict[str, Any] = eqn.params
    num_consts, num_carry, length = p["num_consts"], p["num_carry"], p["length"]
    # With `reverse` round i reads and writes at the place length - 1 - i, and what comes before lies behind.
    place = length - 1 - index if p["reverse"] else index
    below, above = slice(0, place), slice(place + 1, length)
    first, last = (above, below) if p["reverse"] else (below, above)
    steps = _steps(eqn)

    def run(*operands: Any) -> list[Any]:
        consts, carry = operands[:num_consts], operands[num_consts : num_consts + num_carry]
        each = operands[num_consts + num_carry :]

        def counted(carry: Sequence[Any], rounds: int) -> list[Any]:
            """What goes into the round after so many, with the numbers that count in their places."""
            start = operands[num_consts:]
            added = {i: np.asarray(rounds * step).astype(start[i].dtype) for i, step in steps.items() if step}
            here = {i: lax.add(start[i], added[i]) if i in added else start[i] for i in steps}
            return [here.get(i, value) for i, value in enumerate(carry)]

        def part(carry: Any, rounds: slice) -> tuple[Any, list[Any]]:
            count = rounds.stop - rounds.start
            if count == 0:
                return carry, []
            cut = [lax.slice_in_dim(x, rounds.start, rounds.stop) for x in each]
            params = {**p, "length": count, "unroll": min(p["unroll"], count)}
            results = eqn.primitive.bind(*consts, *carry, *cut, **params)
            return results[:num_carry], results[num_carry:]

        with jax.named_scope(f"[:{index}]" if length <= _MOST else f"[0:{index}]"):
            carry, before = part(carry, first)
            carry = counted(carry, index)
        with jax.named_scope(f"[{index}]"):
            now = [lax.index_in_dim(x, place, keepdims=False) for x in each]
            results = jaxpr_as_fun(p["jaxpr"])(*consts, *carry, *now)
        carry, here = counted(results[:num_carry], index + 1), [y[None] for y in results[num_carry:]]
        with jax.named_scope(f"[{index + 1}:]"):
            carry, after = part(carry, last)
        ordered = [after, here, before] if p["reverse"] else [before, here, after]
        stacked = [jnp.concatenate(parts) for parts in zip(*(part for part in ordered if part), strict=True)]
        return [*counted(carry, length), *stacked]

    return jax.make_jaxpr(run)(*(spec_of(atom.aval) for atom in eqn.invars))


def _steps(scan: JaxprEqn) -> dict[int, int]:
    """Which of what goes round counts, i -> i + 1, or stays as it is (0), and how much is added to it in a round."""
    body = straight_line(closed(scan.params["jaxpr"]))
    made = {eqn.outvars[0]: eqn for eqn in body.equations if eqn.primitive in (lax.add_p, lax.sub_p)}
    goes_in = body.arguments[scan.params["num_consts"] :][: scan.params["num_carry"]]
    found: dict[int, int] = {}
    for i, (before, after) in enumerate(zip(goes_in, body.outputs, strict=False)):
        if after is before:
            found[i] = 0
        elif isinstance(after, Var) and after in made and holds(before, jnp.integer):
            eqn = made[after]
            sign, first = (1, 2) if eqn.primitive is lax.add_p else (-1, 1)
            numbers = [int(atom.val) for atom in eqn.invars if isinstance(atom, Literal)]
            if len(numbers) == 1 and any(atom is before for atom in eqn.invars[:first]):
                found[i] = sign * numbers[0]
    return found

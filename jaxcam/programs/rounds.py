"""One round of a scan written out: the rounds before it in a scan, the round itself, and those after it in a scan.

    scan 0 ... 11   ->   scan 0 ... 10,  round 11,  nothing

What is in the round is then a value like any other, though blocks are stacked (`nnx.scan`, `linen.scan`, `fori_loop`
with a known number of rounds). Nothing else changes: the same equations run on the same values in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, jaxpr_as_fun

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

    def run(*operands: Any) -> list[Any]:
        consts, carry = operands[:num_consts], operands[num_consts : num_consts + num_carry]
        each = operands[num_consts + num_carry :]

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
        with jax.named_scope(f"[{index}]"):
            now = [lax.index_in_dim(x, place, keepdims=False) for x in each]
            results = jaxpr_as_fun(p["jaxpr"])(*consts, *carry, *now)
        carry, here = results[:num_carry], [y[None] for y in results[num_carry:]]
        with jax.named_scope(f"[{index + 1}:]"):
            carry, after = part(carry, last)
        ordered = [after, here, before] if p["reverse"] else [before, here, after]
        stacked = [jnp.concatenate(parts) for parts in zip(*(part for part in ordered if part), strict=True)]
        return [*carry, *stacked]

    return jax.make_jaxpr(run)(*(spec_of(atom.aval) for atom in eqn.invars))

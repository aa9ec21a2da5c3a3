"""Exact elementwise derivatives, of any order, of a scalar function of an array.

For f: array -> scalar and every element e of a, `elementwise_derivatives` gives ∂ⁿf/∂a_eⁿ: the diagonals of
the derivative tensors, never the sums of their rows. Grad-CAM++ is defined by the first three.

Each is a derivative of t ↦ f(a + t·e), which takes one pass through f for every element. Three facts, read off
the program of f (see `stages` and `by_positions`), make that cheap and leave it exact:

- f = outer ∘ inner, with inner piecewise linear and of width m (1 for exp(logit), 1,000 for the softmax of
  1,000 logits). m reverse passes give the Jacobian of inner, and ∂ⁿf/∂a_eⁿ = Dⁿouter[s, ..., s] along its
  column s = ∂inner/∂a_e, because inner has no derivatives above the first.
- f = rest ∘ fold, where every element reaches at most one element z_k of what the fold makes, as in pooling:
  ∂ⁿf/∂a_eⁿ = cⁿ · ∂ⁿrest/∂z_kⁿ with c = ∂z_k/∂a_e. So a head that begins with global average pooling has as
  many directions as channels, not as elements.
- f = F(Σ_p φ(a_p)), where positions meet in sums only, as before a class token: φ takes a pass for every channel,
  at all positions at once, and F, which has no positions, one for every element.

All of it composes with jit, vmap and grad, also with respect to what f closes over.

At a kink JAX's conventions hold, and they are the same forwards and backwards: `jax.nn.relu` has slope 0 at
0, max(x, y) has one half for each where x = y (so for `jnp.maximum(x, 0)` too), a maximum over axes 1/k for
each of k equals, and max-pooling follows the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jaxtyping import Array, Float

from jaxcam.checks import check_integer
from jaxcam.derivatives.by_positions import split
from jaxcam.derivatives.directions import (
    Arrays,
    Slope,
    along_basis,
    along_columns,
    backward,
    chunk_length,
    forward,
    jacobian_columns,
)
from jaxcam.derivatives.stages import Factors, factors
from jaxcam.precision import wide_type, widened, widened_function
from jaxcam.programs.program import Program, Stage, needed, runs, straight_line
from jaxcam.programs.specs import varied

__all__ = ["elementwise_derivatives"]


def elementwise_derivatives(
    f: Callable[[Array], Array],
    a: Float[Array, "*shape"],
    *,
    order: int = 3,
    method: Literal["auto", "factored", "jvp", "grad"] = "auto",
    chunk_size: int | None = None,
) -> tuple[Float[Array, "*shape"], ...]:
    """The exact derivatives ∂ⁿf/∂a_eⁿ, n = 1 … `order`, for every element e of `a`.

    Under `jax.jit` this compiles to one program; call it there, because otherwise every call compiles anew.

    Args:
        f: any function that takes an array like `a` to a scalar. It may close over arrays and tracers. Select
            the class before applying the nonlinearity: exp(logits[c]) needs one value of the head, exp(logits)[c] all.
        a: where the derivatives are taken, of any number of axes and any floating-point dtype; that dtype is
            worked in, and float32 for what follows f where it is narrower.
        order: how many derivatives.
        method: "auto" goes through the stages above where they are proven and cheaper: where the width m is
            below the number of elements that are left after the fold, and by positions otherwise. Axes but the last
            are taken for positions. "factored" does wherever they are
            proven. "jvp" and "grad" nest `jax.jvp` and `jax.grad` along every element and need no proof.
        chunk_size: how many directions (elements, or rows or columns of the Jacobian) go through f at a time.
            By default as many as keep all values that f computes on the way, `order` + 1 numbers for each,
            within 256 MiB. Under vmap that holds for each of the batch.

    Returns:
        `order` arrays of the shape and dtype of `a`. They take the memory of one chunk and, where there is an
        inner stage, that of its Jacobian, m numbers for each element after the fold.

    Raises:
        TypeError: `f` is not callable or does not return one floating-point array, `a` is not such an array,
            or `order` or `chunk_size` is not an integer.
        ValueError: `a` is empty, `f` returns more than a scalar, `order` or `chunk_size` is below 1, or
            `method` is unknown or not possible for this f.
    """
    _check(f, a, order, method, chunk_size)
    a = jnp.asarray(a)
    program = _program(f, a)
    if wide_type(a.dtype) != a.dtype:
        # f computes in its own type, and what is made of its derivatives is wide: the slope 1/196 of a pooling has no
        # cube in float16.
        wide = elementwise_derivatives(
            widened_function(f, a), *widened(a), order=order, method=method, chunk_size=chunk_size
        )
        return tuple(derivative.astype(a.dtype) for derivative in wide)
    stages = factors(program)
    if stages is None:
        return (jnp.zeros_like(a),) * order
    _check_stages(stages, method)
    backwards = method == "grad" or _only(stages, "backwards")
    way = _Way(order, backward if backwards else forward, chunk_size)
    whole = Stage(program.arguments, program.outputs, program.equations)
    if method in ("jvp", "grad"):
        return _by_elements(whole, program.constants, a, way)
    if method == "auto" and order == 1 and not _only(stages, "forwards"):
        return (jax.grad(partial(whole.scalar, program.constants))(a),)
    return _by_stages(stages, program.constants, a, way, cheaper=method == "auto")


@dataclass(frozen=True)
class _Way:
    """How derivatives along directions are taken."""

    order: int
    slope: Slope
    chunk_size: int | None

    def chunk(self, stage: Stage, count: int, order: int) -> int:
        """How many of `count` directions go through the stage at a time."""
        if self.chunk_size is not None:
            return self.chunk_size
        return chunk_length(count, stage.defined, order=order)


def _by_elements(stage: Stage, known: Mapping[Var, Any], point: Array, way: _Way) -> Arrays:
    """One pass through the stage for every element of the point."""
    chunk_size = way.chunk(stage, point.size, way.order)
    g = partial(stage.scalar, known)
    return along_basis(g, point, order=way.order, slope=way.slope, chunk_size=chunk_size)


def _by_stages(stages: Factors, constants: Mapping[Var, Any], a: Array, way: _Way, *, cheaper: bool) -> Arrays:
    """Through the fold, and through the Jacobian of the inner stage: always, or where that is cheaper."""
    known = {**constants, **dict(zip(stages.constants.defined, stages.constants(constants)[1], strict=True))}
    (z,), pull, known = stages.fold.vjp(known, a)
    if stages.inner is None or stages.outer is None or (cheaper and stages.width >= z.size):
        apart = split(_rest(stages, known)) if cheaper and way.slope is forward else None
        if apart is not None:
            of_rest = apart.derivatives(z, order=way.order, chunk_size=way.chunk_size)
        else:
            of_rest = _by_elements(stages.rest, known, z, way)
    else:
        y, pull_inner, known = stages.inner.vjp(known, z)
        columns = jacobian_columns(pull_inner, y, chunk_size=way.chunk(stages.inner, stages.width, 1))
        g, chunk_size = partial(stages.outer.scalar, known), way.chunk(stages.outer, z.size, way.order)
        of_rest = along_columns(g, y, columns, order=way.order, slope=way.slope, chunk_size=chunk_size)
    # At most one entry in each column of the fold's Jacobian: its row sums are its slopes, and a reverse pass
    # multiplies each element's derivative by one of them. Only the other n - 1 are left to do.
    (ones, *of_rest), _ = varied(((jnp.ones_like(z), *of_rest), z))
    slopes, *rows = (pull((row.reshape(z.shape).astype(z.dtype),))[0] for row in (ones, *of_rest))
    return tuple(slopes**power * row for power, row in enumerate(rows))


def _rest(stages: Factors, known: Mapping[Var, Any]) -> Program:
    """What follows the fold, and beside it what depends on nothing, so that indices made there are known."""
    rest = stages.rest
    equations = [*stages.constants.equations, *rest.equations]
    equations = needed(equations, rest.outputs, {*rest.inputs, *stages.fold.defined})
    used = Stage(rest.inputs, rest.outputs, equations).used.difference(rest.inputs)
    return Program(rest.inputs, rest.outputs, equations, {var: known[var] for var in known if var in used}, {})


def _program(f: Callable[[Array], Array], a: Array) -> Program:
    closed, out = jax.make_jaxpr(lambda a: f(a), return_shape=True)(a)
    if not isinstance(out, jax.ShapeDtypeStruct) or not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"f must return one floating-point array, got {out}")
    if out.shape != ():
        raise ValueError(f"f must return a scalar, got shape {out.shape}; pick or sum its elements")
    return straight_line(closed)


def _check(f: Any, a: Any, order: Any, method: Any, chunk_size: Any) -> None:
    if not callable(f):
        raise TypeError(f"f must be a function from an array to a scalar, got {type(f).__name__}")
    if not isinstance(a, jax.Array | np.ndarray) or not jnp.issubdtype(a.dtype, jnp.floating):
        kind = getattr(a, "dtype", type(a).__name__)
        raise TypeError(f"a must be an array of real floating-point numbers, got {kind}; convert it first")
    if a.size == 0:
        raise ValueError(f"a must have at least one element, got shape {a.shape}")
    if method not in ("auto", "factored", "jvp", "grad"):
        raise ValueError(f"method must be 'auto', 'factored', 'jvp' or 'grad', got {method!r}")
    for name, value in {"order": order, "chunk_size": 1 if chunk_size is None else chunk_size}.items():
        check_integer(name, value, low=1)


def _only(stages: Factors, direction: Literal["forwards", "backwards"]) -> bool:
    """Whether derivatives go through something that has them in this direction only."""
    return runs(stages.moving, lambda facts: facts.only == direction)


def _check_stages(stages: Factors, method: str) -> None:
    if method == "jvp" and _only(stages, "backwards"):
        raise ValueError("f uses jax.custom_vjp, which has no forward derivative; use method='grad'")
    if method == "grad" and _only(stages, "forwards"):
        raise ValueError("f uses lax.while_loop, which has no backward derivative; use method='jvp'")
    if method == "factored" and stages.obstacle and not stages.fold.equations:
        raise ValueError(
            "method='factored' needs an f that provably begins with a piecewise-linear stage, but its input "
            f"goes straight into {stages.obstacle!r}; use method='auto'"
        )

"""Facts about JAX's primitives: the one table that says what an equation does.

What reads programs asks it: the proof of piecewise linearity, the test for activations, the folds and the stages of
derivatives, the rectifiers, guided's rewriting, the search for layers, and more. The facts that several of them share
are here, so that a new primitive is one line for all; what one reader alone must know (how a move moves indices:
`moves`; what is linear, and not only in pieces: `derivatives.taylor`) stands there. What has no line is not known to do
anything: it is never part of a proof, and is passed on as it is.

    about(eqn).linear  # of jnp.maximum(x, y): Linear.JOINTLY

`TABLE` is keyed by the primitive itself, so that a user's own of the same name is not mistaken for it; by name only
where JAX does not hand the primitive out. A fact claims something where it is set; unset, it claims nothing. That the
claims are true is tried on numbers in `tests/programs/test_primitives.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Literal, TypeAlias

from jax import lax
from jax.extend.core import JaxprEqn, Primitive
from jax.extend.core import primitives as core

__all__ = ["OF_OTHER_VERSIONS", "TABLE", "Facts", "Linear", "Moves", "Runs", "about"]


class Linear(Enum):
    """In which operands the results are piecewise linear."""

    STEP = "in none: they are locally constant, whatever the operands"
    JOINTLY = "in all operands together"
    EACH = "in each operand while the others stay: a product"
    FIRST = "in the first operand while the others stay: a quotient"


class Moves(Enum):
    """How elements are moved: each element of the results is one of the operands'."""

    AXES = "all of them, to other axes"
    PICKS = "some of them, along the axes"
    JOINS = "those of several operands, side by side along an axis"
    ALONG = "along their axes: turned round, repeated or surrounded"


class Runs(Enum):
    """How the programs in an equation are run."""

    CALL = "once, on the operands, and that is all"
    REMAT = "the same, and again on the way back"
    CUSTOM = "the same, with a derivative of its own"
    LOOP = "many times"
    BRANCH = "one of several"
    PARTS = "on each device's part"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a primitive."""

    elementwise: bool = False
    """Element i of the results depends on element i of the operands only, where these have that shape."""
    linear: Linear | None = None
    """None where nothing is known, or where it depends on the parameters: see `linearity`."""
    activation: bool = False
    """Activations are written with it. A call that holds nothing else is one activation."""
    affine: bool = False
    """y = c x + b in one operand x while the others stay, in the same order of elements: biases, scales, batch norm."""
    moves: Moves | None = None
    keeps_axes: bool = False
    """Each axis of the results is the same axis of the operands, longer or shorter."""
    once: bool = False
    """Each element of the first operand reaches at most one element of each result, whatever the parameters."""
    reduces: Literal["sum", "max", "min"] | None = None
    windowed: bool = False
    """It reduces windows, not whole axes."""
    runs: Runs | None = None
    under: tuple[str, ...] = ()
    """The parameters that hold the programs that it runs."""
    only: Literal["forwards", "backwards"] | None = None
    """Where JAX takes derivatives in this direction only."""


_NOTHING = Facts()


def about(eqn: JaxprEqn) -> Facts:
    """What is known of the primitive of an equation."""
    found = TABLE.get(eqn.primitive)
    return TABLE.get(eqn.primitive.name, _NOTHING) if found is None else found


Key: TypeAlias = Primitive | str
JOINTLY, STEP = Linear.JOINTLY, Linear.STEP
_each = partial(Facts, elementwise=True)
_activation = partial(Facts, elementwise=True, activation=True)

TABLE: Mapping[Key, Facts] = {
    # Element by element, piecewise linear.
    lax.abs_p: _activation(linear=JOINTLY),
    lax.add_p: _activation(linear=JOINTLY, affine=True),
    core.add_jaxvals_p: _each(linear=JOINTLY),
    lax.clamp_p: _activation(linear=JOINTLY),
    lax.div_p: _activation(linear=Linear.FIRST, affine=True),
    lax.max_p: _activation(linear=JOINTLY),
    lax.min_p: _activation(linear=JOINTLY),
    lax.mul_p: _activation(linear=Linear.EACH, affine=True),
    lax.neg_p: _activation(linear=JOINTLY, affine=True),
    lax.reduce_precision_p: _each(linear=JOINTLY),
    lax.select_n_p: _activation(linear=JOINTLY),
    lax.sub_p: _activation(linear=JOINTLY, affine=True),
    lax.convert_element_type_p: _activation(affine=True),  # to integers it is a step
    # Complex numbers, and their parts: linear where the numbers are real.
    lax.complex_p: _each(linear=JOINTLY),
    lax.conj_p: _each(linear=JOINTLY),
    lax.imag_p: _each(linear=JOINTLY),
    lax.real_p: _each(linear=JOINTLY),
    # The same values. That stop_gradient drops derivatives only makes them simpler.
    lax.copy_p: _activation(linear=JOINTLY, affine=True),
    lax.device_put_p: _each(linear=JOINTLY),
    core.name_p: _each(linear=JOINTLY, keeps_axes=True, affine=True),
    lax.optimization_barrier_p: _each(linear=JOINTLY),
    "pvary": _activation(linear=JOINTLY, affine=True),  # inside of shard_map
    "reshard": _each(linear=JOINTLY),
    lax.sharding_constraint_p: _each(linear=JOINTLY),
    core.stop_gradient_p: _activation(linear=JOINTLY),
    # Steps: comparisons, in the order of the numbers and in the total one that has a place for NaN, and roundings.
    lax.eq_p: _activation(linear=STEP),
    lax.ge_p: _activation(linear=STEP),
    lax.gt_p: _activation(linear=STEP),
    lax.is_finite_p: _activation(linear=STEP),
    lax.le_p: _activation(linear=STEP),
    lax.lt_p: _activation(linear=STEP),
    lax.ne_p: _activation(linear=STEP),
    lax.sign_p: _activation(linear=STEP),
    lax.eq_to_p: _each(linear=STEP),
    lax.le_to_p: _each(linear=STEP),
    lax.lt_to_p: _each(linear=STEP),
    lax.ceil_p: _each(linear=STEP),
    lax.floor_p: _each(linear=STEP),
    lax.round_p: _each(linear=STEP),
    lax.argmax_p: Facts(linear=STEP),
    lax.argmin_p: Facts(linear=STEP),
    # Element by element, and smooth, or of booleans.
    lax.acos_p: _activation(),
    lax.acosh_p: _activation(),
    lax.and_p: _activation(),
    lax.asin_p: _activation(),
    lax.asinh_p: _activation(),
    lax.atan_p: _activation(),
    lax.atan2_p: _activation(),
    lax.atanh_p: _activation(),
    lax.cbrt_p: _activation(),
    lax.cos_p: _activation(),
    lax.cosh_p: _activation(),
    lax.erf_p: _activation(),
    lax.erf_inv_p: _activation(),
    lax.erfc_p: _activation(),
    lax.exp_p: _activation(),
    lax.exp2_p: _activation(),
    lax.expm1_p: _activation(),
    lax.integer_pow_p: _activation(),  # the first power is linear
    lax.log_p: _activation(),
    lax.log1p_p: _activation(),
    lax.logistic_p: _activation(),
    lax.not_p: _activation(),
    lax.or_p: _activation(),
    lax.pow_p: _activation(),
    lax.rem_p: _each(),
    lax.rsqrt_p: _activation(),
    lax.sin_p: _activation(),
    lax.sinh_p: _activation(),
    lax.sqrt_p: _activation(),
    lax.square_p: _activation(),
    lax.tan_p: _activation(),
    lax.tanh_p: _activation(),
    lax.xor_p: _activation(),
    # Products that sum.
    lax.conv_general_dilated_p: Facts(linear=Linear.EACH),
    lax.dot_general_p: Facts(linear=Linear.EACH),
    # Moved elements. Indices, which are integers, can only be locally constant or unknown.
    lax.broadcast_in_dim_p: Facts(linear=JOINTLY, moves=Moves.AXES, affine=True, activation=True),
    lax.reshape_p: Facts(linear=JOINTLY, moves=Moves.AXES, affine=True, once=True),
    lax.squeeze_p: Facts(linear=JOINTLY, moves=Moves.AXES, affine=True, once=True),
    lax.transpose_p: Facts(linear=JOINTLY, moves=Moves.AXES, once=True),
    lax.dynamic_slice_p: Facts(linear=JOINTLY, keeps_axes=True, moves=Moves.PICKS, once=True),
    lax.gather_p: Facts(linear=JOINTLY, moves=Moves.PICKS),
    lax.slice_p: Facts(linear=JOINTLY, keeps_axes=True, moves=Moves.PICKS, once=True),
    lax.split_p: Facts(linear=JOINTLY, moves=Moves.PICKS, once=True),
    "unstack": Facts(linear=JOINTLY, moves=Moves.PICKS),
    lax.concatenate_p: Facts(linear=JOINTLY, keeps_axes=True, moves=Moves.JOINS),
    "stack": Facts(linear=JOINTLY, moves=Moves.JOINS),
    lax.pad_p: Facts(linear=JOINTLY, keeps_axes=True, moves=Moves.ALONG, once=True),
    lax.rev_p: Facts(linear=JOINTLY, keeps_axes=True, moves=Moves.ALONG, once=True),
    "tile": Facts(linear=JOINTLY, moves=Moves.ALONG),
    lax.dynamic_update_slice_p: Facts(linear=JOINTLY),
    lax.scatter_p: Facts(linear=JOINTLY),
    lax.scatter_add_p: Facts(linear=JOINTLY),
    lax.scatter_sub_p: Facts(linear=JOINTLY),
    # Reductions, over axes, windows and devices, and running ones.
    lax.reduce_max_p: Facts(linear=JOINTLY, reduces="max", once=True),
    lax.reduce_min_p: Facts(linear=JOINTLY, reduces="min", once=True),
    lax.reduce_sum_p: Facts(linear=JOINTLY, reduces="sum", once=True),
    lax.reduce_window_max_p: Facts(linear=JOINTLY, keeps_axes=True, reduces="max", windowed=True),
    lax.reduce_window_min_p: Facts(linear=JOINTLY, keeps_axes=True, reduces="min", windowed=True),
    lax.reduce_window_sum_p: Facts(linear=JOINTLY, keeps_axes=True, reduces="sum", windowed=True),
    lax.reduce_window_p: Facts(keeps_axes=True),  # by any function
    lax.cummax_p: Facts(linear=JOINTLY, keeps_axes=True),
    lax.cummin_p: Facts(linear=JOINTLY, keeps_axes=True),
    lax.cumsum_p: Facts(linear=JOINTLY, keeps_axes=True),
    lax.psum_p: Facts(reduces="sum"),
    "psum_invariant": Facts(reduces="sum"),
    # Programs that are run.
    core.jit_p: Facts(runs=Runs.CALL, under=("jaxpr",)),
    core.closed_call_p: Facts(runs=Runs.CALL, under=("call_jaxpr",)),
    "core_call": Facts(runs=Runs.CALL, under=("call_jaxpr",)),
    "pjit": Facts(runs=Runs.CALL, under=("jaxpr",)),
    core.remat_p: Facts(runs=Runs.REMAT, under=("jaxpr",)),
    "checkpoint": Facts(runs=Runs.REMAT, under=("jaxpr",)),
    core.custom_jvp_call_p: Facts(runs=Runs.CUSTOM, under=("call_jaxpr",)),
    core.custom_vjp_call_p: Facts(runs=Runs.CUSTOM, under=("call_jaxpr",), only="backwards"),
    lax.scan_p: Facts(runs=Runs.LOOP, under=("jaxpr",)),
    lax.while_p: Facts(runs=Runs.LOOP, under=("cond_jaxpr", "body_jaxpr"), only="forwards"),
    lax.cond_p: Facts(runs=Runs.BRANCH, under=("branches",)),
    "shard_map": Facts(runs=Runs.PARTS, under=("jaxpr",)),
}
"""All that is known, by primitive."""

OF_OTHER_VERSIONS = frozenset({"checkpoint", "core_call", "pjit"})
"""Names in the table that older versions of JAX use: jit_p, remat_p and call_p of today."""

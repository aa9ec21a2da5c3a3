"""A JAX function run by NumPy, equation by equation: nothing is compiled, so that thousands of programs are tried."""

import jax
import numpy as np
from jax.extend.core import Literal

INNER = {"jit": "jaxpr", "pjit": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Primitives that do what a program among their parameters does."""


def broadcast_in_dim(x, *, shape, broadcast_dimensions, **_):
    spread = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, np.shape(x), strict=True):
        spread[axis] = size
    return np.broadcast_to(np.reshape(x, spread), shape)


def dot_general(x, y, *, dimension_numbers, **_):
    contracted, (batch, _) = dimension_numbers
    return NotImplemented if batch else np.tensordot(x, y, contracted)


def div(x, y, **_):
    return NotImplemented if x.dtype.kind in "iu" else np.divide(x, y)


def select_n(which, *cases, **_):
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else NotImplemented


def cumsum(x, *, axis, reverse):
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis) if reverse else np.cumsum(x, axis)


def elementwise(function):
    return lambda *operands, **_: function(*operands)


CALLED = {
    "add": "add",
    "add_any": "add",
    "and": "bitwise_and",
    "eq": "equal",
    "ge": "greater_equal",
    "gt": "greater",
    "le": "less_equal",
    "lt": "less",
    "max": "maximum",
    "min": "minimum",
    "mul": "multiply",
    "neg": "negative",
    "or": "bitwise_or",
    "sub": "subtract",
}
OPERATIONS = {
    **{name: elementwise(getattr(np, name)) for name in ("abs", "cos", "exp", "floor", "sign", "sin", "tanh")},
    **{name: elementwise(getattr(np, called)) for name, called in CALLED.items()},
    "reduce_sum": lambda x, *, axes, **_: np.sum(x, tuple(axes)),
    "reduce_max": lambda x, *, axes, **_: np.max(x, tuple(axes)),
    "convert_element_type": lambda x, *, new_dtype, **_: x.astype(new_dtype),
    "reshape": lambda x, *, new_sizes, **_: np.reshape(x, new_sizes),
    "transpose": lambda x, *, permutation: np.transpose(x, permutation),
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
    "integer_pow": lambda x, *, y: x**y,
    "stop_gradient": elementwise(np.asarray),
    "broadcast_in_dim": broadcast_in_dim,
    "dot_general": dot_general,
    "div": div,
    "select_n": select_n,
    "cumsum": cumsum,
}
"""What NumPy does for a primitive. What is not here, or gives NotImplemented, JAX computes by itself."""


def scan(eqn, operands):
    """The body again and again, last turn first if it says so."""
    params = eqn.params
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, carry, sliced = operands[:num_consts], operands[num_consts:][:num_carry], operands[num_consts + num_carry :]
    turns = range(params["length"])
    rows = []
    for turn in reversed(turns) if params["reverse"] else turns:
        results = evaluate(params["jaxpr"], [*consts, *carry, *(x[turn] for x in sliced)])
        carry = results[:num_carry]
        rows.append(results[num_carry:])
    return [*carry, *map(np.stack, zip(*(reversed(rows) if params["reverse"] else rows), strict=True))]


def results_of(eqn, operands):
    """What one equation computes, as NumPy arrays."""
    name = eqn.primitive.name
    if name in INNER:
        inner = eqn.params[INNER[name]]
        return evaluate(inner, operands) if hasattr(inner, "consts") else evaluate_open(inner, [], operands)
    if name == "cond":
        return evaluate(eqn.params["branches"][int(operands[0])], operands[1:])
    if name == "scan":
        return scan(eqn, operands)
    if name in OPERATIONS and (result := OPERATIONS[name](*operands, **eqn.params)) is not NotImplemented:
        return [np.asarray(result)]
    found = eqn.primitive.bind(*map(jax.numpy.asarray, operands), **eqn.params)
    return list(map(np.asarray, found if eqn.primitive.multiple_results else [found]))


def evaluate_open(jaxpr, consts, operands):
    """The values of a program's outputs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], map(np.asarray, [*consts, *operands]), strict=True))

    def read(var):
        return np.asarray(var.val, var.aval.dtype) if isinstance(var, Literal) else values[var]

    for eqn in jaxpr.eqns:
        values.update(zip(eqn.outvars, results_of(eqn, [read(var) for var in eqn.invars]), strict=True))
    return [read(var) for var in jaxpr.outvars]


def evaluate(closed, operands):
    """The same of a program with its constants."""
    return evaluate_open(closed.jaxpr, closed.consts, operands)


def by_numpy(function):
    """The function, traced by JAX and run by NumPy."""

    def run(*args):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        with np.errstate(all="ignore"):  # 0/0 where no branch takes it, as in JAX
            return jax.tree.unflatten(jax.tree.structure(shapes), evaluate(closed, jax.tree.leaves(args)))

    return run

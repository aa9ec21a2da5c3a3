"""The table of primitives: each entry is a primitive of JAX, and what it claims is true of the numbers it makes."""

import gc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive
from jax.extend.core import primitives as core
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxcam.programs.primitives import OF_OTHER_VERSIONS, TABLE, Linear

X = np.array([[0.3, -1.2, 2.4], [-0.7, 1.9, 0.55]])
Y = np.array([[1.3, -0.6, 0.8], [-1.7, 0.4, 2.2]])
P = np.abs(X)
MASK = np.array([[True, False, True], [False, True, True]])
ROWS = np.array([1, 1, 0])
MESH = jax.make_mesh((1,), ("i",), axis_types=(AxisType.Explicit,))


def window(x, init, reduce):
    return lax.reduce_window(x, init, reduce, (1, 2), (1, 1), "VALID")


# A function of the operands behind it, those that can move, with this primitive in it.
SAMPLES = {
    lax.abs_p: (lax.abs, X),
    lax.add_p: (lax.add, X, Y),
    core.add_jaxvals_p: (core.add_jaxvals_p.bind, X, Y),
    lax.clamp_p: (lax.clamp, Y, X, Y + 1.25),
    lax.div_p: (lax.div, X, Y),
    lax.max_p: (lax.max, X, Y),
    lax.min_p: (lax.min, X, Y),
    lax.mul_p: (lax.mul, X, Y),
    lax.neg_p: (lax.neg, X),
    lax.reduce_precision_p: (lambda x: lax.reduce_precision(x, 11, 52), X),
    lax.select_n_p: (partial(lax.select_n, MASK), X, Y),
    lax.sub_p: (lax.sub, X, Y),
    lax.convert_element_type_p: (lambda x: lax.convert_element_type(x, np.float32), X),
    lax.complex_p: (lax.complex, X, Y),
    lax.conj_p: (lax.conj, X),
    **{p: (lambda x, f=f: f(lax.complex(x, Y)), X) for p, f in ((lax.imag_p, lax.imag), (lax.real_p, lax.real))},
    lax.copy_p: (lax.copy_p.bind, X),
    lax.device_put_p: (jax.device_put, X),
    core.name_p: (lambda x: checkpoint_name(x, "a"), X),
    lax.optimization_barrier_p: (lax.optimization_barrier, X),
    "reshard": (lambda x: jax.sharding.reshard(x, NamedSharding(MESH, PartitionSpec())), X),
    lax.sharding_constraint_p: (
        lambda x: lax.with_sharding_constraint(x, SingleDeviceSharding(jax.devices()[0])),
        X,
    ),
    core.stop_gradient_p: (core.stop_gradient_p.bind, X),
    **{p: (p.bind, X, Y) for p in (lax.eq_p, lax.ge_p, lax.gt_p, lax.le_p, lax.lt_p, lax.ne_p)},
    **{p: (p.bind, X, Y) for p in (lax.eq_to_p, lax.le_to_p, lax.lt_to_p)},
    lax.is_finite_p: (lax.is_finite, X),
    lax.sign_p: (lax.sign, X),
    lax.ceil_p: (lax.ceil, X),
    lax.floor_p: (lax.floor, X),
    lax.round_p: (lax.round, X),
    lax.argmax_p: (lambda x: lax.argmax(x, 1, np.int32), X),
    lax.argmin_p: (lambda x: lax.argmin(x, 1, np.int32), X),
    lax.and_p: (lambda x, y: lax.bitwise_and(x > 0, y > 0), X, Y),
    lax.or_p: (lambda x, y: lax.bitwise_or(x > 0, y > 0), X, Y),
    lax.not_p: (lambda x: lax.bitwise_not(x > 0), X),
    lax.xor_p: (lambda x, y: lax.bitwise_xor(x > 0, y > 0), X, Y),
    **{p: (f, X) for p, f in ((lax.asinh_p, lax.asinh), (lax.sinh_p, lax.sinh), (lax.cosh_p, lax.cosh))},
    **{p: (f, X) for p, f in ((lax.atan_p, lax.atan), (lax.cbrt_p, lax.cbrt), (lax.sin_p, lax.sin))},
    **{p: (f, X) for p, f in ((lax.cos_p, lax.cos), (lax.tan_p, lax.tan))},
    **{p: (f, X / 3) for p, f in ((lax.acos_p, lax.acos), (lax.asin_p, lax.asin), (lax.atanh_p, lax.atanh))},
    lax.erf_inv_p: (lax.erf_inv, X / 3),
    lax.acosh_p: (lax.acosh, 1 + P),
    lax.atan2_p: (lax.atan2, X, Y),
    lax.rem_p: (lax.rem, X, Y),
    lax.erf_p: (lax.erf, X),
    lax.erfc_p: (lax.erfc, X),
    lax.exp_p: (lax.exp, X),
    lax.exp2_p: (lax.exp2, X),
    lax.expm1_p: (lax.expm1, X),
    lax.integer_pow_p: (lambda x: lax.integer_pow(x, 3), X),
    lax.log_p: (lax.log, P),
    lax.log1p_p: (lax.log1p, P),
    lax.logistic_p: (lax.logistic, X),
    lax.pow_p: (lax.pow, P, Y),
    lax.rsqrt_p: (lax.rsqrt, P),
    lax.sqrt_p: (lax.sqrt, P),
    lax.square_p: (lax.square, X),
    lax.tanh_p: (lax.tanh, X),
    lax.conv_general_dilated_p: (lambda x, w: lax.conv(x[None, None], w[None, None], (1, 1), "SAME"), X, Y),
    lax.dot_general_p: (lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ()))), X, Y),
    lax.broadcast_in_dim_p: (lambda x: lax.broadcast_in_dim(x, (2, 1, 3), (0, 2)), X),
    lax.reshape_p: (lambda x: lax.reshape(x, (3, 2)), X),
    lax.squeeze_p: (lambda x: lax.squeeze(x, (1,)), X[:, None]),
    lax.transpose_p: (lambda x: lax.transpose(x, (1, 0)), X),
    lax.dynamic_slice_p: (lambda x: lax.dynamic_slice(x, (0, 1), (2, 2)), X),
    lax.gather_p: (lambda x: x.at[ROWS].get(mode="clip"), X),
    lax.slice_p: (lambda x: lax.slice(x, (0, 1), (2, 3)), X),
    lax.split_p: (lambda x: lax.split(x, (1, 2), 1), X),
    "unstack": (lambda x: jnp.unstack(x), X),
    lax.concatenate_p: (lambda x, y: lax.concatenate([x, y], 1), X, Y),
    "stack": (lambda x, y: jnp.stack([x, y], 1), X, Y),
    lax.pad_p: (lambda x, fill: lax.pad(x, fill, [(0, 1, 0), (1, 0, 1)]), X, np.array(7.0)),
    lax.rev_p: (lambda x: lax.rev(x, (1,)), X),
    "tile": (lambda x: jnp.tile(x, (2, 1)), X),
    lax.dynamic_update_slice_p: (lambda x, y: lax.dynamic_update_slice(x, y, (0, 1)), X, Y[:, :2]),
    lax.scatter_p: (lambda x, y: x.at[np.array([1])].set(y), X, Y[:1]),
    lax.scatter_add_p: (lambda x, y: x.at[ROWS].add(y), X, np.concatenate([X, Y])[:3]),
    lax.scatter_sub_p: (lambda x, y: x.at[ROWS].subtract(y), X, np.concatenate([X, Y])[:3]),
    lax.reduce_max_p: (lambda x: x.max(1), X),
    lax.reduce_min_p: (lambda x: x.min(1), X),
    lax.reduce_sum_p: (lambda x: x.sum(1), X),
    lax.reduce_window_max_p: (lambda x: window(x, -jnp.inf, lax.max), X),
    lax.reduce_window_min_p: (lambda x: window(x, jnp.inf, lax.min), X),
    lax.reduce_window_sum_p: (lambda x: window(x, 0.0, lax.add), X),
    lax.reduce_window_p: (lambda x: window(x, 1.0, lambda a, b: a * b + a), X),
    lax.cummax_p: (lambda x: lax.cummax(x, 1), X),
    lax.cummin_p: (lambda x: lax.cummin(x, 1), X),
    lax.cumsum_p: (lambda x: lax.cumsum(x, 1), X),
}


@jax.custom_vjp
def own_backwards(x):
    return 2 * x


own_backwards.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

PROGRAMS = {
    core.jit_p: jax.jit(lambda x: 2 * x),
    core.remat_p: jax.checkpoint(lambda x: 2 * x),
    core.custom_jvp_call_p: jax.nn.relu,
    core.custom_vjp_call_p: own_backwards,
    lax.scan_p: lambda x: lax.scan(lambda c, t: (c + t, c), x[0], x)[0],
    lax.while_p: lambda x: lax.while_loop(lambda c: c[0, 0] < 9, lambda c: 2 * c, x),
    lax.cond_p: lambda x: lax.cond(x[0, 0] > 0, lambda x: x, lambda x: -x, x),
    "shard_map": jax.shard_map(lambda x: 2 * x, mesh=MESH, in_specs=PartitionSpec(), out_specs=PartitionSpec()),
}
# A sum over devices does nothing on one; a closed call is made by transformations of others.
NOT_TRIED = {lax.psum_p, "psum_invariant", "pvary", core.closed_call_p, *OF_OTHER_VERSIONS}
# JAX hands them out, but not yet in the oldest version that jaxcam asks for, 0.10.0.
NEWER = {"stack", "tile", "unstack"}


def name_of(key):
    return key if isinstance(key, str) else key.name


def test_every_entry_is_tried_and_is_a_primitive_of_jax():
    assert set(TABLE) == {*SAMPLES, *PROGRAMS, *NOT_TRIED}
    exposed = {value.name for room in (lax, core) for value in vars(room).values() if isinstance(value, Primitive)}
    gc.unfreeze()  # what is imported, conftest has frozen
    alive = {thing.name for thing in gc.get_objects() if isinstance(thing, Primitive)}
    gc.freeze()
    for key in TABLE:
        if isinstance(key, str):
            # The name of an object that JAX hands out would be a second entry for it, or none at all.
            assert key not in exposed or key in NEWER
            assert (key in alive) != (key in OF_OTHER_VERSIONS)
    assert len({name_of(key) for key in TABLE}) == len(TABLE)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: isinstance(v, Jaxpr | ClosedJaxpr)):
            if isinstance(value, Jaxpr | ClosedJaxpr):
                yield from equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def equation_of(key, function, *operands):
    """The equation of this primitive in a function; there is one."""
    return next(
        eqn
        for eqn in equations(jax.make_jaxpr(function)(*operands).jaxpr)
        if key in (eqn.primitive, eqn.primitive.name)
    )


def moved(operands):
    """The operands at many points in one batch, and which point is which."""
    rng = np.random.default_rng(0)
    still, along = [0 * o for o in operands], [rng.uniform(0.2, 1, o.shape) for o in operands]
    shifts = {"here": still}

    def alone(place, shift):
        return [shift if i == place else other for i, other in enumerate(still)]

    for sign in (-1, 1):
        shifts["together", sign] = [1e-4 * sign * a for a in along]
        for place, a in enumerate(along):
            shifts["alone", place, sign] = alone(place, 1e-4 * sign * a)
            shifts["far", place, sign] = alone(place, sign * a)
    for place, operand in enumerate(operands):
        for i in range(operand.size):
            shifts["element", place, i] = alone(place, 0.7 * np.eye(operand.size)[i].reshape(operand.shape))
    return list(shifts), [o + np.stack([s[i] for s in shifts.values()]) for i, o in enumerate(operands)]


@pytest.fixture(scope="module")
def results():
    """What each sample returns at all its points, as `{point: [result, ...]}`; in one compiled program."""
    points = {key: moved(operands) for key, (_, *operands) in SAMPLES.items()}
    names = {name_of(key): key for key in SAMPLES}

    @jax.jit
    def run(batches):
        return {name: jax.tree.leaves(jax.vmap(SAMPLES[key][0])(*batches[name])) for name, key in names.items()}

    found = run({name: points[key][1] for name, key in names.items()})
    return {
        key: {point: [np.asarray(r)[i] for r in found[name]] for i, point in enumerate(points[key][0])}
        for name, key in names.items()
    }


@pytest.mark.parametrize("key", SAMPLES, ids=name_of)
def test_what_is_claimed_is_true(key, results):
    facts, (function, *operands), at = TABLE[key], SAMPLES[key], results[key]
    assert equation_of(key, function, *operands).primitive.name == name_of(key)
    here = [*map(np.asarray, at["here"])]

    def bends(kind, tolerance=1e-12):
        ends = zip(at[*kind, -1], here, at[*kind, 1], strict=True)
        return max(np.abs(before - 2.0 * now + after).max() for before, now, after in ends) > tolerance

    def changed(place, i):
        """The flat positions in each result that element i of this operand reaches."""
        return [set(np.flatnonzero(new != old)) for new, old in zip(at["element", place, i], here, strict=True)]

    places = range(len(operands))
    match facts.linear:
        case Linear.STEP:
            assert all((at["together", s][0] == here[0]).all() for s in (-1, 1))
        case Linear.JOINTLY:
            assert not bends(("together",))
        case Linear.EACH:
            assert not any(bends(("alone", place)) for place in places)
            assert bends(("together",))
        case Linear.FIRST:
            assert not bends(("alone", 0))
            assert bends(("alone", 1))
    if facts.elementwise:
        for place, operand in enumerate(operands):
            assert all(changed(place, i)[0] <= {i} for i in range(operand.size))
            assert here[0].shape == operand.shape
    if facts.affine:
        for place in places if facts.linear is not Linear.FIRST else (0,):
            assert not bends(("far", place), 1e-6)
            assert all(changed(place, i) == [{i}] for i in range(operands[place].size))
    if facts.moves:
        assert {*np.concatenate([r.ravel() for r in here])} <= {*np.concatenate([o.ravel() for o in operands])}
    if facts.keeps_axes:  # all samples work along rows
        rows = [{place // here[0].shape[1] for place in changed(0, i)[0]} for i in range(X.size)]
        assert all(row <= {i // X.shape[1]} for i, row in enumerate(rows))
        assert set().union(*rows) == {0, 1}
    if facts.once:
        assert all(len(reached) <= 1 for i in range(operands[0].size) for reached in changed(0, i))
    if facts.reduces:
        blocks = np.lib.stride_tricks.sliding_window_view(X, 2, 1) if facts.windowed else X
        np.testing.assert_allclose(here[0], getattr(np, facts.reduces)(blocks, -1), rtol=1e-12)
    assert not facts.activation or facts.elementwise or key is lax.broadcast_in_dim_p
    assert facts.runs is None
    assert not facts.under


@pytest.mark.parametrize("key", PROGRAMS, ids=name_of)
def test_programs_are_where_the_table_says(key):
    facts, f = TABLE[key], PROGRAMS[key]
    params = equation_of(key, f, X).params
    first = {name: value[0] if isinstance(value, tuple) and value else value for name, value in params.items()}
    assert {name for name, value in first.items() if isinstance(value, Jaxpr | ClosedJaxpr)} == {*facts.under}
    assert facts.runs is not None
    total = lambda x: f(x).sum()
    ways = {"forwards": lambda x: jax.jvp(total, (x,), (x,)), "backwards": jax.grad(total)}
    for direction, way in ways.items():
        if facts.only in (None, direction):
            jax.jit(way).lower(X)
        else:
            with pytest.raises((TypeError, ValueError)):
                jax.jit(way).lower(X)

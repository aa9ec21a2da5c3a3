from functools import partial
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import normal

from jaxcam.derivatives.folding import marks
from jaxcam.derivatives.min_cut import narrowest_cut
from jaxcam.derivatives.stages import factors
from jaxcam.programs.linearity import PIECEWISE_LINEAR, dependences
from jaxcam.programs.program import straight_line


def stages_of(f, a):
    return factors(program_of(f, a))


def program_of(f, a):
    return straight_line(jax.make_jaxpr(f)(a))


def pool(a, size=2, stride=2, reduce=lax.max, init=-jnp.inf, **options):
    window, strides = (size,) * (a.ndim - 1) + (1,), (stride,) * (a.ndim - 1) + (1,)
    return lax.reduce_window(a, init, reduce, window, strides, "VALID", **options)


def bend(z):
    """A smooth function of z whose derivatives differ everywhere, also by elements of z together."""
    return jnp.sum(jnp.sin(jnp.arange(1.0, z.size + 1) * z.reshape(-1))) * jnp.cos(z.sum())


# The narrowest cut


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 7)), min_size=1),
    st.lists(st.integers(1, 9), min_size=6, max_size=6),
)
def test_cut_is_the_narrowest(pairs, sizes):
    edges = {(start, stop) for start, stop in pairs if start < stop} | {(0, 1)}
    sizes = dict(enumerate(sizes, start=1))

    def separates(nodes):
        reached = {0}
        for start, stop in sorted(edges):
            if start in reached and stop not in nodes:
                reached.add(stop)
        return 7 not in reached

    weights = [sum(sizes[n] for n in c) for k in range(7) for c in combinations(sizes, k) if separates(c)]
    found = narrowest_cut(edges, sizes, 0, 7)
    if not weights:
        assert found is None
    else:
        assert separates(found)
        assert sum(sizes[n] for n in found) == min(weights)


def test_a_first_path_through_the_middle_is_taken_back():
    # The way s-1-3-t, which some orders try first, blocks both others; only s-1-4-t and s-2-3-t go together.
    for edges in list(permutations(["s1", "s2", "13", "14", "23", "3t", "4t"]))[::41]:
        assert narrowest_cut(map(tuple, edges), dict.fromkeys("1234", 1), "s", "t") == {"3", "4"}


def test_of_equal_cuts_it_is_the_last():
    assert narrowest_cut([("a", "b"), ("b", "c"), ("c", "d")], {"b": 3, "c": 3}, "a", "d") == {"c"}


# What folds

FOLDS = {
    "global average": (lambda a: a.mean((0, 1)), 3),
    "weighted sum over positions": (lambda a: jnp.einsum("ijk,ij->k", a, normal(3, 4, 4)), 3),
    "weighted sum of a product": (lambda a: jnp.einsum("ijk,ijk->ik", a, normal(3, 4, 4, 3)), 12),
    "global maximum": (lambda a: a.max((0, 1)), 3),
    "max-pooling": (pool, 12),
    "min-pooling": (partial(pool, reduce=lax.min, init=jnp.inf), 12),
    "average pooling": (lambda a: pool(a, reduce=lax.add, init=0.0) / 4, 12),
    "pooling with gaps": (partial(pool, stride=3), 3),
    "one window for all": (partial(pool, size=4, stride=1), 3),
    "ReLU, scale and bias, pooling": (lambda a: pool(2 * jax.nn.relu(a - 0.1) + normal(3, 4, 4, 3)), 12),
    "leaky ReLU, pooling": (lambda a: pool(jax.nn.leaky_relu(a)), 12),
    "|a| + max(a, 0) - clip(a)": (lambda a: pool(jnp.abs(a) + jnp.maximum(a, 0) - jnp.clip(a, -1, 1)), 12),
    "a step times a": (lambda a: (a * jnp.sign(a.sum()) * normal(3, 4, 4, 3)).sum(0), 12),
    "reshape, transpose, slice, pad": (lambda a: jnp.pad(a.transpose(2, 0, 1).reshape(-1)[::-1][5:20], 1), 15),
    "rows": (lambda a: lax.dynamic_slice_in_dim(a, jnp.argmax(a[0, 0]), 2, 0), 24),
    "with a batch axis": (lambda a: pool(a)[None].mean((1, 2))[0], 3),
}


POINTS = np.asarray(normal(7, 5, 4, 4, 3))


def places_reached(*functions):
    """How many elements of the result each element of the input moves, at most, at some points."""
    run = jax.jit(lambda points: [jax.vmap(jax.jacobian(f))(points) for f in functions])
    return [np.count_nonzero(j.reshape(5, -1, 48), axis=1).max() for j in map(np.asarray, run(POINTS))]


def fold_of(f, a):
    """What the fold that is found in a function computes, and how many elements that has."""
    program = program_of(f, a)
    stages = factors(program)
    (z,) = stages.fold.outputs

    def fold(a):
        made = stages.constants(program.constants)[1]
        known = program.constants | dict(zip(stages.constants.defined, made, strict=True))
        return stages.fold(known, a)[0][0]

    return fold, z.aval.size


@pytest.mark.parametrize(("fold", "size"), FOLDS.values(), ids=FOLDS)
def test_folds_are_found_and_reach_one_place(fold, size):
    found, size_found = fold_of(lambda a: bend(fold(a)), normal(0, 4, 4, 3))
    assert size_found == size
    assert places_reached(found) == [1]


MIXTURES = {
    "overlapping windows": partial(pool, stride=1, size=2),
    "dense layer": lambda a: a.reshape(-1) @ normal(3, 48, 5),
    "dense layer over channels": lambda a: a @ normal(3, 3, 2),
    "convolution": lambda a: lax.conv(a.transpose(2, 0, 1)[None], normal(3, 2, 3, 2, 2), (2, 2), "VALID"),
    "cumulative sum": lambda a: a.cumsum(0)[2:],
    "differences": lambda a: a[1:3] - a[:2],
    "two means": lambda a: a.mean((0, 1)) + a.max((1, 2))[:3],
    "sum and its parts": lambda a: a[:2] + a.sum(0, keepdims=True),
    "spread and summed up": lambda a: (a[..., None] * normal(3, 4, 4, 3, 2)).sum((0, 1)),
    "spread": lambda a: jnp.clip(normal(3, 2, 3), -1, a[0, 0, 0]),
    "repeated": lambda a: jnp.tile(a[:1, :1], (2, 2, 1)),
    "padded with itself": lambda a: lax.pad(a[:2], a[0, 0, 0], [(1, 1, 0), (0, 0, 0), (0, 0, 0)])[1:],
}


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_mixtures_do_not_fold(mixture):
    a = normal(0, 4, 4, 3)
    mixed, folded = places_reached(mixture, fold_of(lambda a: bend(mixture(a)), a)[0])
    assert mixed > 1
    assert folded == 1
    program = program_of(mixture, a)
    known = dependences(program.equations, {program.arguments[0]: PIECEWISE_LINEAR})
    assert marks(program.equations, known, {program.arguments[0]: program.arguments[0]})[program.outputs[0]] is None


# Where it is cut


def dense(z, *widths, activation=jax.nn.relu):
    for seed, width in enumerate(widths):
        z = activation(z.reshape(-1) @ normal(seed, z.size, width))
    return z


WIDTHS = {
    "logit": (lambda a: dense(a, 7, 5)[2], 1),
    "exp(logit)": (lambda a: jnp.exp(dense(a, 7, 5)[2]), 1),
    "softmax": (lambda a: jax.nn.softmax(dense(a, 7, 5))[2], 5),
    "log_softmax": (lambda a: jax.nn.log_softmax(dense(a, 7, 5))[2], 5),
    "a narrow layer before wide logits": (lambda a: jax.nn.softmax(dense(a, 4, 9))[2], 4),
    "passing around": (lambda a: jnp.exp(dense(a, 7, 5)[2]) * a.mean() ** 2, 2),
    "two narrow branches": (lambda a: bend(dense(dense(a, 2), 6)) * bend(dense(dense(a, 3), 8)), 5),
    "smooth layers": (lambda a: dense(a, 7, 5, activation=jnp.tanh).sum(), 7),
}


@pytest.mark.parametrize(("f", "width"), WIDTHS.values(), ids=WIDTHS)
def test_the_cut_is_as_narrow_as_can_be(f, width):
    assert stages_of(f, normal(0, 5, 4)).width == width


def test_all_is_computed_once():
    # What does not depend on the input belongs before the stages; here no value is needed on both sides of the cut.
    weights = normal(1, 20, 6)
    stages = stages_of(lambda a: bend(jax.nn.relu(a.reshape(-1) * 2.0 @ jnp.exp(weights))), normal(0, 5, 4))
    order = [stages.constants, stages.fold, stages.inner, stages.outer]
    names = [[eqn.primitive.name for eqn in stage.equations] for stage in order]
    assert "exp" in names[0]
    assert "mul" in names[1]
    assert names[2] == ["dot_general", "custom_jvp_call"]
    made = [var for stage in order for var in stage.defined]
    assert len(made) == len(set(made))


@pytest.mark.parametrize("f", [lambda a: jnp.float64(3), lambda a: jnp.floor(a).sum(), lambda a: normal(0, 3).sum()])
def test_functions_that_do_not_move(f):
    assert stages_of(f, normal(0, 5)) is None

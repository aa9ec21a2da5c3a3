"""Compiled programs are found again by what they compute now, are few, and keep nothing of the user's alive."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.programs.closures import hoist
from jaxcam.programs.compiled import Programs
from jaxcam.programs.identity import identity
from jaxcam.programs.sameness import fingerprint
from jaxcam.programs.watched import watched

X = np.arange(3.0)
SPEC = jax.ShapeDtypeStruct((3,), np.float64)


class Counted:
    """Programs that apply a function, and how many were traced."""

    def __init__(self):
        self.traced = 0
        self.programs = Programs(self._apply)

    def _apply(self, static, x):
        self.traced += 1
        return static[0](x)

    def __call__(self, function, x=X):
        return np.asarray(self.programs((watched(function),), x))


def times(t):
    return lambda x: t * x


def test_what_computes_the_same_is_compiled_once():
    apply = Counted()
    for t in (2.0, 2.0, 5.0, 2.0, 5.0):
        np.testing.assert_array_equal(apply(times(t)), t * X)
    assert apply.traced == 2
    array = np.ones(3)
    f = lambda x: array * x
    np.testing.assert_array_equal(apply(f), X)
    array[:] = 7
    np.testing.assert_array_equal(apply(f), 7 * X)
    np.testing.assert_array_equal(apply(times(np.full(3, 7.0))), 7 * X)
    assert apply.traced == 4


def test_there_are_so_many_at_most_and_an_old_one_is_made_again():
    apply = Counted()
    shapes = [np.zeros((1 + i, 1)) for i in range(70)]
    function = lambda x: x.sum()
    for x in shapes[:2] * 2:
        apply(function, x)
    assert apply.traced == 2
    apply.programs._known.update({i: [None] for i in range(70)})
    apply(function, shapes[2])
    assert sum(map(len, apply.programs._known.values())) == 64
    apply(function, shapes[0])
    assert apply.traced == 4


def test_what_captured_a_traced_value_is_not_kept():
    apply = Counted()
    total = lambda w: apply.programs((watched(lambda x: w * x),), X).sum()
    for w in (1.0, 4.0):
        value, slope = jax.value_and_grad(total)(w)
        assert (value, slope) == (3 * w, 3)
    assert not apply.programs._known


def test_programs_of_objects_that_are_gone_go_too():
    class Scale:
        def __call__(self, x):
            return x

    apply, ours = Counted(), Programs(lambda static, x: static[0](x))
    scale = Scale()
    alive = weakref.ref(scale)
    ours((scale,), X)
    apply(scale.__call__)
    del scale
    gc.collect()
    assert alive() is None
    ours((abs,), X)
    assert len(ours._known) == 1


def rule_of(kind, slope):
    """y = x with a derivative of its own, `slope`."""
    if kind == "jvp":
        f = jax.custom_jvp(lambda x: 1 * x)
        f.defjvp(lambda primals, tangents: (f(*primals), slope() * tangents[0]))
    else:
        f = jax.custom_vjp(lambda x: 1 * x)
        f.defvjp(lambda x: (f(x), None), lambda _, ct: (slope() * ct,))
    return f


def test_fingerprints_see_the_rules_of_derivatives():
    for kind in ("jvp", "vjp"):
        now = {"slope": 2.0}
        f = rule_of(kind, lambda now=now: now["slope"])
        before = fingerprint(f, SPEC)
        assert fingerprint(f, SPEC) == before
        now["slope"] = 3.0
        assert fingerprint(f, SPEC) != before
        assert hoist(f, [SPEC])[0] != hoist(rule_of(kind, lambda: 2.0), [SPEC])[0]
        assert hoist(f, [SPEC])[0] == hoist(rule_of(kind, lambda: 3.0), [SPEC])[0]


def test_fingerprints_hold_nothing_alive():
    array = jnp.ones(3)
    alive = weakref.ref(array)
    prints = fingerprint(lambda x, a=array: jax.nn.relu(a * x), SPEC), identity(lambda x, a=array: a * x)
    del array
    gc.collect()
    assert alive() is None
    assert all(map(hash, prints))

"""split: the halves make the model again, are what the network written by hand says, and cost what they must."""

import functools
import re
from functools import partial

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name as tag
from support import drawn, normal

import jaxcam
from jaxcam.cuts.model import adapted
from jaxcam.cuts.split import _features, _head

P, X = foreign.parameters(), foreign.example()
W = normal(1, 3, 4)
HAND = jax.jit(lambda x: foreign.by_hand(P, x))(X)
# What the position of a convolution means: with its batch norm, after its activation where that follows directly.
POSITIONS = ["stem_relu", "first.relu", "first.norm2", "down_relu", "second.relu", "second.norm2"]


def by_linen():
    net, variables = foreign.linen_model(P)
    return jax.tree_util.Partial(net.apply, variables)


by_nnx = functools.cache(lambda: foreign.nnx_model(P))
MODELS = {
    "plain": lambda: jax.tree_util.Partial(foreign.plain, {name: jnp.asarray(value) for name, value in P.items()}),
    "nnx": by_nnx,
    "named": lambda: jaxcam.named(by_nnx()),
    "linen": by_linen,
}


def recomposed(model, layer, x, **options):
    features, head = jaxcam.split(model, layer, x, **options)
    return head(model, features(model, x), x)


def over_floats(function, model):
    return jax.tree.map(lambda a: function(a) if jnp.issubdtype(a.dtype, jnp.floating) else a, model)


def convolutions(function, *arguments):
    return len(re.findall(r"= \S+ convolution\(", jax.jit(function).lower(*arguments).compile().as_text()))


def hand_value(layer):
    """The name in `foreign.by_hand` of what a row of the table should be."""
    if isinstance(layer, int):
        return POSITIONS[layer]
    name = str(layer).removeprefix("Net/").replace("/", ".")
    return {"None": "second", "dropout": "second"}.get(name, name)


def close(ours, theirs, rtol=1e-11):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k == "plain" else pytest.mark.thorough) for k in MODELS])
def test_every_layer_of_every_model(kind):
    model = MODELS[kind]()
    table = jaxcam.layers(model, X)
    assert len(table) >= 7
    grad_by_hand = jax.grad(lambda moved: foreign.by_hand(P, X, moved)["logits"][:, 2].sum())
    zeros = {name: np.zeros_like(value) for name, value in HAND.items() if name != "logits"}
    expected = jax.jit(grad_by_hand)(zeros)
    complete = {"stem", "stem_norm", "stem_relu", "first", "down", "down_relu", "second"}
    halves = [jaxcam.split(model, row.layer, X) for row in table]

    @jax.jit
    def at_every_layer(model, x):
        def at(features, head):
            a = features(model, x)
            return a, head(model, a, x), jax.grad(lambda a: head(model, a, x)[:, 2].sum())(a)

        return model(x), [at(*pair) for pair in halves]

    logits, found = at_every_layer(model, X)
    for row, (a, of_head, gradient) in zip(table, found, strict=True):
        name = hand_value(row.layer)
        assert (a.shape, a.dtype) == (row.shape, row.dtype)
        close(a, HAND[name])
        close(of_head, logits, rtol=1e-12)
        close(gradient, expected[name])
        assert row.complete == (name in complete), row


@pytest.mark.slow
def test_compiled_halves_add_up_exactly():
    """One compiled program computes the same as the model's, to the last bit."""
    model = jaxcam.named(foreign.nnx_model(P))
    whole = jax.jit(lambda m, x: m(x))(model, X)
    for layer in ("first.norm1", "down"):
        features, head = jaxcam.split(model, layer, X)
        both = jax.jit(lambda m, x, f=features, h=head: h(m, f(m, x), x))(model, X)
        np.testing.assert_array_equal(both, whole)


@pytest.mark.parametrize(
    ("layer", "before", "after"),
    # A complete layer leaves nothing of what comes before it. first.conv1 starts from the stem, which the skip
    # connection needs: that alone is computed again.
    [("first", 3, 3), ("second", 6, 0), ("first.conv1", 2, 5), ("second.norm2", 6, 4)],
)
@pytest.mark.sample(4)
def test_compiled_head_holds_what_it_needs_and_no_more(layer, before, after):
    model = MODELS["named"]()
    assert convolutions(lambda m, x: m(x), model, X) == 6
    features, head = jaxcam.split(model, layer, X)
    assert convolutions(features, model, X) == before
    assert convolutions(head, model, features(model, X), X) == after


def test_a_complete_head_does_not_look_at_the_images():
    model = MODELS["named"]()
    features, head = jaxcam.split(model, "first", X)
    a = features(model, X)
    np.testing.assert_array_equal(head(model, a, X), head(model, a, X + jnp.nan))
    features, head = jaxcam.split(model, "first.norm2", X)
    assert np.isnan(head(model, features(model, X), X + jnp.nan)).any()


class TestOtherArguments:
    """The halves are functions of the model and the images, not of those that split was called with."""

    @pytest.mark.parametrize("kind", [pytest.param("linen", marks=pytest.mark.thorough), "nnx"])
    def test_other_parameters_and_batch_size(self, kind):
        model = MODELS[kind]()
        features, head = jaxcam.split(model, 1, X)
        other = over_floats(lambda a: jnp.asarray(1.1 * np.abs(a)), model)

        @jax.jit
        def of(model, x):
            return head(model, features(model, x), x), model(x)

        x = foreign.example(3, 5)
        found, expected = of(other, x)
        close(found, expected, rtol=1e-12)
        assert np.abs(np.asarray(expected) - of(model, x)[1]).max() > 1e-2

    def test_vmap(self):
        model = MODELS["linen"]()
        features, head = jaxcam.split(model, "first/norm2", X)
        stacked = np.stack([X, 2 * np.asarray(X), -np.asarray(X)])

        @jax.jit
        def together(model, stacked):
            a = jax.vmap(features, (None, 0))(model, stacked)
            return a, jax.vmap(head, (None, 0, 0))(model, a, stacked)

        one_by_one = jax.jit(lambda model, x: (features(model, x), model(x)))
        for i, (a, logits) in enumerate(zip(*together(model, stacked), strict=True)):
            expected, expected_logits = one_by_one(model, stacked[i])
            close(a, expected)
            close(logits, expected_logits)

    @pytest.mark.thorough
    @pytest.mark.parametrize("kind", ["plain", "named"])
    def test_gradients_by_the_arrays_of_the_model(self, kind):
        model = MODELS[kind]()
        features, head = jaxcam.split(model, 4, X)

        def moved(step):  # all arrays at once, in one direction
            return over_floats(lambda a: a + step * normal(a.size, *a.shape), model)

        whole = lambda step: (moved(step)(X) ** 2).sum()
        halves = lambda step: (head(moved(step), features(moved(step), X), X) ** 2).sum()
        expected, found = jax.jit(lambda step: (jax.grad(whole)(step), jax.grad(halves)(step)))(0.0)
        assert abs(expected) > 1e-3
        close(found, expected, 1e-9)

    @pytest.mark.parametrize("kind", ["plain", "named", "linen"])
    def test_one_compilation(self, kind):
        model = MODELS[kind]()
        features, head = jaxcam.split(model, 2, X)
        head(model, features(model, X), X)
        counts = _features._cache_size(), _head._cache_size()
        again = over_floats(lambda a: jnp.asarray(np.asarray(a) + 1), model)
        features, head = jaxcam.split(again, 2, jnp.asarray(np.asarray(X) + 1))
        head(again, features(again, X), X)
        assert (_features._cache_size(), _head._cache_size()) == counts


class TestFunctions:
    """Functions that close over their arrays."""

    @staticmethod
    def closures(arrays):
        """Functions of all kinds that look up `arrays["w"]` when they are called."""

        def plain(x):
            return x @ arrays["w"]

        def custom_jvp(x):
            call = jax.custom_jvp(lambda v: v @ arrays["w"])
            call.defjvp(lambda p, t: (call(*p), t[0] @ arrays["w"]))
            return call(x)

        def custom_vjp(x):
            call = jax.custom_vjp(lambda v: v @ arrays["w"])
            call.defvjp(lambda v: (call(v), None), lambda _, t: (t @ arrays["w"].T,))
            return call(x)

        def numpy(x):
            return x @ np.asarray(arrays["w"])

        def scan(x):
            return jax.lax.scan(
                lambda c, _: (c + jax.jit(lambda v: v @ arrays["w"])(x), None), jnp.zeros((2, 6, 5, 4)), length=2
            )[0]

        def cond(x):
            return jax.lax.cond(x.sum() > 0, lambda v: v @ arrays["w"], lambda v: 2 * (v @ arrays["w"]), x)

        return {
            "plain": plain,
            "jit": lambda x: jax.jit(lambda v: v @ arrays["w"])(x),
            "nested jit": lambda x: jax.jit(lambda v: jax.jit(lambda u: jax.nn.relu(u @ arrays["w"]))(2 * v))(x),
            "remat": lambda x: jax.checkpoint(lambda v: jnp.sin(v @ arrays["w"]))(x),
            "numpy": numpy,
            "custom_jvp": custom_jvp,
            "custom_vjp": custom_vjp,
            "scan": scan,
            "cond": cond,
        }

    @pytest.mark.parametrize("kind", closures({}))
    def test_never_stale(self, kind):
        arrays, x = {"w": W}, normal(0, 2, 6, 5, 3)
        function = self.closures(arrays)[kind]
        # As the function of the issue: everything is new at each call but the code.
        model = lambda x: function(x).mean((1, 2))
        features, head = jaxcam.split(model, None, x)
        before = features(model, x)
        close(before, function(x))
        arrays["w"] = normal(2, 3, 4)
        close(features(model, x), function(x))
        close(head(model, features(model, x), x), model(x))
        assert np.abs(before - features(model, x)).max() > 1e-2

    def test_captured_arrays_are_arguments_of_the_program(self):
        big = normal(3, 60, 70)  # larger than anything else
        x = normal(0, 2, 2, 2, 60)
        for model in (lambda x: jnp.tanh(x @ big).mean((1, 2)), lambda x: jax.jit(lambda v: v @ big)(x).mean((1, 2))):
            known = adapted(model).hoist(jax.ShapeDtypeStruct(x.shape, x.dtype))
            assert [a.shape for a in jax.tree.leaves(known)] == [(60, 70)]
            text = _features.lower(None, known, x).as_text()
            assert re.search(r"func.func public @main\(.*tensor<60x70xf64>", text)
            assert not re.search(r"constant dense.*tensor<60x70xf64>", text)

    def test_no_new_compilation_for_a_function_made_anew(self):
        x = normal(0, 2, 6, 5, 3)
        counts = []
        for i in range(3):
            w = normal(i, 3, 4)
            model = lambda x, w=w: jax.nn.relu(x @ w).mean((1, 2))
            inner = lambda x, w=w: jax.nn.relu(x @ w).mean((1, 2))
            outer = lambda x, inner=inner: 2 * inner(x)  # captures a function
            for function in (model, outer, partial(lambda w, x: jnp.tanh(x @ w).mean((1, 2)), w)):
                features, head = jaxcam.split(function, None, x)
                close(head(function, features(function, x), x), function(x))
            counts.append((_features._cache_size(), _head._cache_size()))
        assert counts[0] == counts[1] == counts[2]

    def test_gradients_by_captured_parameters(self):
        x = normal(0, 2, 6, 5, 3)

        def loss(w, halves):
            model = lambda x: jnp.sin(jax.jit(lambda v: v @ w)(x)).mean((1, 2))
            if not halves:
                return (model(x) ** 2).sum()
            return (recomposed(model, None, x) ** 2).sum()

        expected = jax.grad(loss)(W, False)
        assert np.abs(expected).max() > 1e-3
        close(jax.grad(loss)(W, True), expected)
        close(jax.jit(jax.grad(loss), static_argnums=1)(W, True), expected)

    def test_rules_of_the_same_code_are_told_apart(self):
        """A custom derivative is no part of the program that JAX shows."""
        x = normal(0, 2, 6, 5, 3)

        def made(factor):
            @jax.custom_vjp
            def smooth(v):
                return jnp.cumsum(v, 1)

            smooth.defvjp(lambda v: (smooth(v), None), lambda _, t: (factor * t,))
            return lambda x: smooth(jax.nn.relu(x @ W)).mean((1, 2))

        for factor in (2.0, 5.0):
            model = made(factor)
            grad = jax.grad(lambda x, m=model: recomposed(m, None, x).sum())(x)
            close(grad, jax.grad(lambda x, m=model: m(x).sum())(x))

    def test_scopes_of_the_same_code_are_told_apart(self):
        x = normal(0, 2, 6, 5, 3)

        class Names:
            now = ("a", "b")

        def model(x):
            first, second = Names.now
            with jax.named_scope(first):
                x = jnp.tanh(x)
            with jax.named_scope(second):
                x = jnp.cos(x)
            return x.mean((1, 2))

        close(jaxcam.split(model, "a", x)[0](model, x), jnp.tanh(x))
        Names.now = ("b", "a")
        close(jaxcam.split(model, "a", x)[0](model, x), jnp.cos(jnp.tanh(x)))

    def test_methods_and_jitted_functions(self):
        x = normal(0, 2, 6, 5, 3)

        class Holder:  # no pytree
            def __init__(self, w):
                self.w = w

            def __call__(self, x):
                return jnp.tanh(x @ self.w).mean((1, 2))

            __hash__ = None

        for w in (W, 2 * W):
            for model in (Holder(w), Holder(w).__call__, jax.jit(Holder(w).__call__)):
                close(recomposed(model, None, x), model(x))

    def test_several_inputs(self):
        question, x = normal(3, 5), X
        network = lambda inputs, x: foreign.plain(inputs[0], x) * inputs[1][None]
        once, twice = (jaxcam.adapt((P, factor * question), apply=network) for factor in (1, 2))
        features, head = jaxcam.split(once, "second", x)
        close(head(twice, features(once, x), x), 2 * foreign.plain(P, x) * question[None])


@jax.custom_jvp
def smooth(v):
    v = tag(jnp.cumsum(v, 1), "inside")
    return v + v.mean((1, 2), keepdims=True)


@smooth.defjvp
def _(primals, tangents):
    return smooth(*primals), 3 * tangents[0]


@jax.custom_vjp
def smoothed(v):
    v = tag(jnp.cumsum(v, 1), "inside")
    return v + v.mean((1, 2), keepdims=True)


smoothed.defvjp(lambda v: (smoothed(v), None), lambda _, t: (3 * t,))


class TestNestedCalls:
    x = normal(0, 2, 6, 5, 3)

    @pytest.mark.parametrize(
        "call",
        [
            jax.jit,
            lambda f: jax.jit(jax.jit(f)),
            jax.checkpoint,
            lambda f: jax.checkpoint(jax.jit(f)),
            lambda f: jax.vmap(f),
            lambda f: jax.jit(jax.vmap(jax.checkpoint(f))),
            lambda f: lambda x: jax.linearize(f, x)[0],
            lambda f: lambda x: nnx.jit(lambda m, x: f(x))(nnx.Dict(), x),
            lambda f: lambda x: nnx.remat(lambda m, x: f(x))(nnx.Dict(), x),
        ],
    )
    def test_layer_inside(self, call):
        inner = call(lambda v: jnp.sin(tag(jnp.cos(v @ W), "here")) + 0.1 * (v @ W))
        model = lambda x: jnp.tanh(inner(jnp.exp(x))).mean((1, 2))
        features, head = jaxcam.split(model, "here", self.x)
        a, direct = jnp.cos(jnp.exp(self.x) @ W), 0.1 * (jnp.exp(self.x) @ W)
        close(features(model, self.x), a)
        rest = lambda a: jnp.tanh(jnp.sin(a) + direct).mean((1, 2))
        close(head(model, a + 1, self.x), rest(a + 1))
        grad = jax.grad(lambda a: head(model, a, self.x)[0, 1])(a)
        close(grad, jax.grad(lambda a: rest(a)[0, 1])(a))
        (row,) = [row for row in jaxcam.layers(model, self.x) if row.layer == "here"]
        assert not row.complete

    @pytest.mark.parametrize("rule", [smooth, smoothed])
    def test_custom_derivatives(self, rule):
        """The rule holds where the layer is elsewhere, or is what the call returns; not for a part of the call."""
        model = lambda x: jnp.sin(rule(tag(x @ W, "before"))).mean((1, 2))
        features, head = jaxcam.split(model, "before", self.x)
        a = features(model, self.x)
        tail = lambda v: jnp.sin(v).mean((1, 2))[0, 1]
        expected = 3 * jax.grad(tail)(rule(a))
        close(jax.grad(lambda a: head(model, a, self.x)[0, 1])(a), expected)
        # The default is what the call returns.
        last = lambda x: rule(x @ W).mean((1, 2))
        features, head = jaxcam.split(last, None, self.x)
        close(features(last, self.x), rule(a))
        close(jax.grad(lambda x: features(last, x).sum())(self.x), jnp.full_like(a, 3) @ W.T)
        # Inside.
        features, head = jaxcam.split(model, "inside", self.x)
        b = features(model, self.x)
        close(b, jnp.cumsum(a, 1))
        rest = lambda b: tail(b + b.mean((1, 2), keepdims=True))
        close(jax.grad(lambda b: head(model, b, self.x)[0, 1])(b), jax.grad(rest)(b))

    def test_rematerialisation_is_kept_elsewhere(self):
        block = jax.checkpoint(lambda v: jnp.sin(tag(jnp.sin(v @ W), "inside")))
        model = lambda x: tag(block(x), "out").mean((1, 2))
        for layer, count in (("out", 1), ("inside", 0)):
            features, _ = jaxcam.split(model, layer, self.x)
            program = str(jax.make_jaxpr(lambda x, f=features: f(model, x))(self.x))
            assert len(re.findall(r"= (checkpoint|remat2)\[", program)) == count

    def test_what_a_call_hands_out_beside_the_layer_may_follow_from_it(self):
        """Of remat(x -> b, cos b) cut at b, the second result moves with the first."""

        def model(x):
            b, beside = jax.checkpoint(lambda v: (b := tag(jnp.sin(v @ W), "here"), jnp.cos(b)))(x)
            return jnp.tanh(b).mean((1, 2)) + beside.sum((1, 2))

        features, head = jaxcam.split(model, "here", self.x)
        b = features(model, self.x)
        rest = lambda b: jnp.tanh(b).mean((1, 2)) + jnp.cos(b).sum((1, 2))
        close(head(model, b + 1, self.x), rest(b + 1))
        close(jax.grad(lambda b: head(model, b, self.x)[0, 1])(b), jax.grad(lambda b: rest(b)[0, 1])(b))

    def test_one_of_several_results(self):
        def model(x):
            with jax.named_scope("loop"):
                carry, each = jax.lax.scan(lambda c, _: (jnp.sin(c), c), x @ W, length=3)
            return tag(carry, "carry").mean((1, 2)) + jnp.cos(each).sum((0, 2, 3))

        for layer in ("loop", "carry"):
            features, head = jaxcam.split(model, layer, self.x)
            a = features(model, self.x)
            close(head(model, a, self.x), model(self.x))
            # What comes in is what is used, not what the loop gives again.
            assert np.abs(head(model, a + 1, self.x) - model(self.x)).min() > 1e-3

    @pytest.mark.parametrize(
        ("holder", "loop"),
        [
            ("while", lambda f, x: jax.lax.while_loop(lambda c: c.sum() < -1e9, f, x)),
            ("cond", lambda f, x: jax.lax.cond(x.sum() > 0, f, lambda x: x, x)),
        ],
    )
    def test_loops_and_branches(self, holder, loop):
        def body(x):
            with jax.named_scope("block"):
                return tag(jnp.sin(x), "here")

        model = lambda x: tag(loop(body, jnp.cos(x)), "after").mean((1, 2))
        for layer in ("here", "block"):
            with pytest.raises(ValueError, match=rf"layer='{layer}' is inside a {holder}, .*\n(.|\n)*'after'"):
                jaxcam.split(model, layer, self.x)
        close(jaxcam.split(model, "after", self.x)[0](model, self.x), loop(jnp.sin, jnp.cos(self.x)))

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("length", [5, 70])  # of a long scan the round that is named is written out
    @pytest.mark.sample(2)
    def test_rounds_of_a_scan(self, reverse, length):
        scales = np.linspace(0.5, 1.5, length)

        def body(c, factor):
            with jax.named_scope("block"):
                c = jax.checkpoint(lambda c: tag(jnp.sin(factor * c), "here"))(c)
            return c + 0.1, c.mean()

        def model(x):
            with jax.named_scope("blocks"):
                last, means = jax.lax.scan(body, x @ W, scales, reverse=reverse)
            return last.mean((1, 2)) + (means * np.arange(float(length))).sum()

        factors = scales[::-1] if reverse else scales
        values = [self.x @ W]
        for factor in factors:
            values.append(np.sin(factor * np.asarray(values[-1])) + 0.1)

        def rest(i, a):
            total = 0.0
            for j in range(i, length):
                a = jnp.sin(factors[j] * (a + 0.1)) if j > i else a
                total += a.mean() * (length - 1 - j if reverse else j)
            return ((a + 0.1).mean((1, 2)) + total).sum()

        for i in (length // 2, 0 if length > 5 else 4):
            features, head = jaxcam.split(model, f"blocks[{i}]/block", self.x)
            a = features(model, self.x)
            close(a, values[i + 1] - 0.1)
            close(head(model, a, self.x), model(self.x))
            if length == 5:
                gradient = jax.jit(jax.grad(lambda a, head=head: head(model, a, self.x).sum()))(a)
                close(gradient, jax.jit(jax.grad(partial(rest, i)))(a), 1e-8)
        close(jaxcam.split(model, "here", self.x)[0](model, self.x), values[-1] - 0.1)  # the last round

    @pytest.mark.parametrize("length", [3, 70])
    @pytest.mark.parametrize("way", ["up", "down"])
    @pytest.mark.sample(2, 1)
    def test_rounds_that_are_counted(self, way, length):
        """The weights of round i are taken by the loop's counter, which depends on nothing: all flows through x."""
        weights = drawn(2, length, 4, 4) / 8  # more, and 70 rounds would amplify rounding
        order = range(length) if way == "up" else range(length)[::-1]

        def turn(x, weight):
            return jnp.sin(x @ weight) + x.mean(1, keepdims=True)

        def model(x):
            x = jnp.concatenate([jnp.ones((len(x), 1, 4)), (x @ W).reshape(len(x), -1, 4)], 1)
            with jax.named_scope("blocks"):
                if way == "up":
                    x = jax.lax.fori_loop(0, length, lambda i, x: turn(x, jnp.asarray(weights)[i]), x)
                else:
                    body = lambda state, _: ((turn(state[0], jnp.asarray(weights)[state[1]]), state[1] - 1), None)
                    x = jax.lax.scan(body, (x, length - 1), length=length)[0][0]
            return x[:, 0]

        tokens = (np.asarray(self.x) @ W).reshape(2, -1, 4)
        values = [np.concatenate([np.ones((2, 1, 4)), tokens], 1)]
        for i in order:
            values.append(np.asarray(np.sin(values[-1] @ weights[i]) + values[-1].mean(1, keepdims=True)))
        features, head = jaxcam.split(model, None, self.x)  # of the last round one token alone is read
        a = features(model, self.x)
        close(a, values[-2])
        close(head(model, a + 1, self.x), turn(values[-2] + 1, weights[order[-1]])[:, 0])
        features, head = jaxcam.split(model, "blocks[1]", self.x)
        a = features(model, self.x)
        close(a, values[2])
        close(head(model, a, self.x), values[-1][:, 0])  # the rounds behind it count on


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"layer": 1.5}, TypeError, r"layer must be a name, the position of a convolution, or None .* not 1.5"),
            ({"layer": True}, TypeError, r"layer must be a name.* not True"),
            ({"layer": b"second"}, TypeError, r"layer must be a name.* not b'second'"),
            ({"layer": ["second"]}, TypeError, r"layer must be a name.* not \['second'\]"),
            ({"layer": jnp.int32(1)}, TypeError, r"layer must be a name.* not Array"),
            (
                {"layer": "third"},
                ValueError,
                r"layer='third' is not in this model. Its layers are:\nlayer .*\n.*'stem'",
            ),
            ({"layer": ""}, ValueError, r"layer='' is not in this model"),
            ({"layer": 6}, ValueError, r"layer=6 is not in this model"),
            ({"layer": -7}, ValueError, r"layer=-7 is not in this model"),
            ({"inputs": X[0, 0]}, ValueError, r"inputs must be \[n, \*spatial, d\].* came as \[11, 3\]"),
            ({"inputs": X[:0]}, ValueError, r"inputs must have one example or more but came as \[0, 12, 11, 3\]"),
            ({"inputs": [[1.0]]}, TypeError, r"inputs must be an array .* but is float"),
            ({"model": nnx.Linear}, TypeError, r"model must be an instance but is the class Linear itself"),
            ({"model": {"w": W}}, TypeError, r"model must be something that can be called.* but is dict"),
            ({"model": lambda x: None}, TypeError, r"but returned nothing"),
            (
                {"model": lambda x: x.mean((1, 2)).argmax(1)},
                TypeError,
                r"must return floating-point numbers but returned int64\[2\]",
            ),
            ({"model": lambda x: x.mean((0, 1))}, ValueError, r"must keep the axis n .* returned float64\[11, 3\]"),
        ],
    )
    @pytest.mark.usefixtures("unchecked")
    def test_documented_errors(self, change, error, message):
        model = MODELS["named"]()
        jaxcam.split(model, 1, X)  # True must not be taken for 1
        arguments = {"model": model, "layer": None, "inputs": X} | change
        with pytest.raises(error, match=message):
            jaxcam.split(arguments.pop("model"), arguments.pop("layer"), arguments.pop("inputs"), **arguments)

    @pytest.mark.usefixtures("unchecked")
    def test_a_position_from_numpy(self):
        model = MODELS["nnx"]()
        close(jaxcam.split(model, np.int64(-1), X)[0](model, X), HAND["second.norm2"])

    @pytest.mark.thorough
    @pytest.mark.usefixtures("unchecked")
    def test_activations_of_other_images(self):
        model = MODELS["nnx"]()
        features, head = jaxcam.split(model, 1, X)
        with pytest.raises(ValueError, match=r"activations must be \[2, 6, 6, 8\] .* came as \[1, 6, 6, 8\]"):
            head(model, features(model, X)[:1], X)
        with pytest.raises(TypeError, match=r"activations must be"):
            head(model, "second", X)

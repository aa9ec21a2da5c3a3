"""All steps of a recurrent network as one layer, against the same network written out step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name as tag
from support import drawn

import jaxcam

C, T, K = 2, 4, 3
SERIES = drawn(0, 2, T, 2)
IN, STATE, OUT = drawn(1, 2, K), drawn(2, K, K) / 2, drawn(3, K, 5)


def moved(step, start, inputs, read, like, reverse=False):
    """Y(d) and the steps' values, where d_t `[t, ...]` is added to the value of step t: a loop in Python."""

    def run(d):
        state, values, outputs = start, [None] * T, [None] * T
        for t in reversed(range(T)) if reverse else range(T):
            values[t] = step(state, inputs[t]) + d[t]
            state, outputs[t] = values[t], jnp.sin(values[t])
        return read(state, jnp.stack(outputs))[C], jnp.stack(values)

    return run, jnp.zeros((T, *like))


def cell(h, x):
    h = tag(jnp.tanh(x @ IN + h @ STATE), "h")
    return h, jnp.sin(h)


def recurrent(read, reverse=False, body=cell):
    def model(x):
        steps = jnp.moveaxis(x, 1, 0)
        last, outputs = jax.lax.scan(body, jnp.zeros((len(x), K)), steps, reverse=reverse)
        return jax.vmap(read, (0, 1))(last, outputs)

    return model


READ = {"state": lambda last, outputs: last @ OUT, "outputs": lambda last, outputs: outputs.mean(0) @ -OUT}


@pytest.mark.parametrize(("read", "reverse"), [("state", False), ("outputs", True)])
@pytest.mark.sample(2, first=1)
def test_what_a_step_does_to_later_ones_counts(read, reverse):
    """Grad-CAM and exact Grad-CAM++: derivatives by what is added to one step, of which the later ones are made."""
    body = jax.checkpoint(cell) if reverse else cell
    model = recurrent(READ[read], reverse, body)

    @jax.jit
    def expected(x):
        run, zero = moved(lambda h, x: jnp.tanh(x @ IN + h @ STATE), jnp.zeros(K), x, READ[read], (K,), reverse)

        def along(direction):
            f = lambda z: jnp.exp(run(z * direction.reshape(T, K))[0] - run(zero)[0])
            d1 = lambda z: jax.jvp(f, (z,), (1.0,))[1]
            d2 = lambda z: jax.jvp(d1, (z,), (1.0,))[1]
            return jnp.stack([d1(0.0), *jax.jvp(d2, (0.0,), (1.0,))])

        gradient, values = jax.grad(run, has_aux=True)(zero)
        d1, d2, d3 = jax.vmap(along)(np.eye(T * K)).T.reshape(3, T, K)
        alphas = d2 / (2 * d2 + values.sum(0, keepdims=True) * d3)
        weights = jnp.stack([gradient.mean(0), (alphas * jax.nn.relu(d1)).sum(0)])
        return jax.nn.relu(jnp.einsum("tk,mk->mt", values, weights))

    layer = "scan[:]/h"
    methods = [{"method": "grad_cam"}, {"method": "grad_cam_pp", "alphas": "exact"}]
    for m, options in enumerate(methods[:1] if reverse else methods):
        found = jaxcam.explain(model, SERIES[:1], class_idx=C, layer=layer, **options)
        by_hand = np.asarray(expected(SERIES[0]))[m]
        assert by_hand.max() > 0
        np.testing.assert_allclose(found.cam_map[0], by_hand, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(found.heatmap[0], by_hand / by_hand.max(), rtol=1e-7, atol=1e-9)


def test_clips():
    """Convolutions in the step: `[t, i, j, k]`, a map for each frame; of long clips, and what flows past is said."""
    clips = drawn(4, 2, T, 6, 8, 2)
    first, second = drawn(5, 3, 3, 2, K), drawn(6, 3, 3, K, K) / 3

    def conv(x, kernel, step=1):
        return jax.lax.conv_general_dilated(x, kernel, (step, step), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def step(h, x):
        return jnp.tanh(conv(x, first, 2) + conv(h, second))

    def model(x):
        def body(h, x):
            h = tag(step(h, x), "h")
            return h, None

        return jax.lax.scan(body, jnp.zeros((len(x), 3, 4, K)), jnp.moveaxis(x, 1, 0))[0].mean((1, 2)) @ OUT

    @jax.jit
    def expected(clip):
        read = lambda last, outputs: (last.mean((1, 2)) @ OUT)[0]
        run, zero = moved(step, jnp.zeros((1, 3, 4, K)), clip[:, None], read, (1, 3, 4, K))
        gradient, values = jax.grad(run, has_aux=True)(zero)
        return jax.nn.relu((values * gradient.mean((0, 1, 2, 3), keepdims=True)).sum(-1))[:, 0]

    found = jaxcam.explain(model, clips, class_idx=C, layer="scan[:]/h")
    np.testing.assert_allclose(found.cam_map, [expected(clip) for clip in clips], rtol=1e-8, atol=1e-12)
    assert found.heatmap.shape == clips.shape[:-1]
    rows = {row.layer: row for row in jaxcam.layers(model, clips)}
    assert rows["scan[:]/h"].grid == "4x3x4"
    assert rows["scan[:]/h"].complete
    assert rows["scan[:]/h"].shape == (2, T, 3, 4, K)


@pytest.mark.thorough
def test_of_two_directions_each_is_a_part():
    def model(x):
        forth, back = (recurrent(READ["outputs"], reverse)(x) for reverse in (False, True))
        return forth + back

    rows = [row for row in jaxcam.layers(model, SERIES) if "[:]" in str(row.layer)]
    assert [(row.layer, row.complete) for row in rows if row.kind == "tag"] == [
        ("scan[:]/h:0", False),
        ("scan[:]/h:1", False),
    ]
    found = jaxcam.explain(model, SERIES, class_idx=C, layer="scan[:]/h:1")
    alone = jaxcam.explain(recurrent(READ["outputs"], True), SERIES, class_idx=C, layer="scan[:]/h")
    np.testing.assert_allclose(found.cam_map, alone.cam_map, rtol=1e-10)
    assert jaxcam.Status.BYPASSED in found.status.tolist()


def test_the_second_of_two_in_a_row():
    """Its rounds are positions of the input because those of the first are."""

    def two(x):
        steps = jnp.moveaxis(x, 1, 0)
        first = jax.lax.scan(lambda h, x: (jnp.tanh(x @ IN + h),) * 2, jnp.zeros((len(x), K)), steps)[1]
        body = lambda h, x: (tag(jnp.tanh(x @ STATE + h), "second"),) * 2
        return jax.lax.scan(body, jnp.zeros((len(x), K)), first)[0] @ OUT

    @jax.jit
    def expected(x):
        h, first = jnp.zeros(K), []
        for t in range(T):
            h = jnp.tanh(x[t] @ IN + h)
            first.append(h)
        read = lambda last, outputs: last @ OUT
        run, zero = moved(lambda h, x: jnp.tanh(x @ STATE + h), jnp.zeros(K), first, read, (K,))
        gradient, values = jax.grad(run, has_aux=True)(zero)
        return jax.nn.relu(values @ gradient.mean(0))

    found = jaxcam.explain(two, SERIES, class_idx=C, layer="scan[:]/second")
    np.testing.assert_allclose(found.cam_map, [expected(x) for x in SERIES], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["nnx", pytest.param("linen", marks=pytest.mark.thorough)])
def test_recurrent_layers_of_flax(kind):
    """Its own cell, called step by step."""
    series = SERIES.astype(np.float32)
    if kind == "nnx":

        class Recurrent(nnx.Module):
            def __init__(self, rngs):
                self.rnn = nnx.RNN(nnx.GRUCell(2, K, rngs=rngs))

            def __call__(self, x):
                return self.rnn(x)[:, -1] @ OUT.astype(x.dtype)

        net = Recurrent(nnx.Rngs(0))
        step, layer = (lambda h, x: net.rnn.cell(h, x)[0]), "scan[:]"
    else:
        module = linen.RNN(linen.SimpleCell(K), name="rnn")
        variables = module.init(jax.random.key(0), series)
        cell = linen.SimpleCell(K)
        step = lambda h, x: cell.apply({"params": variables["params"]["cell"]}, h, x)[0]
        net = jaxcam.adapt(variables, apply=lambda v, x: module.apply(v, x)[:, -1] @ OUT.astype(x.dtype))
        layer = "rnn[:]"

    @jax.jit
    def expected(x):
        read = lambda last, outputs: last @ OUT.astype(x.dtype)
        run, _ = moved(step, jnp.zeros(K, x.dtype), x, read, (K,))
        gradient, values = jax.grad(run, has_aux=True)(jnp.zeros((T, K), x.dtype))
        return jax.nn.relu(values @ gradient.mean(0))

    found = jaxcam.explain(net, series, class_idx=C, layer=layer)
    np.testing.assert_allclose(found.cam_map, [expected(x) for x in series], rtol=1e-4, atol=1e-5)


def test_what_puts_values_in_the_steps_places():
    """A step that later ones follow from has no other value of its own; frames one by one have."""
    with pytest.raises(ValueError, match=r"'ablation_cam' puts other activations .* layer='scan\[:\]/h' follow from"):
        jaxcam.explain(recurrent(READ["state"]), SERIES, layer="scan[:]/h", method="ablation_cam")
    frames = lambda x: jnp.moveaxis(jax.lax.map(lambda x: tag(jnp.tanh(x @ IN), "h"), jnp.moveaxis(x, 1, 0)), 0, 1)
    found = jaxcam.explain(
        lambda x: frames(x).mean(1) @ OUT, SERIES, class_idx=C, layer="scan[:]/h", method="ablation_cam"
    )
    at_once = lambda x: tag(jnp.tanh(x @ IN), "h").mean(1) @ OUT
    expected = jaxcam.explain(at_once, SERIES, class_idx=C, layer="h", method="ablation_cam")
    np.testing.assert_allclose(found.cam_map, expected.cam_map, rtol=1e-10)


def test_rounds_that_are_no_positions_are_no_steps():
    """Blocks in a scan are one after the other, and none of them has a time."""
    model = lambda x: jax.lax.scan(lambda t, w: (tag(jnp.tanh(t @ w), "h"), None), x, drawn(7, 3, 2, 2))[0].mean(1)
    assert not [row for row in jaxcam.layers(model, SERIES) if "[:]" in str(row.layer)]
    with pytest.raises(ValueError, match=r"layer='scan\[:\]/h' is not in this model"):
        jaxcam.explain(model, SERIES, layer="scan[:]/h")

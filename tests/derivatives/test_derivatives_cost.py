"""What `elementwise_derivatives` costs, counted in the compiled programs: operations, memory, rounds of loops."""

import jax
import jax.numpy as jnp
import numpy as np
from support import normal

from jaxcam.derivatives import elementwise_derivatives

METHODS = ("auto", "factored", "jvp", "grad")


def flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_a_pooled_head_costs_passes_for_channels_not_for_elements():
    weights = [normal(0, 8, 64), normal(1, 64, 64), normal(2, 64)]

    def f(a):
        z = jax.nn.gelu(jax.nn.gelu(a.mean((0, 1)) @ weights[0]) @ weights[1])
        return z @ weights[2]

    few, many = (flops(lambda a: elementwise_derivatives(f, a), normal(0, n, n, 8)) for n in (1, 10))
    everywhere = flops(lambda a: elementwise_derivatives(f, a, method="jvp", chunk_size=800), normal(0, 10, 10, 8))
    assert many < 1.2 * few
    assert everywhere > 50 * many


def test_exp_of_a_logit_costs_a_forward_and_a_backward_pass():
    w1, w2 = normal(0, 400, 300), normal(1, 300, 10)
    logit = lambda a: (jax.nn.relu(a.reshape(-1) @ w1) @ w2)[3]
    a = normal(2, 10, 10, 4)
    once = flops(jax.value_and_grad(logit), a)
    assert flops(lambda a: elementwise_derivatives(lambda a: jnp.exp(logit(a)), a), a) < 1.1 * once


def test_softmax_costs_one_jacobian():
    w1, w2 = normal(0, 400, 300), normal(1, 300, 10)
    logits = lambda a: jax.nn.relu(a.reshape(-1) @ w1) @ w2
    a = normal(2, 10, 10, 4)
    jacobian = flops(jax.jacrev(logits), a)
    assert flops(lambda a: elementwise_derivatives(lambda a: jax.nn.softmax(logits(a))[3], a), a) < 1.3 * jacobian


def test_auto_leaves_the_jacobian_where_elements_are_fewer():
    w1, w2 = normal(0, 4, 200), normal(1, 200, 300)
    f = lambda a: jax.nn.softmax(jax.nn.relu(a @ w1) @ w2)[3]
    cost = {m: flops(lambda a, m=m: elementwise_derivatives(f, a, method=m), normal(2, 4)) for m in METHODS}
    assert cost["auto"] < 1.1 * cost["jvp"] < 0.7 * cost["factored"]


def test_every_order_costs_the_same():
    # Nested jvp as XLA compiles it: equal tangents are merged, so that three orders take three passes, not seven.
    # This is what Taylor mode would save.
    w1, w2 = normal(0, 64, 200), normal(1, 200, 200)
    f = lambda a: jnp.exp(jnp.sum(jnp.tanh(jnp.tanh(a @ w1) @ w2)))
    a = normal(2, 64)
    cost = [flops(lambda a, n=n: elementwise_derivatives(f, a, order=n, method="jvp"), a) for n in (1, 2, 3, 4)]
    assert np.diff(cost).max() < 1.1 * cost[0]


def test_chunks_bound_the_memory():
    weights = normal(0, 256, 256)
    f = lambda a: jnp.sum(jnp.tanh(jnp.tanh(a**2 @ weights) @ weights))

    def temporary(differentiated, chunk_size):
        g = lambda a: elementwise_derivatives(f, a, chunk_size=chunk_size)
        h = jax.grad(lambda a: sum(d.sum() for d in g(a))) if differentiated else g
        return jax.jit(h).lower(normal(1, 256)).compile().memory_analysis().temp_size_in_bytes

    for differentiated in (False, True):
        assert temporary(differentiated, 8) < temporary(differentiated, 256) / 4


def test_chunks_go_through_together(monkeypatch):
    smooth = lambda a: jnp.exp(jnp.tanh(jnp.tanh(a) @ normal(1, 16, 4)).sum())

    def rounds(**options):
        jaxpr = jax.make_jaxpr(lambda a: elementwise_derivatives(smooth, a, **options))(normal(0, 16))
        return [eqn.params["length"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]

    assert rounds(chunk_size=5) == [3]  # and what is left, one, after them
    assert rounds() == []  # all at once: this is little
    monkeypatch.setattr("jaxcam.derivatives.directions._CHUNK_BYTES", 4000)
    assert sum(rounds()) > 1

"""A training step with maps, divided among eight virtual devices, for the test beside: prints a line of JSON."""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcam import learning

jax.config.update("jax_enable_x64", True)
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
RANDOM = np.random.default_rng(0)
PICTURES, LABELS = RANDOM.normal(size=(16, 8, 8, 3)), RANDOM.integers(4, size=16)
MASKS = RANDOM.uniform(size=(16, 8, 8)) > 0.5
PARAMETERS = {"kernel": RANDOM.normal(size=(3, 3, 3, 6)), "head": RANDOM.normal(size=(384, 4)) / 8}
OPTIMIZER = optax.adam(1e-2)


def network(parameters, x):
    a = jax.lax.conv_general_dilated(
        x, parameters["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(a).reshape(len(x), -1) @ parameters["head"]


def trained(method, where):
    """The parameters after three steps, the program, and how the maps lie."""
    put = lambda value, spec: value if where is None else jax.device_put(value, NamedSharding(where, spec))

    @jax.jit
    def step(parameters, state, pictures, labels, masks):
        def loss(parameters):
            model = jax.tree_util.Partial(network, parameters)
            logits, maps = learning.forward(model, pictures, labels, method=method)
            entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return (entropy + jax.vmap(learning.inside)(maps, masks)).mean(), maps

        gradient, maps = jax.grad(loss, has_aux=True)(parameters)
        moves, state = OPTIMIZER.update(gradient, state)
        return optax.apply_updates(parameters, moves), state, maps

    split, whole = PartitionSpec("data"), PartitionSpec()
    parameters = put(jax.tree.map(jnp.asarray, PARAMETERS), whole)
    state = put(OPTIMIZER.init(parameters), whole)
    batch = [put(jnp.asarray(each), split) for each in (PICTURES, LABELS, MASKS)]
    program = step.lower(parameters, state, *batch).compile().as_text()
    for _ in range(3):
        parameters, state, maps = step(parameters, state, *batch)
    return jax.device_get(parameters), program, maps


mesh = Mesh(np.array(jax.devices()), ("data",))
told = {}
for method in ("grad_cam", "grad_cam_pp"):
    (one, _, _), (many, program, maps) = trained(method, None), trained(method, mesh)
    told[method] = {
        "difference": max(float(np.abs(one[name] - many[name]).max()) for name in one),
        "moved": float(np.abs(one["kernel"] - PARAMETERS["kernel"]).max()),
        "collectives": sorted({c for c in COLLECTIVES if f" {c}(" in program or f" {c}-start(" in program}),
        "divided": maps.addressable_shards[0].data.shape[0] == 2,
    }
print(json.dumps(told))

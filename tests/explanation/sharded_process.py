"""Explanations of a batch that is divided among eight virtual devices, for the test beside: prints a line a method."""

import json
import os

# In a hurry behind what is tried here: how a program is divided is decided before LLVM sees it.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxcam

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
RANDOM = np.random.default_rng(0)
KERNEL, HEAD = (RANDOM.normal(size=s).astype(np.float32) for s in ((3, 3, 3, 6), (384, 4)))
IMAGES = RANDOM.normal(size=(16, 8, 8, 3)).astype(np.float32)


def network(x, activation=jax.nn.relu):
    a = jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return activation(a).reshape(len(x), -1) @ HEAD


def smooth(x):
    return network(x, jax.nn.gelu)


mesh = Mesh(np.array(jax.devices()), ("images",))
where = NamedSharding(mesh, PartitionSpec("images"))
FEATURES = np.asarray(RANDOM.normal(size=(3, 4, 6)), np.float32)


def transformer(x):
    q, k, v = (x.reshape(len(x), 16, 12) @ np.tile(kernel, (3, 1)) for kernel in FEATURES)
    return (jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v).reshape(len(x), -1) @ HEAD[:96]


networks = {True: transformer, False: network}
cases = {
    name: (networks[method.needs_attention], {"method": name})
    for name, method in jaxcam.methods.METHODS.items()
    if name != "cam"
}
cases["smooth_grad_cam_pp"][1].update(key=jax.random.key(0), num_samples=2)
cases |= {
    "softmax": (network, {"method": "grad_cam_pp", "score": "softmax"}),
    "exact": (smooth, {"method": "grad_cam_pp", "alphas": "exact"}),
    "top": (network, {"top": 2}),
}
for name, (model, options) in cases.items():

    def explain(images, model=model, options=options):
        return jaxcam.explain(model, images, **options)

    on_one, on_all = explain(IMAGES), explain(jax.device_put(IMAGES, where))
    spec = jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype, sharding=where)
    program = jax.jit(explain).lower(spec).compile().as_text().splitlines()
    split = PartitionSpec("images")
    inside = jax.jit(jax.shard_map(explain, mesh=mesh, in_specs=split, out_specs=split))(IMAGES)
    told = {
        "name": name,
        "is_divided": all(leaf.addressable_shards[0].data.shape[0] == 2 for leaf in jax.tree.leaves(on_all)),
        "collectives": [line.split("{")[0] for line in program if any(f" {c}(" in line for c in COLLECTIVES)],
        "difference": max(float(jnp.abs(found.heatmap - on_one.heatmap).max()) for found in (on_all, inside)),
        "maximum": float(on_one.heatmap.max()),
    }
    print(json.dumps(told), flush=True)

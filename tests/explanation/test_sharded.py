"""Batches on several devices: what is divided stays divided, and `explain` works inside `jax.shard_map`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from support import relu_head

import jaxcam
from jaxcam.explanation.batch import _one_by_one

RANDOM = np.random.default_rng(0)
KERNEL, F = RANDOM.normal(size=(3, 5)), relu_head((3, 4), 5, 4)
IMAGES = RANDOM.normal(size=(2, 6, 8, 3))


def network(x):
    return jax.vmap(F)(jax.nn.relu(x[:, ::2, ::2] @ KERNEL))


def transformer(x):
    """A token for four pixels."""
    q, k, v = (x.reshape(len(x), 12, 12) @ np.tile(KERNEL * i, (4, 1)) for i in (1, 2, 3))
    return jax.vmap(F)((jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v).reshape(-1, 3, 4, 5))


@pytest.mark.parametrize("name", [name for name in jaxcam.methods.METHODS if name != "cam"])
@pytest.mark.sample(4)
def test_explain_inside_shard_map_with_its_checks(name):
    options = {"key": jax.random.key(0), "num_samples": 2} if name == "smooth_grad_cam_pp" else {}
    mesh, split = Mesh(np.array(jax.devices()[:1]), ("images",)), PartitionSpec("images")
    model = transformer if jaxcam.methods.METHODS[name].needs_attention else network
    explain = lambda x: jaxcam.explain(model, x, method=name, **options).heatmap
    inside = jax.shard_map(explain, mesh=mesh, in_specs=split, out_specs=split)
    assert jax.eval_shape(inside, IMAGES).shape == (2, 6, 8)  # the checks are made while it is traced


def test_a_model_inside_shard_map_is_refused_with_the_way_on():
    mesh, split = Mesh(np.array(jax.devices()[:1]), ("images",)), PartitionSpec("images")
    for divided in (
        jax.shard_map(network, mesh=mesh, in_specs=split, out_specs=split),
        lambda x: jax.pmap(network)(x[None])[0],
    ):
        with pytest.raises(ValueError, match="explain the function that shard_map or pmap runs, or inside of them"):
            jaxcam.explain(divided, IMAGES)


def test_explicit_axes_are_refused_with_the_way_on():
    mesh, split = jax.make_mesh((1,), ("images",), axis_types=(AxisType.Explicit,)), PartitionSpec("images")
    explain = lambda x: jaxcam.explain(network, x).cam_map
    images = jax.device_put(IMAGES, NamedSharding(mesh, split))
    for given in (explain, jax.jit(explain)):
        with pytest.raises(TypeError, match=r"inputs must be sharded over automatic axes .*jax\.set_mesh"):
            given(images)
    with jax.set_mesh(mesh):
        found = jax.jit(jax.sharding.auto_axes(explain, out_sharding=split))(images)
    np.testing.assert_allclose(found, explain(IMAGES), rtol=1e-12)
    automatic = jax.make_mesh((1,), ("images",), axis_types=(AxisType.Auto,))
    np.testing.assert_allclose(explain(jax.device_put(IMAGES, NamedSharding(automatic, split))), found, rtol=1e-12)


def test_one_of_every_part_at_a_time_is_one_after_the_other():
    x, y = RANDOM.normal(size=(6, 2)), np.arange(6.0)
    function = lambda x, y: (x * y, y + 1)
    for num_shards in (1, 2, 3, 6):
        a, b = jax.jit(lambda *xs, n=num_shards: _one_by_one(function, n, *xs))(x, y)
        np.testing.assert_allclose(a, x * y[:, None], rtol=1e-15)
        np.testing.assert_array_equal(b, y + 1)


@pytest.mark.slow
def test_batches_stay_divided_and_nothing_is_collected():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "sharded_process.py")],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(jaxcam.methods.METHODS) + 2
    for case in found:
        assert case["is_divided"], case
        assert case["maximum"] > 0.5, case
        assert case["difference"] < 1e-4, case
        # The largest of the logits are found by sorting, which XLA does not divide: [16, 4] of them are collected.
        expected = ["f32[16,4]"] if case["name"] == "top" else []
        assert len(case["collectives"]) == len(expected), case
        assert all(shape in line for shape, line in zip(expected, case["collectives"], strict=True)), case

"""Devices and processes: arrays to all of them, figures from all of them, and what a lost process looks like."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcam.evaluation.plan import AXIS


def mesh_of(mesh: Any) -> Mesh:
    """The devices of a mesh in a row; of all processes by default.

    Raises:
        TypeError: mesh is no `jax.sharding.Mesh`.
        ValueError: a process has no device in it.
    """
    if mesh is None:
        return Mesh(np.asarray(jax.devices()), (AXIS,))
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, as jax.make_mesh((8,), ('images',)), not {mesh!r}")
    devices = np.asarray(mesh.devices).reshape(-1)
    missing = set(range(jax.process_count())) - {device.process_index for device in devices}
    if missing:
        raise ValueError(f"mesh has no device of process {min(missing)}: all processes of a run take part in it")
    return Mesh(devices, (AXIS,))


def own_places(mesh: Mesh) -> list[int]:
    """Which of the mesh's devices belong to this process."""
    return [i for i, device in enumerate(mesh.devices) if device.process_index == jax.process_index()]


def replicated(mesh: Mesh, arrays: list[Any]) -> list[Any]:
    """The arrays on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def one(array: Any) -> Any:
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = jax.make_array_from_process_local_data(sharding, np.asarray(jax.random.key_data(array)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    return [one(array) for array in arrays]


def sharded(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """An array of which every process holds the part of its devices."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(AXIS)), array)


def own(array: jax.Array) -> np.ndarray:
    """The part of a sharded array that is on this process's devices, in the order of the mesh."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def gathered(arrays: Any) -> Any:
    """Sharded arrays as NumPy arrays, whole, in every process."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, arrays)
    return jax.tree.map(lambda array: multihost_utils.process_allgather(array, tiled=True), arrays)


def from_first(make: Callable[[], Any]) -> Any:
    """What `make()` returns in the first process, as JSON, in all of them; or the ValueError that it raises."""
    if jax.process_count() == 1:
        return make()
    message = b""
    if jax.process_index() == 0:
        try:
            message = json.dumps({"value": make()}).encode()
        except (ValueError, OSError) as error:
            message = json.dumps({"error": str(error)}).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    padded = np.frombuffer(message, np.uint8) if message else np.zeros(length, np.uint8)
    found = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8).tobytes())
    if "error" in found:
        raise ValueError(found["error"])
    return found["value"]


@contextmanager
def lost_processes_told(what_is_kept: Callable[[], str]) -> Generator[None]:
    """Turns the failures of devices into errors that say what to do."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        text = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in text:
            raise RuntimeError(f"evaluate: the device is out of memory: pass a smaller batch_size ({text})") from error
        if jax.process_count() == 1:
            raise
        raise RuntimeError(
            f"evaluate: process {jax.process_index()} lost the others: one of the {jax.process_count()} processes "
            f"ended. {what_is_kept()} ({text})"
        ) from error

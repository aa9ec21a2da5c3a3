"""What an array is like, for tracing: shape and dtype, and how it lies on several devices.

Inside of `jax.shard_map` JAX checks that the operands of every operation vary along the same axes of the mesh, and a
program that was traced for values that vary along none fails on those that do. So a program is traced for what it is
run on.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

__all__ = ["batch_of_one", "check_not_explicit", "num_shards", "spec_of", "specs_of", "varied", "without_batch"]


def spec_of(value: Any, shape: tuple[int, ...] | None = None) -> jax.ShapeDtypeStruct:
    """Of an array, a tracer, an abstract value or another spec; with another shape if one is given."""
    aval = jax.typeof(value) if isinstance(value, Tracer) else value
    shape = jnp.shape(value) if shape is None else shape
    if not _axes(aval):
        return jax.ShapeDtypeStruct(shape, jnp.result_type(value))
    here = NamedSharding(jax.sharding.get_abstract_mesh(), PartitionSpec())
    return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=here, manual_axis_type=aval.manual_axis_type)


def specs_of(batch: Any) -> Any:
    """Of each array of a pytree."""
    return jax.tree.map(spec_of, batch)


def batch_of_one(batch: Any) -> Any:
    """What one example `[1, ...]` of a batch `[n, ...]` is like."""
    return jax.tree.map(lambda x: spec_of(x, (1, *x.shape[1:])), batch)


def without_batch(batch: Any) -> Any:
    """What one example is like, without the axis n."""
    return jax.tree.map(lambda x: spec_of(x, x.shape[1:]), batch)


def check_not_explicit(name: str, values: Any) -> None:
    """Refuses arrays over explicit axes of a mesh: every operation of a program would have to be traced for them.

    Raises:
        TypeError: there is one.
    """
    for leaf in jax.tree.leaves(values):
        sharding = jax.typeof(leaf).sharding
        if any(sharding.spec) and AxisType.Explicit in sharding.mesh.axis_types:
            raise TypeError(
                f"{name} must be sharded over automatic axes but their mesh has {sharding.mesh.axis_names}, explicit: "
                "make it with jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Auto,)), or explain inside of "
                "jax.sharding.auto_axes, within jax.set_mesh and jax.jit"
            )


def varied(values: Any) -> Any:
    """The arrays of a pytree, all varying along the axes along which one of them does."""
    if not _is_manual():
        return values
    leaves, structure = jax.tree.flatten(values)
    is_traced = [isinstance(leaf, Tracer) for leaf in leaves]
    axes = _union(_axes(jax.typeof(leaf)) for leaf, known in zip(leaves, is_traced, strict=True) if known)
    if not axes:
        return values

    def cast(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            return leaf
        missing = axes - _axes(jax.typeof(leaf))
        return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf

    return jax.tree.unflatten(structure, list(map(cast, leaves)))


def num_shards(batch: Any) -> int:
    """Into how many parts the first axis is divided among devices.

    While `jax.jit` traces, that is not known yet. Parts for all devices are as good then, if they are of one size.
    """
    if _is_manual():
        return 1  # this is one of them
    if isinstance(batch, Tracer):
        size = batch.shape[0]
        # Exported for any number of examples it is for one device.
        return math.gcd(size, jax.device_count()) if isinstance(size, int) else 1
    return batch.shape[0] // batch.sharding.shard_shape(batch.shape)[0]


def _is_manual() -> bool:
    """Whether this is inside of `jax.shard_map`."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)


def _axes(aval: Any) -> frozenset[str]:
    """Of the mesh, along which it varies."""
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset() if kind is None else frozenset(kind.varying)

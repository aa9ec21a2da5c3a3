"""Folders that Orbax wrote, Flax's library of checkpoints: their arrays, read a few at a time.

    CHECKPOINT/_METADATA                 StandardCheckpointer and PyTreeCheckpointer, of any tree of arrays
    STEP/default/_METADATA               a step of a CheckpointManager, with one item that is a tree

The tree may be the state of an nnx.Module, the same as dictionaries, Linen's variables (`params` and `batch_stats`), or
have one of these under `params`, `model` or `state`, beside what training needs besides. Arrays come as NumPy's: on how
many devices they were saved does not matter.

Contract: Orbax is imported where a folder of its kind is given. Its files are JSON and arrays, of which nothing is run;
whatever Orbax makes of a damaged one is a ValueError.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcam.models.loading.flax_names import to_torch, torch_key, torch_shape
from jaxcam.tables import shown

_TREE = "_METADATA"
_MOST_BYTES = 2**26  # of what is said of the arrays
_AT_ONCE = 2**23
"""So many numbers are read together, 32 MiB in float32; a larger array alone."""
_NESTED = ("params", "model", "state")  # where training scripts put the network
_STATISTICS = "batch_stats"
_VALUES = ("value", "raw_value")
"""What an nnx.Variable calls its array."""
_UNFINISHED = ".orbax-checkpoint-tmp"
_RANDOM = "rngs"
"""Where modules keep the state of their generators, which is no parameter."""


def tree_in(folder: Path) -> Path | None:
    """Where in the folder there is a tree of arrays; None if Orbax did not write it.

    Raises:
        ValueError: there are several to choose from, or the checkpoint was not finished.
    """
    name = shown(str(folder), 200)
    if _UNFINISHED in folder.name:
        raise ValueError(f"weights: {name!r} is a checkpoint that Orbax has not finished: take another step")
    if (folder / _TREE).is_file():
        return folder
    items = _with_trees(folder)
    if len(items) == 1:
        return items[0]
    if items:
        raise ValueError(f"weights: {name!r} holds {_listed(items)}: name one of these folders")
    steps = [each for each in folder.iterdir() if each.is_dir() and _with_trees(each)]
    if steps:
        raise ValueError(f"weights: {name!r} holds the steps {_listed(steps)}: name the folder of one")
    return None


def arrays(tree: Path) -> tuple[Mapping[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """The shapes by torchvision's keys, in torch's order of axes, and what reads one array.

    Raises:
        ValueError: it cannot be read, or holds no parameters; or Orbax is not there.
    """
    try:
        import orbax.checkpoint as ocp
        from etils import epath
    except ImportError as error:
        raise ValueError(
            f"weights: {shown(str(tree), 200)!r} is a folder of Orbax, which cannot be imported ({error}): "
            "pip install orbax-checkpoint"
        ) from None
    if (size := (tree / _TREE).stat().st_size) > _MOST_BYTES:
        raise ValueError(
            f"weights: {_TREE} of {shown(str(tree), 200)!r} must have at most {_MOST_BYTES:,} bytes but "
            f"has {size:,}: get a new copy of it"
        )
    handler, folder = ocp.PyTreeCheckpointHandler(), epath.Path(tree.absolute())
    told = _told(tree, lambda: handler.metadata(folder).tree)
    paths, structure = jax.tree_util.tree_flatten_with_path(told)
    leaves = {tuple(map(_part, path)): i for i, (path, _) in enumerate(paths)}
    parameters = _parameters(leaves)
    found: dict[str, int] = {}
    for path, i in parameters.items():
        if found.setdefault(torch_key(path), i) != i:
            raise ValueError(
                f"weights: {shown(str(tree), 200)!r} holds {shown(torch_key(path))} twice, as of two networks: "
                "save the network alone"
            )
    shapes = {
        key: tuple(shape) for key, i in found.items() if (shape := getattr(paths[i][1], "shape", None)) is not None
    }
    if not shapes:
        raise ValueError(
            f"weights: {shown(str(tree), 200)!r} holds no arrays of a network: name the item that has them"
        )
    # A dictionary of torch's tensors is in torch's order already; Flax calls nothing "weight".
    is_torch = any(path[-1].endswith("weight") for path in parameters)
    as_array = structure.unflatten([ocp.RestoreArgs(restore_type=np.ndarray)] * len(paths))
    order = sorted(shapes, key=lambda key: -math.prod(shapes[key]))
    ready: dict[str, np.ndarray] = {}

    def read(keys: list[str]) -> list[np.ndarray]:
        wanted = {found[key] for key in keys}
        item = structure.unflatten([leaf if i in wanted else ocp.PLACEHOLDER for i, (_, leaf) in enumerate(paths)])
        leaves = jax.tree.leaves(handler.restore(folder, args=ocp.args.PyTreeRestore(item=item, restore_args=as_array)))
        return [np.asarray(leaves[found[key]]) for key in keys]

    def tensor(key: str) -> np.ndarray:
        if key not in ready:
            # Every call of Orbax looks at the whole tree: the smaller ones that are asked for next come with it.
            sizes = itertools.accumulate(math.prod(shapes[each]) for each in order[order.index(key) :])
            few = order[order.index(key) :][: max(1, sum(size <= _AT_ONCE for size in sizes))]
            ready.update(zip(few, _told(tree, lambda: read(few)), strict=True))
        array = ready.pop(key)
        return array if is_torch else to_torch(array)

    return {key: shape if is_torch else torch_shape(shape) for key, shape in shapes.items()}, tensor


def _parameters(leaves: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """Those of the network, by their paths in it."""
    found = {
        path[:-1] if len(path) > 1 and path[-1] in _VALUES else path: i
        for path, i in leaves.items()
        if path and _RANDOM not in path
    }
    while (name := next((n for n in _NESTED if any(len(p) > 1 and p[:1] == (n,) for p in found)), None)) is not None:
        kept = (name, _STATISTICS) if name == _NESTED[0] else (name,)
        found = {path[1:]: i for path, i in found.items() if len(path) > 1 and path[0] in kept}
    return found


def _part(key: Any) -> str:
    """A key of a path in a tree: of a dictionary, a sequence or an object."""
    return str(next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name)))


def _told(tree: Path, read: Callable[[], Any]) -> Any:
    """What is read, where it can be."""
    try:
        return read()
    except Exception as error:  # of JSON, of Orbax, of TensorStore: none of them promises a kind
        raise ValueError(
            f"weights: {shown(str(tree), 200)!r} is no whole checkpoint of Orbax ({shown(str(error), 200)}); get a new "
            "copy of it"
        ) from None


def _with_trees(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if (each / _TREE).is_file())


def _listed(folders: list[Path]) -> str:
    names = [shown(each.name) for each in sorted(folders)]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")

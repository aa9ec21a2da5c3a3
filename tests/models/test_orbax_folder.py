"""Weights that Orbax wrote in training: what was saved is what comes back, and damaged folders are told apart."""

import asyncio
import json
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from support import drawn, network

import jaxcam
from jaxcam import models
from jaxcam.models import mobilenet
from jaxcam.models.loading import orbax_folder
from jaxcam.models.loading.checkpoint import opened
from jaxcam.models.weights import loaded, save

NETWORK = network(models.mini_resnet, seed=3)
STATE = nnx.state(NETWORK)


def in_linens_order(pure):
    """Parameters and statistics apart, as Linen's variables are."""
    params, statistics = {}, {}
    for path, array in nnx.to_flat_state(pure) if isinstance(pure, nnx.State) else flat(pure):
        *modules, name = [part for part in path if part != "stages"]
        into = statistics if name in ("mean", "var") else params
        for module in modules:
            into = into.setdefault(module, {})
        into[name] = array
    return {"params": params, "batch_stats": statistics}


def flat(tree, path=()):
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for name, part in tree.items() for leaf in flat(part, (*path, name))]


def standard(folder, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, tree)
    return folder


def pytree(folder, tree, **options):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(folder, ocp.args.PyTreeSave(tree))
    return folder


def managed(folder, tree):
    with ocp.CheckpointManager(folder) as manager:
        manager.save(20, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()
    return folder / "20"


def pure():
    return nnx.to_pure_dict(STATE)


def in_training():
    variables = in_linens_order(pure())
    optimizer = optax.adam(1e-3).init(variables["params"])
    return {**variables, "opt_state": optimizer, "step": jnp.asarray(7), "rngs": {"count": jnp.asarray(3, jnp.uint32)}}


KINDS = {
    "a state, standard": lambda folder: standard(folder, STATE),
    "dictionaries": lambda folder: pytree(folder, pure()),
    "a state, pytree": lambda folder: pytree(folder, STATE),
    "a file for each array": lambda folder: pytree(folder, pure(), use_ocdbt=False),
    "zarr 3": lambda folder: pytree(folder, pure(), use_zarr3=True),
    "a step": lambda folder: managed(folder, STATE),
    "Linen in training": lambda folder: standard(folder, in_training()),
    "NNX in training": lambda folder: standard(folder, {"model": STATE, "step": jnp.asarray(7)}),
    "a dictionary of torch's": lambda folder: standard(folder, torchs(folder)),
}


def torchs(folder):
    save(NETWORK, f"{folder}.safetensors")
    saved = opened(f"{folder}.safetensors")
    return {key: saved.tensor(key) for key in saved.shapes}


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_comes_back(tmp_path, kind):
    read = models.mini_resnet(KINDS[kind](tmp_path / "it"))
    for (path, leaf), (other, own) in zip(nnx.to_flat_state(nnx.state(read)), nnx.to_flat_state(STATE), strict=True):
        assert path == other
        np.testing.assert_array_equal(leaf[...], own[...], strict=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return standard(tmp_path_factory.mktemp("orbax") / "it", STATE)


@pytest.mark.thorough
def test_maps_are_the_same_to_the_last_digit(folder):
    images = drawn(0, 2, 32, 32, 3).astype(np.float32)
    found, own = (jaxcam.explain(net, images, class_idx=1) for net in (models.mini_resnet(str(folder)), NETWORK))
    assert np.abs(own.cam_map).max() > 0
    np.testing.assert_array_equal(found.cam_map, own.cam_map)
    np.testing.assert_array_equal(found.value, own.value)


@pytest.mark.parametrize("at_once", [1, 3000, 10**6])
def test_in_whatever_order_and_however_many_at_once(folder, monkeypatch, at_once):
    monkeypatch.setattr(orbax_folder, "_AT_ONCE", at_once)
    found, own = opened(folder), torchs(folder)
    assert found.shapes == {key: array.shape for key, array in own.items()}
    keys = [*own, "conv1.weight", "fc.weight"]
    for i in np.random.default_rng(0).permutation(len(keys)):  # two of them twice
        np.testing.assert_array_equal(found.tensor(keys[i]), own[keys[i]], strict=True)


@pytest.mark.thorough
def test_the_arithmetic_is_that_of_the_config(tmp_path):
    create = lambda: mobilenet.ARCHITECTURES["mobilenet_v3_small"].create(num_classes=7, dialect="tf")
    own = network(lambda _: create(), seed=1)
    own.eval()
    folder = standard(tmp_path / "it", nnx.state(own))
    (folder / "config.json").write_text('{"dialect": "tf"}')
    read = models.mobilenet_v3_small(folder)
    norms = lambda model: [(m.epsilon, m.momentum) for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
    assert len(norms(read)) > 30
    assert norms(read) == norms(own)
    (folder / "config.json").write_text('{"dialect": "timm"}')
    assert norms(models.mobilenet_v3_small(folder)) != norms(own)


def test_a_relative_path_and_inside_of_a_loop_that_runs(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)

    async def cell():  # of a notebook
        return opened("it").tensor("fc.bias")

    np.testing.assert_array_equal(asyncio.run(cell()), STATE["stages"]["fc"]["bias"][...])


def test_names_of_classes_and_arithmetic_are_in_a_config(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    with pytest.raises(ValueError, match="whose arithmetic mobilenet_v3_small has here, of torchvision, timm, tf"):
        models.mobilenet_v3_small(own)
    names = [f"kind {i}" for i in range(len(NETWORK.class_names))]
    (own / "config.json").write_text(json.dumps({"label_names": names, "dialect": "timm"}))
    assert models.mini_resnet(own).class_names == tuple(names)
    assert opened(own).config["dialect"] == "timm"


def test_what_does_not_fit_is_told(tmp_path):
    create = lambda: nnx.eval_shape(lambda: models.mini_resnet(None))
    without = in_linens_order(pure())
    del without["batch_stats"]["bn1"]
    without["params"]["fc"]["kernel"] = without["params"]["fc"]["kernel"][:-1]
    with pytest.raises(ValueError, match=r"2 missing \(bn1.running_mean; bn1.running_var\), 1 of the wrong shape \(fc"):
        loaded(create, opened(standard(tmp_path / "less", without)))
    twice = {"stages": pure()["stages"], "layers": pure()["stages"]}
    with pytest.raises(ValueError, match="twice, as of two networks"):
        opened(standard(tmp_path / "twice", twice))
    with pytest.raises(ValueError, match="holds no arrays of a network"):
        opened(standard(tmp_path / "none", {"rngs": jnp.zeros(3)}))


def test_which_folder(folder, tmp_path):
    with pytest.raises(ValueError, match="nor did Orbax write it"):
        models.mini_resnet(tmp_path)
    unfinished = shutil.copytree(folder, tmp_path / "5.orbax-checkpoint-tmp")
    with pytest.raises(ValueError, match="has not finished"):
        models.mini_resnet(unfinished)
    for step in ("5", "10"):
        shutil.copytree(folder, tmp_path / "run" / step / "default")
    with pytest.raises(ValueError, match="run' holds the steps 10, 5: name the folder of one"):
        models.mini_resnet(tmp_path / "run")
    assert opened(tmp_path / "run" / "5").shapes == opened(folder).shapes
    shutil.copytree(folder, tmp_path / "run" / "5" / "ema")
    with pytest.raises(ValueError, match="holds default, ema: name one"):
        models.mini_resnet(tmp_path / "run" / "5")


def otherwise_told(folder):
    """What is said of the arrays, in ways that Orbax does not write."""
    told = json.loads((folder / "_METADATA").read_text())
    first, own = next(iter(told["tree_metadata"].items()))
    for other in (
        [1], {}, {"tree_metadata": 3},
        {**told, "tree_metadata": {first: {"value_metadata": {"value_type": "jax.Array"}}}},
        {**told, "tree_metadata": {first: {**own, "value_metadata": 7}}},
        {**told, "tree_metadata": {first: {"key_metadata": [{"key": "a" * 10_000, "key_type": 99}]}}},
    ):  # fmt: skip
        yield json.dumps(other).encode()
    yield b"[" * 100_000
    yield b""


def copies(folder, tmp_path, changes):
    """A copy for each change: a file, and what is in it, or None for nothing."""
    for i, (file, data) in enumerate(changes):
        own = shutil.copytree(folder, tmp_path / str(i))
        (own / file).unlink()
        if data is not None:
            (own / file).write_bytes(data)
        yield own


def test_what_is_said_of_the_arrays_may_be_anything(folder, tmp_path):
    for own in copies(folder, tmp_path, [("_METADATA", data) for data in otherwise_told(folder)]):
        with pytest.raises(ValueError, match=r"weights: .{,300} is no whole checkpoint of Orbax|holds no arrays"):
            opened(own)


@pytest.mark.thorough
# TensorStore tells of what it read too late for a reader that has given up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_folders_are_refused_or_whole(folder, tmp_path):
    changes = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        others = (data[: len(data) // 2], bytes(255 - each for each in data), None)
        changes += [(path.relative_to(folder), other) for other in others]
    refused = []
    for own in copies(folder, tmp_path, changes):
        try:
            read = opened(own)
            found = {key: read.tensor(key) for key in ("conv1.weight", "fc.bias")}
        except ValueError as error:
            refused.append(str(error))
            continue
        assert read.shapes == opened(folder).shapes
        for key, array in found.items():
            np.testing.assert_array_equal(array, opened(folder).tensor(key))
    assert all(error.startswith("weights:") and len(error) < 1000 for error in refused)
    assert len(changes) > len(refused) > 12


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    def refuse(self):  # root may read everything
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(ValueError, match=r"cannot be looked into \(Permission denied\)"):
        models.mini_resnet(folder.parent)

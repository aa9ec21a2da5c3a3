import functools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from support import network

from jaxcam import models
from jaxcam.images import Preprocessing
from jaxcam.models import weights
from jaxcam.models.loading.checkpoint import opened


def flat(model):
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(model))}


@pytest.mark.parametrize(
    "create",
    [
        models.mini_resnet,
        pytest.param(models.mini_vgg, marks=pytest.mark.thorough),
        pytest.param(models.mini_vit, marks=pytest.mark.thorough),
        pytest.param(models.squeezenet1_1, marks=pytest.mark.thorough),
    ],
)
def test_saved_parameters_come_back(create, tmp_path):
    model = network(create)  # every leaf of it differs from every other, so that no mix-up goes unseen
    weights.save(model, tmp_path / "w.safetensors")
    again = create(tmp_path / "w.safetensors")
    expected, found = flat(model), flat(again)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def test_torchs_layout_by_hand(tmp_path):
    # Convolution [out, in, h, w]: the kernel that looks one pixel to the left in channel 1 of the input.
    tensors = {key: np.zeros(shape, np.float32) for key, shape in squeezenet_shapes().items()}
    tensors["features.0.weight"][5, 1, 0, 2] = 3.0
    tensors["features.0.bias"][5] = -1.0
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    model = models.squeezenet1_1(tmp_path / "w.safetensors")
    image = np.zeros((1, 32, 32, 3), np.float32)
    image[0, 4, 8, 1] = 7.0  # row 4 = 2 * 2 + 0, column 8 = 2 * 3 + 2
    activations = model.features(jnp.asarray(image), layer="features.0")
    assert activations[0, 2, 3, 5] == 20.0
    assert (np.asarray(activations[..., 5]) == -1).sum() == activations[..., 5].size - 1


@functools.cache
def squeezenet_shapes():
    return weights.shapes_of(models.squeezenet1_1)


def test_keys_are_torchvisions():
    keys = set(squeezenet_shapes())
    assert len(keys) == 52
    assert {
        "features.0.weight",
        "features.12.expand3x3.bias",
        "features.3.squeeze.weight",
        "classifier.1.weight",
    } <= keys


def test_half_precision_loads_as_float32(tmp_path):
    tensors = {key: np.full(shape, 0.1, np.float16) for key, shape in squeezenet_shapes().items()}
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    model = models.squeezenet1_1(tmp_path / "w.safetensors")
    for value in flat(model).values():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, np.float32(np.float16(0.1)))


def test_number_of_classes_is_that_of_the_file(tmp_path):
    weights.save(network(models.squeezenet1_1, num_classes=7), tmp_path / "w.safetensors")
    model = models.squeezenet1_1(tmp_path / "w.safetensors")
    assert jax.eval_shape(model, jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)).shape == (1, 7)
    assert model.class_names[6] == "class 6"


def test_mismatches_are_listed_together(tmp_path):
    tensors = {key: np.zeros(shape, np.float32) for key, shape in squeezenet_shapes().items()}
    for i in (3, 4, 6, 7, 9):
        del tensors[f"features.{i}.squeeze.bias"]
    tensors["extra.weight"] = np.zeros((2, 2), np.float32)
    tensors["features.0.weight"] = np.zeros((64, 3, 7, 7), np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not fit squeezenet1_1: 5 missing") as caught:
        models.squeezenet1_1(tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "5 missing (features.3.squeeze.bias; " in message
    assert "; …), 1 unexpected (extra.weight), " in message
    assert "1 of the wrong shape (features.0.weight is [64, 3, 7, 7], not [64, 3, 3, 3])" in message


def test_batch_counters_of_torch_are_not_unexpected(tmp_path):
    model = models.mini_resnet()
    weights.save(model, tmp_path / "w.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    safetensors.numpy.save_file({**tensors, "bn1.num_batches_tracked": np.array(3)}, tmp_path / "w.safetensors")
    again = models.mini_resnet(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(flat(again)["stages.fc.kernel"], flat(model)["stages.fc.kernel"])


@pytest.mark.parametrize("length", [0, 4, 200, -10])
def test_truncated_files_are_refused(tmp_path, length):
    weights.save(models.mini_vgg(), tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:length])
    with pytest.raises(ValueError, match=r"cut.safetensors' is not a complete .safetensors file"):
        models.mini_vgg(tmp_path / "cut.safetensors")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        models.mini_vgg(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match=r"is a folder without model.safetensors, nor did Orbax write it; name a"):
        models.mini_vgg(tmp_path)


def test_parameters_that_are_not_finite_are_refused(tmp_path):
    model = models.mini_resnet()
    model.stages["fc"].bias[...] = model.stages["fc"].bias[...].at[3].set(jnp.nan)
    weights.save(model, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"holds NaN or infinity in fc.bias: get a whole copy"):
        models.mini_resnet(tmp_path / "w.safetensors")


def test_variances_below_zero_are_refused(tmp_path):
    weights.save(models.mini_resnet(), tmp_path / "w.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    tensors["bn1.running_var"] = tensors["bn1.running_var"] * np.where(
        np.arange(tensors["bn1.running_var"].size), 1, -1
    )
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"holds variances below 0 in bn1.running_var: get a whole copy"):
        models.mini_resnet(tmp_path / "w.safetensors")


def test_nothing_is_left_behind_when_saving_fails(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError("disk full")

    weights.save(models.mini_resnet(), tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    monkeypatch.setattr(weights.safetensors.numpy, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        weights.save(network(models.mini_resnet), tmp_path / "w.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_loading_traces_instead_of_allocating(tmp_path):
    model = models.mini_resnet()
    weights.save(model, tmp_path / "w.safetensors")
    calls = []

    def create():
        made = models.MiniResNet(rngs=nnx.Rngs(0))
        calls.append(jax.tree.leaves(nnx.state(made))[0])
        return made

    checkpoint = opened(tmp_path / "w.safetensors")
    weights.loaded(create, checkpoint)
    assert isinstance(calls[0], jax.core.Tracer)
    assert len(calls) == 1


PEAK = """
import sys, jax, jax.numpy as jnp
from jaxcam import models
from jaxcam.images import Preprocessing

def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024

jax.block_until_ready(jax.tree.leaves(models.resnet20()))  # what JAX takes by itself
before = peak()
jax.block_until_ready(jax.tree.leaves(models.vgg11(sys.argv[1])))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_peak_memory_of_loading(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    weights.save(models.vgg11(), path, dtype=dtype)
    peak = int(subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True).stdout)
    model = 4 * sum(math.prod(shape) for shape in weights.shapes_of(models.vgg11).values())
    assert model < peak < 1.5 * path.stat().st_size + model


def test_class_names_and_preprocessing_are_saved_too(tmp_path):
    own = Preprocessing(resize=40, crop=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), interpolation="bicubic")
    model = network(models.resnet20, class_names=("ä", "b", "c"), preprocessing=own)
    weights.save(model, tmp_path / "w.safetensors")
    again = models.resnet20(tmp_path / "w.safetensors")
    assert again.class_names == ("ä", "b", "c")
    assert again.preprocessing == own
    assert models.resnet20(tmp_path / "w.safetensors", class_names=("x", "y", "z")).class_names == ("x", "y", "z")


def test_where_a_file_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in .safetensors.*but is '.*w.pth'"):
        weights.save(models.mini_resnet(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"there is no folder '.*nowhere'; make it first"):
        weights.save(models.mini_resnet(), tmp_path / "nowhere" / "w.safetensors")
    assert list(tmp_path.iterdir()) == []

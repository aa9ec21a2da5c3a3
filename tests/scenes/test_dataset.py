"""Generated scenes as a data set: those of `batch`, one by one, and a sequence of them."""

from contextlib import closing

import jax
import numpy as np
import pytest

from jaxcam import scenes
from jaxcam.datasets.sources import source_of
from jaxcam.images import Preprocessing


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "num_instances"),
    [("scene", None), ("scene", 3), ("pair", None)],
)
def test_scenes_are_those_of_batch(kind, num_instances):
    # Of 64 pixels, of which 64 are drawn at once: the second chunk is begun, and the third.
    dataset = scenes.Dataset(70, seed=9, size=32, kind=kind, num_instances=num_instances)
    expected = scenes.batch(9, 140, size=32, kind=kind, num_instances=num_instances)
    many = scenes.Dataset(140, seed=9, size=32, kind=kind, num_instances=num_instances)
    for data, i in ((dataset, 69), (many, 139), (dataset, 0), (many, 100)):
        example = data[i]
        np.testing.assert_array_equal(example.image, expected.image[i])
        present = np.asarray(expected.instance_classes[i]) >= 0
        assert example.label == int(expected.class_idx[i])
        assert len(example.boxes) == present.sum() == (num_instances or present.sum())
        np.testing.assert_array_equal(example.boxes, np.asarray(expected.boxes[i])[present])
        np.testing.assert_array_equal(example.box_classes, np.asarray(expected.instance_classes[i])[present])
        np.testing.assert_array_equal(example.masks, np.asarray(expected.masks[i])[present])
        assert example.name == f"{kind} {i}"


def test_a_dataset_is_a_sequence():
    dataset = scenes.Dataset(5, kind="pair")
    assert len(dataset) == len(list(dataset)) == 5
    assert dataset[-1].name == "pair 4"
    part = dataset[4:0:-2]
    assert [example.name for example in part] == ["pair 4", "pair 2"]
    np.testing.assert_array_equal(part[1].image, dataset[2].image)
    assert part[1:][0].name == "pair 2"
    assert part.description["slice"] == [4, 0, -2]
    assert "slice" not in dataset.description
    assert dataset == scenes.Dataset(5, kind="pair")
    with pytest.raises(IndexError):
        dataset[5]
    with pytest.raises(TypeError, match="integer or a slice"):
        dataset["one"]
    dataset[0].image[:] = 0  # one's own copy
    assert dataset[0].image.max() > 0
    with closing(source_of(dataset).views([3, 1], preprocessing=Preprocessing())) as views:
        found = list(views)
    assert [view.name for view in found] == ["pair 3", "pair 1"]
    np.testing.assert_array_equal(found[0].masks, dataset[3].masks)
    assert source_of(dataset).description["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num": 0}, ValueError, "num"),
        ({"num": 1.0}, TypeError, "num"),
        ({"num": 1, "seed": -1}, ValueError, "seed"),
        ({"num": 1, "seed": jax.random.key(0)}, TypeError, "seed"),
        ({"num": 1, "size": 8}, ValueError, "size"),
        ({"num": 1, "kind": "triple"}, ValueError, "kind"),
        ({"num": 1, "num_instances": 5}, ValueError, "num_instances"),
        ({"num": 1, "num_instances": 2, "kind": "pair"}, ValueError, 'kind="scene"'),
    ],
)
def test_datasets_that_are_refused(unchecked, arguments, error, message):
    with pytest.raises(error, match=message):
        scenes.Dataset(**arguments)

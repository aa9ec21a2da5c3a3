import inspect

import jax
import numpy as np
import pytest
from compactness import by_class, compactness

from jaxcam import scenes
from jaxcam.scenes.solids import solid_distance

NUM = 96
NAMES = scenes.SOLID_NAMES


@pytest.fixture(scope="module")
def many() -> scenes.Volume:
    return jax.tree.map(np.asarray, scenes.many(scenes.volume, 0, NUM))


@pytest.fixture(scope="module")
def insides() -> list[np.ndarray]:
    """Which points lie in each solid: one somewhere in every cell of a fine grid over [-1.2, 1.2]^3."""
    cells = np.stack(np.meshgrid(*3 * [np.arange(96)], indexing="ij"))
    x, y, z = np.float32((cells + np.random.default_rng(0).uniform(size=cells.shape)) / 96 * 2.4 - 1.2)
    distance = jax.jit(solid_distance)
    return [np.asarray(distance(np.int32(c), x, y, z)) < 0 for c in range(len(NAMES))]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ball", 4 / 3 * np.pi * 0.85**3),
        ("shell", 4 / 3 * np.pi * (0.95**3 - 0.55**3)),
        ("cube", 1.36**3),
        ("cylinder", np.pi * 0.45**2 * 2),
        ("cone", np.pi * 0.9**2 * 1.7 / 3),
        ("torus", 2 * np.pi**2 * 0.72 * 0.28**2),
        ("jack", 3 * 2 * 0.54**2 - 2 * 0.54**3),
    ],
)
def test_volume_of_every_solid_is_that_of_its_geometry(name, size, insides):
    assert insides[NAMES.index(name)].mean() * 2.4**3 == pytest.approx(size, rel=0.005)


def test_masks_are_those_of_the_kinds(many, insides):
    present = many.present
    classes = np.broadcast_to(many.class_idx[:, None], present.shape)[present]
    found = by_class(many.masks[present], classes, len(NAMES))
    expected = np.array([compactness(inside) for inside in insides])
    assert np.corrcoef(found, expected)[0, 1] > 0.96
    assert many.masks.sum(1).max() == 1
    np.testing.assert_array_equal(many.masks.any((2, 3, 4)), present)
    assert present[:, 0].all()
    assert 0.25 < present[:, 1].mean() < 0.55


def test_solids_stand_off_the_ground_and_rods_are_not_theirs(many):
    for density, masks, present in zip(many.density[..., 0], many.masks, many.present, strict=True):
        ground = np.median(density[~masks.any(0)])
        for mask in masks[present]:
            inner = mask.copy()  # without the smoothed edge: all six neighbours in the mask too
            for axis in range(3):
                inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
            own = density[inner] if inner.sum() > 5 else density[mask]
            assert np.median(own) > ground + 0.1
            if inner.sum() > 20:
                # Grain alone: a voxel of a rod would stand out.
                spread = np.abs(own - np.median(own))
                assert np.median(spread) < 0.06
                assert spread.max() < 6 * 1.4826 * np.median(spread) + 0.05


def test_volumes_are_floats_from_0_to_1_with_uniform_kinds(many):
    assert many.density.dtype == np.float32
    assert many.density.shape == (NUM, 24, 24, 24, 1)
    assert many.density.min() >= 0
    assert many.density.max() <= 1
    counts = np.bincount(many.class_idx, minlength=7)
    assert ((counts - NUM / 7) ** 2 / (NUM / 7)).sum() < 22.5  # the 0.1 % point with 6 degrees of freedom


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({"size": 15}, ValueError, "size .* 16 .* 15"), ({"size": "24"}, TypeError, "size .* '24'")],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(scenes.volume)(0, **options)

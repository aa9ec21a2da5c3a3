import inspect

import jax
import numpy as np
import pytest
from compactness import by_class, compactness

from jaxcam import scenes
from jaxcam.scenes import motion
from jaxcam.scenes.figures import signed_distance

NUM = 128


@pytest.fixture(scope="module")
def clips() -> scenes.Clip:
    return jax.tree.map(np.asarray, scenes.many(scenes.clip, 0, NUM, size=32))


def excursions(masks):
    """How far apart two places of a figure are at most, in pixels: [m] of masks [t, m, h, w]."""
    axis = np.arange(masks.shape[-1])
    total = np.maximum(masks.sum((2, 3)), 1)
    x, y = (masks.sum(2) * axis).sum(-1) / total, (masks.sum(3) * axis).sum(-1) / total
    return np.hypot(x[:, None] - x[None], y[:, None] - y[None]).max((0, 1))


def test_one_figure_travels_and_the_label_is_its_class(clips):
    gone = np.array([excursions(masks) for masks in clips.masks])
    others = np.arange(3)[None, :] != clips.moving[:, None]
    assert gone[~others].min() > 0.18 * 32
    assert np.quantile(gone[others], 0.99) < 0.13 * 32  # they tremble by 0.035 of the side to each side
    assert np.mean(gone[others] < 0.5) > 0.3
    assert np.mean(np.argmax(gone, axis=1) == clips.moving) == 1
    np.testing.assert_array_equal(clips.class_idx, clips.instance_classes[np.arange(NUM), clips.moving])
    assert all(len(set(row)) == 3 for row in clips.instance_classes.tolist())


def test_masks_are_those_of_the_classes(clips):
    # Figures fill their circle by different amounts; a mask that stood in another's slot would even them out.
    x, y = np.meshgrid(*2 * [np.float32((np.arange(100) + 0.5) / 100 * 2.6 - 1.3)])
    distance = jax.jit(signed_distance)
    expected = [compactness(np.asarray(distance(np.int32(c), x, y)) < 0) for c in range(10)]
    found = by_class(clips.masks[:, 3].reshape(-1, 32, 32), clips.instance_classes.reshape(-1), 10)
    assert np.corrcoef(found, expected)[0, 1] > 0.97
    assert clips.masks.sum(2).max() == 1
    # One figure has one colour through all frames.
    weight = clips.masks[:8, ..., None]
    colour = (clips.frames[:8, :, None] * weight).sum((3, 4)) / weight.sum((3, 4))
    assert colour.std(1).max() < 0.08
    assert colour.std(2).mean() > 0.1


def test_no_single_frame_says_which_figure_travels():
    places = jax.jit(jax.vmap(motion.places, in_axes=(0, 0, None)), static_argnums=2)
    keys = jax.vmap(jax.random.key)(np.arange(3000, dtype=np.uint32))
    found = [np.asarray(places(keys, np.full(3000, moving, np.int32), 8)) for moving in range(3)]
    # The first frame is the same whichever travels, and in every other one it is anywhere on its path as often.
    np.testing.assert_array_equal(found[0][:, 0], found[1][:, 0])
    np.testing.assert_array_equal(found[0][:, 0], found[2][:, 0])
    for frame in (3, 7):
        travelling, standing = found[0][:, frame, 0], found[1][:, frame, 0]
        assert np.abs(travelling - standing).max() > 0.3
        for moment in (lambda p: p, lambda p: (p - 0.5) ** 2, lambda p: (p - 0.5) ** 4):
            a, b = moment(travelling), moment(standing)
            assert np.all(np.abs(a.mean(0) - b.mean(0)) < 4.5 * np.sqrt((a.var(0) + b.var(0)) / 3000))


def test_more_frames_are_the_same_clip_in_finer_steps():
    places = jax.jit(jax.vmap(motion.places, in_axes=(0, 0, None)), static_argnums=2)
    keys, moving = jax.vmap(jax.random.key)(np.arange(100, dtype=np.uint32)), np.zeros(100, np.int32)
    few, more = (np.asarray(places(keys, moving, num))[:, [0, -1]] for num in (8, 15))
    difference = np.abs(few - more).max((1, 3))  # at begin and end; [n, m]
    assert difference.max() <= 0.0701  # both may tremble
    assert 0.3 < np.mean(difference < 1e-6) < 0.7


def test_what_travels_and_what_it_is_are_uniform(clips):
    counts = np.bincount(clips.moving, minlength=3)
    assert ((counts - NUM / 3) ** 2 / (NUM / 3)).sum() < 13.8  # the 0.1 % point with 2 degrees of freedom
    counts = np.bincount(clips.class_idx, minlength=10)
    assert ((counts - NUM / 10) ** 2 / (NUM / 10)).sum() < 27.9


def test_frames_are_pictures(clips):
    assert clips.frames.dtype == np.float32
    assert clips.frames.shape == (NUM, 8, 32, 32, 3)
    assert clips.frames.min() >= 0
    assert clips.frames.max() <= 1
    assert clips.masks.any((3, 4)).all()


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((0,), {"size": 31}, ValueError, "size .* 31"),
        ((0,), {"num_frames": 7}, ValueError, "num_frames .* 8 .* 16 .* 7"),
        ((0,), {"num_frames": 8.0}, TypeError, "num_frames .* 8.0"),
        (("a",), {}, TypeError, "key"),
    ],
)
def test_bad_arguments_are_refused(args, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(scenes.clip)(*args, **options)

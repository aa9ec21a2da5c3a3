import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import scenes
from jaxcam.scenes.figures import signed_distance
from jaxcam.scenes.layout import layout
from jaxcam.scenes.paint import paint
from jaxcam.scenes.visibility import unhidden

NUM_CLASSES = len(scenes.CLASS_NAMES)
NUM = 192
SPAN = 2.6  # side of the square on which figures are measured


@pytest.fixture(scope="module")
def many() -> scenes.Scene:
    return jax.tree.map(np.asarray, scenes.batch(0, NUM))


@pytest.fixture(scope="module")
def pairs() -> scenes.Scene:
    return jax.tree.map(np.asarray, scenes.batch(1, NUM, kind="pair"))


@pytest.fixture(scope="module")
def layouts():
    """The layouts of NUM keys; a function, compiled once: tests change the classes and what is present."""
    return jax.jit(jax.vmap(layout))


@pytest.fixture(scope="module")
def figure_areas() -> np.ndarray:
    """Areas of the ten figures in their own units, by counting points."""
    x, y = np.meshgrid(*2 * [np.float32((np.arange(520) + 0.5) / 520 * SPAN - SPAN / 2)])
    distance = jax.jit(signed_distance)
    inside = [distance(np.int32(c), x, y) < 0 for c in range(NUM_CLASSES)]
    return np.asarray([float(np.mean(i)) * SPAN**2 for i in inside])


def contents(seed: int):
    """Keys of the layouts, classes and presence of the scenes of `batch(seed, NUM)`."""
    index = jnp.arange(NUM, dtype=jnp.uint32)
    one = scenes.drawing.scene_contents
    return scenes.drawing.contents_at(index, jax.random.key(seed), (None, None), one=one)


def as_numpy(leaf):
    """Random keys stay with JAX."""
    return leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def equal(a, b) -> bool:
    return all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))


def chi_squared(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.thorough
def test_scene_area_is_radius_squared_times_the_figures_area(figure_areas, layouts):
    classes = np.broadcast_to(np.arange(NUM, dtype=np.int32)[:, None] % NUM_CLASSES, (NUM, 4))
    alone = np.broadcast_to(np.arange(4) < 1, (NUM, 4))
    whole = layouts(contents(0).key, classes, alone)
    plans = jax.tree.map(lambda leaf: leaf[:NUM_CLASSES], jax.tree.map(as_numpy, whole))
    unbarred = plans.bars._replace(half_width=-np.ones((NUM_CLASSES, 2), np.float32))
    middle = plans.instances._replace(centre=np.full((NUM_CLASSES, 4, 2), 0.5, np.float32))
    draw = jax.jit(jax.vmap(lambda plan: paint(plan, 200)[1]))
    area = np.asarray(draw(plans._replace(bars=unbarred, instances=middle))).mean((2, 3))
    radius = plans.instances.radius[plans.instances.present]
    np.testing.assert_allclose(area[:, 0], radius**2 * figure_areas, rtol=0.02)
    assert not np.any(area[:, 1:])


def test_same_key_same_picture_and_other_key_other_picture():
    first, again, other = scenes.scene(5), scenes.scene(jax.random.key(5)), scenes.scene(6)
    assert equal(first, again)
    assert equal(scenes.pair(5), scenes.pair(5))
    assert np.mean(np.abs(np.asarray(first.image) - np.asarray(other.image))) > 0.02
    legacy = inspect.unwrap(scenes.scene)(jax.random.PRNGKey(5))
    assert equal(first, legacy)


@pytest.mark.parametrize("kind", ["scene", "pair"])
def test_image_of_a_batch_depends_on_seed_and_index_alone(kind, many, pairs):
    seed, more = {"scene": (0, many), "pair": (1, pairs)}[kind]
    few = scenes.batch(jax.random.key(seed), 3, kind=kind)
    assert equal(few, [leaf[:3] for leaf in more])
    for i in (2, 69, NUM - 1):
        alone = getattr(scenes, kind)(jax.random.fold_in(jax.random.key(seed), i))
        np.testing.assert_allclose(more.image[i], alone.image, atol=5e-6, rtol=0)
        assert equal([leaf[i] for leaf in more[1:]], alone[1:])


@pytest.mark.thorough
def test_jit_and_vmap_equal_eager():
    keys = jax.random.split(jax.random.key(8), 3)
    classes, numbers = jnp.array([9, 0, 4], jnp.int32), jnp.array([4, 1, 2], jnp.int32)
    draw = jax.jit(jax.vmap(lambda k, c, n: scenes.scene(k, class_idx=c, num_instances=n)))
    both = jax.vmap(lambda k, c: scenes.pair(k, classes=(c, 9 - c)))
    drawn, pairs = draw(keys, classes, numbers), both(keys, classes)
    for i in range(3):
        c, n = int(classes[i]), int(numbers[i])
        for together, alone in (
            (drawn, scenes.scene(keys[i], class_idx=c, num_instances=n)),
            (pairs, scenes.pair(keys[i], classes=(c, 9 - c))),
        ):
            np.testing.assert_allclose(together.image[i], alone.image, atol=5e-6, rtol=0)
            assert equal([leaf[i] for leaf in together[1:]], alone[1:])


def test_boxes_are_tight_and_half_open(many, pairs):
    for drawn in (many, pairs):
        for i, slot in np.ndindex(drawn.masks.shape[:2]):
            rows, columns = np.nonzero(drawn.masks[i, slot])
            expected = [0, 0, 0, 0]
            if rows.size:
                expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert drawn.boxes[i, slot].tolist() == expected


def test_masks_of_instances_do_not_overlap_and_absent_ones_are_empty(many, pairs):
    for drawn in (many, pairs):
        assert drawn.masks.sum(1).max() == 1
        assert np.array_equal(drawn.masks.any((2, 3)), drawn.instance_classes >= 0)


def test_classes_and_numbers_are_as_asked(many, pairs):
    present = many.instance_classes >= 0
    numbers = present.sum(1)
    assert np.array_equal(present, np.arange(4) < numbers[:, None])
    assert np.array_equal(many.instance_classes, np.where(present, many.class_idx[:, None], -1))
    for c, n in ((7, 1), (0, 4)):
        assert scenes.scene(0, class_idx=c, num_instances=n).instance_classes.tolist() == [c] * n + [-1] * (4 - n)
    assert scenes.batch(0, 5, class_idx=3, num_instances=2).instance_classes.tolist() == [[3, 3, -1, -1]] * 5

    assert np.array_equal(pairs.class_idx, pairs.instance_classes[:, 0])
    assert np.all(pairs.instance_classes[:, [0, 2]] >= 0)
    assert np.all(pairs.instance_classes[:, 0] != pairs.instance_classes[:, 2])
    for second, first in ((1, 0), (3, 2)):
        twice = pairs.instance_classes[:, second] >= 0
        assert 0.4 < twice.mean() < 0.6
        assert np.array_equal(pairs.instance_classes[twice, second], pairs.instance_classes[twice, first])
    asked = scenes.batch(0, 5, kind="pair", classes=(9, 2))
    assert set(asked.instance_classes[:, 0].tolist()) == {9}
    assert set(asked.instance_classes[:, 2].tolist()) == {2}


def test_classes_and_numbers_are_uniform(many, pairs):
    # The 0.1 % points of chi squared with 9 and 3 degrees of freedom.
    assert chi_squared(np.bincount(many.class_idx, minlength=NUM_CLASSES)) < 27.9
    assert chi_squared(np.bincount((many.instance_classes >= 0).sum(1), minlength=5)[1:]) < 16.3
    for slot in (0, 2):
        assert chi_squared(np.bincount(pairs.instance_classes[:, slot], minlength=NUM_CLASSES)) < 27.9


@pytest.mark.thorough
def test_colour_says_nothing_about_the_class(many, layouts):
    weights = many.masks.any(1)[..., None]
    colour = (many.image * weights).sum((1, 2)) / weights.sum((1, 2))
    for c in range(NUM_CLASSES):
        own = colour[many.class_idx == c]
        error = colour.std(0) / math.sqrt(len(own))
        assert np.all(np.abs(own.mean(0) - colour.mean(0)) < 4.5 * error)
    asked = contents(0)
    one, other = (layouts(asked.key, np.full((NUM, 4), c, np.int32), asked.present) for c in (0, 9))
    assert np.array_equal(one.instances.colour, other.instances.colour)
    assert equal(one.background, other.background)


def test_every_instance_keeps_half_of_its_figure_in_sight(many, figure_areas, layouts):
    instances = jax.tree.map(np.asarray, layouts(*contents(0)).instances)
    order = np.argsort(instances.slot, axis=1)
    radius = np.take_along_axis(instances.radius, order, axis=1)
    present = many.instance_classes >= 0
    assert np.array_equal(np.take_along_axis(instances.present, order, axis=1), present)
    fraction = (many.masks.mean((2, 3)) / (radius**2 * figure_areas[many.class_idx][:, None]))[present]
    assert fraction.min() > 0.5
    # Those in full view: radius squared times the figure's area, but for pixels at the edge, which even out.
    classes = many.instance_classes[present]
    whole = [np.median(fraction[(classes == c) & (fraction > 0.93)]) for c in range(NUM_CLASSES)]
    np.testing.assert_allclose(whole, 1, atol=0.01)
    assert 0.2 < (fraction < 0.9).mean() < 0.6  # and many are partly hidden
    assert (fraction < 0.75).mean() > 0.02
    assert radius[present].min() > 0.08
    assert radius[present].max() < 0.25


@pytest.mark.thorough
def test_instances_that_hide_one_another_spread_out_and_shrink(layouts):
    instances = jax.tree.map(lambda leaf: leaf[0], layouts(*contents(0)).instances)
    instances = instances._replace(present=jnp.ones(4, bool), radius=jnp.full(4, 0.16, jnp.float32))
    corners = jnp.array([[0.3, 0.3], [0.7, 0.3], [0.3, 0.7], [0.7, 0.7]], jnp.float32)
    stacked = instances._replace(centre=jnp.full((4, 2), 0.5, jnp.float32))
    spread, inside, hidden = unhidden(stacked, corners)
    assert np.array_equal(spread.centre, corners)
    np.testing.assert_allclose(spread.radius, 0.4 / (2 * 1.35), rtol=1e-5)  # circles of 1.35 radii touch
    assert not np.any(inside & hidden)
    apart = instances._replace(centre=corners)
    assert equal(unhidden(apart, corners[::-1])[0], apart)


@pytest.mark.thorough
def test_the_same_scene_at_another_size():
    for seed in range(3):
        small, large = (jax.tree.map(np.asarray, scenes.scene(seed, size=size)) for size in (64, 256))
        assert np.array_equal(small.instance_classes, large.instance_classes)
        coarse = np.asarray(large.masks).reshape(4, 64, 4, 64, 4).mean((2, 4)) > 0.5
        union = np.asarray(coarse | small.masks).sum((1, 2))
        overlap = np.asarray(coarse & small.masks).sum((1, 2))[union > 0] / union[union > 0]
        assert overlap.min() > 0.85
        assert overlap.mean() > 0.93
        picture = np.asarray(large.image).reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(picture - small.image).mean() < 0.01


def test_pictures_are_float32_from_0_to_1_and_varied(many):
    assert many.image.dtype == np.float32
    assert many.image.shape == (NUM, 64, 64, 3)
    assert many.image.min() >= 0
    assert many.image.max() <= 1
    assert many.image.std((1, 2)).max(1).min() > 0.02  # no flat picture
    assert np.all(many.image.mean((1, 2)).std(0) > 0.1)  # bright and dark ones


KEY_ERROR = "seed .* or a key"


@pytest.mark.parametrize(
    ("name", "args", "options", "error", "message"),
    [
        ("scene", (0,), {"size": 31}, ValueError, "size .* 32 .* 2048 .* (31|4096)"),
        ("scene", (0,), {"size": 64.0}, TypeError, "size .* 64.0"),
        ("scene", (0,), {"size": True}, TypeError, "size .* True"),
        ("pair", (0,), {"size": 4096}, ValueError, "size .* 32 .* 2048 .* (31|4096)"),
        ("scene", (-1,), {}, ValueError, "key .* 0 .* -1"),
        ("scene", (2**32,), {}, ValueError, "key .* 4294967295 .* 4294967296"),
        ("scene", ("a",), {}, TypeError, KEY_ERROR),
        ("scene", (True,), {}, TypeError, KEY_ERROR),
        ("pair", (jnp.zeros(2, jnp.int32),), {}, TypeError, KEY_ERROR),
        ("scene", (0,), {"class_idx": 10}, ValueError, "class_idx .* 0 .* 9 .* 10"),
        ("scene", (0,), {"class_idx": -1}, ValueError, "class_idx .* 0 .* 9 .* -1"),
        ("scene", (0,), {"class_idx": "fish"}, TypeError, "class_idx .* 'fish'"),
        ("scene", (0,), {"class_idx": jnp.float32(1)}, TypeError, "class_idx .* float32"),
        ("scene", (0,), {"class_idx": np.arange(2)}, ValueError, "use jax.vmap"),
        ("scene", (0,), {"num_instances": 0}, ValueError, "num_instances .* 1 .* 4 .* 0"),
        ("scene", (0,), {"num_instances": jnp.int32(5)}, ValueError, "num_instances .* 1 .* 4 .* 5"),
        ("pair", (0,), {"classes": 3}, TypeError, "classes must be a pair"),
        ("pair", (0,), {"classes": (1, 2, 3)}, ValueError, "classes must be a pair of two classes; got 3"),
        ("pair", (0,), {"classes": (1, 1)}, ValueError, "two different classes; got 1 twice"),
        ("pair", (0,), {"classes": (1, 10)}, ValueError, r"classes\[1\] .* 0 .* 9 .* 10"),
        ("pair", (0,), {"classes": (None, 1)}, TypeError, "got None in it"),
        ("batch", (0, 0), {}, ValueError, "num .* 1 .* 0"),
        ("batch", (0, 2.0), {}, TypeError, "num .* 2.0"),
        ("batch", ("a", 1), {}, TypeError, "seed_or_key"),
        ("batch", (0, 1), {"kind": "trio"}, ValueError, "kind must be"),
        ("batch", (0, 1), {"classes": (0, 1)}, ValueError, "classes belongs to kind"),
        ("batch", (0, 1), {"kind": "pair", "class_idx": 1}, ValueError, "belong to kind"),
    ],
)
def test_bad_arguments_are_refused(name, args, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(getattr(scenes, name))(*args, **options)


def test_an_array_of_keys_is_refused():
    with pytest.raises(ValueError, match="key must be one key"):
        inspect.unwrap(scenes.scene)(jax.random.split(jax.random.key(0), 2))

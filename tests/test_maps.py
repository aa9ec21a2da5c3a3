import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import drawn

from jaxcam import maps


def test_weighted_map_by_hand():
    a = np.array([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 4.0]]])
    np.testing.assert_array_equal(jax.jit(maps.weighted_map)(np.array([1.0, -1.0]), a), [[0.0, 3.0], [0.0, 0.0]])


def test_normalised_by_hand():
    np.testing.assert_array_equal(jax.jit(maps.normalised)(np.array([-1.0, 1.0, 4.0])), [0.0, 0.25, 1.0])


def test_zero_map_stays_zero_with_finite_gradients():
    both = jax.jit(lambda zero: (maps.normalised(zero), jax.jacobian(maps.normalised)(zero)))
    for found in both(np.array([0.0, -3.0])):
        np.testing.assert_array_equal(found, 0.0)


def test_resized_is_linear_with_aligned_centres():
    # Two cells stretched to four: centres at 1/4 and 3/4 of the way, edges held.
    np.testing.assert_allclose(
        jax.jit(maps.resized, static_argnums=1)(np.array([0.0, 1.0]), (4,)), [0.0, 0.25, 0.75, 1.0], atol=1e-15
    )


def test_a_map_gets_the_mean_of_another_by_a_power():
    """[[1, 1/4], [1/4, 0]] has the mean (1 + 2 4^-p) / 4: 1/2 for p = 1/2, 9/32 for p = 2, 3/8 as it is."""
    raw = np.array([[8.0, 2.0], [2.0, -1.0]])
    found = jax.jit(jax.vmap(maps.with_mean, (None, 0)))(raw, np.array([1 / 2, 9 / 32, 3 / 8]))
    expected = [[[1, x], [x, 0]] for x in (1 / 2, 1 / 16, 1 / 4)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_mean_that_no_power_reaches_gives_the_nearest_map():
    """Positive on 3/4 of the positions, the maximum on 1/4 of them: no mean is outside of these."""
    raw, all_alike, empty = np.array([[8.0, 2.0], [2.0, 0.0]]), np.ones((2, 2)), np.array([[0.0, -1.0], [0.0, 0.0]])
    means = np.array([0.75, 0.9, 0.25, 0.0, 0.5, 0.5])
    found = jax.jit(jax.vmap(maps.with_mean))(np.stack([*4 * [raw], all_alike, empty]), means)
    np.testing.assert_allclose(found[:4], [*2 * [[[1, 1], [1, 0]]], *2 * [[[1, 0], [0, 0]]]], atol=1e-5)
    np.testing.assert_array_equal(found[4:], [all_alike, 0 * empty])


def test_a_mean_is_kept_by_stretching_to_a_multiple_and_differentiated_through():
    raw, direction, weights = (drawn(seed, 4, 3) for seed in range(3))

    @jax.jit
    def both(raw, direction):
        stretched = maps.resized(maps.with_mean(raw, 0.3), (12, 15)).mean()
        loss = lambda raw, mean: (maps.with_mean(raw, mean) * weights).sum()
        slopes = jax.jvp(loss, (raw, jnp.asarray(0.3)), (direction, jnp.asarray(0.5)))[1]
        step = 1e-6
        return (
            stretched,
            slopes,
            (loss(raw + step * direction, 0.3 + step / 2), loss(raw - step * direction, 0.3 - step / 2)),
        )

    stretched, slope, (above, below) = both(raw, direction)
    np.testing.assert_allclose(stretched, 0.3, rtol=1e-12)
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_a_mean_is_a_number_from_0_to_1():
    with pytest.raises(ValueError, match=r"mean must be .*at most 1 but is 1.5"):
        maps.with_mean(np.ones((2, 2)), 1.5)
    with pytest.raises(ValueError, match=r"mean must be one number but is \[3\]"):
        maps.with_mean(np.ones((2, 2)), np.ones(3))
    with pytest.raises(TypeError, match="cam_map must be floating point"):  # as integers all but the maximum were 0
        maps.with_mean(np.arange(4).reshape(2, 2), 0.5)
    with pytest.raises(ValueError, match="cam_map is empty"):
        maps.with_mean(np.zeros((0, 2)), 0.5)


@pytest.mark.parametrize(("top", "mean"), [(np.nan, 0.5), (np.inf, 0.5), (1.0, np.nan)])
def test_a_mean_of_what_is_not_finite_is_no_map(top, mean):
    found = maps.with_mean(np.array([[top, 0.5], [0.25, 0.0]]), jnp.asarray(mean))
    assert np.isnan(found).all()


def test_heatmap_normalises_then_resizes():
    np.testing.assert_allclose(
        jax.jit(maps.heatmap, static_argnums=1)(np.array([[0.0, 2.0]]), (1, 4)), [[0.0, 0.25, 0.75, 1.0]], atol=1e-15
    )


def test_explanation_map_multiplies_pixels():
    image = np.arange(12.0).reshape(2, 2, 3)
    heat = np.array([[0.0, 0.5], [1.0, 0.25]])
    expected = [[[0, 0, 0], [1.5, 2, 2.5]], [[6, 7, 8], [2.25, 2.5, 2.75]]]
    np.testing.assert_array_equal(maps.explanation_map(image, heat), expected)
    np.testing.assert_array_equal(maps.explanation_map(image[None], heat[None])[0], expected)


@pytest.mark.usefixtures("unchecked")
def test_explanation_map_refuses_other_sizes():
    with pytest.raises(ValueError, match=r"heatmap must be \[H, W\] of the image .* resize it to the image first"):
        maps.explanation_map(np.ones((4, 4, 3)), np.ones((2, 2)))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import maps


def test_weighted_map_by_hand():
    a = jnp.array([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 4.0]]])
    np.testing.assert_array_equal(maps.weighted_map(jnp.array([1.0, -1.0]), a), [[0.0, 3.0], [0.0, 0.0]])


def test_normalised_by_hand():
    np.testing.assert_array_equal(maps.normalised(jnp.array([-1.0, 1.0, 4.0])), [0.0, 0.25, 1.0])


def test_zero_map_stays_zero_with_finite_gradients():
    zero = jnp.array([0.0, -3.0])
    np.testing.assert_array_equal(maps.normalised(zero), 0.0)
    np.testing.assert_array_equal(jax.jacobian(maps.normalised)(zero), 0.0)


def test_resized_is_linear_with_aligned_centres():
    # Two cells stretched to four: centres at 1/4 and 3/4 of the way, edges held.
    np.testing.assert_allclose(maps.resized(jnp.array([0.0, 1.0]), (4,)), [0.0, 0.25, 0.75, 1.0], atol=1e-15)


def test_heatmap_normalises_then_resizes():
    np.testing.assert_allclose(maps.heatmap(jnp.array([[0.0, 2.0]]), (1, 4)), [[0.0, 0.25, 0.75, 1.0]], atol=1e-15)


def test_explanation_map_multiplies_pixels():
    image = jnp.arange(12.0).reshape(2, 2, 3)
    heat = jnp.array([[0.0, 0.5], [1.0, 0.25]])
    expected = [[[0, 0, 0], [1.5, 2, 2.5]], [[6, 7, 8], [2.25, 2.5, 2.75]]]
    np.testing.assert_array_equal(maps.explanation_map(image, heat), expected)
    np.testing.assert_array_equal(maps.explanation_map(image[None], heat[None])[0], expected)


@pytest.mark.usefixtures("unchecked")
def test_explanation_map_refuses_other_sizes():
    with pytest.raises(ValueError, match=r"heatmap must be \[H, W\] of the image .* resize it to the image first"):
        maps.explanation_map(jnp.ones((4, 4, 3)), jnp.ones((2, 2)))

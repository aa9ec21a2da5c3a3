import jax
import numpy as np
import pytest

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

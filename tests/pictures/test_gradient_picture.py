import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import normal

import jaxcam


def test_by_numbers():
    """Values -4 ... 4 without clipping: 0 is mid-grey, the largest magnitude black or white."""
    gradient = np.array([[[-4.0, 0.0, 4.0], [2.0, -2.0, 1.0]]])
    expected = [[[0, 128, 255], [191, 64, 159]]]
    found = np.asarray(jaxcam.gradient_picture(gradient, percentile=100))
    assert np.abs(found.astype(int) - expected).max() <= 1  # 127.5 may be rounded either way
    np.testing.assert_array_equal(found, np.asarray(jaxcam.gradient_picture(gradient * 1e-30, percentile=100)))


def test_percentile_is_what_is_clipped():
    gradient = normal(0, 20, 20, 3)
    scale = np.percentile(np.abs(gradient), 90)
    expected = 0.5 + 0.5 * np.clip(np.asarray(gradient) / scale, -1, 1)
    found = np.asarray(jaxcam.gradient_picture(gradient, percentile=90)) / 255
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)
    assert ((found == 0) | (found == 1)).mean() == pytest.approx(0.1, abs=0.01)


def test_mostly_zero_gradients_keep_their_few_values():
    gradient = np.zeros((40, 40, 3), np.float32)
    gradient[3, 4] = [1, -1, 0.5]
    found = np.asarray(jaxcam.gradient_picture(gradient)).astype(int)
    assert np.abs(found[3, 4] - [255, 0, 191]).max() <= 1
    assert np.abs(found[10, 10] - 128).max() <= 1


def test_zero_gradient_is_grey_and_one_channel_is_repeated():
    assert np.abs(np.asarray(jaxcam.gradient_picture(jnp.zeros((2, 3, 3)))).astype(int) - 128).max() <= 1
    grey = normal(1, 4, 5, 1)
    found = np.asarray(jaxcam.gradient_picture(grey, percentile=100))
    np.testing.assert_array_equal(found, np.asarray(jaxcam.gradient_picture(jnp.repeat(grey, 3, -1), percentile=100)))


@pytest.mark.parametrize(
    ("gradient", "percentile", "error", "message"),
    [
        ([[1.0]], 99, TypeError, "gradient must be a concrete array"),
        (np.zeros((2, 2, 3), int), 99, TypeError, "gradient must be floating point, got int64"),
        (np.zeros((1, 2, 2, 3)), 99, ValueError, r"got \[1, 2, 2, 3\]: pass one of the batch"),
        (np.zeros((3, 8, 8)), 99, ValueError, r"got \[3, 8, 8\]: move the channels last"),
        (np.zeros((0, 8, 3)), 99, ValueError, "gradient is empty"),
        (np.full((2, 2, 3), np.nan), 99, ValueError, "gradient must be finite"),
        (np.zeros((2, 2, 3)), 0, ValueError, "percentile .* 0 .* 100 .* 0"),
        (np.zeros((2, 2, 3)), "99", TypeError, "percentile .* '99'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_documented_errors(gradient, percentile, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(jaxcam.gradient_picture)(gradient, percentile=percentile)


@pytest.mark.usefixtures("unchecked")
def test_traced_gradients_are_refused():
    with pytest.raises(TypeError, match="a traced array: pass found"):
        jax.jit(lambda g: np.asarray(inspect.unwrap(jaxcam.gradient_picture)(g)))(jnp.zeros((2, 2, 3)))

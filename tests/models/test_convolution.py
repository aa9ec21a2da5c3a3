"""Every way of writing a convolution against `lax.conv_general_dilated`, with its derivatives."""

from functools import partial

import jax
import numpy as np
import pytest
from support import network, normal

import jaxcam
from jaxcam import models
from jaxcam.programs.convolution import convolution, convolution_of_patches

NHWC = ("NHWC", "HWIO", "NHWC")
# size, input channels, outputs, groups, strides, padding
CASES = {
    "1x1": (1, 6, 5, 1, 1, [(0, 0), (0, 0)]),
    "1x1 strided": (1, 6, 5, 1, 2, [(0, 0), (0, 0)]),
    "1x1 padded": (1, 6, 5, 1, 1, [(1, 1), (0, 2)]),
    "1x1 grouped": (1, 6, 4, 2, 1, "SAME"),
    "depthwise": (3, 6, 6, 6, 1, [(1, 1), (1, 1)]),
    "depthwise strided": (5, 6, 6, 6, 2, [(2, 2), (2, 2)]),
    "depthwise as TensorFlow": (3, 6, 6, 6, 2, "SAME"),
    "depthwise, multiplied": (3, 6, 12, 6, 1, "SAME"),
    "grouped": (3, 6, 6, 3, 2, "VALID"),
    "plain": (3, 6, 4, 1, 2, "SAME"),
    "one channel": (3, 1, 1, 1, 1, "SAME"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("side", [(8, 7), pytest.param((9, 12), marks=pytest.mark.thorough)])
@pytest.mark.parametrize("way", [convolution, convolution_of_patches], ids=["fastest", "patches"])
@pytest.mark.sample(4)
def test_values_and_derivatives(case, side, way):
    size, inputs, outputs, groups, strides, padding = CASES[case]
    x, w = normal(0, 2, *side, inputs), normal(1, size, size, inputs // groups, outputs)

    def reference(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (strides, strides), padding, dimension_numbers=NHWC, feature_group_count=groups
        )

    def ours(x, w):
        return way(x, w, (strides, strides), padding, dimension_numbers=NHWC, feature_group_count=groups)

    def everything(f):
        """In one program: the value, both derivatives, and a batch of batches."""

        @jax.jit
        def program(x, w, tangents, cotangent):
            value, tangent = jax.jvp(f, (x, w), tangents)
            batched = jax.vmap(f, (0, None))(x[:, None], w)[:, 0]
            return value, tangent, jax.vjp(f, x, w)[1](cotangent), batched

        return program

    shape = jax.eval_shape(reference, x, w).shape
    arguments = x, w, (normal(2, *x.shape), normal(3, *w.shape)), normal(4, *shape)
    found, expected = everything(ours)(*arguments), everything(reference)(*arguments)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), found, expected)


@pytest.mark.parametrize("way", [convolution, convolution_of_patches], ids=["fastest", "patches"])
@pytest.mark.parametrize("groups", [1, 6])
def test_unlike_strides_kernels_and_pads(way, groups):
    x, w = normal(0, 2, 9, 8, 6), normal(1, 3, 2, 6 // groups, 6)
    options = {"dimension_numbers": NHWC, "feature_group_count": groups}
    found = way(x, w, (1, 2), [(0, 2), (1, 0)], **options)
    expected = jax.lax.conv_general_dilated(x, w, (1, 2), [(0, 2), (1, 0)], **options)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_eagerly_too():
    x, w = normal(0, 2, 8, 7, 6), normal(1, 1, 1, 6, 5)
    found = convolution(x, w, (1, 1), [(0, 0), (0, 0)], dimension_numbers=NHWC)
    np.testing.assert_allclose(found, np.einsum("nhwi,io->nhwo", x, w[0, 0]), atol=1e-12)


@pytest.mark.parametrize("way", [convolution, convolution_of_patches], ids=["fastest", "patches"])
def test_dilation_is_left_to_lax(way):
    x, w = normal(0, 1, 9, 9, 4), normal(1, 1, 1, 4, 3)
    found = way(x, w, (1, 1), [(0, 0), (0, 0)], lhs_dilation=(2, 1), dimension_numbers=NHWC)
    expected = jax.lax.conv_general_dilated(x, w, (1, 1), [(0, 0), (0, 0)], lhs_dilation=(2, 1), dimension_numbers=NHWC)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_the_fast_ways_are_taken():
    """No convolution is left in the programs of a 1x1 and, on a CPU, of a depthwise one."""
    for case in ("1x1", "1x1 strided", "depthwise", "depthwise strided"):
        size, inputs, outputs, groups, strides, padding = CASES[case]
        x, w = normal(0, 2, 8, 7, inputs), normal(1, size, size, inputs // groups, outputs)
        ours = jax.jit(
            lambda x, w: convolution(
                x,
                w,
                (strides, strides),  # noqa: B023
                padding,  # noqa: B023
                dimension_numbers=NHWC,
                feature_group_count=groups,  # noqa: B023
            )
        )
        assert "convolution(" not in ours.lower(x, w).compile().as_text(), case


@pytest.mark.thorough
def test_heads_with_depthwise_convolutions_are_explained():
    model, images = network(models.efficientnet_b0, dtype=np.float64), normal(0, 1, 32, 32, 3)
    shape = jax.eval_shape(lambda images: model.features(images, layer="features.7"), images).shape
    head = lambda a: model.head(a[None], layer="features.7")[0]
    assert not jaxcam.is_piecewise_linear(head, np.zeros(shape[1:]))  # SiLU

    @jax.jit
    def by_hand(model, images):
        a = model.features(images, layer="features.5")
        gradient = jax.grad(lambda a: model.head(a, layer="features.5")[0, 3])(a)
        return jax.nn.relu(a[0] @ gradient[0].mean((0, 1)))

    expected = np.asarray(by_hand(model, images))
    assert expected.max() > 0
    found = jaxcam.explain(model, images, layer="features.5", method="grad_cam", class_idx=3)
    np.testing.assert_allclose(found.cam_map[0], expected, atol=1e-9 * expected.max())

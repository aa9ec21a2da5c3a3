"""Which pixels a layer's positions look at, against the support of gradients through linear networks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name as tag

import jaxcam

SIZE = (48, 60)


def conv(x, width, step=1, pads="VALID", apart=1):
    pads = pads if isinstance(pads, str) else (pads, pads)
    kernel = jnp.ones((width, width, x.shape[-1], 2))
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (step, step), pads, rhs_dilation=(apart,) * 2, dimension_numbers=numbers
    )


def pooled(x, width, step, pads="VALID", apart=1):
    dilation = (1, apart, apart, 1)
    return jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, width, width, 1), (1, step, step, 1), pads, window_dilation=dilation
    )


def patches(x, size):
    n, rows, columns, channels = x.shape
    return x.reshape(n, rows // size, size, columns // size, size, channels).mean((2, 4))


def downsampled(x):
    """As a residual block does it: the window looks further than what goes past it."""
    return conv(x, 3, 2, "SAME") + conv(x, 1, 2, "SAME")


def tokens(x):
    n, rows, columns, channels = x.shape
    x = jnp.concatenate([jnp.ones((n, 1, channels)), x.reshape(n, -1, channels)], 1)
    return (x + x.mean(1, keepdims=True) * 0)[:, 1:].reshape(n, rows, columns, channels)


# The networks, and what the table says: each position's step and the centre of the first.
NETWORKS = {
    "not padded": (lambda x: conv(conv(x, 5, 2), 3, 1, apart=2), "every 2 from 6"),
    "padded as torch does": (
        lambda x: pooled(conv(x, 7, 2, (3, 3)), 3, 2, ((0, 0), (1, 1), (1, 1), (0, 0))),
        "every 4 from 0",
    ),
    "padded on one side": (lambda x: conv(x, 2, 1, (0, 1)), "every 1 from 0.5"),
    "SAME": (lambda x: conv(x, 3, 2, "SAME"), "every 2 from 1"),
    "a residual block": (downsampled, "every 2 from 1"),
    "pooling": (lambda x: conv(pooled(x, 2, 2), 3), "every 2 from 2.5"),
    "pooling of every other pixel": (lambda x: pooled(x, 3, 2, apart=2), "every 2 from 2"),
    "patches, by a convolution": (lambda x: conv(x, 4, 4), "every 4 from 1.5"),
    "patches, by a reshape": (lambda x: conv(patches(x, 4), 1), "every 4 from 1.5"),
    "tokens": (lambda x: tokens(patches(x, 6)), "every 6 from 2.5"),
    "every third": (lambda x: conv(x, 3)[:, 1::3, 1::3], "every 3 from 2"),
    "padding first": (lambda x: conv(jnp.pad(x, ((0, 0), (2, 0), (2, 0), (0, 0))), 3, 2), "every 2 from -1"),
    "pixel shuffle": (lambda x: jnp.repeat(jnp.repeat(conv(x, 4, 4), 2, 1), 2, 2), "every 2 from 0.5"),
    "an axis of its own": (lambda x: conv(x[:, :, ::2], 4, 4), "every 4x8 from 1.5x3"),
}


def centre(features, x, place):
    """Of the pixels that one position's value changes with."""
    gradient = jax.grad(lambda x: features(x)[(0, *place)].sum())(x)
    return [(there.min() + there.max()) / 2 for there in np.nonzero(np.abs(gradient[0]).sum(-1))]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sample(4)
def test_the_centres_are_those_of_the_gradients_support(name):
    network, expected = NETWORKS[name]
    x = jnp.ones((1, *SIZE, 3))
    rows = jaxcam.layers(lambda x: tag(network(x), "here").mean((1, 2)) ** 2, x)
    (row,) = [row for row in rows if row.layer == "here"]
    assert row.centres == expected
    if name == "pixel shuffle":  # a patch's value stands for each of its quarters
        return
    steps, starts = ([*map(float, (part.split("x") * 2)[:2])] for part in re.split(" from ", expected[6:]))
    for place in ((3, 4), (4, 5)):
        by_hand = [start + step * p for start, step, p in zip(starts, steps, place, strict=True)]
        assert centre(network, x, place) == by_hand


def test_what_is_not_known_is_not_told():
    def network(x):
        here = conv(x, 3, 1)
        resized = tag(jax.image.resize(here, (1, 23, 29, 2), "linear"), "resized")
        return resized.mean((1, 2)) + tag(here @ jnp.ones((2, 2)), "dense").mean((1, 2))

    def repeated(pads):
        return lambda x: tag(jax.lax.fori_loop(0, 70, lambda _, x: conv(x, 2 + pads[0], 1, pads), x[..., :2]), "loop")

    rows = {row.layer: row for row in jaxcam.layers(network, jnp.ones((1, *SIZE, 3)))}
    for pads, centres in (((1, 1), "every 1 from 0"), ((0, 1), "")):  # 70 steps, or 70 half steps to the side
        known = {row.layer: row.centres for row in jaxcam.layers(repeated(pads), jnp.ones((1, *SIZE, 3)))}
        assert known["loop"] == centres
    assert (rows["resized"].grid, rows["resized"].centres) == ("23x29", "")
    assert rows["dense"].centres == "every 1 from 1"

"""What becomes of a map when the network's weights are random: eMPRT, by the map's entropy."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.checks import check_integer
from jaxcam.metrics.operands import Map, check_all_floating, check_same_shape, is_explanation, together, where_defined


def discrete_entropy(heatmap: Map, *, num_bins: int = 100) -> Float[Array, ""]:
    """The entropy -Σ p log p of the histogram of a map's values, between its least and its largest; natural logarithm.

    NaN where the map is zero or not finite; 0 where it is constant.

    Raises:
        ValueError: the map is empty, or num_bins is not positive.

        TypeError: not floating point.
    """
    check_all_floating(heatmap=heatmap)
    check_same_shape(heatmap=heatmap)
    num = check_integer("num_bins", num_bins, low=1)
    (values,) = together(heatmap)
    low, high = values.min(), values.max()
    width = jnp.where(high > low, high - low, 1)
    places = jnp.clip(jnp.floor((values - low) / width * num), 0, num - 1)  # the largest value is in the last bin
    places = jnp.where(jnp.isfinite(places), places, 0).astype(jnp.int32)
    shares = jnp.zeros(num, values.dtype).at[places.reshape(-1)].add(1) / values.size
    entropy = -(shares * jnp.log(jnp.where(shares > 0, shares, 1))).sum()
    return where_defined(is_explanation(values), entropy).astype(heatmap.dtype)


def emprt(heatmap: Map, heatmap_of_random: Map, *, num_bins: int = 100) -> Float[Array, ""]:
    """(H of the map with random weights - H of the map) / H of the map, with H the `discrete_entropy`.

    A map that explains what was learned becomes less orderly when all of it is lost: higher is better.

    Args:
        heatmap: of the network, any shape.
        heatmap_of_random: for the same class of the network with random weights in all layers, of the same shape.
        num_bins: of the histograms.

    Returns:
        NaN where one of the maps is zero or not finite, or the first has no entropy (is constant).

    Raises:
        ValueError: the shapes differ, or num_bins is not positive.

        TypeError: not floating point.

    **Source**: Hedström et al. 2024, "A fresh look at sanity checks for saliency maps", efficient MPRT.
    """
    check_all_floating(heatmap=heatmap, heatmap_of_random=heatmap_of_random)
    check_same_shape(heatmap=heatmap, heatmap_of_random=heatmap_of_random)
    before = discrete_entropy(heatmap, num_bins=num_bins)
    after = discrete_entropy(heatmap_of_random, num_bins=num_bins)
    return where_defined(before > 0, (after - before) / jnp.where(before > 0, before, 1))

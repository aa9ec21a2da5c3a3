"""Figures of maps alone: correlations, coherency, complexity, sparsity, and ADCC, which joins them with the drop.

Maps have any number of spatial axes, for one image.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.metrics.operands import (
    Map,
    Values,
    check_all_floating,
    check_same_shape,
    is_explanation,
    together,
    where_defined,
    widest,
)


def _correlation(a: Array, b: Array) -> Array:
    """Of deviations from the mean."""
    norms = jnp.sqrt((a * a).sum()) * jnp.sqrt((b * b).sum())
    defined = norms > 0
    return where_defined(defined, jnp.clip((a * b).sum() / jnp.where(defined, norms, 1), -1, 1))


def _pearson(a: Array, b: Array) -> Array:
    # A constant map is told by its values: not every device divides so exactly that its deviations are 0.
    varied = (a.max() > a.min()) & (b.max() > b.min())
    finite = jnp.isfinite(a).all() & jnp.isfinite(b).all()
    return where_defined(varied & finite, _correlation(_centred(a), _centred(b)))


def _centred(values: Array) -> Array:
    # Scaled first: sums and squares of huge numbers would overflow, those of tiny ones underflow.
    scale = jnp.abs(values).max()
    shares = values / jnp.where(scale > 0, scale, 1)
    return shares - shares.mean()


def _centred_ranks(values: Array) -> Array:
    """Twice the deviation of each value's rank from the mean rank; ties share the mean of their ranks."""
    flat = values.reshape(-1)
    ordered = jnp.sort(flat)
    below = jnp.searchsorted(ordered, flat, side="left")
    up_to = jnp.searchsorted(ordered, flat, side="right")
    # The ranks below + 1 ... up_to have the mean (below + up_to + 1) / 2, and all ranks (n + 1) / 2: exact integers.
    return (below + up_to - flat.size).astype(values.dtype)


def pearson(a: Map, b: Map) -> Float[Array, ""]:
    """Pearson's correlation of two maps, over positions, in [-1, 1].

    Args:
        a: a map, any shape; a positive factor changes nothing.
        b: another, of the same shape.

    Returns:
        NaN where one of them is constant or not finite.

    Raises:
        ValueError: the shapes differ, or the maps are empty.

        TypeError: not floating point.
    """
    check_all_floating(a=a, b=b)
    check_same_shape(a=a, b=b)
    return _pearson(*together(a, b)).astype(widest(a, b))


def rank_correlation(a: Map, b: Map) -> Float[Array, ""]:
    """Spearman's rank correlation of two maps, in [-1, 1]: equal values share the mean of their ranks.

    Args, returns and errors as in `pearson`. Of a map and the one for a network with shuffled weights it is the sanity
    check of Adebayo et al. 2018.
    """
    check_all_floating(a=a, b=b)
    check_same_shape(a=a, b=b)
    x, y = together(a, b)
    finite = jnp.isfinite(x).all() & jnp.isfinite(y).all()
    return where_defined(finite, _correlation(_centred_ranks(x), _centred_ranks(y))).astype(widest(a, b))


def coherency(heatmap: Map, heatmap_of_e: Map) -> Float[Array, ""]:
    """(1 + Pearson's correlation) / 2, in [0, 1]: how far the explanation map is explained like the image.

    Args:
        heatmap: L of the image, any shape; a positive factor changes nothing.
        heatmap_of_e: L of the explanation map, for the same class and by the same method.

    Returns:
        NaN where one of them is constant or not finite. Higher is better.

    Raises:
        ValueError: the shapes differ, or the maps are empty.

        TypeError: not floating point.

    **Source**: Poppi et al. 2021, scaled to [0, 1] as in their released code (which counts an undefined one
    as 0).
    """
    check_all_floating(heatmap=heatmap, heatmap_of_e=heatmap_of_e)
    check_same_shape(heatmap=heatmap, heatmap_of_e=heatmap_of_e)
    a, b = together(heatmap, heatmap_of_e)
    return ((1 + _pearson(a, b)) / 2).astype(widest(heatmap, heatmap_of_e))


def complexity(heatmap: Map) -> Float[Array, ""]:
    """The mean of |L|: the L1 norm over the number of pixels, in [0, 1] for a heatmap. Lower is better.

    NaN where the heatmap is zero or not finite. Raises as `sparsity`. **Source**: Poppi et al. 2021.
    """
    check_all_floating(heatmap=heatmap)
    check_same_shape(heatmap=heatmap)
    (values,) = together(heatmap)
    return where_defined(is_explanation(values), jnp.abs(values).mean()).astype(heatmap.dtype)


def sparsity(heatmap: Map) -> Float[Array, ""]:
    """The ratio max L / mean L, from 1 (constant) to the number of pixels (one of them has everything).

    Args:
        heatmap: L, not negative, any shape; a positive factor changes nothing. The paper brings maps to [0, 1] by their
            minimum and maximum first; here L is taken as it comes.

    Returns:
        NaN where the heatmap is zero or not finite.

    Raises:
        ValueError: the heatmap is empty.

        TypeError: not floating point.

    **Source**: Gomez et al. 2022 (Metrics for saliency map evaluation of deep learning explanation methods).
    """
    check_all_floating(heatmap=heatmap)
    check_same_shape(heatmap=heatmap)
    (values,) = together(heatmap)
    top = values.max()
    defined = is_explanation(values) & (top > 0)
    mean_share = (values / jnp.where(defined, top, 1)).mean()
    return where_defined(defined, 1 / jnp.where(defined, mean_share, 1)).astype(heatmap.dtype)


def adcc(drop: Values, coherency: Values, complexity: Values) -> Float[Array, "*n"]:
    """3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop)): a harmonic mean, in [0, 1]. Higher is better.

    Args:
        drop: `relative_drop`, any shape, a fraction as the others are, not percent.
        coherency: `coherency`, of the same shape.
        complexity: `complexity`, of the same shape.

    Returns:
        Element by element; 0 where one of the three averaged values is 0, NaN where one is not finite.

    Raises:
        ValueError: the shapes differ, or they are empty.

        TypeError: not floating point.

    **Source**: Poppi et al. 2021.
    """
    check_all_floating(drop=drop, coherency=coherency, complexity=complexity)
    check_same_shape(drop=drop, coherency=coherency, complexity=complexity)
    a, b, c = together(drop, coherency, complexity)
    terms = jnp.stack([b, 1 - c, 1 - a])
    positive = (terms > 0).all(0)
    mean = 3 / (1 / jnp.where(positive[None], terms, 1)).sum(0)
    value = where_defined(jnp.isfinite(terms).all(0), jnp.where(positive, mean, 0))
    return value.astype(widest(drop, coherency, complexity))

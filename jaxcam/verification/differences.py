"""The figures of a verification: how far arrays, alphas and maps are apart, and how safe a denominator is.

All of it in NumPy and float64, from arrays that are already there.
"""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcam.alphas import exact_alphas, ill_conditioned


@dataclass(frozen=True)
class Difference:
    """How far one array is from a reference."""

    num_elements: int
    """How many elements were compared."""
    largest: float
    """For derivatives: the largest difference over the largest magnitude of the reference. For alphas: the largest
    of |x - y| / max(|x|, |y|) over the elements, from 0 (equal) over 1 (one is zero) to 2 (opposite signs)."""
    median: float
    """The median of |x - y| / max(|x|, |y|) over the elements where one of the two is not zero."""
    over_rounding: float = math.inf
    """For alphas: the largest of |x - y| over what rounding explains, see `rounding_of_alphas`; up to 1 the two may be
    the same. Infinite where that was not worked out."""


@dataclass(frozen=True)
class Ratio:
    """How large some terms are in comparison with others, over all elements compared."""

    overall: float
    """The sum of their magnitudes over the sum of the others' magnitudes."""
    median: float
    """The median of the ratio of the magnitudes."""
    share_larger: float
    """The share of the elements at which the terms are larger than the others."""


@dataclass(frozen=True)
class MapComparison:
    """How far weights, and the map they give, are from those of Grad-CAM++ with exact alphas."""

    weights_cosine: float | None
    """Cosine of the angle between the weights; None where one of the two is zero."""
    map_correlation: float | None
    """Pearson correlation of the maps over the positions; None where one of the two is constant."""
    map_difference: float
    """The largest difference of the maps, each divided by its maximum: from 0 to 1."""


@dataclass(frozen=True)
class Denominator:
    """The denominator 2 d2 + S_k d3 over some of the elements."""

    num_elements: int
    smallest: float | None
    """The smallest |2 d2 + S_k d3| / (|2 d2| + |S_k d3|): 1 where the terms have the same sign, 0 on a pole. None if
    there is no element with a term that is not zero."""
    num_negative: int
    """Elements with a negative alpha: the denominator has another sign than its first term, and a pole lies between."""
    num_ill_conditioned: int
    """Those of `jaxcam.alphas.ill_conditioned`: the negative ones, the poles, and where half of the digits are lost."""
    num_channels_crossing: int
    """Channels in which alphas of both signs occur."""


def relative_to_largest(found: Float[np.ndarray, "..."], reference: Float[np.ndarray, "..."]) -> Difference:
    """The `Difference` of derivatives."""
    scale = float(np.abs(reference).max(initial=0))
    gap = float(np.abs(found - reference).max(initial=0))
    largest = gap / scale if scale else (np.inf if gap else 0.0)
    return Difference(found.size, largest, elementwise(found, reference).median)


def rounding_of_alphas(
    sums: Float[np.ndarray, " n"], derivatives: Float[np.ndarray, "3 n"], unit: float
) -> Float[np.ndarray, " n"]:
    """How far rounding may move the alphas d2 / (2 d2 + S_k d3), element by element.

    A derivative that is a difference of large terms, as u^2 - v is, is no more exact than those: each is taken to be
    right to `unit` times the largest of its order, and the numerator and denominator carry that on. Without a bound
    where the denominator is no larger than its own error.
    """
    _, d2, d3 = derivatives
    error2, error3 = (unit * np.abs(d).max(initial=0) for d in (d2, d3))
    denominator = np.abs(2 * d2 + sums * d3) - 2 * error2 - np.abs(sums) * error3
    carried = np.abs(sums) * (np.abs(d3) * error2 + np.abs(d2) * error3 + error2 * error3)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, carried / denominator**2, np.inf)


def elementwise(
    found: Float[np.ndarray, "..."],
    reference: Float[np.ndarray, "..."],
    rounding: Float[np.ndarray, "..."] | None = None,
) -> Difference:
    """The `Difference` of alphas; with what `rounding` explains of it."""
    size = np.maximum(np.abs(found), np.abs(reference))
    there = size > 0
    gaps = np.abs(found - reference)[there] / size[there]
    largest, median = (float(gaps.max()), float(np.median(gaps))) if gaps.size else (0.0, 0.0)
    if rounding is None:
        return Difference(found.size, largest, median)
    apart = np.abs(found - reference)
    there = apart > 0
    return Difference(found.size, largest, median, float((apart[there] / rounding[there]).max(initial=0)))


def ratio(terms: Float[np.ndarray, "..."], others: Float[np.ndarray, "..."]) -> Ratio | None:
    """Terms in comparison with others; None where there is nothing to compare with."""
    numerator, denominator = np.abs(terms), np.abs(others)
    there = denominator > 0
    if not there.any():
        return None
    ratios = numerator[there] / denominator[there]
    return Ratio(float(numerator.sum() / denominator.sum()), float(np.median(ratios)), float((ratios > 1).mean()))


def compared_maps(
    weights: Float[np.ndarray, " k"], reference: Float[np.ndarray, " k"], activations: Float[np.ndarray, "n k"]
) -> MapComparison:
    """The maps ReLU(sum_k w_k A_k) of two sets of weights."""
    norms = float(np.linalg.norm(weights) * np.linalg.norm(reference))
    first, second = (_normalised(activations @ w) for w in (weights, reference))
    spread = float(np.linalg.norm(first - first.mean()) * np.linalg.norm(second - second.mean()))
    return MapComparison(
        float(weights @ reference) / norms if norms else None,
        float((first - first.mean()) @ (second - second.mean())) / spread if spread else None,
        float(np.abs(first - second).max()),
    )


def denominator(
    sums: Float[np.ndarray, " n"],
    d2: Float[np.ndarray, " n"],
    d3: Float[np.ndarray, " n"],
    *,
    channels: Int[np.ndarray, " n"],
    among: Bool[np.ndarray, " n"],
) -> Denominator:
    """The condition of 2 d2 + S_k d3.

    Args:
        sums: S_k of each element's channel.
        d2: second derivatives.
        d3: third derivatives.
        channels: k of each element.
        among: the elements that count.
    """
    first, second = 2 * d2, sums * d3
    terms = np.abs(first) + np.abs(second)
    counted = among & (terms > 0)
    relative = np.abs(first + second)[counted] / terms[counted]
    sign = np.sign(first) * np.sign(first + second)
    crossing = set(channels[among & (sign < 0)]) & set(channels[among & (sign > 0)])
    bad = np.asarray(_ill_conditioned(sums[None], d2[None], d3[None]))[0]
    return Denominator(
        int(among.sum()),
        float(relative.min()) if relative.size else None,
        int((among & (sign < 0)).sum()),
        int((among & bad).sum()),
        len(crossing),
    )


def alphas_of(sums: Float[np.ndarray, " n"], derivatives: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, " n"]:
    """The alphas d2 / (2 d2 + S_k d3) at some elements, from S_k of their channels."""
    _, d2, d3 = derivatives
    return np.asarray(_exact_alphas(sums[None], d2[None], d3[None]))[0]


# Compiled, of elements laid out as channels of one position: S_k in the place of A is then the sum of its channel.
_exact_alphas, _ill_conditioned = jax.jit(exact_alphas), jax.jit(ill_conditioned)


def _normalised(cam_map: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    positive = np.maximum(cam_map, 0)
    return positive / positive.max() if positive.max() > 0 else positive

"""Shares: of what is yes or no for each image, with intervals that have a width where every image says the same.

The bootstrap of a share of 100 % is 100 % in every resample, though 50 hits of 50 leave room for one miss in fifteen.
So shares have intervals of their own here, and two methods on the same images an exact test. Of counts, in NumPy.

Values between 0 and 1, as the pointing game's where several pixels share the maximum, are taken as well: none varies
more about its mean p than a yes with probability p, so that the intervals are no narrower than they may be.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

Shares = Float[np.ndarray, "*shape"]
Counts = Int[np.ndarray, "*shape"] | Float[np.ndarray, "*shape"]


def wilson(total: Counts, n: Counts, *, level: float) -> tuple[Shares, Shares]:
    """Wilson's score interval (low, high) of the share total / n: the p that a score test does not reject.

    (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with p = total / n; NaN where n is 0.

    **Source**: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = np.where(n > 0, n, np.nan)
    p = total / n
    # A rounding of p above 1 must not become the root of a negative number.
    half = z * np.sqrt(np.maximum(p * (1 - p), 0) / n + (z / (2 * n)) ** 2)
    middle, scale = p + z * z / (2 * n), 1 + z * z / n
    return np.maximum((middle - half) / scale, 0), np.minimum((middle + half) / scale, 1)


def paired(total: Counts, num_apart: Counts, n: Counts, *, level: float) -> tuple[Shares, Shares]:
    """The interval (low, high) of the difference of two shares of the same images.

    With one image more on either side, d = total / (n + 2) and s = (num_apart + 2) / (n + 2): d ± z sqrt((s - d^2) /
    (n + 2)), cut off at -1 and 1; NaN where n is 0.

    Args:
        total: of the first minus the second; of yes and no the images with the first alone, less those with the second.
        num_apart: on how many images the two differ.
        n: how many there are.
        level: of the interval.

    **Source**: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data".
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = np.where(n > 0, n, np.nan) + 2
    d, s = total / n, (num_apart + 2) / n
    half = z * np.sqrt((s - d * d) / n)
    return np.maximum(d - half, -1), np.minimum(d + half, 1)


def mcnemar(one: Int[np.ndarray, "*shape"], other: Int[np.ndarray, "*shape"]) -> Shares:
    """The p of McNemar's exact test, two-sided: how likely coins of `one` + `other` images fall apart as far as that.

    Args:
        one: on how many images the first alone says yes, or has more.
        other: on how many the second.

    Returns:
        min(1, 2 P(X <= min(one, other))) for X ~ Binomial(one + other, 1/2); 1 where both are 0.

    **Source**: McNemar 1947; exact by the sign test of the images on which the two differ.
    """
    from scipy.special import bdtr  # here, since importing jaxcam does not import SciPy

    return np.minimum(2 * bdtr(np.minimum(one, other), one + other, 0.5), 1.0)


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The p of n tests, each as large as it has to be for the chance of any false rejection to stay below the level.

    The smallest times n, the next times n - 1 and so on, none smaller than the one before, at most 1.

    **Source**: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted

"""How often each image is drawn in each bootstrap resample.

Contract: a weight depends on the seed, the image's number and the resample's number alone, by a hash: the same
wherever, whenever and next to whatever other images it is worked out.
"""

from decimal import Decimal, localcontext

import numpy as np
from jaxtyping import Int64, UInt64

LARGEST = 20
"""No weight is larger: the probability, 7e-21, is below the hash's resolution."""

_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = 2**64 - 1


def poisson_weights(index: Int64[np.ndarray, " n"], num_resamples: int, seed: int) -> Int64[np.ndarray, "b n"]:
    """The weights of images in resamples, independent Poisson numbers of mean 1.

    A bootstrap sample of n of n images draws each image Binomial(n, 1/n) times; Poisson(1) is the limit of that, needs
    no n, and draws each image independently of all others.

    Args:
        index: the images' numbers in the data set.
        num_resamples: B; the resamples have the numbers 0 to B - 1.
        seed: an integer from 0 to 2^64 - 1.

    **Source**: Hanley and MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson frequencies";
    Chamandy et al. 2012, "Estimating uncertainty for massive data streams". The hash is SplitMix64 (Steele, Lea and
    Flood 2014, "Fast splittable pseudorandom number generators").
    """
    start = _mixed(np.asarray([seed], np.uint64))
    of_image = _mixed(start + _steps(index.astype(np.uint64)))
    of_resample = _steps(np.arange(num_resamples, dtype=np.uint64))
    uniform = _mixed(of_image[None, :] + of_resample[:, None])
    return np.searchsorted(_THRESHOLDS, uniform, side="right").astype(np.int64)


def _steps(number: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    # Arithmetic of unsigned arrays is modulo 2^64, as the hash wants it; that of NumPy's scalars would warn.
    return (number + np.uint64(1)) * np.uint64(_GOLDEN)


def _mixed(z: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """SplitMix64's output function: a bijection of the 64-bit numbers."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _thresholds() -> UInt64[np.ndarray, " t"]:
    """2^64 P(X <= j) for j from 0: a uniform number is at or above j + 1 of them for a weight above j."""
    with localcontext() as context:
        context.prec = 60
        probability, distribution, found = Decimal(-1).exp(), Decimal(0), list[int]()
        for j in range(LARGEST):
            distribution += probability
            found.append(min(int(distribution * 2**64), _64_BITS))
            probability /= j + 1
    return np.asarray(found, np.uint64)


_THRESHOLDS = _thresholds()

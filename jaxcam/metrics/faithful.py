"""Infidelity and max-sensitivity: what the attributions say of a change of the input, and how much one changes them.

The perturbations are given, so that these are functions of arrays, and two methods are tried with the same ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam.checks import check_integer
from jaxcam.metrics.operands import Image, Map, check_all_floating, check_image, together, where_defined

Perturbations = Float[Array, "p *grid d"] | Float[np.ndarray, "p *grid d"]


def infidelity(
    f: Callable[[Any], Any],
    image: Image,
    attributions: Map,
    perturbations: Perturbations,
    *,
    is_scaled: bool = True,
    is_relative: bool = False,
    batch_size: int = 8,
) -> Float[Array, ""]:
    """The mean over perturbations I of (β Σ I ∘ Φ - (f(x) - f(x - I)))^2: what Φ says of a change against the change.

    Args:
        f: from an input `[*grid, d]` to a scalar, as the logit.
        image: x, `[*grid, d]`.
        attributions: Φ, `[*grid, d]`, or a map `[*grid]` that holds for all channels of a position.
        perturbations: I, `[p, *grid, d]`: normal noise, or the image where a square is removed.
        is_scaled: whether β is the one with the least infidelity, Σ a b / Σ a^2 with a = Σ I ∘ Φ and b = f(x) -
            f(x - I), as it has to be for heatmaps, whose scale means nothing. Otherwise β = 1.
        is_relative: whether it is divided by the mean of b^2, to compare inputs: with is_scaled in [0, 1] then, the
            share of what happened that the attributions do not say.
        batch_size: how many inputs f sees at a time. It is called for p + 1.

    Returns:
        A scalar, lower is better, in f's unit squared or relative. NaN where attributions are zero or not finite, and
        with is_relative where nothing happens, all b = 0.

    Raises:
        ValueError: the shapes do not fit, or f does not return a scalar.

        TypeError: f is not callable, or an array not floating point.

    **Source**: Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", definition 2.1; the scale is
    that of its section 4 and of captum (normalize=True).
    """
    _check(f, image, perturbations)
    check_all_floating(attributions=attributions)
    if attributions.shape not in (image.shape, image.shape[:-1]):
        raise ValueError(
            f"attributions must have the image's shape {list(image.shape)}, or be a map {list(image.shape[:-1])}, but "
            f"came as {list(attributions.shape)}"
        )
    x, phi, change = together(image, attributions, perturbations)
    phi = phi if phi.ndim == x.ndim else phi[..., None]
    said = (change * phi[None]).sum(tuple(range(1, change.ndim)))
    inputs = jnp.concatenate([x[None], x[None] - change]).astype(image.dtype)
    values = jax.lax.map(f, inputs, batch_size=check_integer("batch_size", batch_size, low=1))
    if getattr(values, "shape", None) != (len(inputs),):
        came = list(values.shape[1:]) if hasattr(values, "shape") else type(values).__name__
        raise ValueError(f"f must return a scalar, but it returned {came}")
    error = infidelity_of(said, values[0] - values[1:], is_scaled=is_scaled, is_relative=is_relative)
    return where_defined(jnp.isfinite(phi).all() & (phi != 0).any(), error)


def infidelity_of(
    said: Float[Array, " p"], happened: Float[Array, " p"], *, is_scaled: bool = True, is_relative: bool = False
) -> Float[Array, ""]:
    """`infidelity` of what attributions say of each change, a, and what happened, b."""
    # In units of the largest where units cancel: in float32 the square of 1e-25 would be 0, and that of 1e25 infinite.
    if is_relative:
        said, happened = said / _largest(happened), happened / _largest(happened)
    if is_scaled:
        said = said / _largest(said)
    square, size = (said * said).sum(), (happened * happened).mean()
    beta = (said * happened).sum() / jnp.where(square > 0, square, 1) if is_scaled else 1.0
    error = ((beta * said - happened) ** 2).mean()
    return where_defined(size > 0, error / jnp.where(size > 0, size, 1)) if is_relative else error


def _largest(values: Array) -> Array:
    """The largest size among them, and 1 where all are 0."""
    top = jnp.abs(values).max()
    return jnp.where(top == 0, 1, top)


def squares(size: Sequence[int], num: int, *, seed: int = 0) -> Bool[np.ndarray, "num *grid"]:
    """Random boxes to remove, one in each mask: sides from 1/8 to 1/2 of the grid's, anywhere inside of it.

    For `infidelity` of a heatmap: what is attributed then are the values of a mask m over the picture, and the change
    of m = 1 is a box of it. So I is `squares(...)[..., None]`, the input `np.ones((H, W, 1))`, and f that of
    `blended(image, m[..., 0], baseline)`: no picture's values multiply the heatmap's.

    Args:
        size: (H, W), or of any grid.
        num: how many.
        seed: of the sides and places, in NumPy.

    Raises:
        ValueError: no axis, or a number not positive.

    **Source**: Yeh et al. 2019, section 3.2, square removal, with sides of several lengths.
    """
    lengths = [check_integer("size", each, low=1) for each in size]
    if not lengths:
        raise ValueError("size must be that of a grid, as (H, W), but is empty")
    draws = np.random.default_rng(check_integer("seed", seed, low=0))
    masks = np.ones((check_integer("num", num, low=1), *lengths), bool)
    for axis, length in enumerate(lengths):
        side = draws.integers(max(length // 8, 1), max(length // 2, 1) + 1, num)
        first = draws.integers(0, length - side + 1)
        along = (first[:, None] <= np.arange(length)) & (np.arange(length) < (first + side)[:, None])
        masks &= along.reshape(num, *(length if i == axis else 1 for i in range(len(lengths))))
    return masks


def max_sensitivity(
    explain: Callable[[Any], Any], image: Image, perturbations: Perturbations, *, batch_size: int = 8
) -> Float[Array, ""]:
    """The largest |Φ(x + δ) - Φ(x)| / |Φ(x)| over the perturbations δ, in the Euclidean norm. Lower is better.

    Args:
        explain: Φ, from an input `[*grid, d]` to its map, of any shape.
        image: x, `[*grid, d]`.
        perturbations: δ, `[p, *grid, d]`: in the paper uniform between -r and r, with r = 0.2 of a standard deviation.
        batch_size: how many inputs `explain` sees at a time. It is called for p + 1.

    Returns:
        A scalar; NaN where Φ(x) is zero or a map not finite.

    Raises:
        ValueError: the shapes do not fit.

        TypeError: explain is not callable or does not return an array, or an array is not floating point.

    **Source**: Yeh et al. 2019, definition 3.1, relative to the norm of Φ(x) as in captum and Quantus: the scale of a
    map means nothing.
    """
    _check(explain, image, perturbations)
    x, delta = together(image, perturbations)
    inputs = jnp.concatenate([x[None], x[None] + delta]).astype(image.dtype)
    found = jax.lax.map(explain, inputs, batch_size=check_integer("batch_size", batch_size, low=1))
    if getattr(found, "ndim", 0) < 1:
        raise TypeError(f"explain must return a map, but it returned {type(found).__name__}")
    maps = found.reshape(len(inputs), -1)
    maps = maps / _largest(maps[0])
    norm = jnp.sqrt((maps[0] ** 2).sum())
    apart = jnp.sqrt(((maps[1:] - maps[:1]) ** 2).sum(1)).max()
    defined = jnp.isfinite(maps).all() & (norm > 0)
    return where_defined(defined, apart / jnp.where(norm > 0, norm, 1))


def _check(f: Any, image: Any, perturbations: Any) -> None:
    if not callable(f):
        raise TypeError(f"the first argument must be a function of an input, not {type(f).__name__}")
    check_image(image)
    check_all_floating(perturbations=perturbations)
    if perturbations.shape[1:] != image.shape or not len(perturbations):
        raise ValueError(
            f"perturbations must be [p, *grid, d] of the image {list(image.shape)}, p at least 1, but came as "
            f"{list(perturbations.shape)}"
        )

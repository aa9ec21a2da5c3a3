"""What becomes of the confidence Y when the network sees the explanation map instead of the image: O.

**Source**: Chattopadhay et al. 2018, section 4.1, for average drop, increase and win. Arrays are `[n]`, over images.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam.metrics.operands import Values, check_all_floating, check_same_shape, together, where_defined, widest


def _checked(**values: Values) -> tuple[Array, ...]:
    check_all_floating(**values)
    check_same_shape(**values)
    return together(*values.values())


def _percent(values: Array, counts: Array) -> Array:
    """100 times the mean of those that count; NaN where none does."""
    number = counts.sum()
    total = jnp.where(counts, values, 0).sum()
    return where_defined(number > 0, 100 * total / jnp.maximum(number, 1).astype(values.dtype))


def _finite(*values: Array) -> Bool[Array, "*n"]:
    finite = jnp.isfinite(values[0])
    for value in values[1:]:
        finite = finite & jnp.isfinite(value)
    return finite


def _relative_drop(y: Array, o: Array) -> Array:
    counts = _finite(y, o) & (y > 0)
    # The double where: the division stays finite where it does not count.
    drop = jax.nn.relu(jnp.where(counts, y - o, 0)) / jnp.where(counts, y, 1)
    return where_defined(counts, drop)


def relative_drop(y: Values, o: Values) -> Float[Array, "*n"]:
    """max(0, Y - O) / Y, image by image: a fraction, not percent.

    Args:
        y: Y, the confidence on the image, `[n]`.
        o: O, the confidence for the same class on its explanation map, `[n]`.

    Returns:
        `[n]`; NaN where Y <= 0, or Y or O is not finite.

    Raises:
        ValueError: the shapes differ, or there is no image.

        TypeError: not floating point.
    """
    a, b = _checked(y=y, o=o)
    return _relative_drop(a, b).astype(widest(y, o))


def average_drop(y: Values, o: Values) -> Float[Array, ""]:
    """Average drop in percent: 100 times the mean of max(0, Y - O) / Y. Lower is better.

    Images whose `relative_drop` is NaN do not count; NaN if none counts. Arguments and errors as there.

    **Source**: Chattopadhay et al. 2018, section 4.1 (i).
    """
    a, b = _checked(y=y, o=o)
    drop = _relative_drop(a, b)
    return _percent(drop, jnp.isfinite(drop)).astype(widest(y, o))


def absolute_drop(y: Values, o: Values) -> Float[Array, ""]:
    """100 times the mean of max(0, Y - O), not divided by Y: percent where Y is a probability. Lower is better.

    Other packages call this average drop. An uncertain image (Y = 0.1) can lose a tenth at most, while in
    `average_drop` it weighs as much as a certain one. Images with a Y or O that is not finite do not count; NaN if none
    counts. Arguments and errors as in `relative_drop`.
    """
    a, b = _checked(y=y, o=o)
    counts = _finite(a, b)
    return _percent(jax.nn.relu(jnp.where(counts, a - b, 0)), counts).astype(widest(y, o))


def increase_in_confidence(y: Values, o: Values) -> Float[Array, ""]:
    """The percentage of images with O > Y: more confident on the explanation map than on the image. Higher is better.

    Images with a Y or O that is not finite do not count; NaN if none counts. Arguments and errors as in
    `relative_drop`.

    **Source**: Chattopadhay et al. 2018, section 4.1 (ii).
    """
    a, b = _checked(y=y, o=o)
    return _percent((b > a).astype(a.dtype), _finite(a, b)).astype(widest(y, o))


def win(o_a: Values, o_b: Values, y: Values) -> Float[Array, ""]:
    """The percentage of images where confidence falls less with method a than with method b: Y - O_a < Y - O_b.

    That is O_a > O_b. The fall is not cut off at zero: where both methods raise the confidence, the one that raises it
    more wins. Only so do the published wins of two methods add up to 100. Equal ones are nobody's: win(a, b) +
    win(b, a) + ties = 100.

    Args:
        o_a: O with the explanation map of method a, `[n]`.
        o_b: O with that of method b, `[n]`.
        y: Y, `[n]`.

    Returns:
        Percent, of the images whose three values are finite and whose Y is positive; NaN if none counts.

    Raises:
        ValueError: the shapes differ, or there is no image.

        TypeError: not floating point.

    **Source**: Chattopadhay et al. 2018, section 4.1 (iii).
    """
    a, b, c = _checked(o_a=o_a, o_b=o_b, y=y)
    # O is compared, not Y - O: rounding of the differences would make ties of O that differ.
    return _percent((a > b).astype(a.dtype), _finite(a, b, c) & (c > 0)).astype(widest(o_a, o_b, y))


def ties(o_a: Values, o_b: Values, y: Values) -> Float[Array, ""]:
    """The percentage of images with O_a = O_b, which count as a win for neither. All else as in `win`."""
    a, b, c = _checked(o_a=o_a, o_b=o_b, y=y)
    return _percent((a == b).astype(a.dtype), _finite(a, b, c) & (c > 0)).astype(widest(o_a, o_b, y))


def drop_in_deletion(y: Values, o_inverse: Values) -> Float[Array, ""]:
    """The average drop, in percent, when what the map marks is taken away: O on (1 - L) ∘ I. Higher is better.

    Args:
        y: Y, the confidence on the image, `[n]`.
        o_inverse: the confidence on the inverse explanation map, `[n]`.

    Returns:
        Percent; what does not count, and the errors, are those of `average_drop`.

    **Source**: Jung and Oh 2021 (LIFT-CAM): average drop in deletion.
    """
    a, b = _checked(y=y, o_inverse=o_inverse)
    drop = _relative_drop(a, b)
    return _percent(drop, jnp.isfinite(drop)).astype(widest(y, o_inverse))

"""Targets: what of a model's outputs is explained, ready-made for `jaxcam.explain(target=...)`.

A target is any function `(outputs, inputs)` of one example, without the axis n, to a scalar or to scores `[*m]`, all of
which are explained. Yours may be a lambda:

    explain(model, inputs, target=lambda outputs, inputs: outputs["age"])

Each of those here takes `of`, which picks a part of outputs that are more than one array, as `of=lambda outputs:
outputs[1]`. Classes, places and references are arguments of the compiled program: another one does not compile anew.
They may be read from the inputs too, so that each example has its own:

    target=lambda outputs, inputs: targets.region(inputs["label"], inputs["mask"])(outputs, inputs)

A class or place that is read from the inputs and out of range gives NaN, and the status says so.

Targets of one place (`pixel`, `best_box`, `region` of a small mask) ask for `method="hires_cam"` or `"layer_cam"`,
which take each position's own gradient: Grad-CAM's weights are its means over all positions, and show a channel
wherever it is active (0.04 of the heat inside of the box that is meant, against 0.52, in notebooks/any_task.ipynb).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Shaped

from jaxcam import scores
from jaxcam.checks import is_integer
from jaxcam.scores import ClassIdx
from jaxcam.types import Target

__all__ = ["best_box", "contrast", "logit", "negated", "output", "pixel", "region", "similarity", "tokens"]


def __dir__() -> list[str]:
    return __all__


Of = Callable[[Any], Array]


def _all(outputs: Any) -> Array:
    return outputs


def logit(class_idx: ClassIdx, *, of: Of = _all) -> Target:
    """S_c: the class's entry of logits `[c]`: what `class_idx=` explains.

    Args:
        class_idx: c.
        of: picks the logits out of the outputs.

    Raises:
        TypeError: class_idx is no integer.
        ValueError: it is out of range (when the target is used).
    """
    wanted = _indices("class_idx", class_idx)
    return lambda outputs, inputs: _entry("class_idx", _array(of(outputs), 1, "[c]"), wanted)


def contrast(p: ClassIdx, q: ClassIdx, *, of: Of = _all) -> Target:
    """S_p - S_q: why class p rather than q.

    What both classes have in common cancels; the softmax's log-odds of the two are this difference.

    **Source**: Prabhushankar et al. 2020 (Contrastive explanations in neural networks), section 3, for the question.

    Raises:
        TypeError, ValueError: as `logit`.
    """
    first, second = _indices("p", p), _indices("q", q)

    def target(outputs: Any, inputs: Any) -> Array:
        logits = _array(of(outputs), 1, "[c]")
        return _entry("p", logits, first) - _entry("q", logits, second)

    return target


def region(class_idx: ClassIdx, mask: Shaped[Array, "..."] | Shaped[np.ndarray, "..."], *, of: Of = _all) -> Target:
    """The sum of S_c over the positions of a mask, for dense predictions `[*spatial, c]`.

    Args:
        class_idx: c.
        mask: `[*spatial]`, of the output's size; numbers weigh the positions.
        of: picks the predictions out of the outputs.

    **Source**: Vinogradova et al. 2020 (Seg-Grad-CAM), Eq. 3.

    Raises:
        TypeError, ValueError: as `logit`; the mask is not of the output's size, or empty.
    """
    wanted, weights = _indices("class_idx", class_idx), jnp.asarray(mask)
    if not _traced(weights) and not np.any(np.asarray(weights)):
        raise ValueError("mask must have positions that count but is zero everywhere")

    def target(outputs: Any, inputs: Any) -> Array:
        predictions = of(outputs)
        if not hasattr(predictions, "shape"):
            raise ValueError(
                f"outputs must be predictions [*spatial, c] for this target but are {_told(predictions)}: pick with of="
            )
        if predictions.shape[:-1] != weights.shape:
            raise ValueError(
                f"mask must be [*spatial] as the predictions {list(predictions.shape)} but is {list(weights.shape)}: "
                "resize it to the output"
            )
        scores_ = _entry("class_idx", jnp.moveaxis(predictions, -1, 0), wanted)
        return (scores_ * weights.astype(predictions.dtype)).sum()

    return target


def pixel(class_idx: ClassIdx, position: Sequence[ClassIdx] | Int[Array, " a"], *, of: Of = _all) -> Target:
    """S_c at one position of dense predictions `[*spatial, c]`.

    Raises:
        TypeError, ValueError: as `logit`; the position has another number of axes, or lies outside (when it is used).
    """
    wanted, place = _indices("class_idx", class_idx), _indices("position", *position)

    def target(outputs: Any, inputs: Any) -> Array:
        predictions = _array(of(outputs), place.shape[0] + 1, "[*spatial, c] with the position's axes")
        return _entry("class_idx", _at("position", predictions, place), wanted)

    return target


def best_box(
    class_idx: ClassIdx,
    reference: Sequence[float | int] | Float[Array, "4"] | Float[np.ndarray, "4"] | None = None,
    *,
    of: Callable[[Any], tuple[Array, Array]] = tuple,
) -> Target:
    """The maximum over the boxes of score_c(box) * IoU(box, reference): the detection that is meant.

    Args:
        class_idx: c.
        reference: (x0, y0, x1, y1) in the boxes' own units; None for the box with the highest score.
        of: takes the outputs to boxes `[b, 4]` as (x0, y0, x1, y1) and scores `[b, c]`.

    **Source**: Petsiuk et al. 2021 (D-RISE), section 3.2, for the product; without objectness.

    Raises:
        TypeError, ValueError: as `logit`; boxes and scores do not fit together.
    """
    wanted = _indices("class_idx", class_idx)
    meant = None if reference is None else jnp.asarray(reference, jnp.float32)
    if meant is not None and (meant.shape != (4,) or not (_traced(meant) or bool((meant[2:] > meant[:2]).all()))):
        raise ValueError(f"reference must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1 but is {reference!r}")

    def target(outputs: Any, inputs: Any) -> Array:
        picked = of(outputs)
        if not isinstance(picked, tuple | list) or [hasattr(each, "ndim") for each in picked] != [True] * 2:
            raise ValueError(
                f"outputs must be boxes [b, 4] and scores [b, c] for this target but are {_told(outputs)}: pick them "
                'with of=, as of=lambda outputs: (outputs["boxes"], outputs["scores"])'
            )
        boxes, classes = picked
        if boxes.ndim != 2 or boxes.shape[-1] != 4 or classes.shape[:-1] != boxes.shape[:1]:
            raise ValueError(
                f"of must return boxes [b, 4] and scores [b, c] but returned {list(boxes.shape)} and "
                f"{list(classes.shape)}: flatten their grids with reshape(-1, 4)"
            )
        values = _entry("class_idx", jnp.moveaxis(classes, -1, 0), wanted)
        return (values if meant is None else values * _overlap(boxes, meant.astype(boxes.dtype))).max()

    return target


def similarity(reference: Float[Array, " d"] | Float[np.ndarray, " d"], *, of: Of = _all) -> Target:
    """The cosine of the angle between an embedding `[d]` and a reference, such as that of another picture or a text.

    **Source**: Radford et al. 2021 (CLIP), section 2.3, for what is compared.

    Raises:
        ValueError: the reference is zero, or of another length than the embedding.
    """
    fixed = jnp.asarray(reference)
    if fixed.ndim != 1 or (not _traced(fixed) and not np.any(np.asarray(fixed))):
        raise ValueError(f"reference must be one embedding [d] other than zero but is {list(fixed.shape)}")

    def target(outputs: Any, inputs: Any) -> Array:
        embedding = _array(of(outputs), 1, "[d]")
        if embedding.shape != fixed.shape:
            raise ValueError(f"reference must be [d] as the embedding {list(embedding.shape)} but is {fixed.shape}")
        unit = fixed.astype(embedding.dtype)
        return embedding @ unit / (jnp.linalg.norm(embedding) * jnp.linalg.norm(unit))

    return target


def output(*index: ClassIdx, of: Of = _all) -> Target:
    """One number of the outputs, as of a regression: `output()` of a scalar, `output(2)` of a vector.

    Raises:
        TypeError, ValueError: the index is no integer, has another number of axes, or is out of range.
    """
    place = _indices("index", *index) if index else np.zeros(0, np.int32)

    def target(outputs: Any, inputs: Any) -> Array:
        values = of(outputs)
        if getattr(values, "shape", None) == (1,) and not index:  # [n, 1] of a regression
            return values[0]
        values = _array(values, place.shape[0], f"with {place.shape[0]} axes, one for each index")
        return _at("index", values, place)

    return target


def negated(target: Target) -> Target:
    """-t: what speaks against it, as what makes a regression's output smaller."""
    if not callable(target):
        raise TypeError(f"target must be a function (outputs, inputs) -> scores but is {type(target).__name__}")
    return lambda outputs, inputs: -target(outputs, inputs)


def tokens(ids: Int[Array, " t"] | Int[np.ndarray, " t"] | Sequence[int], *, ignore: int = -1, of: Of = _all) -> Target:
    """t_i = log p(token i | those before it), for logits `[t, v]` of a language model: all words at once.

    Args:
        ids: the token at each step, `[t]`.
        ignore: the id at steps that are not explained, as the pad is; they get the score 0.
        of: picks the logits out of the outputs.

    Raises:
        TypeError: the ids are no integers `[t]`, or `ignore` is none.
        ValueError: there are not as many as the logits have steps, or one is out of range.
    """
    if not is_integer(ignore):
        raise TypeError(f"ignore must be an integer but is {ignore!r}")
    wanted: Any = ids if _traced(ids) else np.asarray(ids)
    if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
        raise TypeError(f"ids must be integers [t] but are {wanted.dtype}{list(wanted.shape)}")

    def target(outputs: Any, inputs: Any) -> Array:
        logits = _array(of(outputs), 2, "[t, v]")
        if logits.shape[0] != wanted.shape[0]:
            raise ValueError(f"ids must be one for each of the {logits.shape[0]} steps but are {wanted.shape[0]}")
        wrong = (wanted != ignore) & ((wanted >= logits.shape[1]) | (wanted < 0))
        if not _traced(wrong) and wrong.any():
            raise ValueError(f"ids must be from 0 to {logits.shape[1] - 1}, or {ignore}, but one is {wanted[wrong][0]}")
        chosen = jnp.asarray(wanted, jnp.int32)
        found = jax.vmap(scores.log_softmax)(logits, jnp.where(chosen != ignore, chosen, 0))
        found = jnp.where(chosen != ignore, found, 0)
        return jnp.where(wrong, jnp.nan, found) if _traced(wrong) else found

    return target


def _traced(value: Any) -> bool:
    return isinstance(value, Tracer)


def _indices(name: str, *index: Any) -> Int[Array, " a"] | Int[np.ndarray, " a"]:
    """As an array of one axis: captured scalars would be constants of the program."""
    for each in index:
        whole = hasattr(each, "dtype") and each.shape == () and jnp.issubdtype(each.dtype, jnp.integer)
        if not (whole or is_integer(each)):
            raise TypeError(f"{name} must be an integer but is {each!r}")
    if any(_traced(each) for each in index):
        return jnp.stack([jnp.asarray(each, jnp.int32) for each in index])
    return np.asarray(index, np.int32)


def _entry(name: str, values: Array, wanted: Any) -> Array:
    """The entry of a class along the first axis."""
    return _checked(name, wanted, values.shape[:1], scores.logit(values, jnp.asarray(wanted)[0]))


def _at(name: str, values: Array, place: Any) -> Array:
    """What stands at a place of the first axes."""
    sizes = values.shape[: place.shape[0]]
    for axis in range(place.shape[0]):
        values = jax.lax.dynamic_index_in_dim(values, jnp.asarray(place)[axis], 0, keepdims=False)
    return _checked(name, place, sizes, values)


def _checked(name: str, index: Any, sizes: Sequence[int], found: Array) -> Array:
    """What was found at a place; a place out of range is refused, and one that is traced gives NaN there."""
    if _traced(index):
        return jnp.where(((index >= 0) & (index < jnp.asarray(sizes, index.dtype))).all(), found, jnp.nan)
    if any(not 0 <= i < size for i, size in zip(index, sizes, strict=True)):
        raise ValueError(f"{name} must be from 0 to {[size - 1 for size in sizes]} but is {index.tolist()}")
    return found


def _array(values: Any, num_axes: int, shape: str) -> Array:
    if not hasattr(values, "ndim") or values.ndim != num_axes:
        raise ValueError(
            f"outputs of one example must be {shape} for this target but are {_told(values)}: pick with of="
        )
    return values


def _told(outputs: Any) -> str:
    """What outputs are like: their shape, a dictionary's keys, or their type."""
    if hasattr(outputs, "shape"):
        return str(list(outputs.shape))
    kind = type(outputs).__name__
    return f"{kind} with {', '.join(map(repr, outputs))}" if isinstance(outputs, dict) else kind


def _overlap(boxes: Float[Array, "b 4"], one: Float[Array, " 4"]) -> Float[Array, " b"]:
    """Intersection over union."""
    low, high = jnp.maximum(boxes[:, :2], one[None, :2]), jnp.minimum(boxes[:, 2:], one[None, 2:])
    common = jnp.prod(jax.nn.relu(high - low), axis=1)
    union = _area(boxes) + _area(one) - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def _area(box: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    return jnp.prod(jax.nn.relu(box[..., 2:] - box[..., :2]), axis=-1)
